"""Policy objectives that use a rollout for several steps, and clip how far these may lead: PPO and GRPO."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.learning.base import StepResult, masked_mean, mean_loss
from relo.learning.health import explained_variance
from relo.learning.policy import ActorCritic, PolicyObjective
from relo.learning.rollout import Rollout, reevaluate
from relo.models.network import LocalizationNetwork


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, present: Tensor, clip_ratio: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped loss (Schulman et al., 2017, equation 7), and how far the policy has moved.

    Args:
        log_probs: [R, T], of the actions under the policy that learns.
        old_log_probs: [R, T], under the policy that chose them.
        advantages: [R, T].
        present: [R, T] bool, the frames that count.
        clip_ratio: how far the ratio of the two probabilities may leave 1 with profit.

    Returns:
        The loss; and `clip_share`, the share of ratios outside the range, and `kl`, the divergence of the new policy
        from the old one in nats, estimated by (ratio - 1) - log ratio.
    """
    log_ratio = log_probs - old_log_probs.detach()
    ratio = log_ratio.exp()
    limited = ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
    loss = -mean_loss(torch.minimum(ratio * advantages, limited * advantages), present)
    with torch.no_grad():
        moved = {
            "clip_share": masked_mean(((ratio - 1).abs() > clip_ratio).float(), present),
            "kl": masked_mean(ratio - 1 - log_ratio, present),
        }
    return loss, moved


class _Passes:
    """Several optimizer steps on one rollout: `epochs` passes over it, in `minibatches` parts each."""

    def __init__(self, epochs: int, minibatches: int) -> None:
        if epochs < 1 or minibatches < 1:
            raise UserError(f"epochs and minibatches must be at least 1, not {epochs} and {minibatches}.")
        self.epochs = epochs
        self.minibatches = minibatches

    def parts(self, rows: int, generator: torch.Generator) -> Iterator[Tensor]:
        """The walks of each step."""
        if rows < self.minibatches:
            raise UserError(f"{rows} walks a batch cannot be split into {self.minibatches} minibatches: set fewer.")
        for _ in range(self.epochs):
            order = torch.randperm(rows, generator=generator, device=generator.device)
            yield from order.tensor_split(self.minibatches)


class PPO(ActorCritic):
    """Proximal policy optimization: clipped ratios, several epochs over a rollout in minibatches of clips.

    The rollout and what it was worth are fixed at the start; each step evaluates policy and critic anew, on all of it,
    and learns from a part.
    """

    def __init__(self, clip_ratio: float = 0.2, epochs: int = 4, minibatches: int = 2, **shared: Any) -> None:
        """Set the objective.

        Args:
            clip_ratio: how far the ratio of new to old probability may leave 1 with profit.
            epochs: passes over a rollout.
            minibatches: optimizer steps a pass.
            shared: see `ActorCritic`.
        """
        super().__init__(**shared)
        self.clip_ratio = clip_ratio
        self.passes = _Passes(epochs, minibatches)
        self.updates = epochs * minibatches

    def losses(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> Iterator[StepResult]:
        """One loss for every minibatch of every pass."""
        with torch.no_grad():
            rollout = self.collect(network, clip, generator)
        advantages, returns = self.advantages(rollout)
        for rows in self.passes.parts(len(rollout.actions), generator):
            seen = reevaluate(network, clip, rollout)
            part = seen.select(rows)
            losses, logs = self._part_losses(part, rollout.log_probs[rows], advantages[rows], returns[rows])
            yield replace(self.result(part, losses, logs), rollout=seen.detach())

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses of a first step, when policy and critic are those that the rollout was made with."""
        return self._part_losses(rollout, rollout.log_probs.detach(), *self.advantages(rollout))

    def _part_losses(
        self, part: Rollout, old_log_probs: Tensor, advantages: Tensor, returns: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        policy_loss, moved = clipped_surrogate(part.log_probs, old_log_probs, advantages, part.present, self.clip_ratio)
        losses = {"policy_loss": policy_loss, "value_loss": self.value_loss(part, returns)}
        return losses, moved | {"explained_variance": explained_variance(part, returns)}


class GRPO(PolicyObjective):
    """Group relative policy optimization (Shao et al., 2024, section 4.1): no critic.

    Every clip is walked `group_size` times; an action's advantage is its reward less the mean of its group, over the
    group's deviation, frame by frame. In place of that paper's divergence from a reference policy there is
    `prior_weight`, the divergence from the network's prior map. In a closed loop the walks of a group part, and the
    rewards of a frame are compared all the same: nothing flows back from later frames.
    """

    def __init__(
        self,
        group_size: int = 8,
        clip_ratio: float = 0.2,
        epochs: int = 1,
        minibatches: int = 1,
        **shared: Any,
    ) -> None:
        """Set the objective.

        Args:
            group_size: actions a state, or walks a clip in a closed loop.
            clip_ratio: how far the ratio of new to old probability may leave 1 with profit.
            epochs: passes over a rollout.
            minibatches: optimizer steps a pass.
            shared: see `PolicyObjective`.

        Raises:
            UserError: a group of one action.
        """
        super().__init__(**shared)
        if group_size < 2:
            raise UserError(f"group_size must be at least 2, not {group_size}: an action is compared with its group.")
        self.samples = group_size
        self.clip_ratio = clip_ratio
        self.passes = _Passes(epochs, minibatches)
        self.updates = epochs * minibatches

    def losses(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> Iterator[StepResult]:
        """One loss for every minibatch of every pass."""
        if self.updates == 1:
            yield self(network, clip, generator)
            return
        with torch.no_grad():
            rollout = self.collect(network, clip, generator)
        advantages = group_advantages(rollout.rewards, self.samples)
        for rows in self.passes.parts(len(rollout.actions), generator):
            seen = reevaluate(network, clip, rollout)
            part = seen.select(rows)
            result = self.result(part, *self._part_losses(part, rollout.log_probs[rows], advantages[rows]))
            yield replace(result, rollout=seen.detach())

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses of a first step, when the policy is the one that the rollout was made with."""
        advantages = group_advantages(rollout.rewards, self.samples)
        return self._part_losses(rollout, rollout.log_probs.detach(), advantages)

    def _part_losses(
        self, part: Rollout, old_log_probs: Tensor, advantages: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        loss, moved = clipped_surrogate(part.log_probs, old_log_probs, advantages, part.present, self.clip_ratio)
        return {"policy_loss": loss}, moved


def group_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """Rewards [R, T] less the mean of their group, over its deviation; R is groups times `group_size`."""
    groups = rewards.unflatten(0, (-1, group_size))
    deviation = groups.std(1, correction=0, keepdim=True)
    return ((groups - groups.mean(1, keepdim=True)) / (deviation + 1e-6)).flatten(0, 1)
