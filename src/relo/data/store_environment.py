"""The LMDB of a clip store: its files, keys and checksums, and how it is opened, once in a process."""

import mmap
import os
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import lmdb
from lmdb.verify import VerifyError, verify

from relo.errors import UserError
from relo.inputs import require_regular

MANIFEST = b"manifest"
ALL_VISIBLE, ALL_LENGTHS = b"all/visible", b"all/lengths"
CHECKSUM_BYTES = 4
DATA_FILE, LOCK_FILE = "data.mdb", "lock.mdb"
NEW_COPY = "copy the store again, or pack it into a new folder"
INDEX_ERRORS = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.ProblemError)
"""What LMDB raises where its own pages are damaged."""

_HEADROOM = 1 << 30  # bytes that a store may grow by, as another packs into it, while it is open here
_SOON_VERIFIED = 1 << 26  # bytes of a data file that is verified in a fraction of a second
_LOCK_BYTES = 8192  # of LMDB's table of readers
_META_PAGES = 2  # a data file begins with two
_MOST_LOOKS = 3
_MAGIC_AT, _MAGIC = 16, (0xBEEFC0DE).to_bytes(4, sys.byteorder)  # in the first page


def record_key(number: int, record: str) -> bytes:
    """The key of a record of the sequence with this number in the manifest."""
    return f"{number:08d}/{record}".encode()


def checksum(content: bytes) -> bytes:
    """The last bytes of a value, by what comes before them."""
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")


def closed(content: bytes) -> bytes:
    """A value: what it holds, and its checksum."""
    return content + checksum(content)


def is_store(path: Path) -> bool:
    """Whether the folder looks like a store (or another LMDB)."""
    return (path / DATA_FILE).is_file()


def is_unborn(path: Path) -> bool:
    """Whether the data file is missing, or what a full disk left of its first pages."""
    file = path / DATA_FILE
    if not file.is_file():
        return True
    if file.stat().st_size >= _META_PAGES * mmap.PAGESIZE:
        return False
    with file.open("rb") as opened:
        start = opened.read(_MAGIC_AT + len(_MAGIC))
    return not start.strip(b"\0") or start[_MAGIC_AT:] == _MAGIC


def reserve_lock(path: Path) -> None:
    """Give LMDB's lock file its place on the disk: where there is none, LMDB's first write to it kills the process.

    Raises:
        OSError: the disk is full.
        UserError: there is a pipe or a device in its place.
    """
    if path.exists():
        require_regular(path)
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, _LOCK_BYTES)


def require_sound_pages(path: Path) -> None:
    """Look through LMDB's own pages, some 10 seconds for a million frames: it trusts them, and can kill the process.

    To be called before the store is opened. Where there is none yet, or another process goes on writing meanwhile,
    nothing is looked at.

    Raises:
        UserError: a page is damaged.
    """
    if is_unborn(path):
        return
    for _ in range(_MOST_LOOKS):
        before = _last_commits(path)
        try:
            problem = next(iter(verify(str(path))), None)  # type: ignore[no-untyped-call]
        except VerifyError as error:
            problem = str(error)
        if _last_commits(path) == before:
            if problem is not None:
                raise UserError(f"{path / DATA_FILE} is damaged ({problem}): {NEW_COPY}.")
            return


def _last_commits(path: Path) -> bytes:
    with (path / DATA_FILE).open("rb") as file:
        return file.read(_META_PAGES * mmap.PAGESIZE)


# LMDB must not be opened twice in a process, and must not be used across a fork.
_environments: dict[str, Any] = {}
_environments_lock = threading.Lock()


def open_environment(location: str) -> Any:
    """The LMDB environment of the store at a real path, opened at first use in this process."""
    with _environments_lock:
        if location not in _environments:
            _environments[location] = _open(Path(location))
        return _environments[location]


def _open(path: Path) -> Any:
    if not path.is_dir():
        raise UserError(f"There is no clip store {path}; make it with `relo data pack`.")
    if not is_store(path):
        raise UserError(f"The folder {path} is no clip store (it has no {DATA_FILE}); make one with `relo data pack`.")
    try:
        environment = lmdb.open(
            str(path),
            map_size=(path / DATA_FILE).stat().st_size + _HEADROOM,
            readonly=True,
            lock=False,
            readahead=False,
            create=False,
        )
    except lmdb.MemoryError as error:
        raise UserError(f"{path / DATA_FILE} cannot be read: there is no room for it in memory ({error}).") from error
    except lmdb.Error as error:
        raise UserError(f"{path / DATA_FILE} is no LMDB, or damaged ({error}): copy or pack it again.") from error
    # Reading a page past the end of the file would kill the process.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (path / DATA_FILE).stat().st_size
    if size < needed:
        environment.close()
        raise UserError(f"{path / DATA_FILE} is truncated ({size} of {needed} bytes): copy or pack it again.")
    if size <= _SOON_VERIFIED:
        try:
            require_sound_pages(path)
        except UserError:
            environment.close()
            raise
    return environment


def forget_environment(path: Path) -> None:
    """Close the LMDB environment of the store at a path, before something else writes there."""
    location = os.path.realpath(path)
    with _environments_lock:
        if location in _environments:
            _environments.pop(location).close()


def close_environments() -> None:
    """Close those that are open in this process; a forked one must not use its parent's."""
    global _environments_lock
    _environments_lock = threading.Lock()
    while _environments:
        _environments.popitem()[1].close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=close_environments)
