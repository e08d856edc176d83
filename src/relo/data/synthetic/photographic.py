"""Scenes of photographs: crops of them as ground, cut-outs, and shapes filled from photographs, as things."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic.degradation import draw_degradation
from relo.data.synthetic.flexible import FlexibleAppearance, draw_deformation, make_picture
from relo.data.synthetic.image_sources import ImageSources, SourceImage, read_cut_out, read_photograph, read_with_part
from relo.data.synthetic.material import Floats, Image, Material, lay_over
from relo.data.synthetic.motion import wander
from relo.data.synthetic.procedural import outline, rounded_box
from relo.data.synthetic.settings import PhotographicSettings, SceneSettings

_SHAPE_SIDE = 160  # px of a shape that is filled from a photograph
_ATTEMPTS = 4
_LONGEST_ASPECT, _LEAST_FILLED = 4.0, 0.2  # of a target's box


@dataclass(frozen=True)
class _Thing:
    """What can be drawn at any size: RGB and alpha, uint8 [h, w, 4], its boxed part, and what it was cut from."""

    image: Image
    part: Image | None = None  # [h, w]
    cut_out: SourceImage | None = None

    def mirrored(self) -> "_Thing":
        part = None if self.part is None else np.ascontiguousarray(self.part[:, ::-1])
        return _Thing(np.ascontiguousarray(self.image[:, ::-1]), part, self.cut_out)


class PhotographicMaterial(Material):
    """Cut-outs and filled shapes before a photograph."""

    smallest_size = 12.0
    margin = 0.35

    def __init__(self, sources: ImageSources, settings: PhotographicSettings, scene: SceneSettings) -> None:
        self._sources, self._scene, self._settings = sources, scene, settings

    def target(
        self, rng: np.random.Generator, size: float, frames: int, image_size: tuple[int, int]
    ) -> FlexibleAppearance:
        """A cut-out, a part of one, or a filled shape; where it is camouflaged, in the colours of the ground."""
        self._ground = self._photograph(rng)
        hidden = rng.random() < self._scene.camouflage
        choice = rng.random()
        if choice < self._settings.shapes:
            thing = self._shape(rng, self._ground if hidden else self._photograph(rng))
        else:
            if choice < self._settings.shapes + self._settings.parts:
                thing = self._part(rng, size, image_size)
            else:
                thing = self._compact_cut_out(rng)
            if hidden:
                thing = self._camouflaged(rng, thing)
        self._target = thing
        second = lit_from_a_side(rng, recoloured(rng, thing.image[..., :3], 0.25), 0.7)
        return self._appearance(rng, thing, size, frames, second)

    def distractor(self, rng: np.random.Generator, size: float, frames: int, look_alike: bool) -> FlexibleAppearance:
        """Another cut-out or shape; a look-alike is the target's cut-out, or one of the same kind."""
        thing = self._target
        if look_alike:
            choice = rng.random()
            if choice < 0.3 and thing.cut_out is not None and thing.part is None:
                thing = self._cut_out(rng, self._sources.cut_outs_of_kinds[thing.cut_out.kind])
            elif choice < 0.65:
                repainted = recoloured(rng, thing.image[..., :3], rng.uniform(0.1, 1))
                thing = _Thing(np.dstack([repainted, thing.image[..., 3]]), thing.part)
            if rng.random() < 0.5:
                thing = thing.mirrored()
        elif rng.random() < self._settings.shapes:
            thing = self._shape(rng, self._photograph(rng))
        else:
            thing = self._other_cut_out(rng)
        return self._appearance(rng, thing, size, frames)

    def occluder(self, rng: np.random.Generator, half_xy: Floats, frames: int, full: bool) -> FlexibleAppearance:
        """A cut-out, now and then the target's own; or, if it is to hide the target fully, a box with a photograph."""
        size = 2 * float(np.sqrt(np.prod(half_xy)))
        if not full and rng.random() < 0.6:
            alike = rng.random() < 0.3 * self._scene.look_alike
            thing = replace(self._target, part=None) if alike else self._other_cut_out(rng)
            return self._appearance(rng, thing, size * 1.3, frames)
        photograph = self._ground if rng.random() < 0.4 else self._photograph(rng)
        radius = rounded_box(rng.uniform(4, 12))
        box = self._shape(rng, photograph, radius / radius.max(), float(half_xy[0] / half_xy[1]))
        return self._appearance(rng, box, size, frames, rigid=True)

    def background(self, rng: np.random.Generator, height: int, width: int) -> Image:
        """A crop of a photograph with some cut-outs that stand still."""
        share = rng.uniform(0.55, 1)
        crop = _crop(rng, self._ground, width / height, share)
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        ground = np.asarray(cv2.resize(crop, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
        for _ in range(rng.integers(0, self._settings.standing + 1)):
            size = min(height, width) * rng.uniform(0.08, 0.3)
            thing = self._appearance(rng, self._other_cut_out(rng), size, 1, rigid=True)
            half = np.ceil(thing.half_size_xy(0)).astype(int) + 1
            patch, _ = thing.draw(0, np.eye(2), half.astype(np.float64), (2 * half[0] + 1, 2 * half[1] + 1))
            lay_over(ground, patch, *(int(value) for value in rng.integers((0, 0), (width, height)) - half))
        return ground

    def lens(self, rng: np.random.Generator, frames: int) -> Floats:
        """A zoom that goes in and out, at the camera's whim."""
        self._camera = draw_degradation(rng, **self._settings.faults())
        if rng.random() > self._settings.zooming:
            return np.ones(frames)
        return np.exp(wander(rng, frames, 12, 0, self._settings.zoom))

    def develop(self, frame: Image, index: int) -> Image:
        """The frame with the camera's faults."""
        return self._camera.apply(frame, index)

    # ---------------------------------------------------------------------------------------------------------- things

    def _photograph(self, rng: np.random.Generator) -> Image:
        return read_photograph(self._sources.photographs[rng.integers(len(self._sources.photographs))])

    def _cut_out(self, rng: np.random.Generator, among: tuple[SourceImage, ...] = ()) -> _Thing:
        """A cut-out; each image is as likely as another, however many things it shows."""
        images = self._sources.cut_outs_of_images
        items = among or images[rng.integers(len(images))]
        chosen = items[rng.integers(len(items))]
        thing = _Thing(read_cut_out(chosen), cut_out=chosen)
        return thing.mirrored() if rng.random() < 0.5 else thing

    def _compact_cut_out(self, rng: np.random.Generator) -> _Thing:
        """A cut-out that fills much of a box, if some attempts find one: no streak and no frame of something else."""
        for _ in range(_ATTEMPTS):
            thing = self._cut_out(rng)
            height, width = thing.image.shape[:2]
            filled = float((thing.image[..., 3] >= 128).mean())
            if max(width / height, height / width) <= _LONGEST_ASPECT and filled >= _LEAST_FILLED:
                break
        return thing

    def _other_cut_out(self, rng: np.random.Generator) -> _Thing:
        """A cut-out from another image than the target's; where attempts find none, a shape."""
        own = self._target.cut_out
        for _ in range(_ATTEMPTS):
            thing = self._cut_out(rng)
            if own is None or thing.cut_out is None or thing.cut_out.digest != own.digest:
                return thing
        return self._shape(rng, self._photograph(rng))

    def _part(self, rng: np.random.Generator, size: float, image_size: tuple[int, int]) -> _Thing:
        """A cut-out of which a part is boxed, so small that much of the whole is in the image; or else a whole one."""
        images = self._sources.cut_outs_of_images
        items = images[rng.integers(len(images))]
        chosen, other = (items[index] for index in rng.integers(len(items), size=2))
        annotated = None if chosen is other else read_with_part(chosen, other)
        image, part = annotated or (read_cut_out(chosen), None)
        if part is None:
            part = _random_part(rng, image[..., 3])
        if part is not None:
            width, height = cv2.boundingRect((np.minimum(part, image[..., 3]) >= 128).astype(np.uint8))[2:]
            enlarged = size / float(np.sqrt(max(width * height, 1)))
            if max(image.shape[1] / image_size[0], image.shape[0] / image_size[1]) * enlarged > 1.2:
                part = None
        thing = _Thing(image, part, chosen)
        return thing.mirrored() if rng.random() < 0.5 else thing

    def _shape(
        self,
        rng: np.random.Generator,
        photograph: Image,
        radius: Floats | None = None,
        aspect: float | None = None,
    ) -> _Thing:
        """The outline of `radius` [P], or any smooth one, filled with a crop of a photograph."""
        radius = outline(rng) if radius is None else radius
        aspect = float(np.exp(rng.uniform(-0.5, 0.5))) if aspect is None else aspect
        width, height = round(_SHAPE_SIDE * aspect**0.5), round(_SHAPE_SIDE / aspect**0.5)
        crop = _crop(rng, photograph, aspect, float(rng.uniform(0.15, 0.6)))
        filling = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
        return _Thing(np.dstack([filling, _filled(radius, width, height)]))

    def _camouflaged(self, rng: np.random.Generator, thing: _Thing) -> _Thing:
        opaque = thing.image[..., 3] >= 128
        painted = with_colours_of(thing.image[..., :3], opaque, self._ground, rng.uniform(0.5, 1))
        return _Thing(np.dstack([painted, thing.image[..., 3]]), thing.part, thing.cut_out)

    def _appearance(
        self,
        rng: np.random.Generator,
        thing: _Thing,
        size: float,
        frames: int,
        second: Image | None = None,
        rigid: bool = False,
    ) -> FlexibleAppearance:
        picture = make_picture(thing.image, size, thing.part)
        settings = self._settings
        strengths = np.zeros(3) if rigid else rng.random(3) * (rng.random(3) < settings.deformed)
        ripple, swing, turn = strengths * np.array([settings.ripple, settings.swing, settings.turn])
        deformation = draw_deformation(rng, frames, picture.size, ripple, swing, turn).invertible(picture.corners_xy)
        other = None
        if second is not None:
            other = make_picture(np.dstack([second, thing.image[..., 3]]), size, thing.part)
        return FlexibleAppearance(picture, deformation, frames, other)


def _crop(rng: np.random.Generator, image: Image, aspect: float, share: float) -> Image:
    """A random crop of the aspect width / height, of `share` of the largest that fits."""
    height, width = image.shape[:2]
    crop_width = max(min(width, height * aspect) * share, 8)
    size = np.array([min(crop_width, width), min(max(crop_width / aspect, 8), height)]).astype(int)
    x, y = rng.integers(0, np.array([width, height]) - size + 1)
    return image[y : y + size[1], x : x + size[0]]


def _filled(radius: Floats, width: int, height: int) -> Image:
    """The alpha [height, width] of the outline of `radius` [P], stretched to fill it."""
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False)
    corners = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    low, high = corners.min(0), corners.max(0)
    places = (corners - low) / (high - low) * (np.array([width, height]) - 1)
    alpha = np.zeros((height, width), np.uint8)
    cv2.fillPoly(alpha, [np.round(places * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return alpha


def _random_part(rng: np.random.Generator, alpha: Image) -> Image | None:
    """A part of a thing, uint8 [h, w]: an end of it, or a patch of its surface; None where no patch lies on it."""
    height, width = alpha.shape
    if rng.random() < 0.4:
        part = np.zeros_like(alpha)
        share, end = rng.uniform(0.25, 0.5), rng.integers(6)
        rows, columns = max(round(height * share), 4), max(round(width * share), 4)
        top, others = part[:rows], [part[-rows:], part[:, :columns], part[:, -columns:]]
        [top, top, top, *others][end][:] = 255  # the head, most often
        return part
    rows, columns = np.nonzero(alpha >= 128)
    for _ in range(3 * _ATTEMPTS):
        reach = np.sqrt(width * height) * rng.uniform(0.12, 0.3) * np.exp(rng.uniform(-0.3, 0.3) * np.array([1, -1]))
        patch = _filled(outline(rng), *(max(int(2 * value), 6) for value in reach))
        place = rng.integers(len(rows))
        x, y = int(columns[place]) - patch.shape[1] // 2, int(rows[place]) - patch.shape[0] // 2
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + patch.shape[1], width), min(y + patch.shape[0], height)
        inside = patch[y1 - y : y2 - y, x1 - x : x2 - x]
        if np.minimum(inside, alpha[y1:y2, x1:x2]).sum(dtype=np.int64) > 0.85 * patch.sum(dtype=np.int64):
            part = np.zeros_like(alpha)
            part[y1:y2, x1:x2] = inside
            return part
    return None


def recoloured(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """RGB uint8 [h, w, 3] in another hue, saturation and brightness; at 1, any hue."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hue = np.uint8(rng.uniform(-128, 128) * strength % 256)
    saturation, value = np.exp(rng.uniform(-0.6, 0.6, 2) * strength)
    step = np.arange(256)
    table = np.stack([(step + hue) % 256, step * saturation, 255 * (step / 255) ** value], axis=1)
    changed = cv2.LUT(hsv, np.clip(table, 0, 255).astype(np.uint8)[None])
    return np.asarray(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def with_colours_of(image: Image, opaque: NDArray[np.bool_], place: Image, strength: float) -> Image:
    """RGB uint8 [h, w, 3] moved towards the mean and spread of another picture's colours, in CIE L*a*b*."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    other = cv2.cvtColor(cv2.resize(place, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    mean, spread = lab[opaque].mean(0), lab[opaque].std(0) + 1
    other_mean, other_spread = other.reshape(-1, 3).mean(0), other.reshape(-1, 3).std(0) + 1
    moved = (lab - mean) * np.clip(other_spread / spread, 0.5, 2) + other_mean
    mixed = np.clip(lab + (moved - lab) * np.float32(strength), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB), np.uint8)


def lit_from_a_side(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """RGB uint8 [h, w, 3] with light that falls off across it, by up to a factor of exp(strength) to either side."""
    height, width = image.shape[:2]
    corners = np.exp(rng.uniform(-strength, strength, (2, 2, 1)) + rng.normal(0, 0.08, (1, 1, 3)) * strength)
    light = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(image * light, 0, 255).astype(np.uint8)
