"""Policy objectives: a rollout to a loss. The policy learns from reward alone; nothing tells it where the centre is."""

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.learning.base import Objective, StepResult, masked_mean, masked_variance
from relo.learning.rewards import AUCReward, IoUReward, RewardTerm
from relo.learning.rollout import Rollout, collect_rollout
from relo.models.network import LocalizationNetwork


class ActorCritic(Objective):
    """REINFORCE with a critic as baseline and normalised advantages (paper, section 3).

    The reward of a frame has no influence on later ones: there is no discount and no bootstrapping.
    """

    def __init__(
        self,
        rewards: list[RewardTerm] | None = None,
        value_weight: float = 0.5,
        entropy_weight: float = 0.0,
        trained_parts: list[str] | None = None,
    ) -> None:
        """Set the objective.

        Args:
            rewards: terms of a frame's reward; the paper's IoU + AUC if not given.
            value_weight: weight of the critic's loss.
            entropy_weight: weight of a bonus on the policy's entropy, in nats; none in the paper. It keeps a policy
                that learns fast from settling too early.
            trained_parts: parts of the network that learn; policy and critic if not given.
        """
        self.rewards = rewards or [IoUReward(), AUCReward()]
        self.value_weight = value_weight
        self.entropy_weight = entropy_weight
        self.trained_parts = tuple(trained_parts or ("policy", "critic"))

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Roll out, and return policy loss + value_weight * value loss - entropy_weight * entropy."""
        if network.critic is None:
            raise UserError("Actor-critic needs a critic: add one to the network (relo.models.heads.ConvCritic).")
        rollout = collect_rollout(network, clip, self.rewards, generator)
        assert rollout.values is not None
        advantages = normalise(rollout.rewards - rollout.values.detach(), rollout.present)
        # The ratio is 1; its gradient is that of the log-probability.
        ratio = torch.exp(rollout.log_probs - rollout.log_probs.detach())
        policy_loss = -masked_mean(ratio * advantages, rollout.present)
        value_loss = (
            (rollout.values - rollout.rewards).square().mean()
        )  # absent frames have reward 0, and value 0 to learn
        entropy = masked_mean(policy_entropy(rollout.logits), rollout.present)
        loss = policy_loss + self.value_weight * value_loss - self.entropy_weight * entropy
        losses = {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss}
        return StepResult(loss, {name: value.detach() for name, value in losses.items()} | policy_health(rollout))


def normalise(advantages: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit deviation over the frames that count; the others become 0. Shapes [B, T]."""
    deviation = masked_variance(advantages, mask).sqrt()
    return (advantages - masked_mean(advantages, mask)) / (deviation + 1e-8) * mask


def policy_entropy(logits: Tensor) -> Tensor:
    """Entropy [B, T] in nats of the policies with logits [B, T, S, S]."""
    log_policy = logits.flatten(2).log_softmax(-1)
    return -(log_policy.exp() * log_policy).sum(-1)


def policy_health(rollout: Rollout) -> dict[str, Tensor]:
    """What tells a healthy run from a sick one, as detached scalars over the frames with a visible target.

    `entropy` in nats; `iou` of the sampled boxes; `best_iou` of the best cell and `greedy_iou` of the most probable
    one; `explained_variance` of the rewards by the critic (1 is perfect, 0 as good as a constant).
    """
    mask = rollout.present
    cell_ious = rollout.cell_ious.flatten(2)
    greedy = rollout.logits.detach().flatten(2).argmax(-1, keepdim=True)
    health = {
        "reward": masked_mean(rollout.rewards, mask),
        "entropy": masked_mean(policy_entropy(rollout.logits.detach()), mask),
        "iou": masked_mean(rollout.ious, mask),
        "greedy_iou": masked_mean(cell_ious.gather(2, greedy).squeeze(2), mask),
        "best_iou": masked_mean(cell_ious.amax(-1), mask),
    }
    if rollout.values is not None:
        residual = rollout.rewards - rollout.values.detach()
        spread = masked_variance(rollout.rewards, mask)
        health["explained_variance"] = 1 - masked_variance(residual, mask) / spread.clamp(min=1e-8)
    return health
