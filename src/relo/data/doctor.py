"""Looking at a folder of data: which dataset it is, and what it lacks."""

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from relo.data.clip_store import ClipStore, is_store
from relo.data.parallel import WorkProgress, in_order
from relo.data.sequence_checks import examine
from relo.data.sequences import open_reader
from relo.data.sequences.base import SequenceReader
from relo.errors import UserError

SPLITS = {
    "lasot": ("train", "test"),
    "got10k": ("train", "val", "test"),
    "trackingnet": ("train", "test"),
    "coco": ("train2017", "val2017"),
    "vasttrack": ("train", "test"),
    "plain": ("all",),
    "photos": ("all",),
}
"""The splits to look at of the datasets that have another than `test`."""

_MARKS = {
    "got10k": ("train/list.txt", "val/list.txt", "test/list.txt", "*/GOT-10k_*_*"),
    "trackingnet": ("TRAIN_*", "TEST/anno"),
    "coco": ("annotations/instances_*.json",),
    "vasttrack": ("*/*-*/Groundtruth.txt", "vasttrack_*_list.txt"),
    "nfs_released": ("*/30/*_pytracking.txt",),
    "nfs": ("*/30",),
    "nfs_pytracking": ("anno/nfs_*.txt",),
    "uav123": ("data_seq/UAV123",),
    "uav123_10fps": ("data_seq/UAV123_10fps",),
    "lasot": (
        "*/*-*/full_occlusion.txt",
        "*/*-*/img",
        "*-*/full_occlusion.txt",
        "training_set.txt",
        "testing_set.txt",
    ),
    "tnl2k": ("*/imgs", "*/language.txt"),
    "plain": ("*/groundtruth.txt", "*/groundtruth_rect.txt"),
    "photos": ("boxes.jsonl", "masks/*_*.png"),
}

_TRACES = {
    "got10k": {"train": "train", "val": "val", "test": "test"},
    "trackingnet": {"train": "TRAIN_*", "test": "TEST"},
    "coco": {"train2017": "*/*train2017*", "val2017": "*/*val2017*"},
}
"""What shows that a split is meant to be there, of datasets that keep splits in folders of their own."""

_SEQUENCES_PER_WORKER = 100
"""Fewer are read sooner than another process starts, unless frames are decoded."""


@dataclass(frozen=True)
class Finding:
    """What one split, or one store, is like: what it lacks, and what else a person should know of it."""

    what: str
    sequences: int
    frames: int
    problems: list[str]
    remarks: list[str] = field(default_factory=list)


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


def look_at(
    root: Path, dataset: str, split: str | None = None, workers: int = 0, decode: bool = False
) -> list[Finding]:
    """Read the annotations of every sequence and count its frames.

    Args:
        root: the dataset's folder, or a clip store.
        dataset: its name, or `store`.
        split: the split; all that are there by default.
        workers: processes that read; 0 reads in this one.
        decode: also decode every frame, and hold the boxes against the sizes of frames.

    Raises:
        UserError: there is no store, or its manifest cannot be read.
    """
    if dataset == "store":
        return [_look_at_store(root, workers, decode)]
    if split is not None:
        return [_look_at_split(root, dataset, split, workers, decode)]
    splits = SPLITS.get(dataset, ("test",))
    findings = [_look_at_split(root, dataset, each, workers, decode) for each in splits]
    # A user may keep one split only: another of which there is no trace is no problem then.
    return [found for found in findings if found.sequences or _has_traces(root, dataset, found.what)] or findings


def _is_known(folder: Path) -> bool:
    return is_store(folder) or any(next(folder.glob(m), None) is not None for marks in _MARKS.values() for m in marks)


def _has_traces(root: Path, dataset: str, what: str) -> bool:
    trace = _TRACES.get(dataset, {}).get(what.rpartition(" ")[2])
    return trace is not None and next(root.glob(trace), None) is not None


def _look_at_split(root: Path, dataset: str, split: str, workers: int, decode: bool) -> Finding:
    what = f"{dataset} {split}"
    problems: list[str] = []
    try:
        reader = open_reader(dataset, root, split)
        len(reader)  # some list their sequences only now
    except UserError as error:
        problems = [str(error)]
        try:  # some readers can do with a part
            reader = open_reader(dataset, root, split, **_partial_options(root, dataset))
            len(reader)
        except UserError:
            return Finding(what, 0, 0, problems)
    return _read_all(what, reader, problems, workers, decode)


def _partial_options(root: Path, dataset: str) -> dict[str, Any]:
    if dataset != "trackingnet":
        return {"partial": True}
    folders = [path.parent.name.removeprefix("TRAIN_") for path in root.glob("TRAIN_*/anno")]
    return {"folders": sorted(int(number) for number in folders if number.isdecimal())}


def _look_at_store(path: Path, workers: int, decode: bool) -> Finding:
    store = ClipStore(path, partial=True)
    manifest = store.manifest
    problems = [f"{name} was left out: {reason}" for name, reason in manifest.broken.items()]
    if not manifest.complete:
        problems.append(
            f"{len(manifest.names) - len(store)} of {len(manifest.names)} sequences are missing: "
            "run the same `relo data pack` again."
        )
    what = f"clip store of {manifest.dataset} {manifest.split}".rstrip()
    return _read_all(what, store, problems, workers, decode)


def _read_all(what: str, reader: SequenceReader, problems: list[str], workers: int, decode: bool) -> Finding:
    total, frames = len(reader), 0
    remarks: list[str] = []
    (remarks if reader.listed else problems).extend(reader.unused)
    workers = min(workers, total if decode else total // _SEQUENCES_PER_WORKER)
    results = in_order(partial(examine, reader, decode=decode), range(total), workers)
    with WorkProgress(Console(), f"looking at {what}", total) as progress, closing(results):
        for result in results:
            problems += result.problems
            remarks += result.remarks
            frames += result.frames
            progress.count(result.frames)
    return Finding(what, total, frames, problems, remarks)
