"""LaSOT and its extension (Fan et al., CVPR 2019; IJCV 2021).

Layout: `<class>/<class>-<n>/` with `groundtruth.txt` (x,y,w,h), `full_occlusion.txt` and `out_of_view.txt` (each one
comma-separated line), `nlp.txt` and `img/00000001.jpg` on.

A target is visible where neither flag is set and its box has a size. Flags cannot be had from boxes: many absent frames
still carry one.
"""

from pathlib import Path

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import (
    FolderReader,
    frames_folder,
    numbered_frames,
    require_all,
    require_folder,
    require_split,
    subfolders,
)
from relo.data.sequences.parsing import check_count, positive_size, read_boxes, read_flags, read_names, read_text
from relo.data.sequences.tables import read_table

_SEQUENCES_PER_CLASS = 20


class LaSOT(FolderReader):
    """The official split of LaSOT: 1,120 sequences of `train` or 280 of `test`.

    A list `training_set.txt` or `testing_set.txt` in the root stands in for the official one.

    Args:
        root: the folder that holds the classes' folders.
        split: `train` or `test`.
        zero_based: LaSOT counts pixels from 1. Boxes stay as annotated, as in the benchmark's own scoring and in the
            released RELO, unless this is true: then 1 is subtracted from x and y.
        partial: read the sequences that are there, instead of refusing a root that lacks some.

    Raises:
        UserError: there is no such root or split, or sequences are missing.
    """

    dataset = "lasot"

    def __init__(
        self, root: str | Path, split: str = "train", *, zero_based: bool = False, partial: bool = False
    ) -> None:
        folder = require_folder(root, "LaSOT")
        require_split(split, ("train", "test"), "LaSOT")
        own_list = folder / f"{split}ing_set.txt"
        names = read_names(own_list) if own_list.exists() else _official_names(split)
        super().__init__(folder, require_all(folder, names, _sequences_in(folder), split, partial))
        self.zero_based = zero_based

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `airplane-1`."""
        sequence = _read(self.root, name, self.dataset)
        if self.zero_based:
            sequence.boxes_xywh[:, :2] -= 1
        return sequence


class LaSOTExtension(FolderReader):
    """The extension of LaSOT: 150 sequences of 15 further classes, all for testing.

    The released images of `paddle-1` do not match the toolkit's annotation of it; the one beside the images is read.

    Args:
        root: the folder that holds the classes' folders.
        split: `test`.

    Raises:
        UserError: there is no such root or split.
    """

    dataset = "lasot_extension"

    def __init__(self, root: str | Path, split: str = "test") -> None:
        folder = require_folder(root, "LaSOT extension")
        require_split(split, ("test",), "LaSOT extension")
        super().__init__(folder, sorted(_sequences_in(folder), key=_natural_order))

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `atv-1`."""
        return _read(self.root, name, self.dataset)


def challenge_attributes() -> dict[str, tuple[str, ...]]:
    """The challenge attributes of each of the 280 test sequences, by name.

    IV illumination variation, POC partial occlusion, DEF deformation, MB motion blur, CM camera motion, ROT rotation,
    BC background clutter, VC viewpoint change, SV scale variation, FOC full occlusion, FM fast motion, OV out of view,
    LR low resolution, ARC aspect ratio change.
    """
    return {name: tuple(row["attributes"].split()) for name, row in read_table("lasot_test.csv").items()}


def _official_names(split: str) -> list[str]:
    test = list(challenge_attributes())
    if split == "test":
        return test
    classes = dict.fromkeys(_class_of(name) for name in test)
    held_out = set(test)
    every = [f"{label}-{number}" for label in classes for number in range(1, _SEQUENCES_PER_CLASS + 1)]
    return [name for name in every if name not in held_out]


def _class_of(name: str) -> str:
    return name.rpartition("-")[0]


def _natural_order(name: str) -> tuple[str, int]:
    label, _, number = name.rpartition("-")
    return label, int(number)


def _sequences_in(root: Path) -> list[str]:
    return [
        name
        for label in subfolders(root)
        for name in subfolders(root / label)
        if _class_of(name) == label and name.rpartition("-")[2].isdecimal()
    ]


def _read(root: Path, name: str, dataset: str) -> Sequence:
    folder = root / _class_of(name) / name
    frames = numbered_frames(folder / "img", first=1)
    boxes_xywh = read_boxes(folder / "groundtruth.txt")
    check_count(folder / "groundtruth.txt", len(boxes_xywh), len(frames), frames_folder(frames))
    visible = positive_size(boxes_xywh)
    for file in ("full_occlusion.txt", "out_of_view.txt"):
        flags = read_flags(folder / file)
        check_count(folder / file, len(flags), len(frames), frames_folder(frames))
        visible &= ~flags
    sentence = folder / "nlp.txt"
    attributes = challenge_attributes().get(name, ()) if dataset == LaSOT.dataset else ()
    return Sequence(
        name=name,
        dataset=dataset,
        frames=frames,
        boxes_xywh=boxes_xywh,
        visible=visible,
        class_name=_class_of(name),
        sentence=read_text(sentence).strip() if sentence.exists() else None,
        attributes={"challenges": attributes},
    )
