"""Frames in order, from folders of images, video files, cameras and network addresses."""

import glob
import os
import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator, MutableSequence, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relo.data.sequence_checks import remarks_on_sizes
from relo.data.sequences.base import ImageFiles
from relo.data.sequences.frame_files import image_names, is_image_name, natural_key
from relo.errors import EXCERPT, UserError
from relo.tracking.background import read_ahead
from relo.tracking.camera import CameraReader
from relo.tracking.lost_frames import remarks_on_lost_frames
from relo.tracking.timed_frame import Clock, TimedFrame
from relo.tracking.video_reader import VideoReader

DEFAULT_FRAMES_PER_SECOND = 25.0
"""For sources that do not say."""

NETWORK_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "rtp", "tcp")

_CAMERA_DIGITS = 9  # OpenCV numbers cameras in 32 bits


@dataclass(frozen=True)
class Frames:
    """The frames of a source, in order, RGB uint8 [H, W, 3]; can be iterated once.

    Attributes:
        name: the source in words.
        images: the frames.
        count: their number, as the source says, which may be an estimate; None for a camera or a live stream.
        frames_per_second: the average rate.
        remarks: what turned out while the frames were read, a sentence each; complete at the end.
        seconds: the time of every frame given so far since the source's frame 0 (also where that was skipped). It
            grows with the frames, each later than the one before. Of a live source, that of the last frame alone.
        is_live: a camera or an endless network stream. Frames that come while the last one is in use are dropped, so
            that the next one is always the newest; reading ahead would make it old.
        start: the number of the first of them in the source.
        files: of images, their names in `folder`.
        folder: the one that holds them all.
    """

    name: str
    images: Iterable[NDArray[np.uint8]]
    count: int | None
    frames_per_second: float
    remarks: list[str] = field(default_factory=list)
    seconds: Sequence[float] = field(default_factory=list)
    is_live: bool = False
    start: int = 0
    files: Sequence[str] = ()
    folder: Path = Path()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return iter(self.images)


def open_frames(source: str | Path | int, start: int = 0, limit: int | None = None) -> Frames:
    """Open a source of frames.

    Args:
        source: a folder of images, a pattern such as `frames/*.png`, a video file, a camera's number, or a network
            address such as `rtsp://192.168.1.7/stream`. Images are taken in the natural order of their names (`2.jpg`
            before `10.jpg`); videos are turned as players show them.
        start: skip this many frames.
        limit: give at most this many frames.

    Raises:
        UserError: the source does not exist, holds no frames, or cannot be read. Iterating the frames raises it where
            the source breaks off: an image is broken, a connection is lost, a camera unplugged.
    """
    if start < 0:
        raise UserError(f"There is no frame {start} to start at; start at 0 or later.")
    if limit is not None and limit < 1:
        raise UserError(f"Cannot take {limit} frames; take 1 or more.")
    text, path = str(source), Path(str(source))
    if os.path.isdir(text):  # unlike pathlib's, false for a text that is too long for a name
        return _image_frames(text, [path / name for name in image_names(path)], start, limit)
    if os.path.isfile(text):
        if is_image_name(path.name):
            raise UserError(f"{path} is a single image; give the folder that holds the frames.")
        return _video_frames(VideoReader(text), start, limit)
    if text.isdecimal():
        if len(text) > _CAMERA_DIGITS:
            raise UserError(
                f"There is no camera {text[:EXCERPT]}; give one of at most {_CAMERA_DIGITS} digits, from 0 on."
            )
        return _video_frames(CameraReader(int(text)), start, limit)
    if (address := re.match(r"(\w{2,})://", text)) is not None:
        scheme = address[1].lower()  # as FFmpeg knows it
        if scheme not in NETWORK_SCHEMES:
            raise UserError(f"{address[0]} is no kind of address that can be read; give {', '.join(NETWORK_SCHEMES)}.")
        return _video_frames(VideoReader(f"{scheme}{text[len(scheme) :]}", is_address=True), start, limit)
    if glob.has_magic(text):
        return _image_frames(text, _matching_images(text), start, limit)
    found = "is a pipe or a device" if os.path.exists(text) else "does not exist"
    raise UserError(
        f"{text or 'An empty name'} {found}; give a folder of images, a pattern, a video file, a camera's number or an "
        "address."
    )


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
    remarks, seconds = list[str](), list[float]()

    def images() -> Iterator[NDArray[np.uint8]]:
        for index in range(len(files)):
            image = files[index]
            seconds.append((start + index) / DEFAULT_FRAMES_PER_SECOND)
            yield image

    checked = _with_sizes_checked(images(), name, start, remarks)
    folder = Path(os.path.commonpath([path.parent for path in ordered]))
    names = [path.relative_to(folder).as_posix() for path in ordered]
    return Frames(
        name, checked, len(files), DEFAULT_FRAMES_PER_SECOND, remarks, seconds, start=start, files=names, folder=folder
    )


def _video_frames(reader: VideoReader | CameraReader, start: int, limit: int | None) -> Frames:
    name, rate = reader.name, reader.frames_per_second or DEFAULT_FRAMES_PER_SECOND
    clock, remarks = Clock(1 / rate), list[str]()
    skipped, seconds = _times(reader.is_live), _times(reader.is_live)
    frames = iter(reader)
    for index, frame in enumerate(frames):
        if index == start:
            break
        skipped.append(clock.seconds(frame.stamp))
    else:
        raise UserError(f"{name} ends before frame {start}." if start else f"{name} cannot be read as a video.")
    following = _from(frame, frames)
    if reader.is_live:
        # From now on, not from when tracking begins: what nobody reads meanwhile grows old, or the sender hangs up.
        following = read_ahead(following, depth=1, drop_oldest=True)

    def images() -> Iterator[NDArray[np.uint8]]:
        count = 0
        try:
            for count, timed in enumerate(following, 1):
                seconds.append(clock.seconds(timed.stamp))
                yield timed.image()
                if count == limit:
                    break
        finally:
            following.close()
            with suppress(ValueError):  # a thread is still waiting for the next frame, and closes when it comes
                frames.close()
        ended, times = count != limit, [*skipped, *seconds]
        if not reader.is_live:
            remarks.extend(
                remarks_on_lost_frames(times, reader.announced, rate, ended=ended, counted=reader.is_counted)
            )
        elif ended:
            remarks.append(f"{name} ended after {count} frames.")

    count = reader.announced - start
    return Frames(
        name,
        _with_sizes_checked(images(), name, start, remarks),
        None if reader.is_live or count < 1 else min(count, limit or count),
        rate,
        remarks,
        seconds,
        reader.is_live,
        start,
    )


def _from(first: TimedFrame, others: Generator[TimedFrame, None, None]) -> Generator[TimedFrame, None, None]:
    """All of them; closes the others."""
    with closing(others):
        yield first
        yield from others


def _times(is_live: bool) -> MutableSequence[float]:
    """What keeps the times of frames: all of them, or of a live source, which may run for days, the last."""
    return deque(maxlen=1) if is_live else []


def _with_sizes_checked(
    images: Iterable[NDArray[np.uint8]], name: str, start: int, remarks: list[str]
) -> Iterator[NDArray[np.uint8]]:
    """The images, from frame `start` on; where their sizes differ, `remarks` says so at the end."""
    runs: list[tuple[int, int]] = []  # of frames of one size
    lengths: list[int] = []
    for image in images:
        size = (image.shape[1], image.shape[0])
        if not runs or runs[-1] != size:
            runs.append(size)
            lengths.append(0)
        lengths[-1] += 1
        yield image
    if len(runs) > 1:
        remarks += remarks_on_sizes(name, np.repeat(np.array(runs, np.int32), lengths, axis=0), start)
