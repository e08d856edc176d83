"""What readers of folders of images share."""

import os
import re
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

from relo.data.sequences.base import ImageFiles, Sequence, SequenceReader
from relo.errors import UserError

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


class FolderReader(SequenceReader):
    """A reader that knows its sequences by name; a dataset's reader says how to read one.

    Args:
        root: the dataset's folder.
        names: the sequences of the split, in order.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        self._names = list(names)
        if not self._names:
            raise UserError(f"{root} holds no sequence of this split of {self.dataset}.")

    @property
    def names(self) -> list[str]:
        """The sequences' names, in order."""
        return self._names

    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index` (0-based)."""
        return self.read(self._names[index])

    @abstractmethod
    def read(self, name: str) -> Sequence:
        """The sequence called `name`."""


def require_folder(root: str | os.PathLike[str], dataset: str) -> Path:
    """The dataset's root as a path.

    Raises:
        UserError: there is no such folder.
    """
    path = Path(root)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}; give the root of {dataset}.")
    return path


def require_split(split: str, known: Iterable[str], dataset: str) -> None:
    """Refuse a split that the dataset does not have.

    Raises:
        UserError: `split` is not one of `known`.
    """
    if split not in (known := list(known)):
        raise UserError(f"{dataset} has no split {split!r}; there is {', '.join(known)}.")


def require_all(root: Path, names: Iterable[str], present: Iterable[str], split: str, partial: bool) -> list[str]:
    """The names of a split that are present: all of them, unless part of a dataset will do.

    Raises:
        UserError: one is missing, and `partial` is false.
    """
    present = set(present)
    names = list(names)
    kept = [name for name in names if name in present]
    if len(kept) < len(names) and not partial:
        first = next(name for name in names if name not in present)
        raise UserError(
            f"{root} lacks {len(names) - len(kept)} of the {len(names)} sequences of split {split} (first {first}); "
            "complete it, or read the rest with partial=True."
        )
    return kept


def subfolders(folder: Path) -> list[str]:
    """The names of the visible folders in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def image_names(folder: Path) -> list[str]:
    """The names of the visible image files in `folder`, in no order.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    try:
        names = [name for name in os.listdir(folder) if name.lower().endswith(_IMAGE_SUFFIXES) and name[0] != "."]
    except OSError as error:
        raise UserError(f"The frames' folder {folder} cannot be read ({error.strerror}).") from error
    if not names:
        raise UserError(f"{folder} holds no images.")
    return names


def named_frames(folder: Path, ignored: Iterable[str] = ()) -> ImageFiles:
    """All images of a folder in the order of their names, but for those `ignored`.

    Names that are whole numbers are sorted by value, so 10.jpg comes after 9.jpg.
    """
    names = [name for name in image_names(folder) if name not in set(ignored)]
    stems = {name: name.rpartition(".")[0] for name in names}
    numeric = all(stem.isdecimal() for stem in stems.values())
    return ImageFiles(folder, tuple(sorted(names, key=lambda name: (int(stems[name]) if numeric else 0, name))))


def numbered_frames(folder: Path, first: int, last: int | None = None) -> ImageFiles:
    """The images number `first` to `last` (by default, to the highest), whatever the padding of their names.

    Raises:
        UserError: the folder is missing, or a frame of the range is.
    """
    by_number = {int(name.rpartition(".")[0]): name for name in image_names(folder) if re.match(r"\d+\.", name)}
    numbers = range(first, (max(by_number, default=first) if last is None else last) + 1)
    missing = [number for number in numbers if number not in by_number]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of the frames {first} to {numbers[-1]} (the first is number {missing[0]}); "
            "copy or extract the sequence again."
        )
    return ImageFiles(folder, tuple(by_number[number] for number in numbers))


def frames_folder(frames: ImageFiles) -> str:
    """How to speak of a sequence's frames where their number is wrong."""
    return f"frames in {frames.folder}"
