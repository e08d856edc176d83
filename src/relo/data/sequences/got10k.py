"""GOT-10k (Huang et al., TPAMI 2021).

Layout: `<split>/list.txt` and `<split>/<name>/` with `00000001.jpg` on, `groundtruth.txt` (x,y,w,h), and, but for test,
`absence.label`, `cover.label`, `cut_by_image.label` (one number a line) and `meta_info.ini`. Test has its first box
only.

A target is visible where it is not absent, its cover level is above 0 and its box has a size. Absent frames carry boxes
of -1, of zeros, or left-over ones; boxes may reach out of the image. The resolution changes inside some sequences
(Val_000136, Val_000137, Train_007947 and a few more), so frames of one sequence can differ in size.
"""

import configparser
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

import numpy as np

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import FolderReader, require_folder, require_split
from relo.data.sequences.frame_files import frames_folder, numbered_frames
from relo.data.sequences.parsing import (
    check_count,
    positive_size,
    read_boxes,
    read_flags,
    read_names,
    read_numbers,
    read_optional_text,
)
from relo.errors import UserError

_TRAIN_SEQUENCES = 9335

DEFECTIVE = frozenset(f"GOT-10k_Train_{number:06d}" for number in (*range(8623, 8638), 9058, 9059, 1636, 1638))
"""Sequences with repeated first images and wrong boxes (8623-8637, 9058, 9059) or wrong frames (1636, 1638)."""


class GOT10k(FolderReader):
    """A split of GOT-10k.

    `attributes` of a sequence: `cover`, int64 [N] from 0 (nothing to be seen) to 8 (all), or None for test;
    `resolution`, the (width, height) in `meta_info.ini`, or None.

    Args:
        root: the folder that holds `train`, `val` and `test`.
        split: `train` (9,335 sequences), `vot-train` (the 7,086 of them that share no video with the VOT challenges),
            `val` or `test`.
        skip_defective: leave out the sequences in `DEFECTIVE`. The official splits have them.

    Raises:
        UserError: there is no such root, split or list; or `vot-train` is asked of a list that is not the official one,
            to whose rows it refers.
    """

    dataset = "got10k"
    listed = True
    unused_because = "list.txt does not name it"

    def __init__(self, root: str | Path, split: str = "train", *, skip_defective: bool = False) -> None:
        folder = require_folder(root, "GOT-10k")
        require_split(split, ("train", "vot-train", "val", "test"), "GOT-10k")
        self.split = split
        base = folder / split.removeprefix("vot-")
        names = self._listed = read_names(base / "list.txt")
        if split == "vot-train":
            if len(names) != _TRAIN_SEQUENCES:
                raise UserError(
                    f"{base / 'list.txt'} has {len(names)} names; split vot-train is defined on the official "
                    f"{_TRAIN_SEQUENCES}. Use split train."
                )
            excluded = _vot_excluded_rows()
            names = [name for row, name in enumerate(names) if row not in excluded]
        if skip_defective:
            names = [name for name in names if name not in DEFECTIVE]
        super().__init__(base, names)

    def sequence_folders(self) -> Iterable[Path]:
        """Those that the split's list names."""
        return (self.root / name for name in self._listed)

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `GOT-10k_Train_000001`."""
        folder = self.root / name
        frames = numbered_frames(folder, first=1)
        boxes_xywh = read_boxes(folder / "groundtruth.txt")
        test = self.split == "test"
        if test:
            check_count(folder / "groundtruth.txt", len(boxes_xywh), 1, "first frame")
        else:
            check_count(folder / "groundtruth.txt", len(boxes_xywh), len(frames), frames_folder(frames))
        visible = positive_size(boxes_xywh)
        cover = None
        if not test:
            absence = read_flags(folder / "absence.label")
            check_count(folder / "absence.label", len(absence), len(frames), frames_folder(frames))
            cover = read_numbers(folder / "cover.label").astype(np.int64)
            check_count(folder / "cover.label", len(cover), len(frames), frames_folder(frames))
            visible &= ~absence & (cover > 0)
        meta, remarks = _meta_info(folder / "meta_info.ini")
        return Sequence(
            name=name,
            dataset=self.dataset,
            frames=frames,
            boxes_xywh=boxes_xywh,
            visible=visible,
            class_name=meta.get("object_class"),
            attributes={"cover": cover, "resolution": _resolution(meta)},
            remarks=remarks,
        )


def _vot_excluded_rows() -> set[int]:
    """0-based rows of the official list whose videos the VOT challenges use."""
    table = resources.files("relo.data.sequences").joinpath("splits", "got10k_vot_excluded.txt").read_text()
    return set(map(int, table.split()))


def _meta_info(path: Path) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The facts about a sequence, none where the file is missing (test); and remarks on the file."""
    text, remarks = read_optional_text(path)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text or "")
    except configparser.Error as error:
        raise UserError(f"{path} is not a GOT-10k meta file: {' '.join(str(error).split())}") from error
    return parser["METAINFO"] if parser.has_section("METAINFO") else {}, remarks


def _resolution(meta: Mapping[str, str]) -> tuple[int, int] | None:
    match = re.fullmatch(r"\((\d{1,6}), *(\d{1,6})\)", meta.get("resolution", ""))
    return None if match is None else (int(match[1]), int(match[2]))
