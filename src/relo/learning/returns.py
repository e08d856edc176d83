"""From rewards to what an action was worth: returns, advantages, and their scale."""

import torch
from torch import Tensor

from relo.learning.ranks import mean_over_ranks


def generalized_advantages(
    rewards: Tensor, values: Tensor, restarts: Tensor | None, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and the returns that the critic has to predict (Schulman et al., ICLR 2016).

    Args:
        rewards: [R, T].
        values: [R, T], the critic's.
        restarts: [R, T] bool, frames behind which a walk began anew: nothing flows back over them; None for none.
        discount: what a frame's reward is worth one frame earlier; 0 makes every frame a decision of its own.
        gae_lambda: 1 sums the rewards that were seen, 0 trusts the critic from the next frame on.

    Returns:
        Advantages and returns, [R, T] each, without gradients. The walk ends with the clip.
    """
    rewards, values = rewards.detach(), values.detach()
    flows = torch.ones_like(rewards) if restarts is None else 1 - restarts.to(rewards.dtype)
    advantages = torch.zeros_like(rewards)
    advantage, next_value = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        difference = rewards[:, t] + discount * flows[:, t] * next_value - values[:, t]
        advantage = difference + discount * gae_lambda * flows[:, t] * advantage
        advantages[:, t], next_value = advantage, values[:, t]
    return advantages, advantages + values


def normalise(advantages: Tensor, mask: Tensor, released: bool = False) -> Tensor:
    """Zero mean and unit deviation over the frames that count; the others become 0. Shapes [R, T].

    The frames are those of all ranks. `released`, those of this rank alone, and the deviation is the unbiased one (a
    single frame has none, and becomes 0).
    """
    if released:
        count = mask.sum()
        centered = (advantages - (advantages * mask).sum() / count.clamp(min=1)) * mask
        deviation = (centered.square().sum() / (count - 1).clamp(min=1)).sqrt()
    else:
        centered = advantages - mean_over_ranks(advantages, mask)
        deviation = mean_over_ranks(centered.square(), mask).sqrt()
    return centered / (deviation + 1e-8) * mask
