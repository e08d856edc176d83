"""The control experiment to RL: the prior's head alone learns, on the frozen network that the policy learns on."""

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.geometry import iou, xywh_to_xyxy
from relo.learning.base import Objective, StepResult, masked_mean
from relo.learning.priors import Prior, prior_boxes_xyxy
from relo.learning.warmup import frame_means
from relo.models.network import LocalizationMaps, LocalizationNetwork


class PriorObjective(Objective):
    """A prior's loss on the prior's head; every other part of the network is frozen.

    On the clips, the schedule and the frozen network of an RL run, it gives the baseline that the policy is held
    against.
    """

    trained_parts = ("prior",)

    def __init__(self, prior: Prior, prior_weight: float = 1.0) -> None:
        """Set the loss.

        Args:
            prior: what to train the prior's head against.
            prior_weight: weight of the prior's loss.
        """
        self.prior = prior
        self.prior_weight = prior_weight

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Walk the network over the clip's frames; logs the prior's loss, and the IoU of its best cell's box.

        Raises:
            UserError: the network has no prior head, or one that cannot learn the prior.
        """
        means = frame_means(network, clip, ("critic",), self._frame_losses)
        loss = self.prior_weight * means["prior_loss"]
        return StepResult(loss, {"loss": loss.detach(), **{name: value.detach() for name, value in means.items()}})

    def _frame_losses(self, maps: LocalizationMaps, truth_xywh: Tensor, present: Tensor) -> dict[str, Tensor]:
        prior_loss = self.prior.loss(maps, truth_xywh, present)
        boxes_xyxy, truth_xyxy = prior_boxes_xyxy(maps).detach(), xywh_to_xyxy(truth_xywh).clamp(0, 1)
        return {"prior_loss": prior_loss, "iou": masked_mean(iou(boxes_xyxy, truth_xyxy), present)}
