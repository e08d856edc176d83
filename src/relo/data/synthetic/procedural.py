"""Scenes of procedural textures: shapes, patterns and palettes that are drawn from the generator alone."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic import textures
from relo.data.synthetic.material import Appearance, Material
from relo.data.synthetic.settings import SceneSettings
from relo.data.synthetic.textures import Sprite


@dataclass(frozen=True)
class RigidAppearance(Appearance):
    """A sprite that keeps its shape, and may fade to a second one of the same shape."""

    sprite: Sprite
    second: Sprite | None = None
    fade: NDArray[np.float64] | None = None  # [N], the share of the second

    def outlines_xy(self) -> NDArray[np.float64]:
        """The sprite's contour."""
        return self.sprite.contour_xy[None]

    def half_size_xy(self, index: int) -> NDArray[np.float64]:
        """Half the sprite's picture."""
        return np.array(self.sprite.centre_xy)

    def draw(
        self, index: int, matrix: NDArray[np.float64], centre_xy: NDArray[np.float64], size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The sprite, warped."""
        offset = centre_xy - matrix @ np.array(self.sprite.centre_xy)
        patch = cv2.warpAffine(self._image(index), np.column_stack([matrix, offset]), size, flags=cv2.INTER_LINEAR)
        return np.asarray(patch, np.uint8), np.ascontiguousarray(patch[..., 3], np.uint8)

    def area(self, index: int, matrix: NDArray[np.float64]) -> float:
        """The area inside the contour."""
        outline = self.sprite.contour_xy
        following = np.roll(outline, -1, axis=0)
        area = abs((outline[:, 0] * following[:, 1] - outline[:, 1] * following[:, 0]).sum()) / 2
        return float(area * abs(np.linalg.det(matrix)))

    def faded(self, share: NDArray[np.float64]) -> "RigidAppearance":
        """The sprite with so much of the second one over it."""
        return replace(self, fade=share)

    def _image(self, index: int) -> NDArray[np.uint8]:
        if self.second is None or self.fade is None or self.fade[index] == 0:
            return self.sprite.image
        share = float(self.fade[index])
        return np.asarray(cv2.addWeighted(self.sprite.image, 1 - share, self.second.image, share, 0), np.uint8)


class ProceduralMaterial(Material):
    """Textured shapes before a textured ground."""

    def __init__(self, settings: SceneSettings) -> None:
        self._settings = settings

    def target(
        self, rng: np.random.Generator, size: float, frames: int, image_size: tuple[int, int]
    ) -> RigidAppearance:
        """A vivid shape, with a second texture."""
        self._size, self._outline, self._colours = size, textures.outline(rng), textures.palette(rng, vivid=True)
        self._target_half = _half_sizes(rng, size * 1.15)  # an outline fills about three quarters of its square
        own, other = (textures.sprite(rng, self._outline, *self._target_half, self._colours) for _ in range(2))
        return RigidAppearance(own, other)

    def distractor(self, rng: np.random.Generator, size: float, frames: int, look_alike: bool) -> RigidAppearance:
        """A vivid shape; a look-alike has the target's outline and colours."""
        if look_alike:
            colours = np.roll(self._colours, rng.integers(20, 100), axis=0)
            half_width, half_height = (half * size / self._size for half in self._target_half)
            return RigidAppearance(textures.sprite(rng, self._outline, half_width, half_height, colours))
        colours = textures.palette(rng, vivid=True)
        return RigidAppearance(textures.sprite(rng, textures.outline(rng), *_half_sizes(rng, size), colours))

    def occluder(
        self, rng: np.random.Generator, half_xy: NDArray[np.float64], frames: int, full: bool
    ) -> RigidAppearance:
        """A dull rounded box."""
        radius = textures.rounded_box(rng.uniform(4, 8))
        half_width, half_height = (float(value * radius.max()) for value in half_xy)
        colours = textures.palette(rng, vivid=False)
        return RigidAppearance(textures.sprite(rng, radius / radius.max(), half_width, half_height, colours))

    def background(self, rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
        """Ground and clutter, in the target's colours where it is camouflaged."""
        colours = textures.palette(rng, vivid=False)
        if rng.random() < self._settings.camouflage:
            colours = cv2.addWeighted(self._colours, 0.75, colours, 0.25, 0).astype(np.uint8)
        return textures.background(rng, height, width, colours, self._settings.clutter)


def _half_sizes(rng: np.random.Generator, size: float) -> tuple[float, float]:
    aspect = np.exp(rng.uniform(-0.55, 0.55) / 2)
    return size / 2 * aspect, size / 2 / aspect
