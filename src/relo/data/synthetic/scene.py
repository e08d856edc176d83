"""One synthetic sequence: planned as smooth curves for all frames at once, then rendered frame by frame."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic import textures
from relo.data.synthetic.motion import episodes, roam, wander
from relo.data.synthetic.textures import Sprite
from relo.errors import UserError

_NOISE_OFFSET = 12  # the noise picture is unsigned: this much is added with it, and taken off by the light table
_FULLY_HIDDEN = 0.1  # a target of which less than this share shows counts as absent


@dataclass(frozen=True)
class SceneSettings:
    """How hard sequences are. Ranges are (lowest, highest), drawn once a sequence.

    Attributes:
        target_size: sqrt(width x height) of the target, as a share of sqrt(image area).
        speed: of target and moving things, in shares of the image width a frame.
        scale_change, aspect_change: natural logarithm of the largest factor by which size and aspect leave their mean.
        rotation: largest turn to either side, in radians.
        appearance_change: up to this share of a second texture fades over the target's own.
        light_change: natural logarithm of the largest factor of brightness; contrast and colour follow.
        blur: probability, for every 60 frames, of a spell out of focus.
        motion_blur: exposure, as a share of the time between frames.
        noise: standard deviation of the sensor noise, in grey levels.
        camera_motion: reach of the camera's path, as a share of the image size.
        shake: probability that the camera is held by an unsteady hand.
        clutter: number of things on the background.
        camouflage: probability that the background has the target's colours.
        distractors: number of moving things behind the target, (fewest, most).
        look_alike: share of the distractors that have the target's shape and colours.
        occlusions: things that pass before the target, for every 60 frames on average.
        full_occlusion: share of these that hide it wholly.
        out_of_view: probability, for every 60 frames, that the target leaves the image and comes back.
    """

    target_size: tuple[float, float] = (0.11, 0.24)
    speed: tuple[float, float] = (0.004, 0.022)
    scale_change: float = 0.45
    aspect_change: float = 0.3
    rotation: float = 0.9
    appearance_change: float = 0.5
    light_change: float = 0.3
    blur: float = 0.3
    motion_blur: float = 0.4
    noise: float = 3.0
    camera_motion: float = 0.15
    shake: float = 0.25
    clutter: int = 60
    camouflage: float = 0.3
    distractors: tuple[int, int] = (1, 4)
    look_alike: float = 0.5
    occlusions: float = 0.8
    full_occlusion: float = 0.35
    out_of_view: float = 0.04


EASY = SceneSettings(
    camouflage=0.0, distractors=(0, 1), look_alike=0.0, occlusions=0.0, out_of_view=0.0, appearance_change=0.2, blur=0.0
)
"""Nothing hides the target or looks like it."""

HARD = replace(
    SceneSettings(),
    speed=(0.018, 0.035),
    scale_change=0.7,
    aspect_change=0.5,
    rotation=1.6,
    appearance_change=0.9,
    light_change=0.6,
    camouflage=0.6,
    distractors=(4, 8),
    look_alike=0.8,
    occlusions=1.6,
    full_occlusion=0.6,
    out_of_view=0.15,
)
"""More of everything: motion and appearance leave the range of the default settings."""

DISTRACTORS = replace(SceneSettings(), distractors=(5, 9), look_alike=1.0, camouflage=0.0)
"""A crowd of moving things that all look like the target."""

OCCLUDED = replace(SceneSettings(), occlusions=2.4, full_occlusion=0.6, out_of_view=0.3)
"""The target is often hidden, wholly for a while, and sometimes leaves the image."""

CHANGED = replace(
    SceneSettings(),
    speed=(0.022, 0.035),
    scale_change=0.8,
    aspect_change=0.6,
    rotation=2.0,
    appearance_change=1.0,
    light_change=0.6,
)
"""Motion and appearance leave the range of the default settings; nothing else is harder than there."""


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

    boxes_xywh: NDArray[np.float64]
    visible: NDArray[np.bool_]
    visible_ratio: NDArray[np.float64]
    cut_by_image: NDArray[np.bool_]
    image_size: tuple[int, int]


@dataclass(frozen=True)
class RenderedSequence(SceneAnnotation):
    """A sequence with its truth: `frames` is uint8 [N, H, W, 3], RGB."""

    frames: NDArray[np.uint8]


def texture_seed(split: str, seed: int, name: str) -> list[int]:
    """The seed of a sequence's generator; splits differ in its first number, so that no two share a texture."""
    return [zlib.crc32(split.encode()), seed, zlib.crc32(name.encode())]


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
        UserError: fewer than 2 frames, or an image smaller than 64 px.
    """
    scene = Scene(name, frames=frames, width=width, height=height, seed=seed, split=split, settings=settings)
    images, visible_ratio = zip(*scene.render(), strict=True)
    return RenderedSequence(**vars(scene.annotate(np.array(visible_ratio))), frames=np.stack(images))


@dataclass(frozen=True)
class _Actor:
    """A thing that moves: its looks and where it is in each frame."""

    sprite: Sprite
    matrices: NDArray[np.float64]  # [N, 2, 2], sprite px -> image px about the centre
    centres_xy: NDArray[np.float64]  # [N, 2], pixel indices
    second: Sprite | None = None  # what the sprite fades to
    fade: NDArray[np.float64] | None = None  # [N], its share

    def extents_xyxy(self) -> NDArray[np.float64]:
        """The extent [N, 4] of the outline, in image pixels (a pixel is a unit square, so its centre is at + 0.5)."""
        outline_xy = np.einsum("nij,pj->npi", self.matrices, self.sprite.contour_xy) + self.centres_xy[:, None] + 0.5
        return np.concatenate([outline_xy.min(1), outline_xy.max(1)], axis=1)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The sprite of frame `index`, uint8 [h, w, 4]."""
        if self.second is None or self.fade is None or self.fade[index] == 0:
            return self.sprite.image
        share = float(self.fade[index])
        return np.asarray(cv2.addWeighted(self.sprite.image, 1 - share, self.second.image, share, 0), np.uint8)


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
    ) -> None:
        if frames < 2 or min(width, height) < 64:
            raise UserError(
                f"A synthetic sequence needs at least 2 frames of 64 x 64 px, not {frames} of {width} x {height}."
            )
        self._settings = settings or SceneSettings()
        self._frames, self._width, self._height = frames, width, height
        self._rng = np.random.default_rng(texture_seed(split, seed, name))
        self._plan_target()
        self._plan_things()
        self._plan_camera()

    def annotate(self, visible_ratio: NDArray[np.float64]) -> SceneAnnotation:
        """The truth, given the shares [N] of the target that `render` found to show."""
        extents_xyxy = self._target.extents_xyxy()
        limit = np.array([self._width, self._height] * 2, np.float64)
        inside_xyxy = np.clip(extents_xyxy, 0, limit)
        boxes_xywh = np.concatenate([inside_xyxy[:, :2], inside_xyxy[:, 2:] - inside_xyxy[:, :2]], axis=1)
        boxes_xywh[(boxes_xywh[:, 2:] <= 0).any(1)] = 0
        return SceneAnnotation(
            boxes_xywh=boxes_xywh,
            visible=visible_ratio >= _FULLY_HIDDEN,
            visible_ratio=visible_ratio,
            cut_by_image=(inside_xyxy != extents_xyxy).any(1),
            image_size=(self._width, self._height),
        )

    def render(self) -> Iterator[tuple[NDArray[np.uint8], float]]:
        """The frames, each RGB uint8 [H, W, 3] with the share of the target that shows."""
        return (self._render_frame(index) for index in range(self._frames))

    # ---------------------------------------------------------------------------------------------------------- plan

    def _speed(self) -> float:
        low, high = self._settings.speed
        return float(np.exp(self._rng.uniform(np.log(low), np.log(high)))) * self._width

    def _poses(self, log_scale: float, log_aspect: float, turn: float) -> NDArray[np.float64]:
        """Smooth changes of size, aspect and angle as matrices [N, 2, 2]."""
        rng, frames = self._rng, self._frames
        scale = np.exp(wander(rng, frames, 22, -log_scale, log_scale))
        aspect = np.exp(wander(rng, frames, 18, -log_aspect, log_aspect) / 2)
        angle = wander(rng, frames, 16, -turn, turn)
        cos, sin = np.cos(angle), np.sin(angle)
        columns = np.stack([np.stack([cos, sin], 1) * (scale * aspect)[:, None],
                            np.stack([-sin, cos], 1) * (scale / aspect)[:, None]], axis=2)  # fmt: skip
        return np.asarray(columns)

    def _half_sizes(self, size: float) -> tuple[float, float]:
        aspect = np.exp(self._rng.uniform(-0.55, 0.55) / 2)
        return size / 2 * aspect, size / 2 / aspect

    def _plan_target(self) -> None:
        rng, settings = self._rng, self._settings
        low, high = settings.target_size
        self._size = float(np.exp(rng.uniform(np.log(low), np.log(high)))) * (self._width * self._height) ** 0.5
        self._outline, self._colours = textures.outline(rng), textures.palette(rng, vivid=True)
        self._target_half = self._half_sizes(self._size * 1.15)  # an outline fills about three quarters of its square
        own, other = (textures.sprite(rng, self._outline, *self._target_half, self._colours) for _ in range(2))
        image_size = np.array([self._width, self._height], np.float64)
        margin = np.minimum(self._size * 0.6, image_size * 0.3)
        path = roam(rng, self._frames, self._speed(), margin, image_size - margin)
        away = episodes(rng, self._frames, settings.out_of_view, 30)
        if away.any():
            side = rng.integers(4)
            exit_xy = image_size * np.array([[-0.2, 0.5], [1.2, 0.5], [0.5, -0.25], [0.5, 1.25]])[side]
            path = path + away[:, None] * (exit_xy - path)
        self._target = _Actor(
            own,
            self._poses(settings.scale_change, settings.aspect_change, settings.rotation),
            path,
            other,
            wander(rng, self._frames, 25, -0.3, 1).clip(0) * settings.appearance_change,
        )

    def _plan_things(self) -> None:
        rng, settings = self._rng, self._settings
        fewest, most = settings.distractors
        self._behind = [self._distractor() for _ in range(rng.integers(fewest, most + 1))]
        count = rng.poisson(settings.occlusions * self._frames / 60)
        occluders = [self._occluder() for _ in range(count)]
        # The target must be seen where it is given to the tracker.
        start_xyxy = self._target.extents_xyxy()[:3]
        self._before = [actor for actor in occluders if not _touch(actor.extents_xyxy()[:3], start_xyxy)]

    def _distractor(self) -> _Actor:
        rng = self._rng
        image_size = np.array([self._width, self._height], np.float64)
        size = self._size * rng.uniform(0.8, 1.25)
        if rng.random() < self._settings.look_alike:
            colours = np.roll(self._colours, rng.integers(20, 100), axis=0)
            half_width, half_height = (half * size / self._size for half in self._target_half)
            sprite = textures.sprite(rng, self._outline, half_width, half_height, colours)
        else:
            colours = textures.palette(rng, vivid=True)
            sprite = textures.sprite(rng, textures.outline(rng), *self._half_sizes(size), colours)
        path = roam(rng, self._frames, self._speed(), -0.1 * image_size, 1.1 * image_size)
        return _Actor(sprite, self._poses(0.2, 0.15, 0.5), path)

    def _occluder(self) -> _Actor:
        """A thing that crosses the image on a straight course and meets the target on its way."""
        rng = self._rng
        meeting = int(rng.integers(min(10, self._frames - 1), self._frames))
        full = rng.random() < self._settings.full_occlusion
        extent = self._target.extents_xyxy()[meeting]
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
        power = rng.uniform(4, 8)  # a rounded box: what hides the target wholly must fill its corners
        angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
        radius = (np.abs(np.cos(angle)) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power)
        half_width, half_height = (float(value * radius.max()) for value in half)
        sprite = textures.sprite(
            rng, radius / radius.max(), half_width, half_height, textures.palette(rng, vivid=False)
        )
        return _Actor(sprite, self._poses(0.0, 0.0, 0.3), path)

    def _plan_camera(self) -> None:
        rng, settings, frames = self._rng, self._settings, self._frames
        image_size = np.array([self._width, self._height], np.float64)
        world = (image_size * (1 + 2 * settings.camera_motion) * 1.1).astype(int)
        colours = textures.palette(rng, vivid=False)
        if rng.random() < settings.camouflage:
            colours = cv2.addWeighted(self._colours, 0.75, colours, 0.25, 0).astype(np.uint8)
        self._background = textures.background(rng, int(world[1]), int(world[0]), colours, settings.clutter)
        zoom = np.exp(wander(rng, frames, 25, -0.08, 0.08))
        turn = wander(rng, frames, 25, -0.05, 0.05)
        reach = settings.camera_motion * image_size
        view_centre = roam(rng, frames, self._speed() * 0.6, world / 2 - reach, world / 2 + reach)
        cos, sin = np.cos(turn) * zoom, np.sin(turn) * zoom
        linear = np.stack(
            [np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], axis=1
        )  # [N, 2, 2], image px -> world px
        offset = view_centre - np.einsum("nij,j->ni", linear, image_size / 2)
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

    # -------------------------------------------------------------------------------------------------------- render

    def _render_frame(self, index: int) -> tuple[NDArray[np.uint8], float]:
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
            cover = self._paste(frame, actor, index)
            if shown is not None and cover is not None:
                _hide(shown, cover)
        defocus = self._defocus[index]
        if defocus > 0.3:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), defocus), np.uint8)
        row, column = self._noise_corner[index]
        noise = self._noise[row : row + self._height, column : column + self._width]
        lit = cv2.add(cv2.LUT(frame, self._light[index][None]), noise)
        return np.asarray(lit, np.uint8), self._shown_share(shown, index)

    def _shown_share(self, shown: "_Patch | None", index: int) -> float:
        if shown is None:
            return 0.0
        outline = self._target.sprite.contour_xy
        following = np.roll(outline, -1, axis=0)
        area = abs((outline[:, 0] * following[:, 1] - outline[:, 1] * following[:, 0]).sum()) / 2
        share = float(shown.alpha.sum(dtype=np.int64)) / 255 / (area * abs(np.linalg.det(self._target.matrices[index])))
        # Soft edges make the sum inexact by a few hundredths.
        return 1.0 if share > 0.96 else share

    def _paste(self, frame: NDArray[np.uint8], actor: _Actor, index: int) -> "_Patch | None":
        """Draw an actor on the frame in place; what of its alpha fell on the frame, or None."""
        matrix, centre_xy = actor.matrices[index], actor.centres_xy[index]
        image = actor.image(index)
        half = np.abs(matrix) @ np.array(actor.sprite.centre_xy)
        blur = self._blur_kernel(actor, index)
        pad = 1 if blur is None else 1 + blur.shape[0] // 2
        x1, y1 = (int(v) for v in np.maximum(np.floor(centre_xy - half) - pad, 0))
        x2, y2 = (int(v) for v in np.minimum(np.ceil(centre_xy + half) + pad + 1, (self._width, self._height)))
        if x2 <= x1 or y2 <= y1:
            return None
        offset = centre_xy - matrix @ np.array(actor.sprite.centre_xy) - (x1, y1)
        patch = cv2.warpAffine(image, np.column_stack([matrix, offset]), (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR)
        if blur is not None:
            patch = cv2.filter2D(patch, -1, blur, borderType=cv2.BORDER_REPLICATE)
        alpha = np.ascontiguousarray(patch[..., 3], np.uint8)
        region = frame[y1:y2, x1:x2]
        behind = cv2.multiply(region, cv2.cvtColor(255 - alpha, cv2.COLOR_GRAY2RGB), scale=1 / 255)
        cv2.add(behind, cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB), dst=region)
        return _Patch(x1, y1, alpha)

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


@dataclass(frozen=True)
class _Patch:
    """The alpha [h, w] of a thing on the frame, with its corner at (x, y)."""

    x: int
    y: int
    alpha: NDArray[np.uint8]


def _hide(shown: _Patch, cover: _Patch) -> None:
    """Take what `cover` hides off the alpha of `shown`, in place."""
    x1, y1 = max(shown.x, cover.x), max(shown.y, cover.y)
    x2 = min(shown.x + shown.alpha.shape[1], cover.x + cover.alpha.shape[1])
    y2 = min(shown.y + shown.alpha.shape[0], cover.y + cover.alpha.shape[0])
    if x2 <= x1 or y2 <= y1:
        return
    part = shown.alpha[y1 - shown.y : y2 - shown.y, x1 - shown.x : x2 - shown.x]
    over = cover.alpha[y1 - cover.y : y2 - cover.y, x1 - cover.x : x2 - cover.x]
    part[:] = cv2.multiply(part, 255 - over, scale=1 / 255)


def _touch(extents_xyxy: NDArray[np.float64], others_xyxy: NDArray[np.float64]) -> bool:
    """Whether any two extents [N, 4] of the same frame overlap."""
    corner_min = np.maximum(extents_xyxy[:, :2], others_xyxy[:, :2])
    corner_max = np.minimum(extents_xyxy[:, 2:], others_xyxy[:, 2:])
    return bool((corner_max > corner_min).all(1).any())
