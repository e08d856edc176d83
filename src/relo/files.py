"""Files that are there in full or not at all, and YAML files that people hand in."""

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from relo.errors import UserError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.ENAMETOOLONG: "the name is too long",
}
REFUSALS = frozenset(_REASONS)
"""The numbers of errors by which a system says that nothing can be written, whatever the program."""

_LIFETIME = 24 * 60 * 60.0  # seconds, after which another machine's unfinished file is nobody's


def reason(error: BaseException) -> str | None:
    """Why the system refused to read or write, where that is what an error, or one that it came from, is about."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return _REASONS.get(cause.errno or 0, cause.strerror or str(cause))
        if code := re.search(r"\b(?:os error |Os \{ code: )(\d+)", str(cause)):  # of libraries in Rust
            return _REASONS.get(int(code[1]), os.strerror(int(code[1])))
        cause = cause.__cause__ or cause.__context__
    return None


def unwritable(path: Path, error: BaseException) -> UserError:
    """What to raise where `path` cannot be written; its sentence names the reason."""
    return UserError(f"{path} cannot be written ({reason(error) or error}).")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name beside `path` for a file or folder to be written, which then becomes `path`, even if it replaces a file.

    Whenever the process is killed or the power fails, `path` is what it was or what it shall be. Folders above it are
    made. A link stays, and what it leads to is replaced; a pipe or device is written to as it is. What a process left
    that was killed is removed when `path` is written again.

    Raises:
        UserError: the system refuses, as where the disk is full; nothing is left of what was written.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            yield path
            return
        target = path.resolve() if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, re.escape(target.name))
        partial = target.with_name(f".{target.name}.{os.getpid()}@{socket.gethostname()}")
        try:
            yield partial
            for file in (*partial.rglob("*"), partial):
                _sync(file)
            partial.replace(target)
        finally:
            _remove(partial)
        _sync(target.parent)
    except UserError:
        raise
    except Exception as error:
        if reason(error) is None:
            raise
        raise unwritable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, in full or not at all; bytes of file names that are no text are escaped.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove what killed processes left in a folder of files that `atomic_write` was to write.

    Args:
        folder: the folder; there may be none.
        names: a regular expression of the files' names.
    """
    pattern = re.compile(rf"\.(?:{names})\.(\d+)(?:@(.+))?")
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        found = [match for entry in entries if (match := pattern.fullmatch(entry.name))]
    for match in found:
        leftover = folder / match[0]
        with suppress(OSError):
            is_ours = match[2] in (None, socket.gethostname()) and os.name != "nt"  # where 0 is Ctrl-C
            if not (_is_alive(int(match[1])) if is_ours else time.time() - leftover.stat().st_mtime < _LIFETIME):
                _remove(leftover)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it belongs to someone else
    return process != os.getpid()  # what has our own number is of an earlier process


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without syncs
            raise
    finally:
        os.close(descriptor)


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
