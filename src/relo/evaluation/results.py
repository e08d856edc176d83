"""Result files: finding them, matching them to sequences by name, and reading them."""

import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relo.data.sequences.parsing import json_boxes, read_boxes, read_json, read_numbers
from relo.data.sequences.specification import Dataset, canonical_name
from relo.errors import EXCERPT, UserError, excerpt, printable
from relo.evaluation.archives import is_text_name, open_zip

# What trackers write beside the boxes of a sequence.
_BESIDE_BOXES = re.compile(r"(.+)_(times?|all_boxes|all_scores|scores?|confidence|presence|object_presence_scores)")
_REPETITION = re.compile(r"(.+)_(\d{3})")
TRAINING_NOTE = "training.txt"
RUN_FILE = "run.json"  # what made the results; named here, for `result_folder` loads the networks
_LOOKED_AT = 1000  # entries of a folder without results, to say what it holds


@dataclass
class TrackerResults:
    """The result files of one tracker."""

    tracker: str  # from its folder
    origin: Path  # the folder or zip
    files: dict[str, list[Path]]  # by sequence, one per repetition
    unmatched: list[str] = field(default_factory=list)  # names of files that belong to no sequence
    times: dict[str, Path] = field(default_factory=dict)  # seconds per frame (`<sequence>_time.txt`), by sequence
    training: Path | None = None  # a note of what the tracker was trained on (`training.txt`)


def files_of(results: TrackerResults) -> list[Path]:
    """The files that a tracker's results are read from, but for those in a zip."""
    read = [*chain.from_iterable(results.files.values()), *results.times.values(), results.training]
    return [file for file in read if isinstance(file, Path)]


class NameMatcher:
    """Finds the sequence that a result file is named after.

    In this order: the very name; the name whatever its case and separators; the same without a toolkit's prefix, or
    with a spelling known to differ. Names that two sequences would share this way match only exactly.
    """

    def __init__(self, names: Collection[str], benchmark: Dataset) -> None:
        self._exact = set(names)
        self._canonical: dict[str, str | None] = {}
        for name in names:
            key = canonical_name(name)
            self._canonical[key] = None if key in self._canonical else name
        self._prefixes = [canonical_name(prefix) + "_" for prefix in benchmark.prefixes]
        self._spellings = dict(benchmark.result_names)

    def match(self, stem: str) -> str | None:
        """The sequence that a file called `stem` (without suffix) holds the result of, or None."""
        if stem in self._exact:
            return stem
        key = canonical_name(stem)
        keys = [key, *(key.removeprefix(prefix) for prefix in self._prefixes)]
        keys += [self._spellings[key] for key in keys if key in self._spellings]
        return next((name for key in keys if (name := self._canonical.get(key)) is not None), None)


def find_results(
    paths: Iterable[Path], names: Collection[str], benchmark: Dataset, annotations: Path | None = None
) -> list[TrackerResults]:
    """The trackers whose results lie at `paths`.

    Args:
        paths: each the folder or zip of one tracker, or a folder that holds one folder per tracker. A tracker's
            folder holds `<sequence>.txt`, or GOT-10k's `<sequence>/<sequence>_001.txt`, or OTB's `<sequence>.json`.
        names: the benchmark's sequences.
        benchmark: the benchmark, for the spellings of its sequences.
        annotations: where the truth lies: no tracker's folder, though it looks like one.

    Raises:
        UserError: there is nothing at a path, or no file in it is named after a sequence, or two files are of one
            sequence, or two trackers are of one name.
    """
    matcher = NameMatcher(names, benchmark)
    trackers: list[TrackerResults] = []
    for path in paths:
        found = _trackers_at(path, matcher, annotations)
        if not found:
            raise UserError(f"{path} holds no result of {benchmark.title}: {_what_is_there(path, names)}.")
        trackers += found
    _name_apart(trackers)
    return trackers


def _name_apart(trackers: Sequence[TrackerResults]) -> None:
    """Give trackers of one name that of the folder above, too, and its whole path where that does not tell them apart.

    Raises:
        UserError: a tracker is given twice.
    """
    names = [tracker.tracker for tracker in trackers]
    for above in (lambda folder: folder.name, str):
        found = Counter(tracker.tracker for tracker in trackers)
        for tracker, name in zip(trackers, names, strict=True):
            if found[tracker.tracker] > 1:
                tracker.tracker = f"{printable(above(tracker.origin.parent))}/{name}"
    first: dict[str, TrackerResults] = {}
    for tracker in trackers:
        if (other := first.setdefault(tracker.tracker, tracker)) is not tracker:
            raise UserError(
                f"{other.origin} and {tracker.origin} are both results of a tracker {tracker.tracker}; give each once, "
                "under a name of its own."
            )


def _trackers_at(path: Path, matcher: NameMatcher, annotations: Path | None) -> list[TrackerResults]:
    if not path.exists():
        raise UserError(
            f"There are no results at {path}; give a tracker's folder of <sequence>.txt files, or a zip of one."
        )
    if path.is_dir():
        inner = _folders(path)
        if annotations is not None:
            inner = [folder for folder in inner if folder.resolve() != annotations.resolve()]
        return _trackers_in(path, inner, path, matcher)
    root = open_zip(path, f"The results {path} are neither a folder nor a zip of one.")
    inner = _folders(root)
    found = _trackers_in(root, inner, path, matcher)
    if not found and len(inner) == 1:  # the zip of a folder that holds one folder per tracker
        found = _trackers_in(inner[0], _folders(inner[0]), path, matcher)
    return [replace(found[0], tracker=printable(path.stem), origin=path)] if len(found) == 1 else found


def _trackers_in(folder: Path, inner: list[Path], origin: Path, matcher: NameMatcher) -> list[TrackerResults]:
    """The tracker whose results lie in a folder itself, or else those of its `inner` folders."""
    own = _tracker(folder, origin.resolve().name, origin, matcher)
    if own.files:
        return [own]
    found = [_tracker(item, item.name, origin / item.name, matcher) for item in inner]
    return [results for results in found if results.files]


def _tracker(folder: Path, name: str, origin: Path, matcher: NameMatcher) -> TrackerResults:
    """The results that lie in a folder itself, or in folders named after sequences."""
    results = TrackerResults(printable(name), origin, {})
    for item in _sorted(folder):
        if item.is_dir():
            sequence = matcher.match(item.name)
            if sequence is not None and (files := _repetitions(item)):
                _add(results, sequence, files)
                if (times := item / f"{item.name}_time.txt").exists():
                    results.times[sequence] = times
        elif is_text_name(item.name):
            stem = item.name.rpartition(".")[0]
            beside = _BESIDE_BOXES.fullmatch(stem)
            if (sequence := matcher.match(stem)) is not None:
                _add(results, sequence, [item])
            elif item.name == TRAINING_NOTE:
                results.training = item
            elif beside is not None:
                sequence = matcher.match(beside[1])
                if sequence is not None and beside[2].startswith("time"):
                    results.times[sequence] = item
            elif item.name != RUN_FILE:
                results.unmatched.append(item.name)
    return results


def repetition(stem: str) -> tuple[str, int | None]:
    """The sequence and the number of a repetition in GOT-10k's `<sequence>_001`; None where there is no number."""
    match = _REPETITION.fullmatch(stem)
    return (stem, None) if match is None else (match[1], int(match[2]))


def _repetitions(folder: Path) -> list[Path]:
    texts = [file for file in _sorted(folder) if is_text_name(file.name, ".txt")]
    return [file for file in texts if repetition(file.name[:-4])[1]]


def _add(results: TrackerResults, sequence: str, files: list[Path]) -> None:
    if sequence in results.files:
        first = results.files[sequence][0]
        raise UserError(f"{first} and {files[0].name} are both results of sequence {sequence}; keep one of them.")
    results.files[sequence] = files


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda item: item.name)  # paths in a zip have no order of their own


def _folders(folder: Path) -> list[Path]:
    return [item for item in _sorted(folder) if item.is_dir() and item.name != "__MACOSX"]


def _what_is_there(path: Path, names: Collection[str]) -> str:
    empty = True
    if path.is_dir():
        entries = list(islice(path.rglob("*"), _LOOKED_AT))  # not all of a disk
        files = [str(file.relative_to(path)) for file in entries if not file.is_dir()]
        empty = len(entries) < _LOOKED_AT
    else:
        files = [name for name in zipfile.ZipFile(path).namelist() if not name.endswith("/")]
    example = excerpt(f"{min(names)}.txt")
    wanted = f"a file named after a sequence of the annotations, such as {example}, was expected"
    if not files:
        return f"{'it is empty' if empty else f'its first {_LOOKED_AT} entries are folders'}; {wanted}"
    first = min(files, key=lambda file: (not is_text_name(Path(file).name), file))
    remedy = ": extract it, or give it by itself" if first.lower().endswith(".zip") else ""
    return f"{wanted}, but there is {excerpt(first)}{remedy}"


def listed(names: Sequence[str], most: int = 10, longest: int = EXCERPT) -> str:
    """Names as a sentence's part, cut where there are many, and where one has more than `longest` letters."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if len(name) <= longest else excerpt(name) for name in names[:most]) + more


def read_result(file: Path) -> Tensor:
    """The boxes of a result file, float64 [M, 4] x, y, w, h, as written; rows of NaN stay.

    Raises:
        UserError: the file is broken; the message names it, and the line.
    """
    if is_text_name(file.name, ".json"):
        return _read_otb_json(file)
    return torch.from_numpy(read_boxes(file))


def _read_otb_json(file: Path) -> Tensor:
    """OTB's own result format: a list of runs, here one, with `res`, the boxes, and `type`, which must be `rect`."""
    content = read_json(file)
    if isinstance(content, list) and len(content) > 1:
        raise UserError(f"{file} holds {len(content)} runs, but one is scored; keep one of them.")
    try:
        run = content[0] if isinstance(content, list) else content
        kind = run.get("type") or run.get("resType") or "rect"
        boxes_xywh = json_boxes(run["res"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a result in OTB's JSON format, which keeps boxes under 'res'.") from error
    if kind != "rect" or boxes_xywh.ndim != 2 or boxes_xywh.shape[1] != 4:
        raise UserError(f"{file} holds results of type {excerpt(kind)}; only boxes ('rect') are scored.")
    return torch.from_numpy(boxes_xywh)


LONGEST_FRAME = 3600
"""Seconds that a frame may have taken; a larger number is a mistake, and would decide a tracker's speed alone."""


def read_times(file: Path) -> NDArray[np.float64]:
    """The seconds in a file of times, in the order of the file.

    Raises:
        UserError: the file is broken, or a number in it is no time.
    """
    seconds = read_numbers(file)
    wrong = ~((seconds >= 0) & (seconds <= LONGEST_FRAME))
    if wrong.any():
        raise UserError(
            f"{file}: number {wrong.argmax() + 1} is {seconds[wrong][0]:g}; seconds are from 0 to {LONGEST_FRAME}."
        )
    return seconds
