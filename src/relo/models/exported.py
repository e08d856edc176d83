"""Networks that `relo export` wrote, computed by onnxruntime from their two graphs alone."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from relo.errors import UserError
from relo.models.checkpoints.weights import SHIPPED
from relo.models.encoders.base import Templates
from relo.models.graph_metadata import FILES, GraphMetadata, graphs_in, read_metadata
from relo.models.graph_tensors import (
    HEAD_OF,
    NEXT_MEMORY,
    GraphTensor,
    are_of_step,
    are_of_templates,
    batch_axis,
    graph_tensors,
)
from relo.models.heads import Localization
from relo.models.network import HEADS, Head, LocalizationMaps, LocalizationNetwork


@dataclass(frozen=True)
class ExportedHead:
    """A head that a step runs, and the map that it belongs to."""

    localization: Localization


class ExportedNetwork(nn.Module):
    """A network for tracking that is called as a `LocalizationNetwork` is; its tensors are on the CPU on any device.

    Attributes:
        metadata: what the graphs say of themselves.
        encoder, prior, presence: as much of these parts as trackers read.
    """

    engine: Literal["onnxruntime"] = "onnxruntime"

    weights_hash: Tensor

    def __init__(self, path: str | Path, device: str | torch.device | None = None) -> None:
        """Open both graphs.

        Args:
            path: their folder, or one of the two files.
            device: where onnxruntime computes: "cpu", or "cuda" or "cuda:1" where it can; None is "cpu".

        Raises:
            UserError: a file is missing, is not such a graph, is broken or of a newer version, or has other inputs and
                outputs than its metadata say; the two are not of one network; or onnxruntime cannot compute on the
                device.
        """
        super().__init__()
        first = _graph_file(Path(path))
        graphs = {graph.kind: graph for graph in [Graph(first, device)]}
        for kind, name in FILES.items():
            if kind not in graphs:
                graphs[kind] = Graph(_sibling(first, name), device)
                if graphs[kind].kind != kind:
                    raise UserError(f"{graphs[kind].path} is not a graph of the {kind}: export the model again.")
        self._templates, self._step = graphs["templates"], graphs["step"]
        self.metadata = self._step.metadata
        if self._templates.metadata != self.metadata:
            raise UserError(
                f"{self._templates.path} and {self._step.path.name} are not of one network or one export: export the "
                "model again."
            )
        _require_described(self._templates, self._step)
        self.encoder = metadata = self.metadata  # which has the sizes
        self.prior = ExportedHead("prior") if "prior" in metadata.heads else None
        presence = metadata.presence_localization
        self.presence = None if presence is None else ExportedHead(presence)
        self.register_buffer("weights_hash", torch.tensor(list(bytes.fromhex(metadata.weights)), dtype=torch.uint8))

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """One tensor as large as all weights, without memory of its own: the weights lie in the graphs."""
        yield nn.Parameter(torch.zeros(()).expand(self.metadata.parameters), requires_grad=False)

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Templates [B, N, 3, Hz, Hz] with boxes [B, N, 4] (shares of the crop) -> what every frame needs."""
        return Templates(**self._templates({"images": images, "boxes_xywh": boxes_xywh}))

    def forward(
        self,
        search_images: Tensor,
        templates: Templates,
        memory: Tensor | None = None,
        heads: Collection[Head] = HEADS,
    ) -> tuple[LocalizationMaps, Tensor | None]:
        """One frame of B targets, as of a `LocalizationNetwork`."""
        inputs: dict[str, Tensor | None] = {"images": search_images, **vars(templates)}
        if "memory" in self._step.inputs:
            count = len(search_images)
            _, (layers, _, *token_shape) = self._step.inputs["memory"]
            inputs["memory"] = torch.zeros(layers, count, *token_shape) if memory is None else memory
            inputs["is_first"] = torch.full((count,), memory is None)
        outputs = self._step({name: tensor for name, tensor in inputs.items() if tensor is not None})
        next_memory = outputs.pop(NEXT_MEMORY, None)
        return LocalizationMaps(**{name: m for name, m in outputs.items() if HEAD_OF[name] in heads}), next_memory


TrackableNetwork = LocalizationNetwork | ExportedNetwork
"""What a tracker can follow targets with: only what both have in common is used."""


class Graph:
    """One graph, run in float32 with as many threads as torch has.

    Attributes:
        path: its file.
        kind, metadata: which graph it is, and of what.
        inputs, outputs: their types and shapes by name.
    """

    def __init__(self, path: Path, device: str | torch.device | None = None) -> None:
        """Open a file, see `ExportedNetwork`."""
        self.path = path
        self._device = torch.device("cpu") if device is None else _device(device)
        self._start()
        self.kind, self.metadata = read_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        self.inputs: dict[str, GraphTensor] = graph_tensors(self._session.get_inputs())
        self.outputs: dict[str, GraphTensor] = graph_tensors(self._session.get_outputs())

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name for B targets; a graph with a fixed number of targets runs as often as it takes."""
        if self._threads != torch.get_num_threads():
            self._start()
        count = len(inputs["images"])
        size = self.metadata.batch or count
        runs = [self._run(inputs, range(start, min(start + size, count)), size) for start in range(0, count, size)]
        if len(runs) == 1:
            return runs[0]
        return {name: torch.cat([run[name] for run in runs], dim=batch_axis(name)) for name in self.outputs}

    def _run(self, inputs: Mapping[str, Tensor], targets: range, size: int) -> dict[str, Tensor]:
        """Run some of the targets; where they are fewer than a run has, the last one fills the places.

        Raises:
            UserError: the graph breaks off, or gives something else than it declares.
        """
        rows = torch.tensor([*targets] + [targets[-1]] * (size - len(targets)))
        arrays = {name: tensor.index_select(batch_axis(name), rows).numpy() for name, tensor in inputs.items()}
        try:
            found = dict(zip(self.outputs, self._session.run([*self.outputs], arrays), strict=True))
        except Exception as error:  # those of onnxruntime have no base of their own
            raise UserError(f"{self.path} breaks off ({error}): export the model again.") from error
        for name, array in found.items():
            declared = [size if side is None else side for side in self.outputs[name][1]]
            if [*array.shape] != declared:
                raise UserError(f"{self.path} gives {name} of shape {[*array.shape]}, but declares {declared}.")
        return {n: torch.from_numpy(array).narrow(batch_axis(n), 0, len(targets)) for n, array in found.items()}

    def _start(self) -> None:
        self._threads = torch.get_num_threads()
        self._session = open_session(self.path, self._device)


def _require_described(templates: Graph, step: Graph) -> None:
    """Refuse graphs whose inputs or outputs are not what their metadata say.

    Raises:
        UserError: a graph is not; it is named.
    """
    metadata = step.metadata
    for graph, is_described in (
        (templates, are_of_templates(metadata, templates.inputs, templates.outputs)),
        (step, are_of_step(metadata, templates.outputs, step.inputs, step.outputs)),
    ):
        if not is_described:
            raise UserError(f"{graph.path} is not a graph that its metadata describe: export the model again.")


def session_options(threads: int) -> Any:
    """Of onnxruntime, for a session that computes with so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from torch's, and from other programs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(path: Path, device: torch.device, optimize: bool = True) -> Any:
    """A session of onnxruntime with torch's number of threads.

    Raises:
        UserError: it is not installed, cannot read the file, or cannot compute on the device.
    """
    if find_spec("onnxruntime") is None:
        raise UserError(f"{path} is run by the package onnxruntime, which is not installed: pip install onnxruntime.")
    import onnxruntime

    no_device = UserError(
        f"onnxruntime cannot compute on {device} here: pip install onnxruntime-gpu, or take the device cpu."
    )
    if not _has(device, onnxruntime.get_available_providers()):
        raise no_device
    options = session_options(torch.get_num_threads())
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        # TF32 would round products, and boxes would move.
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0, "use_tf32": 0}))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # those of onnxruntime have no base of their own
        raise UserError(
            f"{path} is not a graph that onnxruntime {onnxruntime.__version__} can run, or is truncated: export the "
            "model again."
        ) from error
    if not _has(device, session.get_providers()):  # its libraries are missing
        raise no_device
    return session


def _has(device: torch.device, providers: Collection[str]) -> bool:
    return device.type == "cpu" or "CUDAExecutionProvider" in providers


def is_onnx(path: str | Path) -> bool:
    """Whether a path means exported graphs: an `.onnx` file, or a folder with one of the two."""
    path = Path(path)
    return path.suffix == ".onnx" or bool(graphs_in(path))


def names_graphs(model: str | Path) -> bool:
    """Whether a model that is still to be found is exported graphs; the shipped network's name never means a folder."""
    return model != SHIPPED and is_onnx(model)


def exported_metadata(path: str | Path) -> GraphMetadata:
    """The metadata of exported graphs, given their folder or one of the two.

    Raises:
        UserError: as of `ExportedNetwork`.
    """
    file = _graph_file(Path(path))
    entries = open_session(file, torch.device("cpu"), optimize=False).get_modelmeta().custom_metadata_map
    return read_metadata(entries, file)[1]


def _graph_file(path: Path) -> Path:
    """The file that is meant, or the first of a folder's."""
    if path.is_dir():
        return _sibling(path / FILES["step"], FILES["templates"])
    if not path.is_file():
        raise UserError(f"There is no file {path}; `relo export` writes {' and '.join(FILES.values())}.")
    return path


def _sibling(file: Path, name: str) -> Path:
    sibling = file.with_name(name)
    if not sibling.is_file():
        raise UserError(f"There is no {name} in {file.parent}: both graphs of `relo export` belong in one folder.")
    return sibling


def _device(name: str | torch.device) -> torch.device:
    """The device of a name, whether or not torch itself can compute there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"Exported graphs are computed on cpu or cuda, not on {str(name)!r}.")
    return device
