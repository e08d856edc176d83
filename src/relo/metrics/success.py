"""How often the overlap is high enough."""

from typing import Any

from torch import Tensor

from relo import geometry
from relo.metrics import functional
from relo.metrics.overlap import FrameMean
from relo.metrics.sequence_curve import SequenceCurve


class SuccessAUC(SequenceCurve):
    """Area under the success curve, mean over sequences (Wu et al., CVPR 2013; LaSOT, CVPR 2019)."""

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


class SuccessRate(FrameMean):
    """Share of all frames, whatever their sequence, whose overlap exceeds a threshold (GOT-10k's SR, PAMI 2021)."""

    def __init__(self, threshold: float = 0.5, drop_first: bool = True, **kwargs: Any) -> None:
        """Start at zero.

        Args:
            threshold: the overlap to exceed.
            drop_first: leave every sequence's first frame out, where the box is given.
            **kwargs: options of `torchmetrics.Metric`.
        """
        super().__init__(drop_first, **kwargs)
        self.threshold = threshold

    def _frame_scores(self, iou: Tensor) -> Tensor:
        return iou > self.threshold
