"""Ground truth for scoring, without frames: a dataset's root, a flat folder, a zip of one, or OTB/pysot-style JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relo.data.sequences.annotation import absent_frames, annotated_boxes
from relo.data.sequences.datasets import BENCHMARKS, forms_of
from relo.data.sequences.frame_files import numbered_frames
from relo.data.sequences.listings import subfolders
from relo.data.sequences.parsing import is_given, json_boxes, numbers_in, read_json, read_names
from relo.data.sequences.specification import Dataset, Place, canonical_name, rows_of_boxes
from relo.data.sequences.tables import frame_range, read_table, table_row
from relo.errors import EXCERPT, UserError, excerpt
from relo.evaluation.archives import is_text_name, open_zip
from relo.evaluation.scoring import SequenceTruth

_LARGEST_JSON = 2**28  # bytes; VastTrack's million boxes with the names of images are a third of it
_FLAT_FOLDERS = ("anno", "annos", "annotations", "gt", "gt_rect", "groundtruth")
_BOXES_FILES = ("{name}/groundtruth.txt", "{name}/Groundtruth.txt", "{name}/groundtruth_rect.txt")
_FLAG_FILES = (("{name}/absent.txt",), BENCHMARKS["lasot"].absent)


@dataclass(frozen=True)
class _Files:
    """The annotation of a sequence: its boxes and flags, how they are read, and its place in a dataset's own layout."""

    boxes: Path
    absent: tuple[tuple[Path, ...], ...]  # each may be missing; one file of it without the others may not
    form: Dataset
    place: Place | None = None


def read_annotations(path: Path, benchmark: Dataset) -> dict[str, SequenceTruth]:
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
        truths = {name: truths[name] for name in _test_set(path, truths, benchmark)}
    else:
        files = _find_files(path, benchmark)
        truths = {name: _read_truth(name, files[name]) for name in _test_set(path, files, benchmark)}
    if not truths:
        raise UserError(f"{path / benchmark.lists['test']} names no sequence; copy the official list there.")
    _check_origin(benchmark, {name: len(truth) for name, truth in truths.items()}, path)
    if all(len(truth) == 1 for truth in truths.values()):
        remedy = "give the whole annotations"
        if benchmark.first_box_only:
            remedy = "the server keeps the rest: pack the results for it with `relo submit`"
        raise UserError(f"{path} holds the first frames' boxes only; {remedy}.")
    return truths


def _test_set(path: Path, names: Mapping[str, Any], benchmark: Dataset) -> list[str]:
    """Which of the annotated sequences are the benchmark's test set: all, where nothing shows which."""
    own_list = path / benchmark.lists["test"] if benchmark.lists else None
    if own_list is not None and is_given(own_list):
        listed = read_names(own_list)
        lacking = [name for name in listed if name not in names]
        if lacking:
            example = excerpt(lacking[0])
            raise UserError(f"{own_list} names {len(lacking)} sequences without an annotation, such as {example}.")
        return listed
    official = benchmark.official("test") if benchmark.official else []
    return official if official and set(official) <= set(names) else list(names)


def _find_files(path: Path, benchmark: Dataset) -> dict[str, _Files]:
    if not path.is_dir():
        root = open_zip(path, f"The annotations {path} are neither a folder nor a .zip nor a .json file.")
        inner = [folder for folder in root.iterdir() if folder.is_dir() and folder.name not in ("__MACOSX", "absent")]
    else:
        found: dict[str, _Files] = {}
        for form in forms_of(benchmark):
            for name, files in _in_own_layout(path, form).items():
                found.setdefault(name, files)
        if found:
            return found
        # A toolkit's folder keeps the annotations one level down.
        root, inner = path, [path / name for name in subfolders(path) if canonical_name(name) in _FLAT_FOLDERS]
    if flat := _flat(root, benchmark):
        return flat
    in_folders = {folder.name: flat for folder in inner if (flat := _flat(folder, benchmark))}
    if len(in_folders) > 1:
        raise UserError(f"{path} holds annotations in several folders ({', '.join(in_folders)}); give one of them.")
    if in_folders:
        return in_folders.popitem()[1]
    raise UserError(
        f"{path} holds no annotations of {benchmark.title}: it has neither its layout nor files <sequence>.txt."
    )


def _flat(folder: Path, benchmark: Dataset) -> dict[str, _Files]:
    """`<sequence>.txt` in one folder, one box per line whatever the dataset's own files hold; flags in `absent/`."""
    form = replace(benchmark, read=rows_of_boxes)
    names = sorted(file.name for file in folder.iterdir() if is_text_name(file.name, ".txt"))
    return {name[:-4]: _Files(folder / name, ((folder / "absent" / name,),), form) for name in names}


def _in_own_layout(root: Path, form: Dataset) -> dict[str, _Files]:
    """The annotations where the dataset has them, in the first of the folders that holds any."""
    folders = [root / folder for folder in form.scored_in if (root / folder).is_dir()]
    found = (_annotated(folder, form, form.nested) for folder in folders)
    return next(filter(None, found), {})


def _annotated(base: Path, form: Dataset, nested: int) -> dict[str, _Files]:
    """The annotations below `base`, or within so many folders of it; of two of one name the upper counts."""
    before, _, after = form.boxes[0].partition("{name}")
    if after == ".txt":
        folder, _, prefix = before.rpartition("/")
        flat = _flat(base / folder, form) if (base / folder).is_dir() else {}
        return {name.removeprefix(prefix): files for name, files in flat.items()}
    boxes_files, flags = form.boxes, {form.scored_absent or form.absent: None}
    if after.count("/") == 1:  # in the sequence's own folder, where copies of many datasets have other names
        boxes_files, flags = _BOXES_FILES, flags | dict.fromkeys(_FLAG_FILES)
    places = [form.place(base, name) for name in subfolders(base)]
    if form.table is not None:
        rows = read_table(form.table, base / form.own_table)
        places = [Place(base, {**row, "name": name}) for name, row in rows.items()]
    found = {}
    for place in places:
        boxes = place.path(*boxes_files)
        if is_given(boxes):
            absent = tuple(tuple(map(place.path, files)) for files in flags)
            found[place.fields["name"]] = _Files(boxes, absent, form, place)
    inner = [name for name in subfolders(base) if name not in found] if nested else []
    for folder in inner:
        for name, files in _annotated(base / folder, form, nested - 1).items():
            found.setdefault(name, files)
    return found


def _read_truth(name: str, files: _Files) -> SequenceTruth:
    form, place = files.form, files.place
    row = place.fields if place else table_row(form, name)
    boxes_xywh, _ = annotated_boxes(form, files.boxes, row)  # the lost keep their box
    if place and form.boxes_may_be_longer and (frames := place.path(*form.frames)).is_dir():
        boxes_xywh = boxes_xywh[: len(numbered_frames(frames, first=1))]  # as in tracking
    if not len(boxes_xywh):
        raise UserError(f"The annotation {files.boxes} is empty; copy it again.")
    count, counted, may_be_longer = len(boxes_xywh), f"boxes in {files.boxes}", form.flags_may_be_longer
    flags = [
        absent_frames(given, count, counted, may_be_missing=True, may_be_longer=may_be_longer) for given in files.absent
    ]
    given = [each for each in flags if each is not None]
    return SequenceTruth(
        name=name,
        boxes_xywh=torch.from_numpy(boxes_xywh),
        absent=torch.from_numpy(np.logical_or.reduce(given)) if given else None,
        image_size=form.image_size(place) if place and form.image_size else None,
        origin=str(files.boxes),
    )


def _read_json(path: Path) -> dict[str, SequenceTruth]:
    """`{sequence: {"gt_rect": [[x, y, w, h], ...], "absent": [1 = present, ...]}}`, as pysot writes it."""
    content = read_json(path, _LARGEST_JSON)
    if not (isinstance(content, dict) and content and all(isinstance(value, dict) for value in content.values())):
        raise UserError(
            f"{path} holds no sequences; OTB's or pysot's style is {{sequence: {{'gt_rect': [[x, y, w, h], ...]}}}}."
        )
    return {name: _json_truth(path, name, value) for name, value in content.items()}


def _json_truth(path: Path, name: str, entry: Mapping[str, Any]) -> SequenceTruth:
    origin = f"{path}: sequence {name[:EXCERPT]}"
    try:
        boxes_xywh = json_boxes(entry["gt_rect"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{origin} has no 'gt_rect' of boxes x, y, w, h; a frame without a box is written as NaN."
        ) from error
    if boxes_xywh.shape[1:] != (4,) or not len(boxes_xywh):
        raise UserError(f"{origin} has no list of boxes x, y, w, h as 'gt_rect'.")
    absent: Tensor | None = None
    if entry.get("absent") is not None:
        try:
            present = numbers_in(entry["absent"])
        except ValueError:
            present = np.full(len(boxes_xywh), np.nan)
        if present.shape != (len(boxes_xywh),):
            raise UserError(f"{origin} has {len(boxes_xywh)} boxes, but {present.size} flags 'absent'.")
        if not np.isin(present, (0, 1)).all():
            raise UserError(f"{origin} has flags 'absent' that are not all 0 or 1.")
        absent = torch.from_numpy(present == 0)
    return SequenceTruth(name, torch.from_numpy(boxes_xywh), absent, origin=f"{path}, sequence {name[:EXCERPT]}")


def _check_origin(benchmark: Dataset, lengths: Mapping[str, int], origin: Path) -> None:
    """Refuse annotations that are another benchmark's by the names or lengths of their sequences.

    Raises:
        UserError: most names are another benchmark's and none is this one's, or all lengths are those of UAV123 at the
            other frame rate.
    """
    shares = {other.name: _share_of_names(other, lengths) for other in BENCHMARKS.values()}
    likeliest = BENCHMARKS[max(shares, key=lambda name: shares[name])]
    if shares[likeliest.name] <= 0.9 or shares[benchmark.name]:
        at_this_rate = [other for other in _twins(benchmark) if _has_lengths(other, lengths)]
        if not at_this_rate or benchmark in at_this_rate:
            return
        likeliest = at_this_rate[0]
    raise UserError(
        f"{origin} holds annotations of {likeliest.title} (such as {excerpt(min(lengths))}), not of "
        f"{benchmark.title}; give those of {benchmark.title}, or --benchmark {likeliest.name}."
    )


def _share_of_names(benchmark: Dataset, names: Mapping[str, Any]) -> float:
    """How many of the names are a benchmark's; none, where it has none to tell it by."""
    if benchmark.names_start:
        return sum(name.startswith(benchmark.names_start) for name in names) / len(names)
    if benchmark.official is not None:
        own = set(benchmark.official("test"))
        return sum(name in own for name in names) / len(names)
    own = set(map(canonical_name, read_table(benchmark.table))) if benchmark.table else set()
    return sum(canonical_name(name) in own for name in names) / len(names)


def _twins(benchmark: Dataset) -> list[Dataset]:
    """The benchmarks at several frame rates that this one is of, whose sequences have the same names."""
    same = [other for other in BENCHMARKS.values() if other.table and other.table == benchmark.table]
    return same if len(same) > 1 else []


def _has_lengths(benchmark: Dataset, lengths: Mapping[str, int]) -> bool:
    """Whether sequences are as long as a benchmark's table says."""
    assert benchmark.table is not None
    rows = {canonical_name(name): row for name, row in read_table(benchmark.table).items()}
    for name, length in lengths.items():
        row = rows.get(canonical_name(name))
        first, last = (0, None) if row is None else frame_range(row, benchmark.every)
        if last is None or last - first != length - 1:
            return False
    return True
