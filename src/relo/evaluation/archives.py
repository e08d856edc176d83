"""Zips of text files that people hand in."""

import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import cast

from relo.errors import UserError

_TEXT_SUFFIXES = (".txt", ".csv", ".json")
_LARGEST_TEXT = 64 * 2**20  # bytes; over a million boxes
# What `zipfile` raises of damage, and (RuntimeError) of encryption and unknown compression.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, RuntimeError)


def open_zip(path: Path) -> Path:
    """The root of a zip as a folder. Every text file is unpacked once, so that reading it later cannot fail.

    Raises:
        UserError: the zip is damaged, encrypted, compressed in an unknown way or holds a text file of over 64 MiB.
    """
    try:
        archive = zipfile.ZipFile(path)
        for file in archive.infolist():
            if file.filename.startswith("/"):  # Python's own paths in a zip may not end on such a name
                raise UserError(f"The zip {path} holds the absolute path {file.filename}: zip a folder instead.")
            *folders, name = file.filename.split("/")
            if not is_text_name(name) or "__MACOSX" in folders:
                continue
            if file.file_size > _LARGEST_TEXT:
                raise UserError(
                    f"{file.filename} in the zip {path} unpacks to {file.file_size / 2**20:,.0f} MiB; results and "
                    f"annotations of at most {_LARGEST_TEXT // 2**20} MiB a file are read."
                )
            archive.read(file)
    except _DAMAGE as error:
        raise UserError(
            f"The zip {path} cannot be read ({error!r}): copy it again, or extract it and give the folder."
        ) from error
    return cast(Path, zipfile.Path(archive))


def is_text_name(name: str, suffixes: str | tuple[str, ...] = _TEXT_SUFFIXES) -> bool:
    """Whether a file of this name is a visible text file; capitals at its end count as small letters."""
    return name.lower().endswith(suffixes) and not name.startswith(".")
