"""Looking at a folder of data: which dataset it is, and what it lacks."""

from dataclasses import dataclass
from pathlib import Path

from relo.data.clip_store import ClipStore, is_store
from relo.data.sequences import open_reader
from relo.errors import UserError

SPLITS = {
    "lasot": ("train", "test"),
    "lasot_extension": ("test",),
    "got10k": ("train", "val", "test"),
    "trackingnet": ("train", "test"),
    "coco": ("train2017", "val2017"),
    "vasttrack": ("train", "test"),
    "plain": ("all",),
}
"""The splits to look at of the datasets that a folder can hold."""

_MARKS = {
    "got10k": ("train/list.txt", "val/list.txt", "test/list.txt", "train/GOT-10k_Train_*"),
    "trackingnet": ("TRAIN_*", "TEST/anno"),
    "coco": ("annotations/instances_*.json",),
    "vasttrack": ("*/*-*/Groundtruth.txt", "vasttrack_*_list.txt"),
    "lasot": ("*/*-*/full_occlusion.txt", "*/*-*/img", "training_set.txt", "testing_set.txt"),
    "plain": ("*/groundtruth.txt", "*/groundtruth_rect.txt"),
}


@dataclass(frozen=True)
class Finding:
    """What one split, or one store, is like."""

    what: str
    sequences: int
    frames: int
    problems: list[str]


def recognise(root: Path) -> str:
    """The name of the dataset in a folder, by its layout; `store` for a clip store.

    Raises:
        UserError: there is no such folder, or its layout is of no known dataset.
    """
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    if is_store(root):
        return "store"
    for dataset, marks in _MARKS.items():
        if any(next(root.glob(mark), None) is not None for mark in marks):
            return dataset
    archives = sorted(path.name for path in root.iterdir() if path.suffix in (".zip", ".tar", ".gz"))
    hint = f" It holds {archives[0]}: extract it first." if archives else ""
    inner = next((path for path in sorted(root.iterdir()) if path.is_dir() and _is_known(path)), None)
    hint = hint or (f" Did you mean {inner}?" if inner else " Name the dataset with --dataset.")
    raise UserError(f"{root} is not laid out as any known dataset.{hint}")


def look_at(root: Path, dataset: str, split: str | None = None) -> list[Finding]:
    """Read the annotations of every sequence and count its frames; frames are not decoded.

    Args:
        root: the dataset's folder, or a clip store.
        dataset: its name, or `store`.
        split: the split; all that are there by default.

    Raises:
        UserError: nothing of the dataset can be read.
    """
    if dataset == "store":
        return [_look_at_store(root)]
    if split is not None:
        return [_look_at_split(root, dataset, split)]
    findings = [_look_at_split(root, dataset, each) for each in SPLITS.get(dataset, ("all",))]
    # A user may keep one split only: another that is wholly missing is no problem then.
    return [finding for finding in findings if finding.sequences] or findings


def _is_known(folder: Path) -> bool:
    return is_store(folder) or any(next(folder.glob(m), None) is not None for marks in _MARKS.values() for m in marks)


def _look_at_split(root: Path, dataset: str, split: str) -> Finding:
    what, frames, problems = f"{dataset} {split}", 0, []
    try:
        reader = open_reader(dataset, root, split)
        count = len(reader)
    except UserError as error:
        try:  # some readers can do with a part
            reader = open_reader(dataset, root, split, partial=True)
            count = len(reader)
        except UserError:
            return Finding(what, 0, 0, [str(error)])
        problems.append(str(error))
    for index in range(count):
        try:
            frames += len(reader[index])
        except UserError as error:
            problems.append(str(error))
    return Finding(what, count, frames, problems)


def _look_at_store(path: Path) -> Finding:
    store = ClipStore(path, partial=True)
    manifest = store.manifest
    problems = [f"{name} was left out: {reason}" for name, reason in manifest.broken.items()]
    if not manifest.complete:
        problems.append(
            f"{len(manifest.names) - len(store)} of {len(manifest.names)} sequences are missing: "
            "run the same `relo data pack` again."
        )
    frames = 0
    for index in range(len(store)):
        try:
            frames += len(store[index])
        except UserError as error:
            problems.append(str(error))
    return Finding(f"clip store of {manifest.dataset} {manifest.split}".rstrip(), len(store), frames, problems)
