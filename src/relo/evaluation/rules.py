"""The scoring rules: each benchmark's protocol as data, over the curves of `relo.metrics.functional`."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from relo import geometry
from relo.data.sequences.datasets import find_benchmark
from relo.data.sequences.specification import canonical_name
from relo.errors import UserError
from relo.evaluation.scoring import BenchmarkScore, Remark, ScoringRule, SequenceScore, SequenceTruth
from relo.metrics import functional
from relo.models.checkpoints.plugin import build

_OTB_THRESHOLDS = {
    "success": functional.success_thresholds(),
    "precision": functional.precision_thresholds(),
    "normalized_precision": functional.normalized_precision_thresholds(),
}
_TRACKINGNET_THRESHOLDS = {
    "success": functional.success_thresholds(),
    "precision": torch.linspace(0, 50, 21, dtype=torch.float64),
    "normalized_precision": torch.linspace(0, 0.5, 21, dtype=torch.float64),
}
_GOT10K_THRESHOLDS = {"success": torch.arange(101, dtype=torch.float64) / 100}
_AT_20_PIXELS = 20  # index of 20 px among the precision thresholds, and of 0.2 among the normalized ones
_NORMALIZED = frozenset({"normalized_precision"})
_BOTH = frozenset({"precision", "normalized_precision"})


@dataclass(frozen=True)
class CurveRule(ScoringRule):
    """Success AUC (mean of 21 thresholds), precision at 20 px and normalized precision at 0.2 (`<=`).

    A frame's truth is *invalid* where its box is, and *absent* where the benchmark's flags say so. Both are misses for
    the overlap; the toolkits differ in what they are for the two precisions. The denominator is always the sequence's
    full length.
    """

    name: str
    source: str

    # Of the truth. A box is valid where x, y, w and h are positive, or where w and h are, or always.
    valid_truth: Literal["positive box", "positive size", "any box"] = "positive box"
    uses_absent: bool = False  # flags of absent frames count; else frames are judged by their boxes alone
    zero_box_is_absent: bool = False  # where there are no flags, a truth of four zeros is absent
    invalid_hits: frozenset[str] = _BOTH  # the precisions for which a present frame with an invalid truth is a hit
    absent_hits: frozenset[str] = frozenset()  # the precisions for which an absent frame is a hit

    # Of the result. A row that is NaN or not positive is replaced by the row before it ("repeat"); or such rows are
    # refused but for zero sizes, which are replaced ("refuse"); or they stay ("keep", or "keep sizes": only NaN is
    # remarked on).
    invalid_prediction: Literal["repeat", "refuse", "keep", "keep sizes"] = "repeat"
    first_frame_is_truth: bool = True  # the first row is replaced by the truth
    short: Literal["refuse", "last row", "zeros", "nan"] = "refuse"  # or with what too few rows are filled
    long: Literal["cut", "refuse"] = "cut"  # what becomes of too many rows
    whole_pixels: bool = False  # boxes are rounded, half to even
    strict: bool = True  # success counts `iou > threshold`; else `iou >= threshold`

    thresholds = _OTB_THRESHOLDS

    @property
    def needs_absent(self) -> bool:
        """Flags are needed where they count and the boxes do not show them."""
        return self.uses_absent and not self.zero_box_is_absent

    def score(self, truth: SequenceTruth, predictions_xywh: Sequence[Tensor]) -> SequenceScore:
        """Score one sequence of one run; the contract is in `ScoringRule`."""
        (predicted_xywh,) = predictions_xywh
        truth_xywh = truth.boxes_xywh
        predicted_xywh, remarks = self._prepare(truth, predicted_xywh)  # [N, 4]
        if self.whole_pixels:
            truth_xywh, predicted_xywh = truth_xywh.round(), predicted_xywh.round()

        valid = self._valid(truth_xywh)
        absent = self._absent(truth)
        missed = ~valid | absent | predicted_xywh.isnan().any(-1)
        # Below 0 an overlap misses even threshold 0 of a rule with `>=`.
        iou = geometry.iou_xywh(predicted_xywh, truth_xywh).masked_fill(missed, -1)
        curves = {"success": functional.success_rates(iou, self.thresholds["success"], self.strict)}
        errors = {
            "precision": functional.center_error(predicted_xywh, truth_xywh),
            "normalized_precision": functional.normalized_center_error(predicted_xywh, truth_xywh),
        }
        for name, error in errors.items():
            error = error.masked_fill(~valid, -1 if name in self.invalid_hits else torch.inf)
            error = error.masked_fill(absent, -1 if name in self.absent_hits else torch.inf)
            curves[name] = functional.precision_rates(error, self.thresholds[name])
        return SequenceScore(truth.name, len(truth), 1.0, self._values(curves, predicted_xywh), curves, remarks)

    def _values(self, curves: dict[str, Tensor], predicted_xywh: Tensor) -> dict[str, float]:
        """The scores that are read off the curves [K]."""
        return {
            "auc": float(functional.curve_area(curves["success"])),
            "precision": float(curves["precision"][_AT_20_PIXELS]),
            "normalized_precision": float(curves["normalized_precision"][_AT_20_PIXELS]),
        }

    def _valid(self, truth_xywh: Tensor) -> Tensor:
        positive = truth_xywh > 0  # False for NaN
        if self.valid_truth == "any box":
            return torch.ones(len(truth_xywh), dtype=torch.bool)
        return positive.all(-1) if self.valid_truth == "positive box" else positive[:, 2:].all(-1)

    def _absent(self, truth: SequenceTruth) -> Tensor:
        if self.uses_absent and truth.absent is not None:
            return truth.absent
        if self.zero_box_is_absent:
            return (truth.boxes_xywh == 0).all(-1)
        return torch.zeros(len(truth), dtype=torch.bool)

    def _prepare(self, truth: SequenceTruth, predicted_xywh: Tensor) -> tuple[Tensor, tuple[Remark, ...]]:
        """The result with one row [N, 4] per frame, and what was done to it."""
        rows, frames = len(predicted_xywh), len(truth)
        if (
            (rows < frames and self.short == "refuse")
            or (rows > frames and self.long == "refuse")
            or (rows == 0 and self.short != "nan")
        ):
            _refuse_rows(truth, rows, self.name)
        remarks: tuple[Remark, ...] = ()
        if rows < frames:
            filled = "the last row fills the rest" if self.short == "last row" else "the rest are misses"
            remarks += (Remark(truth.name, "short", f"{rows} rows for {frames} frames; {filled}"),)
        elif rows > frames:
            remarks += (Remark(truth.name, "long", f"{rows} rows for {frames} frames; the rest is cut off"),)
        predicted_xywh = predicted_xywh[:frames]

        invalid = self._invalid_rows(truth, predicted_xywh)
        counted = invalid.clone()
        counted[:1] &= not self.first_frame_is_truth
        if self.invalid_prediction in ("repeat", "refuse"):
            remarks += _invalid_remark(truth, counted, "replaced by the row before")
            predicted_xywh = _repeat_previous(predicted_xywh, invalid, truth.boxes_xywh)
        else:
            remarks += _invalid_remark(truth, counted, "misses")

        if rows < frames:
            filler = predicted_xywh[-1:]
            if self.short != "last row":
                filler = torch.full((1, 4), torch.nan if self.short == "nan" else 0.0, dtype=torch.float64)
            predicted_xywh = torch.cat([predicted_xywh, filler.expand(frames - rows, 4)])
        if self.first_frame_is_truth:
            predicted_xywh = torch.cat([truth.boxes_xywh[:1], predicted_xywh[1:]])
        return predicted_xywh, remarks

    def _invalid_rows(self, truth: SequenceTruth, predicted_xywh: Tensor) -> Tensor:
        if self.invalid_prediction == "keep sizes":
            return predicted_xywh.isnan().any(-1)
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


class TrackingNetRule(CurveRule):
    """Areas under three curves of 21 thresholds, by the trapezoidal rule, not values at 20 px and 0.2.

    Precision counts `<=` at 0 .. 50 px; normalized precision `<=` at 0 .. 0.5. Coverage is the share of all frames
    with a box. A missing file is a result of zeros.
    """

    scores = ("auc", "precision", "normalized_precision", "coverage")
    missing_result: Literal["refuse", "zeros"] = "zeros"
    thresholds = _TRACKINGNET_THRESHOLDS

    def _values(self, curves: dict[str, Tensor], predicted_xywh: Tensor) -> dict[str, float]:
        areas = {name: float(functional.curve_area(curve, "trapezoid")) for name, curve in curves.items()}
        coverage = float((predicted_xywh.sum(-1) > 0).double().mean())
        return {"auc": areas.pop("success"), **areas, "coverage": coverage}

    def summarize(self, scores: Sequence[SequenceScore]) -> BenchmarkScore:
        """Means over sequences, but for the coverage: the share of all frames."""
        summary = super().summarize(scores)
        frames = sum(score.frames for score in scores)
        coverage = sum(score.values["coverage"] * score.frames for score in scores) / frames
        errors = {name: value for name, value in summary.standard_errors.items() if name != "coverage"}
        return replace(summary, values={**summary.values, "coverage": coverage}, standard_errors=errors)


class Got10kRule(ScoringRule):
    """AO and SR over the pooled frames of all sequences and repetitions.

    The first frame and frames in which the target is fully covered do not count; boxes are clipped to the image's
    resolution where it is known. The toolkit prints SR at 0.5; SR at 0.75 is the server's, by the same formula. The
    curve has the toolkit's 101 overlaps.
    """

    name = "got10k"
    source = "got-10k/toolkit, experiments/got10k.py (Huang et al., PAMI 2021)"
    scores = ("ao", "sr_0.5", "sr_0.75")
    repetitions = True
    thresholds = _GOT10K_THRESHOLDS

    def score(self, truth: SequenceTruth, predictions_xywh: Sequence[Tensor]) -> SequenceScore:
        """Score one sequence; the contract is in `ScoringRule`."""
        counted = torch.ones(len(truth), dtype=torch.bool) if truth.absent is None else ~truth.absent
        remarks: tuple[Remark, ...] = ()
        overlaps = []
        for predicted_xywh in predictions_xywh:
            if len(predicted_xywh) != len(truth):
                _refuse_rows(truth, len(predicted_xywh), self.name)
            invalid = ~predicted_xywh.isfinite().all(-1) | (predicted_xywh[:, 2:] <= 0).any(-1)
            invalid[0] = False  # does not count
            remarks += _invalid_remark(truth, invalid, "misses")
            iou = geometry.iou_xywh(
                _bounded(predicted_xywh, truth.image_size), _bounded(truth.boxes_xywh, truth.image_size)
            )
            overlaps.append(iou[1:][counted[1:]])
        pooled = torch.cat(overlaps)
        rates = functional.success_rates(pooled, torch.tensor([0.5, 0.75]))
        values = {
            "ao": float(pooled.sum() / max(len(pooled), 1)),
            "sr_0.5": float(rates[0]),
            "sr_0.75": float(rates[1]),
        }
        curves = {"success": functional.success_rates(pooled, self.thresholds["success"])}
        return SequenceScore(truth.name, len(truth), float(len(pooled)), values, curves, remarks)


def _bounded(boxes_xywh: Tensor, image_size: tuple[int, int] | None) -> Tensor:
    """The toolkit's bound: the corner moves into the image with the size kept, then the size is cut at the far edge."""
    if image_size is None:
        return boxes_xywh
    bound = torch.tensor(image_size, dtype=boxes_xywh.dtype)
    corner = boxes_xywh[:, :2].clamp(min=0).minimum(bound)
    return torch.cat([corner, boxes_xywh[:, 2:].clamp(min=0).minimum(bound - corner)], dim=-1)


def _invalid_remark(truth: SequenceTruth, invalid: Tensor, treatment: str) -> tuple[Remark, ...]:
    """A remark where rows [M] of a result are no box."""
    count = int(invalid.sum())
    if not count:
        return ()
    first = int(invalid.nonzero()[0]) + 1
    rows = f"{count} rows without a box (the first is row {first})" if count > 1 else f"row {first} is without a box"
    return (Remark(truth.name, "invalid", f"{rows}; {treatment}"),)


def _refuse_rows(truth: SequenceTruth, rows: int, rule: str) -> None:
    raise UserError(
        f"The result of sequence {truth.name} has {rows} rows, but the sequence has {len(truth)} frames, and rule "
        f"{rule} does not score that; track the sequence again, or name another rule."
    )


_LASOT = CurveRule(
    name="lasot",
    source="HengLan/LaSOT_Evaluation_Toolkit, utils/calc_seq_err_robust.m and eval_tracker.m (Fan et al., CVPR 2019)",
    uses_absent=True,
)
_OTB = CurveRule(
    name="otb",
    source="the OTB toolkit, calcSeqErrRobust.m, and jwlim/tracker_benchmark (Wu et al., CVPR 2013, PAMI 2015), which "
    "UAV123, NFS and DTB70 took over",
    short="last row",
)
# pytracking and its descendants refuse NaN and negative sizes, and fill short results with zeros.
_PYTRACKING = CurveRule(
    name="pytracking",
    source="visionml/pytracking, analysis/extract_results.py",
    invalid_hits=_NORMALIZED,
    invalid_prediction="refuse",
    short="zeros",
)
_RELEASED = replace(
    _PYTRACKING,
    name="released",
    source="the public release of RELO, lib/test/analysis (as OSTrack and SUTrack)",
    valid_truth="positive size",
)

_RULES: tuple[ScoringRule, ...] = (
    _LASOT,
    replace(_LASOT, name="lasot_ext", source="LaSOT's toolkit on the extension subset (Fan et al., IJCV 2021)"),
    _OTB,
    replace(
        _OTB,
        name="pysot",
        source="STVIR/pysot, toolkit/evaluation/ope_benchmark.py: the first row and invalid rows as predicted",
        first_frame_is_truth=False,
        invalid_prediction="keep",
    ),
    replace(
        _LASOT,
        name="tnl2k",
        source="wangxiao5791509/TNL2K_evaluation_toolkit, utils/calc_seq_err_robust.m (Wang et al., CVPR 2021)",
        zero_box_is_absent=True,
    ),
    replace(
        _LASOT,
        name="vasttrack",
        source="HengLan/VastTrack, MatlabEvaluationToolkit (Peng et al., NeurIPS 2024)",
        zero_box_is_absent=True,
    ),
    replace(
        _RELEASED,
        name="vasttrack_python",
        source="HengLan/VastTrack, PythonEvaluationToolkit/extract_results.py",
        uses_absent=True,
        zero_box_is_absent=True,
        short="refuse",
        long="refuse",
    ),
    TrackingNetRule(
        name="trackingnet",
        source="SilvioGiancola/TrackingNet-devkit, metrics.py (Müller et al., ECCV 2018)",
        valid_truth="any box",
        invalid_prediction="keep sizes",
        short="nan",
        whole_pixels=True,
        strict=False,
    ),
    Got10kRule(),
    _PYTRACKING,
    replace(_PYTRACKING, name="pytracking_uav", invalid_hits=_BOTH),
    replace(_PYTRACKING, name="pytracking_lasot", uses_absent=True, short="refuse"),
    # NFS, OTB and TNL2K: an absent frame of TNL2K is a truth of zeros, and so a hit for the normalized precision.
    _RELEASED,
    replace(_RELEASED, name="uav_released", invalid_hits=_BOTH),
    replace(_RELEASED, name="lasot_released", uses_absent=True, short="refuse"),
    replace(_RELEASED, name="lasot_ext_released", uses_absent=True, absent_hits=_NORMALIZED),
    replace(_RELEASED, name="tnl2k_released"),
)
RULES = {rule.name: rule for rule in _RULES}


def find_rule(name: str) -> ScoringRule:
    """The rule called `name`, or the own rule of the benchmark called so, whatever the case and separators; or an
    instance of the class that a dotted name points to.

    Raises:
        UserError: there is no such rule.
    """
    rule = RULES.get(canonical_name(name))
    if rule is not None:
        return rule
    with suppress(UserError):  # no benchmark
        return RULES[find_benchmark(name).rule]
    if "." in name:
        rule = build({"class_path": name}, named_by_user=True)
        if isinstance(rule, ScoringRule):
            return rule
    raise UserError(
        f"There is no scoring rule {name!r}; the rules are {', '.join(RULES)}, or name a class by its dotted path."
    )
