"""How a flat picture of a thing moves like the thing: ripples, swinging parts and turning in depth.

A deformation says where in the picture each place of the drawn thing comes from, as `cv2.remap` needs it; the inverse,
which carries an outline along, is found by iteration. All lengths are in px about the thing's centre.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic.motion import wander

Curve = NDArray[np.float32]
_ITERATIONS = 16
_EXACT = 0.1  # px that a place may lie off after the inverse
_ATTEMPTS = 8
_EYE_DISTANCE = 2.2  # of the camera that a thing turns in front of, in sizes of the thing


@dataclass(frozen=True)
class Ripple:
    """A smooth displacement along a wave."""

    wave_xy: tuple[float, float]  # radians per px
    phase: Curve  # [N]
    shift_x: Curve  # [N], px
    shift_y: Curve  # [N]


@dataclass(frozen=True)
class Swing:
    """What lies beyond a soft line turns about a point on it."""

    normal_xy: tuple[float, float]
    start: float  # where the line lies along the normal
    width: float  # over which the turn sets in
    side: float  # 0 for the whole width; 1 and -1 for what lies to one side of the centre
    angle: Curve  # [N], radians


@dataclass(frozen=True)
class Deformation:
    """The deformation of a thing in N frames."""

    ripples: tuple[Ripple, ...]
    swings: tuple[Swing, ...]
    axis: float  # across which a thing narrows as it turns in depth, radians
    turn: Curve  # [N], radians; zeros where it does not turn
    eye: float  # px

    def sources(self, x: Curve, y: Curve, frames: int | NDArray[np.intp]) -> tuple[Curve, Curve]:
        """Where in the picture the places (x, y) of the drawn thing come from; `frames` broadcasts with them."""
        return self._bent(*self._turned(x, y, frames, forward=False), frames)

    def destinations(self, x: Curve, y: Curve, frames: int | NDArray[np.intp]) -> tuple[Curve, Curve]:
        """Where the places (x, y) of the picture are drawn."""
        at_x, at_y = x, y
        for _ in range(_ITERATIONS):
            from_x, from_y = self._bent(at_x, at_y, frames)
            at_x, at_y = at_x + (x - from_x), at_y + (y - from_y)
        return self._turned(at_x, at_y, frames, forward=True)

    def invertible(self, corners_xy: NDArray[np.float32]) -> "Deformation":
        """The deformation, or as much of it as folds nothing between two corners [2, 2] of the picture."""
        frames = np.arange(len(self.turn))[:, None]
        places = corners_xy[0] + np.linspace(0, 1, 9, dtype=np.float32)[:, None] * (corners_xy[1] - corners_xy[0])
        x, y = (axis.ravel() for axis in np.meshgrid(*places.T))
        deformation = self
        for _ in range(_ATTEMPTS):
            back_x, back_y = deformation.sources(*deformation.destinations(x, y, frames), frames)
            if max(np.abs(back_x - x).max(), np.abs(back_y - y).max()) < _EXACT:
                return deformation
            deformation = deformation._weakened(0.7)
        return deformation._weakened(0.0)

    def _weakened(self, share: float) -> "Deformation":
        factor = np.float32(share)
        ripples = (replace(r, shift_x=r.shift_x * factor, shift_y=r.shift_y * factor) for r in self.ripples)
        swings = (replace(s, angle=s.angle * factor) for s in self.swings)
        return replace(self, ripples=tuple(ripples), swings=tuple(swings), turn=self.turn * factor)

    def _bent(self, x: Curve, y: Curve, frames: int | NDArray[np.intp]) -> tuple[Curve, Curve]:
        """The places with ripples and swings."""
        from_x, from_y = x, y
        for ripple in self.ripples:
            wave = np.sin(ripple.wave_xy[0] * x + ripple.wave_xy[1] * y + ripple.phase[frames])
            from_x, from_y = from_x + ripple.shift_x[frames] * wave, from_y + ripple.shift_y[frames] * wave
        for swing in self.swings:
            normal_x, normal_y = swing.normal_xy
            along = normal_x * x + normal_y * y - swing.start
            across = normal_x * y - normal_y * x
            weight = _smooth_step(along / swing.width)
            if swing.side:
                weight *= _smooth_step(swing.side * across / swing.width + 0.5)
            cos, sin = np.cos(swing.angle[frames]) - 1, np.sin(swing.angle[frames])
            out_x, out_y = x - normal_x * swing.start, y - normal_y * swing.start
            from_x = from_x + weight * (cos * out_x - sin * out_y)
            from_y = from_y + weight * (sin * out_x + cos * out_y)
        return from_x, from_y

    def _turned(self, x: Curve, y: Curve, frames: int | NDArray[np.intp], forward: bool) -> tuple[Curve, Curve]:
        """The places with the turn in depth, seen in perspective; or, not forward, without it."""
        if not self.turn.any():
            return x, y
        cos, sin = np.cos(self.turn[frames]), np.sin(self.turn[frames])
        axis_x, axis_y = np.float32(np.cos(self.axis)), np.float32(np.sin(self.axis))
        across = axis_x * x + axis_y * y
        if forward:
            nearness = self.eye / (self.eye + across * sin)
            narrowed = across * (1 - cos)
            return nearness * (x - axis_x * narrowed), nearness * (y - axis_y * narrowed)
        flat = self.eye * across / np.maximum(self.eye * cos - across * sin, 0.05 * self.eye)
        distance = np.maximum(1 + flat * sin / self.eye, 0.05)
        narrowed = flat * (1 - cos)
        return x * distance + axis_x * narrowed, y * distance + axis_y * narrowed


def draw_deformation(
    rng: np.random.Generator, frames: int, size: float, ripple: float, swing: float, turn: float
) -> Deformation:
    """A random deformation of a thing of sqrt(width x height) `size` px.

    Args:
        rng: what it is drawn from.
        frames: N.
        size: of the thing, in px.
        ripple: the largest displacement, as a share of the size.
        swing: the largest angle of parts that swing, in radians; 0 for none.
        turn: the largest angle of turning in depth, in radians; 0 for none.
    """
    ripples: list[Ripple] = []
    for _ in range(3 if ripple else 0):
        heading, length = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.8, 2.0)
        wave_xy = (float(np.cos(heading) * 2 * np.pi / length), float(np.sin(heading) * 2 * np.pi / length))
        phase = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.3, 0.3) * np.arange(frames)
        shifts = (wander(rng, frames, 8, -ripple, ripple) * size / 1.5 for _ in range(2))
        ripples.append(Ripple(wave_xy, _curve(phase), *(_curve(shift) for shift in shifts)))
    swings: list[Swing] = []
    if swing:
        # Down, most often: what most things stand on.
        heading = rng.choice([0.0, 0.5, 0.5, 0.5, 1.0, 1.5]) * np.pi + rng.normal(0, 0.15)
        period, start_phase = rng.uniform(8, 30), rng.uniform(0, 2 * np.pi)
        reach = swing * rng.uniform(0.4, 1)
        beat = reach * np.sin(2 * np.pi * np.arange(frames) / period + start_phase)
        normal_xy, start = (float(np.cos(heading)), float(np.sin(heading))), float(size * rng.uniform(-0.1, 0.2))
        for side in (1.0, -1.0) if rng.random() < 0.5 else (0.0,):
            swings.append(Swing(normal_xy, start, 0.45 * size, side, _curve(beat * (side or 1.0))))
    axis = float(rng.choice([0.0, 0.0, 0.5])) * np.pi + float(rng.normal(0, 0.2))
    turning = wander(rng, frames, 14, -turn, turn)
    return Deformation(tuple(ripples), tuple(swings), axis, _curve(turning), _EYE_DISTANCE * size)


def _curve(values: NDArray[np.floating]) -> Curve:
    return np.asarray(values, np.float32)


def _smooth_step(place: NDArray[np.floating]) -> Curve:
    inside = np.clip(place, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), np.float32)
