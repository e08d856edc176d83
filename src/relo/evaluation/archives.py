"""Zips of text files that people hand in."""

import bz2
import lzma
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, cast

from relo.errors import EXCERPT, UserError, excerpt
from relo.inputs import LARGEST_TEXT, MEBIBYTE, leads_outside, require_regular

_TEXT_SUFFIXES = (".txt", ".csv", ".json")
# Of text in a zip: LaSOT's whole annotation has 60 MB. One of many trackers' results may have more, if it is as large
# itself as numbers are that were zipped: they shrink to a third or less, rows of zeros to a thousandth.
_LARGEST_ZIP, _MOST_SHRUNK = 512 * MEBIBYTE, 40
_MOST_FILES = 1_000_000  # of text; a zip of a whole dataset holds its images, too
_LONGEST_NAME, _MOST_PARTS = 1000, 50  # bytes, and folders with the file: each folder above a file is a name of its own
_LZMA_MEMORY = 128 * MEBIBYTE
# What `zipfile` raises of damage, and (RuntimeError) of encryption and unknown compression.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, RuntimeError)


class _ZipFolder(zipfile.Path):
    """A folder in a zip that knows its files, where Python's own looks through the whole zip for them."""

    root: Any

    def iterdir(self) -> Iterator["_ZipFolder"]:
        """What lies in the folder, in the order of the zip."""
        if not hasattr(self.root, "inside"):
            self.root.inside = {}
            for name in self.root.namelist():
                self.root.inside.setdefault(posixpath.dirname(name.rstrip("/")), []).append(name)
        return (_ZipFolder(self.root, name) for name in self.root.inside.get(self.at.rstrip("/"), ()))


def open_zip(path: Path, otherwise: str) -> Path:
    """The root of a zip as a folder. Every text file is unpacked once, so that reading it later cannot fail.

    Args:
        path: the file.
        otherwise: what is said where it is no zip, and not called one.

    Raises:
        UserError: it is no zip; or it is damaged, encrypted, compressed in an unknown way or holds a text file of over
            16 MiB, or of more than it announces, or too much in all, or files that lie one upon another, or a name that
            leads out of it, is too long, or is there twice.
    """
    try:
        require_regular(path)
        if path.suffix != ".zip" and not zipfile.is_zipfile(path):
            raise UserError(otherwise)
        archive = zipfile.ZipFile(path)
        files = [file for file in archive.infolist() if is_text_name(file.filename.rpartition("/")[2])]
        most = max(_LARGEST_ZIP, _MOST_SHRUNK * path.stat().st_size)
        if len(files) > _MOST_FILES or sum(file.file_size for file in files) > most:
            raise UserError(
                f"The zip {path} holds more than {_MOST_FILES:,} text files, or unpacks to more than "
                f"{most // MEBIBYTE} MiB of text; give the results and annotations alone."
            )
        if sum(file.compress_size for file in archive.infolist()) > path.stat().st_size:
            raise UserError(f"The zip {path} has files that lie one upon another; zip the folder again.")
        names: set[str] = set()
        for file in archive.infolist():
            _require_short(path, file.filename)
            if file.filename in names and not file.is_dir():
                raise UserError(f"The zip {path} holds {excerpt(file.filename)} twice; keep one of them.")
            names.add(file.filename)
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
            if _is_larger(archive, file):
                raise UserError(
                    f"{file.filename[:EXCERPT]} in the zip {path} unpacks to more than the {file.file_size} bytes that "
                    "the zip announces; zip the folder again."
                )
            archive.read(file)
    except _DAMAGE as error:
        raise UserError(
            f"The zip {path} cannot be read ({excerpt(error)}): copy it again, or extract it and give the folder."
        ) from error
    return cast(Path, _ZipFolder(archive))


def _require_short(path: Path, name: str) -> None:
    if len(name.encode(errors="replace")) > _LONGEST_NAME or name.count("/") >= _MOST_PARTS:
        raise UserError(
            f"The zip {path} holds {excerpt(name)}, a name of more than {_LONGEST_NAME:,} bytes or {_MOST_PARTS} "
            "parts; give the results and annotations alone."
        )


def _is_larger(archive: zipfile.ZipFile, file: zipfile.ZipInfo) -> bool:
    """Whether a file unpacks to more than it announces, which `zipfile` unpacks before it cuts it off."""
    packed = copy(file)  # the bytes in the zip, as if they were a file that is only stored
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, file.compress_size
    del packed.CRC  # it is that of what they unpack to
    if file.flag_bits & 1 or file.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        return False
    content, most = archive.read(packed), file.file_size + 1
    if file.compress_type == zipfile.ZIP_DEFLATED:
        unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, most)
    elif file.compress_type == zipfile.ZIP_BZIP2:
        unpacked = bz2.BZ2Decompressor().decompress(content, most)
    else:  # behind two numbers, a version and a size, are the properties; a file of its own has its length there, too
        alone = content[4:9] + b"\xff" * 8 + content[9:]
        unpacked = lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY).decompress(alone, most)
    return len(unpacked) == most


def is_text_name(name: str, suffixes: str | tuple[str, ...] = _TEXT_SUFFIXES) -> bool:
    """Whether a file of this name is a visible text file; capitals at its end count as small letters."""
    return name.lower().endswith(suffixes) and not name.startswith(".")
