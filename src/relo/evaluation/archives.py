"""Zips of text files that people hand in."""

import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import cast

from relo.errors import EXCERPT, UserError, excerpt
from relo.inputs import LARGEST_TEXT, MEBIBYTE, leads_outside, require_regular

_TEXT_SUFFIXES = (".txt", ".csv", ".json")
# Of text in a zip: LaSOT's whole annotation has 60 MB. One of many trackers' results may have more, if it is as large
# itself as numbers are that were zipped: they shrink to a third or less, rows of zeros to a thousandth.
_LARGEST_ZIP, _MOST_SHRUNK = 512 * MEBIBYTE, 40
_MOST_FILES = 1_000_000  # of text; a zip of a whole dataset holds its images, too
# What `zipfile` raises of damage, and (RuntimeError) of encryption and unknown compression.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, RuntimeError)


def open_zip(path: Path) -> Path:
    """The root of a zip as a folder. Every text file is unpacked once, so that reading it later cannot fail.

    Raises:
        UserError: the zip is damaged, encrypted, compressed in an unknown way or holds a text file of over 16 MiB,
            or too much in all, or a name that leads out of it.
    """
    try:
        require_regular(path)
        archive = zipfile.ZipFile(path)
        files = [file for file in archive.infolist() if is_text_name(file.filename.rpartition("/")[2])]
        most = max(_LARGEST_ZIP, _MOST_SHRUNK * path.stat().st_size)
        if len(files) > _MOST_FILES or sum(file.file_size for file in files) > most:
            raise UserError(
                f"The zip {path} holds more than {_MOST_FILES:,} text files, or unpacks to more than "
                f"{most // MEBIBYTE} MiB of text; give the results and annotations alone."
            )
        for file in archive.infolist():
            if leads_outside(file.filename):  # of some, Python's own paths in a zip would never end
                raise UserError(
                    f"The zip {path} holds {excerpt(file.filename)}, an absolute path or one that leads out of it; zip "
                    "a folder."
                )
            *folders, name = file.filename.split("/")
            if not is_text_name(name) or "__MACOSX" in folders:
                continue
            if file.file_size > LARGEST_TEXT:
                raise UserError(
                    f"{file.filename[:EXCERPT]} in the zip {path} unpacks to {file.file_size / MEBIBYTE:,.0f} MiB; "
                    f"results and annotations of at most {LARGEST_TEXT // MEBIBYTE} MiB a file are read."
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
