"""`relo track`: follow targets through a video."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relo.commands.targets import check_choice, drawn_boxes, written_boxes
from relo.commands.track_report import Tracked, comparison, report
from relo.console import make_console
from relo.data.sequences.parsing import read_boxes
from relo.errors import UserError
from relo.inputs import check_outputs
from relo.models.checkpoints.plugin import trust as trust_modules
from relo.models.checkpoints.weights import CONFIG_FILE, RULE_FILE, SHIPPED, WEIGHTS_FILE, resolve
from relo.models.devices import fit_threads
from relo.models.graph_metadata import FILES
from relo.models.heads import Localization
from relo.models.inference import PrecisionChoice
from relo.models.memory import enough_memory
from relo.progress import FrameRate, progress_bar
from relo.tracking.arguments import as_boxes
from relo.tracking.background import written_behind
from relo.tracking.engine import EngineChoice
from relo.tracking.frame_result import FrameResult
from relo.tracking.frames_folder import FramesFolder, open_render
from relo.tracking.outputs import Write, line_output, open_output, output_paths
from relo.tracking.render import draw_result
from relo.tracking.rule import read_rule_file
from relo.tracking.run import decoded_ahead, follow
from relo.tracking.sources import open_frames
from relo.tracking.tracker import Tracker
from relo.tracking.video_writer import VideoWriter

_WAITING_PICTURES = 8
"""Frames that wait to be drawn and encoded; they take memory."""

_LESS_MEMORY = "track fewer targets at once, or set --precision bfloat16 or --device cpu"


def track(
    source: str,
    *,
    box: list[str] | None = None,
    boxes: Path | None = None,
    select: bool = False,
    model: str = SHIPPED,
    save: list[Path] | None = None,
    presence: Path | None = None,
    render: str | None = None,
    truth: Path | None = None,
    rule: Path | None = None,
    localization: Localization | None = None,
    start: int = 0,
    limit: int | None = None,
    device: str | None = None,
    precision: PrecisionChoice = "float32",
    engine: EngineChoice = "auto",
    trust: list[str] | None = None,
) -> None:
    """Follow one target or several through a video, a folder of images, a camera or a network stream.

    For example: relo track video.mp4 --box 120,80,60,90 --save boxes.txt --render out.mp4

    Args:
        source: folder of images, pattern such as "frames/*.png", video file, a camera's number, or a network address
            such as "rtsp://192.168.1.7/stream" or "https://example.org/video.mp4". Ctrl-C ends a camera or stream, and
            what was found is kept.
        box: a target on the first frame as "x,y,w,h", in pixels; or a file that holds it alone, or one line per frame
            of the source. Give several boxes, or the option several times, to track several targets.
        boxes: a file of targets on the first frame, one line "x,y,w,h" each; 256 at most.
        select: draw the targets on the first frame by hand: in a window, where OpenCV and the machine have one, else
            in a page in the browser, which needs `pip install 'relo[app]'`.
        model: a model's name, its folder, a checkpoint, or ONNX graphs (their folder or one of the two files); the
            network that comes with the package if not given.
        save: write the boxes here as they are found; one file or several. The ending says how: .txt has one line
            "x,y,w,h" per frame (of several targets, each has a file: name_1.txt, name_2.txt, ...), .jsonl a JSON object
            per frame with all that is known, .csv MOTChallenge's lines, .json COCO's video format. Of a lost target,
            the first two have the last box that was believed, the others none.
        presence: write here the probability that the box found in a frame is right, one line per frame; 1 for the
            first. Several targets are separated by commas. The name ends in .txt or .csv. It needs a model with a
            presence head.
        render: write a video (.mp4, .webm, .avi, .mkv or .mov), or images into a folder (a name without an ending, or
            with a slash behind it), with the boxes, scores and each target's localization map; a target that is lost
            has a grey box. Small frames are enlarged there; boxes in files are in pixels of the source.
        truth: boxes of the one target to compare with, one line per frame of the source; prints the success AUC.
        rule: "lost_and_found", to search for a target that is lost; or a YAML file of the tracking settings that differ
            from the model's own, such as "lost_after: 5".
        localization: the map that picks the cell, "policy" or "prior"; the rule's if not given.
        start: skip this many frames of the source.
        limit: stop after this many frames.
        device: where to compute, such as "cpu" or "cuda"; the GPU if there is one.
        precision: "float32", or to be faster "bfloat16", "float16", or "auto": bfloat16 where a short trial shows it to
            be clearly faster. Not the default: on one frame in a hundred of real videos another cell won.
        engine: what computes the network: "torch", "onnxruntime" (in float32 on the CPU), or "auto": onnxruntime for
            small networks on the CPU, where it takes half the time.
        trust: modules whose classes the model's config may name; otherwise it may name relo's alone.

    Raises:
        UserError: the source, a box, the model or another file cannot be used. If it turns out halfway, all that was
            found until then is written.
        KeyboardInterrupt: it was stopped; boxes and video up to there are complete.
    """
    trust_modules(trust or ())
    check_choice(box, boxes, select)
    frames = open_frames(source, start, limit)
    if select:
        boxes_xywh, frames = drawn_boxes(frames)
    else:
        boxes_xywh = written_boxes(box, boxes, start)
    if truth is not None and len(boxes_xywh) > 1:
        raise UserError(f"--truth {truth} holds the boxes of one target, but {len(boxes_xywh)} are tracked; give one.")
    truth_xywh = None if truth is None else read_boxes(truth)
    saved = save or []
    if presence is not None and presence.suffix.lower() not in (".txt", ".csv", ""):  # a device's name has none
        raise UserError(f"Cannot write presence as {presence.name}; end the name in .txt or .csv.")
    inputs: dict[str, Iterable[str | Path | None]] = {
        "the source": [source],
        "a frame of the source": [frames.folder / name for name in frames.files],
        "a file of the model": _files_of(model),
        "--box": box or (),
        "--boxes": [boxes],
        "--truth": [truth],
        "--rule": [rule],
    }
    written = [*chain(*(output_paths(path, len(boxes_xywh)) for path in saved))]
    written += [Path(path) for path in (presence, render) if path is not None]
    check_outputs(inputs, written)
    outputs = [open_output(path, frames, len(boxes_xywh)) for path in saved]
    video = None if render is None else open_render(render, frames.frames_per_second)
    settings = None if rule is None else read_rule_file(rule, model).rule
    tracker = Tracker.from_pretrained(model, settings, device, precision, localization, engine=engine)
    if presence is not None and not tracker.tells_presence:
        raise UserError(
            f"--presence {presence} cannot be written: the model has no presence head for localization "
            f"{tracker.rule.localization!r}."
        )
    if tracker.device.type == "cpu":
        fit_threads(tracker.network, len(boxes_xywh))
    results = follow(tracker, decoded_ahead(frames), as_boxes(boxes_xywh), keep_response=video is not None)
    with enough_memory(_LESS_MEMORY):
        first = next(results)  # a box that cannot be tracked is refused before any file is touched
    console = make_console()
    tracked = Tracked(len(boxes_xywh), keeps_boxes=truth is not None)
    stopped: UserError | KeyboardInterrupt | None = None
    try:
        with ExitStack() as stack:
            stack.enter_context(enough_memory(_LESS_MEMORY))
            stack.enter_context(closing(results))
            writers = [stack.enter_context(output) for output in outputs]
            if presence is not None:
                writers.append(stack.enter_context(line_output(presence, _presence_line)))
            writers.append(tracked.add)
            if video is not None:
                writers.append(stack.enter_context(_rendered_behind(video, truth_xywh)))
            progress = stack.enter_context(progress_bar(console, FrameRate()))
            count_frame = partial(progress.advance, progress.add_task("tracking", total=frames.count))
            for result in chain([first], results):
                for write in writers:
                    write(result)
                count_frame()
    except (UserError, KeyboardInterrupt) as error:  # the files are closed by now
        stopped = error
    tracked.is_whole = stopped is None
    if tracked.count:
        for sentence in report(tracked, frames, written):
            console.print(sentence, soft_wrap=True)
        if truth_xywh is not None:
            for sentence in comparison(tracked, truth_xywh, str(truth), start, limit):
                console.print(sentence, soft_wrap=True)
    if stopped is not None:
        raise stopped


@contextmanager
def _rendered_behind(video: VideoWriter | FramesFolder, truth_xywh: NDArray[np.float64] | None) -> Iterator[Write]:
    """What draws and encodes a frame, in a thread."""

    def draw(result: FrameResult) -> None:
        annotated = [] if truth_xywh is None else truth_xywh[result.index : result.index + 1].tolist()
        video.write(draw_result(result, *annotated), result.seconds)

    with video, written_behind(draw, _WAITING_PICTURES) as write:
        yield write


def _presence_line(result: FrameResult) -> str:
    values = (1.0 if target.presence is None else target.presence for target in result.targets)
    return f"{','.join(f'{value:.6f}' for value in values)}\n"


def _files_of(model: str) -> list[Path]:
    """The file that a model is, and those that its folder has where it is one.

    Raises:
        UserError: there is no such model.
    """
    path = resolve(model)
    folder = path if path.is_dir() else path.parent
    return [path, *(folder / name for name in (WEIGHTS_FILE, CONFIG_FILE, RULE_FILE, *FILES.values()))]
