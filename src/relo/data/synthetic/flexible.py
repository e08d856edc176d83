"""Things of photographs that bend, turn and have parts.

A deformation says where in a picture each place of the drawn thing comes from, as `cv2.remap` needs it; the inverse,
which carries an outline along, is found by iteration. All lengths are in px about the thing's centre.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic.material import Appearance, Floats, Image
from relo.data.synthetic.motion import wander

Curve = NDArray[np.float32]

_DENSITY = 1.5  # px of the largest picture per px of the thing, where the source has as many
_MOST_OUTLINE_POINTS = 1500
_MARGIN = 2  # transparent px around a picture
_ITERATIONS = 16
_EXACT = 0.1  # px that a place may lie off after the inverse
_ATTEMPTS = 8
_EYE_DISTANCE = 2.2  # of the camera that a thing turns in front of, in sizes of the thing


@dataclass(frozen=True)
class Level:
    """A picture at one resolution: place = thing's px * density + centre."""

    image: Image  # [h, w, 4], RGB multiplied by alpha, and alpha
    boxed: Image  # [h, w], the alpha of what is boxed: the thing or a part of it
    density_xy: Curve  # [2]
    centre_xy: Curve  # [2]


@dataclass(frozen=True)
class Picture:
    """A thing at several resolutions, each half of the last; lengths are in px about the centre of what is boxed."""

    levels: tuple[Level, ...]
    outline_xy: NDArray[np.float32]  # [P, 2], where the boxed alpha is one half
    corners_xy: NDArray[np.float32]  # [2, 2], the first and last corner of the whole

    @property
    def size(self) -> float:
        """sqrt(width x height) of the whole thing."""
        width, height = self.corners_xy[1] - self.corners_xy[0]
        return float(np.sqrt(width * height))


def make_picture(image: Image, size: float, part: Image | None = None) -> Picture:
    """A thing of which what is boxed has sqrt(width x height) `size` px.

    Args:
        image: RGB and alpha, uint8 [h, w, 4].
        size: in px.
        part: uint8 [h, w], the part of the thing that is boxed; None for the whole.
    """
    alpha = _without_fringe(image[..., 3])
    colours = cv2.multiply(image[..., :3], cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    whole, boxed = np.dstack([colours, alpha]).astype(np.uint8), alpha
    if part is not None and np.minimum(part, alpha).max() >= 128:  # the part may be thinner than the fringe
        boxed = np.minimum(part, alpha)
    _, _, width, height = cv2.boundingRect((boxed >= 128).astype(np.uint8))
    factor = min(_DENSITY * size / float(np.sqrt(max(width * height, 1))), 1.0)
    whole = np.pad(_shrunk(whole, factor), ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)))
    boxed = np.pad(_shrunk(boxed, factor), _MARGIN)

    outline = _half_crossings(boxed)
    low, high = outline.min(0), outline.max(0)
    centre, density = (low + high) / 2, float(np.sqrt(np.prod(np.maximum(high - low, 1)))) / size
    full_size = np.array(whole.shape[1::-1])
    corners = (np.stack([np.zeros(2), full_size]) - 0.5 - centre) / density
    levels: list[Level] = []
    while True:
        ratio = np.array(whole.shape[1::-1]) / full_size
        levels.append(Level(whole, boxed, _curve(density * ratio), _curve((centre + 0.5) * ratio - 0.5)))
        if min(whole.shape[:2]) < 12 or density * ratio.min() < 0.3:
            break
        whole, boxed = _shrunk(whole, 0.5), _shrunk(boxed, 0.5)
    outline = outline[:: -(-len(outline) // _MOST_OUTLINE_POINTS)]
    return Picture(tuple(levels), _curve((outline - centre) / density), _curve(corners))


def _without_fringe(alpha: Image) -> Image:
    """The alpha with a soft edge half a pixel further in, where nothing shows of what the thing was cut from."""
    blurred = cv2.GaussianBlur(cv2.copyMakeBorder(alpha, 2, 2, 2, 2, cv2.BORDER_CONSTANT), (0, 0), 0.8)[2:-2, 2:-2]
    softened = np.asarray(cv2.addWeighted(blurred, 1.6, blurred, 0, -0.6 * 255), np.uint8)
    return softened if softened.max() >= 128 else alpha


def _shrunk(image: Image, factor: float) -> Image:
    if factor == 1:
        return image
    size = (max(round(image.shape[1] * factor), 4), max(round(image.shape[0] * factor), 4))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _half_crossings(alpha: Image) -> Floats:
    """Where alpha passes through half of its maximum between neighbouring pixels, [P, 2] in pixel indices."""
    found = []
    values = alpha / max(float(alpha.max()), 1) - 0.5
    for rows, transposed in ((values, False), (values.T, True)):
        before, after = rows[:, :-1], rows[:, 1:]
        row, column = np.nonzero((before >= 0) != (after >= 0))
        share = before[row, column] / (before[row, column] - after[row, column])
        places = np.stack([column + share, row.astype(np.float64)], axis=1)
        found.append(places[:, ::-1] if transposed else places)
    return np.concatenate(found)


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


@dataclass(frozen=True)
class FlexibleAppearance(Appearance):
    """A picture that deforms, and may fade to a second one of the same shape."""

    picture: Picture
    deformation: Deformation
    frames: int
    second: Picture | None = None

    def outlines_xy(self) -> Floats:
        """The outline, deformed, [N, P, 2]."""
        outline_xy = self.picture.outline_xy
        x, y = np.broadcast_to(outline_xy.T[:, None], (2, self.frames, len(outline_xy)))
        drawn = self.deformation.destinations(x, y, np.arange(self.frames)[:, None])
        return np.stack(drawn, axis=-1).astype(np.float64)

    def half_size_xy(self, index: int) -> Floats:
        """The reach of the deformed rectangle of the picture."""
        rim = np.linspace(0, 1, 9)[:, None]
        (x1, y1), (x2, y2) = self.picture.corners_xy
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        sides = [start + rim * (end - start) for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
        rim_x, rim_y = np.concatenate(sides).astype(np.float32).T
        drawn = self.deformation.destinations(rim_x, rim_y, index)
        return np.array([np.abs(drawn[0]).max(), np.abs(drawn[1]).max()], np.float64)

    def draw(self, index: int, matrix: Floats, centre_xy: Floats, size: tuple[int, int]) -> tuple[Image, Image]:
        """The deformed picture, and the alpha of what is boxed."""
        number, places = self._places(index, matrix, centre_xy, size)
        level = self.picture.levels[number]
        image = self.blended(level.image, None if self.second is None else self.second.levels[number].image, index)
        patch, boxed = (np.asarray(cv2.remap(a, *places, cv2.INTER_LINEAR), np.uint8) for a in (image, level.boxed))
        return patch, boxed

    def area(self, index: int, matrix: Floats) -> float:
        """The sum of the boxed alpha, drawn whole."""
        half = np.abs(matrix) @ self.half_size_xy(index) + 2
        size = (2 * int(np.ceil(half[0])) + 1, 2 * int(np.ceil(half[1])) + 1)
        number, places = self._places(index, matrix, (np.array(size) - 1) / 2, size)
        boxed = self.picture.levels[number].boxed
        return max(float(cv2.sumElems(cv2.remap(boxed, *places, cv2.INTER_LINEAR))[0]) / 255, 1.0)

    def _places(
        self, index: int, matrix: Floats, centre_xy: Floats, size: tuple[int, int]
    ) -> tuple[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """The level to draw from, and where in it the pixels of a patch come from."""
        inverse = np.linalg.inv(matrix).astype(np.float32)
        across = np.arange(size[0], dtype=np.float32)[None] - np.float32(centre_xy[0])
        down = np.arange(size[1], dtype=np.float32)[:, None] - np.float32(centre_xy[1])
        x, y = inverse[0, 0] * across + inverse[0, 1] * down, inverse[1, 0] * across + inverse[1, 1] * down
        x, y = self.deformation.sources(x, y, index)
        scale = float(np.sqrt(abs(np.linalg.det(matrix))))
        enough = [n for n, level in enumerate(self.picture.levels) if float(level.density_xy.min()) >= 0.9 * scale]
        number = enough[-1] if enough else 0
        level = self.picture.levels[number]
        return number, (x * level.density_xy[0] + level.centre_xy[0], y * level.density_xy[1] + level.centre_xy[1])
