"""Policy objectives: where a reward becomes a gradient. Nothing shows the policy where the target's centre is."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.geometry import xyxy_to_xywh
from relo.learning.base import (
    Objective,
    StepResult,
    box_losses,
    masked_mean,
    mean_loss,
    mean_over_ranks,
    regression_loss,
    share_of_ranks,
    target_cell,
)
from relo.learning.health import explained_variance, policy_health
from relo.learning.rewards import AUCReward, IoUReward, RewardTerm
from relo.learning.rollout import Rollout, RolloutRule, TeacherForced, reevaluate
from relo.models.heads import at_cells
from relo.models.network import Head, LocalizationNetwork
from relo.settings import LARGEST, check_number, check_whole

BoxCell = Literal["sampled", "greedy", "target"]


class PolicyObjective(Objective):
    """What every policy objective shares: rollouts, rewards, and what may be added to the policy's own loss."""

    needs_critic = False  # whether the critic's values are read
    samples = 1  # rollouts per clip
    clip_ratio: float | None = None  # see `surrogate_loss`
    epochs = 1  # passes over a rollout
    minibatches = 1  # optimizer steps per pass

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
            rollout: where the crops come from; `relo.learning.rollout.TeacherForced`, as in the paper, if not given.
            entropy_weight: weight of a bonus on the policy's entropy in nats, against settling too early.
            prior_weight: weight of the policy's KL divergence in nats from the network's prior map.
            box_weight: weight of 2 GIoU + 5 L1 on one box per frame, for a trainable box head.
            box_cell: the cell whose box is trained: the sampled, the most probable or the target's. Boxes trained at
                sampled cells, which may lie anywhere, are less exact at the target.
            trained_parts: the network's trainable parts; the policy, and the critic if one is needed, if not given.

        Raises:
            UserError: a weight below 0, or a part is to be trained that no loss reaches.
        """
        weights = {"entropy_weight": entropy_weight, "prior_weight": prior_weight, "box_weight": box_weight}
        check_number(type(self).__name__, 0, LARGEST, **weights)
        self.rewards = rewards or [IoUReward(), AUCReward()]
        self.rollout = rollout or TeacherForced()
        self.entropy_weight = entropy_weight
        self.prior_weight = prior_weight
        self.box_weight = box_weight
        self.box_cell = box_cell
        self.trained_parts = tuple(trained_parts or (("policy", "critic") if self.needs_critic else ("policy",)))
        reasons = {
            "critic": None if self.needs_critic else "reads no critic as it is set",
            "box": None if box_weight else "trains boxes with a box_weight above 0 alone",
            "prior": "trains no prior",
            "presence": "trains no presence head",
        }
        for part in self.trained_parts:
            if reasons.get(part) is not None:
                raise UserError(f"{part!r} is among trained_parts, but {type(self).__name__} {reasons[part]}.")

    def set_passes(self, clip_ratio: float, epochs: int, minibatches: int) -> None:
        """Take several clipped steps on every rollout.

        Raises:
            UserError: no step would be taken, or another number out of its range.
        """
        check_number(type(self).__name__, 1e-6, 1, clip_ratio=clip_ratio)
        check_whole(type(self).__name__, 1, 1000, epochs=epochs, minibatches=minibatches)
        self.clip_ratio = clip_ratio
        self.epochs = epochs
        self.minibatches = minibatches
        self.updates = epochs * minibatches

    def check(self, network: LocalizationNetwork) -> None:
        """Refuse a network that lacks a head which is read.

        Raises:
            UserError: the network lacks such a head.
        """
        for head, class_path in self._further_heads().items():
            if getattr(network, head) is None:
                raise UserError(
                    f"{type(self).__name__} needs a {head} as it is set: give the network one ({class_path})."
                )

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Roll out, and return the policy's loss with what is added to it."""
        return self.result(self.with_advantages(self.collect(network, clip, generator)))

    def losses(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> Iterator[StepResult]:
        """One loss for every minibatch of every pass; the rollout and what it was worth are fixed at the start.

        Raises:
            UserError: there are fewer rollouts than minibatches.
        """
        if self.updates == 1:
            yield self(network, clip, generator)
            return
        with torch.no_grad():
            rollout = self.with_advantages(self.collect(network, clip, generator))
        count = len(rollout.actions)
        if count < self.minibatches:
            raise UserError(
                f"{count} rollouts per batch cannot be split into {self.minibatches} minibatches: set fewer."
            )
        for _ in range(self.epochs):
            order = torch.randperm(count, generator=generator, device=generator.device)
            for rows in order.tensor_split(self.minibatches):
                current = reevaluate(network, clip, rollout)
                yield replace(self.result(current.select(rows)), rollout=current.detach())

    def collect(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> Rollout:
        """Roll out the clips."""
        heads: tuple[Head, ...] = ("policy", "box", *self._further_heads())
        return self.rollout(network, clip, self.rewards, generator, self.samples, heads)

    def _further_heads(self) -> dict[Head, str]:
        """The heads beside policy and box that are read, each with the class_path of one."""
        heads: dict[Head, str] = {}
        if self.needs_critic:
            heads["critic"] = "relo.models.heads.ConvCritic"
        if self.prior_weight > 0:
            heads["prior"] = "relo.models.heads.ConvPrior"
        return heads

    def with_advantages(self, rollout: Rollout) -> Rollout:
        """The rollout with what its actions were worth: old log-probabilities, and advantages where they are read."""
        return replace(rollout, old_log_probs=rollout.log_probs.detach())

    @abstractmethod
    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The objective's own losses by name, weighted and to be summed; and further scalars to log."""

    def result(self, rollout: Rollout) -> StepResult:
        """The sum of the policy's losses with what is added to them, and the run's health."""
        losses, logs = self.policy_losses(rollout)
        losses = losses | self._added_losses(rollout)
        loss = torch.stack(list(losses.values())).sum()
        parts = {name: value.detach() for name, value in losses.items()}
        return StepResult(loss, {"loss": loss.detach(), **parts, **policy_health(rollout), **logs}, rollout.detach())

    def _added_losses(self, rollout: Rollout) -> dict[str, Tensor]:
        added: dict[str, Tensor] = {}
        if self.entropy_weight:
            added["entropy_loss"] = -self.entropy_weight * mean_loss(rollout.entropy, rollout.present)
        if self.prior_weight:
            added["prior_loss"] = self.prior_weight * mean_loss(prior_divergence(rollout), rollout.present)
        if self.box_weight:
            boxes = box_losses(trained_boxes_xyxy(rollout, self.box_cell), rollout.truth_xyxy, rollout.shown)
            added["box_loss"] = self.box_weight * share_of_ranks(rollout.shown) * regression_loss(boxes)
        return added


class CriticObjective(PolicyObjective):
    """What policy objectives with a critic share: its targets, and its loss."""

    needs_critic = True

    def __init__(
        self, value_weight: float = 0.5, discount: float = 0.0, gae_lambda: float = 1.0, **shared: Any
    ) -> None:
        """Set the critic.

        Args:
            value_weight: weight of the critic's squared error.
            discount: what a frame's reward is worth one frame earlier.
            gae_lambda: 1 sums the rewards that were seen, 0 trusts the critic from the next frame on.
            shared: see `PolicyObjective`.

        Raises:
            UserError: a number out of its range, or see `PolicyObjective`.
        """
        check_number(type(self).__name__, 0, LARGEST, value_weight=value_weight)
        check_number(type(self).__name__, 0, 1, discount=discount, gae_lambda=gae_lambda)
        super().__init__(**shared)
        self.value_weight = value_weight
        self.discount = discount
        self.gae_lambda = gae_lambda

    def with_advantages(self, rollout: Rollout) -> Rollout:
        """The rollout with advantages and the critic's targets, where the critic is read."""
        rollout = super().with_advantages(rollout)
        if not self.needs_critic:
            return rollout
        assert rollout.values is not None
        advantages, returns = generalized_advantages(
            rollout.rewards, rollout.values, rollout.restarts, self.discount, self.gae_lambda
        )
        return replace(rollout, advantages=advantages, returns=returns)

    def critic_loss(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """The weighted squared error over all frames (absent ones have reward 0), and the variance it explains."""
        assert rollout.values is not None
        assert rollout.returns is not None
        loss = self.value_weight * (rollout.values - rollout.returns).square().mean()
        return loss, explained_variance(rollout, rollout.returns)


class ActorCritic(CriticObjective):
    """REINFORCE with a critic as baseline and normalised advantages (paper, section 3).

    As in the paper, a frame's reward has no influence on earlier ones; in a closed loop, set a discount.
    """

    def __init__(self, normalise_advantages: bool = True, released: bool = False, **shared: Any) -> None:
        """Set the objective.

        Args:
            normalise_advantages: scale advantages to mean 0 and deviation 1 over the batches of all ranks.
            released: normalise as the public release does, each rank its own batch, by the unbiased deviation.
            shared: see `CriticObjective`.
        """
        super().__init__(**shared)
        self.normalise_advantages = normalise_advantages
        self.released = released

    def with_advantages(self, rollout: Rollout) -> Rollout:
        """The rollout with advantages, normalised if so set, and the critic's targets."""
        rollout = super().with_advantages(rollout)
        if not self.normalise_advantages:
            return rollout
        assert rollout.advantages is not None
        return replace(rollout, advantages=normalise(rollout.advantages, rollout.present, self.released))

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The policy's loss and the critic's."""
        assert rollout.advantages is not None
        policy_loss, logs = surrogate_loss(rollout.log_ratio, rollout.advantages, rollout.present, self.clip_ratio)
        value_loss, logs["explained_variance"] = self.critic_loss(rollout)
        return {"policy_loss": policy_loss, "value_loss": value_loss}, logs


def surrogate_loss(
    log_ratio: Tensor, advantages: Tensor, present: Tensor, clip_ratio: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus advantage times ratio, whose gradient is that of the log-probability where the ratio is 1.

    Args:
        log_ratio: [R, T], see `Rollout.log_ratio`.
        advantages: [R, T].
        present: [R, T] bool, the frames that count.
        clip_ratio: how far the ratio may leave 1 with profit (PPO, Schulman et al., 2017, equation 7); None is any way.

    Returns:
        The loss; and of a clipped one `clip_share`, the share of ratios outside the range, and `kl`, the divergence of
        the new policy from the old one in nats, estimated by (ratio - 1) - log ratio.
    """
    ratio = log_ratio.exp()
    gains = ratio * advantages
    if clip_ratio is None:
        return -mean_loss(gains, present), {}
    gains = torch.minimum(gains, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * advantages)
    with torch.no_grad():
        logs = {
            "clip_share": masked_mean(((ratio - 1).abs() > clip_ratio).float(), present),
            "kl": masked_mean(ratio - 1 - log_ratio, present),
        }
    return -mean_loss(gains, present), logs


def generalized_advantages(
    rewards: Tensor, values: Tensor, restarts: Tensor | None, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and the returns that the critic has to predict (Schulman et al., ICLR 2016).

    Args:
        rewards: [R, T].
        values: [R, T], the critic's.
        restarts: [R, T] bool, frames behind which a rollout began again: nothing flows back over them; None for none.
        discount: what a frame's reward is worth one frame earlier; 0 makes every frame a decision of its own.
        gae_lambda: 1 sums the rewards that were seen, 0 trusts the critic from the next frame on.

    Returns:
        Advantages and returns, [R, T] each, without gradients. A rollout ends with the clip.
    """
    rewards, values = rewards.detach(), values.detach()
    continues = torch.ones_like(rewards) if restarts is None else 1 - restarts.to(rewards.dtype)
    advantages = torch.zeros_like(rewards)
    advantage, next_value = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        td_error = rewards[:, t] + discount * continues[:, t] * next_value - values[:, t]
        advantage = td_error + discount * gae_lambda * continues[:, t] * advantage
        advantages[:, t], next_value = advantage, values[:, t]
    return advantages, advantages + values


def normalise(advantages: Tensor, mask: Tensor, released: bool = False) -> Tensor:
    """Zero mean and unit deviation over the frames that count; the others become 0. Shapes [R, T].

    The frames are those of all ranks. `released`, those of this rank alone, and the deviation is the unbiased one (a
    single frame has none, and becomes 0).
    """
    if released:
        centered = (advantages - masked_mean(advantages, mask)) * mask
        deviation = (centered.square().sum() / (mask.sum() - 1).clamp(min=1)).sqrt()
    else:
        centered = advantages - mean_over_ranks(advantages, mask)
        deviation = mean_over_ranks(centered.square(), mask).sqrt()
    return centered / (deviation + 1e-8) * mask


def prior_divergence(rollout: Rollout) -> Tensor:
    """KL divergence [R, T] in nats of the policy from the prior's scores, which are made to sum to 1."""
    assert rollout.prior_scores is not None
    log_policy, scores = rollout.log_policy, rollout.prior_scores.detach().flatten(2)
    log_prior = scores.log() - scores.sum(-1, keepdim=True).log()
    return (log_policy.exp() * (log_policy - log_prior)).sum(-1)


def trained_boxes_xyxy(rollout: Rollout, box_cell: BoxCell) -> Tensor:
    """The box [R, T, 4] that is trained on each frame; the target's cell is that of what the crop shows of it."""
    if box_cell == "sampled":
        return rollout.chosen_xyxy
    if box_cell == "greedy":
        return at_cells(rollout.cells_xyxy, rollout.greedy_actions)
    return at_cells(rollout.cells_xyxy, target_cell(xyxy_to_xywh(rollout.truth_xyxy), rollout.logits.shape[-1]))
