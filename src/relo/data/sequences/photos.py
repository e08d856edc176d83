"""Photographs with boxes or masks, each marked thing as a sequence of one frame, as COCO's are.

    <root>/images/<image>.jpg        of any kind that is read: jpg, png, bmp, webp or tif
           boxes.jsonl               a line per photograph: {"image": "<image>.jpg", "boxes_xywh": [[x, y, w, h], ...],
                                     "labels": ["cat", ...]}, in pixels from 0; labels may be left out
           masks/<image>_<k>.png     the mask of thing k (from 0): what is not black belongs to it

Either boxes or masks will do. A thing that has a mask, but no box (or null for it), has the box of its mask. A box that
is given counts as annotated, also where it reaches over the image's border or fills the image. Things whose shorter
side is less than `min_side` pixels are not visible.

Each photograph belongs to one of the splits `train`, `val` and `test` by the hash of its bytes, as in synthesis: what
is cut out for a split's composites and what is trained on as a photograph stay apart. `all` is all of them.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relo.data.image_splits import SPLITS, image_hash, split_of_hash
from relo.data.sequences.base import LARGEST_IMAGE, ImageFiles, Sequence, SequenceReader
from relo.data.sequences.frame_files import is_image_name, natural_key, stem
from relo.data.sequences.listings import require_folder, require_split
from relo.data.sequences.parsing import is_given, json_boxes, out_of_reach, parse_json, positive_size, read_text
from relo.errors import UserError, excerpt
from relo.inputs import can_be_a_name, read_given

_SPLITS = ("all", *SPLITS)
_LARGEST_BOXES = 2**30  # bytes of the one file of all boxes; of a million images it has 100 MB
_MASK_NAME = re.compile(r"(.+)_(\d{1,9})\.png", re.IGNORECASE)


@dataclass(frozen=True)
class _Thing:
    """A marked thing of a photograph: what says where it is, its box or its mask or both, and its label."""

    source: str
    image: str
    box_xywh: NDArray[np.float64] | None = None  # [4]
    mask: str | None = None
    label: str | None = None


class Photographs(SequenceReader):
    """The marked things of a folder of photographs. Boxes and names are read when the first thing is asked for.

    Args:
        root: the folder that holds `images`, and `boxes.jsonl`, `masks` or both.
        split: `all`, or the photographs of `train`, `val` or `test` (see the module).
        min_side: the least width and height, in pixels, of a thing that counts as visible.

    Raises:
        UserError: there is no such root, no folder of images in it, or neither boxes nor masks.
    """

    dataset = "photos"

    def __init__(self, root: str | Path, split: str = "all", min_side: float = 4.0) -> None:
        self.root = require_folder(root, "the photographs")
        require_split(split, _SPLITS, "A folder of photographs")
        self._split = split
        self._min_side = min_side
        self._images = self.root / "images"
        self._boxes = self.root / "boxes.jsonl"
        self._masks = self.root / "masks"
        if not self._images.is_dir():
            raise UserError(f"There is no folder {self._images}; put the photographs there.")
        if not is_given(self._boxes) and not self._masks.is_dir():
            raise UserError(
                f"{self.root} holds neither boxes.jsonl nor a folder masks; at least one must say where things are."
            )

    @property
    def names(self) -> list[str]:
        """The things' names, `<image>_<k>`, in the natural order of the photographs."""
        return self._names

    @property
    def unused(self) -> list[str]:
        """That photographs have neither box nor mask."""
        marked = {thing.image for thing in self._marked.values()}
        bare = sorted(set(self._image_files.values()) - marked, key=natural_key)
        if not bare:
            return []
        return [f"{self._images} holds {len(bare)} photographs without box or mask, such as {bare[0]}: not read."]

    def __getitem__(self, index: int) -> Sequence:
        """The thing number `index` (0-based).

        Raises:
            UserError: its photograph or mask is missing or broken, they differ in size, or the box is outside.
        """
        thing = self._things[self.names[index]]
        frames = ImageFiles(self._images, (thing.image,))
        if not is_given(self._images / thing.image):
            raise UserError(f"{thing.source} is of {self._images / thing.image}, which is not there.")
        height, width = frames[0].shape[:2]
        box_xywh = thing.box_xywh
        if thing.mask is not None:
            marked = ImageFiles(self._masks, (thing.mask,))[0].any(axis=-1)
            if marked.shape != (height, width):
                raise UserError(
                    f"The mask {self._masks / thing.mask} is {marked.shape[1]}x{marked.shape[0]} px, its photograph "
                    f"{frames.name(0)} {width}x{height} px; save them in one size."
                )
            if box_xywh is None:
                box_xywh = _box_of_mask(marked, self._masks / thing.mask)
        assert box_xywh is not None
        has_size = positive_size(box_xywh[None])
        center = box_xywh[:2] + box_xywh[2:] / 2
        if has_size[0] and not ((center >= 0) & (center < (width, height))).all():
            raise UserError(
                f"{thing.source}: box {box_xywh.tolist()} has its centre outside {frames.name(0)}, which is "
                f"{width}x{height} px; boxes are x, y, w, h in pixels of the file in images."
            )
        return Sequence(
            name=self.names[index],
            dataset=self.dataset,
            frames=frames,
            boxes_xywh=box_xywh[None],
            visible=has_size & (box_xywh[2:].min() >= self._min_side),
            class_name=thing.label,
        )

    @cached_property
    def _names(self) -> list[str]:
        return list(self._things)

    @cached_property
    def _things(self) -> dict[str, _Thing]:
        """The things of the split, by name."""
        if self._split == "all":
            return self._marked
        split_of = {image: self._split_of(image) for image in {thing.image for thing in self._marked.values()}}
        things = {name: thing for name, thing in self._marked.items() if split_of[thing.image] in (self._split, None)}
        if not things:
            raise UserError(
                f"None of the {len(self._marked)} things in {self.root} is in a photograph of split {self._split!r}; "
                "mark more of them, or take split all."
            )
        return things

    def _split_of(self, image: str) -> str | None:
        """None where there is no such image, which `__getitem__` says: the others are of use."""
        if not is_given(self._images / image):
            return None
        return split_of_hash(image_hash(read_given(self._images / image, LARGEST_IMAGE)))

    @cached_property
    def _marked(self) -> dict[str, _Thing]:
        """The things of all splits, by name in natural order."""
        things = self._boxed() if is_given(self._boxes) else {}
        masks = sorted(os.listdir(self._masks)) if self._masks.is_dir() else []
        for mask in (mask for mask in masks if not mask.startswith(".")):
            parts = _MASK_NAME.fullmatch(mask)
            if parts is None:
                raise UserError(f"{self._masks / mask} is not named <image>_<k>.png, k being the number of a thing.")
            name = f"{parts[1]}_{int(parts[2])}"
            thing = things.get(name)
            if thing is None:
                image = self._image_files.get(parts[1], f"{parts[1]}.*")
                thing = _Thing(f"The mask {self._masks / mask}", image)
            if thing.mask is not None:
                raise UserError(f"{self._masks} holds {thing.mask} and {mask}, two masks of one thing.")
            things[name] = replace(thing, mask=mask)
        unplaced = next((thing for thing in things.values() if thing.box_xywh is None and thing.mask is None), None)
        if unplaced is not None:
            raise UserError(f"{unplaced.source}: null stands for a box, and there is no mask instead of it.")
        if not things:
            raise UserError(f"{self.root} marks no thing, neither in boxes.jsonl nor in masks.")
        return {name: things[name] for name in sorted(things, key=natural_key)}

    def _boxed(self) -> dict[str, _Thing]:
        """The things of `boxes.jsonl`, by name."""
        things: dict[str, _Thing] = {}
        lines: dict[str, int] = {}
        images: dict[str, str] = {}  # by what comes before their suffix
        for number, line in enumerate(read_text(self._boxes, _LARGEST_BOXES).split("\n"), start=1):
            if not line.strip():
                continue
            source = f"{self._boxes}, line {number}"
            try:
                image, boxes_xywh, labels = _parse(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{source}: {error}.") from error
            if (first := lines.setdefault(image, number)) != number:
                raise UserError(f"{source}: {image} is on line {first} already; put all of its boxes there.")
            if (twin := images.setdefault(stem(image), image)) != image:
                raise UserError(f"{source}: the things of {image} have the same names as those of {twin}; rename one.")
            for k, (box_xywh, label) in enumerate(zip(boxes_xywh, labels, strict=True)):
                things[f"{stem(image)}_{k}"] = _Thing(source, image, box_xywh, label=label)
        return things

    @cached_property
    def _image_files(self) -> dict[str, str]:
        """The photographs' names by what comes before their suffix, which names their things and masks."""
        files: dict[str, str] = {}
        for name in sorted(os.listdir(self._images)):
            if is_image_name(name) and (twin := files.setdefault(stem(name), name)) != name:
                raise UserError(f"{self._images} holds {twin} and {name}, whose masks have the same names; rename one.")
        return files


def _parse(line: str) -> tuple[str, list[NDArray[np.float64] | None], list[str | None]]:
    """The photograph's name, boxes x, y, w, h and labels of a line of `boxes.jsonl`.

    Raises:
        ValueError: the line is something else.
    """
    content = parse_json(line)
    if not isinstance(content, dict) or not isinstance(image := content.get("image"), str):
        raise ValueError('an object with "image", a file\'s name, is expected')
    if os.path.basename(image) != image or not is_image_name(image) or not can_be_a_name(image):
        raise ValueError(f"{excerpt(image)} is not the name of an image in the folder images")
    boxes = content.get("boxes_xywh")
    if not isinstance(boxes, list):
        raise ValueError('"boxes_xywh" must be a list of boxes')
    labels = content.get("labels")
    if labels is None:
        labels = [None] * len(boxes)
    if not isinstance(labels, list) or len(labels) != len(boxes):
        raise ValueError(f'"labels" must be a list of {len(boxes)} words, one for each box')
    if not all(label is None or isinstance(label, str) for label in labels):
        raise ValueError('"labels" must be words')
    return image, [_box(box) for box in boxes], labels


def _box(value: object) -> NDArray[np.float64] | None:
    """A box x, y, w, h as a line of `boxes.jsonl` holds it: [4], or None for null."""
    if value is None:
        return None
    try:
        numbers = json_boxes(value)
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (4,) or np.isnan(numbers).any() or out_of_reach(numbers[None])[0]:
        raise ValueError(f"box {json.dumps(value)[:60]} is not four numbers x, y, w, h")
    return numbers


def _box_of_mask(marked: NDArray[np.bool_], path: Path) -> NDArray[np.float64]:
    """The box x, y, w, h [4] of the marked pixels [H, W]."""
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    if not len(rows):
        raise UserError(f"The mask {path} is black all over; delete it, or save it again.")
    return np.array([columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1], np.float64)
