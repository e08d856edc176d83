"""Rewards: what an action earns, as weighted terms over a clip. They call the same formulas as the metrics."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from relo.geometry import generalized_iou, xyxy_to_xywh
from relo.metrics.functional import (
    Integration,
    curve_area,
    normalized_center_error,
    normalized_precision_thresholds,
    precision_rates,
    success_auc,
)
from relo.models.checkpoints.plugin import Plugin
from relo.settings import LARGEST, check_number, check_whole


class RewardTerm(Plugin):
    """Contract: one term of the reward of every frame of a clip.

    Attributes:
        weight: factor of the term in the sum.
    """

    weight: float = 1.0

    def __init__(self, weight: float = 1.0) -> None:
        """Args: `weight`, factor of the term, at least 0."""
        check_number(type(self).__name__, 0, LARGEST, weight=weight)
        self.weight = weight

    @abstractmethod
    def __call__(self, boxes_xyxy: Tensor, truth_xyxy: Tensor, iou: Tensor, present: Tensor) -> Tensor:
        """The term [..., T] of each frame, unweighted.

        Args:
            boxes_xyxy: [..., T, 4], the boxes that the actions chose, as shares of the search side.
            truth_xyxy: [..., T, 4], the target's boxes, clamped to the crop.
            iou: [..., T], their overlap.
            present: [..., T] bool; what absent frames get does not matter: the caller drops it.
        """


class IoUReward(RewardTerm):
    """The frame's own IoU."""

    def __call__(self, boxes_xyxy: Tensor, truth_xyxy: Tensor, iou: Tensor, present: Tensor) -> Tensor:
        """[..., T] -> [..., T]."""
        return iou


class GIoUReward(RewardTerm):
    """The frame's generalized IoU, in (-1, 1]: a box beside the target earns the less the farther it lies."""

    def __call__(self, boxes_xyxy: Tensor, truth_xyxy: Tensor, iou: Tensor, present: Tensor) -> Tensor:
        """[..., T] -> [..., T]."""
        return generalized_iou(boxes_xyxy, truth_xyxy)


class CenterPrecisionReward(RewardTerm):
    """The area under the frame's own normalized precision curve (TrackingNet, ECCV 2018).

    The distance of the centres, x in the target's widths and y in its heights, is held against the 51 thresholds
    0, 0.01 .. 0.5: the very centre earns 1, a distance above 0.5 nothing.
    """

    def __init__(self, weight: float = 1.0, integration: Integration = "mean") -> None:
        """Set the curve.

        Args:
            weight: factor of the term.
            integration: how the curve becomes a number: the mean of its values, as in the benchmarks, or the trapezoid.
        """
        super().__init__(weight)
        self.integration = integration

    def __call__(self, boxes_xyxy: Tensor, truth_xyxy: Tensor, iou: Tensor, present: Tensor) -> Tensor:
        """[..., T] -> [..., T]."""
        errors = normalized_center_error(xyxy_to_xywh(boxes_xyxy), xyxy_to_xywh(truth_xyxy))
        thresholds = normalized_precision_thresholds().to(errors.device)
        return curve_area(precision_rates(errors[..., None], thresholds), self.integration)


class AUCReward(RewardTerm):
    """The area under the clip's success curve: one number for all its frames (paper, section 3)."""

    def __init__(
        self,
        weight: float = 1.0,
        integration: Integration = "trapezoid",
        thresholds: int = 21,
        strict: bool = True,
    ) -> None:
        """Set the curve.

        Args:
            weight: factor of the term.
            integration: how the curve becomes a number: trapezoid as in the paper's reward, mean as in the benchmarks.
            thresholds: how many, evenly from 0 to 1.
            strict: a frame succeeds when its IoU is above the threshold (else: at or above it).

        Raises:
            UserError: a number out of its range.
        """
        super().__init__(weight)
        check_whole("AUCReward", 2, 10001, thresholds=thresholds)
        self.integration = integration
        self.thresholds = thresholds
        self.strict = strict

    def __call__(self, boxes_xyxy: Tensor, truth_xyxy: Tensor, iou: Tensor, present: Tensor) -> Tensor:
        """[..., T] -> [..., T], equal along T; frames without a visible target do not count in the curve."""
        thresholds = torch.linspace(0, 1, self.thresholds, dtype=torch.float64, device=iou.device)
        auc = success_auc(
            iou.double(), thresholds=thresholds, integration=self.integration, strict=self.strict, mask=present
        )
        return auc.to(iou.dtype)[..., None].expand_as(iou)


def reward_terms(
    terms: Sequence[RewardTerm], boxes_xyxy: Tensor, truth_xyxy: Tensor, iou: Tensor, present: Tensor
) -> dict[str, Tensor]:
    """Each term [..., T] times its weight, by its class's name; 0 where the target cannot be seen.

    The second term of one class is called `<class>_2`, and so on.
    """
    values: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()
    for term in terms:
        name = type(term).__name__
        counts[name] += 1
        name = name if counts[name] == 1 else f"{name}_{counts[name]}"
        values[name] = torch.where(present, term.weight * term(boxes_xyxy, truth_xyxy, iou, present), 0)
    return values
