"""Numbers in text files: boxes, flags and names, however they are delimited."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relo.errors import EXCERPT, UserError, excerpt
from relo.inputs import LARGEST_TEXT, leads_outside, read_given

FARTHEST = 1e9
"""Pixels. Larger numbers are damage: no box is as large, or lies as far from its image."""

# Comma, semicolon and tab all become what `str.split` splits at; line ends stay.
_DELIMITERS = str.maketrans(",;\t", "   ")
# Where a number is left out before a comma or semicolon, which `str.split` would pass over.
_LEFT_OUT = re.compile(r"([,;\n])[ \t]*(?=[,;])")


class NoTextError(UserError):
    """A file is no text in UTF-8."""


def read_text(path: Path, most: int = LARGEST_TEXT) -> str:
    """The text of a file of at most `most` bytes.

    Raises:
        UserError: the file is missing, unreadable, too large, no regular file, or no text (`NoTextError`).
    """
    try:
        text = read_given(path, most).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # zeros of an unfinished copy, or UTF-16
        raise NoTextError(f"{path} is not a text file in UTF-8; copy it again, or save it as one.")
    return text


def read_optional_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file that a sequence can do without, if any; and remarks, where it is left out for its encoding.

    Raises:
        UserError: the file is unreadable, or a link to nothing.
    """
    try:
        return read_text(path) if is_given(path) else "", ()
    except NoTextError:
        return "", (f"{path} is left out: it is not UTF-8 text.",)


def is_given(path: Path) -> bool:
    """Whether there is a file or folder of this name; a link to nothing counts, so that reading it is an error."""
    return os.path.lexists(path) if isinstance(path, Path) else path.exists()  # a path in a zip is no `Path`


def read_names(path: Path) -> list[str]:
    """The lines of a list of names, without blank ones; the last needs no newline.

    Raises:
        UserError: the list cannot be read, or a name leads out of the folder that it belongs to.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    for name in names:
        if leads_outside(name):
            raise UserError(f"{path} has {excerpt(name)}, a path that leads elsewhere, in place of a name.")
    return names


class NamedTwiceError(ValueError):
    """An object of JSON has two values of one name, or a table two rows or columns."""


def first_doubled(names: Iterable[str]) -> str | None:
    """The first name that was there before; None where all differ."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def parse_json(text: str) -> Any:
    """The content of JSON in which nothing is passed over.

    Raises:
        NamedTwiceError: an object has two values of one name.
        ValueError, RecursionError: it is no JSON, or is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_content)


def _content(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise NamedTwiceError(f"two values named {excerpt(first_doubled(name for name, _ in pairs))}")
    return content


def read_json(path: Path, most: int = LARGEST_TEXT) -> Any:
    """The content of a JSON file of at most `most` bytes, in which no object has two values of one name.

    Raises:
        UserError: the file cannot be read, is too large, is no JSON or is nested too deeply, or has a name twice.
    """
    text = read_text(path, most)
    try:
        return parse_json(text)
    except NamedTwiceError as error:
        raise UserError(f"{path} has {error}; keep one of them.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({str(error)[:EXCERPT]}).") from error


def numbers_in(value: object) -> NDArray[np.float64]:
    """A number, or lists of numbers as JSON holds them, as an array of the same shape.

    Raises:
        ValueError: there is something else (words, null, numbers of hundreds of digits), or lists differ in length.
    """
    numbers = np.array(value)
    if numbers.dtype.kind not in "biuf":
        raise ValueError("something is not a number")
    return numbers.astype(np.float64)


def json_boxes(value: object) -> NDArray[np.float64]:
    """Lists of numbers as JSON holds them, as an array of the same shape; true and false are none.

    Raises:
        ValueError: there is something else, or lists differ in length.
    """
    numbers = numbers_in(value)
    if _holds_flag(value):
        raise ValueError("something is true or false")
    return numbers


def _holds_flag(value: object) -> bool:
    return any(map(_holds_flag, value)) if isinstance(value, list) else isinstance(value, bool)


def to_numbers(words: Iterable[str]) -> list[float]:
    """Words of a text file as numbers; unlike Python's, they have no underscores.

    Raises:
        ValueError: a word is none.
    """
    words = list(words)
    if any("_" in word for word in words):
        raise ValueError("a number has no underscore")
    return list(map(float, words))


def _lines(text: str) -> list[str]:
    """Lines whose words stand between blanks, with a question mark where one is left out."""
    marked = _LEFT_OUT.sub(r"\1?", "\n" + text)[1:]
    return marked.translate(_DELIMITERS).splitlines()


def parse_rows(text: str, columns: int) -> NDArray[np.float64]:
    """A table [N, columns] of numbers (NaN allowed), delimited by commas, semicolons, tabs or spaces; N may be 0.

    Blank lines at the end and a delimiter at the end of a line do not count.

    Raises:
        ValueError: a line does not hold `columns` numbers; the message gives the line.
    """
    lines = _lines(text.rstrip())
    values = np.empty((len(lines), columns))
    for row, line in enumerate(lines):
        cells = line.split()
        if len(cells) != columns:
            raise ValueError(f"line {row + 1}: {columns} numbers expected, {len(cells)} found.")
        try:
            values[row] = to_numbers(cells)
        except ValueError:
            raise ValueError(f"line {row + 1}: {line.strip()[:60]!r} is not {columns} numbers.") from None
    return values


def parse_box(text: str) -> list[float]:
    """The four numbers of one box x, y, w, h; see `parse_rows`.

    Raises:
        ValueError: the text is not one line of four numbers.
    """
    (box_xywh,) = parse_rows(text, 4).tolist()
    return box_xywh


def read_boxes(path: Path) -> NDArray[np.float64]:
    """Boxes [N, 4], one per line, in the file's own format; see `parse_rows`.

    Raises:
        UserError: the file cannot be read, or a line does not hold four numbers; the message gives the line.
    """
    text = read_text(path)
    try:
        return parse_rows(text, 4)
    except ValueError as error:
        raise UserError(f"{path}, {error}") from error


def read_numbers(path: Path) -> NDArray[np.float64]:
    """Numbers [N], in one line or one per line.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    numbers: list[float] = []
    for number, line in enumerate(_lines(read_text(path)), start=1):
        try:
            numbers.extend(to_numbers(line.split()))
        except ValueError:
            raise UserError(f"{path}, line {number}: numbers expected, {line.strip()[:60]!r} found.") from None
    return np.array(numbers, np.float64)


def read_levels(path: Path) -> NDArray[np.int64]:
    """GOT-10k's levels [N] of what can be seen of a target, from 0 (nothing) to 8 (all); see `read_numbers`.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    numbers = read_numbers(path)
    wrong = ~np.isin(numbers, range(9))
    if wrong.any():
        raise UserError(f"{path}: level {int(wrong.argmax()) + 1} is {numbers[wrong][0]:g}; levels are 0 to 8.")
    return numbers.astype(np.int64)


def read_flags(path: Path) -> NDArray[np.bool_]:
    """Flags [N] written as 0 and 1, in one line or one per line.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    numbers = read_numbers(path)
    wrong = ~np.isin(numbers, (0, 1))
    if wrong.any():
        raise UserError(f"{path}: flag {int(wrong.argmax()) + 1} is {numbers[wrong][0]:g}; flags are 0 or 1.")
    return numbers.astype(bool)


def check_count(path: Path, found: int, expected: int, counted: str) -> None:
    """Hold the number of rows of a file against the number of `counted` (such as "frames in <folder>").

    Raises:
        UserError: the numbers differ.
    """
    if found != expected:
        raise UserError(
            f"{path} has {found} rows for {expected} {counted}; "
            "copy or extract the sequence again, or correct the file."
        )


def out_of_reach(boxes_xywh: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes [N, 4] have a number that is infinite or beyond `FARTHEST`, unlike NaN, which is no box: bool [N]."""
    return np.asarray((np.abs(boxes_xywh) > FARTHEST).any(1))


def positive_size(boxes_xywh: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes [N, 4] have four numbers within reach, with width and height above 0: bool [N]."""
    known = ~np.isnan(boxes_xywh).any(1) & ~out_of_reach(boxes_xywh)
    return np.asarray(known & (boxes_xywh[:, 2:] > 0).all(1))
