"""Smooth random curves over time."""

import numpy as np
from numpy.typing import NDArray

# The uniform cubic B-spline: weights of four neighbouring knots as polynomials of the place between the middle two.
_CUBIC_B_SPLINE = np.array([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]) / 6


def smooth_curve(knots: NDArray[np.float64], frames: int, spacing: float) -> NDArray[np.float64]:
    """Twice continuously differentiable curve [frames, ...] that follows `knots` [K, ...], one every `spacing` frames.

    It stays within the knots' range. K is at least `knots_needed(frames, spacing)`.
    """
    position = np.arange(frames) / spacing
    first = position.astype(np.int64)
    powers = (position - first)[:, None] ** np.arange(4)  # [frames, 4]
    weights = powers @ _CUBIC_B_SPLINE  # [frames, 4]
    neighbours = knots[first[:, None] + np.arange(4)]  # [frames, 4, ...]
    return np.einsum("fk,fk...->f...", weights, neighbours)


def knots_needed(frames: int, spacing: float) -> int:
    """How many knots a curve of `frames` frames takes."""
    return int((frames - 1) / spacing) + 4


def wander(rng: np.random.Generator, frames: int, spacing: float, low: float, high: float) -> NDArray[np.float64]:
    """Smooth curve [frames] between `low` and `high`, whose course changes every `spacing` frames or so."""
    return smooth_curve(rng.uniform(low, high, knots_needed(frames, spacing)), frames, spacing)


def roam(
    rng: np.random.Generator,
    frames: int,
    speed: float,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    spacing: float = 10.0,
) -> NDArray[np.float64]:
    """Smooth path [frames, 2] inside the rectangle from `low` [2] to `high` [2], at about `speed` px per frame.

    The heading drifts; the path turns back at the rectangle's sides.
    """
    count = knots_needed(frames, spacing)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.6, count))
    length = speed * spacing * rng.uniform(0.4, 1.6, count)
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * length[:, None]
    free = rng.uniform(low, high) + np.cumsum(steps, axis=0)
    return smooth_curve(_fold(free, low, high), frames, spacing)


def _fold(values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflect values at both ends of [low, high], as often as it takes."""
    span = np.maximum(high - low, 1e-6)
    phase = np.mod(values - low, 2 * span)
    return np.asarray(low + np.minimum(phase, 2 * span - phase))


def episodes(rng: np.random.Generator, frames: int, probability: float, length: float) -> NDArray[np.float64]:
    """Curve [frames] in [0, 1]: 0 but for smooth bumps of about `length` frames, none in the first five.

    Every 60 frames hold one with `probability`.
    """
    strength = np.zeros(frames)
    time = np.arange(frames)
    for _ in range(rng.binomial(max(round(frames / 60), 1), probability)):
        half = length * rng.uniform(0.6, 1.4) / 2
        centre = rng.uniform(half + 5, max(frames, half + 6))
        bump = np.clip(1.5 * np.cos(np.clip((time - centre) / half, -1, 1) * np.pi / 2), 0, 1)
        strength = np.maximum(strength, bump)
    return strength
