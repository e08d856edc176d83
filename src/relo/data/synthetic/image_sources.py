"""The photographs and cut-outs that scenes are made of: found in folders, checked, and shared out among the splits.

A cut-out is an image with an alpha channel, or one with masks: `masks/x_<k>.png` or `masks/x.png` for `images/x.jpg`,
and `x_mask.png` or, where the image is no PNG, `x.png` beside it. Its kind is its label in `boxes.jsonl`, or else the
name of its folder.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.image_headers import JPEG, announced_pixels
from relo.data.image_splits import SPLITS, image_hash, split_of_hash
from relo.data.intact_frames import decode_intact
from relo.data.sequences.base import LARGEST_IMAGE, decode_frame
from relo.data.sequences.frame_files import IMAGE_KINDS, is_image_name
from relo.data.sequences.parsing import read_text
from relo.errors import UserError, excerpt
from relo.inputs import read_given

_IMAGE_FOLDER = re.compile(r"(^|[_ -])(images?|imgs?|photos?)$")
_MASK_FOLDER = re.compile(r"(^|[_ -])((ground[_ -]?truth[_ -]?)?masks?|gt|ground[_ -]?truth)$")
_MASK_MARK = re.compile(r"[_ .-](mask|matte)$")
_LARGEST_BOXES = 2**30  # bytes of a `boxes.jsonl`
_SMALLEST_SIDE = 48  # px of a photograph
_SMALLEST_AREA = 150  # px of a cut-out
_LARGE = 1000  # px; a JPEG is decoded at a half, a quarter or an eighth of its size down to this longer side
_REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2,
            4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}  # fmt: skip


@dataclass(frozen=True)
class SourceImage:
    """An image file, and where it is a cut-out, its mask, if it has one, and its kind; the hash of either file."""

    path: Path
    mask: Path | None = None
    kind: str = ""
    digest: str = ""
    mask_digest: str = ""


@dataclass(frozen=True)
class ImageSources:
    """The photographs and cut-outs of one split, at least one each, in the order of their hashes.

    Attributes:
        digest: a hash of them all; where they lie does not change it, but for the kinds of cut-outs.
        remarks: sentences about files that are of no use.
    """

    photographs: tuple[SourceImage, ...]
    cut_outs: tuple[SourceImage, ...]
    digest: str
    remarks: tuple[str, ...] = ()

    @cached_property
    def cut_outs_of_images(self) -> tuple[tuple[SourceImage, ...], ...]:
        """The cut-outs of each image."""
        return tuple(tuple(group) for _, group in groupby(self.cut_outs, key=lambda item: item.digest))

    @cached_property
    def cut_outs_of_kinds(self) -> dict[str, tuple[SourceImage, ...]]:
        """The cut-outs of each kind."""
        kinds: dict[str, list[SourceImage]] = {}
        for item in self.cut_outs:
            kinds.setdefault(item.kind, []).append(item)
        return {kind: tuple(items) for kind, items in kinds.items()}


def find_sources(photographs: Sequence[Path], cut_outs: Sequence[Path], split: str, threads: int = 1) -> ImageSources:
    """Look through folders, decode every image once, and keep those of the split.

    An image belongs to a split by the hash of its bytes alone, as a photograph and as a cut-out: a tenth is for val, a
    tenth for test. Only where that leaves a split without any, it gets one of another's.

    Raises:
        UserError: a folder is missing, cannot be read or has no usable image, an image is broken, or there are too few
            of them.
    """
    remarks: list[str] = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        scenes = [image for folder in photographs for image in _photographs(folder, pool, remarks)]
        things = [image for folder in cut_outs for image in _cut_outs(folder, pool, remarks)]
    split_of = _share_out({"photographs": [s.digest for s in scenes], "cut-outs": [c.digest for c in things]})
    own_scenes = _different([image for image in scenes if split_of[image.digest] == split])
    own_things = _different([image for image in things if split_of[image.digest] == split])
    content = [*(s.digest for s in own_scenes), *((c.digest, c.mask_digest, c.kind) for c in own_things)]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return ImageSources(own_scenes, own_things, digest, tuple(remarks))


def read_photograph(photograph: SourceImage) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]; large JPEGs come smaller."""
    encoded = _read(photograph.path)
    largest = max(announced_pixels(encoded) or (0, 0)) if encoded.startswith(JPEG) else 0
    shrink = next((factor for factor in (8, 4, 2) if largest >= factor * _LARGE), 1)
    return np.asarray(decode_frame(encoded, str(photograph.path), _REDUCED[shrink])[..., ::-1], np.uint8)


def read_cut_out(cut_out: SourceImage) -> NDArray[np.uint8]:
    """RGB and alpha, uint8 [h, w, 4], cut to what is opaque; specks beside the thing are cleared.

    Raises:
        UserError: the files cannot be decoded, or have changed so that they do not fit.
    """
    image = _decode(_read(cut_out.path), str(cut_out.path))
    return _cut(np.dstack([image[..., :3], _alpha_again(cut_out, image)]))


def read_with_part(cut_out: SourceImage, other: SourceImage) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """A cut-out, and the mask [h, w] of another of the same image if that is a part of it; None if it is not."""
    image = _decode(_read(cut_out.path), str(cut_out.path))
    whole, part = _alpha_again(cut_out, image), _alpha_again(other, image)
    part_area, shared_area = (int((alpha >= 128).sum()) for alpha in (part, np.minimum(part, whole)))
    if shared_area < 0.9 * part_area or part_area > 0.6 * (whole >= 128).sum():
        return None
    cut = _cut(np.dstack([image[..., :3], whole, part]))
    return np.ascontiguousarray(cut[..., :4]), np.ascontiguousarray(cut[..., 4])


# ------------------------------------------------------------------------------------------------------------- finding


def _photographs(folder: Path, pool: ThreadPoolExecutor, remarks: list[str]) -> list[SourceImage]:
    candidates = [[SourceImage(path)] for path in _masks_of_images(folder)[0]]
    usable = list(chain.from_iterable(pool.map(_usable_photograph, candidates)))
    flaws = f"smaller than {_SMALLEST_SIDE} px or transparent"
    if not usable:
        found = _found(candidates, flaws)
        raise UserError(f"{folder} has no usable photograph: {found}; give a folder of photographs.")
    if left_out := len(candidates) - len(usable):
        remarks.append(f"{folder}: {left_out} of {len(candidates)} images are left out, as {flaws}.")
    return usable


def _cut_outs(folder: Path, pool: ThreadPoolExecutor, remarks: list[str]) -> list[SourceImage]:
    (masks, strays), labels = _masks_of_images(folder), _labels(folder)
    # Where there are folders of both names, "masks" may be what is shown.
    masks |= {path: [] for path in strays}
    candidates = []
    for image, own in masks.items():
        home = image.parent.parent if _IMAGE_FOLDER.fullmatch(image.parent.name.lower()) else image.parent
        numbered: list[tuple[int, Path | None]] = [*own] or [(0, None)]  # without a mask it may have an alpha channel
        kinds = [labels.get((home, image.name, number), home.name) for number, _ in numbered]
        candidates.append([SourceImage(image, mask, kind) for (_, mask), kind in zip(numbered, kinds, strict=True)])
    usable = list(chain.from_iterable(pool.map(_usable_cut_outs, candidates)))
    count = sum(map(len, candidates))
    flaws = "without transparency or mask, or showing next to nothing"
    if not usable:
        raise UserError(
            f"{folder} has no usable cut-out: {_found(candidates, flaws)}; give images with an alpha channel or masks: "
            "masks/x.png or masks/x_0.png for images/x.jpg, or x_mask.png beside x.jpg."
        )
    if left_out := count - len(usable):
        remarks.append(f"{folder}: {left_out} of {count} cut-outs are left out, as {flaws}.")
    return usable


def _found(candidates: list[list[SourceImage]], flaws: str) -> str:
    """What was found of images of which none is of use, in words."""
    if not candidates:
        return f"no image was found in it ({', '.join(sorted(IMAGE_KINDS))})"
    return f"{len(candidates)} found, all {flaws} ({candidates[0][0].path.name} for one)"


def _different(images: list[SourceImage]) -> tuple[SourceImage, ...]:
    """The images in the order of their hashes, the first of those that are the same."""
    of_hashes = {(image.digest, image.mask_digest): image for image in reversed(images)}
    return tuple(of_hashes[hashes] for hashes in sorted(of_hashes))


def _masks_of_images(folder: Path) -> tuple[dict[Path, list[tuple[int, Path]]], list[Path]]:
    """Every image below a folder, sorted, with its numbered masks; and the masks that are no image's."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a folder of images.")
    places = os.walk(folder, onerror=_refuse_folder)
    files = (Path(place, name) for place, _, names in places for name in names if is_image_name(name))
    paths = sorted(path for path in files if path.is_file())
    others = {path.with_suffix("") for path in paths if path.suffix.lower() != ".png"}
    beside = {path for path in paths if path.suffix.lower() == ".png" and path.with_suffix("") in others}
    mask_paths = [path for path in paths if path in beside or _is_mask(path.relative_to(folder))]
    image_names = {path: _shared_name(path.relative_to(folder)) for path in paths if path not in set(mask_paths)}
    known = set(image_names.values())
    masks: dict[str, list[tuple[int, Path]]] = {}
    strays = []
    for path in mask_paths:
        name, number = _shared_name(path.relative_to(folder)), 0
        if name not in known and (numbered := re.fullmatch(r"(.+)_(\d+)", name)):
            name, number = numbered[1], int(numbered[2])
        if name in known:
            masks.setdefault(name, []).append((number, path))
        else:
            strays.append(path)
    return {path: sorted(masks.get(name, [])) for path, name in image_names.items()}, strays


def _refuse_folder(error: OSError) -> None:
    raise UserError(
        f"The folder {error.filename} cannot be read ({error.strerror}): its images would be missing; allow it, or "
        "move the folder away."
    ) from error


def _is_mask(path: Path) -> bool:
    return (
        any(_MASK_FOLDER.search(folder.lower()) for folder in path.parts[:-1])
        or _MASK_MARK.search(path.stem.lower()) is not None
    )


def _shared_name(path: Path) -> str:
    """What the paths of an image and of its masks have in common: all but the words for images and masks."""
    folders = (_MASK_FOLDER.sub("", _IMAGE_FOLDER.sub("", folder.lower())) for folder in path.parts[:-1])
    return "/".join([*filter(None, folders), _MASK_MARK.sub("", path.stem.lower())])


def _labels(folder: Path) -> dict[tuple[Path, str, int], str]:
    """The labels in every `boxes.jsonl` below a folder: by its folder, the image's name and the box's number."""
    found: dict[tuple[Path, str, int], str] = {}
    for listing in sorted(folder.rglob("boxes.jsonl")):
        for number, line in enumerate(read_text(listing, _LARGEST_BOXES).split("\n")):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                image, labels = entry["image"], entry.get("labels")
                labels = [] if labels is None else labels
                words = [image, *(label for label in labels if label is not None)]  # of null, nothing is known
                if not isinstance(labels, list) or not all(isinstance(word, str) for word in words):
                    raise TypeError("another thing stands for a word")
                own = {(listing.parent, image, box): label for box, label in enumerate(labels) if label is not None}
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(
                    f"{listing}, line {number + 1}, is no JSON object with `image` and `labels`, a list of words; "
                    "correct it."
                ) from error
            if own.keys() & found.keys():
                raise UserError(
                    f"{listing}, line {number + 1}: {excerpt(image)} has labels before; put all in one line."
                )
            found |= own
    return found


# ------------------------------------------------------------------------------------------------------------- looking


def _read(path: Path) -> bytes:
    return read_given(path, LARGEST_IMAGE)


def _usable_photograph(candidates: list[SourceImage]) -> list[SourceImage]:
    (candidate,) = candidates
    encoded = _read(candidate.path)
    image = _decode(encoded, str(candidate.path))
    if min(image.shape[:2]) < _SMALLEST_SIDE or (image.shape[2] == 4 and (image[..., 3] < 255).any()):
        return []
    return [replace(candidate, digest=image_hash(encoded))]


def _usable_cut_outs(candidates: list[SourceImage]) -> list[SourceImage]:
    """Those of one image that are of use, with their hashes."""
    encoded = _read(candidates[0].path)
    image, digest = _decode(encoded, str(candidates[0].path)), image_hash(encoded)
    found = []
    for candidate in candidates:
        encoded_mask = _read(candidate.mask) if candidate.mask else b""
        if _alpha(candidate, image, encoded_mask) is not None:
            found.append(replace(candidate, digest=digest, mask_digest=image_hash(encoded_mask)))
    return found


def _decode(encoded: bytes, name: str) -> NDArray[np.uint8]:
    """RGB, or RGB and alpha where there is one: uint8 [H, W, 3 or 4]."""
    if encoded.startswith(JPEG):
        return decode_intact(encoded, name)
    image = decode_frame(encoded, name, cv2.IMREAD_UNCHANGED)
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{name} has pixels of type {image.dtype}; save it with 8 or 16 bits per channel.")
    if image.ndim < 3 or image.shape[2] < 4:
        return decode_frame(encoded, name)
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA), np.uint8)


def _alpha_again(cut_out: SourceImage, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = _alpha(cut_out, image, _read(cut_out.mask) if cut_out.mask else b"")
    if alpha is None:
        raise UserError(f"{cut_out.mask or cut_out.path} has changed since it was looked at; run again.")
    return alpha


def _alpha(cut_out: SourceImage, image: NDArray[np.uint8], encoded_mask: bytes) -> NDArray[np.uint8] | None:
    """The alpha uint8 [H, W] of a cut-out, without specks; None if all of it is opaque, or next to nothing."""
    if cut_out.mask is not None:
        mask = decode_frame(encoded_mask, str(cut_out.mask), cv2.IMREAD_GRAYSCALE)
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"{cut_out.mask} is a mask of {mask.shape[1]} x {mask.shape[0]} px, but {cut_out.path} has "
                f"{image.shape[1]} x {image.shape[0]}; give a mask of the same size, or remove it."
            )
        highest = max(int(mask.max()), 1)
        alpha = np.asarray(mask * (255 / highest), np.uint8)
    elif image.shape[2] == 4:
        alpha = image[..., 3]
    else:
        return None
    opaque = (alpha >= 128).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(opaque)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    if opaque.all() or count < 2 or areas.max() < _SMALLEST_AREA:
        return None
    keep = np.flatnonzero(areas >= 0.05 * areas.max()) + 1
    if len(keep) == count - 1:
        return alpha
    near = cv2.dilate(np.isin(labels, keep).astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.asarray(alpha * near, np.uint8)


def _cut(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The rectangle of an image [H, W, C] where its fourth channel is not next to nothing."""
    x, y, w, h = cv2.boundingRect((image[..., 3] >= 16).astype(np.uint8))
    return image[y : y + h, x : x + w]


# ------------------------------------------------------------------------------------------------------------- sharing


def _share_out(digests: dict[str, list[str]]) -> dict[str, str]:
    """The split of every image: by its hash, but so that each split has one of each sort."""
    split_of = {digest: split_of_hash(digest) for of_sort in digests.values() for digest in of_sort}
    for of_sort in digests.values():
        different = sorted(set(of_sort))
        for split in SPLITS:
            counts = Counter(split_of[digest] for digest in different)
            if not counts[split] and max(counts.values()) > 1:
                richest = max(SPLITS, key=lambda name: counts[name])
                split_of[next(digest for digest in different if split_of[digest] == richest)] = split
    for sort, of_sort in digests.items():
        if {split_of[digest] for digest in of_sort} != set(SPLITS):
            raise UserError(
                f"There are too few {sort} to keep train, val and test apart: {len(set(of_sort))} different ones were "
                "found, and each split needs one of its own; add more, best some hundreds."
            )
    return split_of
