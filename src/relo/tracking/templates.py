"""A target's templates: cut from its first frame, encoded, and renewed on the way where the rule says so."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from relo.errors import UserError
from relo.models.encoders.base import Templates
from relo.models.exported import TrackableNetwork
from relo.models.inference import Precision, computing
from relo.tracking.crops import RGBImage, SearchFrame, cut, normalised, upload
from relo.tracking.fixed_batches import in_batches
from relo.tracking.rule import TrackingRule
from relo.tracking.state import TargetState

LARGEST_BOX = 2
"""A first box is at most so many times as wide and high as its image: a target that fills it may stick out."""


class TemplateMaker:
    """Makes templates by a rule; it keeps nothing of a target."""

    def __init__(
        self, network: TrackableNetwork, rule: TrackingRule, device: torch.device, precision: Precision
    ) -> None:
        self.rows: int | None = None  # of a forward, see `relo.tracking.fixed_batches`
        self._network = network
        self._rule = rule
        self._crop = rule.template_crop(network.encoder.template_size)
        self._device = device
        self._precision: Precision = precision

    def first(self, images: Sequence[RGBImage], boxes_xywh: Tensor) -> list[TargetState]:
        """Take up B targets with boxes [B, 4] in images.

        Raises:
            UserError: a box that no tracker can start from.
        """
        for image, box_xywh in zip(images, boxes_xywh, strict=True):
            check_box(box_xywh.tolist(), image.shape[1], image.shape[0])
        if not len(boxes_xywh):
            return []
        crops, crop_boxes_xywh = self._cut(images, boxes_xywh)
        crops = crops[:, None].repeat(1, self._rule.templates, 1, 1, 1)
        crop_boxes_xywh = crop_boxes_xywh[:, None].repeat(1, self._rule.templates, 1)
        templates = self._encode(crops, crop_boxes_xywh)
        return [
            TargetState(
                templates[i : i + 1],
                crops[i],
                crop_boxes_xywh[i],
                memory=None,
                box_xywh=boxes_xywh[i].clone(),
                score=1.0,
                frame_index=0,
                image_size=(image.shape[1], image.shape[0]),
            )
            for i, image in enumerate(images)
        ]

    def is_due(self, frame_index: int) -> bool:
        """Whether a template may be cut from this frame."""
        interval = self._rule.template_update_interval
        return interval is not None and frame_index % interval == 0

    def renew(
        self, frames: Sequence[SearchFrame], states: Sequence[TargetState], peaks: Sequence[float]
    ) -> list[TargetState]:
        """Put the newest crop in the place of the oldest template but the first, where it is due and the box is sure.

        Args:
            frames: those that the boxes of the B states were found in.
            states: of the targets after this frame.
            peaks: the greatest values of their windowed maps.
        """
        images, due, least = [], [], self._rule.template_update_presence
        for i, (frame, state, peak) in enumerate(zip(frames, states, peaks, strict=True)):
            is_sure = peak > self._rule.template_update_threshold and state.status == "tracking"
            is_there = least is None or (state.frame_presence is not None and state.frame_presence > least)
            if frame.image is not None and self.is_due(state.frame_index) and is_sure and is_there:
                images.append(frame.image)
                due.append(i)
        if not due:
            return list(states)
        crops, boxes_xywh = self._cut(images, torch.stack([states[i].box_xywh for i in due]))
        crops = _with_newest(torch.stack([states[i].template_crops for i in due]), crops)
        boxes_xywh = _with_newest(torch.stack([states[i].template_boxes_xywh for i in due]), boxes_xywh)
        templates = self._encode(crops, boxes_xywh)
        renewed = list(states)
        for row, i in enumerate(due):
            renewed[i] = replace(
                states[i],
                templates=templates[row : row + 1],
                template_crops=crops[row],
                template_boxes_xywh=boxes_xywh[row],
            )
        return renewed

    def _cut(self, images: Sequence[RGBImage], boxes_xywh: Tensor) -> tuple[Tensor, Tensor]:
        """Crops [B, Hz, Hz, 3] uint8 around boxes [B, 4], and the boxes in them [B, 4] as shares of the side."""
        regions = self._crop.region(boxes_xywh)
        return cut(self._crop, images, regions), self._crop.to_crop(boxes_xywh, regions)

    def _encode(self, crops: Tensor, boxes_xywh: Tensor) -> Templates:
        """Crops [B, N, Hz, Hz, 3] uint8 with boxes [B, N, 4] -> what every frame needs of them."""
        inputs = normalised(crops, self._device), upload(boxes_xywh.float(), self._device)
        with computing(self._device, self._precision):
            return Templates(*in_batches(self._forward, self.rows, inputs, (0, 0), (0, 0)))

    def _forward(self, crops: Tensor, boxes_xywh: Tensor) -> tuple[Tensor, Tensor | None]:
        templates = self._network.encode_templates(crops, boxes_xywh)
        return templates.tokens, templates.kernel


def check_box(box_xywh: Sequence[float], image_width: int, image_height: int) -> None:
    """Refuse a first box that no tracker can start from.

    Raises:
        UserError: the box x, y, w, h is not finite, has no area, lies wholly outside the image, or is far larger.
    """
    x, y, w, h = box_xywh
    box = f"The box x, y, w, h = {x:g}, {y:g}, {w:g}, {h:g}"
    size = f"the image of {image_width} x {image_height} px"
    if not np.isfinite(box_xywh).all():
        raise UserError(f"{box} is not finite; give four numbers in pixels.")
    if w <= 0 or h <= 0:
        raise UserError(f"{box} has no area; width and height must be positive.")
    if x >= image_width or y >= image_height or x + w <= 0 or y + h <= 0:
        raise UserError(f"{box} lies outside {size}.")
    if w > LARGEST_BOX * image_width or h > LARGEST_BOX * image_height:
        raise UserError(f"{box} is more than {LARGEST_BOX} times as large as {size}; give four numbers in pixels.")


def _with_newest(kept: Tensor, newest: Tensor) -> Tensor:
    """[B, N, ...] with the entry after the first dropped and [B, ...] put at the end."""
    return torch.cat([kept[:, :1], kept[:, 2:], newest[:, None]], dim=1)
