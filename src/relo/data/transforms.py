"""From frames to crops: jitter, photometric and joint changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relo.geometry import CropRule, cxcywh_to_xywh, mirror_xywh, xywh_to_cxcywh
from relo.settings import check_number

if TYPE_CHECKING:
    from relo.data.photometric import Compose, ImageOnlyTransform

Image = NDArray[np.uint8]

_MOST_MOTION = 2.0  # beyond it boxes could not follow
_PLACES_TRIED = 20


@dataclass(frozen=True)
class Augmentation:
    """What is changed at random, and where search crops are cut; all defaults but `mirror_offset` are the release's.

    Attributes:
        center_jitter: search crops are displaced by up to half of this, in units of sqrt(w h), on each axis.
        scale_jitter: standard deviation of the logarithm of the factors on w and h that size the search crop.
        grey: probability that a whole clip is grey.
        clip_flip: probability that a whole clip is mirrored.
        image_flip: probability that an image is mirrored, each on its own; never where a clip carries surroundings.
        brightness: an image's pixels are multiplied by 1 +- up to this, each image on its own.
        search_around: what search crops are cut around: the jittered truth of their own frame, or, without jitter, the
            truth of the frame before (the release's REAL_REGION), which may leave the target outside. Stills have no
            frame before them and keep the jitter, unless they move.
        still_motion: how far stills, which have one box, move, 0 to 2: each is a video of small affine and elastic
            warps of its image, in which it is seen from other frames and at other frames' times; 0 repeats it.
        mirror_offset: pixels of the image by which boxes of a mirrored clip are off along x. The release has -1: it
            mirrors boxes, which span pixels, about the pixels' centres. Always 0 where a clip carries surroundings.

    Raises:
        UserError: a number out of range, or stills that move too far.
    """

    center_jitter: float = 3.5
    scale_jitter: float = 0.5
    grey: float = 0.05
    clip_flip: float = 0.5
    image_flip: float = 0.5
    brightness: float = 0.2
    search_around: Literal["truth", "previous"] = "truth"
    mirror_offset: float = 0.0
    still_motion: float = 0.0

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("grey", "clip_flip", "image_flip", "brightness")}
        check_number("data.augmentation", 0, 1, **shares)
        check_number("data.augmentation", 0, 100, center_jitter=self.center_jitter)
        check_number("data.augmentation", 0, 10, scale_jitter=self.scale_jitter)
        check_number("data.augmentation", -100, 100, mirror_offset=self.mirror_offset)
        check_number("data.augmentation", 0, _MOST_MOTION, still_motion=self.still_motion)


class ClipTransform:
    """Cuts the crops of a clip and changes them; all that is random comes from the generator it is given.

    Args:
        template_crop: how template crops are cut; they are centred on the target.
        search_crop: how search crops are cut.
        augmentation: what is changed at random.
        photometric: further albumentations transforms of pixels, applied to each crop on its own.
        surroundings_crop: how the surroundings of targets are cut, for clips that carry them.
    """

    def __init__(
        self,
        template_crop: CropRule,
        search_crop: CropRule,
        augmentation: Augmentation | None = None,
        photometric: "Sequence[ImageOnlyTransform]" = (),
        surroundings_crop: CropRule | None = None,
    ) -> None:
        self.template_crop = template_crop
        self.search_crop = search_crop
        self.surroundings_crop = surroundings_crop
        self.augmentation = augmentation or Augmentation()
        if surroundings_crop is not None:
            # What moves must go on moving the same way: only the whole clip can be mirrored.
            self.augmentation = replace(self.augmentation, image_flip=0.0, mirror_offset=0.0)
        self.photometric: Compose | None = None
        if photometric:
            from relo.data.photometric import compose

            self.photometric = compose(photometric)

    def joint(self, rng: np.random.Generator) -> tuple[bool, bool]:
        """What a whole clip shares: whether it is grey, whether it is mirrored."""
        return rng.random() < self.augmentation.grey, rng.random() < self.augmentation.clip_flip

    def templates(
        self, frames: Sequence[Image], boxes_xywh: Tensor, is_mirrored: bool, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Tensor]:
        """Crops [N, Hz, Hz, 3], 0 to 255, around boxes [N, 4] in the frames' pixels, and the boxes in them [N, 4]."""
        return self._cut_around(boxes_xywh, self.template_crop, frames, boxes_xywh, is_mirrored, rng)

    def searches(
        self,
        frames: Sequence[Image],
        boxes_xywh: Tensor,
        is_mirrored: bool,
        rng: np.random.Generator,
        previous_xywh: Tensor | None = None,
        outside: Sequence[int] = (),
    ) -> tuple[NDArray[np.float32], Tensor]:
        """Crops [T, Hx, Hx, 3], 0 to 255, and the boxes [T, 4] in them.

        They are cut around the jittered boxes [T, 4], or around those of the frames before, if these are given, but for
        the crops `outside`, which do not show their box; all boxes are in pixels of the frames.
        """
        around_xywh = self.jitter(boxes_xywh, rng) if previous_xywh is None else previous_xywh
        for t in outside:
            around_xywh[t] = elsewhere(around_xywh[t], boxes_xywh[t], self.search_crop.factor, frames[t].shape, rng)
        return self._cut_around(around_xywh, self.search_crop, frames, boxes_xywh, is_mirrored, rng)

    def surroundings(
        self, frames: Sequence[Image], boxes_xywh: Tensor, is_mirrored: bool, rng: np.random.Generator
    ) -> tuple[Image, Tensor]:
        """Squares [T, Hs, Hs, 3] around boxes [T, 4] in the frames' pixels, and where each was cut: x, y, w, h [T, 4].

        The pixels may be mirrored; where they were cut holds for the frame as it is.
        """
        assert self.surroundings_crop is not None
        regions = self.surroundings_crop.region(boxes_xywh)
        # Search regions are cut from the squares later: the border that they shall see is set here.
        frames = [self.search_crop.extent(frame) for frame in frames]
        squares, _ = self._cut(regions, self.surroundings_crop, frames, is_mirrored, rng)
        return np.rint(squares).astype(np.uint8), cxcywh_to_xywh(regions[:, [0, 1, 2, 2]])

    def jitter(self, boxes_xywh: Tensor, rng: np.random.Generator) -> Tensor:
        """Boxes [T, 4] displaced and resized: w' = w exp(s n), h alike; centre + U(-0.5, 0.5) j sqrt(w' h') per axis.

        The target's centre stays in the crop: displacements that move it out are not drawn, which is to say that j is
        at most the crop's factor. The released j = 3.5 and factor 4 need no such limit.
        """
        boxes_cxcywh = xywh_to_cxcywh(boxes_xywh)
        factors = np.exp(self.augmentation.scale_jitter * rng.standard_normal((len(boxes_xywh), 2)))
        sizes = boxes_cxcywh[:, 2:] * torch.from_numpy(factors)
        extent = min(self.augmentation.center_jitter, self.search_crop.factor)
        shift = torch.from_numpy(extent * rng.uniform(-0.5, 0.5, (len(boxes_xywh), 2)))
        centers = boxes_cxcywh[:, :2] + shift * sizes.prod(-1, keepdim=True).sqrt()
        return cxcywh_to_xywh(torch.cat([centers, sizes], dim=-1))

    def _cut_around(
        self,
        around_xywh: Tensor,
        rule: CropRule,
        frames: Sequence[Image],
        boxes_xywh: Tensor,
        is_mirrored: bool,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float32], Tensor]:
        regions = rule.region(around_xywh)
        crops, flips = self._cut(regions, rule, frames, is_mirrored, rng)
        crop_boxes_xywh = rule.to_crop(boxes_xywh, regions)
        return crops, torch.where(flips[:, None], mirror_xywh(crop_boxes_xywh, 1.0), crop_boxes_xywh)

    def _cut(
        self, regions: Tensor, rule: CropRule, frames: Sequence[Image], is_mirrored: bool, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Tensor]:
        """The changed crops [T, size, size, 3] at regions [T, 3], and which of them were mirrored [T]."""
        flips = is_mirrored ^ (rng.random(len(frames)) < self.augmentation.image_flip)
        factors = 1 + self.augmentation.brightness * rng.uniform(-1, 1, len(frames))
        crops = []
        for frame, region, flip in zip(frames, regions, flips, strict=True):
            crop = rule.cut(frame, region, is_mirrored)
            if flip:
                crop = np.asarray(cv2.flip(crop, 1), np.uint8)
            if self.photometric is not None:
                self.photometric.set_random_seed(int(rng.integers(1 << 32)))
                crop = self.photometric(image=crop)["image"]
            crops.append(crop)
        pixels = torch.from_numpy(np.stack(crops)).movedim(-1, 1)
        # In memory the colours come first: the arithmetic, here and of the normalisation, then runs over long rows.
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        # Brightness comes last and without rounding, as in the release: cut to whole levels, images would be darker.
        pixels.mul_(torch.from_numpy(factors).float()[:, None, None, None]).clamp_(max=255)
        return pixels.movedim(1, -1).numpy(), torch.from_numpy(flips)


def grey(frame: Image) -> Image:
    """A frame [H, W, 3] without colours: whole frames, before crops are scaled, as in the release."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def elsewhere(
    region_xywh: Tensor, box_xywh: Tensor, factor: float, image_shape: tuple[int, ...], rng: np.random.Generator
) -> Tensor:
    """A box [4] of the size of `region_xywh` [4] whose search region does not touch the target's box [4].

    It is centred in the image (height, width, ...) wherever it can be; where the target leaves no such place, its
    search region lies beside the target and reaches out of the image. `factor` is the side of a search region as a
    multiple of sqrt(w h).
    """
    center, size = xywh_to_cxcywh(box_xywh)[:2], region_xywh[2:]
    # A region is snapped to whole pixels, which may move its edges by one.
    reach = (factor * size.prod().sqrt() + box_xywh[2:]) / 2 + 1
    extent = torch.tensor(image_shape[1::-1], dtype=center.dtype)
    for _ in range(_PLACES_TRIED):
        place = torch.from_numpy(rng.random(2)) * extent
        if ((place - center).abs() >= reach).any():
            break
    else:
        axis = int(torch.argmax(torch.maximum(center, extent - center) - reach))
        place = center.clone()
        place[axis] += reach[axis] if center[axis] < extent[axis] / 2 else -reach[axis]
    return cxcywh_to_xywh(torch.cat([place, size]))
