"""Pictures of things that bend, turn and have parts, for scenes of photographs."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic.deformation import Deformation
from relo.data.synthetic.material import Appearance

_DENSITY = 1.5  # px of the largest picture per px of the thing, where the source has as many
_MOST_OUTLINE_POINTS = 1500
_MARGIN = 2  # transparent px around a picture


@dataclass(frozen=True)
class Level:
    """A picture at one resolution: place = thing's px * density + centre."""

    image: NDArray[np.uint8]  # [h, w, 4], RGB multiplied by alpha, and alpha
    boxed: NDArray[np.uint8] | None  # [h, w], the alpha of the part that is boxed; None for the whole
    density_xy: NDArray[np.float32]  # [2]
    centre_xy: NDArray[np.float32]  # [2]


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


def make_picture(image: NDArray[np.uint8], size: float, part: NDArray[np.uint8] | None = None) -> Picture:
    """A thing of which what is boxed has sqrt(width x height) `size` px.

    Args:
        image: RGB and alpha, uint8 [h, w, 4].
        size: in px.
        part: uint8 [h, w], the part of the thing that is boxed; None for the whole.
    """
    alpha = _without_fringe(image[..., 3])
    colours = cv2.multiply(image[..., :3], cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    whole = np.dstack([colours, alpha]).astype(np.uint8)
    boxed = None if part is None else np.minimum(part, alpha)
    boxed = None if boxed is None or boxed.max() < 128 else boxed  # where the part is thinner than the fringe
    _, _, width, height = cv2.boundingRect(((alpha if boxed is None else boxed) >= 128).astype(np.uint8))
    whole, boxed = _shrunk(whole, boxed, min(_DENSITY * size / float(np.sqrt(max(width * height, 1))), 1.0))
    whole = np.pad(whole, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)))
    boxed = None if boxed is None else np.pad(boxed, _MARGIN)

    outline = _half_crossings(whole[..., 3] if boxed is None else boxed)
    low, high = outline.min(0), outline.max(0)
    centre, density = (low + high) / 2, float(np.sqrt(np.prod(np.maximum(high - low, 1)))) / size
    full_size = np.array(whole.shape[1::-1])
    corners = (np.stack([np.zeros(2), full_size]) - 0.5 - centre) / density
    levels: list[Level] = []
    while True:
        ratio = np.array(whole.shape[1::-1]) / full_size
        levels.append(Level(whole, boxed, _float32(density * ratio), _float32((centre + 0.5) * ratio - 0.5)))
        if min(whole.shape[:2]) < 12 or density * ratio.min() < 0.3:
            break
        whole, boxed = _shrunk(whole, boxed, 0.5)
    outline = outline[:: -(-len(outline) // _MOST_OUTLINE_POINTS)]
    return Picture(tuple(levels), _float32((outline - centre) / density), _float32(corners))


@dataclass(frozen=True)
class FlexibleAppearance(Appearance):
    """A picture that deforms, and may fade to a second one of the same shape."""

    picture: Picture
    deformation: Deformation
    frames: int
    second: Picture | None = None
    fade: NDArray[np.float64] | None = None  # [N], the share of the second

    def outlines_xy(self) -> NDArray[np.float64]:
        """The outline, deformed, [N, P, 2]."""
        return self._deformed(self.picture.outline_xy)

    def half_size_xy(self, index: int) -> NDArray[np.float64]:
        """The reach of the deformed rectangle of the picture."""
        rim = np.linspace(0, 1, 9)[:, None]
        (x1, y1), (x2, y2) = self.picture.corners_xy
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        sides = [start + rim * (end - start) for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
        rim_x, rim_y = np.concatenate(sides).astype(np.float32).T
        drawn = self.deformation.destinations(rim_x, rim_y, index)
        return np.array([np.abs(drawn[0]).max(), np.abs(drawn[1]).max()], np.float64)

    def draw(
        self, index: int, matrix: NDArray[np.float64], centre_xy: NDArray[np.float64], size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The deformed picture, and the alpha of what is boxed."""
        number, places = self._places(index, matrix, centre_xy, size)
        level = self.picture.levels[number]
        image = level.image
        if self.second is not None and self.fade is not None and self.fade[index] > 0:
            share = float(self.fade[index])
            image = np.asarray(cv2.addWeighted(image, 1 - share, self.second.levels[number].image, share, 0), np.uint8)
        patch = np.asarray(cv2.remap(image, *places, cv2.INTER_LINEAR), np.uint8)
        if level.boxed is None:
            return patch, np.ascontiguousarray(patch[..., 3])
        return patch, np.asarray(cv2.remap(level.boxed, *places, cv2.INTER_LINEAR), np.uint8)

    def area(self, index: int, matrix: NDArray[np.float64]) -> float:
        """The sum of the boxed alpha, drawn whole."""
        half = np.abs(matrix) @ self.half_size_xy(index) + 2
        size = (2 * int(np.ceil(half[0])) + 1, 2 * int(np.ceil(half[1])) + 1)
        number, places = self._places(index, matrix, (np.array(size) - 1) / 2, size)
        level = self.picture.levels[number]
        boxed = np.ascontiguousarray(level.image[..., 3]) if level.boxed is None else level.boxed
        return max(float(cv2.sumElems(cv2.remap(boxed, *places, cv2.INTER_LINEAR))[0]) / 255, 1.0)

    def faded(self, share: NDArray[np.float64]) -> "FlexibleAppearance":
        """The thing with so much of the second picture over it."""
        return replace(self, fade=share)

    def _deformed(self, places_xy: NDArray[np.float32]) -> NDArray[np.float64]:
        x, y = np.broadcast_to(places_xy.T[:, None], (2, self.frames, len(places_xy)))
        drawn = self.deformation.destinations(x, y, np.arange(self.frames)[:, None])
        return np.stack(drawn, axis=-1).astype(np.float64)

    def _places(
        self, index: int, matrix: NDArray[np.float64], centre_xy: NDArray[np.float64], size: tuple[int, int]
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


def _without_fringe(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The alpha with a soft edge half a pixel further in, where nothing shows of what the thing was cut from."""
    blurred = cv2.GaussianBlur(cv2.copyMakeBorder(alpha, 2, 2, 2, 2, cv2.BORDER_CONSTANT), (0, 0), 0.8)[2:-2, 2:-2]
    softened = np.asarray(cv2.addWeighted(blurred, 1.6, blurred, 0, -0.6 * 255), np.uint8)
    return softened if softened.max() >= 128 else alpha


def _shrunk(
    whole: NDArray[np.uint8], boxed: NDArray[np.uint8] | None, factor: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    if factor == 1:
        return whole, boxed
    size = (max(round(whole.shape[1] * factor), 4), max(round(whole.shape[0] * factor), 4))
    small = np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, None if boxed is None else np.asarray(cv2.resize(boxed, size, interpolation=cv2.INTER_AREA), np.uint8)


def _half_crossings(alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
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


def _float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
