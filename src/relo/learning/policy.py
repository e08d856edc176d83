"""Policy objectives: a rollout to a loss. The policy learns from reward alone; nothing tells it where the centre is."""

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.geometry import xyxy_to_xywh
from relo.learning.base import Objective, StepResult, box_losses, mean_loss, target_cell
from relo.learning.health import explained_variance, policy_entropy, policy_health, prior_divergence
from relo.learning.ranks import share_of_ranks
from relo.learning.returns import generalized_advantages, normalise
from relo.learning.rewards import AUCReward, IoUReward, RewardTerm
from relo.learning.rollout import Rollout, RolloutRule, TeacherForced, chosen
from relo.models.network import Head, LocalizationNetwork

BoxCell = Literal["sampled", "greedy", "target"]


class PolicyObjective(Objective):
    """What every policy objective shares: the walk, the rewards, and what may be added to the policy's own loss."""

    samples = 1
    """Walks a clip."""

    needs_critic = False
    """Whether the critic's values are read."""

    def __init__(
        self,
        rewards: list[RewardTerm] | None = None,
        rollout: RolloutRule | None = None,
        entropy_weight: float = 0.0,
        prior_weight: float = 0.0,
        box_weight: float = 0.0,
        box_cell: BoxCell = "sampled",
        trained_parts: list[str] | None = None,
    ) -> None:
        """Set what is shared.

        Args:
            rewards: terms of a frame's reward; the paper's IoU + AUC if not given.
            rollout: where the crops of a walk come from; `relo.learning.rollout.TeacherForced`, as in the paper, if not
                given.
            entropy_weight: weight of a bonus on the policy's entropy, in nats; none in the paper. It keeps a policy
                that learns fast from settling too early.
            prior_weight: weight of the policy's KL divergence from the network's prior map, in nats; none in the paper.
            box_weight: weight of 2 GIoU + 5 L1 on one box a frame, for a box head that learns along (name "box" in
                `trained_parts`); none in the paper.
            box_cell: the cell whose box is trained: the sampled one, the most probable one, or, as in the warm-up, the
                target's. Sampled cells may lie anywhere, and boxes that learn there are less exact at the target.
            trained_parts: parts of the network that learn; the policy if not given, and the critic if the objective
                needs one.

        Raises:
            UserError: a part is to learn that no loss reaches.
        """
        self.rewards = rewards or [IoUReward(), AUCReward()]
        self.rollout = rollout or TeacherForced()
        self.entropy_weight = entropy_weight
        self.prior_weight = prior_weight
        self.box_weight = box_weight
        self.box_cell = box_cell
        self.trained_parts = tuple(trained_parts or ("policy", "critic")[: 1 + self.needs_critic])
        self._check_that_all_learn(self.trained_parts)

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Roll out, and return the policy's loss with what is added to it."""
        rollout = self.collect(network, clip, generator)
        losses, logs = self.policy_losses(rollout)
        return self.result(rollout, losses, logs)

    @abstractmethod
    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The objective's own losses by name, weighted and to be summed; and further scalars to log."""

    def collect(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> Rollout:
        """Walk over the clips.

        Raises:
            UserError: the network lacks a head that the objective needs.
        """
        heads: list[Head] = ["policy", "box"]
        if self.needs_critic:
            heads.append("critic")
        if self.prior_weight > 0:
            heads.append("prior")
        for head in (head for head in heads if getattr(network, head, None) is None and head not in heads[:2]):
            raise UserError(
                f"{type(self).__name__} needs a {head} as it is set: give the network one "
                f"(relo.models.heads.Conv{head.capitalize()})."
            )
        return self.rollout(network, clip, self.rewards, generator, self.samples, heads)

    def result(self, rollout: Rollout, losses: dict[str, Tensor], logs: dict[str, Tensor]) -> StepResult:
        """The sum of the losses with what is added to them, and the run's health."""
        losses = losses | self._additions(rollout)
        loss = torch.stack(list(losses.values())).sum()
        told = {name: value.detach() for name, value in losses.items()} | policy_health(rollout) | logs
        return StepResult(loss, {"loss": loss.detach(), **told}, rollout.detach())

    def _check_that_all_learn(self, parts: tuple[str, ...]) -> None:
        reasons = {
            "critic": None if self.needs_critic else "reads no critic as it is set",
            "box": None if self.box_weight else "trains boxes with a box_weight above 0 alone",
            "prior": "trains no prior",
        }
        for part in parts:
            if reasons.get(part) is not None:
                raise UserError(f"{part!r} is among trained_parts, but {type(self).__name__} {reasons[part]}.")

    def _additions(self, rollout: Rollout) -> dict[str, Tensor]:
        added: dict[str, Tensor] = {}
        if self.entropy_weight:
            added["entropy_loss"] = -self.entropy_weight * mean_loss(policy_entropy(rollout.logits), rollout.present)
        if self.prior_weight:
            assert rollout.prior_scores is not None
            divergence = prior_divergence(rollout.logits, rollout.prior_scores.detach())
            added["prior_loss"] = self.prior_weight * mean_loss(divergence, rollout.present)
        if self.box_weight:
            boxes = box_losses(trained_boxes_xyxy(rollout, self.box_cell), rollout.truth_xyxy, rollout.shown)
            share = share_of_ranks(rollout.shown)
            added["box_loss"] = self.box_weight * share * (2 * boxes["giou_loss"] + 5 * boxes["l1_loss"])
        return added


def trained_boxes_xyxy(rollout: Rollout, box_cell: BoxCell) -> Tensor:
    """The box [R, T, 4] that is trained on each frame; the target's cell is that of what the crop shows of it."""
    if box_cell == "sampled":
        return rollout.chosen_xyxy
    if box_cell == "greedy":
        cells = rollout.logits.flatten(2).argmax(-1)
    else:
        side = rollout.logits.shape[-1]
        row, column = target_cell(xyxy_to_xywh(rollout.truth_xyxy), side)
        cells = row * side + column
    return chosen(rollout.cells_xyxy.flatten(2, 3), cells)


class ActorCritic(PolicyObjective):
    """REINFORCE with a critic as baseline and normalised advantages (paper, section 3).

    By default a frame's reward has no influence on earlier ones, as in the paper: there is no discount and no
    bootstrapping. In a closed loop, where an action has consequences, set the discount.
    """

    needs_critic = True

    def __init__(
        self,
        value_weight: float = 0.5,
        discount: float = 0.0,
        gae_lambda: float = 1.0,
        normalise_advantages: bool = True,
        released: bool = False,
        **shared: Any,
    ) -> None:
        """Set the objective.

        Args:
            value_weight: weight of the critic's squared error.
            discount: what a frame's reward is worth one frame earlier.
            gae_lambda: 1 sums the rewards that were seen, 0 trusts the critic from the next frame on.
            normalise_advantages: scale advantages to mean 0 and deviation 1 over the batches of all ranks.
            released: normalise as the public release does, each rank its own batch, by the unbiased deviation.
            shared: see `PolicyObjective`.
        """
        super().__init__(**shared)
        self.value_weight = value_weight
        self.discount = discount
        self.gae_lambda = gae_lambda
        self.normalise_advantages = normalise_advantages
        self.released = released

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Policy loss and value_weight * value loss."""
        advantages, returns = self.advantages(rollout)
        # The ratio is 1; its gradient is that of the log-probability.
        ratio = torch.exp(rollout.log_probs - rollout.log_probs.detach())
        losses = {
            "policy_loss": -mean_loss(ratio * advantages, rollout.present),
            "value_loss": self.value_loss(rollout, returns),
        }
        return losses, {"explained_variance": explained_variance(rollout, returns)}

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Advantages, normalised if so set, and the critic's targets: [R, T] each."""
        assert rollout.values is not None
        advantages, returns = generalized_advantages(
            rollout.rewards, rollout.values, rollout.restarts, self.discount, self.gae_lambda
        )
        if self.normalise_advantages:
            advantages = normalise(advantages, rollout.present, self.released)
        return advantages, returns

    def value_loss(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """The critic's weighted squared error over all frames: absent ones have reward 0, and value 0 to learn (with a
        discount, what comes after them)."""
        assert rollout.values is not None
        return self.value_weight * (rollout.values - returns).square().mean()
