"""Files of boxes: one line `x,y,w,h` a frame, image pixels, not rounded to whole numbers."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relo.errors import UserError

_DELIMITER = re.compile(r"[,;\s]+")


def box_line(box_xywh: Sequence[float]) -> str:
    """One line of a boxes file, without its end; a ten-thousandth of a pixel is kept."""
    return ",".join(f"{value:.4f}" for value in box_xywh)


def parse_box(text: str) -> list[float]:
    """The four numbers of "x,y,w,h", separated by commas, semicolons, tabs or blanks; NaN is allowed.

    Raises:
        ValueError: other than four numbers.
    """
    values = [float(value) for value in _DELIMITER.split(text.strip())]
    if len(values) != 4:
        raise ValueError(f"{len(values)} numbers")
    return values


def read_boxes(path: Path) -> NDArray[np.float64]:
    """Boxes [N, 4] x, y, w, h of a file with one box a line; empty lines at the end do not count.

    Raises:
        UserError: the file cannot be read, or a line is not four numbers.
    """
    try:
        lines = path.read_text().rstrip().splitlines()
    except OSError as error:
        raise UserError(f"The boxes file {path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The boxes file {path} is not text.") from error
    boxes_xywh = []
    for number, line in enumerate(lines, 1):
        try:
            boxes_xywh.append(parse_box(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {line[:60]!r} is not a box x,y,w,h.") from error
    return np.array(boxes_xywh, np.float64).reshape(-1, 4)


def write_boxes(path: Path, boxes_xywh: NDArray[np.float64]) -> None:
    """Write boxes [N, 4] as a file that is there in full or not at all."""
    write_whole(path, "".join(f"{box_line(box)}\n" for box in boxes_xywh))


def write_values(path: Path, values: Iterable[float]) -> None:
    """Write one number a line (scores, seconds), in full or not at all."""
    write_whole(path, "".join(f"{value:.6f}\n" for value in values))


def read_values(path: Path, count: int) -> NDArray[np.float64] | None:
    """The numbers [count] of a file with one a line; None if it is missing or holds anything else."""
    try:
        values = [float(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError):
        return None
    return np.array(values, np.float64) if len(values) == count else None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there in full or not at all, even when the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)
