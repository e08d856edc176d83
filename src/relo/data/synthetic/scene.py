"""One synthetic sequence: planned as smooth curves for all frames at once, then rendered frame by frame."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic.material import Appearance, Floats, Image, Material, lay_over
from relo.data.synthetic.motion import episodes, roam, wander
from relo.data.synthetic.procedural import ProceduralMaterial
from relo.data.synthetic.settings import SceneSettings
from relo.settings import check_whole

MOST_FRAMES = 100_000
LARGEST_FRAME = 4096
"""Pixels of a side: a frame of floats takes hundreds of megabytes."""

_NOISE_OFFSET = 12  # the noise picture is unsigned: this much is added with it, and taken off by the light table
_FULLY_HIDDEN = 0.1  # a target of which less than this share shows counts as absent


@dataclass(frozen=True)
class SceneAnnotation:
    """The truth about N frames.

    Attributes:
        boxes_xywh: float64 [N, 4], image pixels: the extent of the target's outline, hidden parts included, cut to the
            image; zeros where it is wholly outside.
        visible: bool [N], whether at least a tenth of the target shows.
        visible_ratio: float64 [N], the share of the target that is neither hidden nor outside the image.
        cut_by_image: bool [N], whether the image's border cuts the target.
        image_size: the frames' width and height, in pixels.
    """

    boxes_xywh: Floats
    visible: NDArray[np.bool_]
    visible_ratio: Floats
    cut_by_image: NDArray[np.bool_]
    image_size: tuple[int, int]


@dataclass(frozen=True)
class RenderedSequence(SceneAnnotation):
    """A sequence with its truth: `frames` is uint8 [N, H, W, 3], RGB."""

    frames: Image


def texture_seed(split: str, seed: int, name: str) -> list[int]:
    """The seed of a sequence's generator; splits differ in its first number, so that no two share a texture."""
    return [zlib.crc32(split.encode()), seed, zlib.crc32(name.encode())]


def check_size(frames: int, width: int, height: int) -> None:
    """Refuse sequences that are too short, too long, too small or too large.

    Raises:
        UserError: a number is out of its range.
    """
    check_whole("A synthetic sequence", 2, MOST_FRAMES, frames=frames)
    check_whole("A synthetic sequence", 64, LARGEST_FRAME, width=width, height=height)


def render_sequence(
    name: str,
    *,
    frames: int = 60,
    width: int = 320,
    height: int = 240,
    seed: int = 0,
    split: str = "train",
    settings: SceneSettings | None = None,
) -> RenderedSequence:
    """Render the sequence called `name` of `split`; the arguments determine every byte.

    Raises:
        UserError: the number of frames or the size of the image is out of range.
    """
    scene = Scene(name, frames=frames, width=width, height=height, seed=seed, split=split, settings=settings)
    images, visible_ratio = zip(*scene.render(), strict=True)
    return RenderedSequence(**vars(scene.annotate(np.array(visible_ratio))), frames=np.stack(images))


@dataclass(frozen=True)
class _Actor:
    """A thing that moves: its looks and where it is in each frame."""

    appearance: Appearance
    matrices: Floats  # [N, 2, 2], the thing's px -> image px about the centre
    centres_xy: Floats  # [N, 2], pixel indices

    def extents_xyxy(self, frames: slice = slice(None)) -> Floats:
        """The extent [N, 4] of the outline, in image pixels (a pixel is a unit square, so its centre is at + 0.5)."""
        outlines_xy = self.appearance.outlines_xy()[frames]
        outlines_xy = np.einsum("nij,npj->npi", self.matrices[frames], outlines_xy)
        outlines_xy = outlines_xy + self.centres_xy[frames, None] + 0.5
        return np.concatenate([outlines_xy.min(1), outlines_xy.max(1)], axis=1)

    def enlarged(self, factor: Floats, fixed_xy: Floats) -> "_Actor":
        """The actor after a zoom by `factor` [N] about a point [2]."""
        centres_xy = fixed_xy + (self.centres_xy - fixed_xy) * factor[:, None]
        return replace(self, matrices=self.matrices * factor[:, None, None], centres_xy=centres_xy)


class Scene:
    """A planned sequence; `render` yields its frames one by one, so that a long one needs little memory."""

    def __init__(
        self,
        name: str,
        *,
        frames: int,
        width: int,
        height: int,
        seed: int,
        split: str,
        settings: SceneSettings | None = None,
        material: Material | None = None,
    ) -> None:
        check_size(frames, width, height)
        self._settings = settings or SceneSettings()
        self._material = material or ProceduralMaterial(self._settings)
        self._frames, self._width, self._height = frames, width, height
        self._image_size = np.array([width, height], np.float64)
        self._rng = np.random.default_rng(texture_seed(split, seed, name))
        self._plan_target()
        self._plan_things()
        self._plan_camera()

    def annotate(self, visible_ratio: Floats) -> SceneAnnotation:
        """The truth, given the shares [N] of the target that `render` found to show."""
        extents_xyxy = self._target.extents_xyxy()
        inside_xyxy = np.clip(extents_xyxy, 0, np.tile(self._image_size, 2))
        boxes_xywh = np.concatenate([inside_xyxy[:, :2], inside_xyxy[:, 2:] - inside_xyxy[:, :2]], axis=1)
        boxes_xywh[(boxes_xywh[:, 2:] <= 0).any(1)] = 0
        return SceneAnnotation(
            boxes_xywh=boxes_xywh,
            visible=visible_ratio >= _FULLY_HIDDEN,
            visible_ratio=visible_ratio,
            cut_by_image=(inside_xyxy != extents_xyxy).any(1),
            image_size=(self._width, self._height),
        )

    def render(self) -> Iterator[tuple[Image, float]]:
        """The frames, each RGB uint8 [H, W, 3] with the share of the target that shows."""
        return (self._render_frame(index) for index in range(self._frames))

    # ---------------------------------------------------------------------------------------------------------- plan

    def _speed(self) -> float:
        low, high = self._settings.speed
        return float(np.exp(self._rng.uniform(np.log(low), np.log(high)))) * self._width

    def _poses(self, log_scale: float, log_aspect: float, turn: float, least_scale: float = 0.0) -> Floats:
        """Smooth changes of size, aspect and angle as matrices [N, 2, 2]."""
        rng, frames = self._rng, self._frames
        scale = np.exp(wander(rng, frames, 22, -log_scale, log_scale)).clip(least_scale)
        aspect = np.exp(wander(rng, frames, 18, -log_aspect, log_aspect) / 2)
        turned = _rotations(wander(rng, frames, 16, -turn, turn))
        return turned * np.stack([scale * aspect, scale / aspect], axis=1)[:, None]

    def _plan_target(self) -> None:
        rng, settings = self._rng, self._settings
        low, high = settings.target_size
        size = float(np.exp(rng.uniform(np.log(low), np.log(high)))) * (self._width * self._height) ** 0.5
        self._size = max(size, self._material.smallest_size)
        appearance = self._material.target(rng, self._size, self._frames, (self._width, self._height))
        margin = np.minimum(self._size * self._material.margin, self._image_size * 0.3)
        path = roam(rng, self._frames, self._speed(), margin, self._image_size - margin)
        away = episodes(rng, self._frames, settings.out_of_view, 30)
        if away.any():
            exits = np.array([[-0.2, 0.5], [1.2, 0.5], [0.5, -0.25], [0.5, 1.25]])
            exit_xy = self._image_size * exits[rng.integers(4)]
            path = path + away[:, None] * (exit_xy - path)
        least_scale = self._material.smallest_size / self._size
        poses = self._poses(settings.scale_change, settings.aspect_change, settings.rotation, least_scale)
        fade = wander(rng, self._frames, 25, -0.3, 1).clip(0) * settings.appearance_change
        self._target = _Actor(replace(appearance, fade=fade), poses, path)

    def _plan_things(self) -> None:
        rng, settings = self._rng, self._settings
        fewest, most = settings.distractors
        self._behind = [self._distractor() for _ in range(rng.integers(fewest, most + 1))]
        count = rng.poisson(settings.occlusions * self._frames / 60)
        extents_xyxy = self._target.extents_xyxy()
        occluders = [self._occluder(extents_xyxy) for _ in range(count)]
        # The target must be seen where it is given to the tracker.
        start = slice(3)
        self._before = [actor for actor in occluders if not _touch(actor.extents_xyxy(start), extents_xyxy[start])]

    def _distractor(self) -> _Actor:
        rng = self._rng
        size = self._size * rng.uniform(0.8, 1.25)
        look_alike = rng.random() < self._settings.look_alike
        appearance = self._material.distractor(rng, size, self._frames, look_alike)
        path = roam(rng, self._frames, self._speed(), -0.1 * self._image_size, 1.1 * self._image_size)
        return _Actor(appearance, self._poses(0.2, 0.15, 0.5), path)

    def _occluder(self, extents_xyxy: Floats) -> _Actor:
        """A thing that crosses the image on a straight course and meets the target, of these extents, on its way."""
        rng = self._rng
        meeting = int(rng.integers(min(10, self._frames - 1), self._frames))
        full = rng.random() < self._settings.full_occlusion
        extent = extents_xyxy[meeting]
        reach = float(max(extent[2:] - extent[:2])) / 2
        if full:
            half = np.array([reach, reach]) * rng.uniform(1.25, 1.6)
            offset = np.zeros(2)
        else:
            half = np.array([reach, reach]) * rng.uniform(0.3, 0.8, 2) * np.array([1, rng.uniform(1, 3)])
            offset = rng.normal(0, 0.35, 2) * reach
        heading = rng.uniform(0, 2 * np.pi)
        velocity = np.array([np.cos(heading), np.sin(heading)]) * max(self._speed(), reach * rng.uniform(0.12, 0.3))
        time = np.arange(self._frames)[:, None] - meeting
        path = self._target.centres_xy[meeting] + offset + velocity * time
        appearance = self._material.occluder(rng, half, self._frames, full)
        return _Actor(appearance, self._poses(0.0, 0.0, 0.3), path)

    def _plan_camera(self) -> None:
        rng, settings, frames = self._rng, self._settings, self._frames
        world = (self._image_size * (1 + 2 * settings.camera_motion) * 1.1).astype(int)
        self._background = self._material.background(rng, int(world[1]), int(world[0]))
        zoom = np.exp(wander(rng, frames, 25, -0.08, 0.08))
        linear = _rotations(wander(rng, frames, 25, -0.05, 0.05)) * zoom[:, None, None]  # image px -> world px
        reach = settings.camera_motion * self._image_size
        view_centre = roam(rng, frames, self._speed() * 0.6, world / 2 - reach, world / 2 + reach)
        offset = view_centre - np.einsum("nij,j->ni", linear, self._image_size / 2)
        if rng.random() < settings.shake:
            trembling = np.stack([wander(rng, frames, 2.5, -1, 1) for _ in range(2)], 1) * rng.uniform(1, 4)
            offset = offset - trembling
            self._target = replace(self._target, centres_xy=self._target.centres_xy + trembling)
        self._view = np.concatenate([linear, offset[..., None]], axis=2)  # [N, 2, 3]

        gain = np.exp(wander(rng, frames, 15, -settings.light_change, settings.light_change))
        gamma = np.exp(wander(rng, frames, 20, -settings.light_change, settings.light_change) * 0.6)
        tint = np.stack([wander(rng, frames, 25, -0.3, 0.3) for _ in range(3)], 1) * settings.light_change
        level = (np.arange(256) / 255)[None] ** gamma[:, None]  # [N, 256]
        light = level[..., None] * (gain[:, None] * (1 + tint))[:, None] * 255  # [N, 256, 3]
        self._light = np.clip(light - _NOISE_OFFSET, 0, 255).astype(np.uint8)
        grain = rng.standard_normal((self._height + 32, self._width + 32), np.float32) * settings.noise + _NOISE_OFFSET
        self._noise = np.repeat(np.clip(grain, 0, 2 * _NOISE_OFFSET).astype(np.uint8)[..., None], 3, axis=2)
        self._noise_corner = rng.integers(0, 33, (frames, 2))
        self._defocus = episodes(rng, frames, settings.blur, 20) * rng.uniform(1.0, 2.5)
        self._enlarge(self._material.lens(rng, frames))

    def _enlarge(self, factor: Floats) -> None:
        """Zoom everything by `factor` [N] about where the target starts, so that it starts inside the image."""
        if (factor == 1).all():
            return
        fixed_xy = self._target.centres_xy[0]
        self._target = self._target.enlarged(factor, fixed_xy)
        self._behind = [actor.enlarged(factor, fixed_xy) for actor in self._behind]
        self._before = [actor.enlarged(factor, fixed_xy) for actor in self._before]
        linear, offset = self._view[..., :2], self._view[..., 2]
        narrowed = linear / factor[:, None, None]
        self._view = np.concatenate([narrowed, (offset + (linear - narrowed) @ fixed_xy)[..., None]], axis=2)

    # -------------------------------------------------------------------------------------------------------- render

    def _render_frame(self, index: int) -> tuple[Image, float]:
        view = cv2.warpAffine(
            self._background,
            self._view[index],
            (self._width, self._height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        frame = np.asarray(view, np.uint8)
        for actor in self._behind:
            self._paste(frame, actor, index)
        shown = self._paste(frame, self._target, index)
        for actor in self._before:
            uncovered = 255 - self._paste(frame, actor, index)
            shown = np.asarray(cv2.multiply(shown, uncovered, scale=1 / 255), np.uint8)
        defocus = self._defocus[index]
        if defocus > 0.3:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), defocus), np.uint8)
        row, column = self._noise_corner[index]
        noise = self._noise[row : row + self._height, column : column + self._width]
        lit = cv2.add(cv2.LUT(frame, self._light[index][None]), noise)
        return self._material.develop(np.asarray(lit, np.uint8), index), self._shown_share(shown, index)

    def _shown_share(self, shown: Image, index: int) -> float:
        area = self._target.appearance.area(index, self._target.matrices[index])
        share = float(shown.sum(dtype=np.int64)) / 255 / area
        # Soft edges make the sum inexact by a few hundredths.
        return 1.0 if share > 0.96 else share

    def _paste(self, frame: Image, actor: _Actor, index: int) -> Image:
        """Draw an actor on the frame in place; the alpha [H, W] of what is boxed of it there."""
        on_frame = np.zeros(frame.shape[:2], np.uint8)
        matrix, centre_xy = actor.matrices[index], actor.centres_xy[index]
        half = np.abs(matrix) @ actor.appearance.half_size_xy(index)
        blur = self._blur_kernel(actor, index)
        pad = 1 if blur is None else 1 + blur.shape[0] // 2
        x1, y1 = (int(v) for v in np.maximum(np.floor(centre_xy - half) - pad, 0))
        x2, y2 = (int(v) for v in np.minimum(np.ceil(centre_xy + half) + pad + 1, (self._width, self._height)))
        if x2 <= x1 or y2 <= y1:
            return on_frame
        patch, boxed = actor.appearance.draw(index, matrix, centre_xy - (x1, y1), (x2 - x1, y2 - y1))
        if blur is not None:
            patch, boxed = (
                np.asarray(cv2.filter2D(image, -1, blur, borderType=cv2.BORDER_REPLICATE), np.uint8)
                for image in (patch, boxed)
            )
        lay_over(frame, patch, x1, y1)
        on_frame[y1:y2, x1:x2] = boxed
        return on_frame

    def _blur_kernel(self, actor: _Actor, index: int) -> NDArray[np.float32] | None:
        """The smear of one exposure, as a line through the kernel's middle; None if it is shorter than 2 px."""
        path = actor.centres_xy
        smear = (path[min(index + 1, len(path) - 1)] - path[max(index - 1, 0)]) / 2 * self._settings.motion_blur
        length = float(np.hypot(*smear))
        if length < 2:
            return None
        size = 2 * int(np.ceil(length / 2)) + 1
        kernel = np.zeros((size, size), np.float32)
        places = np.linspace(-0.5, 0.5, 4 * size)[:, None] * smear + size // 2
        corner = np.floor(places).astype(int)
        share = places - corner
        for dx in (0, 1):
            for dy in (0, 1):
                weight = np.abs(1 - dx - share[:, 0]) * np.abs(1 - dy - share[:, 1])
                inside = (corner + np.array([dx, dy]) < size).all(1)
                np.add.at(kernel, (corner[inside, 1] + dy, corner[inside, 0] + dx), weight[inside])
        return kernel / kernel.sum()


def _rotations(angles: Floats) -> Floats:
    """The matrices [N, 2, 2] that turn by so many radians [N]."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], axis=1)


def _touch(extents_xyxy: Floats, others_xyxy: Floats) -> bool:
    """Whether any two extents [N, 4] of the same frame overlap."""
    corner_min = np.maximum(extents_xyxy[:, :2], others_xyxy[:, :2])
    corner_max = np.minimum(extents_xyxy[:, 2:], others_xyxy[:, 2:])
    return bool((corner_max > corner_min).all(1).any())
