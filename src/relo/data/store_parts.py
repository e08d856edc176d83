"""Clip stores in parts: each packed on a machine of its own into a folder of one, which is then read as one store."""

import re
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relo.data.clip_store import ClipStore, is_store
from relo.data.sequences.base import Sequence, SequenceReader
from relo.data.store_tables import Visibility
from relo.errors import UserError, excerpt

_FOLDER = re.compile(r"part-([1-9]\d{0,4})-of-([1-9]\d{0,4})")


@dataclass(frozen=True)
class Part:
    """Number `number` (from 1) of `count` parts of a reader's sequences: equal ones, in order."""

    number: int
    count: int

    @staticmethod
    def of(text: str) -> "Part":
        """The part that is written as 3/8.

        Raises:
            UserError: it is written otherwise, or there is no such part.
        """
        found = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", text)
        if found is None or int(found[1]) > int(found[2]):
            raise UserError(f"A part is its number and how many there are, such as 3/8, not {excerpt(text)}.")
        return Part(int(found[1]), int(found[2]))

    @property
    def folder(self) -> str:
        """The name of its store's folder."""
        return f"part-{self.number}-of-{self.count}"

    def reader(self, reader: SequenceReader) -> "PartReader":
        """The sequences of the part.

        Raises:
            UserError: there are more parts than sequences.
        """
        if self.count > len(reader):
            raise UserError(f"{self.count} parts are more than the {len(reader)} sequences of {reader.dataset}.")
        start, stop = ((number * len(reader)) // self.count for number in (self.number - 1, self.number))
        return PartReader(reader, range(start, stop))


class PartReader(SequenceReader):
    """Those sequences of a reader that have some numbers."""

    def __init__(self, reader: SequenceReader, numbers: range) -> None:
        self.reader, self.numbers = reader, numbers
        self.dataset, self.listed = reader.dataset, reader.listed

    @property
    def names(self) -> list[str]:
        """The sequences' names, in order."""
        return self.reader.names[self.numbers.start : self.numbers.stop]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index` of the part."""
        return self.reader[self.numbers[index]]


class JoinedStores(SequenceReader):
    """The sequences of several stores, one store after the other; picklable.

    Raises:
        UserError: a store cannot be read, or they are of different datasets, splits or packing options.
    """

    def __init__(self, path: Path, folders: AnySequence[Path]) -> None:
        self.path = path
        self.stores = [ClipStore(folder) for folder in folders]
        first = self.stores[0].manifest
        for store in self.stores:
            other = store.manifest
            if (other.dataset, other.split, other.options) != (first.dataset, first.split, first.options):
                raise UserError(
                    f"{store.path} holds {other.dataset} {other.split}, or was packed with other options, than "
                    f"{self.stores[0].path} beside it: pack all parts of a store in the same way."
                )
        self.dataset = first.dataset
        self.options = first.options
        self._ends = np.cumsum([len(store) for store in self.stores])

    @property
    def names(self) -> list[str]:
        """The sequences' names, in order."""
        return [name for store in self.stores for name in store.names]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index` (0-based) of all."""
        place = range(len(self))[index]
        which = int(np.searchsorted(self._ends, place, side="right"))
        return self.stores[which][place - int(self._ends[which]) + len(self.stores[which])]

    def visibility(self) -> Visibility:
        """On which frames the sequences show their targets."""
        tables = [store.visibility() for store in self.stores]
        return Visibility(
            np.concatenate([table.flags for table in tables]), np.concatenate([table.lengths for table in tables])
        )


def store_folders(path: Path) -> list[Path]:
    """The folders of the stores at a path: itself, or those of its parts.

    Raises:
        UserError: parts are missing, or there are parts of different numbers.
    """
    found = [match for folder in _entries(path) if (match := _FOLDER.fullmatch(folder.name))]
    if is_store(path) or not found:
        return [path]
    counts = {int(match[2]) for match in found}
    if len(counts) > 1:
        raise UserError(f"{path} holds parts of {' and of '.join(map(str, sorted(counts)))}: leave those of one only.")
    (count,) = counts
    parts = [Part(number, count) for number in range(1, count + 1)]
    missing = [f"{part.number}/{count}" for part in parts if not is_store(path / part.folder)]
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of its {count} parts: pack them with `relo data pack ... --part {missing[0]}`"
            f"{' and so on' if missing[1:] else ''}."
        )
    return [path / part.folder for part in parts]


def holds_store(path: Path) -> bool:
    """Whether there is a store at a path, or some part of one."""
    return is_store(path) or any(_FOLDER.fullmatch(folder.name) and is_store(folder) for folder in _entries(path))


def open_store(path: str | Path) -> ClipStore | JoinedStores:
    """The store at a path, in one or in parts.

    Raises:
        UserError: there is no store; or it, or a part of it, is missing, unfinished, of another version, or damaged.
    """
    folders = store_folders(Path(path))
    return ClipStore(path) if folders == [Path(path)] else JoinedStores(Path(path), folders)


def _entries(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []
