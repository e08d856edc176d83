"""Files that people hand in, read whole: regular files of a bounded size, which nothing is written over."""

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from relo.errors import UserError, excerpt

MEBIBYTE = 2**20

LARGEST_TEXT = 16 * MEBIBYTE
"""Of a text file, in bytes: the boxes of hours of video."""

LONGEST_NAME = 255
"""Of a file or folder, in bytes; Linux, macOS and Windows agree."""

_PIECE = 2**16  # bytes that are read at once: what lies about its size is not read whole


def is_pipe_or_device(mode: int) -> bool:
    """Whether a file of this `st_mode` is one, which would be waited for, or never end."""
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def require_regular(path: Path) -> int:
    """The size in bytes of what is not a pipe or device, which would be waited for, or never end.

    Raises:
        UserError: it is a pipe or device, or no file can have this name.
        OSError: there is nothing of this name.
    """
    if "\0" in str(path):
        raise UserError(f"{excerpt(str(path))} is no name that a file can have.")
    found = path.stat()
    if is_pipe_or_device(found.st_mode):
        raise UserError(f"{path} is a pipe or a device; give a regular file.")
    return found.st_size


def read_bounded(path: Path, most: int = LARGEST_TEXT) -> bytes:
    """The bytes of a file of at most `most` bytes; one in a zip, which has no size here, was measured at its opening.

    Raises:
        UserError: the file is larger, or would be waited for, as a pipe or device.
        OSError: it cannot be read.
    """
    size = require_regular(path) if isinstance(path, Path) else 0
    if size <= most:
        with open(path, "rb", opener=_unblocked) if isinstance(path, Path) else path.open("rb") as file:
            try:
                content = _read_pieces(file, size + 1, most)
            except BlockingIOError as error:
                raise UserError(f"{path} would be waited for; give a regular file.") from error
        size = len(content)
    if size > most:
        raise UserError(
            f"{path} has {size / MEBIBYTE:,.0f} MiB; at most {most // MEBIBYTE} MiB of such a file are read."
        )
    return content


def read_given(path: Path, most: int = LARGEST_TEXT) -> bytes:
    """The bytes of a file that must be there, as of `read_bounded`.

    Raises:
        UserError: the file cannot be read, is larger, or would be waited for.
    """
    try:
        return read_bounded(path, most)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _unblocked(path: str, flags: int) -> int:
    """Opens a file that is not waited for: some in `/proc` are regular by their mode, and wait nevertheless."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has none


def _read_pieces(file: IO[bytes], first_piece: int, most: int) -> bytes:
    """What is in a file, or somewhat more than `most` bytes of it.

    Room for a piece is taken before it is read: a large one that finds the end of the file would cost as much again.

    Raises:
        BlockingIOError: there is no more as yet, but it is not the end.
    """
    pieces: list[bytes] = []
    size = 0
    while size <= most and (piece := file.read(_PIECE if pieces else first_piece)) != b"":
        if piece is None:
            raise BlockingIOError
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def can_be_a_name(text: str) -> bool:
    """Whether a file can be called so: it has no null or half character, and no part is too long."""
    try:
        name = os.fsencode(text)
        return b"\0" not in name and all(len(part) <= LONGEST_NAME for part in name.split(b"/"))
    except UnicodeEncodeError:
        return False


def leads_outside(name: str) -> bool:
    """Whether a file's name, on Windows or elsewhere, is absolute or leads out of the folder that it is taken from."""
    return re.match(r"[/\\]|[A-Za-z]:[/\\]", name) is not None or ".." in re.split(r"[/\\]", name)


def check_outputs(inputs: Mapping[str, Iterable[str | Path | None]], outputs: Sequence[Path]) -> None:
    """Refuse to write two things to one file, or onto one that is read.

    Args:
        inputs: by what they are called in the sentence; None and texts that name no file are passed over.
        outputs: what is written.

    Raises:
        UserError: an output names an input, or another output.
    """
    for i, path in enumerate(outputs):
        if path.is_file():
            for name, files in inputs.items():
                if any(file and os.path.isfile(file) and path.samefile(file) for file in files):
                    raise UserError(f"{path} is {name} itself; write to another file.")
        is_device = path.exists() and not path.is_file()
        if not is_device and os.path.realpath(path) in map(os.path.realpath, outputs[:i]):
            raise UserError(f"{path} would be written twice; give each output a name of its own.")


def texts_within(folder: Path, outputs: Iterable[Path]) -> list[Path]:
    """Those outputs that are texts in a folder: where its texts are read, all of them may be."""
    root = Path(os.path.realpath(folder))
    return [path for path in outputs if path.suffix.lower() == ".txt" and root in Path(os.path.realpath(path)).parents]
