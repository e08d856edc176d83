"""Looking at a folder of data: which dataset it is, and what it lacks."""

from dataclasses import dataclass, field
from pathlib import Path

from relo.console import make_console
from relo.data.clip_store import ClipStore
from relo.data.sequence_checks import examined
from relo.data.sequences import DATASETS, find_dataset, open_reader
from relo.data.sequences.base import SequenceReader
from relo.data.store_environment import require_sound_pages
from relo.data.store_parts import holds_store, store_folders
from relo.errors import UserError

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
    if (found := _recognised(root)) is not None:
        return found
    archives = sorted(path.name for path in root.iterdir() if path.suffix in (".zip", ".tar", ".gz"))
    hint = f" It holds {archives[0]}: extract it first." if archives else ""
    folders = (path for path in sorted(root.iterdir()) if path.is_dir())
    inner = next(filter(_recognised, folders), None)
    hint = hint or (f" Did you mean {inner}?" if inner else " Name the dataset with --dataset.")
    raise UserError(f"{root} is not laid out as any known dataset.{hint}")


def look_at(
    root: Path, dataset: str, split: str | None = None, workers: int = 0, decode: bool = False
) -> list[Finding]:
    """Read the annotations of every sequence and count its frames.

    Args:
        root: the dataset's folder, or a clip store, which may be in parts.
        dataset: its name, or `store`.
        split: the split; all that are there by default.
        workers: processes that read; 0 reads in this one.
        decode: also decode every frame, and hold the boxes against the sizes of frames.

    Raises:
        UserError: there is no store, parts of it are missing, or its manifest cannot be read.
    """
    if dataset == "store":
        return [_look_at_store(path, workers, decode, path != root) for path in store_folders(root)]
    specification = find_dataset(dataset)
    dataset = specification.name
    if split is not None:
        return [_look_at_split(root, dataset, split, workers, decode)]
    findings = {each: _look_at_split(root, dataset, each, workers, decode) for each in specification.splits}
    # A user may keep one split only: another of which there is no trace is no problem then.
    traced = {each for each, trace in specification.traces.items() if _is_there(root, trace)}
    there = [found for each, found in findings.items() if found.sequences or each in traced]
    return there or list(findings.values())


def _recognised(folder: Path) -> str | None:
    """The name of the dataset whose marks a folder has, or `store`."""
    if holds_store(folder):
        return "store"
    marked = (name for name, dataset in DATASETS.items() if any(_is_there(folder, mark) for mark in dataset.marks))
    return next(marked, None)


def _is_there(folder: Path, pattern: str) -> bool:
    return next(folder.glob(pattern), None) is not None


def _look_at_split(root: Path, dataset: str, split: str, workers: int, decode: bool) -> Finding:
    what = f"{dataset} {split}"
    problems: list[str] = []
    for options in ({}, {"partial": True}):  # some readers can do with a part
        try:
            reader = open_reader(dataset, root, split, **options)
            len(reader)  # some list their sequences only now
        except UserError as error:
            problems = problems or [str(error)]
        else:
            return _read_all(what, reader, problems, workers, decode)
    return Finding(what, 0, 0, problems)


def _look_at_store(path: Path, workers: int, decode: bool, is_part: bool) -> Finding:
    require_sound_pages(path)
    store = ClipStore(path, partial=True)
    manifest = store.manifest
    part = f"{path.name}: " if is_part else ""
    problems = [f"{part}{name} was left out: {reason}" for name, reason in manifest.broken.items()]
    if not manifest.complete:
        problems.append(
            f"{part}{len(manifest.names) - len(store)} of {len(manifest.names)} sequences are missing: "
            "run the same `relo data pack` again."
        )
    what = f"{part}clip store of {manifest.dataset} {manifest.split}".rstrip()
    return _read_all(what, store, problems, workers, decode)


def _read_all(what: str, reader: SequenceReader, problems: list[str], workers: int, decode: bool) -> Finding:
    total, counted = len(reader), 0
    remarks: list[str] = []
    (remarks if reader.listed else problems).extend(reader.unused)
    workers = min(workers, total if decode else total // _SEQUENCES_PER_WORKER)
    for result in examined(reader, f"looking at {what}", "decoded" if decode else "counted", workers, make_console()):
        problems += result.problems
        remarks += result.remarks
        counted += result.frames
    return Finding(what, total, counted, problems, remarks)
