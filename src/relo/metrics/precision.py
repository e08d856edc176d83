"""How often the centre is near enough."""

from typing import Any

from torch import Tensor

from relo.metrics import functional
from relo.metrics.sequence_curve import SequenceCurve


class _CenterPrecision(SequenceCurve):
    def __init__(self, thresholds: Tensor, threshold: float, **kwargs: Any) -> None:
        super().__init__(thresholds, **kwargs)
        matches = (thresholds == threshold).nonzero().flatten()
        if len(matches) == 0:
            raise ValueError(f"the threshold {threshold} is none of the curve's {thresholds.tolist()}")
        self.threshold_index = int(matches[0])

    def _read_off(self, curve: Tensor) -> Tensor:
        return curve[self.threshold_index]


class Precision(_CenterPrecision):
    """Share of frames whose centre is at most 20 px off, mean over sequences (Wu et al., CVPR 2013)."""

    def __init__(self, threshold: float = 20, **kwargs: Any) -> None:
        """Start at zero; `threshold` is a whole number of pixels from 0 to 50."""
        super().__init__(functional.precision_thresholds(), threshold, **kwargs)

    def _sequence_curve(self, predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None) -> Tensor:
        return functional.precision_rates(functional.center_error(predicted_xywh, truth_xywh), self.thresholds, present)


class NormalizedPrecision(_CenterPrecision):
    """Share of frames whose centre is at most 0.2 truth sizes off, mean over sequences (as LaSOT reports it)."""

    def __init__(self, threshold: float = 0.2, **kwargs: Any) -> None:
        """Start at zero; `threshold` is a multiple of 0.01 from 0 to 0.5."""
        super().__init__(functional.normalized_precision_thresholds(), threshold, **kwargs)

    def _sequence_curve(self, predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None) -> Tensor:
        errors = functional.normalized_center_error(predicted_xywh, truth_xywh)
        return functional.precision_rates(errors, self.thresholds, present)
