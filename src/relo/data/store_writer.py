"""Writing a clip store: one transaction per sequence, so that packing can be killed and goes on."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb
import numpy as np
from numpy.typing import NDArray

from relo.data.sequences.base import Sequence
from relo.data.store_environment import (
    ALL_LENGTHS,
    ALL_VISIBLE,
    CHECKSUM_BYTES,
    DATA_FILE,
    INDEX_ERRORS,
    LOCK_FILE,
    MANIFEST,
    NEW_COPY,
    closed,
    forget_environment,
    is_unborn,
    open_environment,
    record_key,
    reserve_lock,
)
from relo.data.store_manifest import Manifest, PackingOptions
from relo.data.store_reader import ClipStore
from relo.errors import UserError
from relo.files import REASONS, reason

_SPARE_BYTES = 1 << 20  # pages that a transaction takes beyond its records
_FIRST_MAP_SIZE = 1 << 26

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class PackedFrames:
    """The N frames of a sequence, ready to be written: what reads them has closed them, so that the writer need not."""

    values: list[bytes]  # encoded images, each with its checksum
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
        begun = begun_store(path, manifest)
        # What a finished store was finished without.
        left_out = begun.manifest.broken if begun is not None and begun.manifest.complete else {}
        forget_environment(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if is_unborn(path):
                (path / DATA_FILE).unlink(missing_ok=True)
            reserve_lock(path / LOCK_FILE)
            # Without syncs of the meta page a power failure may cost the last sequence, never the store.
            self._environment = lmdb.open(str(path), map_size=_FIRST_MAP_SIZE, metasync=False, readahead=False)
        except (OSError, lmdb.Error) as error:
            raise self._unwritable(error) from error
        self._manifest = manifest
        try:
            self._transact(partial(self._begin, damaged, left_out))
        except UserError:
            self._environment.close()
            raise

    def __enter__(self) -> "ClipStoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.close()

    def write(self, index: int, sequence: Sequence, packed: PackedFrames) -> None:
        """Write sequence number `index`, whose own frames are not looked at, in one transaction.

        Raises:
            UserError: it cannot be written, or the store's index is damaged.
        """
        header = {
            "name": sequence.name,
            "frames": len(packed.values),
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
        frames = {record_key(index, f"{i:08d}"): value for i, value in enumerate(packed.values)}
        self._put(frames | {record_key(index, name): closed(value) for name, value in records.items()})

    def finish(self, broken: Mapping[str, str]) -> None:
        """Mark the store as complete, but for the sequences that are broken.

        Raises:
            UserError: the store cannot be written, or its index is damaged.
        """
        manifest = replace(self._manifest, broken=dict(broken), complete=True)
        keys = [record_key(number, "visible") for number in range(len(manifest.names))]
        records = self._transact(lambda transaction: [transaction.get(key) or b"" for key in keys])
        visible = [record[:-CHECKSUM_BYTES] for record in records]
        lengths = np.array([len(flags) for flags in visible], "<i8")
        tables = {ALL_VISIBLE: b"".join(visible), ALL_LENGTHS: lengths.tobytes(), MANIFEST: manifest.encode()}
        self._put({key: closed(value) for key, value in tables.items()})

    def _begin(self, damaged: Collection[int], left_out: Collection[str], transaction: lmdb.Transaction) -> None:
        """Find what is missing, and call the store unfinished where something is: another may have finished it.

        One that lacks nothing but what was left out stays finished, whatever comes of another try.
        """
        for number in damaged:
            transaction.delete(record_key(number, "header"))
        numbers = range(len(self._manifest.names))
        self.missing = [number for number in numbers if transaction.get(record_key(number, "header")) is None]
        lacks_more = any(self._manifest.names[number] not in left_out for number in self.missing)
        if damaged or lacks_more or transaction.get(MANIFEST) is None:
            transaction.put(MANIFEST, closed(self._manifest.encode()))

    def _put(self, records: Mapping[bytes, bytes]) -> None:
        """Write values that end with their checksums."""

        def put(transaction: lmdb.Transaction) -> None:
            for key, value in records.items():
                transaction.put(key, value)

        self._transact(put, sum(map(len, records.values())))

    def _transact(self, work: Callable[[lmdb.Transaction], _Result], size: int = 0) -> _Result:
        """Do work, which adds so many bytes, in one transaction; again where the map had no room for the store."""
        map_size: int | None = None  # to be set
        while True:
            try:
                if map_size is not None:
                    self._environment.set_mapsize(map_size)
                with self._environment.begin(write=True) as transaction:
                    return work(transaction)
            except lmdb.MapFullError:
                map_size = 2 * self._environment.info()["map_size"]
            except lmdb.MapResizedError:  # another packer enlarged it
                map_size = 0  # as it is in the file
            except lmdb.Error as error:
                raise self._unwritable(error, size) from error

    def _unwritable(self, error: OSError | lmdb.Error, size: int = 0) -> UserError:
        """What to raise where so many bytes could not be written."""
        if isinstance(error, INDEX_ERRORS):
            return UserError(f"The index in {self.path} is damaged ({error}): {NEW_COPY}.")
        # Of a write that was cut short LMDB says "Input/output error".
        is_short = "Input/output error" in str(error) and self.path.is_dir()
        is_full = is_short and shutil.disk_usage(self.path).free < size + _SPARE_BYTES
        why = "the disk is full" if is_full or "No space left" in str(error) else reason(error) or str(error)
        if is_short and _allowed_bytes() < (self.path / DATA_FILE).stat().st_size + size + _SPARE_BYTES:
            why = REASONS[errno.EFBIG]
        return UserError(
            f"The clip store {self.path} cannot be written ({why}); what is packed is kept, and the same command goes "
            "on from there."
        )


def _allowed_bytes() -> float:
    """The largest size that the system allows a file of this process."""
    try:
        import resource  # Windows has none
    except ImportError:
        return float("inf")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def begun_store(path: Path, manifest: Manifest) -> "ClipStore | None":
    """The store at `path`, if packing into it has begun: it may be unfinished.

    Raises:
        UserError: there is something else, or a store of another dataset, split, order or options, or a damaged one.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; name a folder for the clip store.")
    if is_unborn(path):
        if path.is_dir() and {file.name for file in path.iterdir()} - {DATA_FILE, LOCK_FILE}:
            raise UserError(f"The folder {path} holds other files; name a new one for the clip store.")
        return None
    if not open_environment(os.path.realpath(path)).stat()["entries"]:
        return None
    store = ClipStore(path, partial=True)
    for what in ("dataset", "split", "options", "reader_options", "names"):
        old, new = getattr(store.manifest, what), getattr(manifest, what)
        if old != new:
            values = "" if what == "names" else f" ({_in_words(old)}, not {_in_words(new)})"
            raise UserError(f"{path} was packed with other {what}{values}: pack with the same, or into a new folder.")
    return store


def _in_words(value: object) -> str:
    if isinstance(value, PackingOptions):
        return ", ".join(f"{name} {setting}" for name, setting in asdict(value).items())
    return str(value)
