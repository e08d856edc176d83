"""Boxes (formats, overlap) and crops (image <-> crop): the only place where either is computed.

Boxes are tensors [..., 4] with the format in the variable's name: xywh (corner and size), xyxy (two corners) or cxcywh
(centre and size). Coordinates are continuous: a pixel is a unit square, and an image of width W spans 0 to W.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """[..., 4] x, y, w, h -> [..., 4] x1, y1, x2, y2.

    >>> xywh_to_xyxy(torch.tensor([1.0, 2.0, 30.0, 40.0]))
    tensor([ 1.,  2., 31., 42.])
    """
    return torch.cat([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], dim=-1)


def xyxy_to_xywh(boxes_xyxy: Tensor) -> Tensor:
    """[..., 4] x1, y1, x2, y2 -> [..., 4] x, y, w, h.

    >>> xyxy_to_xywh(torch.tensor([1.0, 2.0, 31.0, 42.0]))
    tensor([ 1.,  2., 30., 40.])
    """
    return torch.cat([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], dim=-1)


def xywh_to_cxcywh(boxes_xywh: Tensor) -> Tensor:
    """[..., 4] x, y, w, h -> [..., 4] cx, cy, w, h.

    >>> xywh_to_cxcywh(torch.tensor([1.0, 2.0, 30.0, 40.0]))
    tensor([16., 22., 30., 40.])
    """
    return torch.cat([boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2, boxes_xywh[..., 2:]], dim=-1)


def cxcywh_to_xywh(boxes_cxcywh: Tensor) -> Tensor:
    """[..., 4] cx, cy, w, h -> [..., 4] x, y, w, h.

    >>> cxcywh_to_xywh(torch.tensor([16.0, 22.0, 30.0, 40.0]))
    tensor([ 1.,  2., 30., 40.])
    """
    return torch.cat([boxes_cxcywh[..., :2] - boxes_cxcywh[..., 2:] / 2, boxes_cxcywh[..., 2:]], dim=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """[..., 4] cx, cy, w, h -> [..., 4] x1, y1, x2, y2.

    >>> cxcywh_to_xyxy(torch.tensor([16.0, 22.0, 30.0, 40.0]))
    tensor([ 1.,  2., 31., 42.])
    """
    center, half = boxes_cxcywh[..., :2], 0.5 * boxes_cxcywh[..., 2:]
    return torch.cat([center - half, center + half], dim=-1)


def clamped_xyxy(boxes_xywh: Tensor) -> Tensor:
    """What a crop shows of boxes [..., 4] (shares of its side): their corners, clamped to it.

    >>> clamped_xyxy(torch.tensor([0.5, -0.25, 0.25, 0.5]))
    tensor([0.5000, 0.0000, 0.7500, 0.2500])
    """
    return xywh_to_xyxy(boxes_xywh).clamp(0, 1)


def mirror_xywh(boxes_xywh: Tensor, width: float | Tensor) -> Tensor:
    """Boxes [..., 4] in the mirrored image; its width is one for all, or [...].

    >>> mirror_xywh(torch.tensor([0.0, 5.0, 10.0, 20.0]), 100.0)
    tensor([90.,  5., 10., 20.])
    """
    x, y, w, h = boxes_xywh.unbind(-1)
    return torch.stack([width - x - w, y, w, h], dim=-1)


def _intersection(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """Intersection areas [...] of paired boxes [..., 4]; shapes broadcast."""
    corner_min = torch.maximum(boxes_xyxy[..., :2], others_xyxy[..., :2])
    corner_max = torch.minimum(boxes_xyxy[..., 2:], others_xyxy[..., 2:])
    return (corner_max - corner_min).clamp(min=0).prod(-1)


def _overlap(boxes_xyxy: Tensor, others_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union areas [...] of paired boxes [..., 4]; shapes broadcast."""
    intersection = _intersection(boxes_xyxy, others_xyxy)
    area = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0).prod(-1)
    other_area = (others_xyxy[..., 2:] - others_xyxy[..., :2]).clamp(min=0).prod(-1)
    return intersection, area + other_area - intersection


def _ratio(intersection: Tensor, union: Tensor) -> Tensor:
    return torch.where(union > 0, intersection / union.clamp(min=torch.finfo(union.dtype).tiny), 0)


def iou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """Intersection over union [...] of paired boxes [..., 4]; shapes broadcast, and two empty boxes have 0.

    >>> iou(torch.tensor([[0.0, 0, 2, 2], [5, 5, 5, 5]]), torch.tensor([1.0, 0, 3, 2]))
    tensor([0.3333, 0.0000])
    """
    return _ratio(*_overlap(boxes_xyxy, others_xyxy))


def iou_xywh(boxes_xywh: Tensor, others_xywh: Tensor) -> Tensor:
    """`iou` of boxes x, y, w, h, as benchmarks compute it.

    Areas are w h as given, which is the toolkits' arithmetic: taken from corners they can be off in the last bit, so
    an overlap that lies on a threshold falls on its other side.

    >>> iou_xywh(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 2, 2]))
    tensor(0.3333)
    """
    intersection = _intersection(xywh_to_xyxy(boxes_xywh), xywh_to_xyxy(others_xywh))
    area, other_area = (boxes[..., 2:].clamp(min=0).prod(-1) for boxes in (boxes_xywh, others_xywh))
    return _ratio(intersection, area + other_area - intersection)


def generalized_iou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """Generalized IoU [...] in (-1, 1] of paired boxes [..., 4]; shapes broadcast (Rezatofighi et al., CVPR 2019).

    >>> generalized_iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([4.0, 0, 6, 2]))
    tensor(-0.3333)
    """
    intersection, union = _overlap(boxes_xyxy, others_xyxy)
    # `iou` divides by no less than the smallest float; this is a loss, and its gradients must stay bounded.
    epsilon = torch.finfo(union.dtype).eps
    hull_min = torch.minimum(boxes_xyxy[..., :2], others_xyxy[..., :2])
    hull_max = torch.maximum(boxes_xyxy[..., 2:], others_xyxy[..., 2:])
    hull = (hull_max - hull_min).clamp(min=0).prod(-1)
    return intersection / union.clamp(min=epsilon) - (hull - union) / hull.clamp(min=epsilon)


def clip_to_image(
    boxes_xywh: Tensor, image_width: float | Tensor, image_height: float | Tensor, margin: float = 0.0
) -> Tensor:
    """Clip boxes [..., 4] so that each keeps at least `margin` px of width, of height and inside its image.

    Widths and heights of images are one for all, or [...]; an image smaller than the margin is filled.

    >>> clip_to_image(torch.tensor([-20.0, 30.0, 40.0, 500.0]), 320, 240, margin=10)
    tensor([  0.,  30.,  20., 210.])
    """
    limits = torch.stack([torch.as_tensor(image_width), torch.as_tensor(image_height)], dim=-1).to(boxes_xywh)
    margins = limits.clamp(max=margin)
    corner_min, corner_max = xywh_to_xyxy(boxes_xywh).split(2, dim=-1)
    corner_min = corner_min.clamp(min=0).minimum(limits - margins)
    corner_max = corner_max.maximum(margins).minimum(limits)
    return torch.cat([corner_min, (corner_max - corner_min).maximum(margins)], dim=-1)


LARGEST_SQUARE_PX = 2**27
"""Pixels of the largest square that is cut as one array: four times the sides of an 8 megapixel image."""

FIXED_POINT_ONE = 2**11
"""What OpenCV writes for a weight of 1 when it resizes 8-bit images."""


@dataclass(frozen=True)
class CropRule:
    """How a square region is cut around a box and how boxes are written in it.

    A region is a tensor [..., 3]: centre x, centre y and side, in image pixels; the side is a whole number. `factor` is
    the side as a multiple of sqrt(w h); `size` the side of the resized crop, in pixels.

    Boxes in a crop are x, y, w, h (or cx, cy, w, h) as shares of the crop's side. By default both directions are exact
    inverses: the region is snapped to the pixel grid it is cut on, and shares refer to the crop's edges. With
    `released` the public release's rule holds: the region keeps the box's real-valued centre although pixels are cut on
    whole numbers; shares written by `to_crop` refer to pixel centres (divided by size - 1), which `to_image` does not
    undo; and the image's last row and column are black, as if it ended there. Its checkpoints need that.

    >>> rule = CropRule(factor=2.0, size=128)
    >>> box_xywh = torch.tensor([100.0, 80.0, 40.0, 40.0])
    >>> region = rule.region(box_xywh)
    >>> region
    tensor([120., 100.,  80.])
    >>> rule.to_crop(box_xywh, region)
    tensor([0.2500, 0.2500, 0.5000, 0.5000])
    >>> rule.to_image(torch.tensor([0.5, 0.5, 0.5, 0.5]), region)
    tensor([100.,  80.,  40.,  40.])
    >>> rule.cut(np.zeros((240, 320, 3), np.uint8), region).shape
    (128, 128, 3)
    """

    factor: float
    size: int
    released: bool = False

    def region(self, boxes_xywh: Tensor) -> Tensor:
        """The regions [..., 3] around boxes [..., 4] in image pixels."""
        boxes_cxcywh = xywh_to_cxcywh(boxes_xywh)
        # A mathematically whole side stays whole in floating point; the release makes no such allowance.
        allowance = 0 if self.released else 1e-9
        side = torch.ceil(boxes_xywh[..., 2:].clamp(min=0).prod(-1).sqrt() * self.factor - allowance).clamp(min=1)
        region = torch.cat([boxes_cxcywh[..., :2], side[..., None]], dim=-1)
        if self.released:
            return region
        return torch.cat([square_corners(region) + side[..., None] / 2, side[..., None]], dim=-1)

    def to_crop(self, boxes_xywh: Tensor, region: Tensor) -> Tensor:
        """Boxes [..., 4] in image pixels -> x, y, w, h as shares of the crop's side, for regions [..., 3]."""
        boxes_cxcywh = xywh_to_cxcywh(boxes_xywh)
        scale = 1 / region[..., 2:]
        if self.released:
            scale = scale * (self.size / (self.size - 1))
        center = 0.5 + (boxes_cxcywh[..., :2] - region[..., :2]) * scale
        return cxcywh_to_xywh(torch.cat([center, boxes_cxcywh[..., 2:] * scale], dim=-1))

    def to_image(self, boxes_cxcywh: Tensor, region: Tensor) -> Tensor:
        """Boxes [..., 4] cx, cy, w, h as shares of the crop's side -> x, y, w, h in image pixels."""
        side = region[..., 2:]
        center = region[..., :2] + (boxes_cxcywh[..., :2] - 0.5) * side
        return cxcywh_to_xywh(torch.cat([center, boxes_cxcywh[..., 2:] * side], dim=-1))

    def extent(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of an image [H, W, 3] that crops are cut from: all of it, but for the release's black border."""
        return image[:-1, :-1] if self.released else image

    def cut(self, image: NDArray[np.uint8], region: Tensor, is_mirrored: bool = False) -> NDArray[np.uint8]:
        """The crop [size, size, 3] of an image [H, W, 3] at one region [3]: black outside, resized bilinearly.

        A region wholly outside the image gives a black crop. One that is cut to be mirrored has the release's border
        where the mirrored image ends: at the first column.
        """
        region = region.double()
        x, y = map(int, square_corners(region).tolist())
        side = round(region[2].item())
        if self.released and is_mirrored:
            return cut_square(image[:-1, 1:], x - 1, y, side, self.size)
        return cut_square(self.extent(image), x, y, side, self.size)

    def cut_on_device(self, images: Tensor, regions: Tensor) -> Tensor:
        """`cut` for a batch, on the device of the images and without waiting for it.

        Args:
            images: [B, 3, H, W] uint8. Frames that lie in memory as [B, H, W, 3] and are
                permuted are read where they lie (but for the release's border); others are copied first.
            regions: [B, 3] on the same device; float64, or float32, whose rounding can move a crop by a pixel.

        Returns:
            Crops [B, 3, size, size] uint8.
        """
        if self.released:
            images = images[..., :-1, :-1]
        batch, _, height, width = images.shape
        starts = torch.arange(batch, device=images.device) * (height * width)
        extents = torch.stack([torch.full_like(starts, width), torch.full_like(starts, height)], dim=1)
        squares = torch.cat([starts[:, None], extents, whole_squares(regions)], dim=1)
        return cut_squares(images.permute(0, 2, 3, 1).reshape(-1, 3), squares, self.size)


def square_corners(regions: Tensor) -> Tensor:
    """The upper left corners [..., 2] of squares cut for regions [..., 3]: whole, half to even, as in the release."""
    return torch.round(regions[..., :2] - regions[..., 2:] / 2)


def cut_squares(pixels: Tensor, squares: Tensor, size: int) -> Tensor:
    """Squares of many images that lie in one buffer, black outside their image, resized bilinearly.

    It does on any device, for all squares at once, what `cut_square` does with OpenCV, to the last bit: output pixel i
    looks at (i + 1/2) side / size - 1/2, beyond the centres of the square's first and last pixel at these, and blends
    its neighbours in OpenCV's fixed-point arithmetic, where weights are whole 2048ths.

    Args:
        pixels: [P, 3] uint8: the images, each row by row.
        squares: [B, 6] int64 on the same device. Of the image: the row of `pixels` where it starts, its width, its
            height; of the square: the x and y of its corner in the image, its side.
        size: of the crops.

    Returns:
        Crops [B, 3, size, size] uint8.
    """
    start, extents, corners, sides = squares.split([1, 2, 2, 1], dim=1)
    extents, corners, sides = extents[:, :, None, None], corners[:, :, None], sides[:, :, None]
    steps = torch.arange(size, device=pixels.device, dtype=torch.float64) + 0.5
    # OpenCV divides by size / side, and goes on in float32.
    place = (steps * (1 / (size / sides.double())) - 0.5).float()  # [B, 1, size]
    first = place.floor()
    share = ((place - first) * FIXED_POINT_ONE).round()
    neighbours = torch.stack([first, first + 1], dim=-1).long().clamp(min=0).minimum(sides[..., None] - 1)
    neighbours = neighbours + corners[..., None]
    inside = (neighbours >= 0) & (neighbours < extents)  # [B, 2 (x, y), size, 2]
    weights = (torch.stack([FIXED_POINT_ONE - share, share], dim=-1) * inside).int()
    neighbours = neighbours.minimum(extents - 1).clamp(min=0)
    (columns, rows), (column_weights, row_weights) = neighbours.flatten(2).unbind(1), weights.unbind(1)
    index = start[:, None] + rows[:, :, None] * squares[:, 1, None, None] + columns[:, None]  # [B, 2 size, 2 size]
    found = pixels[index].unflatten(2, (size, 2)).unflatten(1, (size, 2))  # [B, size, 2, size, 2, 3]
    blended = (found * column_weights[:, None, None, :, :, None]).sum(4, dtype=torch.int32)  # [B, size, 2, size, 3]
    blended = ((blended >> 4) * row_weights[:, :, :, None, None]) >> 16
    return ((blended.sum(2, dtype=torch.int32) + 2) >> 2).to(torch.uint8).permute(0, 3, 1, 2)


def cut_square(image: NDArray[np.uint8], x: int, y: int, side: int, size: int) -> NDArray[np.uint8]:
    """The square of `side` px with its corner at (x, y), black outside the image, resized to [size, size, 3].

    A square of more than `LARGEST_SQUARE_PX` is never held in memory as a whole: `cut_squares` looks its pixels up.
    """
    inside = image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
    if inside.shape[:2] != (side, side):
        if inside.size == 0:
            return np.zeros((size, size, 3), np.uint8)
        if side * side > LARGEST_SQUARE_PX:
            height, width = inside.shape[:2]
            squares = torch.tensor([[0, width, height, min(x, 0), min(y, 0), side]])
            crops = cut_squares(torch.from_numpy(inside.reshape(-1, 3)), squares, size)
            return crops[0].permute(1, 2, 0).numpy()
        top, left = max(-y, 0), max(-x, 0)
        bottom, right = side - top - inside.shape[0], side - left - inside.shape[1]
        inside = np.asarray(cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT), np.uint8)
    return np.asarray(cv2.resize(inside, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def whole_squares(regions: Tensor) -> Tensor:
    """The squares that are cut for regions [..., 3], as `cut_squares` reads them: x, y and side [..., 3] int64."""
    return torch.cat([square_corners(regions), regions[..., 2:].round()], dim=-1).long()
