"""The control experiment to RL: the prior's head learns, on the frozen network that the policy learns on."""

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.geometry import xywh_to_xyxy
from relo.learning.base import Objective, StepResult, box_losses
from relo.learning.priors import Prior, prior_boxes_xyxy
from relo.learning.warmup import frame_means
from relo.models.network import LocalizationMaps, LocalizationNetwork


class PriorObjective(Objective):
    """A prior's loss on the prior's head; encoder and propagator are frozen.

    On the clips, the schedule and the frozen network of an RL run, it gives the baseline that the policy is held
    against.
    """

    def __init__(self, prior: Prior, prior_weight: float = 1.0, box_weight: float = 0.0) -> None:
        """Set the loss.

        Args:
            prior: what to train the prior's head against.
            prior_weight: weight of the prior's loss.
            box_weight: weight of 2 GIoU + 5 L1 on the boxes of the prior's best cells, for the control to a policy
                whose box head learns along; with 0 the box head is frozen, too.
        """
        self.prior = prior
        self.prior_weight = prior_weight
        self.box_weight = box_weight
        self.trained_parts = ("prior", "box") if box_weight else ("prior",)

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Walk the network over the clip's frames; logs the prior's loss, and the IoU of its best cell's box.

        Raises:
            UserError: the network has no prior head, or one that cannot learn the prior.
        """
        means = frame_means(network, clip, ("critic",), self._frame_losses)
        loss = self.prior_weight * means["prior_loss"]
        if self.box_weight:
            loss = loss + self.box_weight * (2 * means["giou_loss"] + 5 * means["l1_loss"])
        return StepResult(loss, {"loss": loss.detach(), **{name: value.detach() for name, value in means.items()}})

    def _frame_losses(self, maps: LocalizationMaps, truth_xywh: Tensor, present: Tensor) -> dict[str, Tensor]:
        truth_xyxy = xywh_to_xyxy(truth_xywh).clamp(0, 1)
        return {
            "prior_loss": self.prior.loss(maps, truth_xywh, present),
            **box_losses(prior_boxes_xyxy(maps), truth_xyxy, present),
        }
