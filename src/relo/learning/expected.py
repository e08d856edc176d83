"""Objectives that know the reward of every cell, since every cell's box is known, and need not sample it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relo.learning.base import masked_mean, mean_loss, mean_over_ranks
from relo.learning.policy import CriticObjective, PolicyObjective
from relo.learning.rewards import RewardTerm, reward_terms
from relo.learning.rollout import Rollout
from relo.settings import LARGEST, check_number


class ExpectedGradient(CriticObjective):
    """Maximises the expectation of a frame's reward over all its cells (Ciosek and Whiteson, AAAI 2018).

    The other frames' cells are as sampled: for a mean over frames (IoU, AUC) the gradient is exact, for another reward
    of the sequence unbiased, and of less variance than that of sampling (Rao-Blackwell). In a closed loop the cost of
    losing the target counts at every cell; with a discount, what followed the sampled action is added as actor-critic
    does.
    """

    def __init__(self, normalise_advantages: bool = True, discount: float = 0.0, **shared: Any) -> None:
        """Set the objective.

        Args:
            normalise_advantages: scale advantages to deviation 1 under the policy over the batches of all ranks, and
                subtract the mean of what follows a frame.
            discount: what a frame's reward is worth one frame earlier; other than 0, a critic is needed.
            shared: see `relo.learning.policy.CriticObjective`.
        """
        self.needs_critic = discount != 0
        super().__init__(discount=discount, **shared)
        self.normalise_advantages = normalise_advantages

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Minus the expected reward, less what is expected anyway; and the critic's loss, where there is one."""
        policy = rollout.logits.flatten(2).softmax(-1)  # [R, T, S * S]
        rewards = cell_rewards(rollout, self.rewards)
        if rollout.cell_costs is not None:
            rewards = rewards + rollout.cell_costs.flatten(2)
        expected = (policy.detach() * rewards).sum(-1)
        advantages = rewards - expected[..., None]
        scale = torch.ones(())
        if self.normalise_advantages:
            variances = (policy.detach() * advantages.square()).sum(-1)
            scale = mean_over_ranks(variances, rollout.present).sqrt() + 1e-8
        losses = {"policy_loss": -mean_loss((policy * advantages).sum(-1) / scale, rollout.present)}
        logs = {"expected_reward": masked_mean(expected, rollout.present)}
        if self.discount:
            assert rollout.values is not None
            assert rollout.returns is not None
            # Of the return, the frame's own reward is dealt with above; so is its part of the critic's expectation.
            following = (rollout.returns - rollout.rewards) - (rollout.values.detach() - expected)
            if self.normalise_advantages:  # a critic that has not learned yet would call whatever was done good
                following = following - mean_over_ranks(following, rollout.present)
            ratio = rollout.log_ratio.exp()
            losses["policy_loss"] = losses["policy_loss"] - mean_loss(ratio * following / scale, rollout.present)
            losses["value_loss"], logs["explained_variance"] = self.critic_loss(rollout)
        return losses, logs


class RewardAugmentedLikelihood(PolicyObjective):
    """Cross-entropy with softmax(reward / temperature) over the cells (Norouzi et al., NeurIPS 2016).

    A policy gradient moves a cell by the policy's own probability; here every good cell pulls, however unlikely it is.
    Frame by frame the optimum is that of the expected reward with an entropy bonus of weight `temperature`. Frames on
    which all cells earn the same do not count, nor does, in a closed loop, what follows a frame.
    """

    def __init__(self, temperature: float = 0.1, **shared: Any) -> None:
        """Set the objective.

        Args:
            temperature: reward that makes a cell e times as probable; towards 0, the best cell is all that counts.
            shared: see `PolicyObjective`.

        Raises:
            UserError: a temperature that is not positive, or see `PolicyObjective`.
        """
        check_number("RewardAugmentedLikelihood", 1e-6, LARGEST, temperature=temperature)
        super().__init__(**shared)
        self.temperature = temperature

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The cross-entropy."""
        rewards = cell_rewards(rollout, self.rewards)
        log_policy = rollout.log_policy
        cross_entropy = -((rewards / self.temperature).softmax(-1) * log_policy).sum(-1)
        expected = (log_policy.detach().exp() * rewards).sum(-1)
        teaches = rollout.present & (rewards.amax(-1) > rewards.amin(-1))  # a target outside the crop says nothing
        return (
            {"policy_loss": mean_loss(cross_entropy, teaches)},
            {"expected_reward": masked_mean(expected, rollout.present)},
        )


@torch.no_grad()
def cell_rewards(rollout: Rollout, terms: Sequence[RewardTerm]) -> Tensor:
    """The reward [R, T, S * S] of every cell of a frame, the other frames' cells being those that were chosen."""
    cells_xyxy = rollout.cells_xyxy.detach().flatten(2, 3)  # [R, T, S * S, 4]
    chosen_xyxy = rollout.chosen_xyxy.detach()[:, None].expand(-1, cells_xyxy.shape[2], -1, -1)  # [R, S * S, T, 4]
    chosen_ious = rollout.ious[:, None].expand(-1, cells_xyxy.shape[2], -1)
    cell_ious = rollout.cell_ious.flatten(2)
    truth_xyxy, present = rollout.truth_xyxy[:, None], rollout.present[:, None].expand_as(chosen_ious)
    rewards = []
    for t in range(cells_xyxy.shape[1]):
        boxes_xyxy, ious = chosen_xyxy.clone(), chosen_ious.clone()
        boxes_xyxy[:, :, t], ious[:, :, t] = cells_xyxy[:, t], cell_ious[:, t]
        values = reward_terms(terms, boxes_xyxy, truth_xyxy.expand_as(boxes_xyxy), ious, present)
        rewards.append(torch.stack([value[..., t] for value in values.values()]).sum(0))
    return torch.stack(rewards, dim=1)
