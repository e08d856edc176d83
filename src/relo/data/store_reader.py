"""Reading a clip store: its sequences, whose frames are decoded when asked for."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from relo.data.frame_geometry import WHOLE_IMAGE, to_packed
from relo.data.sequences.base import FrameSource, Sequence, SequenceReader
from relo.data.store_environment import (
    ALL_LENGTHS,
    ALL_VISIBLE,
    CHECKSUM_BYTES,
    MANIFEST,
    NEW_COPY,
    checksum,
    is_store,
    open_environment,
    record_key,
)
from relo.data.store_manifest import Manifest
from relo.data.store_tables import Visibility
from relo.errors import UserError
from relo.settings import is_of

_MOST_FRAMES = 10**8  # of a sequence; its keys have 8 digits
_REMEDY = "copy the store again, or run the same `relo data pack`, which packs what is damaged again"


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
        manifest = Manifest.decode(self._read(MANIFEST, "The manifest"), self.path)
        self.manifest = manifest
        self.options = manifest.options  # how frames were packed
        self.dataset = manifest.dataset
        self.manifest_numbers = np.arange(len(manifest.names))  # the sequences', where broken ones count
        if manifest.broken:
            left = [i for i, name in enumerate(manifest.names) if name not in manifest.broken]
            self.manifest_numbers = np.array(left, np.int64)
        if not manifest.complete:
            every = len(self.manifest_numbers)
            with self._reading("The index") as transaction:
                present = [
                    i for i in self.manifest_numbers.tolist() if transaction.get(record_key(i, "header")) is not None
                ]
            self.manifest_numbers = np.array(present, np.int64)
            if not partial:
                raise UserError(
                    f"{self.path} is unfinished ({len(self.manifest_numbers)} of {every} sequences): run the same "
                    "`relo data pack` again, which adds the rest."
                )

    @property
    def names(self) -> list[str]:
        """The sequences' names, in order."""
        return [self.manifest.names[number] for number in self.manifest_numbers.tolist()]

    def __len__(self) -> int:
        return len(self.manifest_numbers)

    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index` (0-based), with boxes in pixels of the packed frames."""
        manifest_number = int(self.manifest_numbers[index])
        header = self._header(manifest_number)
        frames: int = header["frames"]
        image_sizes = self._array(manifest_number, "sizes", "<i4", 2, (frames,))  # before memory is taken for so many
        if (image_sizes < 1).any():
            raise self._damaged(manifest_number, "sizes")
        image_boxes_xywh = self._array(manifest_number, "boxes", "<f8", 4, (1, frames)).astype(np.float64)
        if self.manifest.options.changes_frames:
            geometry = self._array(manifest_number, "geometry", "<f8", 4, (frames,)).astype(np.float64)
        else:
            geometry = np.tile(WHOLE_IMAGE, (frames, 1))
        return Sequence(
            name=header["name"],
            dataset=self.dataset,
            frames=StoredFrames(self, manifest_number, frames),
            boxes_xywh=to_packed(image_boxes_xywh, geometry[: len(image_boxes_xywh)]),
            visible=self._visible(manifest_number, (len(image_boxes_xywh),)),
            class_name=header["class_name"],
            sentence=header["sentence"],
            attributes={
                "image_sizes": image_sizes,
                "image_boxes_xywh": image_boxes_xywh,
                "geometry": geometry,
            },
        )

    def visibility(self) -> Visibility:
        """On which frames the sequences show their targets."""
        # An old store lacks the tables; what is damaged, or of another length, is read from the sequences, too.
        with suppress(UserError, ValueError, IndexError):
            flags, lengths = (
                np.frombuffer(self._read(key, "The table"), kind)
                for key, kind in ((ALL_VISIBLE, "u1"), (ALL_LENGTHS, "<i8"))
            )
            found = lengths[self.manifest_numbers]
            if self.manifest.complete and (found > 0).all() and found.sum() == lengths.sum() == len(flags):
                return Visibility(flags.astype(bool), found.astype(np.int64))
        visible = [self._visible(number) for number in self.manifest_numbers.tolist()]
        return Visibility(np.concatenate([*visible, np.empty(0, bool)]), np.array([*map(len, visible)], np.int64))

    def _visible(self, manifest_number: int, lengths: tuple[int, ...] | None = None) -> NDArray[np.bool_]:
        return self._array(manifest_number, "visible", "u1", 1, lengths)[:, 0].astype(bool)

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
            raise self._damaged(manifest_number, "header")
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
        return self._read(record_key(manifest_number, record), self.describe_record(manifest_number, record))

    def _array(
        self, manifest_number: int, record: str, kind: str, columns: int, lengths: tuple[int, ...] | None = None
    ) -> NDArray[Any]:
        """A record as rows of `columns` values; `lengths` are the numbers of rows that it may have."""
        content = self.read_record(manifest_number, record)
        rows, rest = divmod(len(content), columns * np.dtype(kind).itemsize)
        if rest or (lengths is not None and rows not in lengths):
            raise self._damaged(manifest_number, record)
        return np.frombuffer(content, kind).reshape(-1, columns)

    def _damaged(self, manifest_number: int, record: str) -> UserError:
        return UserError(f"{self.describe_record(manifest_number, record)} in {self.path} is damaged: {_REMEDY}.")

    @contextmanager
    def _reading(self, described: str) -> Iterator[Any]:
        """A transaction that reads what is described."""
        try:
            with open_environment(self._location).begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise UserError(f"{described} in {self.path} cannot be read ({error}): {NEW_COPY}.") from error

    def _read(self, key: bytes, described: str) -> bytes:
        with self._reading(described) as transaction:
            value: bytes | None = transaction.get(key)
        if value is None:
            if key == MANIFEST:
                raise UserError(f"{self.path} is an LMDB but no clip store; make one with `relo data pack`.")
            raise UserError(f"{described} is missing in {self.path}: {_REMEDY}.")
        content = value[:-CHECKSUM_BYTES]
        if checksum(content) != value[-CHECKSUM_BYTES:]:
            raise UserError(
                f"{described} in {self.path} is damaged (wrong checksum): {NEW_COPY if key == MANIFEST else _REMEDY}."
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


def is_complete(path: Path) -> bool:
    """Whether there is a store whose packing was finished."""
    with suppress(UserError):
        return is_store(path) and ClipStore(path, partial=True).manifest.complete
    return False
