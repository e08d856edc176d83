"""Frames in order, from folders of images, video files and cameras."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.sequence_checks import remarks_on_sizes
from relo.data.sequences.base import ImageFiles
from relo.data.sequences.frame_files import image_names, is_image_name, natural_key
from relo.errors import UserError

DEFAULT_FRAMES_PER_SECOND = 25.0
"""For sources that do not say."""

_CAMERA_DIGITS = 9  # OpenCV numbers cameras in 32 bits
_TOLERANCE = 2  # frames that an estimate of their number may be off


@dataclass(frozen=True)
class Frames:
    """The frames of a source, in order, RGB uint8 [H, W, 3]; can be iterated once."""

    name: str
    images: Iterable[NDArray[np.uint8]]
    count: int | None  # as the source says, which may be an estimate; None for a camera
    frames_per_second: float
    remarks: list[str] = field(default_factory=list)  # what turned out while the images were read

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return iter(self.images)


def open_frames(source: str | Path, start: int = 0, limit: int | None = None) -> Frames:
    """Open a source of frames.

    Args:
        source: a folder of images, a pattern such as `frames/*.png`, a video file, or a camera's number. Images
            are taken in the natural order of their names (`2.jpg` before `10.jpg`).
        start: skip this many frames.
        limit: give at most this many frames.

    Raises:
        UserError: the source does not exist, holds no frames, or cannot be read.
    """
    if start < 0 or (limit is not None and limit < 1):
        raise UserError(f"Cannot take {limit} frames from frame {start}: start at 0 or later and take 1 or more.")
    text, path = str(source), Path(source)
    if os.path.isdir(text):  # unlike pathlib's, false for a text that is too long for a name
        return _image_frames(text, [path / name for name in image_names(path)], start, limit)
    if os.path.isfile(text):
        if is_image_name(path.name):
            raise UserError(f"{path} is a single image; give the folder that holds the frames.")
        return _video_frames(text, text, start, limit)
    if text.isdecimal():
        if len(text) > _CAMERA_DIGITS:
            raise UserError(f"There is no camera {text}; give one of at most {_CAMERA_DIGITS} digits, from 0 on.")
        return _video_frames(f"camera {text}", int(text), start, limit)
    if glob.has_magic(text):
        return _image_frames(text, _matching_images(text), start, limit)
    raise UserError(f"{text} does not exist; give a folder of images, a pattern, a video file or a camera's number.")


def _matching_images(pattern: str) -> list[Path]:
    """The images that match a pattern, folder by folder."""
    matches = [Path(name) for name in glob.glob(pattern) if is_image_name(Path(name).name) and not Path(name).is_dir()]
    if not matches:
        raise UserError(f"No file matches {pattern} that is a visible image (.jpg, .png, .bmp, .webp or .tif).")
    names: dict[Path, set[str]] = {}
    for match in matches:
        names.setdefault(match.parent, set()).add(match.name)
    folders = sorted(names, key=lambda folder: (natural_key(str(folder)), folder))
    return [folder / name for folder in folders for name in image_names(folder, names[folder].__contains__)]


def _image_frames(name: str, paths: list[Path], start: int, limit: int | None) -> Frames:
    ordered = paths[start : None if limit is None else start + limit]
    if not ordered:
        raise UserError(f"{name} has {len(paths)} frames; it cannot start at frame {start}.")
    files = ImageFiles(Path(), tuple(str(path) for path in ordered))
    remarks: list[str] = []
    images = _with_sizes_checked((files[i] for i in range(len(files))), name, start, remarks)
    return Frames(name, images, len(files), DEFAULT_FRAMES_PER_SECOND, remarks)


def _video_frames(name: str, source: str | int, start: int, limit: int | None) -> Frames:
    capture = _quietly_opened(source)
    seconds: list[float] = []
    for _ in range(start):
        if not capture.grab():
            raise UserError(f"{name} ends before frame {start}.")
        seconds.append(_seconds(capture))
    read, first = capture.read()
    if not read:
        raise UserError(f"{name} ends before frame {start}." if start else f"{name} cannot be read as a video.")
    announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else DEFAULT_FRAMES_PER_SECOND
    remarks: list[str] = []

    def images() -> Iterator[NDArray[np.uint8]]:
        yield from _decoded(capture, first, seconds, None if limit is None else start + limit)
        ended = limit is None or len(seconds) < start + limit
        counted = isinstance(source, str) and _is_avi(source)
        remarks.extend(remarks_on_lost_frames(seconds, announced, rate, ended=ended, counted=counted))

    count = announced - start
    return Frames(
        name,
        _with_sizes_checked(images(), name, start, remarks),
        None if isinstance(source, int) or count < 1 else min(count, limit or count),
        rate,
        remarks,
    )


def _with_sizes_checked(
    images: Iterable[NDArray[np.uint8]], name: str, start: int, remarks: list[str]
) -> Iterator[NDArray[np.uint8]]:
    """The images, from frame `start` on; where their sizes differ, `remarks` says so at the end."""
    sizes: list[tuple[int, int]] = []
    for image in images:
        sizes.append((image.shape[1], image.shape[0]))
        yield image
    remarks += remarks_on_sizes(name, np.array(sizes, np.int32), start)


def _quietly_opened(source: str | int) -> cv2.VideoCapture:
    """Open without OpenCV's own warnings: the error raised here says what is wrong."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(source)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        if isinstance(source, int):
            raise UserError(f"Camera {source} cannot be opened; is it connected, and free?")
        raise UserError(f"{source} cannot be opened as a video; the file is broken or its codec unknown.")
    return capture


def _decoded(
    capture: cv2.VideoCapture, first: cv2.typing.MatLike, seconds: list[float], end: int | None
) -> Iterator[NDArray[np.uint8]]:
    """The frames from the first on, up to frame `end`; `seconds` takes their times, after those of frames before."""
    read, frame = True, first
    try:
        while read:
            seconds.append(_seconds(capture))
            yield np.asarray(
                cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB if frame.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8
            )
            if len(seconds) == end:
                return
            read, frame = capture.read()
    finally:
        capture.release()


def _seconds(capture: cv2.VideoCapture) -> float:
    """The time of the frame that was read last."""
    return capture.get(cv2.CAP_PROP_POS_MSEC) / 1000


def _is_avi(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"RIFF"


def remarks_on_lost_frames(
    seconds: Sequence[float], announced: int, frames_per_second: float, *, ended: bool, counted: bool
) -> list[str]:
    """What a person should know of a video of which frames seem to be lost; empty if all seem to be there.

    Args:
        seconds: the time of each frame from the video's first on; all 0 where there are no times.
        announced: the number of frames, as the file says; below 1 if it does not.
        frames_per_second: the rate, as the file says.
        ended: whether the last of the frames was the video's last; otherwise there may be more.
        counted: whether the file notes a number of frames. Others note a duration, and the number is estimated by a
            constant rate: it is too large by a few frames where sound lasts longer, and by many where the rate varies.
    """
    if announced < 1:
        return []
    found, remarks = len(seconds), []
    # Where the rate varies, or frames that repeat the one before were left out, times say how far the video has come.
    reached = max(found, round(max(seconds) * frames_per_second) + 1)
    if ended and announced - reached > (0 if counted else max(_TOLERANCE, announced // 100)):
        remarks.append(f"The video announces {announced} frames and ends after {found}: it may be cut off or damaged.")
    if not counted and min(announced, reached) - found > _TOLERANCE:
        remarks += _remarks_on_holes(np.asarray(seconds), 1 / frames_per_second)
    return remarks


def _remarks_on_holes(seconds: NDArray[np.float64], interval: float) -> list[str]:
    """That some frames come far later than the one before, measured by the other intervals of the same video."""
    intervals = np.diff(seconds)
    if not len(intervals):
        return []
    in_order = np.sort(intervals)
    usual = max(interval, float(in_order[max(0, len(intervals) - 3 - len(intervals) // 20)]))  # but the few longest
    holes = np.flatnonzero(intervals > 3 * usual)
    if not len(holes):
        return []
    start, end = seconds[holes[0]], seconds[holes[0] + 1]
    lost = round(float((intervals[holes] / usual - 1).sum()))
    more = f" and in {len(holes) - 1} more places" if len(holes) > 1 else ""
    return [
        f"The video has no frames between {start:.2f} s and {end:.2f} s{more}, where about {lost} are to be expected: "
        "it may be damaged."
    ]
