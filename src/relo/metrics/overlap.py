"""Overlap, averaged over frames."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from relo import geometry


class FrameMean(Metric):
    """The mean of a frame's score over the frames of all sequences: long sequences weigh more (GOT-10k's way)."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    score_sum: Tensor  # []
    frames: Tensor  # []

    def __init__(self, drop_first: bool = True, **kwargs: Any) -> None:
        """Start at zero.

        Args:
            drop_first: leave every sequence's first frame out, where the box is given.
            **kwargs: options of `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        self.drop_first = drop_first
        self.add_state("score_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("frames", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @abstractmethod
    def _frame_scores(self, iou: Tensor) -> Tensor:
        """The score [N] of frames with overlaps [N]."""

    def update(self, predicted_xywh: Tensor, truth_xywh: Tensor, present: Tensor | None = None) -> None:
        """Add one sequence: boxes [N, 4] in image pixels; `present`, bool [N]: the frames that count (default: all)."""
        iou = geometry.iou_xywh(predicted_xywh.double(), truth_xywh.double())
        first = 1 if self.drop_first else 0
        counts = torch.ones_like(iou, dtype=torch.bool) if present is None else present
        scores = self._frame_scores(iou[first:])[counts[first:]]
        self.score_sum += scores.sum()
        self.frames += scores.numel()

    def compute(self) -> Tensor:
        """The mean over frames, []; NaN before the first."""
        return self.score_sum / self.frames

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value, or several of `compute`; by default the present one. Needs matplotlib."""
        return self._plot(val, ax)


class AverageOverlap(FrameMean):
    """Mean overlap over all frames (GOT-10k's AO, Huang et al., PAMI 2021)."""

    def _frame_scores(self, iou: Tensor) -> Tensor:
        return iou
