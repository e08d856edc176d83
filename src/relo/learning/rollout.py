"""A rollout: the network walks over a clip and chooses a cell on every frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.geometry import cxcywh_to_xyxy, iou, xywh_to_xyxy
from relo.learning.rewards import RewardTerm, total_reward
from relo.models.network import LocalizationNetwork


@dataclass(frozen=True)
class Rollout:
    """B clips of T frames on a map of S x S cells; logits, log-probabilities and values carry gradients."""

    logits: Tensor  # [B, T, S, S]
    actions: Tensor  # [B, T] int64, row * S + column of the chosen cell
    log_probs: Tensor  # [B, T], of the actions
    values: Tensor | None  # [B, T]; None for a network without critic
    cell_ious: Tensor  # [B, T, S, S], of every cell's box with the truth
    rewards: Tensor  # [B, T]
    present: Tensor  # [B, T] bool

    @property
    def ious(self) -> Tensor:
        """IoU of the chosen boxes with the truth [B, T]."""
        return self.cell_ious.flatten(2).gather(2, self.actions[..., None]).squeeze(2)


def collect_rollout(
    network: LocalizationNetwork, clip: ClipBatch, rewards: Sequence[RewardTerm], generator: torch.Generator
) -> Rollout:
    """Walk over a clip whose crops surround each frame's truth, and sample one cell a frame from the policy.

    Args:
        network: the network; parts without gradients build no graph.
        clip: B clips of T search frames.
        rewards: the terms of the reward.
        generator: the source of the sampled actions, on the clip's device.

    Returns:
        The rollout; the truth is clamped to the crop before overlaps are taken.
    """
    templates = network.encode_templates(clip.template_images, clip.template_boxes_xywh)
    memory = None
    logits, values, boxes = [], [], []
    for t in range(clip.search_images.shape[1]):
        maps, memory = network(clip.search_images[:, t], templates, memory, skip=["prior"])
        logits.append(maps.policy_logits)
        boxes.append(maps.boxes_cxcywh.detach())
        if maps.value is not None:
            values.append(maps.value)

    all_logits = torch.stack(logits, dim=1)  # [B, T, S, S]
    cells_xyxy = cxcywh_to_xyxy(torch.stack(boxes, dim=1))  # [B, T, S, S, 4]
    truth_xyxy = xywh_to_xyxy(clip.search_boxes_xywh).clamp(0, 1)  # [B, T, 4]
    cell_ious = iou(cells_xyxy, truth_xyxy[:, :, None, None])
    log_policy = all_logits.flatten(2).log_softmax(-1)  # [B, T, S * S]
    actions = torch.multinomial(log_policy.detach().exp().flatten(0, 1), 1, generator=generator).view(
        log_policy.shape[:2]
    )

    chosen_xyxy = cells_xyxy.flatten(2, 3).gather(2, actions[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
    chosen_ious = cell_ious.flatten(2).gather(2, actions[..., None]).squeeze(2)
    return Rollout(
        logits=all_logits,
        actions=actions,
        log_probs=log_policy.gather(2, actions[..., None]).squeeze(2),
        values=torch.stack(values, dim=1) if values else None,
        cell_ious=cell_ious,
        rewards=total_reward(rewards, chosen_xyxy, truth_xyxy, chosen_ious, clip.present),
        present=clip.present,
    )
