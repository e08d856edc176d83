"""TrackingNet (Müller et al., ECCV 2018).

Layout: `TRAIN_0` to `TRAIN_11` and `TEST`, each with `anno/<video>.txt` (x,y,w,h) and `frames/<video>/0.jpg` on:
numbered from 0 without padding. Names are video identifiers and may start with a dash. Test has its first box only.

There are no flags: a target counts as visible where its box has a size. Training boxes were interpolated by trackers,
and some are wrong. Frames are unzipped video by video, and an incomplete unzip is common: frames and boxes are counted.
"""

import os
from collections.abc import Iterable
from collections.abc import Sequence as Items
from pathlib import Path

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import FolderReader, require_folder, require_split
from relo.data.sequences.frame_files import frames_folder, numbered_frames
from relo.data.sequences.parsing import check_count, positive_size, read_boxes
from relo.errors import UserError

_TRAIN_FOLDERS = 12


class TrackingNet(FolderReader):
    """A split of TrackingNet: 12 x 2,511 sequences of `train` or the 511 of `test`.

    Args:
        root: the folder that holds `TRAIN_0` to `TRAIN_11` and `TEST`.
        split: `train` or `test`.
        folders: the numbers of the training folders to read, by default all 12. The paper's trackers often use the
            first 4.

    Raises:
        UserError: there is no such root or split, or a folder is missing.
    """

    dataset = "trackingnet"
    unused_because = "anno holds no file of its name"

    def __init__(self, root: str | Path, split: str = "train", *, folders: Items[int] | None = None) -> None:
        base = require_folder(root, "TrackingNet")
        require_split(split, ("train", "test"), "TrackingNet")
        numbers = range(_TRAIN_FOLDERS) if folders is None else folders
        self._parts = ["TEST"] if split == "test" else [f"TRAIN_{number}" for number in numbers]
        self._part_of: dict[str, str] = {}
        for part in self._parts:
            annotations = base / part / "anno"
            if not annotations.is_dir():
                raise UserError(
                    f"There is no folder {annotations}; complete TrackingNet, or name the `folders` to read."
                )
            videos = sorted(file[:-4] for file in os.listdir(annotations) if file.endswith(".txt") and file[0] != ".")
            self._part_of.update(dict.fromkeys(videos, part))
        self.split = split
        super().__init__(base, self._part_of)

    def sequence_folders(self) -> Iterable[Path]:
        """Those of the videos with an annotation, and the parts of TrackingNet that this reader does not open."""
        closed = {"TEST", *(f"TRAIN_{number}" for number in range(_TRAIN_FOLDERS))}.difference(self._parts)
        yield from (self.root / part for part in closed)
        yield from (self.root / part / "frames" / name for name, part in self._part_of.items())

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `-2iw9kCoyZs_0`."""
        part = self.root / self._part_of[name]
        frames = numbered_frames(part / "frames" / name, first=0)
        annotation = part / "anno" / f"{name}.txt"
        boxes_xywh = read_boxes(annotation)
        if self.split == "test":
            check_count(annotation, len(boxes_xywh), 1, "first frame")
        else:
            check_count(annotation, len(boxes_xywh), len(frames), frames_folder(frames))
        return Sequence(
            name=name, dataset=self.dataset, frames=frames, boxes_xywh=boxes_xywh, visible=positive_size(boxes_xywh)
        )
