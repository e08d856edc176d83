"""What drawing a frame and writing it to a video cost, per format, beside OpenCV's own writer.

    python benchmarks/video_writing.py [--frames FOLDER] [--size 1280x720] [--count 60]

Frames are those of a folder, scaled, or those of a synthetic sequence. "wall" is what the writer's thread takes per
frame, "cpu" what it and the encoder's threads take from the tracker; both in milliseconds. "PSNR" compares the decoded
frames with those that were written.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from tables import parser_of, print_table, seconds

from relo.data.synthetic import render_sequence
from relo.tracking.render import DrawnTarget, draw_targets
from relo.tracking.sources import open_frames
from relo.tracking.video_writer import VideoWriter

Images = list[NDArray[np.uint8]]
OPENCV_CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--frames", type=Path, help="a folder of images")
    parser.add_argument("--size", default="1280x720", help="width x height of the frames")
    parser.add_argument("--count", type=int, default=60, help="number of frames")
    print_table(parser, arguments, tabulate)


def tabulate(options: argparse.Namespace) -> Table:
    """The table: a row is a way to write."""
    width, height = map(int, options.size.split("x"))
    source = (
        render_sequence("bench", frames=options.count).frames
        if options.frames is None
        else open_frames(options.frames, limit=options.count)
    )
    images: Images = [
        np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8) for image in source
    ]
    table = Table(*(f"{width}x{height}", "wall ms", "cpu ms", "kB per frame", "PSNR"), title=f"{len(images)} frames")
    for count in (1, 3, 8):
        targets = [DrawnTarget([90.0 * i, 99, 80, 90], f"{i}", response=np.eye(16)) for i in range(count)]
        table.add_row(f"draw, targets: {count}", *_times(lambda t=targets: _draw(images, t), len(images)))
    for ending in (".mp4", ".mkv", ".webm", ".avi"):
        table.add_row(*_row(f"relo {ending}", images, ending, _write))
    for ending in OPENCV_CODECS:
        table.add_row(*_row(f"OpenCV {ending}, {OPENCV_CODECS[ending]}", images, ending, _write_by_opencv))
    return table


def _row(name: str, images: Images, ending: str, write: Callable[[Path, Images], None]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{ending}"
        times = _times(lambda: write(path, images), len(images))
        with av.open(str(path)) as container:
            read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        errors = [np.square(a.astype(float) - b).mean() for a, b in zip(read, images, strict=True)]
        psnr = 10 * np.log10(255**2 / np.mean(errors))
        return [name, *times, f"{path.stat().st_size / len(images) / 1e3:.1f}", f"{psnr:.1f}"]


def _times(work: Callable[[], None], count: int) -> tuple[str, str]:
    """Milliseconds per frame, by the wall's clock and of all threads."""
    wall, threads = seconds(work)
    return f"{1e3 * wall / count:.1f}", f"{1e3 * threads / count:.1f}"


def _draw(images: Images, targets: Sequence[DrawnTarget]) -> None:
    for i, image in enumerate(images):
        draw_targets(image, targets, f"#{i}")


def _write(path: Path, images: Images) -> None:
    with VideoWriter(path) as video:
        for image in images:
            video.write(image)


def _write_by_opencv(path: Path, images: Images) -> None:
    height, width = images[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*OPENCV_CODECS[path.suffix]), 25, (width, height))
    for image in images:
        video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    video.release()


if __name__ == "__main__":
    main()
