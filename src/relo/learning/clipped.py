"""Policy objectives that use a rollout for several steps, and clip how far these may lead: PPO and GRPO."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from relo.learning.policy import ActorCritic, PolicyObjective, surrogate_loss
from relo.learning.rollout import Rollout
from relo.settings import check_whole


class PPO(ActorCritic):
    """Proximal policy optimization: clipped ratios, several epochs over a rollout in minibatches of clips.

    Each step evaluates policy and critic again, on all of the rollout, and takes the loss of a part.
    """

    def __init__(self, clip_ratio: float = 0.2, epochs: int = 4, minibatches: int = 2, **shared: Any) -> None:
        """Set the objective.

        Args:
            clip_ratio: how far the ratio of new to old probability may leave 1 with profit.
            epochs: passes over a rollout.
            minibatches: optimizer steps per pass.
            shared: see `ActorCritic`.

        Raises:
            UserError: no step would be taken, or another number out of its range.
        """
        super().__init__(**shared)
        self.set_passes(clip_ratio, epochs, minibatches)


class GRPO(PolicyObjective):
    """Group relative policy optimization (Shao et al., 2024, section 4.1): no critic.

    An action's advantage is its reward's standard score among the `group_size` rollouts of its clip, frame by frame:
    nothing flows back from later frames, in a closed loop either. `prior_weight` takes the place of that paper's
    divergence from a reference policy.
    """

    def __init__(
        self, group_size: int = 8, clip_ratio: float = 0.2, epochs: int = 1, minibatches: int = 1, **shared: Any
    ) -> None:
        """Set the objective.

        Args:
            group_size: actions per state, or rollouts per clip in a closed loop.
            clip_ratio: how far the ratio of new to old probability may leave 1 with profit.
            epochs: passes over a rollout.
            minibatches: optimizer steps per pass.
            shared: see `PolicyObjective`.

        Raises:
            UserError: a group of one action, no step would be taken, or another number out of its range.
        """
        super().__init__(**shared)
        check_whole("GRPO", 2, 4096, group_size=group_size)  # an action is compared with its group
        self.samples = group_size
        self.set_passes(clip_ratio, epochs, minibatches)

    def with_advantages(self, rollout: Rollout) -> Rollout:
        """The rollout with its advantages over its groups."""
        advantages = group_advantages(rollout.rewards, self.samples)
        return replace(super().with_advantages(rollout), advantages=advantages)

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The clipped policy loss."""
        assert rollout.advantages is not None
        policy_loss, logs = surrogate_loss(rollout.log_ratio, rollout.advantages, rollout.present, self.clip_ratio)
        return {"policy_loss": policy_loss}, logs


def group_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """Rewards [R, T] less the mean of their group, over its deviation; R is groups times `group_size`."""
    groups = rewards.unflatten(0, (-1, group_size))
    deviation = groups.std(1, correction=0, keepdim=True)
    return ((groups - groups.mean(1, keepdim=True)) / (deviation + 1e-6)).flatten(0, 1)
