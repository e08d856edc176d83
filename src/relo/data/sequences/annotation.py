"""What a sequence's annotation says of the frames that count: their boxes, and which of them do not show the target.

Reading and scoring both take it from here; they differ in which files of flags count and may be missing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from relo.data.sequences.parsing import FARTHEST, check_count, is_given, out_of_reach, read_flags, read_levels
from relo.data.sequences.specification import Boxes, Dataset, Flags
from relo.data.sequences.tables import rows_before


def annotated_boxes(dataset: Dataset, file: Path, row: Mapping[str, str]) -> tuple[Boxes, Flags | None]:
    """The boxes_xywh [N, 4] of a file, without rows before the frames that count; and which are lost [N], if it says.

    Args:
        dataset: the dataset, whose `read` reads the file.
        file: the file of boxes.
        row: the sequence's row in the dataset's table; empty where there is none.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    boxes_xywh, lost = dataset.read(file)
    leading = rows_before(dataset, row, len(boxes_xywh))
    return boxes_xywh[leading:], None if lost is None else lost[leading:]


def remarks_on_reach(boxes_xywh: Boxes, file: Path | str) -> tuple[str, ...]:
    """That boxes [N, 4] of a file are damage, which counts as no box; empty if none is."""
    wrong = out_of_reach(boxes_xywh)
    if not wrong.any():
        return ()
    return (
        f"{file} has {wrong.sum()} boxes with numbers that are infinite or beyond {FARTHEST:g}; they are left out.",
    )


def absent_frames(
    files: Sequence[Path], count: int, counted: str, *, may_be_missing: bool = False, may_be_longer: bool = False
) -> Flags | None:
    """Whether any of some files of flags says that the target is absent: bool [count]; None where they are missing.

    A flag is 1 for absent; files called `cover.label` hold GOT-10k's levels of what can be seen, of which 0 is nothing.

    Args:
        files: the files.
        count: how many flags each must hold.
        counted: what they are counted against, such as "frames in <folder>".
        may_be_missing: all of them may be; one without the others is a file missing.
        may_be_longer: flags beyond `count` are left out.

    Raises:
        UserError: a file cannot be read, holds something else, or another number of flags.
    """
    if may_be_missing and not any(map(is_given, files)):
        return None
    absent = np.zeros(count, bool)
    for file in files:
        flags = read_levels(file) == 0 if file.name == "cover.label" else read_flags(file)
        if not may_be_longer or len(flags) < count:
            check_count(file, len(flags), count, counted)
        absent |= flags[:count]
    return absent
