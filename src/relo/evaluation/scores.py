"""Scoring one tracker on one benchmark: every sequence by the rule, what was unusual listed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from relo.data.sequences.parsing import read_text
from relo.data.sequences.specification import Dataset
from relo.errors import UserError
from relo.evaluation.annotations import rows_before
from relo.evaluation.results import TrackerResults, read_result, read_times
from relo.evaluation.scoring import BenchmarkScore, Remark, ScoringRule, SequenceScore, SequenceTruth

# What scores are called in tables, and in the table of published results.
TITLES = {
    "auc": "AUC",
    "precision": "P",
    "normalized_precision": "Pnorm",
    "ao": "AO",
    "sr_0.5": "SR0.5",
    "sr_0.75": "SR0.75",
}
_LISTED = 10


@dataclass(frozen=True)
class TrackerScore:
    """One tracker's scores on one benchmark.

    Attributes:
        tracker: the tracker's name.
        benchmark: the benchmark.
        rule: the rule.
        summary: the benchmark's scores.
        sequences: the scores of every sequence.
        remarks: everything unusual about the results.
        frames_per_second: the tracker's speed, from the times beside its results; None without them.
        training: what the tracker was trained on, from `training.txt` beside its results; None without it.
    """

    tracker: str
    benchmark: Dataset
    rule: ScoringRule
    summary: BenchmarkScore
    sequences: tuple[SequenceScore, ...]
    remarks: tuple[Remark, ...]
    frames_per_second: float | None = None
    training: str | None = None

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
            "thresholds": {name: values.tolist() for name, values in self.rule.thresholds.items()},
            "curves": {name: curve.tolist() for name, curve in self.summary.curves.items()},
            "remarks": [{"sequence": r.sequence, "kind": r.kind, "text": r.text} for r in self.remarks],
            "per_sequence": {
                score.name: {
                    "frames": score.frames,
                    **score.values,
                    "curves": {name: curve.tolist() for name, curve in score.curves.items()},
                }
                for score in self.sequences
            },
        }


def score_tracker(
    results: TrackerResults, truths: Mapping[str, SequenceTruth], benchmark: Dataset, rule: ScoringRule
) -> TrackerScore:
    """Score a tracker's results on every sequence.

    Raises:
        UserError: results are missing, broken, or of a kind that the rule refuses; all such sequences are named.
    """
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
        frames_per_second=_speed(results, truths),
        training=None if results.training is None else " ".join(read_text(results.training).split()),
    )


def check_flags(truths: Mapping[str, SequenceTruth], rule: ScoringRule) -> None:
    """Refuse annotations without the flags of absent frames that the rule needs.

    Raises:
        UserError: a sequence has none.
    """
    lacking = [truth for truth in truths.values() if truth.absent is None]
    if rule.needs_absent and lacking:
        raise UserError(
            f"Rule {rule.name} needs flags of absent frames, but {len(lacking)} of {len(truths)} annotations have none "
            f"(such as {lacking[0].origin}); put the toolkit's absent/<sequence>.txt beside them."
        )


def _speed(results: TrackerResults, truths: Mapping[str, SequenceTruth]) -> float | None:
    """Frames a second over all sequences that have times; the first frame, where the box is given, does not count."""
    times = [read_times(file)[1:] for name, file in results.times.items() if name in truths]
    seconds = sum(float(values.sum()) for values in times)
    return sum(map(len, times)) / seconds if seconds > 0 else None


def listed(names: list[str]) -> str:
    """Names as a sentence's part, cut where there are many."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


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
        leading = rows_before(benchmark, truth.name, len(boxes_xywh))
        if leading and len(boxes_xywh) - leading == len(truth):
            predictions_xywh[number] = boxes_xywh[leading:]
            text = f"{len(boxes_xywh)} rows for {len(truth)} frames; the first {leading} lie before the sequence"
            remarks.append(Remark(truth.name, "long", text))
    if not files:
        predictions_xywh = [torch.zeros(len(truth), 4, dtype=torch.float64)]
        remarks.append(Remark(truth.name, "missing", "no result file; scored as zeros"))
    score = rule.score(truth, predictions_xywh)
    return replace(score, remarks=(*remarks, *score.remarks))
