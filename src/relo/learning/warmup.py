"""The warm-up: the box regression is trained at the target's cell, and the prior's score map beside it."""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.geometry import clamped_xyxy, cxcywh_to_xyxy
from relo.learning.base import (
    Objective,
    StepResult,
    box_losses,
    regression_loss,
    share_of_ranks,
    target_cell,
)
from relo.learning.presence import presence_loss, require_presence
from relo.learning.priors import Prior
from relo.learning.rollout import check_groups, groups_of, unroll
from relo.models.heads import at_cells
from relo.models.network import Head, LocalizationMaps, LocalizationNetwork
from relo.settings import LARGEST, check_number


class FrameObjective(Objective):
    """The mean of what each frame's maps lose, over all frames with a visible target, as for one long frame."""

    heads: tuple[Head, ...]
    """Those to run."""

    frames_per_group: int | None = None
    """See `relo.learning.rollout.groups_of`."""

    presence_weight: float = 0.0
    """Weight of the loss of presence, over all frames, also those without a visible target."""

    @abstractmethod
    def frame_losses(self, maps: LocalizationMaps, truth_xywh: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Means by name over the clips of one frame whose target is present [B] bool; its boxes are [B, 4]."""

    @abstractmethod
    def total(self, means: dict[str, Tensor]) -> Tensor:
        """The loss, from the means of `frame_losses` over the frames."""

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Unroll the network over the clips, and average the losses of their frames.

        Raises:
            UserError: the clips cannot be split into groups, or the network lacks the prior head that a prior needs.
        """
        groups = groups_of(clip, self.frames_per_group)
        steps = list(unroll(network, clip, self.heads, groups=groups))
        of_frames = [maps[group::groups] for group in range(groups) for _, maps in steps]  # of B clips each
        truths_xywh, present = clip.search_boxes_xywh.unbind(1), clip.present.unbind(1)
        frames = [self.frame_losses(*frame) for frame in zip(of_frames, truths_xywh, present, strict=True)]
        counts = clip.present.sum(0)
        weights = counts / counts.sum().clamp(min=1)  # [T]
        means = {name: (torch.stack([frame[name] for frame in frames]) * weights).sum() for name in frames[0]}
        loss, logs = self.total(means) * share_of_ranks(clip.present), {n: mean.detach() for n, mean in means.items()}
        if self.presence_weight:
            presence, presence_logs = presence_loss(require_presence(network), steps, clip, groups)
            loss = loss + self.presence_weight * presence
            logs |= {"presence_loss": presence.detach(), **presence_logs}
        return StepResult(loss, {"loss": loss.detach(), **logs})


class WarmupObjective(FrameObjective):
    """GIoU and L1 on one box per frame; optionally losses on the prior's scores (as in the release) and on presence."""

    def __init__(
        self,
        giou_weight: float = 2.0,
        l1_weight: float = 5.0,
        prior: Prior | None = None,
        prior_weight: float = 1.0,
        box_cell: Literal["target", "prior"] = "target",
        frames_per_group: int | None = None,
        presence_weight: float = 0.0,
    ) -> None:
        """Set the loss.

        Args:
            giou_weight: weight of 1 - GIoU.
            l1_weight: weight of the mean absolute error of x1, y1, x2, y2 (shares of the search side).
            prior: what to train the prior's scores against; None trains the boxes alone, as the paper's text has it.
            prior_weight: weight of the prior's loss.
            box_cell: the cell whose box is trained: the target's (paper) or the best-scored one (release).
            frames_per_group: see `relo.learning.rollout.groups_of`.
            presence_weight: weight of the loss of `relo.learning.presence.PresenceObjective` on two peaks per frame,
                whose gradient reaches the encoder: it then sees frames without their target (`data.absence`).

        Raises:
            UserError: a number out of its range; or boxes of the prior's best cell, or presence, are to be trained, but
                there is no prior.
        """
        check_number("WarmupObjective", 0, LARGEST, giou_weight=giou_weight, l1_weight=l1_weight)
        check_number("WarmupObjective", 0, LARGEST, prior_weight=prior_weight, presence_weight=presence_weight)
        check_groups("WarmupObjective", frames_per_group)
        if presence_weight and prior is None:
            raise UserError("presence_weight needs a prior, which chooses boxes: set the objective's prior.")
        if box_cell == "prior" and prior is None:
            raise UserError("box_cell 'prior' needs a prior: set the objective's prior, or box_cell to 'target'.")
        self.giou_weight = giou_weight
        self.l1_weight = l1_weight
        self.prior = prior
        self.prior_weight = prior_weight
        self.box_cell = box_cell
        self.frames_per_group = frames_per_group
        self.presence_weight = presence_weight
        self.heads = ("box",) if prior is None else ("box", "prior")
        self.trained_parts = ("encoder", "propagator", *self.heads, *(("presence",) if presence_weight else ()))

    def check(self, network: LocalizationNetwork) -> None:
        """Refuse a network whose presence is to be trained, but cannot be.

        Raises:
            UserError: it has no presence head, or one that reads the policy.
        """
        if self.presence_weight and require_presence(network).localization != "prior":
            raise UserError("The warm-up trains a presence head that reads the prior: set its localization to prior.")

    def frame_losses(self, maps: LocalizationMaps, truth_xywh: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Of the box at the trained cell, and of the prior."""
        prior_loss = {} if self.prior is None else {"prior_loss": self.prior.loss(maps, truth_xywh, present)}
        assert maps.boxes_cxcywh is not None
        if self.box_cell == "target":
            cells = target_cell(truth_xywh, maps.boxes_cxcywh.shape[1])
        else:
            assert maps.prior_scores is not None
            cells = maps.prior_scores.flatten(1).argmax(1)
        boxes_xyxy = cxcywh_to_xyxy(at_cells(maps.boxes_cxcywh, cells))
        return box_losses(boxes_xyxy, clamped_xyxy(truth_xywh), present) | prior_loss

    def total(self, means: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        loss = regression_loss(means, self.giou_weight, self.l1_weight)
        return loss if self.prior is None else loss + self.prior_weight * means["prior_loss"]
