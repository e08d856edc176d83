"""What computes a network's steps: torch, or onnxruntime, which takes half the time for small networks on CPUs."""

import logging
import os
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any, Literal, Protocol, get_args

import torch
from rich.console import Console
from torch import Tensor

from relo.errors import UserError
from relo.models.devices import is_small
from relo.models.encoders.base import Templates
from relo.models.export import NEXT_MEMORY, TOLERANCE, MissingExporterError, require_exporter, step_graph, step_tensors
from relo.models.inference import Precision, computing
from relo.models.network import HEADS, Head, LocalizationMaps, LocalizationNetwork
from relo.tracking.step_graphs import StepGraph, graph_name, keep_graph, stored_graphs

Engine = Literal["torch", "onnxruntime"]
EngineChoice = Literal["auto", "torch", "onnxruntime"]

logger = logging.getLogger(__name__)


class Forward(Protocol):
    """What is called like a `LocalizationNetwork`."""

    def __call__(
        self,
        search_images: Tensor,
        templates: Templates,
        memory: Tensor | None = None,
        heads: Collection[Head] = HEADS,
    ) -> tuple[LocalizationMaps, Tensor | None]:
        """One frame of B targets."""
        ...


class ONNXNetwork:
    """A network whose steps onnxruntime computes, in float32 on the CPU, with as many threads as torch has.

    The step graph is one that was made before, if there is one that agrees with the network, or is made now. Targets
    run one after another, which is as fast as together. On first frames, where there is no memory yet, torch computes.
    """

    def __init__(self, network: LocalizationNetwork, templates: int, heads: Collection[Head]) -> None:
        """Find or make the step graph.

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
        self._heads = tuple(heads)
        self._threads = 0
        name = graph_name(network, templates, self._heads)
        example = _example(network, templates, self._heads)
        for graph in stored_graphs(name):
            try:
                self._load(graph)
                if self._agrees(*example):
                    return
            except Exception as error:  # whatever is wrong with a file, another one can be made
                logger.debug("The step graph %s cannot be used: %s", name, error)
        graph = _made(network, templates, self._heads)
        self._load(graph)
        if not self._agrees(*example):
            raise UserError("The graph that was made of this network does not compute what the network does.")
        keep_graph(name, graph)

    def __call__(
        self,
        search_images: Tensor,
        templates: Templates,
        memory: Tensor | None = None,
        heads: Collection[Head] = HEADS,
    ) -> tuple[LocalizationMaps, Tensor | None]:
        """One frame of B targets, as of the network."""
        if self._reads_memory and memory is None:
            return self._network(search_images, templates, memory, heads)
        if self._threads != torch.get_num_threads():
            self._start()
        # The batch is the first axis of everything but the memory, where it follows the layers.
        batched = [(0, search_images), (0, templates.tokens), (0, templates.kernel), (1, memory)]
        inputs = [tensor.split(1, axis) for axis, tensor in batched if tensor is not None]
        steps = [
            self._session.run(None, dict(zip(self._inputs, (tensor.numpy() for tensor in target), strict=True)))
            for target in zip(*inputs, strict=True)
        ]
        columns = [[torch.from_numpy(array) for array in column] for column in zip(*steps, strict=True)]
        next_memory = torch.cat(columns.pop(), dim=1) if self._gives_memory else None
        maps = {name: torch.cat(column) for name, column in zip(self._maps, columns, strict=True)}
        return LocalizationMaps(**maps), next_memory

    def _load(self, graph: StepGraph) -> None:
        self._graph = graph
        tensors = step_tensors(self._network)
        self._weights = [tensors[name].detach().contiguous().numpy() for name in graph.weights]
        self._start()
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        *maps, last = (entry.name for entry in self._session.get_outputs())
        self._reads_memory = "memory" in self._inputs
        self._gives_memory = last == NEXT_MEMORY
        self._maps = maps if self._gives_memory else [*maps, last]

    def _start(self) -> None:
        """Start onnxruntime with torch's number of threads."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin while they wait take the cores from torch's, and from other programs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in self._weights]
        options.add_external_initializers(self._graph.weights, values)
        self._session: Any = onnxruntime.InferenceSession(
            self._graph.model, options, providers=["CPUExecutionProvider"]
        )
        self._threads = torch.get_num_threads()

    @torch.inference_mode()
    def _agrees(self, images: Tensor, templates: Templates, memory: Tensor | None) -> bool:
        """Whether all maps and the next memory are the network's, but for rounding."""
        with computing(images.device, "float32"):
            (maps, next_memory), (found, found_memory) = (
                forward(images, templates, memory, self._heads) for forward in (self._network, self)
            )
        pairs = zip((*vars(found).values(), found_memory), (*vars(maps).values(), next_memory), strict=True)
        return all(
            value is expected
            if value is None or expected is None
            else torch.allclose(value, expected, rtol=1e-4, atol=TOLERANCE, equal_nan=True)
            for value, expected in pairs
        )


def start_engine(
    choice: EngineChoice,
    network: LocalizationNetwork,
    device: torch.device,
    precision: Precision,
    templates: int,
    heads: Collection[Head],
) -> tuple[Engine, Forward]:
    """What computes a network's steps.

    Args:
        choice: "torch", "onnxruntime", or "auto": onnxruntime for small networks in float32 on a CPU, where there is a
            step graph or one can be made, else torch. `$RELO_ENGINE` says what "auto" is, if it is set.
        network: the network, on the device and in evaluation mode.
        device: where to compute.
        precision: of the network's layers.
        templates: how many templates a target has.
        heads: those to run.

    Returns:
        The engine that was taken, and the network by it.

    Raises:
        UserError: there is no such engine; or onnxruntime is asked for, and cannot compute this network here.
    """
    if choice == "auto":
        choice = os.environ.get("RELO_ENGINE", "auto")  # type: ignore[assignment]
    if choice not in get_args(EngineChoice):
        raise UserError(f"There is no engine {choice!r}; give {', '.join(get_args(EngineChoice))}.")
    fits = device.type == "cpu" and precision == "float32"
    if choice == "onnxruntime" and not fits:
        raise UserError(
            f"The engine onnxruntime computes in float32 on the CPU, not in {precision} on {device}: leave precision "
            "and device so, or take the engine torch."
        )
    if choice == "onnxruntime":
        return "onnxruntime", ONNXNetwork(network, templates, heads)
    if choice == "auto" and fits and is_small(network) and find_spec("onnxruntime") is not None:
        try:
            return "onnxruntime", ONNXNetwork(network, templates, heads)
        except MissingExporterError:
            pass
        except UserError as error:
            logger.warning("torch computes this network, which makes it slower: %s", error)
    return "torch", network


@torch.inference_mode()
def _example(
    network: LocalizationNetwork, templates: int, heads: Collection[Head]
) -> tuple[Tensor, Templates, Tensor | None]:
    """Search images of one target at its second frame, its templates and its memory."""
    encoder, generator = network.encoder, torch.Generator().manual_seed(0)
    crops = torch.randn(1, templates, 3, encoder.template_size, encoder.template_size, generator=generator)
    search_images = torch.randn(2, 1, 3, encoder.search_size, encoder.search_size, generator=generator)
    with computing(torch.device("cpu"), "float32"):
        encoded = network.encode_templates(crops, torch.tensor([0.25, 0.25, 0.5, 0.5]).repeat(1, templates, 1))
        _, memory = network(search_images[0], encoded, None, heads)
    return search_images[1], encoded, memory


def _made(network: LocalizationNetwork, templates: int, heads: Collection[Head]) -> StepGraph:
    """A step graph of the network.

    Raises:
        UserError: what it takes is not installed, or the network cannot be exported.
    """
    require_exporter()
    Console(stderr=True).print("Making this network's graph for onnxruntime, once; it takes some seconds.")
    return StepGraph(*step_graph(network, templates, heads))
