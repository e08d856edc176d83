"""A still in motion: a photograph becomes a short video by small affine and elastic warps that change over time.

A point u of frame t, in units of sqrt(W H) from the image's centre, shows the photograph at

    A(t) u + b(t) + sum over waves m of a_m sin(2 pi (f_m . u + r_m t) + p_m),

where A rotates, scales, stretches and shears; all that A and b consist of swings in time as sines do. The sum's
derivative is bounded below 1, so that the map can be inverted and boxes follow exactly.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.frame_geometry import WHOLE_IMAGE
from relo.data.sequences.base import FrameSource, Sequence
from relo.errors import UserError

MOVING_FRAMES = 64
"""The frames of a still in motion."""

LEAST_VISIBLE = 0.8
"""A motion that shows the target in a smaller share of its frames is weakened."""

_ROTATION, _SCALE, _STRETCH, _SHEAR, _SHIFT = math.radians(5), 0.12, 0.06, 0.05, 0.06  # at a strength of 1
_WAVES, _STEEPNESS = 3, 0.2  # the sum of the waves' derivatives, at a strength of 1
_ITERATIONS, _POINTS = 8, 6  # to invert the map; on each side of a box

_LONGEST_SIDE = 2**15 - 2  # px that OpenCV warps


def in_motion(still: Sequence, strength: float, rng: np.random.Generator) -> Sequence:
    """A sequence of `MOVING_FRAMES` frames that shows a still in motion.

    A still is a sequence with one box: a photograph, or a video of which the first box alone is public.

    Each box is the one around the warped outline of the still's box; the target is visible while its centre is in the
    image. The frames are whole images: what the still was cut from and scaled by is left out.

    Args:
        still: the still.
        strength: 1 turns by up to 5 degrees, scales by 12 %, shifts by 6 % of sqrt(W H) to each side, with local
            changes of size by 20 % at most.
        rng: draws the motion.

    Raises:
        UserError: the still cannot be read, or a side is too long for OpenCV to warp.
    """
    image = still.frames[0]
    height, width = image.shape[:2]
    if max(width, height) > _LONGEST_SIDE:
        raise UserError(
            f"{still.frames.name(0)} has {width} x {height} px; stills of over {_LONGEST_SIDE} px on a side cannot be "
            "set in motion: pack them with --max_side."
        )
    state = rng.bit_generator.state
    while True:
        motion = _draw_motion(width, height, strength, rng)
        boxes_xywh = motion.boxes_xywh(still.boxes_xywh[0])
        centers = boxes_xywh[:, :2] + boxes_xywh[:, 2:] / 2
        visible = np.asarray(((centers >= 0) & (centers < (width, height))).all(1))
        if visible.mean() >= LEAST_VISIBLE or strength == 0:
            break
        # The same motion, weaker: a target at the image's border may leave it for good.
        strength = strength / 2 if strength > 0.1 else 0.0
        rng.bit_generator.state = state
    return replace(
        still,
        frames=_MovingFrames(image, motion, still.frames.name(0)),
        boxes_xywh=boxes_xywh,
        visible=visible,
        attributes={
            "image_sizes": np.tile(np.array([width, height], np.int32), (MOVING_FRAMES, 1)),
            "image_boxes_xywh": boxes_xywh,
            "geometry": np.tile(WHOLE_IMAGE, (MOVING_FRAMES, 1)),
        },
    )


@dataclass(frozen=True)
class _Motion:
    """The map from frames to the photograph, for F frames and M waves; see the module."""

    width: int
    height: int
    matrices: NDArray[np.float64]  # [F, 2, 2]
    shifts: NDArray[np.float64]  # [F, 2]
    frequencies: NDArray[np.float64]  # [M, 2], in radians
    amplitudes: NDArray[np.float64]  # [M, 2]
    phases: NDArray[np.float64]  # [F, M]

    @property
    def unit(self) -> float:
        """sqrt(W H), in pixels."""
        return math.sqrt(self.width * self.height)

    def source_positions(self, frame: int) -> list[NDArray[np.float32]]:
        """What the pixels of a frame show of the photograph: x [H, W] and y [H, W], 0 at the first pixel's centre.

        The map is a sum of products of functions of x and y: one product of small matrices.
        """
        x = (np.arange(self.width) + 0.5 - self.width / 2) / self.unit
        y = (np.arange(self.height) + 0.5 - self.height / 2) / self.unit
        along_x = np.outer(self.frequencies[:, 0], x) + self.phases[frame][:, None]  # [M, W]
        along_y = np.outer(y, self.frequencies[:, 1])  # [H, M]
        ones = np.ones_like(y)[:, None]
        of_y = np.hstack([ones, y[:, None], np.cos(along_y), np.sin(along_y)])  # [H, 2 + 2 M]
        center = np.array([self.width, self.height]) / 2 - 0.5
        positions = []
        for axis in range(2):
            matrix, waves = self.matrices[frame, axis], self.amplitudes[:, axis, None]
            constant = matrix[0] * x + self.shifts[frame, axis] + center[axis] / self.unit
            of_x = np.vstack([constant, np.full_like(x, matrix[1]), waves * np.sin(along_x), waves * np.cos(along_x)])
            positions.append((self.unit * of_y).astype(np.float32) @ of_x.astype(np.float32))
        return positions

    def boxes_xywh(self, box_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
        """The boxes [F, 4] around the outline of the photograph's box [4], as it is seen in each frame."""
        share = np.linspace(0, 1, _POINTS + 1)
        zero, one = np.zeros_like(share), np.ones_like(share)
        sides = [(share, zero), (share, one), (zero, share), (one, share)]
        outline = box_xywh[:2] + box_xywh[2:] * np.concatenate([np.stack(side, axis=-1) for side in sides])
        center = np.array([self.width, self.height]) / 2
        goals = (outline - center) / self.unit - self.shifts[:, None]  # [F, points, 2]
        inverse = np.linalg.inv(self.matrices).swapaxes(-1, -2)
        seen = goals @ inverse
        for _ in range(_ITERATIONS):
            waves = np.sin(seen @ self.frequencies.T + self.phases[:, None]) @ self.amplitudes
            seen = (goals - waves) @ inverse
        seen = seen * self.unit + center
        low = seen.min(axis=1)
        return np.hstack([low, seen.max(axis=1) - low])


@dataclass(frozen=True)
class _MovingFrames(FrameSource):
    """The frames of a photograph [H, W, 3] in motion; its outermost pixels go on beyond its border."""

    image: NDArray[np.uint8]
    motion: _Motion
    still: str

    def __len__(self) -> int:
        return MOVING_FRAMES

    def name(self, index: int) -> str:
        """The still's name, and which of its frames."""
        return f"{self.still}, moved (frame {index})"

    def encoded(self, index: int) -> bytes:
        """Frame `index` as PNG."""
        return cv2.imencode(".png", cv2.cvtColor(self[index], cv2.COLOR_RGB2BGR))[1].tobytes()

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as RGB uint8 [H, W, 3]."""
        x, y = self.motion.source_positions(index)
        moved = cv2.remap(self.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.uint8)


def _draw_motion(width: int, height: int, strength: float, rng: np.random.Generator) -> _Motion:
    time = np.arange(MOVING_FRAMES) / MOVING_FRAMES
    # What swings: rotation, scale, stretch, shear, shift along x and y; a quarter of a swing to a whole one.
    swings = np.sin(2 * np.pi * (np.outer(time, rng.uniform(0.25, 1, 6)) + rng.random(6)))
    rotation, scale, stretch, shear = (strength * swings[:, :4] * (_ROTATION, _SCALE, _STRETCH, _SHEAR)).T
    cosine, sine = np.cos(rotation), np.sin(rotation)
    turned = np.moveaxis(np.array([[cosine, -sine], [sine, cosine]]), -1, 0)
    one = np.ones_like(shear)
    sheared = np.moveaxis(np.array([[np.exp(scale + stretch), shear], [0 * one, np.exp(scale - stretch)]]), -1, 0)
    directions, tilts = rng.uniform(0, 2 * np.pi, (2, _WAVES))
    cycles = rng.uniform(0.7, 2.5, _WAVES)
    frequencies = 2 * np.pi * cycles[:, None] * np.stack([np.cos(directions), np.sin(directions)], axis=-1)
    steepness = strength * _STEEPNESS / _WAVES / (2 * np.pi * cycles)
    amplitudes = steepness[:, None] * np.stack([np.cos(tilts), np.sin(tilts)], axis=-1)
    phases = 2 * np.pi * (np.outer(time, rng.uniform(-1, 1, _WAVES)) + rng.random(_WAVES))
    return _Motion(width, height, turned @ sheared, strength * _SHIFT * swings[:, 4:], frequencies, amplitudes, phases)
