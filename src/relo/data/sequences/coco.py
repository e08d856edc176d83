"""COCO (Lin et al., ECCV 2014) as sequences of one frame: every annotated object that is no crowd is a target.

Layout: `annotations/instances_<split>.json` and `images/<split>/` (or `<split>/`, as unzipped). Boxes are x, y, w, h
from 0; some have no size, and these are not visible.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relo.data.sequences.annotation import remarks_on_reach
from relo.data.sequences.base import ImageFiles, Sequence, SequenceReader
from relo.data.sequences.listings import require_folder
from relo.data.sequences.parsing import json_boxes, positive_size, read_json
from relo.errors import UserError, excerpt
from relo.inputs import leads_outside

_LARGEST_ANNOTATIONS = 2**30  # bytes; those of train2017 are 448 MB
_LARGEST_NUMBER = 2**63  # of an annotation; its number is the sequence's name, and so of result files


@dataclass(frozen=True)
class _Objects:
    """The M objects of an annotation file, in its order."""

    names: list[str]  # annotation numbers
    image_files: list[str]
    class_names: list[str]
    boxes_xywh: NDArray[np.float64]  # [M, 4]


class COCO(SequenceReader):
    """The objects of a split of COCO. The annotation file is read when the first object is asked for.

    Args:
        root: the folder that holds `annotations` and `images`.
        split: a split with public annotations, such as `train2017`, `val2017` or `train2014`.

    Raises:
        UserError: there is no such root, annotation file or folder of images.
    """

    dataset = "coco"

    def __init__(self, root: str | Path, split: str = "train2017") -> None:
        self.root = require_folder(root, "COCO")
        self._annotations = self.root / "annotations" / f"instances_{split}.json"
        if not os.path.isfile(self._annotations):  # False for a name that no file can have
            raise UserError(f"There is no file {self._annotations}; extract COCO's annotations, or name another split.")
        folders = [self.root / "images" / split, self.root / split]
        self._images = next(filter(os.path.isdir, folders), folders[0])
        if not os.path.isdir(self._images):
            raise UserError(f"There is no folder {self._images}; extract COCO's images there.")

    @cached_property
    def _objects(self) -> _Objects:
        content = read_json(self._annotations, _LARGEST_ANNOTATIONS)
        try:
            files = _by_id(content["images"], "file_name")
            labels = _by_id(content["categories"], "name")
            targets = [target for target in content["annotations"] if not _is_crowd(target)]
            objects = _Objects(
                names=[str(target["id"]) for target in targets],
                image_files=[files[target["image_id"]] for target in targets],
                class_names=[labels[target["category_id"]] for target in targets],
                boxes_xywh=json_boxes([target["bbox"] for target in targets]),
            )
            if objects.boxes_xywh.shape != (len(targets), 4):
                raise ValueError("there are no objects, or a bbox is not four numbers")
            if not all(isinstance(word, str) for word in (*objects.image_files, *objects.class_names)):
                raise ValueError("a file_name or name is no text")
            for key in ("id", "image_id", "category_id"):
                if not all(type(target[key]) is int and abs(target[key]) < _LARGEST_NUMBER for target in targets):
                    raise ValueError(f"the {key} of an annotation is no whole number")
            if len(set(objects.names)) < len(objects.names):
                raise ValueError("two annotations have one id")
            if outside := next(filter(leads_outside, objects.image_files), None):
                raise ValueError(f"file_name {excerpt(outside)} leads out of the images' folder")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self._annotations} is not a COCO annotation file ({excerpt(error)}).") from error
        return objects

    @property
    def names(self) -> list[str]:
        """The annotations' numbers."""
        return self._objects.names

    def __getitem__(self, index: int) -> Sequence:
        """The object number `index` (0-based).

        Raises:
            UserError: its image is not there, or the annotation file is broken.
        """
        objects = self._objects
        image = self._images / objects.image_files[index]
        if not os.path.isfile(image):  # False for a name that no file can have
            name = objects.image_files[index]
            raise UserError(f"There is no image {excerpt(name)} in {self._images}; extract COCO's images again.")
        box_xywh = objects.boxes_xywh[index][None]
        return Sequence(
            name=objects.names[index],
            dataset=self.dataset,
            frames=ImageFiles(self._images, (objects.image_files[index],)),
            boxes_xywh=box_xywh,
            visible=positive_size(box_xywh),
            class_name=objects.class_names[index],
            remarks=remarks_on_reach(box_xywh, f"{self._annotations}, object {objects.names[index]}"),
        )


def _by_id(entries: list[dict[str, Any]], key: str) -> dict[int, Any]:
    """The values of a key by the entries' ids.

    Raises:
        ValueError: an id is no whole number, or two entries have one, so that it is not known which of them is meant.
    """
    if not all(type(entry["id"]) is int for entry in entries):
        raise ValueError(f"the id of an entry with a {key} is no whole number")
    values = {entry["id"]: entry[key] for entry in entries}
    if len(values) < len(entries):
        raise ValueError(f"two entries with a {key} have one id")
    return values


def _is_crowd(target: dict[str, Any]) -> bool:
    """Whether what is annotated is a crowd, and no single object.

    Raises:
        ValueError: it is said otherwise than by 0 or 1.
    """
    flag = target.get("iscrowd", 0)
    if flag not in (0, 1):
        raise ValueError(f"iscrowd is {excerpt(flag)}, not 0 or 1")
    return bool(flag)
