"""The clip store: a dataset packed into one LMDB file, read by every process on its own. No pickle anywhere.

Records, by key:

    manifest                 JSON: format version, dataset, split, packing options, names in order, whether packing has ended
    header/<sequence>        JSON: number of frames, class, sentence; written in one transaction with all that follows
    boxes/<sequence>         float64 [N, 4], x, y, w, h in the pixels of the stored frames
    visible/<sequence>       uint8 [N]
    windows/<sequence>       float64 [N, 3], x, y, scale: stored pixel = (image pixel - (x, y)) * scale; only if frames are cut
    frame/<sequence>/<i>     JPEG or PNG bytes
"""

import json
import os
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from relo.data.sequences.base import FrameSource, Sequence, SequenceReader
from relo.errors import UserError

FORMAT_VERSION = 1
DATA_FILE = "data.mdb"
_MANIFEST = b"manifest"
_INITIAL_MAP_SIZE = 1 << 28


@dataclass(frozen=True)
class SequenceRecord:
    """One sequence as it is stored."""

    name: str
    header: dict[str, Any]
    boxes_xywh: NDArray[np.float64]  # [N, 4], pixels of the stored frames
    visible: NDArray[np.bool_]  # [N]
    frames: Items[bytes]  # N files
    windows: NDArray[np.float64] | None = None  # [N, 3]: x, y, scale


class ClipStoreWriter:
    """Adds sequences to a store, one transaction each: a process killed at any time leaves whole sequences only."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Create the store, or go on with one of the same manifest.

        Args:
            folder: the store.
            manifest: dataset, split and packing options; JSON values.

        Raises:
            UserError: the folder cannot be written, or holds a store that was packed otherwise.
        """
        self.folder = folder
        wanted = {"format": FORMAT_VERSION, **manifest}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._environment = lmdb.open(str(folder), map_size=_INITIAL_MAP_SIZE, readahead=False, meminit=False)
        except (OSError, lmdb.Error) as error:
            raise UserError(f"The clip store {folder} cannot be written ({error}).") from error
        with self._environment.begin() as transaction:
            found = _read_manifest(transaction, folder) if transaction.get(_MANIFEST) is not None else None
        for key, value in wanted.items():
            if found is not None and found.get(key) != value:
                raise UserError(
                    f"{folder} was packed with {key} = {found.get(key)!r}, not {value!r}: choose another output folder, "
                    "or delete this one."
                )
        self._manifest = found or {**wanted, "names": [], "complete": False}
        if found is None:
            self._put([(_MANIFEST, _json(self._manifest))])

    def __contains__(self, name: str) -> bool:
        with self._environment.begin() as transaction:
            return transaction.get(_key("header", name)) is not None

    def add(self, record: SequenceRecord) -> None:
        """Write one sequence, in full or not at all."""
        items = [
            (_key("header", record.name), _json({**record.header, "frames": len(record.frames)})),
            (_key("boxes", record.name), np.ascontiguousarray(record.boxes_xywh, np.float64).tobytes()),
            (_key("visible", record.name), record.visible.astype(np.uint8).tobytes()),
        ]
        if record.windows is not None:
            items.append((_key("windows", record.name), np.ascontiguousarray(record.windows, np.float64).tobytes()))
        items += [(_frame_key(record.name, i), frame) for i, frame in enumerate(record.frames)]
        self._put(items)

    def finish(self, names: Items[str], skipped: dict[str, str] | None = None) -> None:
        """Note the order of the sequences, what was left out and why, and that the store is complete."""
        self._manifest = {**self._manifest, "names": list(names), "skipped": skipped or {}, "complete": True}
        self._put([(_MANIFEST, _json(self._manifest))])

    def close(self) -> None:
        """Close the file."""
        self._environment.close()

    def _put(self, items: list[tuple[bytes, bytes]]) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in items:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                # The map is address space, not disk: doubling it costs nothing.
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise UserError(f"The clip store {self.folder} cannot be written ({error}).") from error


class ClipStore(SequenceReader):
    """A packed dataset as a list of sequences; boxes are in the pixels of the stored frames.

    The file is opened lazily, once per process and never across a fork, read-only. A store can be pickled.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a store.

        Raises:
            UserError: the folder is no clip store, is of another version, or packing has not ended.
        """
        self.folder = Path(folder)
        self._opened: tuple[int, lmdb.Environment] | None = None
        manifest = self.manifest
        if not manifest["complete"]:
            raise UserError(f"Packing of {self.folder} was stopped before its end: run the same `relo data pack` again.")
        self.dataset = manifest["dataset"]
        self._names: list[str] = manifest["names"]

    @property
    def manifest(self) -> dict[str, Any]:
        """The store's manifest."""
        with self._transaction() as transaction:
            return _read_manifest(transaction, self.folder)

    @property
    def names(self) -> list[str]:
        """The sequences' names, in order."""
        return self._names

    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index`, its frames still encoded."""
        name = self._names[index]
        with self._transaction() as transaction:
            header = json.loads(self._get(transaction, "header", name))
            boxes_xywh = self._array(transaction, "boxes", name, np.float64).reshape(-1, 4)
            visible = self._array(transaction, "visible", name, np.uint8).astype(bool)
        if not len(boxes_xywh) == len(visible) == header["frames"]:
            raise UserError(f"Sequence {name} of {self.folder} has records of different lengths: pack it again.")
        return Sequence(
            name=name,
            dataset=self.dataset,
            frames=StoredFrames(self, name, header["frames"]),
            boxes_xywh=boxes_xywh,
            visible=visible,
            class_name=header.get("class_name"),
            sentence=header.get("sentence"),
        )

    def visible(self, index: int) -> NDArray[np.bool_]:
        """The visible flags [N] of sequence number `index`, without its other records."""
        with self._transaction() as transaction:
            return self._array(transaction, "visible", self._names[index], np.uint8).astype(bool)

    def windows(self, index: int) -> NDArray[np.float64] | None:
        """Where the stored frames lie in the images, [N, 3] x, y, scale; None if whole images are stored."""
        with self._transaction() as transaction:
            raw = transaction.get(_key("windows", self._names[index]))
        return None if raw is None else np.frombuffer(raw, np.float64).reshape(-1, 3)

    def image_boxes_xywh(self, index: int) -> NDArray[np.float64]:
        """The boxes [N, 4] of sequence number `index` in the pixels of the images that were packed."""
        boxes_xywh, windows = self[index].boxes_xywh, self.windows(index)
        if windows is None:
            return boxes_xywh
        boxes_xywh = boxes_xywh / windows[:, 2:]
        boxes_xywh[:, :2] += windows[:, :2]
        return boxes_xywh

    def encoded_frame(self, name: str, index: int) -> bytes:
        """The bytes of frame `index` of a sequence.

        Raises:
            UserError: the store has no such record.
        """
        with self._transaction() as transaction:
            encoded = transaction.get(_frame_key(name, index))
        if encoded is None:
            raise UserError(f"{self.folder} has no frame {index} of sequence {name}: run `relo data verify` on it.")
        return bytes(encoded)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: every process opens its own."""
        return {**self.__dict__, "_opened": None}

    def _transaction(self) -> lmdb.Transaction:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), self._open())
        return self._opened[1].begin()

    def _open(self) -> lmdb.Environment:
        if not (self.folder / DATA_FILE).is_file():
            raise UserError(f"{self.folder} is no clip store: it has no {DATA_FILE}; `relo data pack` makes one.")
        try:
            return lmdb.open(str(self.folder), readonly=True, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            raise UserError(f"The clip store {self.folder} cannot be opened ({error}): pack it again.") from error

    def _get(self, transaction: lmdb.Transaction, kind: str, name: str) -> bytes:
        value = transaction.get(_key(kind, name))
        if value is None:
            raise UserError(f"{self.folder} has no {kind} of sequence {name}: run `relo data verify` on it.")
        return bytes(value)

    def _array(self, transaction: lmdb.Transaction, kind: str, name: str, dtype: type) -> NDArray[Any]:
        raw = self._get(transaction, kind, name)
        try:
            return np.frombuffer(raw, dtype)
        except ValueError as error:
            raise UserError(f"The {kind} of sequence {name} in {self.folder} are damaged: pack it again.") from error


@dataclass(frozen=True)
class StoredFrames(FrameSource):
    """The frames of one sequence of a store."""

    store: ClipStore
    sequence: str
    count: int

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """Dataset, sequence and frame."""
        return f"frame {index} of sequence {self.sequence} ({self.store.dataset}) in {self.store.folder}"

    def encoded(self, index: int) -> bytes:
        """The stored bytes of frame `index`."""
        return self.store.encoded_frame(self.sequence, index)


def _read_manifest(transaction: lmdb.Transaction, folder: Path) -> dict[str, Any]:
    raw = transaction.get(_MANIFEST)
    try:
        manifest: dict[str, Any] = json.loads(bytes(raw)) if raw is not None else {}
    except ValueError:
        manifest = {}
    if "format" not in manifest:
        raise UserError(f"{folder} is no clip store: it has no manifest; `relo data pack` makes one.")
    if manifest["format"] != FORMAT_VERSION:
        raise UserError(
            f"{folder} is a clip store of format {manifest['format']}, this version of relo reads format "
            f"{FORMAT_VERSION}: pack it again."
        )
    return manifest


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def _key(kind: str, name: str) -> bytes:
    return f"{kind}/{name}".encode()


def _frame_key(name: str, index: int) -> bytes:
    return f"frame/{name}/{index:08d}".encode()
