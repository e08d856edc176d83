"""Where a packed frame lies in its image: cut around the target, then scaled down.

The geometry of a frame is x, y, scale_x, scale_y: a point p of the image is at (p - (x, y)) * (scale_x, scale_y) in the
packed frame. Boxes and geometry are arrays, or tensors on one device.
"""

from typing import TypeVar

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

Boxes = TypeVar("Boxes", NDArray[np.float64], Tensor)

WHOLE_IMAGE = np.array([0.0, 0.0, 1.0, 1.0])
"""The geometry of a frame that is neither cut nor scaled."""


def surroundings(
    box_xywh: NDArray[np.float64], factor: float, image_width: int, image_height: int
) -> tuple[int, int, int, int]:
    """The whole-pixel rectangle x1, y1, x2, y2 of the image around a box [4].

    It is a square of side `factor` * sqrt(w h) about the box's centre, at least the box itself, clipped to the image.
    A box outside the image gives the nearest part of the image.
    """
    size = np.maximum(box_xywh[2:], 1)
    extent = np.maximum(factor * np.sqrt(size.prod()), size)
    limits = np.array([image_width, image_height])
    center = np.clip(box_xywh[:2] + box_xywh[2:] / 2, 0, limits)
    x1, y1 = np.clip(np.floor(center - extent / 2), 0, limits - 1).astype(int)
    x2, y2 = np.clip(np.ceil(center + extent / 2), (x1 + 1, y1 + 1), limits).astype(int)
    return int(x1), int(y1), int(x2), int(y2)


def nearest_visible(visible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each of N frames, the nearest frame [N] whose target is visible (the frame itself where none is)."""
    frames, seen = np.arange(len(visible)), np.flatnonzero(visible)
    if not len(seen):
        return frames
    after = np.searchsorted(seen, frames).clip(max=len(seen) - 1)
    before = (after - 1).clip(min=0)
    closer = np.abs(seen[before] - frames) <= np.abs(seen[after] - frames)
    return seen[np.where(closer, before, after)]


def to_packed(boxes_xywh: Boxes, geometry: Boxes) -> Boxes:
    """Boxes [..., 4] in image pixels -> in pixels of the packed frames with geometry [..., 4]."""
    offset, scale = geometry[..., :2], geometry[..., 2:]
    return _joined([(boxes_xywh[..., :2] - offset) * scale, boxes_xywh[..., 2:] * scale])


def to_image(boxes_xywh: Boxes, geometry: Boxes) -> Boxes:
    """Boxes [..., 4] in pixels of the packed frames with geometry [..., 4] -> in image pixels."""
    offset, scale = geometry[..., :2], geometry[..., 2:]
    return _joined([boxes_xywh[..., :2] / scale + offset, boxes_xywh[..., 2:] / scale])


def _joined(corners_and_sizes: list[Boxes]) -> Boxes:
    """Corners [..., 2] and sizes [..., 2] -> boxes [..., 4]."""
    return rearrange(corners_and_sizes, "part ... xy -> ... (part xy)")
