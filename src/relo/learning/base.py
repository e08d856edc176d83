"""What objectives share: their contract, means over the frames that count (of all ranks), a box's loss."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, distributed

from relo.data.clip_batch import ClipBatch
from relo.geometry import generalized_iou, iou
from relo.learning.rollout import Rollout
from relo.models.network import LocalizationNetwork

T = TypeVar("T")


@dataclass(frozen=True)
class StepResult:
    """The loss of one optimizer step, and what to log and show of it."""

    loss: Tensor  # scalar
    logs: dict[str, Tensor] = field(default_factory=dict)  # scalars by name, detached
    rollout: Rollout | None = None  # detached, of policy objectives; for figures


class Objective(ABC):
    """Turns a batch of clips into a loss.

    An objective holds settings, no parameters and no state; what it draws at random comes from the generator.
    """

    trained_parts: tuple[str, ...] | None = None
    """The network's trainable parts ("policy", "critic", ...); None is all of them. The others are frozen."""

    updates: int = 1
    """Optimizer steps per batch; other than 1, `losses` is implemented."""

    def check(self, network: LocalizationNetwork) -> None:  # noqa: B027, most need nothing of the network
        """Refuse a network that the objective cannot train, before anything is run.

        Raises:
            UserError: the network lacks a head that is needed, or has one that does not fit.
        """

    @abstractmethod
    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """The loss of one batch."""

    def losses(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> Iterator[StepResult]:
        """The losses of the batch's `updates` optimizer steps; each is asked for after the step before it was taken."""
        yield self(network, clip, generator)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values [...] where the mask [...] holds; 0 where it never does."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def mean_loss(losses: Tensor, mask: Tensor) -> Tensor:
    """Mean of the losses [...] where the mask [...] holds, times this rank's share of all that count.

    So gradients that are averaged over ranks are those of one mean, however many frames count on each rank.
    """
    return masked_mean(losses, mask) * share_of_ranks(mask)


@torch.no_grad()
def share_of_ranks(mask: Tensor) -> Tensor:
    """How often this rank's mask holds, over the mean of all ranks: 1 for one rank, or where all have as many."""
    own = mask.sum().float()
    if not _are_several_ranks():
        return torch.ones_like(own)
    total = own.clone()
    distributed.all_reduce(total)
    return own * distributed.get_world_size() / total.clamp(min=1)


@torch.no_grad()
def mean_over_ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values [...] of every rank where its mask [...] holds; without gradients, 0 where none holds."""
    sums = torch.stack([(values * mask).sum(), mask.sum().to(values.dtype)])
    if _are_several_ranks():
        distributed.all_reduce(sums)
    total, count = sums
    return total / count.clamp(min=1)


def of_all_ranks(value: T) -> list[T]:
    """A value of each rank, in their order; every rank must call this."""
    if not _are_several_ranks():
        return [value]
    values = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def _are_several_ranks() -> bool:
    """Whether this process is one of a distributed run."""
    return distributed.is_available() and distributed.is_initialized()


def target_cell(boxes_xywh: Tensor, map_size: int) -> Tensor:
    """The cells [...] (int64, row * S + column) that hold the centres of boxes [..., 4] (shares of the crop's side)."""
    center = boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2
    column, row = (center * map_size).long().clamp(0, map_size - 1).unbind(-1)
    return row * map_size + column


def box_losses(boxes_xyxy: Tensor, truth_xyxy: Tensor, present: Tensor) -> dict[str, Tensor]:
    """1 - GIoU and L1 (mean over x1, y1, x2, y2) of boxes [..., 4], and their IoU, over the frames that count.

    Boxes are shares of the crop's side; `present` is [...].
    """
    return {
        "giou_loss": masked_mean(1 - generalized_iou(boxes_xyxy, truth_xyxy), present),
        "l1_loss": masked_mean((boxes_xyxy - truth_xyxy).abs().mean(-1), present),
        "iou": masked_mean(iou(boxes_xyxy.detach(), truth_xyxy), present),
    }


def regression_loss(losses: Mapping[str, Tensor], giou_weight: float = 2.0, l1_weight: float = 5.0) -> Tensor:
    """The weighted sum of `box_losses`; the paper's by default."""
    return giou_weight * losses["giou_loss"] + l1_weight * losses["l1_loss"]
