"""The control experiments to RL: a prior is trained where the policy learns from reward, all else being the same."""

from typing import Any

from torch import Tensor

from relo.geometry import clamped_xyxy, xyxy_to_xywh
from relo.learning.base import box_losses, mean_loss, regression_loss
from relo.learning.policy import PolicyObjective
from relo.learning.priors import Prior, ScorePrior, prior_boxes_xyxy
from relo.learning.rollout import Rollout, check_groups
from relo.learning.warmup import FrameObjective
from relo.models.network import LocalizationMaps
from relo.settings import LARGEST, check_number


class PriorObjective(FrameObjective):
    """A prior's loss on the prior's head; encoder and propagator are frozen.

    On the clips, the schedule and the frozen network of an RL run, it gives the baseline that the policy is held
    against.
    """

    heads = ("box", "prior")

    def __init__(
        self, prior: Prior, prior_weight: float = 1.0, box_weight: float = 0.0, frames_per_group: int | None = None
    ) -> None:
        """Set the loss.

        Args:
            prior: what to train the prior's head against.
            prior_weight: weight of the prior's loss.
            box_weight: weight of 2 GIoU + 5 L1 on the boxes of the prior's best cells, for the control to a policy
                whose box head is trained along; with 0 the box head is frozen, too.
            frames_per_group: see `relo.learning.rollout.groups_of`.

        Raises:
            UserError: a number out of its range.
        """
        check_number("PriorObjective", 0, LARGEST, prior_weight=prior_weight, box_weight=box_weight)
        check_groups("PriorObjective", frames_per_group)
        self.prior = prior
        self.prior_weight = prior_weight
        self.box_weight = box_weight
        self.frames_per_group = frames_per_group
        self.trained_parts = ("prior", "box") if box_weight else ("prior",)

    def frame_losses(self, maps: LocalizationMaps, truth_xywh: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Of the prior, and of its best cell's box, whose IoU is logged."""
        prior_loss = self.prior.loss(maps, truth_xywh, present)
        return {"prior_loss": prior_loss} | box_losses(prior_boxes_xyxy(maps), clamped_xyxy(truth_xywh), present)

    def total(self, means: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        loss = self.prior_weight * means["prior_loss"]
        return loss + self.box_weight * regression_loss(means) if self.box_weight else loss


class PriorLikelihood(PolicyObjective):
    """Cross-entropy of the policy with a prior's map, scaled to a distribution over the cells.

    It is `relo.learning.expected.RewardAugmentedLikelihood` with the handcrafted map in the place of the rewards'
    softmax: rollouts, boxes and trained parts are set alike. The map is drawn about what the crop shows of the target
    (that of a small one may be a single cell); targets outside the crop do not count.
    """

    def __init__(self, prior: ScorePrior, **shared: Any) -> None:
        """Set the map.

        Args:
            prior: what says how good a cell is.
            shared: see `relo.learning.policy.PolicyObjective`; rewards are logged, they train nothing.
        """
        super().__init__(**shared)
        self.prior = prior

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The cross-entropy."""
        target = self.prior.target_map(xyxy_to_xywh(rollout.truth_xyxy), rollout.logits.shape[-1]).flatten(2)
        total = target.sum(-1)  # 0 where the map lies beyond the last cell, as a released Gaussian's may
        target = target / total.clamp(min=1e-6)[..., None]
        cross_entropy = -(target * rollout.log_policy).sum(-1)
        return {"policy_loss": mean_loss(cross_entropy, rollout.shown & (total > 0))}, {}
