"""Scoring a tracker: what a rule takes and gives, and every sequence of a tracker's results by one rule."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from relo.data.sequences.parsing import FARTHEST, out_of_reach, read_text
from relo.data.sequences.specification import Dataset
from relo.data.sequences.tables import rows_before, table_row
from relo.errors import UserError
from relo.evaluation.results import TrackerResults, listed, read_result, read_times
from relo.models.checkpoints.plugin import Plugin

# What scores are called in tables, and in the table of published results.
TITLES = {
    "auc": "AUC",
    "precision": "P",
    "normalized_precision": "Pnorm",
    "ao": "AO",
    "sr_0.5": "SR0.5",
    "sr_0.75": "SR0.75",
}


@dataclass(frozen=True)
class SequenceTruth:
    """What is known of one sequence."""

    name: str
    boxes_xywh: Tensor  # float64 [N, 4], image pixels, as annotated, with NaN, zeros or negative sizes
    absent: Tensor | None = None  # bool [N], by the benchmark's own flags; None where it has none
    image_size: tuple[int, int] | None = None  # width and height, where the rule needs it
    origin: str = ""  # the file that the boxes come from, for errors

    def __len__(self) -> int:
        return len(self.boxes_xywh)


@dataclass(frozen=True)
class Remark:
    """Something unusual about one sequence's result, and what the rule made of it."""

    sequence: str
    kind: Literal["missing", "short", "long", "invalid", "unmatched", "annotation", "far"]
    text: str


@dataclass(frozen=True)
class SequenceScore:
    """The scores of one sequence."""

    name: str
    frames: int  # annotated ones
    weight: float  # in the benchmark's mean
    values: Mapping[str, float]  # fractions, by name
    curves: Mapping[str, Tensor]  # [K] by name, at the rule's thresholds
    remarks: tuple[Remark, ...] = ()  # what was unusual


@dataclass(frozen=True)
class BenchmarkScore:
    """One tracker's scores on one benchmark; standard errors are over sequences, where these count alike."""

    values: Mapping[str, float]
    curves: Mapping[str, Tensor]
    standard_errors: Mapping[str, float]


class ScoringRule(Plugin, ABC):
    """How a benchmark scores: a subclass, or an instance of one, for each rule.

    A rule takes result files as their authors wrote them. Every irregularity is either refused (`UserError`), or
    scored the way the benchmark's own code does and reported in a `Remark`.

    Attributes:
        name: what the rule is called on the command line and in every report.
        source: the code or paper that the rule follows.
        thresholds: where each curve is sampled, [K] by the curve's name.
        scores: the names of `SequenceScore.values`, the most important first.
        missing_result: whether a sequence without a result is refused or scored as a result of zeros.
        repetitions: the rule pools several runs of one sequence; else there must be one.
    """

    name: str
    source: str
    thresholds: Mapping[str, Tensor]
    scores: tuple[str, ...] = ("auc", "precision", "normalized_precision")
    missing_result: Literal["refuse", "zeros"] = "refuse"
    repetitions: bool = False

    @property
    def needs_absent(self) -> bool:
        """Whether the rule cannot score without flags of absent frames."""
        return False

    @abstractmethod
    def score(self, truth: SequenceTruth, predictions_xywh: Sequence[Tensor]) -> SequenceScore:
        """Score one sequence.

        Args:
            truth: the annotation of N frames.
            predictions_xywh: one or more runs, float64 [M, 4] each, image pixels, as written in the file.

        Raises:
            UserError: the benchmark's own code would refuse this result.
        """

    def summarize(self, scores: Sequence[SequenceScore]) -> BenchmarkScore:
        """The benchmark's scores: means of the sequences' by their weights.

        Raises:
            UserError: no sequence has a weight.
        """
        weights = torch.tensor([score.weight for score in scores], dtype=torch.float64)
        if not weights.any():
            raise UserError(
                f"No frame of the {len(scores)} sequences counts by rule {self.name}, for their flags say that the "
                "targets are not seen after the first; correct the annotations, or name other sequences."
            )
        weights = weights / weights.sum()
        values, errors = {}, {}
        for name in scores[0].values:
            column = torch.tensor([score.values[name] for score in scores], dtype=torch.float64)
            values[name] = float(weights @ column)
            if len(scores) > 1 and bool((weights == weights[0]).all()):
                errors[name] = float(column.std() / len(scores) ** 0.5)
        curves = {name: weights @ torch.stack([score.curves[name] for score in scores]) for name in scores[0].curves}
        return BenchmarkScore(values, curves, errors)


@dataclass(frozen=True)
class TrackerScore:
    """One tracker's scores on one benchmark."""

    tracker: str
    benchmark: Dataset
    rule: ScoringRule
    summary: BenchmarkScore
    sequences: tuple[SequenceScore, ...]
    remarks: tuple[Remark, ...]  # everything unusual about the results
    frames_per_second: float | None = None  # from the times beside the results
    training: str | None = None  # what the tracker was trained on, from `training.txt` beside the results

    def as_json(self) -> dict[str, Any]:
        """The scores as plain data; fractions, not percent."""
        return {
            "tracker": self.tracker,
            "benchmark": self.benchmark.name,
            "rule": self.rule.name,
            "source": self.rule.source,
            "sequences": len(self.sequences),
            "frames": sum(score.frames for score in self.sequences),
            **self.summary.values,
            "frames_per_second": self.frames_per_second,
            "training": self.training,
            "standard_errors": dict(self.summary.standard_errors),
            "thresholds": _lists(self.rule.thresholds),
            "curves": _lists(self.summary.curves),
            "remarks": [asdict(remark) for remark in self.remarks],
            "per_sequence": {
                score.name: {"frames": score.frames, **score.values, "curves": _lists(score.curves)}
                for score in self.sequences
            },
        }


def _lists(curves: Mapping[str, Tensor]) -> dict[str, list[float]]:
    return {name: curve.tolist() for name, curve in curves.items()}


def score_trackers(
    trackers: Sequence[TrackerResults], truths: Mapping[str, SequenceTruth], benchmark: Dataset, rule: ScoringRule
) -> list[TrackerScore]:
    """Score several trackers' results on every sequence.

    Raises:
        UserError: annotations lack the flags of absent frames that the rule needs; or results are missing, broken, or
            of a kind that the rule refuses: all such sequences are named.
    """
    unflagged = [truth for truth in truths.values() if truth.absent is None]
    if rule.needs_absent and unflagged:
        raise UserError(
            f"Rule {rule.name} needs flags of absent frames, but {len(unflagged)} of {len(truths)} annotations have "
            f"none (such as {unflagged[0].origin}); put the toolkit's absent/<sequence>.txt beside them."
        )
    # The work is many small sequences: threads would only wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_score_tracker(tracker, truths, benchmark, rule) for tracker in trackers]
    finally:
        torch.set_num_threads(threads)


def _score_tracker(
    results: TrackerResults, truths: Mapping[str, SequenceTruth], benchmark: Dataset, rule: ScoringRule
) -> TrackerScore:
    missing = [name for name in truths if name not in results.files]
    if missing and rule.missing_result == "refuse":
        raise UserError(
            f"{results.origin} lacks the results of {len(missing)} of {len(truths)} sequences: {listed(missing)}. "
            "Track them, or name the sequences to score with --sequences."
        )
    scores, refusals = [], []
    for truth in truths.values():
        try:
            scores.append(_score_sequence(results, truth, benchmark, rule))
        except UserError as error:
            refusals.append(str(error))
    if refusals:
        more = f" ({len(refusals)} sequences are refused; this is the first)" if len(refusals) > 1 else ""
        raise UserError(f"{results.origin}: {refusals[0]}{more}")
    remarks = [remark for score in scores for remark in score.remarks]
    remarks += [Remark(name, "unmatched", "named after no sequence; not scored") for name in results.unmatched]
    return TrackerScore(
        tracker=results.tracker,
        benchmark=benchmark,
        rule=rule,
        summary=rule.summarize(scores),
        sequences=tuple(scores),
        remarks=tuple(remarks),
        frames_per_second=_frames_per_second(results, truths),
        training=None if results.training is None else " ".join(read_text(results.training).split()),
    )


def _score_sequence(
    results: TrackerResults, truth: SequenceTruth, benchmark: Dataset, rule: ScoringRule
) -> SequenceScore:
    files = results.files.get(truth.name, [])
    remarks: list[Remark] = []
    if len(files) > 1 and not rule.repetitions:
        raise UserError(
            f"Sequence {truth.name} has {len(files)} runs, but rule {rule.name} scores one; keep one of them."
        )
    predictions_xywh = [read_result(file) for file in files]
    for number, boxes_xywh in enumerate(predictions_xywh):
        leading = rows_before(benchmark, table_row(benchmark, truth.name), len(boxes_xywh))
        if leading and len(boxes_xywh) - leading == len(truth):
            predictions_xywh[number] = boxes_xywh[leading:]
            text = f"{len(boxes_xywh)} rows for {len(truth)} frames; the first {leading} lie before the sequence"
            remarks.append(Remark(truth.name, "long", text))
    if not files:
        predictions_xywh = [torch.zeros(len(truth), 4, dtype=torch.float64)]
        remarks.append(Remark(truth.name, "missing", "no result file; scored as zeros"))
    if wrong := _far(truth.boxes_xywh):
        remarks.append(Remark(truth.name, "annotation", f"{wrong} annotated rows are infinite or beyond {FARTHEST:g}"))
    if wrong := sum(map(_far, predictions_xywh)):
        remarks.append(Remark(truth.name, "far", f"{wrong} rows are infinite or beyond {FARTHEST:g}"))
    score = rule.score(truth, predictions_xywh)
    return replace(score, remarks=(*remarks, *score.remarks))


def _far(boxes_xywh: Tensor) -> int:
    return int(out_of_reach(boxes_xywh.numpy()).sum())


def _frames_per_second(results: TrackerResults, truths: Mapping[str, SequenceTruth]) -> float | None:
    """Over all sequences that have times, of one run or several in columns.

    The first frame, where the box is given, does not count.
    """
    times = []
    for name, file in results.times.items():
        if name in truths:
            seconds = read_times(file)
            times.append(seconds[max(1, len(seconds) // len(truths[name])) :])
    total = sum(float(values.sum()) for values in times)
    return sum(map(len, times)) / total if total > 0 else None
