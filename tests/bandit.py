"""A localization problem small enough to solve by hand: the policy is a table."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from relo.data.clip_batch import ClipBatch
from relo.models.network import LocalizationMaps


class Bandit(nn.Module):
    """A network whose policy is a table of logits, the same on every frame, over cells whose boxes have known IoUs."""

    def __init__(self, widths: list[float]) -> None:
        super().__init__()
        self.encoder = self.propagator = nn.Identity()
        self.logits = nn.Parameter(torch.zeros(len(widths)))
        self.baseline = nn.Parameter(torch.zeros(()))
        self.critic = object()
        # The truth is 0.4 wide and high at the centre; a narrower box of its centre and height has IoU w / 0.4.
        boxes = [[0.5, 0.5, width, 0.4] for width in widths]
        self.register_buffer("boxes_cxcywh", torch.tensor(boxes).view(2, -1, 4))

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> None:
        return None

    def encode(self, images: Tensor, templates: None, memory: Tensor | None) -> tuple[Tensor, None]:
        return images, None

    def localize(self, features: Tensor, heads: Collection[str]) -> LocalizationMaps:
        batch = len(features)
        return LocalizationMaps(
            policy_logits=self.logits.view(1, 2, -1).expand(batch, -1, -1),
            boxes_cxcywh=self.boxes_cxcywh.expand(batch, -1, -1, -1),
            value=self.baseline.expand(batch),
        )


def bandit_clip(batch: int = 64, frames: int = 2) -> ClipBatch:
    return ClipBatch(
        template_images=torch.zeros(batch, 1, 3, 8, 8),
        template_boxes_xywh=torch.zeros(batch, 1, 4),
        search_images=torch.zeros(batch, frames, 3, 8, 8),
        search_boxes_xywh=torch.tensor([0.3, 0.3, 0.4, 0.4]).expand(batch, frames, 4),
        present=torch.ones(batch, frames, dtype=torch.bool),
        sequence_id=["bandit"] * batch,
        frame_index=torch.zeros(batch, frames, dtype=torch.long),
    )
