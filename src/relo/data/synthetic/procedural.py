"""Scenes of procedural textures: shapes, patterns and palettes drawn from the generator alone, in RGB uint8."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic.material import Appearance, Floats, Image, Material
from relo.data.synthetic.settings import SceneSettings

_CONTOUR_POINTS = 256
_EDGE_SOFTNESS = 1.6  # px over which an outline fades


class ProceduralMaterial(Material):
    """Textured shapes before a textured ground."""

    def __init__(self, settings: SceneSettings) -> None:
        self._settings = settings

    def target(self, rng: np.random.Generator, size: float, frames: int, image_size: tuple[int, int]) -> "Sprite":
        """A vivid shape, with a second texture."""
        self._size, self._outline, self._colours = size, outline(rng), palette(rng, vivid=True)
        self._target_half = _half_sizes(rng, size * 1.15)  # an outline fills about three quarters of its square
        own, other = (sprite(rng, self._outline, *self._target_half, self._colours) for _ in range(2))
        return replace(own, second=other.image)

    def distractor(self, rng: np.random.Generator, size: float, frames: int, look_alike: bool) -> "Sprite":
        """A vivid shape; a look-alike has the target's outline and colours."""
        if look_alike:
            colours = np.roll(self._colours, rng.integers(20, 100), axis=0)
            half_width, half_height = (half * size / self._size for half in self._target_half)
            return sprite(rng, self._outline, half_width, half_height, colours)
        colours = palette(rng, vivid=True)
        return sprite(rng, outline(rng), *_half_sizes(rng, size), colours)

    def occluder(self, rng: np.random.Generator, half_xy: Floats, frames: int, full: bool) -> "Sprite":
        """A dull rounded box."""
        radius = rounded_box(rng.uniform(4, 8))
        half_width, half_height = (float(value * radius.max()) for value in half_xy)
        return sprite(rng, radius / radius.max(), half_width, half_height, palette(rng, vivid=False))

    def background(self, rng: np.random.Generator, height: int, width: int) -> Image:
        """Ground and clutter, in the target's colours where it is camouflaged."""
        colours = palette(rng, vivid=False)
        if rng.random() < self._settings.camouflage:
            colours = cv2.addWeighted(self._colours, 0.75, colours, 0.25, 0).astype(np.uint8)
        return background(rng, height, width, colours, self._settings.clutter)


def _half_sizes(rng: np.random.Generator, size: float) -> tuple[float, float]:
    aspect = np.exp(rng.uniform(-0.55, 0.55) / 2)
    return size / 2 * aspect, size / 2 / aspect


@dataclass(frozen=True)
class Sprite(Appearance):
    """A textured shape with soft edges that keeps its shape, and may fade to a second texture.

    Attributes:
        image: uint8 [h, w, 4], RGB multiplied by alpha, and alpha.
        contour_xy: float64 [P, 2], where alpha is one half, in px from the sprite's centre.
        second: the image with the second texture.
    """

    image: Image
    contour_xy: Floats
    second: Image | None = None

    def outlines_xy(self) -> Floats:
        """The contour."""
        return self.contour_xy[None]

    def half_size_xy(self, index: int) -> Floats:
        """Half the picture: its centre, in pixel indices."""
        height, width = self.image.shape[:2]
        return np.array([(width - 1) / 2, (height - 1) / 2])

    def draw(self, index: int, matrix: Floats, centre_xy: Floats, size: tuple[int, int]) -> tuple[Image, Image]:
        """The sprite, warped."""
        image = self.blended(self.image, self.second, index)
        offset = centre_xy - matrix @ self.half_size_xy(index)
        patch = cv2.warpAffine(image, np.column_stack([matrix, offset]), size, flags=cv2.INTER_LINEAR)
        return np.asarray(patch, np.uint8), np.ascontiguousarray(patch[..., 3], np.uint8)

    def area(self, index: int, matrix: Floats) -> float:
        """The area inside the contour."""
        following = np.roll(self.contour_xy, -1, axis=0)
        area = abs((self.contour_xy[:, 0] * following[:, 1] - self.contour_xy[:, 1] * following[:, 0]).sum()) / 2
        return float(area * abs(np.linalg.det(matrix)))


def sprite(
    rng: np.random.Generator,
    radius: Floats,
    half_width: float,
    half_height: float,
    colours: Image,
) -> Sprite:
    """Texture and shade the shape of `radius` [P] (see `outline`), stretched to the half sizes, in px."""
    width, height = (int(2 * half + 2 * _EDGE_SOFTNESS) + 3 for half in (half_width, half_height))
    x = (np.arange(width) - (width - 1) / 2)[None]
    y = (np.arange(height) - (height - 1) / 2)[:, None]
    distance = np.hypot(x / half_width, y / half_height)  # 1 on the unstretched unit circle
    angle = np.arctan2(y / half_height, x / half_width)
    edge = np.interp(angle, np.linspace(0, 2 * np.pi, len(radius) + 1), np.append(radius, radius[0]), period=2 * np.pi)
    # Along a ray from the centre the outline is `edge / distance` as far out as the pixel.
    pixels_inside = (edge - distance) / np.maximum(distance, 1e-6) * np.hypot(x, y)
    alpha = np.clip(0.5 + pixels_inside / _EDGE_SOFTNESS, 0, 1)
    alpha[height // 2, width // 2] = 1.0

    light = rng.uniform(-1, 1, 2)
    shade = 1 + 0.28 * (light[0] * x / half_width + light[1] * y / half_height) - 0.3 * (distance / edge) ** 4
    shaded = textured(rng, height, width, colours) * np.clip(shade, 0.25, 1.5)[..., None]
    image = np.concatenate([np.minimum(shaded, 255) * alpha[..., None], alpha[..., None] * 255], axis=-1)
    contour_angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False)
    contour_x, contour_y = half_width * radius * np.cos(contour_angle), half_height * radius * np.sin(contour_angle)
    contour_xy = np.stack([contour_x, contour_y], axis=1)
    return Sprite((image + 0.5).astype(np.uint8), contour_xy)


def rounded_box(power: float) -> Floats:
    """The radius [P] at P even angles of a square of half side 1 with round corners: a circle at 2, sharper beyond."""
    angle = np.linspace(0, 2 * np.pi, _CONTOUR_POINTS, endpoint=False)
    return np.asarray((np.abs(np.cos(angle)) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power))


def outline(rng: np.random.Generator) -> Floats:
    """The radius [P] of a random smooth shape at P even angles, at most 1: a rounded box, an ellipse or a blob."""
    angle = np.linspace(0, 2 * np.pi, _CONTOUR_POINTS, endpoint=False)
    if rng.random() < 0.4:
        radius = rounded_box(rng.uniform(2, 5))
    else:
        harmonics = np.arange(2, 6)
        size = rng.normal(0, 0.28, 4) / harmonics**0.7
        radius = 1 + (size[:, None] * np.cos(harmonics[:, None] * angle + rng.uniform(0, 2 * np.pi, (4, 1)))).sum(0)
        radius = np.maximum(radius, 0.45)
    return np.asarray(radius / radius.max())


def background(rng: np.random.Generator, height: int, width: int, colours: Image, clutter: int) -> Image:
    """A scene uint8 [height, width, 3] of ground, `clutter` flat and textured things, and uneven light."""
    size = min(height, width)
    ground = value_noise(rng, height, width, size * rng.uniform(0.1, 0.5), 5)
    image = colours[(ground * 255).astype(np.uint8)]
    for _ in range(clutter):
        centre = rng.uniform((0, 0), (width, height))
        reach = size * rng.uniform(0.02, 0.12) * np.array([1, rng.uniform(0.3, 1)])
        if rng.random() < 0.25:
            _paste_texture(rng, image, centre, reach * 1.3)
            continue
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
        turn = rng.uniform(0, np.pi)
        corners = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach
        corners = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + centre
        colour = tuple(int(c) for c in np.clip(colours[rng.integers(256)] + rng.normal(0, 28, 3), 0, 255))
        if rng.random() < 0.2:
            cv2.polylines(image, [corners.astype(np.int32)], True, colour, int(rng.integers(1, 5)), cv2.LINE_AA)
        else:
            cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 1.3))
    grid = rng.uniform(0.65, 1.25, (3, 4)).astype(np.float32)
    light = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.multiply(blurred, cv2.cvtColor(light, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U), np.uint8)


def _paste_texture(rng: np.random.Generator, image: Image, centre: Floats, reach: Floats) -> None:
    """A textured ellipse or box, painted on `image` in place."""
    height, width = image.shape[:2]
    x1, y1 = (int(v) for v in np.maximum(centre - reach, 0))
    x2, y2 = (int(v) for v in np.minimum(centre + reach, (width, height)))
    if x2 - x1 < 8 or y2 - y1 < 8:
        return
    texture = palette(rng, vivid=rng.random() < 0.3)[(pattern(rng, y2 - y1, x2 - x1) * 255).astype(np.uint8)]
    mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
    if rng.random() < 0.5:
        cv2.ellipse(mask, ((x2 - x1) // 2, (y2 - y1) // 2), ((x2 - x1) // 2, (y2 - y1) // 2), 0, 0, 360, 255, -1)
    else:
        mask[:] = 255
    cv2.copyTo(texture, mask, image[y1:y2, x1:x2])


def textured(rng: np.random.Generator, height: int, width: int, colours: Image) -> Image:
    """A texture uint8 [height, width, 3] out of `colours` [256, 3]: two patterns, mixed."""
    share = value_noise(rng, height, width, min(height, width) * 0.7, 1)
    mixed = np.where(share < rng.uniform(0.35, 0.65), pattern(rng, height, width), pattern(rng, height, width))
    grain = value_noise(rng, height, width, 3, 1) - 0.5
    return np.asarray(colours[(np.clip(mixed + 0.12 * grain, 0, 1) * 255).astype(np.uint8)])


def pattern(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """A pattern float32 [height, width] in [0, 1] of a random family: stripes, checks, rings, cells, noise."""
    size = min(height, width)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    angle, period = rng.uniform(0, np.pi), np.float32(size * rng.uniform(0.16, 0.5))
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    warp = value_noise(rng, height, width, size * 0.5, 1) * period * np.float32(rng.uniform(0, 1.2))
    family = rng.integers(5)
    if family == 0:
        wave = np.sin((along + warp) * (2 * np.pi / period))
    elif family == 1:
        wave = np.sin((along + warp) * (2 * np.pi / period)) * np.sin((across + warp) * (2 * np.pi / period)) * 1.6
    elif family == 2:
        radius = np.hypot(x - width * rng.uniform(0.2, 0.8), y - height * rng.uniform(0.2, 0.8))
        wave = np.sin((radius + warp) * (2 * np.pi / period))
    elif family == 3:
        seeds = rng.uniform(0, 1, (12, 3)).astype(np.float32)
        places = seeds[:, :2] * np.array([width, height], np.float32)
        distance = (x - places[:, 0, None, None]) ** 2 + (y - places[:, 1, None, None]) ** 2
        return np.asarray(seeds[distance.argmin(0), 2])
    else:
        return value_noise(rng, height, width, size * rng.uniform(0.25, 0.6), 3)
    return np.asarray(np.clip(0.5 + 0.5 * wave, 0, 1), np.float32)


def value_noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int) -> NDArray[np.float32]:
    """Fractal noise float32 [height, width] in [0, 1]; its coarsest features are about `cell` px wide."""
    noise = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = rng.random((int(height / step) + 3, int(width / step) + 3), np.float32) * np.float32(0.6**octave)
        noise += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    low, high = float(noise.min()), float(noise.max())
    return (noise - np.float32(low)) / np.float32(max(high - low, 1e-6))


def palette(rng: np.random.Generator, vivid: bool) -> Image:
    """256 RGB colours [256, 3] that run through some random ones, smoothly or in bands."""
    count = int(rng.integers(3, 6))
    saturation = rng.uniform(60, 240, count) if vivid else rng.uniform(5, 85, count)
    value = rng.permutation(np.linspace(50, 245, count)) if vivid else rng.uniform(50, 210, count)
    hue = (rng.uniform(0, 180) + rng.normal(0, 35 if vivid else 15, count)) % 180
    hsv = np.stack([hue, saturation, value], axis=1).astype(np.uint8)
    colours = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    if rng.random() < 0.5:
        return np.repeat(colours, -(-256 // count), axis=0)[:256]
    return np.asarray(cv2.resize(colours[:, None], (1, 256), interpolation=cv2.INTER_LINEAR)[:, 0], np.uint8)
