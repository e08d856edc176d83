"""What tells a healthy run of a policy from a sick one."""

import torch
from torch import Tensor

from relo.learning.base import masked_mean, masked_variance
from relo.learning.rollout import Rollout, chosen


def policy_health(rollout: Rollout) -> dict[str, Tensor]:
    """Detached scalars over the frames with a visible target.

    `reward`, and each of its terms as `reward_<class>`; `entropy` in nats; `iou` of the sampled boxes, `greedy_iou` of
    the most probable cell's and `best_iou` of the best cell's; `lost`, the share of frames on which a closed loop lost
    the target; `explained_variance` of the rewards by the critic's values.
    """
    mask = rollout.present
    logits, cell_ious = rollout.logits.detach(), rollout.cell_ious.flatten(2)
    health = {
        "reward": masked_mean(rollout.rewards, mask),
        **{f"reward_{name}": masked_mean(term, mask) for name, term in rollout.terms.items()},
        "entropy": masked_mean(policy_entropy(logits), mask),
        "iou": masked_mean(rollout.ious, mask),
        "greedy_iou": masked_mean(chosen(cell_ious, logits.flatten(2).argmax(-1)), mask),
        "best_iou": masked_mean(cell_ious.amax(-1), mask),
    }
    if rollout.restarts is not None:
        health["lost"] = masked_mean(rollout.restarts.float(), mask)
    if rollout.values is not None:
        health["explained_variance"] = explained_variance(rollout, rollout.rewards)
    return health


def explained_variance(rollout: Rollout, targets: Tensor) -> Tensor:
    """The share of the variance of the critic's targets [R, T] that its values explain, over the visible frames.

    1 is perfect, 0 as good as a constant, and given where the targets are constant.
    """
    assert rollout.values is not None
    spread = masked_variance(targets, rollout.present)
    unexplained = masked_variance(targets - rollout.values.detach(), rollout.present)
    return torch.where(spread > 1e-6, 1 - unexplained / spread, 0)


def policy_entropy(logits: Tensor) -> Tensor:
    """Entropy [R, T] in nats of the policies with logits [R, T, S, S]."""
    log_policy = logits.flatten(2).log_softmax(-1)
    return -(log_policy.exp() * log_policy).sum(-1)


def prior_divergence(logits: Tensor, prior_scores: Tensor) -> Tensor:
    """KL divergence [R, T] in nats of the policies with logits [R, T, S, S] from the prior's scores.

    The scores [R, T, S, S] are made to sum to 1.
    """
    log_policy = logits.flatten(2).log_softmax(-1)
    scores = prior_scores.flatten(2)
    log_prior = scores.log() - scores.sum(-1, keepdim=True).log()
    return (log_policy.exp() * (log_policy - log_prior)).sum(-1)


def action_histogram(rollout: Rollout) -> Tensor:
    """How often each cell was chosen where the target could be seen, as shares [S, S] that sum to 1."""
    side = rollout.logits.shape[-1]
    counts = torch.bincount(rollout.actions[rollout.present], minlength=side**2).float()
    return (counts / counts.sum().clamp(min=1)).view(side, side)
