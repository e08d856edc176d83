"""Replay a function of tensors as a CUDA graph: one launch in place of hundreds."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Tensors = tuple[Any, ...]  # a tensor or None each
Function = Callable[..., Tensors]

KEPT = 16
"""How many sets of shapes are remembered; those not used for longest are forgotten."""


@dataclass(frozen=True)
class Recording:
    """A function's work on tensors that stay where they are."""

    replay: Callable[[], object]  # reads the inputs that were recorded, and writes the outputs
    outputs: Tensors


Recorder = Callable[[Function, Tensors], Recording]


class CUDARecorder:
    """Records functions as CUDA graphs, which share one pool of memory: only one may be under way at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Function, inputs: Tensors) -> Recording:
        """Record the function's work on these very tensors."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            function(*inputs)  # libraries make their handles and workspaces for the stream
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: loaders pin memory, and NCCL's watchdog asks for events.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            outputs = function(*inputs)
        return Recording(graph.replay, outputs)


def find_recorder(device: torch.device, crops: bool, wanted: bool | None) -> Recorder | None:
    """A recorder where a GPU crops, unless none is wanted.

    Raises:
        ValueError: one is wanted elsewhere.
    """
    can_record = device.type == "cuda" and crops
    if wanted and not can_record:
        raise ValueError(f"CUDA graphs need a CUDA device that crops; this one is {device.type}.")
    return CUDARecorder(device) if can_record and wanted is not False else None


def replayed(function: Function, record: Recorder | None) -> Function:
    """The function, to be replayed where there is a recorder."""
    return function if record is None else ReplayedFunction(function, record)


class ReplayedFunction:
    """Calls a function of tensors (or None) by replaying a recording of it, one for each set of its inputs' shapes.

    Shapes that are met for the first time run as they are, and are recorded when they are met again. Inputs are copied
    into tensors of the recording, and outputs out of them, so that a caller may keep both. The function must do the
    same work for the same shapes, and must not wait for the device; one that cannot be recorded runs as it is, with a
    warning.
    """

    def __init__(self, function: Function, record: Recorder) -> None:
        self._function = function
        self._record: Recorder | None = record
        self._recorded: OrderedDict[Hashable, tuple[Tensors, Recording] | None] = OrderedDict()

    def __call__(self, *inputs: Tensor | None) -> Tensors:
        """The function's outputs."""
        if self._record is None:
            return self._function(*inputs)
        key = tuple(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in inputs)
        if key not in self._recorded:
            self._recorded[key] = None
            if len(self._recorded) > KEPT:
                self._recorded.popitem(last=False)
            return self._function(*inputs)
        self._recorded.move_to_end(key)
        if (recorded := self._recorded[key]) is None:
            kept = _copied(inputs)
            try:
                recorded = self._recorded[key] = kept, self._record(self._function, kept)
            except RuntimeError as error:
                logger.warning("No CUDA graph of this network, which makes it slower: %s", _first_cause(error))
                self._record = None
                self._recorded.clear()
                return self._function(*inputs)
        kept, recording = recorded
        for copy, tensor in zip(kept, inputs, strict=True):
            if tensor is not None:
                copy.copy_(tensor, non_blocking=True)
        recording.replay()
        return _copied(recording.outputs)


def _copied(tensors: Tensors) -> Tensors:
    return tuple(None if tensor is None else tensor.clone() for tensor in tensors)


def _first_cause(error: BaseException) -> str:
    """The first line of the error that others came after: to end a recording that failed fails too."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]
