"""What a visitor can download: the rendered video, and the boxes in the formats of the command line."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from relo.tracking.background import written_behind
from relo.tracking.frame_result import FrameResult
from relo.tracking.outputs import open_output, output_paths
from relo.tracking.render import draw_result
from relo.tracking.sources import Frames
from relo.tracking.video_writer import VideoWriter

VIDEO = "tracked.mp4"
TEXT = "boxes.txt"
ARCHIVE = "boxes.zip"
FORMATS = {
    TEXT: "Boxes, x,y,w,h per line",
    "boxes.jsonl": "Boxes, scores and presence",
    "boxes.csv": "MOTChallenge",
    "boxes.json": "COCO video",
}
LABELS = {VIDEO: "Video", ARCHIVE: "Boxes, a text file per target", **FORMATS}
"""The files that there may be, and what they are called on the page."""

_QUEUE = 8  # frames that wait to be drawn and encoded


@contextmanager
def open_results(folder: Path, frames: Frames, targets: int) -> Iterator[Callable[[FrameResult], None]]:
    """What writes a frame's result to all files, in a thread; they are complete also where a run stops halfway.

    Raises:
        UserError: a file cannot be written.
    """
    texts = output_paths(folder / TEXT, targets)
    try:
        with ExitStack() as stack:
            video = stack.enter_context(VideoWriter(folder / VIDEO, frames.frames_per_second))
            outputs = [stack.enter_context(open_output(folder / name, frames, targets)) for name in FORMATS]

            def write(result: FrameResult) -> None:
                for output in outputs:
                    output(result)
                video.write(draw_result(result), result.seconds)

            yield stack.enter_context(written_behind(write, _QUEUE))
    finally:
        if targets > 1 and texts[0].is_file():
            with ZipFile(folder / ARCHIVE, "w", ZIP_DEFLATED) as archive:
                for path in texts:
                    archive.write(path, path.name)


def list_results(folder: Path) -> list[dict[str, str | int]]:
    """The files that are there, as the page lists them."""
    paths = [(folder / name, label) for name, label in LABELS.items()]
    return [
        {"name": path.name, "label": label, "bytes": path.stat().st_size} for path, label in paths if path.is_file()
    ]
