"""Ground truth for scoring, without frames: a dataset's root, a flat folder, a zip of one, or OTB/pysot-style JSON."""

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relo.data.sequences.folders import subfolders
from relo.data.sequences.frame_files import numbered_frames
from relo.data.sequences.nfs import read_vatic
from relo.data.sequences.parsing import (
    check_count,
    is_given,
    numbers_in,
    read_boxes,
    read_flags,
    read_json,
    read_names,
    read_numbers,
    read_text,
)
from relo.data.sequences.tables import read_table
from relo.errors import UserError
from relo.evaluation.archives import is_text_name, open_zip
from relo.evaluation.benchmarks import Benchmark, canonical_name, check_origin, leading_rows
from relo.evaluation.scoring import SequenceTruth

# The files of every sequence: boxes first, then whatever the layout keeps beside them.
Files = Mapping[str, Path]


def read_annotations(path: Path, benchmark: Benchmark) -> dict[str, SequenceTruth]:
    """The truth of every sequence, by name, in order.

    Args:
        path: the dataset's root in its own layout (frames need not be there); or a folder, or a zip of a folder, of
            `<sequence>.txt` with flags in `absent/<sequence>.txt` (1 = absent); or JSON as OTB's or pysot's.
        benchmark: the benchmark. Where its whole dataset is annotated, only its test set is read.

    Raises:
        UserError: there is nothing of the benchmark at `path`, or a file is broken.
    """
    if not path.exists():
        raise UserError(
            f"There are no annotations at {path}; give the dataset's root, a folder of .txt files or a .json file."
        )
    if path.suffix.lower() == ".json":
        truths = _read_json(path)
        names = _test_set(path, truths, benchmark)
        truths = {name: truths[name] for name in names}
    else:
        files = _find_files(path, benchmark)
        truths = {name: _read_truth(name, files[name], benchmark) for name in _test_set(path, files, benchmark)}
    check_origin(benchmark, {name: len(truth) for name, truth in truths.items()}, path)
    if all(len(truth) == 1 for truth in truths.values()):
        remedy = "give the whole annotations"
        if benchmark.only_first_frame_public:
            remedy = "the server keeps the rest: pack the results for it with `relo submit`"
        raise UserError(f"{path} holds the first frames' boxes only; {remedy}.")
    return truths


def _test_set(path: Path, names: Mapping[str, Any], benchmark: Benchmark) -> list[str]:
    """Which of the annotated sequences are the benchmark's test set: all, where it cannot be told."""
    own_list = path / benchmark.test_list if benchmark.test_list else None
    if own_list is not None and is_given(own_list):
        listed = read_names(own_list)
        lacking = [name for name in listed if name not in names]
        if lacking:
            raise UserError(f"{own_list} names {len(lacking)} sequences without an annotation, such as {lacking[0]}.")
        return listed
    official = benchmark.test_sequences() if benchmark.test_sequences else ()
    return list(official) if official and set(official) <= set(names) else list(names)


def _find_files(path: Path, benchmark: Benchmark) -> dict[str, Files]:
    if path.is_file():
        if path.suffix != ".zip" and not zipfile.is_zipfile(path):
            raise UserError(f"The annotations {path} are neither a folder nor a .zip nor a .json file.")
        root = open_zip(path)
        inner = [folder for folder in root.iterdir() if folder.is_dir() and folder.name not in ("__MACOSX", "absent")]
    else:
        found = LAYOUTS[benchmark.layout](path)
        if found:
            return found
        # A toolkit's folder keeps the annotations one level down.
        root, inner = path, [path / name for name in subfolders(path) if canonical_name(name) in _FLAT_FOLDERS]
    if found := _flat(root):
        return found
    in_folders = {folder.name: found for folder in inner if (found := _flat(folder))}
    if len(in_folders) > 1:
        raise UserError(f"{path} holds annotations in several folders ({', '.join(in_folders)}); give one of them.")
    if in_folders:
        return in_folders.popitem()[1]
    raise UserError(
        f"{path} holds no annotations of {benchmark.title}: it has neither its layout nor files <sequence>.txt."
    )


_FLAGS_OF_LASOT = {"full_occlusion", "out_of_view"}
_FLAT_FOLDERS = ("anno", "annos", "annotations", "gt", "gt_rect", "groundtruth")


def _flat(folder: Path) -> dict[str, Files]:
    """`<sequence>.txt` in one folder, flags in `absent/`."""
    found: dict[str, Files] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if is_text_name(file.name, ".txt"):
            found[file.name[:-4]] = {"boxes": file, "absent": folder / "absent" / file.name}
    return found


def _classes(root: Path, depth: int = 3) -> dict[str, Files]:
    """LaSOT, its extension and VastTrack: `<class>/<class>-<n>/groundtruth.txt`, LaSOT's with flags beside it.

    Copies without the classes' folders, or with a folder more around them, are found too. Of two annotations of one
    name the upper counts.
    """
    found = _sequences(root)
    inner = [name for name in subfolders(root) if name not in found] if depth > 1 else []
    for name in inner:
        for sequence, files in _classes(root / name, depth - 1).items():
            found.setdefault(sequence, files)
    return found


def _sequences(root: Path) -> dict[str, Files]:
    """TNL2K, DTB70 and plain folders: `<sequence>/groundtruth.txt`, with flags where the layout has them."""
    found: dict[str, Files] = {}
    for name in subfolders(root):
        folder = root / name
        for file in ("groundtruth.txt", "Groundtruth.txt", "groundtruth_rect.txt"):
            if is_given(folder / file):
                flags = {key: folder / f"{key}.txt" for key in ("absent", "full_occlusion", "out_of_view")}
                found[name] = {"boxes": folder / file, **flags}
                break
    return found


def _got10k(root: Path) -> dict[str, Files]:
    """GOT-10k: `val/<sequence>/groundtruth.txt` with `cover.label` and `meta_info.ini`."""
    base = next((root / split for split in ("val", "test") if (root / split).is_dir()), root)
    return {
        name: {**files, "cover": base / name / "cover.label", "meta": base / name / "meta_info.ini"}
        for name, files in _sequences(base).items()
    }


def _otb(root: Path) -> dict[str, Files]:
    """OTB-100: `<folder>/groundtruth_rect.txt`, or `.1.txt` and `.2.txt` for two targets in one video."""
    files = {name: root / row["folder"] / row["annotation"] for name, row in read_table("otb100.csv").items()}
    return {name: {"boxes": file} for name, file in files.items() if is_given(file)}


def _one_of(*folders: str) -> Callable[[Path], dict[str, Files]]:
    """`<folder>/<sequence>.txt` for the first of the folders that is there."""

    def find(root: Path) -> dict[str, Files]:
        folder = next((root / name for name in folders if (root / name).is_dir()), None)
        return {} if folder is None else _flat(folder)

    return find


def _nfs(root: Path) -> dict[str, Files]:
    """NFS at 30 frames a second: `anno/nfs_<sequence>.txt`, or `<sequence>/30/<sequence>_pytracking.txt`, or the
    original `<sequence>/30/<sequence>.txt`, where its frames in `<sequence>/30/<sequence>/` say how many rows count.
    """
    found = {name.removeprefix("nfs_"): files for name, files in _one_of("anno")(root).items()}
    for name in subfolders(root):
        folder = root / name / "30"
        boxes, original = folder / f"{name}_pytracking.txt", folder / f"{name}.txt"
        if is_given(boxes):
            found[name] = {"boxes": boxes}
        elif is_given(original):
            found[name] = {"vatic": original, "frames": folder / name}
    return found


LAYOUTS: Mapping[str, Callable[[Path], dict[str, Files]]] = {
    "classes": _classes,
    "sequences": _sequences,
    "got10k": _got10k,
    "trackingnet": _one_of("TEST/anno"),
    "otb": _otb,
    "uav123": _one_of("anno/UAV123", "UAV123/anno/UAV123"),
    "uav123_10fps": _one_of("anno/UAV123_10fps", "UAV123_10fps/anno/UAV123_10fps"),
    "uav20l": _one_of("anno/UAV20L", "UAV123/anno/UAV20L"),
    "nfs": _nfs,
}


def _read_truth(name: str, files: Files, benchmark: Benchmark) -> SequenceTruth:
    if "vatic" in files:
        return _read_original_nfs(name, files)
    boxes_xywh = read_boxes(files["boxes"])
    if not len(boxes_xywh):
        raise UserError(f"The annotation {files['boxes']} is empty; copy it again.")
    boxes_xywh = boxes_xywh[leading_rows(benchmark, name, len(boxes_xywh)) :]
    absent = None
    given = {
        key for key in ("absent", "full_occlusion", "out_of_view", "cover") if key in files and is_given(files[key])
    }
    if given & _FLAGS_OF_LASOT:
        given |= _FLAGS_OF_LASOT  # one without the other is a file missing
    for key in sorted(given):
        file = files[key]
        flags = read_numbers(file) == 0 if key == "cover" else read_flags(file)
        if not (benchmark.flags_may_be_longer and len(flags) > len(boxes_xywh)):
            check_count(file, len(flags), len(boxes_xywh), f"boxes in {files['boxes']}")
        flags = flags[: len(boxes_xywh)]
        absent = flags if absent is None else absent | flags
    return SequenceTruth(
        name=name,
        boxes_xywh=torch.from_numpy(boxes_xywh),
        absent=None if absent is None else torch.from_numpy(absent),
        image_size=_image_size(files["meta"]) if "meta" in files else None,
        origin=str(files["boxes"]),
    )


def _read_original_nfs(name: str, files: Files) -> SequenceTruth:
    """The 30 fps rows; where the frames are at hand, at most as many as there are frames, as in tracking.

    Lost targets keep the box that they were annotated with, as in the other forms of NFS.
    """
    boxes_xywh, _ = read_vatic(files["vatic"])
    if files["frames"].is_dir():
        boxes_xywh = boxes_xywh[: len(numbered_frames(files["frames"], first=1))]
    if not len(boxes_xywh):
        raise UserError(f"The annotation {files['vatic']} is empty; copy it again.")
    return SequenceTruth(name, torch.from_numpy(boxes_xywh), origin=str(files["vatic"]))


def _image_size(meta: Path) -> tuple[int, int] | None:
    """The width and height that GOT-10k notes as `resolution: (1920, 1080)`; None without the file."""
    match = re.search(r"resolution\s*[:=]\s*\((\d{1,6}),\s*(\d{1,6})\)", read_text(meta)) if is_given(meta) else None
    return None if match is None else (int(match[1]), int(match[2]))


def _read_json(path: Path) -> dict[str, SequenceTruth]:
    """`{sequence: {"gt_rect": [[x, y, w, h], ...], "absent": [1 = present, ...]}}`, as pysot writes it."""
    content = read_json(path)
    if not (isinstance(content, dict) and content and all(isinstance(value, dict) for value in content.values())):
        raise UserError(
            f"{path} holds no sequences; OTB's or pysot's style is {{sequence: {{'gt_rect': [[x, y, w, h], ...]}}}}."
        )
    return {name: _json_truth(path, name, value) for name, value in content.items()}


def _json_truth(path: Path, name: str, entry: Mapping[str, Any]) -> SequenceTruth:
    try:
        boxes_xywh = torch.from_numpy(numbers_in(entry["gt_rect"]))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path}: sequence {name} has no 'gt_rect' of boxes x, y, w, h; a frame without a box is written as NaN."
        ) from error
    if boxes_xywh.ndim != 2 or boxes_xywh.shape[1] != 4 or not len(boxes_xywh):
        raise UserError(f"{path}: 'gt_rect' of sequence {name} is not a list of boxes x, y, w, h.")
    absent: Tensor | None = None
    if entry.get("absent") is not None:
        try:
            present = torch.from_numpy(numbers_in(entry["absent"]))
        except ValueError as error:
            raise UserError(f"{path}: the flags 'absent' of sequence {name} are not all 0 or 1.") from error
        if present.shape != boxes_xywh.shape[:1]:
            raise UserError(
                f"{path}: sequence {name} has {len(boxes_xywh)} boxes, but {present.numel()} flags 'absent'."
            )
        if not torch.isin(present, torch.tensor([0.0, 1.0], dtype=torch.float64)).all():
            raise UserError(f"{path}: the flags 'absent' of sequence {name} are not all 0 or 1.")
        absent = present == 0
    return SequenceTruth(name, boxes_xywh, absent, origin=f"{path}, sequence {name}")
