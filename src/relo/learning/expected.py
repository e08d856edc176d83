"""The expected policy gradient: every cell's box is known, so the reward need not be sampled."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relo.learning.base import masked_mean
from relo.learning.policy import PolicyObjective
from relo.learning.rewards import RewardTerm, reward_terms
from relo.learning.rollout import Rollout


class ExpectedGradient(PolicyObjective):
    """Maximises the expectation of a frame's reward over all its cells (Ciosek and Whiteson, AAAI 2018).

    The reward of every cell of a frame is computed with the other frames' cells as sampled. For a reward of the frame
    alone, such as IoU, expectation and gradient are exact. For a reward of the sequence the gradient is that of
    sampling, with the frame's own action summed out (Rao-Blackwell), so unbiased and of less variance; the AUC is a
    mean over frames, so for it, too, the gradient is exact.

    In a closed loop this is a frame's own reward: what an action does to later frames is not in it. It needs no critic.
    """

    def __init__(
        self, normalise_advantages: bool = True, trained_parts: list[str] | None = None, **shared: Any
    ) -> None:
        """Set the objective.

        Args:
            normalise_advantages: scale so that advantages have deviation 1 under the policy, over the batch.
            trained_parts: parts of the network that learn; the policy if not given.
            shared: see `PolicyObjective`.
        """
        super().__init__(trained_parts=trained_parts or ["policy"], **shared)
        self.normalise_advantages = normalise_advantages

    def policy_losses(self, rollout: Rollout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Minus the expected reward, less what is expected anyway."""
        policy = rollout.logits.flatten(2).softmax(-1)  # [R, T, S * S]
        rewards = cell_rewards(rollout, self.rewards)
        expected = (policy.detach() * rewards).sum(-1, keepdim=True)
        advantages = rewards - expected
        if self.normalise_advantages:
            variance = masked_mean((policy.detach() * advantages.square()).sum(-1), rollout.present)
            advantages = advantages / (variance.sqrt() + 1e-8)
        loss = -masked_mean((policy * advantages).sum(-1), rollout.present)
        return {"policy_loss": loss}, {"expected_reward": masked_mean(expected.squeeze(-1), rollout.present)}


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
