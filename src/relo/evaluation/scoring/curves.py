"""The rules of the OTB family: success, precision and normalized precision curves, averaged over sequences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relo import geometry
from relo.errors import UserError
from relo.evaluation.scoring.base import (
    Remark,
    ScoringRule,
    SequenceScore,
    SequenceTruth,
    count_invalid,
    count_rows,
    refuse_rows,
)
from relo.metrics import functional

_THRESHOLDS = {
    "success": functional.success_thresholds(),
    "precision": functional.precision_thresholds(),
    "normalized_precision": functional.normalized_precision_thresholds(),
}
_AT_20_PIXELS = 20  # index of 20 px among the precision thresholds, and of 0.2 among the normalized ones


@dataclass(frozen=True)
class CurveRule(ScoringRule):
    """Success AUC (strict `>`, mean of 21 thresholds), precision at 20 px and normalized precision at 0.2 (`<=`).

    A frame's truth is *invalid* where its box is not positive, and *absent* where the benchmark's flags say so.
    Both are misses for the overlap; the toolkits differ in what they are for the two precisions. The denominator is
    always the sequence's full length.

    Attributes:
        name: the rule's name.
        source: the code that the rule follows.
        valid_truth: a box is valid where x, y, w and h are positive, or where w and h are.
        uses_absent: flags of absent frames count; frames of a rule that does not use them are judged by their boxes
            alone.
        zero_box_is_absent: where there are no flags, a truth of four zeros is absent.
        invalid_hits: the precisions for which a present frame with an invalid truth is a hit.
        absent_hits: the precisions for which an absent frame is a hit.
        first_frame_is_truth: the first row is replaced by the truth.
        invalid_prediction: a row that is NaN or not positive is replaced by the row before it ("repeat"); or such
            rows are refused but for zero sizes, which are replaced ("refuse"); or they stay ("keep").
        short: what becomes of a result with too few rows: refused, filled with its last row, or with zeros.
        long: what becomes of a result with too many rows: cut, or refused.
    """

    name: str
    source: str
    valid_truth: Literal["positive box", "positive size"] = "positive box"
    uses_absent: bool = False
    zero_box_is_absent: bool = False
    invalid_hits: frozenset[str] = frozenset({"precision", "normalized_precision"})
    absent_hits: frozenset[str] = frozenset()
    first_frame_is_truth: bool = True
    invalid_prediction: Literal["repeat", "refuse", "keep"] = "repeat"
    short: Literal["refuse", "last row", "zeros"] = "refuse"
    long: Literal["cut", "refuse"] = "cut"

    @property
    def thresholds(self) -> Mapping[str, Tensor]:
        """Where the curves are sampled: 21 overlaps, 51 distances in pixels, 51 in truth sizes."""
        return _THRESHOLDS

    @property
    def needs_absent(self) -> bool:
        """Flags are needed where they count and cannot be told from the boxes."""
        return self.uses_absent and not self.zero_box_is_absent

    def score(self, truth: SequenceTruth, predictions_xywh: Sequence[Tensor]) -> SequenceScore:
        """Score one sequence of one run; the contract is in `ScoringRule`."""
        (predicted_xywh,) = predictions_xywh
        truth_xywh = truth.boxes_xywh
        predicted_xywh, remarks = self._prepare(truth, predicted_xywh)

        positive = truth_xywh > 0  # False for NaN
        valid = positive.all(-1) if self.valid_truth == "positive box" else positive[:, 2:].all(-1)
        absent = self._absent(truth)

        iou = geometry.iou_xywh(predicted_xywh, truth_xywh)
        # Not negative by accident: a miss even at threshold 0 of a rule with `>=`.
        iou = iou.masked_fill(~valid | absent, -1)
        errors = {
            "precision": functional.center_error(predicted_xywh, truth_xywh),
            "normalized_precision": functional.normalized_center_error(predicted_xywh, truth_xywh),
        }
        curves = {"success": functional.success_rates(iou, _THRESHOLDS["success"])}
        for name, error in errors.items():
            error = error.masked_fill(~valid, -1 if name in self.invalid_hits else torch.inf)
            error = error.masked_fill(absent, -1 if name in self.absent_hits else torch.inf)
            curves[name] = functional.precision_rates(error, _THRESHOLDS[name])
        values = {
            "auc": float(functional.curve_area(curves["success"])),
            "precision": float(curves["precision"][_AT_20_PIXELS]),
            "normalized_precision": float(curves["normalized_precision"][_AT_20_PIXELS]),
        }
        return SequenceScore(truth.name, len(truth), 1.0, values, curves, remarks)

    def _absent(self, truth: SequenceTruth) -> Tensor:
        if self.uses_absent and truth.absent is not None:
            return truth.absent
        if self.zero_box_is_absent:
            return (truth.boxes_xywh == 0).all(-1)
        return torch.zeros(len(truth), dtype=torch.bool)

    def _prepare(self, truth: SequenceTruth, predicted_xywh: Tensor) -> tuple[Tensor, tuple[Remark, ...]]:
        """The result with one row [N, 4] a frame, and what was done to it."""
        rows, frames = len(predicted_xywh), len(truth)
        if rows == 0 or (rows < frames and self.short == "refuse") or (rows > frames and self.long == "refuse"):
            refuse_rows(truth, rows, self.name)
        filled = "the last row fills the rest" if self.short == "last row" else "the rest are misses"
        remarks = count_rows(truth, rows, filled if rows < frames else "the rest is cut off")
        predicted_xywh = predicted_xywh[:frames]

        invalid = self._invalid_rows(truth, predicted_xywh)
        counted = invalid.clone()
        counted[0] &= not self.first_frame_is_truth
        treatment = "misses" if self.invalid_prediction == "keep" else "replaced by the row before"
        remarks += count_invalid(truth, counted, treatment)
        if self.invalid_prediction != "keep":
            predicted_xywh = _repeat_previous(predicted_xywh, invalid, truth.boxes_xywh)

        if rows < frames:
            filler = predicted_xywh[-1:] if self.short == "last row" else torch.zeros(1, 4, dtype=torch.float64)
            predicted_xywh = torch.cat([predicted_xywh, filler.expand(frames - rows, 4)])
        if self.first_frame_is_truth:
            predicted_xywh = torch.cat([truth.boxes_xywh[:1], predicted_xywh[1:]])
        return predicted_xywh, remarks

    def _invalid_rows(self, truth: SequenceTruth, predicted_xywh: Tensor) -> Tensor:
        finite = predicted_xywh.isfinite().all(-1)
        if self.invalid_prediction == "refuse":
            refused = ~finite | (predicted_xywh[:, 2:] < 0).any(-1)
            if refused.any():
                raise UserError(
                    f"Row {int(refused.nonzero()[0]) + 1} of the result of sequence {truth.name} is no box (NaN or a "
                    f"negative size), and rule {self.name} does not score that; track it again, or name another rule."
                )
        return ~finite | (predicted_xywh[:, 2:] <= 0).any(-1)


def _repeat_previous(predicted_xywh: Tensor, invalid: Tensor, truth_xywh: Tensor) -> Tensor:
    """Replace invalid rows, but the first, by the row before, where the truth is not NaN."""
    rows = torch.arange(len(predicted_xywh))
    replaced = invalid & ~truth_xywh[: len(rows)].isnan().any(-1)
    replaced[0] = False
    return predicted_xywh[torch.where(replaced, 0, rows).cummax(0).values]
