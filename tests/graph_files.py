"""Exported graphs of a small network, and what may be changed in them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from relo.models.encoders.nano import Nano
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.presence import ConvPresence
from relo.models.temporal import LayerAligned
from relo.tracking.rule import TrackingRule

RULE = TrackingRule(templates=2, window_exponent=0.7)
BENCHMARKS = {"lasot": {"window_exponent": 2.0}}


def nano() -> LocalizationNetwork:
    """A network with every head, under whose weights frames look different."""
    torch.manual_seed(0)
    sizes = {"heads": 2, "stem": (8, 16, 16), "correlation_groups": 4, "channels": 16, "max_templates": 2}
    heads = {"policy": ConvPolicy, "box": ConvBox, "critic": ConvCritic, "prior": ConvPrior}
    network = LocalizationNetwork(
        Nano(width=32, depth=2, **sizes, search_size=64, template_size=32),
        LayerAligned(32, 3, depth=2),
        **{name: part(16, [8]) for name, part in heads.items()},
        presence=ConvPresence(16, (8, 8)),
    )
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return network.eval()


def with_metadata(file: Path, entry: str | None) -> None:
    model = onnx.load(file)
    model.ClearField("metadata_props")
    if entry is not None:
        onnx.helper.set_model_props(model, {"relo": entry})
    onnx.save(model, file)


def change(file: Path, **changes) -> None:
    (entry,) = [entry for entry in onnx.load(file).metadata_props if entry.key == "relo"]
    with_metadata(file, json.dumps(json.loads(entry.value) | changes))


@contextmanager
def edited(file: Path) -> Iterator[onnx.GraphProto]:
    model = onnx.load(file)
    yield model.graph
    onnx.save(model, file)


def without_output(file: Path, name: str) -> None:
    with edited(file) as graph:
        graph.output.remove(next(output for output in graph.output if output.name == name))


def renamed(file: Path, old: str, new: str) -> None:
    """Give an input or output another name, in the nodes that read or write it, too."""
    with edited(file) as graph:
        for tensor in (*graph.input, *graph.output):
            tensor.name = new if tensor.name == old else tensor.name
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
