"""What single datasets have that no other has; their specifications in `datasets` name these functions."""

import configparser
import os
import re
from collections.abc import Sequence as Items
from importlib import resources
from pathlib import Path

import numpy as np

from relo.data.sequences.base import ImageFiles
from relo.data.sequences.parsing import (
    check_count,
    is_given,
    read_levels,
    read_names,
    read_optional_text,
    read_text,
    to_numbers,
)
from relo.data.sequences.specification import Boxes, Dataset, Facts, Flags, Listing, Place
from relo.data.sequences.tables import read_table
from relo.errors import EXCERPT, UserError, excerpt

_LARGEST_META = 1 << 14  # characters of a `meta_info.ini`, whose parser's time grows with their square

# --- LaSOT: the official split, and the challenges of its test sequences.


def lasot_challenges() -> dict[str, tuple[str, ...]]:
    """The challenge attributes of each of the 280 test sequences, by name.

    IV illumination variation, POC partial occlusion, DEF deformation, MB motion blur, CM camera motion, ROT rotation,
    BC background clutter, VC viewpoint change, SV scale variation, FOC full occlusion, FM fast motion, OV out of view,
    LR low resolution, ARC aspect ratio change.
    """
    return {name: tuple(row["attributes"].split()) for name, row in read_table("lasot_test.csv").items()}


def lasot_facts(place: Place) -> Facts:
    """A sequence's class, and its challenges in the test set."""
    name = place.fields["name"]
    return Facts(name.rpartition("-")[0], {"challenges": lasot_challenges().get(name, ())})


def lasot_names(split: str) -> list[str]:
    """The 280 names of `test`; for `train` the other 1,120 of the 20 sequences that each class has."""
    test = list(lasot_challenges())
    if split == "test":
        return test
    classes = dict.fromkeys(name.rpartition("-")[0] for name in test)
    held_out = set(test)
    every = [f"{label}-{number}" for label in classes for number in range(1, 21)]
    return [name for name in every if name not in held_out]


# --- GOT-10k: lists in the splits' folders, a split by rows of the official list, defects, a file of facts.

_GOT10K_TRAIN_SEQUENCES = 9335

GOT10K_DEFECTIVE = frozenset(f"GOT-10k_Train_{number:06d}" for number in (*range(8623, 8638), 9058, 9059, 1636, 1638))
"""Sequences with repeated first images and wrong boxes (8623-8637, 9058, 9059) or wrong frames (1636, 1638)."""


def in_got10k_lists(dataset: Dataset, root: Path, split: str, *, skip_defective: bool = False) -> Listing:
    """The sequences that `list.txt` in a split's folder names.

    Args:
        dataset: GOT-10k.
        root: its folder.
        split: the split; `vot-train` are the 7,086 sequences of `train` that share no video with the VOT challenges.
        skip_defective: leave out the sequences in `GOT10K_DEFECTIVE`, which the official splits have.

    Raises:
        UserError: `vot-train` is asked of a list that is not the official one, to whose rows it refers.
    """
    base = root / split.removeprefix("vot-")
    listed = names = read_names(base / "list.txt")
    if split == "vot-train":
        if len(names) != _GOT10K_TRAIN_SEQUENCES:
            raise UserError(
                f"{base / 'list.txt'} has {len(names)} names; split vot-train is defined on the official "
                f"{_GOT10K_TRAIN_SEQUENCES}. Use split train."
            )
        table = resources.files("relo.data.sequences").joinpath("splits", "got10k_vot_excluded.txt").read_text()
        excluded = set(map(int, table.split()))
        names = [name for row, name in enumerate(names) if row not in excluded]
    if skip_defective:
        names = [name for name in names if name not in GOT10K_DEFECTIVE]
    known = {name: dataset.place(base, name) for name in listed}
    places = {name: known[name] for name in names}
    return Listing(places, base, known, "list.txt does not name it", is_list=True)


def got10k_facts(place: Place) -> Facts:
    """What `meta_info.ini` and `cover.label` say, which are missing in the test split.

    The attributes are `cover`, int64 [N] from 0 (nothing to be seen) to 8 (all), and `resolution`, (width, height).

    Raises:
        UserError: a file is none of GOT-10k's.
    """
    path, cover_file = place.path("{name}/meta_info.ini"), place.path("{name}/cover.label")
    text, remarks = read_optional_text(path)
    if len(text) > _LARGEST_META:
        raise UserError(
            f"{path} is not a GOT-10k meta file: it has {len(text):,} characters, where a dozen lines belong."
        )
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        problem = " ".join(str(error).split())[:EXCERPT]
        raise UserError(f"{path} is not a GOT-10k meta file: {problem}") from error
    meta = parser["METAINFO"] if parser.has_section("METAINFO") else {}
    size = re.fullmatch(r"\((\d{1,6}), *(\d{1,6})\)", meta.get("resolution", ""))
    attributes = {
        "cover": read_levels(cover_file) if is_given(cover_file) else None,
        "resolution": None if size is None else (int(size[1]), int(size[2])),
    }
    return Facts(meta.get("object_class"), attributes, remarks)


def got10k_image_size(place: Place) -> tuple[int, int] | None:
    """The width and height that `meta_info.ini` notes as `resolution: (1920, 1080)`; None without file or line.

    Raises:
        UserError: the file cannot be read, or the line is something else.
    """
    path = place.path("{name}/meta_info.ini")
    line = re.search(r"^[ \t]*resolution[ \t]*[:=](.*)", read_text(path), re.MULTILINE) if is_given(path) else None
    if line is None:
        return None
    noted = re.fullmatch(r"\(\s*(\d{1,6})\s*,\s*(\d{1,6})\s*\)", line[1].strip())
    size = (int(noted[1]), int(noted[2])) if noted else (0, 0)
    if not all(size):
        raise UserError(
            f"{path} has resolution {excerpt(line[1].strip())}, which is no size such as (1920, 1080); copy it again."
        )
    return size


# --- TrackingNet: training videos in twelve folders.


def in_trackingnet_folders(
    dataset: Dataset, root: Path, split: str, *, folders: Items[int] | None = None, partial: bool = False
) -> Listing:
    """The videos with an annotation in `TEST`, or in `TRAIN_0` to `TRAIN_11`.

    Args:
        dataset: TrackingNet.
        root: its folder.
        split: the split.
        folders: the numbers of the training folders to read, by default all 12. The paper's trackers often use the
            first 4.
        partial: take the folders that are there, instead of refusing a root that lacks some.

    Raises:
        UserError: a folder is missing.
    """
    training = [f"TRAIN_{number}" for number in range(12)]
    parts = ["TEST"] if split == "test" else training if folders is None else [f"TRAIN_{number}" for number in folders]
    missing = [root / part / "anno" for part in parts if not (root / part / "anno").is_dir()]
    if missing and not partial:
        raise UserError(f"There is no folder {missing[0]}; complete TrackingNet, or name the `folders` to read.")
    places = {}
    for part in parts:
        if root / part / "anno" not in missing:
            files = sorted(os.listdir(root / part / "anno"))
            names = [file[:-4] for file in files if file.endswith(".txt") and file[0] != "."]
            places.update({name: dataset.place(root / part, name) for name in names})
    others = tuple(root / part for part in ("TEST", *training) if part not in parts)
    return Listing(places, root, places, "anno holds no file of its name", skipped=others)


# --- NFS: VATIC's corners at 240 frames per second, and frames and boxes that differ by one.

_NFS_SOUND_FRAMES = {"pingpong_2": 263}  # what follows in the original annotation belongs to no image


def read_vatic(path: Path) -> tuple[Boxes, Flags]:
    """The 30 fps rows, every eighth, of an original annotation: boxes_xywh [N, 4], and whether the target is lost [N].

    A row is: number, corners x1 y1 x2 y2, frame, lost, occluded, generated, "label".

    Raises:
        UserError: the file cannot be read, or a row is none of VATIC's; the message names the line.
    """
    numbers = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            numbers.append(to_numbers(cells[1:7]))
        except ValueError:
            numbers.append([])
        if len(numbers[-1]) != 6:
            raise UserError(f"{path}, line {number}: no row of a VATIC annotation (number x1 y1 x2 y2 frame lost ...).")
    rows = np.array(numbers, np.float64).reshape(-1, 6)[::8][: _NFS_SOUND_FRAMES.get(path.stem)]
    return np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1), rows[:, 5] == 1


def cut_the_longer(path: Path, boxes_xywh: Boxes, frames: ImageFiles) -> tuple[Boxes, ImageFiles, tuple[str, ...]]:
    """Frames and boxes of NFS may differ by one: the longer is cut."""
    if abs(len(boxes_xywh) - len(frames)) > 1 and frames.folder.name not in _NFS_SOUND_FRAMES:
        check_count(path, len(boxes_xywh), len(frames), f"frames in {frames.folder}")
    length = min(len(boxes_xywh), len(frames))
    return boxes_xywh[:length], ImageFiles(frames.folder, frames.names[:length]), ()


# --- TNL2K: a row fewer than images.


def leave_out_the_last_image(
    path: Path, boxes_xywh: Boxes, frames: ImageFiles
) -> tuple[Boxes, ImageFiles, tuple[str, ...]]:
    """Twelve training videos of TNL2K need the authors' `revised_annotations.zip`; one row fewer can remain."""
    remarks: tuple[str, ...] = ()
    if len(boxes_xywh) == len(frames) - 1:
        remarks = (f"{frames.name(-1)} is left out: {path} has a row fewer than images.",)
        frames = ImageFiles(frames.folder, frames.names[:-1])
    if len(boxes_xywh) != len(frames):
        raise UserError(
            f"{path} has {len(boxes_xywh)} rows for {len(frames)} frames in {frames.folder}; "
            "extract it again, or take it from the authors' revised_annotations.zip."
        )
    return boxes_xywh, frames, remarks


# --- Plain folders: the first frame's box will do.


def first_box_or_all(path: Path, boxes_xywh: Boxes, frames: ImageFiles) -> tuple[Boxes, ImageFiles, tuple[str, ...]]:
    """A plain folder may hold the first frame's box alone."""
    if len(boxes_xywh) != 1:
        check_count(path, len(boxes_xywh), len(frames), f"frames in {frames.folder}")
    return boxes_xywh, frames, ()
