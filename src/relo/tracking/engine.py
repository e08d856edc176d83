"""What computes a network's steps: torch, or onnxruntime, which takes half the time for small networks on CPUs.

onnxruntime runs a step graph, which has no weights (see `relo.models.export.step_graph`): one serves every network of
its structure, as training leaves it. Graphs are zip files of `step.onnx` and `weights.json`, the names of the tensors
that it lacks; they come with the package, or were made here and lie in the user's cache folder.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import torch
from torch import Tensor

from relo.console import make_console
from relo.errors import UserError
from relo.files import atomic_write
from relo.models.checkpoints.cache import cache_folder
from relo.models.devices import is_small
from relo.models.encoders.base import Templates
from relo.models.export import (
    TOLERANCE,
    MissingExporterError,
    example_crops,
    require_exporter,
    step_graph,
    step_tensors,
)
from relo.models.exported import TrackableNetwork, session_options
from relo.models.graph_tensors import NEXT_MEMORY, batch_axis
from relo.models.inference import Precision, computing
from relo.models.network import HEADS, Head, LocalizationMaps, LocalizationNetwork

Engine = Literal["torch", "onnxruntime"]
EngineChoice = Literal["auto", "torch", "onnxruntime"]

PACKAGED = Path(__file__).parent / "graphs"

_FORMAT = 1
"""To be counted up when what is written changes, so that old files are not read."""

logger = logging.getLogger(__name__)

Forward = Callable[..., tuple[LocalizationMaps, Tensor | None]]
"""What is called like a `LocalizationNetwork`."""


def start_engine(
    choice: EngineChoice,
    network: TrackableNetwork,
    device: torch.device,
    precision: Precision,
    templates: int,
    heads: Collection[Head],
) -> tuple[Engine, Forward]:
    """What computes a network's steps.

    Args:
        choice: "torch", "onnxruntime", or "auto": onnxruntime for small networks in float32 on a CPU, where there is a
            step graph or one can be made, else torch. `$RELO_ENGINE` says what "auto" is, if it is set.
        network: the network, on the device and in evaluation mode; an exported one computes by itself.
        device: where to compute.
        precision: of the network's layers.
        templates: how many templates a target has.
        heads: those to run.

    Returns:
        The engine that was taken, and the network by it.

    Raises:
        UserError: there is no such engine; or onnxruntime is asked for, and cannot compute this network here.
    """
    if network.engine == "onnxruntime":
        return network.engine, network
    if choice == "auto":
        choice = os.environ.get("RELO_ENGINE") or "auto"  # type: ignore[assignment]
    if choice not in get_args(EngineChoice):
        raise UserError(f"There is no engine {choice!r}; give {', '.join(get_args(EngineChoice))}.")
    fits = device.type == "cpu" and precision == "float32"
    if choice == "onnxruntime" and not fits:
        raise UserError(
            f"The engine onnxruntime computes in float32 on the CPU, not in {precision} on {device}: leave precision "
            "and device so, or take the engine torch."
        )
    if choice == "onnxruntime":
        return choice, ONNXNetwork(network, templates, heads)
    if choice == "auto" and fits and is_small(network) and find_spec("onnxruntime") is not None:
        try:
            return "onnxruntime", ONNXNetwork(network, templates, heads)
        except MissingExporterError:
            pass
        except UserError as error:
            logger.warning("torch computes this network, which makes it slower: %s", error)
    return "torch", network


@dataclass(frozen=True)
class StepGraph:
    """An ONNX model of one step of one target, and the names of the network's tensors that it lacks."""

    model: bytes
    weights: list[str]


class ONNXNetwork:
    """A network whose steps onnxruntime computes, in float32 on the CPU, with as many threads as torch has.

    Each target is a run of its own, so its maps do not depend on the others, not even in rounding; a batch would hardly
    take less of the cores. Of a small network each thread computes a target; of a large one, all the same target.
    On first frames, where there is no memory yet, torch computes.
    """

    def __init__(self, network: LocalizationNetwork, templates: int, heads: Collection[Head]) -> None:
        """Take a step graph that was made before, if there is one that agrees with the network, or make it.

        Args:
            network: the network, on the CPU and in evaluation mode; its weights must not change any more.
            templates: how many templates a target has.
            heads: those to run; calls must name the same.

        Raises:
            UserError: onnxruntime, or what is needed to make a graph, is not installed; or the network cannot be
                exported, or its graph does not agree with it.
        """
        if find_spec("onnxruntime") is None:
            raise UserError("The engine onnxruntime is not installed: pip install onnxruntime.")
        self._network = network
        self._is_small = is_small(network)
        name = graph_name(network, templates, heads)
        for graph in stored_graphs(name):
            try:
                self._load(graph)
                if self._agrees(templates, heads):
                    return
            except Exception as error:  # whatever is wrong with a file, another one can be made
                logger.debug("The step graph %s cannot be used: %s", name, error)
        require_exporter()
        make_console(stderr=True).print("Making this network's graph for onnxruntime, once; it takes some seconds.")
        graph = StepGraph(*step_graph(network, templates, heads))
        self._load(graph)
        if not self._agrees(templates, heads):
            raise UserError("The graph that was made of this network does not compute what the network does.")
        with suppress(UserError):  # one that cannot be kept is made again next time
            for folder in _graph_folders()[1:]:
                write_graph(folder / name, graph)

    def __call__(
        self,
        search_images: Tensor,
        templates: Templates,
        memory: Tensor | None = None,
        heads: Collection[Head] = HEADS,
    ) -> tuple[LocalizationMaps, Tensor | None]:
        """One frame of B targets, as of the network."""
        if memory is None and "memory" in self._inputs:
            targets = [slice(i, i + 1) for i in range(len(search_images))]
            firsts = [self._network(search_images[target], templates[target], None, heads) for target in targets]
            steps = [vars(maps) | {NEXT_MEMORY: next_memory} for maps, next_memory in firsts]
        else:
            steps = self._run(search_images, templates, memory)
        outputs = {
            name: torch.cat([step[name] for step in steps], dim=batch_axis(name))
            for name, value in steps[0].items()
            if value is not None
        }
        next_memory = outputs.pop(NEXT_MEMORY, None)
        return LocalizationMaps(**outputs), next_memory

    def _run(self, search_images: Tensor, templates: Templates, memory: Tensor | None) -> list[dict[str, Tensor]]:
        """The outputs for each target, by name."""
        if self._threads != torch.get_num_threads():
            self._start()
        tensors = {"images": search_images, **vars(templates), "memory": memory}
        inputs = [tensor.split(1, batch_axis(name)) for name, tensor in tensors.items() if tensor is not None]
        targets = [
            dict(zip(self._inputs, (tensor.numpy() for tensor in target), strict=True))
            for target in zip(*inputs, strict=True)
        ]
        apply = map if len(targets) == 1 or self._pool is None else self._pool.map
        runs = list(apply(partial(self._session.run, None), targets))
        return [dict(zip(self._outputs, map(torch.from_numpy, arrays), strict=True)) for arrays in runs]

    def _load(self, graph: StepGraph) -> None:
        self._graph = graph
        tensors = step_tensors(self._network)
        self._weights = [tensors[name].detach().contiguous().numpy() for name in graph.weights]
        self._start()
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def _start(self) -> None:
        """Start onnxruntime, and threads to call it from, for torch's number of threads."""
        import onnxruntime

        self._threads = torch.get_num_threads()
        # The operations of a small network are over before a sleeping thread is awake.
        callers, threads_of_each = (self._threads, 1) if self._is_small else (1, self._threads)
        self._pool = ThreadPoolExecutor(callers, "onnxruntime") if callers > 1 else None
        options = session_options(threads_of_each)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in self._weights]
        options.add_external_initializers(self._graph.weights, values)
        self._session: Any = onnxruntime.InferenceSession(
            self._graph.model, options, providers=["CPUExecutionProvider"]
        )

    @torch.inference_mode()
    def _agrees(self, templates: int, heads: Collection[Head]) -> bool:
        """Whether all maps and the next memory of an example are the network's, but for rounding."""
        example = example_step(self._network, templates, heads)
        with computing(torch.device("cpu"), "float32"):
            (expected, expected_memory), (found, found_memory) = (
                forward(*example, heads) for forward in (self._network, self)
            )
        pairs = zip((*vars(found).values(), found_memory), (*vars(expected).values(), expected_memory), strict=True)
        return all(
            value is other
            if value is None or other is None
            else torch.allclose(value, other, rtol=1e-4, atol=TOLERANCE, equal_nan=True)
            for value, other in pairs
        )


@torch.inference_mode()
def example_step(
    network: LocalizationNetwork, templates: int, heads: Collection[Head]
) -> tuple[Tensor, Templates, Tensor | None]:
    """Search images of one target at its second frame, its templates and its memory."""
    images, boxes_xywh, search_images = example_crops(network, templates, batch=1, frames=2)
    with computing(torch.device("cpu"), "float32"):
        encoded = network.encode_templates(images, boxes_xywh)
        _, memory = network(search_images[0], encoded, None, heads)
    return search_images[1], encoded, memory


def graph_name(network: LocalizationNetwork, templates: int, heads: Collection[Head]) -> str:
    """The file of a network's step graph: a hash of everything that its structure depends on."""
    tensors = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in network.state_dict().items()]
    structure = {"config": network.config(), "tensors": tensors, "templates": templates, "heads": sorted(heads)}
    text = json.dumps([_FORMAT, structure], sort_keys=True, default=str)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.zip"


def _graph_folders() -> list[Path]:
    """The package's, and the cache's, unless the user has no home."""
    with suppress(UserError):
        return [PACKAGED, cache_folder() / "graphs"]
    return [PACKAGED]


def stored_graphs(name: str) -> Iterator[StepGraph]:
    """The graphs that there are under a name: the package's, then the cache's; broken files are passed over."""
    for folder in _graph_folders():
        with suppress(OSError, BadZipFile, KeyError, ValueError), ZipFile(folder / name) as file:
            yield StepGraph(file.read("step.onnx"), json.loads(file.read("weights.json")))


def write_graph(path: Path, graph: StepGraph) -> None:
    """Write a graph to a file, the same bytes each time.

    Raises:
        UserError: the file cannot be written; nothing is left of it.
    """
    with atomic_write(path) as partial, ZipFile(partial, "w") as file:
        file.writestr(ZipInfo("step.onnx"), graph.model, ZIP_DEFLATED)
        file.writestr(ZipInfo("weights.json"), json.dumps(graph.weights).encode(), ZIP_DEFLATED)
