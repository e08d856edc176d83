"""LaSOT and its extension (Fan et al., CVPR 2019; IJCV 2021).

Layout: `<class>/<class>-<n>/` with `groundtruth.txt` (x,y,w,h), `full_occlusion.txt` and `out_of_view.txt` (each one
comma-separated line), `nlp.txt` and `img/00000001.jpg` on. Copies without the classes' folders, or with a folder more
around them, are read too.

A target is visible where neither flag is set and its box has a size. Flags cannot be had from boxes: many absent frames
still carry one.
"""

from collections.abc import Iterable
from pathlib import Path

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import (
    FolderReader,
    class_sequences,
    require_all,
    require_folder,
    require_split,
)
from relo.data.sequences.frame_files import frames_folder, natural_key, numbered_frames
from relo.data.sequences.parsing import (
    check_count,
    is_given,
    positive_size,
    read_boxes,
    read_flags,
    read_names,
    read_sentence,
)
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
    listed = True
    unused_because = "no list of LaSOT's sequences names it, or another folder of this name is read"

    def __init__(
        self, root: str | Path, split: str = "train", *, zero_based: bool = False, partial: bool = False
    ) -> None:
        folder = require_folder(root, "LaSOT")
        require_split(split, ("train", "test"), "LaSOT")
        self._folders = class_sequences(folder)
        super().__init__(folder, require_all(folder, _listed(folder, split), self._folders, split, partial))
        self.zero_based = zero_based

    def sequence_folders(self) -> Iterable[Path]:
        """Those that the lists of both splits name."""
        names = [name for split in ("train", "test") for name in _listed(self.root, split)]
        return [self._folders[name] for name in names if name in self._folders]

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `airplane-1`."""
        sequence = _read(self._folders[name], self.dataset)
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
    unused_because = "it is not called <class>-<n>, or another folder of this name is read"

    def __init__(self, root: str | Path, split: str = "test") -> None:
        folder = require_folder(root, "LaSOT extension")
        require_split(split, ("test",), "LaSOT extension")
        self._folders = class_sequences(folder)
        super().__init__(folder, sorted(self._folders, key=natural_key))

    def sequence_folders(self) -> Iterable[Path]:
        """Those of all that are found."""
        return self._folders.values()

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `atv-1`."""
        return _read(self._folders[name], self.dataset)


def challenge_attributes() -> dict[str, tuple[str, ...]]:
    """The challenge attributes of each of the 280 test sequences, by name.

    IV illumination variation, POC partial occlusion, DEF deformation, MB motion blur, CM camera motion, ROT rotation,
    BC background clutter, VC viewpoint change, SV scale variation, FOC full occlusion, FM fast motion, OV out of view,
    LR low resolution, ARC aspect ratio change.
    """
    return {name: tuple(row["attributes"].split()) for name, row in read_table("lasot_test.csv").items()}


def _listed(root: Path, split: str) -> list[str]:
    own_list = root / f"{split}ing_set.txt"
    return read_names(own_list) if is_given(own_list) else _official_names(split)


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


def _read(folder: Path, dataset: str) -> Sequence:
    frames = numbered_frames(folder / "img", first=1)
    boxes_xywh = read_boxes(folder / "groundtruth.txt")
    check_count(folder / "groundtruth.txt", len(boxes_xywh), len(frames), frames_folder(frames))
    visible = positive_size(boxes_xywh)
    for file in ("full_occlusion.txt", "out_of_view.txt"):
        flags = read_flags(folder / file)
        check_count(folder / file, len(flags), len(frames), frames_folder(frames))
        visible &= ~flags
    sentence, remarks = read_sentence(folder / "nlp.txt")
    attributes = challenge_attributes().get(folder.name, ()) if dataset == LaSOT.dataset else ()
    return Sequence(
        name=folder.name,
        dataset=dataset,
        frames=frames,
        boxes_xywh=boxes_xywh,
        visible=visible,
        class_name=_class_of(folder.name),
        sentence=sentence,
        attributes={"challenges": attributes},
        remarks=remarks,
    )
