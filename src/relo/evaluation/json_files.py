"""JSON files of boxes that people hand in, in which nothing is passed over."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relo.data.sequences import parsing
from relo.errors import UserError, excerpt
from relo.inputs import LARGEST_TEXT


def read_json(path: Path, most: int = LARGEST_TEXT) -> Any:
    """The content of a JSON file of at most `most` bytes, in which no object has two values of one name.

    Raises:
        UserError: the file cannot be read, is too large, is no JSON or is nested too deeply, or has a name twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names: set[str] = set()
            twice = next(name for name, _ in pairs if name in names or names.add(name))  # type: ignore[func-returns-value]
            raise UserError(f"{path} has two values named {excerpt(twice)}; keep one of them.")
        return content

    return parsing.read_json(path, most, once)


def json_boxes(value: object) -> NDArray[np.float64]:
    """Lists of numbers as JSON holds them, as an array of the same shape; true and false are none.

    Raises:
        ValueError: there is something else, or lists differ in length.
    """
    numbers = parsing.numbers_in(value)
    if _holds_flag(value):
        raise ValueError("something is true or false")
    return numbers


def _holds_flag(value: object) -> bool:
    return any(map(_holds_flag, value)) if isinstance(value, list) else isinstance(value, bool)
