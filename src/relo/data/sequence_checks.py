"""What can be wrong with a sequence: its annotation, its frames, and whether they fit each other."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from relo.data.intact_frames import intact_size
from relo.data.parallel import in_order
from relo.data.sequences.base import Sequence, SequenceReader
from relo.data.sequences.parsing import positive_size
from relo.errors import UserError
from relo.progress import sequence_progress


@dataclass(frozen=True)
class Examination:
    """What is wrong with a sequence of so many frames, and what is odd though it can be used; one sentence each."""

    frames: int
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


Frames = Literal["counted", "read", "decoded"]


def examined(
    reader: SequenceReader, task: str, frames: Frames, workers: int, console: Console
) -> Iterator[Examination]:
    """What is wrong with each sequence of a reader, in order, with a progress bar; arguments as of `examine`."""
    results = in_order(partial(examine, reader, frames=frames), range(len(reader)), min(workers, len(reader)))
    with sequence_progress(console, task, len(reader)) as count, closing(results):
        for result in results:
            count(result.frames, 0)
            yield result


def examine(reader: SequenceReader, index: int, frames: Frames = "decoded") -> Examination:
    """Read sequence number `index`, and hold its annotation against its frames.

    Frames that are `read` are not decoded: in a clip store that is a look at their checksums.
    """
    try:
        sequence = reader[index]
    except UserError as error:
        return Examination(0, (str(error),))
    if frames == "counted":
        return Examination(len(sequence), remarks=sequence.remarks)
    problems = []
    try:
        check_annotation(sequence)
    except UserError as error:
        problems.append(str(error))
    sizes = np.zeros((len(sequence), 2), np.int32)
    for i in range(len(sequence)):
        try:
            encoded = sequence.frames.encoded(i)
            if frames == "decoded":
                sizes[i] = intact_size(encoded, sequence.frames.name(i))
        except UserError as error:
            problems.append(str(error))
    if not problems and (frames == "decoded" or "image_sizes" in sequence.attributes):
        sizes = sequence.attributes.get("image_sizes", sizes)
        problems += misfits(sequence, sizes)
    remarks = () if problems or frames == "read" else remarks_on_sizes(f"{sequence.dataset}/{sequence.name}", sizes)
    return Examination(len(sequence), tuple(problems), (*sequence.remarks, *remarks))


def check_annotation(sequence: Sequence) -> None:
    """Hold boxes and flags of a sequence against each other and the number of its frames.

    Raises:
        UserError: their numbers differ, or a target is visible where it has no box.
    """
    name, boxes_xywh, visible = f"{sequence.dataset}/{sequence.name}", sequence.boxes_xywh, sequence.visible
    if not len(sequence):
        raise UserError(f"{name} has no frames.")
    if len(boxes_xywh) not in (1, len(sequence)) or len(visible) != len(boxes_xywh):
        raise UserError(
            f"{name} has {len(sequence)} frames, {len(boxes_xywh)} boxes and {len(visible)} visibility flags."
        )
    good = positive_size(boxes_xywh)
    if (visible & ~good).any():
        frame = int(np.flatnonzero(visible & ~good)[0])
        raise UserError(f"{name} has box {boxes_xywh[frame].tolist()} on frame {frame}, where the target is visible.")


def require_every_box(sequence: Sequence) -> None:
    """Refuse a sequence that cannot be scored, for not every frame has a box: of some, only the first is public.

    Raises:
        UserError: boxes or flags are more or fewer than frames.
    """
    frames, boxes, flags = len(sequence), len(sequence.boxes_xywh), len(sequence.visible)
    if boxes != frames or flags != frames:
        raise UserError(
            f"{sequence.dataset}/{sequence.name} has {boxes} boxes and {flags} visibility flags for {frames} frames, "
            "so what is tracked cannot be scored: name a split whose boxes are all public, or complete its annotation."
        )


def remarks_on_sizes(name: str, sizes: NDArray[np.int32], start: int = 0) -> tuple[str, ...]:
    """That images of a video, of sizes [N, 2] (width, height) from frame `start` on, are not all of one size.

    Empty if they are.
    """
    (width, height), odd = _odd_frames(sizes)
    if not len(odd):
        return ()
    first = int(odd[0])
    return (
        f"{name} has {len(odd)} of {len(sizes)} frames of another size than {width}x{height} px; "
        f"the first, frame {start + first}, is {sizes[first, 0]}x{sizes[first, 1]} px.",
    )


def misfits(sequence: Sequence, sizes: NDArray[np.int32]) -> list[str]:
    """What is wrong with the frames of another size [N, 2] than most whose visible target has its centre outside.

    Such a frame is not the one that was annotated. Frames of one size keep their boxes: benchmarks have some outside.
    """
    boxes_xywh = sequence.attributes.get("image_boxes_xywh", sequence.boxes_xywh)
    (width, height), odd = _odd_frames(sizes)
    odd = odd[odd < len(boxes_xywh)]
    odd = odd[sequence.visible[odd]]
    centers = boxes_xywh[odd, :2] + boxes_xywh[odd, 2:] / 2
    outside = odd[((centers < 0) | (centers >= sizes[odd])).any(1)]
    return [
        f"{sequence.frames.name(i)} is {sizes[i, 0]}x{sizes[i, 1]} px, not {width}x{height} px as most, and its box "
        f"{boxes_xywh[i].tolist()} has its centre outside; copy or extract it again."
        for i in map(int, outside)
    ]


def _odd_frames(sizes: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The size [2] of most of the images with sizes [N, 2], and the numbers of those of another."""
    different, which, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    usual = int(counts.argmax())
    return different[usual], np.flatnonzero(which.reshape(-1) != usual)
