"""Result files: one line `x,y,w,h` per frame, image pixels, not rounded to whole numbers; one number per frame."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relo.data.sequences.parsing import read_numbers
from relo.errors import UserError
from relo.files import write_text


def box_line(box_xywh: Sequence[float]) -> str:
    """One line of a boxes file, without its end; a ten-thousandth of a pixel is kept."""
    return ",".join(f"{value:.4f}" for value in box_xywh)


def write_boxes(path: Path, boxes_xywh: NDArray[np.float64]) -> None:
    """Write boxes [N, 4] as a file that is there in full or not at all."""
    write_text(path, "".join(f"{box_line(box)}\n" for box in boxes_xywh))


def write_values(path: Path, values: Iterable[float]) -> None:
    """Write one number per line (scores, seconds), in full or not at all."""
    write_text(path, "".join(f"{value:.6f}\n" for value in values))


def read_values(path: Path, count: int) -> NDArray[np.float64] | None:
    """The numbers [count] of a file with one per line; None if it is missing or holds anything else."""
    try:
        values = read_numbers(path)
    except UserError:
        return None
    return values if len(values) == count else None
