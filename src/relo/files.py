"""Files that are there in full or not at all, and YAML files that people hand in."""

import errno
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from relo.errors import UserError, excerpt
from relo.inputs import LONGEST_NAME, read_bounded
from relo.yaml_traps import AmbiguousYAML, refuse_traps

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.ENAMETOOLONG: "the name is too long",
}
REFUSALS = frozenset(REASONS)
"""The numbers of errors by which a system says that nothing can be written, whatever the program."""

_LONGEST_PATH = 1000  # characters that an error quotes whole; a name that is filled in may have billions
_READER_COMES = 5.0  # seconds

# Of values that are none of their kind, such as 2001-13-45 or `!!bool x`.
_BAD_VALUES = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)

_LIFETIME = 24 * 60 * 60.0  # seconds, after which another machine's unfinished file is nobody's
_LONGEST_PROCESS = 10  # digits
_UNFINISHED = re.compile(r"\.(.+)\.(\d+)@(.+)", re.DOTALL)  # the file's name, the process, and its machine
_FILES_PER_WRITE = 64  # that are looked through for unfinished ones, on average

_looked_through: dict[Path, tuple[int, list[str]]] = {}
"""Of a folder: how many writes until it is looked through again, and what was unfinished there."""

# Of file systems that have no syncs, or none of folders; the file is there nevertheless.
_WITHOUT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)


def reason(error: BaseException) -> str | None:
    """Why the system refused to read or write, where that is what an error, or one that it came from, is about."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return REASONS.get(cause.errno or 0, cause.strerror or str(cause))
        if code := re.search(r"\b(?:os error |Os \{ code: )(\d+)", str(cause)):  # of libraries in Rust
            return REASONS.get(int(code[1]), os.strerror(int(code[1])))
        cause = cause.__cause__ or cause.__context__
    return None


def unwritable(path: Path, error: BaseException) -> UserError:
    """What to raise where `path` cannot be written; its sentence names the reason."""
    name = str(path)
    quoted = name if len(name) <= _LONGEST_PATH else excerpt(name)
    return UserError(f"{quoted} cannot be written ({reason(error) or error}).")


@contextmanager
def atomic_write(path: Path, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, for a file or folder, which replaces it on success.

    Whenever the process is killed or the power fails, `path` has either its old or its new content. Folders above it
    are made. A link stays, and what it leads to is replaced; a pipe or device is written to as it is. What a process
    left that was killed is removed when `path` is written again.

    Args:
        path: the file or folder.
        synced: wait until the disk has it, some milliseconds per file; without, a power failure may leave it broken.

    Raises:
        UserError: the system refuses, as where the disk is full; nothing is left of what was written.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            with reader_of(path):
                yield path
            return
        target = path.resolve() if path.is_symlink() else path
        if target.name in ("", ".."):  # the first is that of "." and "/"
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Shortened alike by every process, so that each knows what another left.
        name = _shortened(target.name, LONGEST_NAME - len(os.fsencode(f"..@{machine()}")) - _LONGEST_PROCESS)
        remove_leftovers(target.parent, re.escape(name))
        partial = target.with_name(f".{name}.{os.getpid()}@{machine()}")
        try:
            yield partial
            for file in (*partial.rglob("*"), partial) if synced else ():
                _sync(file)
            partial.replace(target)
        finally:
            _remove(partial)
        if synced:
            _sync(target.parent)
    except UserError:
        raise
    except Exception as error:
        if reason(error) is None:
            raise
        raise unwritable(path, error) from error


@contextmanager
def reader_of(path: Path) -> Iterator[None]:
    """Hold a pipe open, if `path` is one, so that opening it does not wait: its reader is given 5 seconds to come.

    Raises:
        UserError: nothing reads the pipe.
    """
    held, deadline = None, time.monotonic() + _READER_COMES
    while path.is_fifo() and held is None:
        try:
            held = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise UserError(f"{path} is a pipe that nothing reads; start its reader, or name a file.") from error
            time.sleep(0.05)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def write_text(path: Path, text: str) -> None:
    """Write a text file, in full or not at all; bytes of file names that are no text are escaped.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def require_kept(folder: Path, written: Iterable[Path]) -> None:
    """Refuse to call work done of which something is gone.

    Raises:
        UserError: something that was written in the folder is not there.
    """
    gone = [path for path in written if not path.exists()]
    if gone:
        raise UserError(
            f"{len(gone)} of what was written in {folder} are gone, such as {gone[0].name}: they were removed or moved "
            "meanwhile; run again, and what is missing is made again."
        )


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove what killed processes left in a folder of files that `atomic_write` was to write.

    Args:
        folder: the folder; there may be none.
        names: a regular expression of the files' names.
    """
    pattern = re.compile(names, re.DOTALL)
    for unfinished in _unfinished(folder):
        match = _UNFINISHED.fullmatch(unfinished)
        if match is None or not pattern.fullmatch(match[1]):
            continue
        leftover = folder / unfinished
        with suppress(OSError):
            is_ours = match[3] == machine() and os.name != "nt"  # where 0 is Ctrl-C
            if not (_is_alive(int(match[2])) if is_ours else time.time() - leftover.stat().st_mtime < _LIFETIME):
                _remove(leftover)


def machine() -> str:
    """A name of what numbers this process: containers of one name number theirs apart."""
    with suppress(OSError, IndexError):
        return f"{socket.gethostname()}-{re.findall('[0-9]+', os.readlink('/proc/self/ns/pid'))[0]}"
    return socket.gethostname()


def _unfinished(folder: Path) -> list[str]:
    """The names in a folder that may be of unfinished files; one of many files is not looked through each time."""
    writes, names = _looked_through.get(folder, (0, []))
    if not writes:
        count, names = 0, []
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                if _UNFINISHED.fullmatch(entry.name):
                    names.append(entry.name)
        writes = 1 + count // _FILES_PER_WRITE
    _looked_through[folder] = writes - 1, names
    return names


def _shortened(name: str, most: int) -> str:
    """A file's name of at most so many bytes; what is shortened ends on a checksum of the whole."""
    encoded = os.fsencode(name)
    if len(encoded) <= most:
        return name
    checksum = f"{zlib.crc32(encoded):08x}"
    return encoded[: most - len(checksum)].decode(errors="ignore") + checksum


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
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:  # of a folder whose names may not be listed
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _WITHOUT_SYNC:
            raise
    finally:
        os.close(descriptor)


LARGEST_YAML = 2**20
"""Of a YAML file, in bytes."""


def load_yaml(text: str) -> Any:
    """YAML of plain data.

    Raises:
        yaml.YAMLError: it is no YAML, has a name twice, or has more values than are taken.
        ValueError, AttributeError, OverflowError, RecursionError: a value that Python cannot hold.
    """
    refuse_traps(text)
    return yaml.safe_load(text)


def read_yaml(path: Path, what: str) -> Any:
    """The contents of a YAML file of plain data; `what` it is begins the sentence of an error, such as "The config".

    Raises:
        UserError: it cannot be read, is no YAML, or can be read in two ways.
    """
    try:
        text = read_bounded(path, LARGEST_YAML).decode("utf-8")
        try:
            return load_yaml(text)
        except _BAD_VALUES as error:
            raise yaml.YAMLError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{what} {path} cannot be read ({reason}).") from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = "" if place is None else f" in line {place.line + 1}"
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        fault = "is ambiguous" if isinstance(error, AmbiguousYAML) else "is no YAML"
        raise UserError(f"{what} {path} {fault}{where}: {problem[:300]}.") from error
