"""Frames into a video file."""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.container
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from relo.errors import UserError
from relo.files import atomic_write, reader_of, reason
from relo.tracking.sources import DEFAULT_FRAMES_PER_SECOND


@dataclass(frozen=True)
class _Codec:
    """An encoder of FFmpeg, and its settings: as fast as a tracker on a laptop needs, at a quality that shows it."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


_H264 = (
    _Codec("libx264", {"preset": "ultrafast", "crf": "23"}),
    _Codec("libopenh264", {"b": "6000000"}),  # of builds of FFmpeg without x264
    _Codec("mpeg4", {"qmin": "4", "qmax": "4"}),  # of builds without any H.264; players play it, browsers do not
)
_VP9 = (_Codec("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0", "row-mt": "1"}),)
_MJPEG = (_Codec("mjpeg", {"qmin": "3", "qmax": "3"}),)
_CODECS = {".mp4": _H264, ".webm": _VP9, ".avi": _MJPEG, ".mkv": _H264, ".mov": _H264}  # the first that is there

_MUXER_OPTIONS = {"flush_packets": "1"}  # what is written reaches the disk: it outlives the process
# Until the file is complete it is a series of fragments, which can be played wherever the writing ends.
_FRAGMENTED = {".mp4": {"movflags": "+hybrid_fragmented"}, ".mov": {"movflags": "+hybrid_fragmented"}}
_SECONDS_PER_FRAGMENT = 2

_TICK = Fraction(1, 60_000)  # seconds; a whole number of them is a frame at 24, 25, 30, 29.97 and 60 per second
_LEAST_STEP = 60  # ticks: Matroska counts milliseconds
_MOST_STEP = {".mp4": 2**31 - 2, ".mov": 2**31 - 2, ".avi": 60_000}  # ticks between frames, 10 hours in the first two
_LATEST = 2**45  # ticks from the first frame, which is 18 years; far beyond, FFmpeg's numbers end


class VideoWriter:
    """Writes frames to a video file; a context manager, so that the file can be played even if the work stops halfway.

    The format follows the name: `.mp4`, `.mov` or `.mkv` (H.264, which browsers play in `.mp4`), `.webm` (VP9) or
    `.avi` (Motion JPEG). The first frame sets the size; a frame of another size is scaled into it, with black bars
    where the shape differs.
    """

    def __init__(self, path: Path, frames_per_second: float = DEFAULT_FRAMES_PER_SECOND) -> None:
        """Prepare; the file is made with the first frame.

        Raises:
            UserError: the name's ending is not one of the above, or FFmpeg has no encoder for it.
        """
        ending = path.suffix.lower()
        if ending not in _CODECS:
            raise UserError(f"Cannot write a video as {path.name}; end the name in {', '.join(_CODECS)}.")
        self.path = path
        self.frames_per_second = frames_per_second
        self._codec = _available_codec(ending)
        self._rate = max(Fraction(1, 1001), Fraction(frames_per_second).limit_denominator(1001))
        # In AVI all frames last equally long: one that comes later is preceded by repetitions.
        self._tick, self._least_step = (1 / self._rate, 1) if ending == ".avi" else (_TICK, _LEAST_STEP)
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._is_begun = False  # whether there is a file that holds nothing but what was written here
        self._failure: UserError | None = None
        self._size = (0, 0)
        self._first_seconds = 0.0
        self._time = 0  # of the last frame, in ticks
        self._count = 0

    def write(self, image: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Append an RGB frame uint8 [H, W, 3].

        Args:
            image: the frame.
            seconds: its time, from any beginning; 1 / `frames_per_second` after the frame before if not given.

        Raises:
            UserError: the file cannot be written, or its format holds no time so long after the frame before.
        """
        if self._failure is not None:
            raise self._failure
        try:
            if self._container is None:
                self._open(image, seconds or 0.0)
            self._encode(self._frame(fit_into(image, *self._size), seconds))
        except (OSError, av.FFmpegError) as error:
            self._failure = self._given_up(error)
            raise self._failure from error
        self._count += 1

    def _open(self, image: NDArray[np.uint8], seconds: float) -> None:
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)  # the codecs need even sides
        self._first_seconds = seconds
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file() or not self.path.exists():  # no pipe or device
            self.path.open("wb").close()
            self._is_begun = True
        ending = self.path.suffix.lower()
        with reader_of(self.path):
            container = av.open(_address(self.path), "w", options=_MUXER_OPTIONS | _FRAGMENTED.get(ending, {}))
        stream = container.add_stream(self._codec.name, self._rate, dict(self._codec.options))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuvj420p" if self._codec.name == "mjpeg" else "yuv420p"
        context = stream.codec_context
        context.time_base = self._tick
        context.gop_size = max(1, round(_SECONDS_PER_FRAGMENT * self._rate))
        context.color_range = ColorRange.JPEG if self._codec.name == "mjpeg" else ColorRange.MPEG
        context.colorspace = Colorspace.ITU601  # what OpenCV converts to, and readers that ignore tags expect
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        container.start_encoding()
        self._container, self._stream = container, stream

    def _frame(self, image: NDArray[np.uint8], seconds: float | None) -> av.VideoFrame:
        """The frame, at its time."""
        if self._codec.name == "mjpeg":
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG
            )
        else:  # twice as fast as FFmpeg's own conversion
            planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
        if self._count:
            usual = self._time + round(1 / self._rate / self._tick)
            time = usual if seconds is None else round((seconds - self._first_seconds) / self._tick)
            time = max(time, self._time + self._least_step)  # encoders refuse a time that does not grow
            self._require_near(time)
            self._time = time
        frame.pts, frame.time_base = self._time, self._tick
        return frame

    def _require_near(self, time: int) -> None:
        """Refuse a time, in ticks, so long after the frame before that the file would hold another, or none."""
        ending, gap = self.path.suffix.lower(), time - self._time
        if time > _LATEST or gap > _MOST_STEP.get(ending, _LATEST):
            self._encode(None)  # the frames before are kept
            advice = "; .mkv takes more" if time <= _LATEST else ""
            seconds = float(gap * self._tick)
            raise OSError(
                errno.EOVERFLOW, f"a frame comes {seconds:g} s after the one before, too long for {ending}{advice}"
            )

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame, or those that wait inside the encoder, into the file."""
        assert self._container is not None
        assert self._stream is not None
        self._container.mux(self._stream.encode(frame))

    def _given_up(self, error: OSError | av.FFmpegError) -> UserError:
        """Close what cannot be written any more; the sentence to say so, and what is kept."""
        if self._container is not None:
            with suppress(OSError, av.FFmpegError):
                self._container.close()
            self._container = None
        cause = reason(error) or error.strerror or error
        if not self._count and isinstance(error, av.error.ExternalError | av.error.ArgumentError):  # of encoders
            cause = f"{cause}; frames of {' x '.join(map(str, self._size))} px may be too large for its encoder"
        sentence = f"The video {self.path} cannot be written ({cause})"
        if self._is_begun:
            if kept := _count_of_frames(self.path):
                return UserError(f"{sentence}; its first {kept} frames can be played.")
            with suppress(OSError):
                self.path.unlink()
        return UserError(f"{sentence}.")

    def _finish(self) -> None:
        """Write what waits inside the encoder, close the file, and look whether it holds all frames."""
        assert self._container is not None
        try:
            self._encode(None)
            self._container.close()
        except (OSError, av.FFmpegError) as error:
            raise self._given_up(error) from error
        self._container = None
        if not self._is_begun:
            return
        if (kept := _count_of_frames(self.path)) != self._count:
            raise UserError(f"The video {self.path} holds {kept} frames of {self._count}: it could not be written.")
        if self.path.suffix.lower() in _FRAGMENTED:
            with suppress(UserError, OSError, av.FFmpegError):  # without room for a second copy, it stays as it is
                _put_index_first(self.path)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is None:
            return
        try:
            self._finish()
        except UserError:
            if error is None:
                raise


def _available_codec(ending: str) -> _Codec:
    """The first of an ending's codecs that this build of FFmpeg can encode."""
    for codec in _CODECS[ending]:
        with suppress(av.codec.codec.UnknownCodecError):
            av.Codec(codec.name, "w")
            return codec
    names = " or ".join(codec.name for codec in _CODECS[ending])
    raise UserError(f"Cannot write a {ending} file: this build of FFmpeg has no {names}; take another ending.")


def _address(path: Path) -> str:
    """A file as FFmpeg names it; without the prefix, a colon in the name would end a protocol's name."""
    return f"file:{path}"


def _count_of_frames(path: Path) -> int:
    """How many frames a video file holds; they are not decoded."""
    try:
        with av.open(_address(path)) as container:
            return sum(packet.size > 0 and not packet.is_corrupt for packet in container.demux())
    except (OSError, av.FFmpegError):
        return 0


def _put_index_first(path: Path) -> None:
    """Copy an MP4 file so that its index comes before its frames: it then plays while it is loaded."""
    with atomic_write(path) as partial, av.open(_address(path)) as source:
        options = {"movflags": "+faststart"}
        with av.open(_address(partial), "w", path.suffix.lower()[1:], options) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        os.chmod(partial, path.stat().st_mode)


def fit_into(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The image [H, W, 3] scaled to fit [height, width, 3], black where it does not reach.

    One that is smaller by no more than a pixel is not scaled.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if not (0 <= height - rows <= 1 and 0 <= width - columns <= 1):
        scale = min(height / rows, width / columns)
        columns, rows = min(width, max(1, round(columns * scale))), min(height, max(1, round(rows * scale)))
        image = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[:rows, :columns] = image
    return canvas
