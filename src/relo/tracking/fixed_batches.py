"""Batches of one size, so that what is computed for a target is the same to the bit whatever its neighbours.

How a product is rounded depends on the number of rows that a library computes together, not on which rows these are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

ROWS = {"cpu": 8, "cuda": 16}
"""A batch of torch's by the kind of device. On a CPU 8 rows are about as fast a row as 16, and twice as fast as one."""


def in_batches(
    function: Callable[..., Sequence[Tensor | None]],
    rows: int | None,
    inputs: Sequence[Tensor | None],
    input_axes: Sequence[int],
    output_axes: Sequence[int],
) -> tuple[Any, ...]:
    """A function of tensors (or None), called with so many rows at a time, the last of them repeated where some lack.

    Args:
        function: computes each row by itself, but for rounding.
        rows: of a call; any number, in one call, if None.
        inputs: the function's.
        input_axes: of each input, the axis of its rows.
        output_axes: of each output.
    """
    if rows is None:
        return tuple(function(*inputs))
    (count,) = {tensor.shape[axis] for tensor, axis in zip(inputs, input_axes, strict=True) if tensor is not None}
    parts: list[list[Tensor | None]] = []
    for start in range(0, count, rows):
        taken = torch.arange(start, start + rows).clamp(max=count - 1)
        batch = [
            None if tensor is None else tensor.index_select(axis, taken.to(tensor.device))
            for tensor, axis in zip(inputs, input_axes, strict=True)
        ]
        kept = min(rows, count - start)
        found = zip(function(*batch), output_axes, strict=True)
        parts.append([None if tensor is None else tensor.narrow(axis, 0, kept) for tensor, axis in found])
    columns = zip(zip(*parts, strict=True), output_axes, strict=True)
    return tuple(None if column[0] is None else torch.cat(column, dim=axis) for column, axis in columns)
