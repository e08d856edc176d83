"""The scores of tracked sequences as torchmetrics: fed one sequence at a time, averaged over sequences or frames.

States are sums of a fixed size: processes with different numbers of sequences, or none, add up to the right mean.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from relo import geometry
from relo.metrics import functional


def _require_paired(predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None) -> None:
    """Refuse boxes of which one would stand for many.

    Raises:
        ValueError: boxes, or the frames that count, are of other shapes.
    """
    if predicted_xywh.shape != truth_xywh.shape or (present is not None and present.shape != truth_xywh.shape[:1]):
        shapes = [None if each is None else tuple(each.shape) for each in (predicted_xywh, truth_xywh, present)]
        raise ValueError(f"boxes, true boxes and the frames that count do not belong together: {shapes}")


class _Score(Metric):
    """A share between 0 and 1."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def _add_sum(self, name: str, *shape: int) -> None:
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value, or several of `compute`; by default the present one. Needs matplotlib."""
        return self._plot(val, ax)


class SequenceCurve(_Score):
    """The mean over sequences of a curve, and a number read off it; sequences count alike, whatever their length."""

    thresholds: Tensor  # [K]
    curve_sum: Tensor  # [K]
    squares_sum: Tensor  # []
    sequences: Tensor  # []

    def __init__(self, thresholds: Tensor, **kwargs: Any) -> None:
        """Start at zero; the curve is sampled at `thresholds` [K]. The rest are options of `torchmetrics.Metric`."""
        super().__init__(**kwargs)
        self.register_buffer("thresholds", thresholds, persistent=False)
        self._add_sum("curve_sum", len(thresholds))
        self._add_sum("squares_sum")
        self._add_sum("sequences")

    @abstractmethod
    def _sequence_curve(self, predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None) -> Tensor:
        """The curve [K] of one sequence."""

    @abstractmethod
    def _read_off(self, curve: Tensor) -> Tensor:
        """The number [] that a curve [K] is reported by; linear in the curve."""

    def update(self, predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None = None) -> None:
        """Add one sequence.

        Args:
            predicted_xywh: predicted boxes [N, 4], image pixels.
            truth_xywh: annotated boxes [N, 4], image pixels.
            present: bool [N], the frames that count (the target can be seen); all by default. A sequence in which none
                counts is left out.

        Raises:
            ValueError: there are not as many of each.
        """
        _require_paired(predicted_xywh, truth_xywh, present)
        if len(truth_xywh) == 0 or (present is not None and not bool(present.any())):
            return
        curve = self._sequence_curve(predicted_xywh.double(), truth_xywh.double(), present)
        self.curve_sum += curve
        self.squares_sum += self._read_off(curve) ** 2
        self.sequences += 1

    def compute(self) -> Tensor:
        """The mean over sequences, []; NaN before the first."""
        return self._read_off(self.curve_sum / self.sequences)

    def curve(self) -> Tensor:
        """The mean curve over the sequences of all processes, [K]."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self.curve_sum / self.sequences

    def standard_error(self) -> Tensor:
        """The standard error of the mean over the sequences of all processes, []; NaN for fewer than two."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            mean = self._read_off(self.curve_sum / self.sequences)
            variance = (self.squares_sum - self.sequences * mean**2).clamp(min=0) / (self.sequences - 1)
            return torch.where(self.sequences > 1, (variance / self.sequences).sqrt(), torch.nan)


class SuccessAUC(SequenceCurve):
    """Area under the success curve, mean over sequences (Wu et al., CVPR 2013; LaSOT, CVPR 2019).

    Examples:
        >>> boxes_xywh = torch.tensor([[0.0, 0, 10, 10], [5, 0, 10, 10]])
        >>> metric = SuccessAUC()
        >>> metric.update(boxes_xywh, boxes_xywh)  # no overlap exceeds the threshold 1
        >>> metric.update(boxes_xywh[:1], boxes_xywh[1:])  # an overlap of 1/3 exceeds 0, 0.05 .. 0.3
        >>> metric.compute()
        tensor(0.6429, dtype=torch.float64)
    """

    def __init__(
        self,
        thresholds: Tensor | None = None,
        integration: functional.Integration = "mean",
        strict: bool = True,
        **kwargs: Any,
    ) -> None:
        """Start at zero; `thresholds`, `integration` and `strict` as in `relo.metrics.functional.success_auc`."""
        super().__init__(functional.success_thresholds() if thresholds is None else thresholds, **kwargs)
        self.integration: functional.Integration = integration
        self.strict = strict

    def _sequence_curve(self, predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None) -> Tensor:
        iou = geometry.iou_xywh(predicted_xywh, truth_xywh)
        return functional.success_rates(iou, self.thresholds, self.strict, present)

    def _read_off(self, curve: Tensor) -> Tensor:
        return functional.curve_area(curve, self.integration)


class _CenterPrecision(SequenceCurve):
    _errors: Callable[[Tensor, Tensor], Tensor]  # of boxes [N, 4] and truths [N, 4], [N]

    def __init__(self, thresholds: Tensor, threshold: float, **kwargs: Any) -> None:
        super().__init__(thresholds, **kwargs)
        matches = (thresholds == threshold).nonzero().flatten()
        if len(matches) == 0:
            raise ValueError(f"the threshold {threshold} is none of the curve's {thresholds.tolist()}")
        self.threshold_index = int(matches[0])

    def _sequence_curve(self, predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None) -> Tensor:
        return functional.precision_rates(self._errors(predicted_xywh, truth_xywh), self.thresholds, present)

    def _read_off(self, curve: Tensor) -> Tensor:
        return curve[self.threshold_index]


class Precision(_CenterPrecision):
    """Share of frames whose centre is at most 20 px off, mean over sequences (Wu et al., CVPR 2013).

    Examples:
        >>> truth_xywh = torch.tensor([[0.0, 0, 10, 10], [50, 0, 10, 10]])
        >>> metric = Precision()
        >>> metric.update(truth_xywh[:1].expand(2, 4), truth_xywh)  # the second centre is 50 px off
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    _errors = staticmethod(functional.center_error)

    def __init__(self, threshold: float = 20, **kwargs: Any) -> None:
        """Start at zero; `threshold` is a whole number of pixels from 0 to 50."""
        super().__init__(functional.precision_thresholds(), threshold, **kwargs)


class NormalizedPrecision(_CenterPrecision):
    """Share of frames whose centre is at most 0.2 truth sizes off, mean over sequences (as LaSOT reports it).

    Examples:
        >>> truth_xywh = torch.tensor([[0.0, 0, 10, 10], [0, 0, 40, 10]])
        >>> metric = NormalizedPrecision()
        >>> metric.update(truth_xywh + torch.tensor([5, 0, 0, 0]), truth_xywh)  # off by 0.5 and 0.125 widths
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    _errors = staticmethod(functional.normalized_center_error)

    def __init__(self, threshold: float = 0.2, **kwargs: Any) -> None:
        """Start at zero; `threshold` is a multiple of 0.01 from 0 to 0.5."""
        super().__init__(functional.normalized_precision_thresholds(), threshold, **kwargs)


class FrameMean(_Score):
    """The mean of a frame's score over the frames of all sequences: long sequences weigh more (GOT-10k's way)."""

    score_sum: Tensor  # []
    frames: Tensor  # []

    def __init__(self, drop_first: bool = True, **kwargs: Any) -> None:
        """Start at zero; `drop_first` leaves every sequence's first frame out, where the box is given."""
        super().__init__(**kwargs)
        self.drop_first = drop_first
        self._add_sum("score_sum")
        self._add_sum("frames")

    @abstractmethod
    def _frame_scores(self, iou: Tensor) -> Tensor:
        """The score [N] of frames with overlaps [N]."""

    def update(self, predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None = None) -> None:
        """Add one sequence: boxes [N, 4] in image pixels; `present`, bool [N]: the frames that count (default: all).

        Raises:
            ValueError: there are not as many of each.
        """
        _require_paired(predicted_xywh, truth_xywh, present)
        iou = geometry.iou_xywh(predicted_xywh.double(), truth_xywh.double())
        first = 1 if self.drop_first else 0
        counts = torch.ones_like(iou, dtype=torch.bool) if present is None else present
        scores = self._frame_scores(iou[first:])[counts[first:]]
        self.score_sum += scores.sum()
        self.frames += scores.numel()

    def compute(self) -> Tensor:
        """The mean over frames, []; NaN before the first."""
        return self.score_sum / self.frames


class AverageOverlap(FrameMean):
    """Mean overlap over all frames (GOT-10k's AO, Huang et al., PAMI 2021).

    Examples:
        >>> truth_xywh = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]])
        >>> metric = AverageOverlap()
        >>> metric.update(truth_xywh[:1].expand(3, 4), truth_xywh)  # the first frame is left out
        >>> metric.compute()
        tensor(0.7500, dtype=torch.float64)
    """

    def _frame_scores(self, iou: Tensor) -> Tensor:
        return iou


class SuccessRate(FrameMean):
    """Share of all frames, whatever their sequence, whose overlap exceeds a threshold (GOT-10k's SR, PAMI 2021).

    Examples:
        >>> truth_xywh = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]])
        >>> metric = SuccessRate(threshold=0.5)
        >>> metric.update(truth_xywh[:1].expand(3, 4), truth_xywh)  # an overlap of 0.5 does not exceed it
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    def __init__(self, threshold: float = 0.5, drop_first: bool = True, **kwargs: Any) -> None:
        """Start at zero; `threshold` is the overlap to exceed, `drop_first` as in `FrameMean`."""
        super().__init__(drop_first, **kwargs)
        self.threshold = threshold

    def _frame_scores(self, iou: Tensor) -> Tensor:
        return iou > self.threshold
