"""From frames and search regions to normalised crops: cut by OpenCV on the CPU, or on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relo.geometry import CropRule, cut_squares, whole_squares
from relo.images import normalise_crops, normalise_images
from relo.tracking.cuda_graphs import Recorder, replayed

RGBImage = NDArray[np.uint8]  # [H, W, 3]
Integers = NDArray[np.int64]

LEAST_PIXELS = 2**20


@dataclass(frozen=True)
class SearchFrame:
    """Where a target is searched for in its next frame."""

    region: Tensor  # [3] float64, see `relo.geometry.CropRule`
    image_shape: tuple[int, ...]  # H, W, 3
    image: RGBImage | None  # the frame; it may be dropped where no template will be cut from it


@dataclass(frozen=True)
class SearchView(SearchFrame):
    """The same, and the pixels there."""

    crop: RGBImage  # [Hx, Hx, 3]


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor in main memory on the device; the copy to a GPU runs on its own."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def cut(rule: CropRule, images: Sequence[RGBImage], regions: Tensor) -> Tensor:
    """Crops [B, size, size, 3] uint8 of B images at regions [B, 3]."""
    return torch.from_numpy(np.stack([rule.cut(image, region) for image, region in zip(images, regions, strict=True)]))


def normalised(crops: Tensor, device: torch.device) -> Tensor:
    """Crops [..., S, S, 3] uint8 -> [..., 3, S, S] on the device, as networks read them."""
    return normalise_images(upload(crops, device))


class DeviceCropper:
    """Cuts the same crops as `cut` on the device, if there is a recorder, as a CUDA graph.

    Of each image only what its targets' squares show is sent, into a buffer that is used again: work on the crops must
    be queued before the next call.
    """

    def __init__(self, rule: CropRule, device: torch.device, record: Recorder | None = None) -> None:
        self._rule = rule
        self._device = device
        self._record = record
        self._reserve(LEAST_PIXELS)

    def __call__(self, images: Sequence[RGBImage], regions: Tensor) -> Tensor:
        """Normalised crops [B, 3, S, S] on the device, of B images at regions [B, 3] float64 on the CPU."""
        squares = self._send(images, regions)
        (crops,) = self._cut(squares)
        return crops

    def _reserve(self, count: int) -> None:
        self._pixels = torch.empty(count, 3, dtype=torch.uint8, device=self._device)
        self._cut = replayed(self._cut_squares, self._record)  # recordings hold for this buffer

    def _cut_squares(self, squares: Tensor) -> tuple[Tensor]:
        return (normalise_crops(cut_squares(self._pixels, squares, self._rule.size)),)

    def _send(self, images: Sequence[RGBImage], regions: Tensor) -> Tensor:
        """Fill the buffer; the squares [B, 6] int64 on the device that `relo.geometry.cut_squares` reads in it."""
        corners_and_sides = whole_squares(regions).numpy()
        corners, sides = np.split(corners_and_sides, [2], axis=1)
        images = list(images)  # of one array, too: each image is one object from here on
        targets_of: dict[int, list[int]] = {}
        for target, image in enumerate(images):
            targets_of.setdefault(id(image), []).append(target)
        sent: dict[tuple[int, ...], list[int]] = {}  # an image (by its first target) and a rectangle: who is in it
        for targets in targets_of.values():
            bounds = _bounds(self._rule.extent(images[targets[0]]), corners[targets], sides[targets])
            for target, rectangle in zip(targets, bounds.tolist(), strict=True):
                sent.setdefault((targets[0], *rectangle), []).append(target)
        count = sum((x2 - x1) * (y2 - y1) for _, x1, y1, x2, y2 in sent)
        if len(self._pixels) <= count:  # it grows by powers of two, so as to seldom record again
            self._reserve(1 << count.bit_length())
        staged = torch.empty(count, 3, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        squares = np.empty((len(images), 6), np.int64)
        start = 0
        for (first, x1, y1, x2, y2), members in sent.items():
            window = images[first][y1:y2, x1:x2]
            end = start + window.shape[0] * window.shape[1]
            staged.numpy()[start:end].reshape(window.shape)[...] = window
            squares[members, :3] = start, x2 - x1, y2 - y1
            squares[members, 3:] = corners_and_sides[members] - (x1, y1, 0)
            start = end
        self._pixels[:count].copy_(staged, non_blocking=True)
        return upload(torch.from_numpy(squares), self._device)


def _bounds(image: RGBImage, corners: Integers, sides: Integers) -> Integers:
    """What to send of an image for each of its targets' squares (corners [n, 2], sides [n, 1]): x1, y1, x2, y2 [n, 4].

    It is one rectangle around all squares, or, where they are less than it, each square's own part of the image.
    """
    extent = image.shape[1::-1]
    low, high = corners.clip(0, extent), (corners + sides).clip(0, extent)  # equal outside the image
    areas = (high - low).prod(1)
    if areas.any():
        around_low, around_high = low[areas > 0].min(0), high[areas > 0].max(0)
        if (around_high - around_low).prod() <= areas.sum():
            low, high = np.broadcast_to(around_low, low.shape), np.broadcast_to(around_high, high.shape)
    return np.hstack([low, high])
