"""Result files: finding them, matching them to sequences by name, and reading them."""

import re
import zipfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relo.data.sequences.parsing import numbers_in, read_boxes, read_json, read_numbers
from relo.data.sequences.specification import Dataset, canonical_name
from relo.errors import UserError, printable
from relo.evaluation.archives import is_text_name, open_zip
from relo.evaluation.result_folder import RUN_FILE

# What trackers write beside the boxes of a sequence.
_BESIDE_BOXES = re.compile(r"(.+)_(times?|all_boxes|all_scores|scores?|confidence|presence|object_presence_scores)")
TRAINING_NOTE = "training.txt"
_REPETITION = re.compile(r"(.+)_(\d{3})")


@dataclass
class TrackerResults:
    """The result files of one tracker.

    Attributes:
        tracker: its name, from its folder.
        origin: the folder or zip.
        files: the files of each sequence that has any, one a repetition.
        unmatched: names of files that belong to no sequence.
        times: the file of each sequence's seconds a frame, where there is one (`<sequence>_time.txt`).
        training: a note of what the tracker was trained on (`training.txt`), where there is one.
    """

    tracker: str
    origin: Path
    files: dict[str, list[Path]]
    unmatched: list[str] = field(default_factory=list)
    times: dict[str, Path] = field(default_factory=dict)
    training: Path | None = None


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
        paths: each the folder or zip of one tracker, or a folder that holds one folder a tracker. A tracker's
            folder holds `<sequence>.txt`, or GOT-10k's `<sequence>/<sequence>_001.txt`, or OTB's `<sequence>.json`.
        names: the benchmark's sequences.
        benchmark: the benchmark, for the spellings of its sequences.
        annotations: where the truth lies: no tracker's folder, though it looks like one.

    Raises:
        UserError: there is nothing at a path, or no file in it is named after a sequence, or two files are of one
            sequence.
    """
    matcher = NameMatcher(names, benchmark)
    trackers: list[TrackerResults] = []
    for path in paths:
        found = _trackers_at(path, matcher, annotations)
        if not found:
            raise UserError(f"{path} holds no result of {benchmark.title}: {_what_is_there(path, names)}.")
        trackers += found
    repeated = {tracker.tracker for tracker in trackers if sum(t.tracker == tracker.tracker for t in trackers) > 1}
    for tracker in trackers:
        if tracker.tracker in repeated:
            tracker.tracker = f"{printable(tracker.origin.parent.name)}/{tracker.tracker}"
    return trackers


def _trackers_at(path: Path, matcher: NameMatcher, annotations: Path | None) -> list[TrackerResults]:
    if not path.exists():
        raise UserError(
            f"There are no results at {path}; give a tracker's folder of <sequence>.txt files, or a zip of one."
        )
    if path.is_file():
        if path.suffix != ".zip" and not zipfile.is_zipfile(path):
            raise UserError(f"The results {path} are neither a folder nor a zip of one.")
        root = open_zip(path)
        folders = _folders(root)
        found = _trackers_in(root, folders, path, matcher)
        if not found and len(folders) == 1:  # the zip of a folder that holds one folder a tracker
            found = _trackers_in(folders[0], _folders(folders[0]), path, matcher)
        return [replace(found[0], tracker=printable(path.stem), origin=path)] if len(found) == 1 else found
    folders = [folder for folder in _folders(path) if annotations is None or folder.resolve() != annotations.resolve()]
    return _trackers_in(path, folders, path, matcher)


def _trackers_in(folder: Path, inner: list[Path], origin: Path, matcher: NameMatcher) -> list[TrackerResults]:
    """The tracker whose results lie in a folder itself, or else those of its `inner` folders."""
    tracker = _tracker(folder, origin.resolve().name, origin, matcher)
    if tracker is not None:
        return [tracker]
    inside = [_tracker(item, item.name, origin / item.name, matcher) for item in inner]
    return [tracker for tracker in inside if tracker is not None]


def _tracker(folder: Path, name: str, origin: Path, matcher: NameMatcher) -> TrackerResults | None:
    """The results that lie in a folder itself, or in folders named after sequences; None where there are none."""
    results = TrackerResults(printable(name), origin, {})
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.is_dir():
            sequence = matcher.match(file.name)
            if sequence is not None and (repetitions := _repetitions(file)):
                _add(results, sequence, repetitions)
                if (times := file / f"{file.name}_time.txt").exists():
                    results.times[sequence] = times
        elif is_text_name(file.name):
            stem = file.name.rpartition(".")[0]
            sequence = matcher.match(stem)
            if sequence is not None:
                _add(results, sequence, [file])
            elif file.name == TRAINING_NOTE:
                results.training = file
            elif beside := _BESIDE_BOXES.fullmatch(stem):
                sequence = matcher.match(beside[1])
                if sequence is not None and beside[2].startswith("time"):
                    results.times[sequence] = file
            elif file.name != RUN_FILE:
                results.unmatched.append(file.name)
    return results if results.files else None


def repetition(stem: str) -> tuple[str, int | None]:
    """The sequence and the number of a repetition in GOT-10k's `<sequence>_001`; None where there is no number."""
    match = _REPETITION.fullmatch(stem)
    return (stem, None) if match is None else (match[1], int(match[2]))


def _repetitions(folder: Path) -> list[Path]:
    """GOT-10k's `<sequence>_001.txt` on, in a folder named after the sequence."""
    files = [file for file in folder.iterdir() if is_text_name(file.name, ".txt")]
    return sorted((file for file in files if repetition(file.name[:-4])[1]), key=lambda file: file.name)


def _add(results: TrackerResults, sequence: str, files: list[Path]) -> None:
    if sequence in results.files:
        first = results.files[sequence][0]
        raise UserError(f"{first} and {files[0].name} are both results of sequence {sequence}; keep one of them.")
    results.files[sequence] = files


def _folders(folder: Path) -> list[Path]:
    folders = (item for item in folder.iterdir() if item.is_dir() and item.name != "__MACOSX")
    return sorted(folders, key=lambda item: item.name)


def _what_is_there(path: Path, names: Collection[str]) -> str:
    if path.is_dir():
        files = [str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()]
    else:
        files = [name for name in zipfile.ZipFile(path).namelist() if not name.endswith("/")]
    wanted = f"a file named after a sequence of the annotations, such as {min(names)}.txt, was expected"
    if not files:
        return f"it is empty; {wanted}"
    first = min(files, key=lambda file: (not is_text_name(Path(file).name), file))
    remedy = ": extract it, or give it by itself" if first.lower().endswith(".zip") else ""
    return f"{wanted}, but there is {first}{remedy}"


def read_result(file: Path) -> Tensor:
    """The boxes of a result file, float64 [M, 4] x, y, w, h, as written; rows of NaN stay.

    Raises:
        UserError: the file is broken; the message names it, and the line.
    """
    if is_text_name(file.name, ".json"):
        return _read_otb_json(file)
    return torch.from_numpy(read_boxes(file))


def read_times(file: Path) -> NDArray[np.float64]:
    """The seconds in a file of times, in the order of the file.

    Raises:
        UserError: the file is broken, or a number in it is no time.
    """
    seconds = read_numbers(file)
    wrong = ~(np.isfinite(seconds) & (seconds >= 0))
    if wrong.any():
        raise UserError(f"{file}: number {wrong.argmax() + 1} is {seconds[wrong][0]:g}; seconds are finite, 0 or more.")
    return seconds


def _read_otb_json(file: Path) -> Tensor:
    """OTB's own result format: a list of runs with `res`, the boxes, and `type`, which must be `rect`."""
    content = read_json(file)
    try:
        run = content[0] if isinstance(content, list) else content
        kind = run.get("type") or run.get("resType") or "rect"
        boxes_xywh = numbers_in(run["res"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a result in OTB's JSON format, which keeps boxes under 'res'.") from error
    if kind != "rect" or boxes_xywh.ndim != 2 or boxes_xywh.shape[1] != 4:
        raise UserError(f"{file} holds results of type {kind!r}; only boxes x, y, w, h (type 'rect') are scored.")
    return torch.from_numpy(boxes_xywh)
