"""Networks as ONNX graphs: one encodes a target's templates, one makes a tracking step, memory in and out."""

import os
import warnings
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relo.errors import UserError
from relo.files import atomic_write
from relo.models.checkpoints.states import state_hash
from relo.models.checkpoints.weights import WEIGHTS_FILE
from relo.models.encoders.base import Templates
from relo.models.exported import ExportedNetwork
from relo.models.graph_metadata import ENTRY, FILES, GraphKind, GraphMetadata
from relo.models.graph_tensors import NEXT_MEMORY, batch_axis
from relo.models.network import HEADS, Head, LocalizationNetwork
from relo.models.temporal import TemporalPropagator

TOLERANCE = 1e-3
"""The most that a graph may differ from the network, in logits and shares of the search side."""

OPSET = 20

ALWAYS_EXPORTED: tuple[Head, ...] = ("policy", "box", "presence")
"""The heads whose maps every exported step gives, as far as the network has them."""


class MissingExporterError(UserError):
    """Packages that graphs are made with are not installed."""


class TemplateEncoder(nn.Module):
    """Template images [B, N, 3, Hz, Hz] and boxes_xywh [B, N, 4] -> tokens [B, M, C], and a kernel if there is one."""

    def __init__(self, network: LocalizationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, boxes_xywh: Tensor) -> dict[str, Tensor]:
        """What every frame needs of the targets, by the names of a step's inputs."""
        return _given(vars(self.network.encode_templates(images, boxes_xywh)))


class TrackingStep(nn.Module):
    """One frame of B targets, of which some may be at their first frame."""

    def __init__(self, network: LocalizationNetwork, heads: Collection[Head]) -> None:
        """Args: `network`; `heads`, those whose maps are given."""
        super().__init__()
        self.network = network
        self.heads = heads

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        kernel: Tensor | None = None,
        memory: Tensor | None = None,
        is_first: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Maps and, if tokens are propagated, the next memory.

        Args:
            images: search images [B, 3, Hx, Hx].
            tokens: [B, M, C], of the templates.
            kernel: of the templates, where the encoder has one.
            memory: [layers, B, K, C], if tokens are propagated.
            is_first: [B] bool, given with the memory, which is not read for a target at its first frame.

        Returns:
            The maps that the network has, by their names in `LocalizationMaps`, and the memory as `next_memory`.
        """
        propagator = self.network.propagator
        if is_first is not None:
            propagator = _FirstFrames(propagator, is_first)
        features, memory = self.network.encoder(images, Templates(tokens, kernel), propagator, memory)
        maps = self.network.localize(features, self.heads)
        return _given(vars(maps) | {NEXT_MEMORY: memory})


class _FirstFrames(TemporalPropagator):
    """A propagator for batches in which some targets are at their first frame.

    There, the previous slot is a second copy of the current one and stays so from layer to layer, since equal tokens
    gather equal things. So the current slot replaces the missing memory, where the propagator puts it in.
    """

    def __init__(self, propagator: TemporalPropagator, is_first: Tensor) -> None:
        nn.Module.__init__(self)  # the tokens are the other's
        self.propagator = propagator
        self.is_first = is_first[:, None, None]

    def start(self, batch: int, memory: Tensor | None) -> Tensor:
        assert memory is not None
        return self.propagator.start(batch, torch.where(self.is_first, self.propagator.current(batch), memory))

    def before_layer(
        self, index: int, tokens: Tensor, static: int, memory: Tensor | None, record: list[Tensor]
    ) -> Tensor:
        given, tokens = tokens, self.propagator.before_layer(index, tokens, static, memory, record)
        if tokens is given:
            return tokens
        current, previous = tokens[:, static:].chunk(2, dim=1)
        return torch.cat([tokens[:, :static], current, torch.where(self.is_first, current, previous)], dim=1)

    def tokens_read(self, next_layer: int | None, has_memory: bool) -> int:
        return self.propagator.tokens_read(next_layer, has_memory)

    def after_layers(self, tokens: Tensor, static: int, record: list[Tensor]) -> Tensor | None:
        return self.propagator.after_layers(tokens, static, record)


def require_exporter() -> None:
    """Refuse to go on without the export extra.

    Raises:
        MissingExporterError: a package of it is not installed; it is named.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingExporterError(
                f"A graph is made with the package {package}, which is not installed: pip install 'relo[export]'."
            )


def export_onnx(
    network: LocalizationNetwork,
    folder: str | Path,
    templates: int = 1,
    batch: int | None = None,
    heads: Collection[Head] = (),
    tracking: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write `templates.onnx` and `step.onnx` into a folder, each with the metadata that tracking needs.

    Args:
        network: the network; it is put into evaluation mode.
        folder: where to write.
        templates: how many templates a target has.
        batch: how many targets a step has; any number by default.
        heads: those whose maps are given beyond `ALWAYS_EXPORTED`.
        tracking: settings of the tracking rule; the default ones if not given.

    Returns:
        The names of the step's outputs.

    Raises:
        UserError: the export extra is not installed, the network cannot be exported with the batch left open, the
            folder holds a model, or a file cannot be written.
    """
    require_exporter()
    folder = Path(folder)
    if os.path.lexists(folder / WEIGHTS_FILE):
        raise UserError(f"{folder} holds a model ({WEIGHTS_FILE}); give graphs a folder of their own.")
    network = network.eval()
    template_inputs, step_inputs = _example_inputs(network, templates, batch or 2)
    if "memory" in step_inputs:
        step_inputs["is_first"] = torch.zeros(batch or 2, dtype=torch.bool)
    run = {head for head in (*ALWAYS_EXPORTED, *heads) if getattr(network, head) is not None}
    metadata = GraphMetadata(
        search_size=network.encoder.search_size,
        template_size=network.encoder.template_size,
        map_size=network.encoder.map_size,
        templates=templates,
        batch=batch,
        heads=tuple(sorted(run)),
        presence_localization=None if network.presence is None else network.presence.localization,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights=state_hash(network.state_dict()),
        tracking=tracking or {},
    )
    programs: dict[GraphKind, torch.onnx.ONNXProgram] = {
        "templates": _program(TemplateEncoder(network), template_inputs, batch),
        "step": _program(TrackingStep(network, {*ALWAYS_EXPORTED, *heads}), step_inputs, batch),
    }
    for kind, program in programs.items():
        program.model.metadata_props[ENTRY] = metadata.to_json(kind)
        _save(program, folder / FILES[kind])
    return [str(output.name) for output in programs["step"].model.graph.outputs]


def _save(program: Any, path: Path) -> None:
    with atomic_write(path) as partial:
        program.save(str(partial), external_data=False)


def step_graph(network: LocalizationNetwork, templates: int, heads: Collection[Head]) -> tuple[bytes, list[str]]:
    """The step of one target that has a memory (if tokens are propagated) as a graph without the network's weights.

    A graph of some 100 kB, which holds for every network of this structure.

    Args:
        network: the network; it is put into evaluation mode.
        templates: how many templates the target has.
        heads: those whose maps are given.

    Returns:
        The ONNX model, and the names of the tensors in `step_tensors` that it lacks, to be added when it is loaded.

    Raises:
        UserError: the export extra is not installed, or the network cannot be exported.
    """
    require_exporter()
    from onnx import TensorProto
    from onnxscript import optimizer

    _, inputs = _example_inputs(network.eval(), templates, batch=1)
    program = _program(TrackingStep(network, heads), inputs, batch=1, optimize=False)
    weights = step_tensors(network).keys() & program.model.graph.initializers.keys()

    def keep_weights(node: Any) -> bool | None:
        return False if any(value is not None and value.name in weights for value in node.inputs) else None

    # What torch's own optimization does, but for constants that would be computed of weights.
    for _ in range(2):
        optimizer.inline(program.model)
        optimizer.fold_constants(program.model, onnx_shape_inference=True, should_fold=keep_weights)
        optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    missing = [tensor for tensor in model.graph.initializer if tensor.name in weights]
    for tensor in missing:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights")
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output, model.graph):
        item.ClearField("metadata_props")  # stack traces
        item.ClearField("doc_string")
    model.graph.ClearField("value_info")
    return model.SerializeToString(), [tensor.name for tensor in missing]


def step_tensors(network: LocalizationNetwork) -> dict[str, Tensor]:
    """The network's tensors by the names that they have in `step_graph`."""
    step = TrackingStep(network, HEADS)
    return dict(chain(step.named_parameters(remove_duplicate=False), step.named_buffers(remove_duplicate=False)))


@torch.inference_mode()
def largest_difference(
    network: LocalizationNetwork, folder: str | Path, template_images: Tensor, boxes_xywh: Tensor, search_images: Tensor
) -> float:
    """Track with the network, and with its graphs in onnxruntime, each with its own memory.

    Args:
        network: what was exported.
        folder: of `export_onnx`.
        template_images: [B, N, 3, Hz, Hz].
        boxes_xywh: [B, N, 4], shares of the template's side.
        search_images: T frames [T, B, 3, Hx, Hx].

    Returns:
        The largest absolute difference of the maps that the graphs give, over all frames and cells.
    """
    graphs = ExportedNetwork(folder)
    templates = network.encode_templates(template_images, boxes_xywh)
    graph_templates = graphs.encode_templates(template_images, boxes_xywh)
    memory, graph_memory, differences = None, None, []
    for images in search_images:
        maps, memory = network(images, templates, memory)
        found, graph_memory = graphs(images, graph_templates, graph_memory)
        differences += [(m - getattr(maps, name)).abs().max() for name, m in vars(found).items() if m is not None]
    return torch.stack(differences).max().item()


def example_crops(
    network: LocalizationNetwork, templates: int, batch: int, frames: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, the same each time: template images [B, N, 3, Hz, Hz], their boxes_xywh, search images [T, B, 3, Hx, Hx].

    The boxes [B, N, 4] are shares of the template's side.
    """
    encoder, generator = network.encoder, torch.Generator().manual_seed(0)
    images = torch.randn(batch, templates, 3, encoder.template_size, encoder.template_size, generator=generator)
    boxes_xywh = torch.tensor([0.25, 0.25, 0.5, 0.5]).repeat(batch, templates, 1)
    search_images = torch.randn(frames, batch, 3, encoder.search_size, encoder.search_size, generator=generator)
    return images, boxes_xywh, search_images


@torch.inference_mode()
def _example_inputs(
    network: LocalizationNetwork, templates: int, batch: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs of both graphs by name, in order."""
    images, boxes_xywh, (search_images,) = example_crops(network, templates, batch, frames=1)
    encoded = network.encode_templates(images, boxes_xywh)
    _, memory = network.encode(search_images, encoded, None)
    step_inputs = _given({"images": search_images, **vars(encoded), "memory": memory})
    return {"images": images, "boxes_xywh": boxes_xywh}, step_inputs


def _given(tensors: dict[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _program(
    module: nn.Module, inputs: dict[str, Tensor], batch: int | None, optimize: bool = True
) -> torch.onnx.ONNXProgram:
    """A module as an ONNX program, which keeps the names of inputs and outputs.

    Raises:
        UserError: it cannot be exported.
    """
    with torch.inference_mode():
        outputs = list(module.eval()(**inputs))
    open_batch = torch.export.Dim("batch", min=1)
    axes = {name: {batch_axis(name): open_batch} for name in inputs} if batch is None else None
    inputs = {name: tensor.clone() for name, tensor in inputs.items()}  # out of inference mode
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                torch.export.export(module, (), inputs, dynamic_shapes=axes),
                input_names=list(inputs),
                output_names=outputs,
                opset_version=OPSET,
                optimize=optimize,
                verbose=False,
            )
    except (RuntimeError, ValueError, torch.onnx.OnnxExporterError) as error:
        if batch is None:
            raise UserError(
                "This network cannot be exported for any number of targets; fix the number with --batch 1."
            ) from error
        raise UserError(f"This network cannot be exported: {str(error).splitlines()[0]}") from error
    assert exported is not None
    return exported
