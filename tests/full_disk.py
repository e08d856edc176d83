"""A disk that is full, for as long as a block lasts."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may be larger than this many bytes; writing on fails with "File too large"."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def mounted_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system with room for so many bytes, at a new folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def remount(folder: Path, option: str) -> None:
    """Change a mounted disk: `size=...`, `ro`, `rw`."""
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)
