"""The clip store: a split of a dataset in one LMDB folder, for fast random access to frames.

Records, by key (s is a sequence's 8-digit number in the manifest's order, f a frame's):

    manifest     JSON: format and version, dataset, split, packing options, names of sequences, broken ones, complete
    s/header     JSON: name, frames, class_name, sentence
    s/boxes      float64 [M, 4] x, y, w, h in image pixels, as annotated; M is the number of frames, or 1
    s/visible    uint8 [M]
    s/sizes      int32 [N, 2] width and height of the images
    s/geometry   float64 [N, 4], where frames were cut or scaled (see `relo.data.frame_geometry`)
    s/f          a frame's JPEG or PNG bytes
    all/visible  uint8, the flags of all sequences one after the other, and
    all/lengths  int64, how many each has: what a finished store has so that it opens at once, unless it is an old one

Arrays are raw and little-endian. Every value ends with the CRC-32 of what comes before it, 4 bytes. A sequence's header
is written in the same transaction as its other records: where it is, they are.
"""

import json
import mmap
import os
import shutil
import sys
import threading
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Sequence as AnySequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from relo.data.frame_geometry import WHOLE_IMAGE, to_packed
from relo.data.sequences.base import FrameSource, Sequence, SequenceReader
from relo.data.store_tables import Names, Visibility
from relo.errors import UserError, excerpt
from relo.files import reason
from relo.settings import is_of

FORMAT = "relo clip store"
VERSION = 1
_MANIFEST = b"manifest"
_ALL_VISIBLE, _ALL_LENGTHS = b"all/visible", b"all/lengths"
_DATA_FILE = "data.mdb"
_CHECKSUM_BYTES = 4
_LOCK_FILE = "lock.mdb"
_LOCK_BYTES = 8192  # of LMDB's table of readers
_META_PAGES = 2  # a data file begins with two
_MAGIC_AT, _MAGIC = 16, (0xBEEFC0DE).to_bytes(4, sys.byteorder)  # in the first page
_SPARE_BYTES = 1 << 20  # pages that a transaction takes beyond its records
_FIRST_MAP_SIZE = 1 << 26
_MOST_FRAMES = 10**8  # of a sequence; its keys have 8 digits
_REMEDY = "copy the store again, or run the same `relo data pack`, which packs what is damaged again"
NEW_COPY = "copy the store again, or pack it into a new folder"


@dataclass(frozen=True)
class PackingOptions:
    """How frames are packed.

    Attributes:
        cut: side of the surroundings of the target that are kept, as a multiple of sqrt(w h); None keeps whole images.
        max_side: longest side of a packed frame in pixels; larger ones are scaled down. None keeps their size.
        quality: JPEG quality (1 to 100) of frames that are cut or scaled; the others keep their bytes.

    Raises:
        UserError: a value out of its range.
    """

    cut: float | None = None
    max_side: int | None = None
    quality: int = 90

    def __post_init__(self) -> None:
        if self.cut is not None and not self.cut >= 1:
            raise UserError(f"cut must be at least 1 (times the target's size), not {self.cut}.")
        if self.max_side is not None and self.max_side < 16:
            raise UserError(f"max_side must be at least 16 px, not {self.max_side}.")
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality must be from 1 to 100, not {self.quality}.")

    @property
    def changes_frames(self) -> bool:
        """Whether frames may be cut or scaled, so that they have a geometry."""
        return self.cut is not None or self.max_side is not None


@dataclass(frozen=True)
class Manifest:
    """What a store says of itself.

    Attributes:
        dataset: the dataset's name.
        split: the split's name.
        options: how frames are packed.
        names: the sequences, in order.
        reader_options: how the dataset was read, where not by default.
        broken: sequences that were left out, by name with the reason.
        complete: whether packing was finished.
    """

    dataset: str
    split: str
    options: PackingOptions
    names: AnySequence[str]
    reader_options: Mapping[str, Any] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    complete: bool = False

    def encode(self) -> bytes:
        """The manifest as JSON."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self), "names": list(self.names)}).encode()

    @staticmethod
    def decode(encoded: bytes, path: Path) -> "Manifest":
        """The manifest in JSON bytes of the store at `path`.

        Raises:
            UserError: it is none, or of another version.
        """
        try:
            content = json.loads(encoded)
            if content.pop("format") != FORMAT:
                raise ValueError
            version = content.pop("version")
            if version == VERSION:
                options = PackingOptions(**content.pop("options"))
                manifest = Manifest(names=Names(content.pop("names")), options=options, **content)
                _require_types(manifest)
                return manifest
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{path} is an LMDB but no clip store; make one with `relo data pack`.") from None
        raise UserError(
            f"{path} is a clip store of version {excerpt(version)}, and this is relo for version {VERSION}: "
            "pack it again."
        )


def _require_types(manifest: Manifest) -> None:
    """Refuse what no packing writes.

    Raises:
        TypeError: a value is of another type.
    """
    options = manifest.options
    are_right = (
        all(is_of(value, str) for value in (manifest.dataset, manifest.split))  # names are, or do not join
        and all(isinstance(value, dict) for value in (manifest.broken, manifest.reader_options))
        and type(manifest.complete) is bool
        and is_of(options.cut, float | None)
        and is_of(options.max_side, int | None)
        and is_of(options.quality, int)
    )
    if not are_right:
        raise TypeError


@dataclass(frozen=True)
class PackedFrames:
    """The N frames of a sequence, ready to be written."""

    encoded: list[bytes]
    image_sizes: NDArray[np.int32]  # [N, 2]
    geometry: NDArray[np.float64]  # [N, 4]


class ClipStoreWriter:
    """Creates a store or goes on with an unfinished one; one transaction per sequence, safe to kill at any time.

    Args:
        path: the store's folder.
        manifest: what the finished store will be.
        damaged: the numbers of sequences of the store to be written again; they are missing from now on.

    Attributes:
        missing: the numbers of the sequences that are not in the store.

    Raises:
        UserError: the folder is not a store, or one of another dataset, split, order or options; or it cannot be
            written.
    """

    def __init__(self, path: Path, manifest: Manifest, damaged: Collection[int] = ()) -> None:
        self.path = path
        begun_store(path, manifest)
        _forget_environment(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if _is_unborn(path):
                (path / _DATA_FILE).unlink(missing_ok=True)
            _reserve_lock(path / _LOCK_FILE)
            # Without syncs of the meta page a power failure may cost the last sequence, never the store.
            self._environment = lmdb.open(str(path), map_size=_FIRST_MAP_SIZE, metasync=False, readahead=False)
        except (OSError, lmdb.Error) as error:
            raise self._unwritable(error) from error
        self._manifest = manifest
        try:
            self._write({_MANIFEST: manifest.encode()}, [_key(number, "header") for number in damaged])
            with self._environment.begin() as transaction:
                self.missing = [i for i in range(len(manifest.names)) if transaction.get(_key(i, "header")) is None]
        except UserError:
            self._environment.close()
            raise

    def __enter__(self) -> "ClipStoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.close()

    def write(self, index: int, sequence: Sequence, packed: PackedFrames) -> None:
        """Write sequence number `index`, whose own frames are not looked at, in one transaction."""
        header = {
            "name": sequence.name,
            "frames": len(packed.encoded),
            "class_name": sequence.class_name,
            "sentence": sequence.sentence,
        }
        records = {
            "boxes": sequence.boxes_xywh.astype("<f8").tobytes(),
            "visible": sequence.visible.astype("u1").tobytes(),
            "sizes": packed.image_sizes.astype("<i4").tobytes(),
            "header": json.dumps(header).encode(),
        }
        if self._manifest.options.changes_frames:
            records["geometry"] = packed.geometry.astype("<f8").tobytes()
        frames = {f"{i:08d}": encoded for i, encoded in enumerate(packed.encoded)}
        self._write({_key(index, name): value for name, value in (frames | records).items()})

    def finish(self, broken: Mapping[str, str]) -> None:
        """Mark the store as complete, but for the sequences that are broken."""
        manifest = replace(self._manifest, broken=dict(broken), complete=True)
        with self._environment.begin() as transaction:
            records = [transaction.get(_key(i, "visible")) or b"" for i in range(len(manifest.names))]
        visible = [record[:-_CHECKSUM_BYTES] for record in records]
        lengths = np.array([len(flags) for flags in visible], "<i8")
        self._write({_ALL_VISIBLE: b"".join(visible), _ALL_LENGTHS: lengths.tobytes(), _MANIFEST: manifest.encode()})

    def _write(self, records: Mapping[bytes, bytes], deleted: Iterable[bytes] = ()) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key in deleted:
                        transaction.delete(key)
                    for key, value in records.items():
                        transaction.put(key, value + _checksum(value))
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise self._unwritable(error, sum(map(len, records.values()))) from error

    def _unwritable(self, error: OSError | lmdb.Error, size: int = 0) -> UserError:
        """What to raise where so many bytes could not be written."""
        # Of a write that was cut short LMDB says "Input/output error".
        is_short = "Input/output error" in str(error) and self.path.is_dir()
        is_full = is_short and shutil.disk_usage(self.path).free < size + _SPARE_BYTES
        why = "the disk is full" if is_full or "No space left" in str(error) else reason(error) or str(error)
        return UserError(
            f"The clip store {self.path} cannot be written ({why}); what is packed is kept, and the same command goes "
            "on from there."
        )


class ClipStore(SequenceReader):
    """The sequences of a store, in its order, those left out as broken excepted; picklable.

    Boxes of its sequences are in pixels of the packed frames. `attributes` of a sequence hold `image_sizes` [N, 2],
    `image_boxes_xywh` [M, 4] as annotated, and `geometry` [N, 4] (see `relo.data.frame_geometry`).

    The LMDB is opened when needed, once in a process, read-only and without locks: do not pack into a store that is in
    use.

    Args:
        path: the store's folder.
        partial: read what is there of a store whose packing was not finished, instead of refusing it.

    Raises:
        UserError: there is no store, or it is unfinished, of another version, or damaged.
    """

    def __init__(self, path: str | Path, partial: bool = False) -> None:
        self.path = Path(path)
        self._location = os.path.realpath(path)
        manifest = Manifest.decode(self._read(_MANIFEST, "The manifest"), self.path)
        self.manifest = manifest
        self.dataset = manifest.dataset
        self._manifest_numbers = np.arange(len(manifest.names))
        if manifest.broken:
            left = [i for i, name in enumerate(manifest.names) if name not in manifest.broken]
            self._manifest_numbers = np.array(left, np.int64)
        if not manifest.complete:
            every = len(self._manifest_numbers)
            with _environment(self._location).begin() as transaction:
                present = [i for i in self._manifest_numbers.tolist() if transaction.get(_key(i, "header")) is not None]
            self._manifest_numbers = np.array(present, np.int64)
            if not partial:
                raise UserError(
                    f"{self.path} is unfinished ({len(self._manifest_numbers)} of {every} sequences): run the same "
                    "`relo data pack` again, which adds the rest."
                )

    @property
    def names(self) -> list[str]:
        """The sequences' names, in order."""
        return [self.manifest.names[number] for number in self._manifest_numbers.tolist()]

    def __len__(self) -> int:
        return len(self._manifest_numbers)

    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index` (0-based), with boxes in pixels of the packed frames."""
        manifest_number = int(self._manifest_numbers[index])
        header = self._header(manifest_number)
        image_boxes_xywh = self._array(manifest_number, "boxes", "<f8", 4).astype(np.float64)
        if self.manifest.options.changes_frames:
            geometry = self._array(manifest_number, "geometry", "<f8", 4).astype(np.float64)
        else:
            geometry = np.tile(WHOLE_IMAGE, (header["frames"], 1))
        return Sequence(
            name=header["name"],
            dataset=self.dataset,
            frames=StoredFrames(self, manifest_number, header["frames"]),
            boxes_xywh=to_packed(image_boxes_xywh, geometry[: len(image_boxes_xywh)]),
            visible=self._visible(manifest_number),
            class_name=header["class_name"],
            sentence=header["sentence"],
            attributes={
                "image_sizes": self._array(manifest_number, "sizes", "<i4", 2),
                "image_boxes_xywh": image_boxes_xywh,
                "geometry": geometry,
            },
        )

    @property
    def manifest_numbers(self) -> list[int]:
        """The sequences' numbers in the manifest, where broken ones count."""
        return self._manifest_numbers.tolist()

    def visibility(self) -> Visibility:
        """On which frames the sequences show their targets."""
        with suppress(UserError):  # an old store lacks the tables; what is damaged is read from the sequences, too
            flags, lengths = (
                np.frombuffer(self._read(key, "The table"), kind)
                for key, kind in ((_ALL_VISIBLE, "u1"), (_ALL_LENGTHS, "<i8"))
            )
            found = lengths[self._manifest_numbers]
            if self.manifest.complete and found.all() and found.sum() == lengths.sum() == len(flags):
                return Visibility(flags.astype(bool), found.astype(np.int64))
        visible = [self._visible(number) for number in self._manifest_numbers.tolist()]
        return Visibility(np.concatenate([*visible, np.empty(0, bool)]), np.array([*map(len, visible)], np.int64))

    def _visible(self, manifest_number: int) -> NDArray[np.bool_]:
        return self._array(manifest_number, "visible", "u1", 1)[:, 0].astype(bool)

    def check_index(self) -> None:
        """Go through the keys of all records.

        Raises:
            UserError: LMDB's own pages are damaged, so that nothing may be written any more.
        """
        try:
            with _environment(self._location).begin() as transaction:
                deque(transaction.cursor().iternext(values=False), maxlen=0)
        except lmdb.Error as error:
            raise UserError(f"The index of {self.path} is damaged ({error}): {NEW_COPY}.") from error

    def _header(self, manifest_number: int) -> dict[str, Any]:
        """The record `header` of a sequence, its values of the right types."""
        try:
            header = json.loads(self.read_record(manifest_number, "header"))
            is_sound = (
                isinstance(header["name"], str)
                and is_of(header["frames"], int)
                and 0 <= header["frames"] <= _MOST_FRAMES
                and all(is_of(header[name], str | None) for name in ("class_name", "sentence"))
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            is_sound = False
        if not is_sound:
            raise UserError(f"{self.describe_record(manifest_number, 'header')} in {self.path} is damaged: {_REMEDY}.")
        return header

    def describe_record(self, manifest_number: int, record: str) -> str:
        """A record of a sequence in words, for errors."""
        what = f"Frame {int(record)}" if record.isdecimal() else f"The record '{record}'"
        return f"{what} of {self.dataset}/{self.manifest.names[manifest_number]}"

    def read_record(self, manifest_number: int, record: str) -> bytes:
        """A record of the sequence that is number `manifest_number` in the manifest, where broken ones count.

        Raises:
            UserError: it is missing, or its checksum is wrong.
        """
        return self._read(_key(manifest_number, record), self.describe_record(manifest_number, record))

    def _array(self, manifest_number: int, record: str, kind: str, columns: int) -> NDArray[Any]:
        content = self.read_record(manifest_number, record)
        if len(content) % (columns * np.dtype(kind).itemsize):
            raise UserError(f"{self.describe_record(manifest_number, record)} in {self.path} is damaged: {_REMEDY}.")
        return np.frombuffer(content, kind).reshape(-1, columns)

    def _read(self, key: bytes, described: str) -> bytes:
        try:
            with _environment(self._location).begin() as transaction:
                value: bytes | None = transaction.get(key)
        except lmdb.Error as error:
            raise UserError(f"{described} in {self.path} cannot be read ({error}): {NEW_COPY}.") from error
        if value is None:
            if key == _MANIFEST:
                raise UserError(f"{self.path} is an LMDB but no clip store; make one with `relo data pack`.")
            raise UserError(f"{described} is missing in {self.path}: {_REMEDY}.")
        content = value[:-_CHECKSUM_BYTES]
        if _checksum(content) != value[-_CHECKSUM_BYTES:]:
            raise UserError(
                f"{described} in {self.path} is damaged (wrong checksum): {NEW_COPY if key == _MANIFEST else _REMEDY}."
            )
        return content


@dataclass(frozen=True)
class StoredFrames(FrameSource):
    """The frames of one sequence of a store, whose number is the one in the manifest."""

    store: ClipStore
    manifest_number: int
    count: int

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """Frame, dataset, sequence and store."""
        return f"{self.store.describe_record(self.manifest_number, f'{index:08d}')} in {self.store.path}"

    def encoded(self, index: int) -> bytes:
        """The JPEG or PNG bytes of frame `index`."""
        return self.store.read_record(self.manifest_number, f"{index:08d}")


def is_store(path: Path) -> bool:
    """Whether the folder looks like a store (or another LMDB)."""
    return (path / _DATA_FILE).is_file()


def _is_unborn(path: Path) -> bool:
    """Whether the data file is missing, or what a full disk left of its first pages."""
    file = path / _DATA_FILE
    if not file.is_file():
        return True
    if file.stat().st_size >= _META_PAGES * mmap.PAGESIZE:
        return False
    with file.open("rb") as opened:
        start = opened.read(_MAGIC_AT + len(_MAGIC))
    return not start.strip(b"\0") or start[_MAGIC_AT:] == _MAGIC


def begun_store(path: Path, manifest: Manifest) -> "ClipStore | None":
    """The store at `path`, if packing into it has begun: it may be unfinished.

    Raises:
        UserError: there is something else, or a store of another dataset, split, order or options, or a damaged one.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; name a folder for the clip store.")
    if _is_unborn(path):
        if path.is_dir() and {file.name for file in path.iterdir()} - {_DATA_FILE, _LOCK_FILE}:
            raise UserError(f"The folder {path} holds other files; name a new one for the clip store.")
        return None
    if not _environment(os.path.realpath(path)).stat()["entries"]:
        return None
    store = ClipStore(path, partial=True)
    for what in ("dataset", "split", "options", "reader_options", "names"):
        old, new = getattr(store.manifest, what), getattr(manifest, what)
        if old != new:
            values = "" if what == "names" else f" ({_in_words(old)}, not {_in_words(new)})"
            raise UserError(f"{path} was packed with other {what}{values}: pack with the same, or into a new folder.")
    return store


def _reserve_lock(path: Path) -> None:
    """Give LMDB's lock file its place on the disk: where there is none, LMDB's first write to it kills the process.

    Raises:
        OSError: the disk is full.
    """
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, _LOCK_BYTES)


def _in_words(value: object) -> str:
    if isinstance(value, PackingOptions):
        return ", ".join(f"{name} {setting}" for name, setting in asdict(value).items())
    return str(value)


def _key(number: int, record: str) -> bytes:
    return f"{number:08d}/{record}".encode()


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")


# LMDB must not be opened twice in a process, and must not be used across a fork.
_environments: dict[str, Any] = {}
_environments_lock = threading.Lock()


def _environment(location: str) -> Any:
    """The LMDB environment of the store at a real path, opened at first use in this process."""
    with _environments_lock:
        if location not in _environments:
            _environments[location] = _open(Path(location))
        return _environments[location]


def _open(path: Path) -> Any:
    if not path.is_dir():
        raise UserError(f"There is no clip store {path}; make it with `relo data pack`.")
    if not is_store(path):
        raise UserError(f"The folder {path} is no clip store (it has no {_DATA_FILE}); make one with `relo data pack`.")
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, create=False)
    except lmdb.Error as error:
        raise UserError(f"{path / _DATA_FILE} is no LMDB, or damaged ({error}): copy or pack it again.") from error
    # Reading a page past the end of the file would kill the process.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (path / _DATA_FILE).stat().st_size
    if size < needed:
        environment.close()
        raise UserError(f"{path / _DATA_FILE} is truncated ({size} of {needed} bytes): copy or pack it again.")
    return environment


def _forget_environment(path: Path) -> None:
    location = os.path.realpath(path)
    with _environments_lock:
        if location in _environments:
            _environments.pop(location).close()


def _close_inherited_environments() -> None:
    global _environments_lock
    _environments_lock = threading.Lock()
    while _environments:
        _environments.popitem()[1].close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited_environments)
