"""Files that are there in full or not at all, and YAML files that people hand in."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from relo.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name beside `path` for a file or folder to be written, which then becomes `path`, even if it replaces a file.

    Whenever the process is killed, `path` is what it was or what it shall be. Folders above it are made. A link stays,
    and what it leads to is replaced; a pipe or device is written to as it is.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, in full or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(text)


def read_yaml(path: Path, what: str) -> Any:
    """The contents of a YAML file of plain data; `what` it is begins the sentence of an error, such as "The config".

    Raises:
        UserError: it cannot be read, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        try:
            return yaml.safe_load(text)
        except (ValueError, AttributeError, OverflowError, RecursionError) as error:  # 2001-13-45 is no date
            raise yaml.YAMLError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{what} {path} cannot be read ({reason}).") from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = "" if place is None else f" in line {place.line + 1}"
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{what} {path} is no YAML: {problem[:200]}{where}.") from error
