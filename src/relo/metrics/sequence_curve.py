"""What the metrics share that are a curve of every sequence, averaged over sequences."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class SequenceCurve(Metric):
    """The mean over sequences of a curve, and a number read off it.

    Sequences count alike, whatever their length. The states are sums of a fixed size, so that processes with different
    numbers of sequences, or none, add up to the right mean.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    thresholds: Tensor  # [K]
    curve_sum: Tensor  # [K]
    squares_sum: Tensor  # []
    sequences: Tensor  # []

    def __init__(self, thresholds: Tensor, **kwargs: Any) -> None:
        """Start at zero.

        Args:
            thresholds: where the curve is sampled, [K].
            **kwargs: options of `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.add_state("curve_sum", torch.zeros(len(thresholds), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sequences", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

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
        """
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

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value, or several of `compute`; by default the present one. Needs matplotlib."""
        return self._plot(val, ax)
