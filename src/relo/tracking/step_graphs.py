"""Step graphs on disk: those that come with the package, and those that were made here, in the user's cache folder.

A graph has no weights (see `relo.models.export.step_graph`): one serves every network of its structure, as training
leaves it. It is a zip file of `step.onnx` and `weights.json`, the names of the tensors that it lacks.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from relo.models.checkpoints.cache import cache_folder
from relo.models.network import Head, LocalizationNetwork

PACKAGED = Path(__file__).parent / "graphs"

_FORMAT = 1
"""To be counted up when what is written changes, so that old files are not read."""

_GRAPH, _WEIGHTS = "step.onnx", "weights.json"


@dataclass(frozen=True)
class StepGraph:
    """An ONNX model of one step of one target, and the names of the network's tensors that it lacks."""

    model: bytes
    weights: list[str]


def graph_name(network: LocalizationNetwork, templates: int, heads: Collection[Head]) -> str:
    """The file of a network's step graph: a hash of everything that its structure depends on."""
    tensors = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in network.state_dict().items()]
    structure = {"config": network.config(), "tensors": tensors, "templates": templates, "heads": sorted(heads)}
    text = json.dumps([_FORMAT, structure], sort_keys=True, default=str)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.zip"


def stored_graphs(name: str) -> Iterator[StepGraph]:
    """The graphs that there are under a name: the package's, then the cache's; broken files are passed over."""
    for folder in (PACKAGED, _cached()):
        if folder is not None:
            with suppress(OSError, BadZipFile, KeyError, ValueError), ZipFile(folder / name) as file:
                yield StepGraph(file.read(_GRAPH), json.loads(file.read(_WEIGHTS)))


def keep_graph(name: str, graph: StepGraph) -> None:
    """Write a graph into the cache, whole or not at all; one that cannot be written is made again next time."""
    folder = _cached()
    if folder is None:
        return
    with suppress(OSError):
        write_graph(folder / name, graph)


def write_graph(path: Path, graph: StepGraph) -> None:
    """Write a graph to a file, the same bytes each time.

    Raises:
        OSError: the file cannot be written; nothing is left of it.
    """
    buffer = BytesIO()
    with ZipFile(buffer, "w") as file:
        for name, contents in ((_GRAPH, graph.model), (_WEIGHTS, json.dumps(graph.weights).encode())):
            file.writestr(ZipInfo(name), contents, ZIP_DEFLATED)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _cached() -> Path | None:
    with suppress(RuntimeError):  # the user has no home
        return cache_folder() / "graphs"
    return None
