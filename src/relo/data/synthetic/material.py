"""What a scene is made of: the contract between the plan of a scene and the pictures that fill it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Appearance(ABC):
    """The looks of a thing in each of a scene's N frames, in px about its centre; the scene's plan poses it."""

    fade: Floats | None = None  # [N], the share of its second look, where it has one

    @abstractmethod
    def outlines_xy(self) -> Floats:
        """Points of what an annotator would box, float64 [N, P, 2], or [1, P, 2] where they stay."""

    @abstractmethod
    def half_size_xy(self, index: int) -> Floats:
        """Half of the width and height [2] that everything drawn in frame `index` fits in."""

    @abstractmethod
    def draw(self, index: int, matrix: Floats, centre_xy: Floats, size: tuple[int, int]) -> tuple[Image, Image]:
        """Draw frame `index` on an empty patch of `size` (width, height), posed by `matrix` [2, 2] about the centre.

        Returns:
            RGB multiplied by alpha, and alpha, uint8 [h, w, 4]; and the alpha [h, w] of what is boxed, which may be a
            part of the thing.
        """

    @abstractmethod
    def area(self, index: int, matrix: Floats) -> float:
        """The area of what is boxed in frame `index`, in px of the image, if nothing hides it."""

    def blended(self, image: Image, second: Image | None, index: int) -> Image:
        """The thing's image with as much of the second one as frame `index` has."""
        if second is None or self.fade is None or self.fade[index] == 0:
            return image
        share = float(self.fade[index])
        return np.asarray(cv2.addWeighted(image, 1 - share, second, share, 0), np.uint8)


class Material(ABC):
    """Makes the things of one scene, and its background; what it draws comes from the generator given."""

    smallest_size: float = 0.0
    """sqrt(width x height) that no target falls below, in px."""
    margin: float = 0.6
    """How far the target's centre stays inside the image, in sizes of the target."""

    @abstractmethod
    def target(self, rng: np.random.Generator, size: float, frames: int, image_size: tuple[int, int]) -> Appearance:
        """The target, of sqrt(width x height) `size` in px, in an image of (width, height); called first."""

    @abstractmethod
    def distractor(self, rng: np.random.Generator, size: float, frames: int, look_alike: bool) -> Appearance:
        """A thing that moves behind the target, and may look like it."""

    @abstractmethod
    def occluder(self, rng: np.random.Generator, half_xy: Floats, frames: int, full: bool) -> Appearance:
        """A thing of half the size `half_xy` [2] that passes before the target; a full one fills its corners."""

    @abstractmethod
    def background(self, rng: np.random.Generator, height: int, width: int) -> Image:
        """What lies behind everything, uint8 [height, width, 3], RGB."""

    def lens(self, rng: np.random.Generator, frames: int) -> Floats:
        """By what factor [N], at least 1, the camera enlarges everything; called last."""
        return np.ones(frames)

    def develop(self, frame: Image, index: int) -> Image:
        """What the camera makes of a frame, RGB uint8 [H, W, 3]: nothing more, unless a material says so."""
        return frame


def lay_over(ground: Image, patch: Image, x: int, y: int) -> None:
    """Draw a patch uint8 [h, w, 4] on the ground [H, W, 3] in place, its corner at (x, y); both may reach beyond."""
    x1, y1 = max(x, 0), max(y, 0)
    x2, y2 = min(x + patch.shape[1], ground.shape[1]), min(y + patch.shape[0], ground.shape[0])
    if x2 <= x1 or y2 <= y1:
        return
    seen, region = patch[y1 - y : y2 - y, x1 - x : x2 - x], ground[y1:y2, x1:x2]
    behind = cv2.multiply(region, cv2.cvtColor(255 - seen[..., 3], cv2.COLOR_GRAY2RGB), scale=1 / 255)
    cv2.add(behind, cv2.cvtColor(seen, cv2.COLOR_RGBA2RGB), dst=region)
