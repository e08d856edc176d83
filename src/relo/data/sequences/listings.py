"""Which sequences a folder holds, and where: by folders, by classes or by a table; and what in it is not read."""

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

from relo.data.sequences.frame_files import is_folder, is_image_name, natural_key
from relo.data.sequences.parsing import is_given, read_names
from relo.data.sequences.specification import Dataset, Listing, Place
from relo.data.sequences.tables import frame_range, read_table
from relo.errors import EXCERPT, UserError

_ANNOTATION = "groundtruth"  # what an annotation beside its frames is called, in small letters, but for its end
_SEQUENCE_PARTS = ("groundtruth.txt", "Groundtruth.txt", "img", "imgs")
_DEPTH = 4  # folders between a dataset's root and what may be a sequence


def in_folders(dataset: Dataset, root: Path, split: str) -> Listing:
    """The sequences whose folders lie side by side and hold one of `shown_by`."""
    within = dataset.folder.rpartition("/")[0]
    folder = require_folder(root / within, dataset.title)
    names = [
        name
        for name in subfolders(folder)
        if not dataset.shown_by or any(is_given(folder / name / part) for part in dataset.shown_by)
    ]
    places = {name: dataset.place(root, name) for name in names}
    because = f"it does not lie right under {within or 'the root'}"
    if dataset.shown_by:
        part = dataset.shown_by[0]
        because = f"its {part if '.' in part else f'folder {part}'} is missing, or {because}"
    return Listing(places, folder, places, because)


def in_classes(
    dataset: Dataset, root: Path, split: str, *, partial: bool = False, list_file: Path | None = None
) -> Listing:
    """The sequences called `<class>-<n>`, wherever they lie below the root, which a list of the split names.

    Without any list, all of them; without one of `train`, those that the list of `test` does not name.

    Args:
        dataset: the dataset.
        root: its folder.
        split: the split.
        partial: take the sequences that are there, instead of refusing a root that lacks some.
        list_file: the list, in the place of the root's own and the official one.
    """
    found = {name: Place(folder.parent, {"name": name}) for name, folder in class_sequences(root).items()}
    if not dataset.lists:
        if list_file:
            raise UserError(f"{dataset.title} is read without a list: leave list_file out.")
        places = {name: found[name] for name in sorted(found, key=natural_key)}
        return Listing(places, root, found, "it is not called <class>-<n>, or another folder of this name is read")
    lists = {each: _names_of(dataset, root, each) for each in dataset.splits}
    names = read_names(list_file) if list_file else lists[split]
    if names is None and split == "train" and lists["test"] is not None:
        held_out = set(lists["test"])
        names = [name for name in found if name not in held_out]
    if names is None:
        raise UserError(
            f"There is no list {root / dataset.lists[split]} of {dataset.title}'s {split} sequences; "
            "copy the official one there."
        )
    listed = {name for each in lists.values() for name in each or ()}
    is_complete = list_file is None and None not in lists.values()
    return Listing(
        places=require_all(root, names, found, split, partial),
        searched=root,
        known={name: place for name, place in found.items() if name in listed or not is_complete},
        unread_because=f"no list of {dataset.title}'s sequences names it, or another folder of this name is read",
        is_list=True,
    )


def in_table(dataset: Dataset, root: Path, split: str, *, partial: bool = False) -> Listing:
    """The sequences of the dataset's table, which are ranges of the frames in folders.

    A file `own_table` in the root stands in for the packaged table; it counts the frames that are there.

    Args:
        dataset: the dataset.
        root: its folder.
        split: the split.
        partial: take the sequences that are there, instead of refusing a root that lacks some.
    """
    assert dataset.table is not None
    folder = require_folder(root / dataset.folder.rpartition("/")[0], dataset.title)
    own_table = root / dataset.own_table
    every = 1 if is_given(own_table) else dataset.every
    rows = read_table(dataset.table, own_table).items()
    known = {name: Place(root, {**row, "name": name}, *frame_range(row, every)) for name, row in rows}
    folders = set(subfolders(folder))
    present = {name: place for name, place in known.items() if place.fields["folder"] in folders}
    places = require_all(folder, known, present, split, partial)
    return Listing(places, folder, known, f"the table of {dataset.title}'s sequences does not name it", is_list=True)


def _names_of(dataset: Dataset, root: Path, split: str) -> list[str] | None:
    """The names of a split: by the list in the root, or else the official ones, where either is there."""
    own_list = root / dataset.lists[split]
    if is_given(own_list):
        return read_names(own_list)
    return None if dataset.official is None else dataset.official(split)


def require_folder(root: str | os.PathLike[str], title: str) -> Path:
    """The dataset's root as a path.

    Raises:
        UserError: there is no such folder.
    """
    path = Path(root)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}; give the root of {title}.")
    return path


def require_split(split: str, known: Iterable[str], title: str) -> None:
    """Refuse a split that the dataset does not have.

    Raises:
        UserError: `split` is not one of `known`.
    """
    if split not in (known := list(known)):
        raise UserError(f"{title} has no split {split!r}; there is {', '.join(known)}.")


def require_all(
    root: Path, names: Iterable[str], present: Mapping[str, Place], split: str, partial: bool
) -> dict[str, Place]:
    """The places of a split's sequences: of all, unless part of a dataset will do.

    Raises:
        UserError: a sequence is missing, and `partial` is false.
    """
    names = list(names)
    missing = [name for name in names if name not in present]
    if missing and not partial:
        raise UserError(
            f"{root} lacks {len(missing)} of the {len(names)} sequences of split {split} (first "
            f"{missing[0][:EXCERPT]}); complete it, or read the rest with partial=True."
        )
    return {name: present[name] for name in names if name in present}


def class_sequences(root: Path) -> dict[str, Path]:
    """The folders called `<class>-<n>`, by name in order.

    They lie in one folder per class, as published, or right in the root, or in folders within it, as unpacking may
    leave them. Of several with one name the uppermost counts.
    """
    found: dict[str, Path] = {}
    for folder in sorted(_class_sequences(root, _DEPTH), key=lambda folder: len(folder.parts)):
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


def unread(dataset: Dataset, root: Path, listing: Listing) -> list[str]:
    """What lies in a dataset's root, looks like a sequence or a part of one and is not read; one sentence each."""
    folders = {place.path(dataset.folder) for place in listing.known.values()}
    sentences = list(_unread_folders(listing.searched, folders.union(listing.skipped), listing.unread_because))
    apart = dataset.boxes[0].rpartition("/")[0]  # where annotations are not beside the frames
    if "{" not in apart and (root / apart).is_dir():
        annotations = {place.path(*dataset.boxes).name for place in listing.known.values()}
        names = sorted(name for name in os.listdir(root / apart) if name.endswith(".txt") and name[0] != ".")
        others = [root / apart / name for name in names if name not in annotations]
        sentences += [f"{path} is the annotation of no sequence that is read." for path in others]
    return sentences


def _unread_folders(folder: Path, read: Container[Path], because: str, depth: int = _DEPTH) -> Iterator[str]:
    """A sentence on each folder below `folder` that is none of those `read` and looks like a sequence."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        yield f"{folder} cannot be read ({error.strerror})."
        return
    if depth < _DEPTH and any(_is_of_a_sequence(folder / name) for name in names):
        yield f"{folder} looks like a sequence and is not read: {because}."
        return
    for path in (folder / name for name in names):
        if path in read:
            continue
        if os.path.islink(path) and not os.path.exists(path):
            yield f"{path} is a link to what is not there."
        elif depth > 0 and os.path.isdir(path):
            yield from _unread_folders(path, read, because, depth - 1)


def _is_of_a_sequence(path: Path) -> bool:
    annotates = path.name.lower().startswith(_ANNOTATION)
    return (annotates or is_image_name(path.name)) and not os.path.isdir(path)
