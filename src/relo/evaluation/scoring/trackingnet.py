"""The rule of the TrackingNet development kit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from relo import geometry
from relo.evaluation.scoring.base import (
    BenchmarkScore,
    ScoringRule,
    SequenceScore,
    SequenceTruth,
    count_invalid,
    count_rows,
)
from relo.metrics import functional

_THRESHOLDS = {
    "success": functional.success_thresholds(),
    "precision": torch.linspace(0, 50, 21, dtype=torch.float64),
    "normalized_precision": torch.linspace(0, 0.5, 21, dtype=torch.float64),
}


class TrackingNetRule(ScoringRule):
    """Areas under three curves of 21 thresholds, by the trapezoidal rule, over boxes rounded to whole pixels.

    Success counts `>=` at 0 .. 1; precision `<=` at 0 .. 50 px; normalized precision `<=` at 0 .. 0.5: areas, not
    values at 20 px and 0.2. The first row is replaced by the truth; missing rows are misses; a missing file is a
    result of zeros. Coverage is the share of all frames with a box.

    Source: SilvioGiancola/TrackingNet-devkit, `metrics.py` (Müller et al., ECCV 2018).
    """

    name = "trackingnet"
    source = "SilvioGiancola/TrackingNet-devkit, metrics.py (Müller et al., ECCV 2018)"
    scores = ("auc", "precision", "normalized_precision", "coverage")
    missing_result: Literal["refuse", "zeros"] = "zeros"

    @property
    def thresholds(self) -> Mapping[str, Tensor]:
        """Where the curves are sampled: 21 points each."""
        return _THRESHOLDS

    def score(self, truth: SequenceTruth, predictions_xywh: Sequence[Tensor]) -> SequenceScore:
        """Score one sequence; the contract is in `ScoringRule`."""
        (predicted_xywh,) = predictions_xywh
        rows, frames = len(predicted_xywh), len(truth)
        remarks = count_rows(truth, rows, "the rest are misses" if rows < frames else "the rest is cut off")
        invalid = predicted_xywh[:frames].isnan().any(-1)
        invalid[:1] = False  # replaced by the truth
        remarks += count_invalid(truth, invalid, "misses")

        truth_xywh = truth.boxes_xywh.round()  # half to even
        padding = torch.full((max(frames - rows, 0), 4), torch.nan, dtype=torch.float64)
        predicted_xywh = torch.cat([truth_xywh[:1], predicted_xywh[1:frames].round(), padding])[:frames]
        missed = predicted_xywh.isnan().any(-1)

        iou = geometry.iou_xywh(predicted_xywh, truth_xywh)
        # Without a box there is no overlap to reach even threshold 0.
        iou = iou.masked_fill(missed, -1)
        errors = {
            "precision": functional.center_error(predicted_xywh, truth_xywh),
            "normalized_precision": functional.normalized_center_error(predicted_xywh, truth_xywh),
        }
        curves = {"success": functional.success_rates(iou, _THRESHOLDS["success"], strict=False)}
        curves |= {name: functional.precision_rates(error, _THRESHOLDS[name]) for name, error in errors.items()}
        values = {
            "auc": float(functional.curve_area(curves["success"], "trapezoid")),
            "precision": float(functional.curve_area(curves["precision"], "trapezoid")),
            "normalized_precision": float(functional.curve_area(curves["normalized_precision"], "trapezoid")),
            "coverage": float((predicted_xywh.sum(-1) > 0).double().mean()),
        }
        return SequenceScore(truth.name, frames, 1.0, values, curves, remarks)

    def summarize(self, scores: Sequence[SequenceScore]) -> BenchmarkScore:
        """Means over sequences, but for the coverage: the share of all frames."""
        summary = super().summarize(scores)
        frames = sum(score.frames for score in scores)
        coverage = sum(score.values["coverage"] * score.frames for score in scores) / frames
        errors = {name: value for name, value in summary.standard_errors.items() if name != "coverage"}
        return replace(summary, values={**summary.values, "coverage": coverage}, standard_errors=errors)
