"""What poor cameras and codecs do to a frame: grey, dark, noisy, coarse and heavily compressed video."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_GRAIN_SIDE = 256  # px of the tile that the grain is cut from


@dataclass(frozen=True)
class Degradation:
    """The faults of one camera, the same in all its frames.

    Attributes:
        grey: whether it has no colours.
        brightness: the share of the light that it takes in.
        coarseness: by which factor its resolution is lower than the frame's.
        grain: float32 [_GRAIN_SIDE, _GRAIN_SIDE, 3], grey levels added at a place that changes; None for none.
        quality: of its JPEG compression; None for none.
    """

    grey: bool
    brightness: float
    coarseness: float
    grain: NDArray[np.float32] | None
    quality: int | None

    def apply(self, frame: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """The frame [H, W, 3], RGB, as this camera gives it."""
        height, width = frame.shape[:2]
        if self.coarseness > 1:
            size = (max(round(width / self.coarseness), 16), max(round(height / self.coarseness), 16))
            frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        if self.grain is not None or self.brightness != 1:
            grain = 0.0 if self.grain is None else _tiled(self.grain, index, *frame.shape[:2])
            frame = np.clip(frame * np.float32(self.brightness) + grain, 0, 255).astype(np.uint8)
        if self.grey:
            frame = np.asarray(cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
        if self.quality is not None:
            _, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            frame = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
        if self.coarseness > 1:
            frame = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        return frame


def draw_degradation(
    rng: np.random.Generator, grey: float, dark: float, coarse: float, noisy: float, compressed: float
) -> Degradation:
    """A camera that has each fault with the probability given."""
    chances = rng.random(5) < np.array([grey, dark, coarse, noisy, compressed])
    brightness = float(rng.uniform(0.15, 0.55)) if chances[1] else 1.0
    coarseness = float(rng.uniform(1.3, 2.5)) if chances[2] else 1.0
    strength = rng.uniform(6, 25) if chances[3] else rng.uniform(3, 8) if chances[1] else 0.0  # the dark is noisy, too
    grain = rng.standard_normal((_GRAIN_SIDE, _GRAIN_SIDE, 3), np.float32) * np.float32(strength) if strength else None
    quality = int(rng.integers(8, 35)) if chances[4] else None
    return Degradation(bool(chances[0]), brightness, coarseness, grain, quality)


def _tiled(grain: NDArray[np.float32], index: int, height: int, width: int) -> NDArray[np.float32]:
    """The grain over a frame, moved by steps that do not repeat soon."""
    repeats = (-(-height // _GRAIN_SIDE), -(-width // _GRAIN_SIDE), 1)
    moved = np.roll(grain, (index * 97, index * 61), axis=(0, 1))
    return np.tile(moved, repeats)[:height, :width]
