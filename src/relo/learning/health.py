"""What shows whether the run of a policy is healthy."""

import torch
from torch import Tensor

from relo.learning.base import masked_mean
from relo.learning.rollout import Rollout
from relo.models.heads import at_cells


def policy_health(rollout: Rollout) -> dict[str, Tensor]:
    """Detached scalars over the frames with a visible target.

    `reward`, and each of its terms as `reward_<class>`; `entropy` in nats; `iou` of the sampled boxes, `greedy_iou` of
    the most probable cell's and `best_iou` of the best cell's; `lost`, the share of frames on which a closed loop lost
    the target.
    """
    rollout = rollout.detach()
    cell_ious = rollout.cell_ious
    frames = {
        "reward": rollout.rewards,
        **{f"reward_{name}": term for name, term in rollout.terms.items()},
        "entropy": rollout.entropy,
        "iou": rollout.ious,
        "greedy_iou": at_cells(cell_ious, rollout.greedy_actions),
        "best_iou": cell_ious.amax((-2, -1)),
    }
    if rollout.restarts is not None:
        frames["lost"] = rollout.restarts.float()
    return {name: masked_mean(values, rollout.present) for name, values in frames.items()}


def explained_variance(rollout: Rollout, targets: Tensor) -> Tensor:
    """The share of the variance of the critic's targets [R, T] that its values explain, over the visible frames.

    1 is perfect, 0 as good as a constant, and given where the targets are constant.
    """
    assert rollout.values is not None
    mask, errors = rollout.present, targets - rollout.values.detach()
    spread, unexplained = (
        masked_mean((values - masked_mean(values, mask)).square(), mask) for values in (targets, errors)
    )
    return torch.where(spread > 1e-6, 1 - unexplained / spread, 0)


def action_histogram(rollout: Rollout) -> Tensor:
    """How often each cell was chosen where the target could be seen, as shares [S, S] that sum to 1."""
    side = rollout.logits.shape[-1]
    counts = torch.bincount(rollout.actions[rollout.present], minlength=side**2).float()
    return (counts / counts.sum().clamp(min=1)).view(side, side)
