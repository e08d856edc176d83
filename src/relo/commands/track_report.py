"""What `relo track` says at its end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from relo.data.sequences.parsing import positive_size
from relo.geometry import iou_xywh
from relo.metrics.functional import success_auc
from relo.tracking.frame_result import FrameResult
from relo.tracking.sources import Frames


@dataclass
class Tracked:
    """How far a source was tracked, and what the report needs of it."""

    targets: int
    keeps_boxes: bool  # of the first target, to be compared; hours of them would take memory
    count: int = 0  # frames
    boxes_xywh: list[list[float]] = field(default_factory=list)
    # Per target, the source's frames on which it was lost: the first and last of each run.
    lost: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    is_whole: bool = False  # nothing stopped it, and every file is closed

    def add(self, result: FrameResult) -> None:
        """Count a frame."""
        self.count += 1
        if self.keeps_boxes:
            self.boxes_xywh.append(result.targets[0].box_xywh.tolist())
        for i, target in enumerate(result.targets):
            if target.status == "lost":
                runs = self.lost.setdefault(i, [])
                goes_on = bool(runs) and runs[-1][1] == result.index - 1
                first = runs.pop()[0] if goes_on else result.index
                runs.append((first, result.index))


def report(tracked: Tracked, frames: Frames, written: Iterable[Path]) -> Iterator[str]:
    """What was tracked and written, a sentence each."""
    of_targets = f" with {tracked.targets} targets" if tracked.targets > 1 else ""
    yield f"{'Tracked' if tracked.is_whole else 'Stopped after'} {tracked.count} frames of {frames.name}{of_targets}."
    yield from frames.remarks
    for i, lost in sorted(tracked.lost.items()):
        name = f"Target {i + 1}" if tracked.targets > 1 else "The target"
        count = sum(last - first + 1 for first, last in lost)
        runs = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in lost)
        yield f"{name} was lost on {count} frames: {runs}."
    if not tracked.count:
        return
    paths = list(written)
    verb = "Written" if tracked.is_whole else "Written until then"
    yield from (f"{verb}: {path}" for path in paths if tracked.is_whole or _has_content(path))
    if not paths:
        yield "Nothing was written: --save keeps the boxes, --render a video of them."


def comparison(
    tracked: Tracked, truth_xywh: NDArray[np.float64], truth_name: str, start: int, limit: int | None
) -> Iterator[str]:
    """How the boxes compare with the truth of the source's frames, a sentence each."""
    end, at_end = start + tracked.count, tracked.is_whole and tracked.count != limit
    if len(truth_xywh) < end or (at_end and len(truth_xywh) > end):
        yield f"{truth_name} holds {len(truth_xywh)} boxes for {end} frames: they may not belong together."
    yield _success(np.array(tracked.boxes_xywh).reshape(-1, 4), truth_xywh[start:])


def _has_content(path: Path) -> bool:
    """Whether there is anything but an empty file."""
    return path.exists() and (not path.is_file() or path.stat().st_size > 0)


def _success(boxes_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64]) -> str:
    """The success AUC over the frames that have a truth box with an area, in words."""
    count = min(len(boxes_xywh), len(truth_xywh))
    found, truth = torch.from_numpy(boxes_xywh[:count]), torch.from_numpy(truth_xywh[:count])
    counts = torch.from_numpy(positive_size(truth_xywh[:count]))
    if not counts.any():
        return "No frame has a truth box to compare with."
    auc = float(success_auc(iou_xywh(found[counts], truth[counts])))
    return f"Success AUC {auc:.3f} over the {int(counts.sum())} frames with a truth box (the first included)."
