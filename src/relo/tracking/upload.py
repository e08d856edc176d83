"""Bring pixels to the device without waiting for it: what is cut from the frames, and nothing else of them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relo.geometry import square_corners

Pixels = NDArray[np.uint8]  # [H, W, 3]
Integers = NDArray[np.int64]

LEAST_PIXELS = 2**20


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor in main memory on the device; the copy to a GPU runs on its own."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class FrameUploader:
    """Sends frames to a device, in the form that `relo.geometry.cut_squares` reads.

    Of each frame goes the smallest rectangle that holds its targets' squares, once for all of them; where the squares
    lie so far apart that they are less than the rectangle, each goes alone. The buffer on the device is used again:
    work on what was sent must be queued before the next call.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pixels = torch.empty(0, 3, dtype=torch.uint8)

    def __call__(self, images: Sequence[Pixels], regions: Tensor) -> tuple[Tensor, Tensor]:
        """Send what B regions cut from B images; images that are one object are sent once.

        Args:
            images: B RGB images, uint8 [H, W, 3].
            regions: [B, 3] float64 on the CPU: centre x, centre y and side in image pixels (see `CropRule`).

        Returns:
            Pixels [P, 3] uint8 and squares [B, 6] int64, both on the device.
        """
        corners = square_corners(regions).numpy().astype(np.int64)
        sides = regions[:, 2:].numpy().round().astype(np.int64)
        targets_of: dict[int, list[int]] = {}
        for target, image in enumerate(images):
            targets_of.setdefault(id(image), []).append(target)
        windows: list[Pixels] = []
        squares = np.empty((len(images), 6), np.int64)
        start = 0
        for targets in targets_of.values():
            image = images[targets[0]]
            for (x1, y1, x2, y2), members in _windows(image, np.array(targets), corners[targets], sides[targets]):
                squares[members, :3] = start, x2 - x1, y2 - y1
                squares[members, 3:] = np.hstack([corners[members] - (x1, y1), sides[members]])
                windows.append(image[y1:y2, x1:x2])
                start += (x2 - x1) * (y2 - y1)
        return self._send(windows, start), upload(torch.from_numpy(squares), self._device)

    def _send(self, windows: Sequence[Pixels], count: int) -> Tensor:
        """The windows' pixels, `count` in all, one window after another on the device."""
        if len(self._pixels) <= count:
            # It grows by powers of two: with every new buffer, CUDA graphs are recorded anew.
            length = max(LEAST_PIXELS, 1 << count.bit_length())
            self._pixels = torch.empty(length, 3, dtype=torch.uint8, device=self._device)
        staged = torch.empty(count, 3, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        pixels, start = staged.numpy(), 0
        for window in windows:
            end = start + window.shape[0] * window.shape[1]
            pixels[start:end].reshape(window.shape)[...] = window
            start = end
        self._pixels[:count].copy_(staged, non_blocking=True)
        return self._pixels


def _windows(
    image: Pixels, targets: Integers, corners: Integers, sides: Integers
) -> Iterator[tuple[tuple[int, int, int, int], Integers]]:
    """The rectangles x1, y1, x2, y2 of an image to send for its targets' squares (corners [n, 2], sides [n, 1])."""
    extent = np.array(image.shape[1::-1])
    low, high = corners.clip(0, extent), (corners + sides).clip(0, extent)  # equal outside the image
    areas = (high - low).prod(1)
    if areas.any():
        together = low[areas > 0].min(0), high[areas > 0].max(0)
        if (together[1] - together[0]).prod() <= areas.sum():
            yield _corners(*together), targets
            return
    for first, second, target in zip(low, high, targets, strict=True):
        yield _corners(first, second), np.array([target])


def _corners(low: Integers, high: Integers) -> tuple[int, int, int, int]:
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
