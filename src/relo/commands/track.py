"""`relo track`: follow one target through a video."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from relo.data.sequences.parsing import parse_box, positive_size, read_boxes
from relo.errors import UserError
from relo.geometry import iou, xywh_to_xyxy
from relo.metrics.functional import success_auc
from relo.models.checkpoints.weights import SHIPPED
from relo.models.devices import fit_threads
from relo.models.heads import Localization
from relo.models.inference import PrecisionChoice
from relo.progress import FrameRate, progress_bar
from relo.tracking.boxes_file import box_line
from relo.tracking.crops import RGBImage
from relo.tracking.engine import EngineChoice
from relo.tracking.render import draw_frame
from relo.tracking.rule import load_rule
from relo.tracking.sources import Frames, open_frames
from relo.tracking.state import TargetState
from relo.tracking.tracker import Tracker
from relo.tracking.video_writer import VideoWriter

_LARGEST_BOX_FILE = 2**24  # bytes: boxes of hours


def track(
    source: str,
    *,
    box: str,
    model: str = SHIPPED,
    save: Path | None = None,
    presence: Path | None = None,
    render: Path | None = None,
    truth: Path | None = None,
    rule: Path | None = None,
    localization: Localization | None = None,
    start: int = 0,
    limit: int | None = None,
    device: str | None = None,
    precision: PrecisionChoice = "float32",
    engine: EngineChoice = "auto",
) -> None:
    """Follow one target through a folder of images, a video file or a camera.

    Args:
        source: folder of images, pattern such as "frames/*.png", video file, or a camera's number.
        box: the target on the first frame as "x,y,w,h", in pixels; or a file that holds it alone, or one line per
            frame of the source.
        model: a model's name, its folder, a checkpoint, or ONNX graphs (their folder or one of the two files); the
            network that comes with the package if not given.
        save: write the boxes here, one line "x,y,w,h" per frame, as they are found; where the target is lost, the line
            is the last box that was believed.
        presence: write here the probability that the box found in a frame is right, one number per frame; 1 for the
            first. It needs a model with a presence head.
        render: write a video here (.mp4, .webm or .avi) with the box, its score and the localization map; a target
            that is lost has a grey box.
        truth: boxes to compare with, one line per frame of the source; prints the success AUC.
        rule: a YAML file of tracking settings; the model's own, or the default, if not given.
        localization: the map that picks the cell, "policy" or "prior"; the rule's if not given.
        start: skip this many frames of the source.
        limit: stop after this many frames.
        device: where to compute, such as "cpu" or "cuda"; the GPU if there is one.
        precision: "float32", or to be faster "bfloat16", "float16", or "auto": bfloat16 where a short trial shows it to
            be clearly faster. Not the default: on one frame in a hundred of real videos another cell won.
        engine: what computes the network: "torch", "onnxruntime" (in float32 on the CPU), or "auto": onnxruntime for
            small networks on the CPU, where it takes half the time.

    Raises:
        UserError: the source, the box, the model or another file cannot be used.
        KeyboardInterrupt: it was stopped; boxes and video up to there are complete.
    """
    frames = open_frames(source, start, limit)
    first_box_xywh = _first_box(box, start)
    truth_xywh = None if truth is None else read_boxes(truth)
    video = None if render is None else VideoWriter(render, frames.frames_per_second)
    settings = None if rule is None else load_rule(rule)
    tracker = Tracker.from_pretrained(model, settings, device, precision, localization, engine=engine)
    if presence is not None and not tracker.tells_presence:
        raise UserError(
            f"--presence {presence} cannot be written: the model has no presence head for localization "
            f"{tracker.rule.localization!r}."
        )
    if tracker.device.type == "cpu":
        fit_threads(tracker.network)
    followed = _follow(tracker, frames, first_box_xywh, keep_response=video is not None)
    first = next(followed)  # a box that cannot be tracked is refused before any file is touched
    console = Console()
    with ExitStack() as stack:
        write = _frame_writer(save, presence, video, truth_xywh, start, stack)
        progress = stack.enter_context(progress_bar(console, FrameRate()))
        count_frame = partial(progress.advance, progress.add_task("tracking", total=frames.count))
        tracked = _track_all(chain([first], followed), write, count_frame)
    written = [path for path in (save, presence, render) if path is not None]
    for sentence in _report(tracked, frames, start, written):
        console.print(sentence, markup=False, soft_wrap=True)
    if truth_xywh is not None:
        for sentence in _comparison(tracked, truth_xywh, str(truth), start, limit):
            console.print(sentence, markup=False, soft_wrap=True)
    if tracked.is_interrupted:
        raise KeyboardInterrupt


@dataclass
class _Tracked:
    """The boxes that were found, in which frames the target was lost (from 0), and whether it was stopped."""

    boxes_xywh: list[list[float]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    is_interrupted: bool = False


def _track_all(
    followed: Iterable[tuple[RGBImage, TargetState]],
    write: Callable[[RGBImage, TargetState], None],
    count_frame: Callable[[], None],
) -> _Tracked:
    """Track to the last frame, or to an interruption; each frame is written when it is done."""
    tracked = _Tracked()
    try:
        for image, state in followed:
            write(image, state)
            tracked.boxes_xywh.append(state.box_xywh.tolist())
            if state.status == "lost":
                tracked.lost.append(state.frame_index)
            count_frame()
    except KeyboardInterrupt:
        tracked.is_interrupted = True
    return tracked


def _frame_writer(
    save: Path | None,
    presence: Path | None,
    video: VideoWriter | None,
    truth_xywh: NDArray[np.float64] | None,
    start: int,
    stack: ExitStack,
) -> Callable[[RGBImage, TargetState], None]:
    """What writes a frame to those of the files that are wanted; the stack closes them."""
    write_box, write_presence = (_line_writer(path, stack) for path in (save, presence))
    if video is not None:
        stack.enter_context(video)

    def write(image: RGBImage, state: TargetState) -> None:
        write_box(box_line(state.box_xywh.tolist()))
        write_presence(f"{1.0 if state.presence is None else state.presence:.6f}")
        if video is not None:
            video.write(_drawn(image, state, start + state.frame_index, truth_xywh))

    return write


def _report(tracked: _Tracked, frames: Frames, start: int, written: Iterable[Path]) -> Iterator[str]:
    """What was tracked and written, a sentence each."""
    count = len(tracked.boxes_xywh)
    yield f"{'Stopped after' if tracked.is_interrupted else 'Tracked'} {count} frames of {frames.name}."
    yield from frames.remarks
    if tracked.lost:
        yield f"The target was lost on {len(tracked.lost)} frames: {_runs([start + i for i in tracked.lost])}."
    if count:
        yield from (f"Written: {path}" for path in written)


def _comparison(
    tracked: _Tracked, truth_xywh: NDArray[np.float64], truth_name: str, start: int, limit: int | None
) -> Iterator[str]:
    """How the boxes compare with the truth of the source's frames, a sentence each."""
    count = len(tracked.boxes_xywh)
    end, at_end = start + count, not tracked.is_interrupted and count != limit
    if len(truth_xywh) < end or (at_end and len(truth_xywh) > end):
        yield f"{truth_name} holds {len(truth_xywh)} boxes for {end} frames: they may not belong together."
    yield _success(np.array(tracked.boxes_xywh).reshape(-1, 4), truth_xywh[start:])


def _follow(
    tracker: Tracker, frames: Frames, box_xywh: list[float], keep_response: bool
) -> Iterator[tuple[RGBImage, TargetState]]:
    states: list[TargetState] = []
    for image in frames:
        if states:
            states = tracker.step([image], states, keep_response)
        else:
            states = tracker.initialize([image], [box_xywh])
        yield image, states[0]


def _first_box(text: str, start: int) -> list[float]:
    """The box that is written, or that of frame `start` in the file of this name."""
    try:
        return parse_box(text)
    except ValueError as error:
        if not os.path.isfile(text):  # unlike pathlib's, false for any text
            raise UserError(
                f"--box {text!r} is not a box; give x,y,w,h in pixels, such as 120,80,40,60, or a file that holds it."
            ) from error
    if (size := os.path.getsize(text)) > _LARGEST_BOX_FILE:
        raise UserError(
            f"{text} has {size} bytes, which is too much for a file of boxes (at most {_LARGEST_BOX_FILE}); "
            "give the first box itself as x,y,w,h."
        )
    boxes_xywh = read_boxes(Path(text))
    index = 0 if len(boxes_xywh) == 1 else start
    if index >= len(boxes_xywh):
        raise UserError(f"{text} has {len(boxes_xywh)} boxes, none of frame {start}; give its box x,y,w,h.")
    return [float(number) for number in boxes_xywh[index]]


def _runs(frames: list[int]) -> str:
    """Ascending numbers of frames in words, those in a row as one: 3, 5 to 9."""
    breaks = [i for i in range(1, len(frames)) if frames[i] != frames[i - 1] + 1]
    bounds = zip([0, *breaks], [*breaks, len(frames)], strict=True)
    return ", ".join(
        f"{frames[first]}" if end == first + 1 else f"{frames[first]} to {frames[end - 1]}" for first, end in bounds
    )


def _line_writer(path: Path | None, stack: ExitStack) -> Callable[[str], None]:
    """What writes a line to a file that the stack closes; nothing where there is no path."""
    if path is None:
        return lambda line: None

    def write(line: str) -> None:
        with _writing(path):
            file.write(f"{line}\n".encode())

    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("wb", buffering=0))  # a line reaches the disk when it is found
    return write


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}).") from error


def _drawn(image: RGBImage, state: TargetState, index: int, truth_xywh: NDArray[np.float64] | None) -> RGBImage:
    presence = "" if state.presence is None else f"  presence {state.presence:.2f}"
    status = "" if state.status == "tracking" else f"  {state.status}"
    return draw_frame(
        image,
        state.box_xywh.tolist(),
        f"#{index}  score {state.score:.2f}{presence}{status}",
        None if state.response is None else state.response.numpy(),
        None if truth_xywh is None or index >= len(truth_xywh) else truth_xywh[index].tolist(),
        is_lost=state.status == "lost",
    )


def _success(boxes_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64]) -> str:
    """The success AUC over the frames that have a truth box with an area, in words."""
    count = min(len(boxes_xywh), len(truth_xywh))
    found, truth = torch.from_numpy(boxes_xywh[:count]), torch.from_numpy(truth_xywh[:count])
    counts = torch.from_numpy(positive_size(truth_xywh[:count]))
    if not counts.any():
        return "No frame has a truth box to compare with."
    auc = float(success_auc(iou(xywh_to_xyxy(found[counts]), xywh_to_xyxy(truth[counts]))))
    return f"Success AUC {auc:.3f} over the {int(counts.sum())} frames with a truth box (the first included)."
