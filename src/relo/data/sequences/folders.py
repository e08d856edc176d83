"""What readers of folders of images share."""

import os
from abc import abstractmethod
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from relo.data.sequences.base import Sequence, SequenceReader
from relo.data.sequences.frame_files import is_folder, is_image_name
from relo.data.sequences.parsing import is_given
from relo.errors import UserError

_ANNOTATION = "groundtruth"  # what an annotation beside its frames is called, in small letters, but for its end
_SEQUENCE_PARTS = ("groundtruth.txt", "Groundtruth.txt", "img", "imgs")
_DEPTH = 4  # folders between a dataset's root and what may be a sequence


class FolderReader(SequenceReader):
    """A reader that knows its sequences by name; a dataset's reader says how to read one.

    Args:
        root: the folder that holds the sequences' folders.
        names: the sequences of the split, in order.

    Attributes:
        unused_because: why what looks like a sequence may be none that is read.
    """

    unused_because: str

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        self._names = list(names)
        if not self._names:
            hint = next((f"; {sentence}" for sentence in self.unused), ".")
            raise UserError(f"{root} holds no sequence of this split of {self.dataset}{hint}")

    @property
    def names(self) -> list[str]:
        """The sequences' names, in order."""
        return self._names

    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index` (0-based)."""
        return self.read(self._names[index])

    @property
    def unused(self) -> list[str]:
        """The folders under the root that look like sequences, or cannot be looked at, and are not read."""
        return list(_unused_folders(self.root, set(self.sequence_folders()), self.unused_because))

    def sequence_folders(self) -> Iterable[Path]:
        """The folders of what is read, in this split or another; by default those of the sequences' names."""
        return (self.root / name for name in self._names)

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


def unused_annotations(folder: Path, used: Container[str]) -> list[str]:
    """The visible text files of a folder of annotations that are not among those `used`, one sentence each."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    names = [name for name in names if name.endswith(".txt") and not name.startswith(".") and name not in used]
    return [f"{folder / name} is the annotation of no sequence that is read." for name in names]


def class_sequences(root: Path) -> dict[str, Path]:
    """The folders called `<class>-<n>`, by name in order: those of LaSOT, its extension and VastTrack.

    They lie in one folder per class, as published, or right in the root, or in folders within it, as unpacking may
    leave them. Of several with one name the uppermost counts.
    """
    found: dict[str, Path] = {}
    folders = sorted(_class_sequences(root, _DEPTH), key=lambda folder: len(folder.parts))
    for folder in folders:
        found.setdefault(folder.name, folder)
    return found


def _class_sequences(folder: Path, depth: int) -> Iterator[Path]:
    for name in subfolders(folder):
        inner = folder / name
        label, _, number = name.rpartition("-")
        numbered = label != "" and number.isdecimal()
        if numbered and (label == folder.name or any(is_given(inner / part) for part in _SEQUENCE_PARTS)):
            yield inner
        elif depth > 1:
            yield from _class_sequences(inner, depth - 1)


def _unused_folders(folder: Path, used: Container[Path], because: str, depth: int = _DEPTH) -> Iterator[str]:
    """A sentence on each folder below `folder` that is none of those `used` and looks like a sequence."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        yield f"{folder} cannot be read ({error.strerror})."
        return
    if depth < _DEPTH and any(_is_of_a_sequence(folder / name) for name in names):
        yield f"{folder} looks like a sequence and is not read: {because}."
        return
    for path in (folder / name for name in names):
        if path in used:
            continue
        if os.path.islink(path) and not os.path.exists(path):
            yield f"{path} is a link to what is not there."
        elif depth > 0 and os.path.isdir(path):
            yield from _unused_folders(path, used, because, depth - 1)


def _is_of_a_sequence(path: Path) -> bool:
    annotates = path.name.lower().startswith(_ANNOTATION)
    return (annotates or is_image_name(path.name)) and not os.path.isdir(path)


def subfolders(folder: Path) -> list[str]:
    """The names of the visible folders in `folder`, sorted.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if is_folder(entry) and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read ({error.strerror}).") from error
