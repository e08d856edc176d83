"""Packing result files for a benchmark's server, checked against the test set."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from relo.data.sequences import open_reader
from relo.data.sequences.datasets import BENCHMARKS
from relo.data.sequences.parsing import out_of_reach, positive_size
from relo.data.sequences.specification import Submission
from relo.errors import UserError
from relo.evaluation.results import files_of, find_results, listed, read_result, read_times, repetition
from relo.files import atomic_write
from relo.inputs import check_outputs, texts_within

_LONGEST_REASON = 1000  # characters: whole sentences


@dataclass(frozen=True)
class _Run:
    """One run on one sequence of N frames."""

    boxes_xywh: NDArray[np.float64]  # [N, 4]
    seconds: NDArray[np.float64] | None  # [N]


def pack_submission(results: Path, benchmark: Literal["got10k", "trackingnet"], dataset: Path, output: Path) -> int:
    """Write the zip that a benchmark's server takes.

    Its dataset's specification says which files it wants. The first row is the given box; boxes stay floats.

    Args:
        results: the folder of one tracker.
        benchmark: the server's.
        dataset: the dataset's root, whose test sequences are expected.
        output: the zip.

    Returns:
        The number of sequences packed.

    Raises:
        UserError: the dataset's test sequences are not all of the official ones, or others; a sequence, a row, a box or
            (GOT-10k) a time is missing: all such sequences are listed; or the zip is one of the files that are read.
            Nothing is written.
    """
    reader = open_reader(benchmark, dataset, "test")
    submission = BENCHMARKS[benchmark].submission
    assert submission is not None
    _require_test_set(reader.names, submission, dataset)
    (tracker, *others) = find_results([results], reader.names, BENCHMARKS[benchmark])
    if others:
        raise UserError(
            f"{results} holds the results of several trackers ({tracker.tracker}, ...); give one of them by itself."
        )
    inputs = {
        "a file of the results": [results, *files_of(tracker)],
        "a file of the dataset": texts_within(dataset, [output]),
    }
    check_outputs(inputs, [output])
    problems: list[str] = []
    runs: dict[str, list[_Run]] = {}
    for sequence in reader:
        files = tracker.files.get(sequence.name, [])
        if not files:
            problems.append(f"{sequence.name} (no result file)")
        for file in files:
            try:
                run = _read_run(file, len(sequence), sequence.boxes_xywh[0], needs_times=bool(submission.times))
            except UserError as error:
                problems.append(f"{sequence.name} ({error})")
            else:
                runs.setdefault(sequence.name, []).append(run)
    if problems:
        reasons = listed(problems, longest=_LONGEST_REASON)
        raise UserError(f"{results} cannot be submitted; {len(problems)} results are incomplete: {reasons}.")
    _write_zip(output, _files(submission, runs))
    return len(runs)


def _require_test_set(names: list[str], submission: Submission, dataset: Path) -> None:
    """Refuse a root that lacks test sequences, or has others: the server wants all of them."""
    official = submission.official_names()
    surplus, lacking = sorted(set(names) - set(official)), sorted(set(official) - set(names))
    if official and (surplus or lacking):
        such = f"lacks {listed(lacking, 3)}" if lacking else f"has {listed(surplus, 3)} beyond them"
        raise UserError(f"The test set has {submission.sequences} sequences, and {dataset} {such}; complete it.")
    if len(names) != submission.sequences:
        raise UserError(
            f"The test set has {submission.sequences} sequences, and {dataset} {len(names)}: complete its lists and "
            "annotations."
        )


def _read_run(file: Path, frames: int, first_xywh: NDArray[np.float64], needs_times: bool) -> _Run:
    boxes_xywh = read_result(file).numpy()
    if len(boxes_xywh) != frames:
        raise UserError(f"{len(boxes_xywh)} rows for {frames} frames")
    broken = np.flatnonzero(np.isnan(boxes_xywh).any(1) | out_of_reach(boxes_xywh))
    if len(broken):
        raise UserError(f"row {broken[0] + 1} is no box")
    if not positive_size(first_xywh[None])[0]:
        raise UserError(f"the dataset's first box is {first_xywh.tolist()}")
    seconds = _read_times_beside(file, frames) if needs_times else None
    return _Run(np.concatenate([first_xywh[None], boxes_xywh[1:]]), seconds)


def _read_times_beside(file: Path, frames: int) -> NDArray[np.float64]:
    """The times beside a result file; of several columns, the one of this repetition."""
    stem, number = repetition(file.name.rpartition(".")[0])
    path = file.parent / f"{stem}_time.txt"  # a path in a zip has no `with_name`
    if not path.exists():
        raise UserError(f"no times; {path.name} was expected beside {file.name}")
    seconds = read_times(path)
    if not len(seconds) or len(seconds) % frames:
        raise UserError(f"{path.name} has {len(seconds)} times for {frames} frames")
    columns = seconds.reshape(frames, -1)
    return np.asarray(columns[:, min(number or 1, columns.shape[1]) - 1])


def _files(submission: Submission, runs: Mapping[str, list[_Run]]) -> dict[str, str]:
    files = {}
    for name, repetitions in runs.items():
        counted = repetitions if "{run" in submission.boxes else repetitions[:1]
        for number, run in enumerate(counted, start=1):
            files[submission.boxes.format(name=name, run=number)] = _table(run.boxes_xywh, submission.number)
        times = [run.seconds for run in repetitions if run.seconds is not None]
        if submission.times:
            files[submission.times.format(name=name)] = _table(np.stack(times, axis=1), "%.8f")
    return files


def _table(values: NDArray[np.float64], number_format: str) -> str:
    return "".join(",".join(number_format % value for value in row) + "\n" for row in values)


def _write_zip(output: Path, files: Mapping[str, str]) -> None:
    if output.is_dir():
        raise UserError(f"{output} is a folder; name the zip to write, such as {output / 'submission.zip'}.")
    with atomic_write(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
