"""The folder of one tracker's results on one dataset: what made them, and the files of each sequence."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.data.sequences.parsing import is_given, read_boxes, read_json
from relo.errors import UserError, excerpt
from relo.evaluation.results import RUN_FILE
from relo.files import write_text
from relo.inputs import can_be_a_name, leads_outside
from relo.models.checkpoints.states import state_hash
from relo.tracking.boxes_file import read_values, write_boxes, write_values
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker

_BESIDE_BOXES = ("_score", "_time", "_presence")
_ROUNDING = 1e-4  # of boxes in files, which have four decimals


@dataclass(frozen=True)
class SequenceResult:
    """What a tracker gave on one sequence of N frames."""

    sequence: AnnotatedSequence
    boxes_xywh: NDArray[np.float64]  # [N, 4], image pixels; the first is the given one
    scores: NDArray[np.float64]  # [N], see `Tracker`
    seconds: NDArray[np.float64]  # [N], a batch's time shared evenly among its targets; decoding not counted
    presence: NDArray[np.float64] | None  # [N], where the network has a presence head
    remarks: tuple[str, ...] = ()  # what turned out while the frames were read, one sentence each

    @property
    def name(self) -> str:
        """The sequence's name."""
        return self.sequence.name


def check_names(names: Iterable[str]) -> None:
    """Refuse sequences whose results would lie elsewhere, or in one another's files.

    Raises:
        UserError: a name that no file can have, that leads out of the folder, or that is another's with `_score`,
            `_time` or `_presence` behind it.
    """
    names = set(names)
    for name in names:
        if leads_outside(name) or not can_be_a_name(name):
            raise UserError(
                f"Results cannot be named after the sequence {excerpt(name)}, which is no name of a file, or leads out "
                "of their folder; rename it in the dataset."
            )
        for ending in _BESIDE_BOXES:
            if name + ending in names:
                raise UserError(
                    f"The sequences {excerpt(name)} and {excerpt(name + ending)} cannot be in one dataset: "
                    f"{excerpt(f'{name}{ending}.txt')} would be a result of both; rename one of them."
                )


def write_result(folder: Path, result: SequenceResult) -> None:
    """Write `<name>_score.txt`, `<name>_time.txt`, `<name>_presence.txt` where there is one, and `<name>.txt`.

    Raises:
        UserError: a file cannot be written, or the name leads elsewhere.
    """
    check_names([result.name])
    write_values(folder / f"{result.name}_score.txt", result.scores)
    write_values(folder / f"{result.name}_time.txt", result.seconds)
    if result.presence is not None:
        write_values(folder / f"{result.name}_presence.txt", result.presence)
    write_boxes(folder / f"{result.name}.txt", result.boxes_xywh)  # last: a sequence with boxes is done


def read_finished(folder: Path, sequence: AnnotatedSequence, tells_presence: bool = False) -> SequenceResult | None:
    """The result of an earlier run; None if it is missing, incomplete, damaged, or began with another box.

    Names do not tell sequences of one dataset apart: made ones, say, of two seeds.

    Args:
        folder: the results' folder.
        sequence: what was tracked.
        tells_presence: whether the tracker does, so that there must be a file of it (`Tracker.tells_presence`).
    """
    count = len(sequence)
    presence_file = folder / f"{sequence.name}_presence.txt"
    with suppress(UserError):
        boxes_xywh = read_boxes(folder / f"{sequence.name}.txt")
        scores = read_values(folder / f"{sequence.name}_score.txt", count)
        seconds = read_values(folder / f"{sequence.name}_time.txt", count)
        presence = read_values(presence_file, count)
        # Of a first frame alone, where the target is given, there is none.
        has_presence = (tells_presence and count > 1) or is_given(presence_file)
        if scores is None or seconds is None or (has_presence and presence is None) or len(boxes_xywh) != count:
            return None
        began_alike = np.allclose(boxes_xywh[0], sequence.boxes_xywh[0], rtol=0, atol=_ROUNDING)
        if began_alike and all(
            np.isfinite(numbers).all() for numbers in (boxes_xywh, scores, seconds, presence) if numbers is not None
        ):
            return SequenceResult(sequence, boxes_xywh, scores, seconds, presence)
    return None


def claim(
    folder: Path, tracker: Tracker, dataset: str, split: str | None, notes: Mapping[str, Any] | None = None
) -> None:
    """Note in the folder what its results are of, and what makes them; a score must mix neither.

    Further notes are kept as they were when the folder was new.

    Raises:
        UserError: the folder holds the results of another dataset, split, rule, precision or network, or does not say
            which dataset they are of, or cannot be written.
    """
    source = {"dataset": dataset, "split": split}
    ours = {**source, **identity(tracker)}
    path = folder / RUN_FILE
    try:
        if not path.exists():
            write_text(path, json.dumps({**ours, **(notes or {})}, indent=2) + "\n")
        found = read_json(path)
    except (OSError, UserError) as error:
        raise UserError(
            f"The results folder {folder} cannot be used ({str(error).rstrip('.')}); choose another."
        ) from error
    found = found if isinstance(found, dict) else {}
    if isinstance(found.get("rule"), dict):
        # A setting that is younger than the file was at its default.
        found["rule"] = asdict(TrackingRule()) | found["rule"]
    if "dataset" not in found:
        lacking = {key: value for key, value in source.items() if key not in found}
        raise UserError(
            f"The results in {folder} may be of another dataset, for its {path.name} names none: choose another "
            f"folder, or add {json.dumps(lacking)[1:-1]} there if it is that."
        )
    if any(found.get(key) != value for key, value in source.items()):
        raise UserError(
            f"The folder {folder} holds results on {_named(found)}, not on {_named(source)}: choose another folder."
        )
    different = sorted(key for key in ours if found.get(key) != ours[key])
    if different:
        raise UserError(
            f"The folder {folder} holds results made with other {' and '.join(different)} (see {path.name}): "
            "choose another folder, or delete it."
        )


def _named(source: Mapping[str, Any]) -> str:
    split = source.get("split")
    return source["dataset"] if split is None else f"{source['dataset']}, split {split}"


def identity(tracker: Tracker) -> dict[str, Any]:
    """The settings that decide the boxes, and a hash of the weights."""
    weights = state_hash(tracker.network.state_dict())
    return {"rule": asdict(tracker.rule), "precision": tracker.precision, "weights": weights}
