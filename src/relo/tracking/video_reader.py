"""A video file or network stream, decoded frame by frame by FFmpeg."""

import errno
import re
from collections.abc import Generator
from functools import partial
from time import monotonic
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from relo.errors import UserError
from relo.tracking.timed_frame import TimedFrame
from relo.tracking.video_limits import DECODER_OPTIONS, announced_size, file_options, require_readable_size

PATIENCE = 10.0
"""Seconds without an answer, or without data, after which a source counts as dead."""

_MOST_FAILURES = 100  # damaged places in a row, without a packet between them, after which a file is given up
# Over UDP, pictures of a busy network have holes; but some servers, such as VLC's, send by nothing else.
_NETWORK_OPTIONS = {"rtsp_flags": "prefer_tcp"}
_UNSPECIFIED = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED
_SILENCE = f"nothing came for {PATIENCE:g} seconds"
# How titles that are no UTF-8 are read; from PyAV 19 on they never fail, and it has no such setting.
_TEXTS: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
_HIGHEST_RATE = 1000  # frames per second; what is above is the unit of the time stamps


class VideoReader:
    """Iterates the frames of the video stream of a file or address, once.

    An error of the decoder inside a damaged video skips the frames concerned. Nothing is written to stderr: PyAV
    discards FFmpeg's messages.

    Attributes:
        name: the source in words, without a password.
        frames_per_second: the average rate, as the container says; None if it does not.
        announced: the number of frames, an estimate where the container notes a duration only; 0 if it notes neither.
        is_counted: the container notes a number of frames and no duration, so that `announced` is exact.
        is_live: a network stream without an end, which does not wait for its reader.
    """

    def __init__(self, source: str, *, is_address: bool = False) -> None:
        """Open a file, or an address such as `rtsp://...`.

        Raises:
            UserError: it cannot be opened, holds no video that can be decoded, or one of frames larger than 8K; or it
                is a local file that lists others, as a playlist does.
        """
        self.name = _without_password(source) if is_address else source
        self._is_address = is_address
        self._container = _opened(source, self.name, is_address)
        try:
            self._stream = _video_stream(self._container, self.name)
            require_readable_size(*_size(self._stream, source, is_address), self.name)
        except UserError:
            self._container.close()
            raise
        self._stream.codec_context.options = DECODER_OPTIONS
        self._reformatter = VideoReformatter()
        self.frames_per_second = _frames_per_second(self._stream)
        # The duration of a transport stream that cannot be sought is a guess by its bit rate.
        is_guess = is_address and self._container.format.name == "mpegts"
        seconds = 0.0 if is_guess else _duration(self._container, self._stream)
        self.announced = self._stream.frames or round(seconds * (self.frames_per_second or 0))
        self.is_counted = self._container.format.name == "avi"
        # A playlist is no live stream: its videos come some seconds at once, and wait for their reader.
        self.is_live = is_address and not seconds and (self._container.size or 0) <= 0
        # Threads that decode a frame each hold frames back, which a live stream has no time for.
        self._stream.thread_type = "SLICE" if self.is_live else "AUTO"

    def __iter__(self) -> Generator[TimedFrame, None, None]:
        """The frames; closes the source at the end, or when the iterator is closed.

        Raises:
            UserError: the source breaks off, as the connection or the disk fails, or its frames become larger than 8K;
                the frames before have been given.
        """
        failures = 0
        try:
            while failures < _MOST_FAILURES:
                try:
                    asked = monotonic()
                    for packet in self._container.demux(self._stream):
                        failures, waited = 0, monotonic() - asked
                        if packet.is_discard:  # cut away by the container's edit list
                            self.announced = max(0, self.announced - 1)
                        yield from self._decoded(packet)
                        # Interrupted, FFmpeg gives what its parser holds first, and would then wait as long again.
                        if self._is_address and waited >= PATIENCE:
                            raise UserError(f"{self.name} broke off: {_SILENCE}.")
                        asked = monotonic()
                    return
                except av.error.InvalidDataError:  # what follows the damaged place may be whole
                    failures += 1
            yield from self._decoded(None)
        except av.error.FFmpegError as error:
            yield from self._decoded(None)
            raise UserError(f"{self.name} broke off: {_reason(error)}.") from error
        finally:
            self._container.close()

    def _decoded(self, packet: av.Packet | None) -> Generator[TimedFrame, None, None]:
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            return
        for frame in frames:
            require_readable_size(frame.width, frame.height, self.name)
            unit = self._stream.time_base
            stamp = None if frame.pts is None or not unit else float(frame.pts * unit)
            yield TimedFrame(stamp, partial(self._image, frame))

    def _image(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """RGB [H, W, 3], turned as players show it.

        Raises:
            UserError: FFmpeg cannot convert its pixels.
        """
        try:
            converted = self._reformatter.reformat(frame, format="rgb24")
        except av.error.FFmpegError:  # a colour matrix that it cannot convert, such as ICtCp
            frame.colorspace = _UNSPECIFIED
            try:
                converted = self._reformatter.reformat(frame, format="rgb24")
            except av.error.FFmpegError as error:
                raise UserError(
                    f"{self.name} has frames of pixel format {frame.format.name}, which cannot be converted to RGB; "
                    "encode it again."
                ) from error
        image = np.asarray(converted.to_ndarray(), np.uint8)
        return np.ascontiguousarray(_upright(image, frame))


def _opened(source: str, name: str, is_address: bool, **options: str) -> InputContainer:
    started = monotonic()
    try:
        # Without "file:", what precedes a colon in a file's name would be a protocol.
        return av.open(
            source if is_address else f"file:{source}",
            options={**(_NETWORK_OPTIONS if is_address else file_options()), **DECODER_OPTIONS, **options},
            timeout=PATIENCE,
            **_TEXTS,
        )
    except av.error.FFmpegError as error:
        if not is_address:
            cause = "the file is broken or its codec unknown"
            if isinstance(error, av.error.ArgumentError):  # what FFmpeg gives for a format that may not be read
                cause = "it is broken, or lists other files as a playlist does: give one of those"
            raise UserError(f"{name} cannot be opened as a video; {cause}.") from error
        # Some protocols have an error of their own when FFmpeg is interrupted.
        reason = _SILENCE if monotonic() - started >= PATIENCE else _reason(error)
        raise UserError(f"{name} cannot be opened: {reason}; is the address right?") from error


def _size(stream: VideoStream, source: str, is_address: bool) -> tuple[int, int]:
    """Width and height of a stream; 0, 0 where they are not known."""
    context = stream.codec_context
    if is_address or (context.width and context.height):
        return context.width, context.height
    # Nothing could be decoded, perhaps for its size.
    with _opened(source, source, is_address, codec_whitelist="none") as container:
        return announced_size(container, _video_stream(container, source))


def _reason(error: av.error.FFmpegError) -> str:
    if isinstance(error, av.error.ExitError):  # what FFmpeg gives when it is interrupted
        return _SILENCE
    if isinstance(error, av.error.InvalidDataError):
        return "what it sends is no video"
    # What FFmpeg gives for a host without an address and a stream that is cut; and where an RTSP server hangs up.
    if error.errno in (errno.EIO, errno.EPERM):
        return "the connection failed"
    return error.strerror or "unknown error"


def _without_password(address: str) -> str:
    """The address to show; passwords may hold signs that they should not, up to the last @, or be asked for by name."""
    address = re.sub(r"^([^/]*//)(?:[^/?#@\[]*:(?!\d+/).*|[^/?#]*)@", r"\1", address)
    return re.sub(r"(?i)((?:pass|passwd|password|pwd|token)=)[^&/]+", r"\1***", address)


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    """The stream that players show, but for covers, which are attached to music as pictures."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams or container.format.name == "tty":  # FFmpeg draws texts as pictures
        raise UserError(f"{name} holds no video.")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise UserError(f"{name} cannot be opened as a video; its codec is unknown.")
    return stream


def _frames_per_second(stream: VideoStream) -> float | None:
    rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
    return next((rate for rate in rates if 0 < rate < _HIGHEST_RATE), None)


def _duration(container: InputContainer, stream: VideoStream) -> float:
    """In seconds; 0 where it is not known."""
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _upright(image: NDArray[np.uint8], frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The image of a frame, turned as players show it."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside it are data of a kind that PyAV does not know, such as Exif
        return np.rot90(image, round(frame.rotation / 90))  # without mirroring, which an angle cannot say
    return image if matrix is None else _turned(image, np.frombuffer(matrix, np.int32))


def _turned(image: NDArray[np.uint8], matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The image as its display matrix [9] shows it, by quarter turns and mirrorings.

    The matrix takes x, y to x a + y c, x b + y d, where a, b, c and d are its elements 0, 1, 3 and 4.
    """
    a, b, c, d = (int(element) for element in matrix[[0, 1, 3, 4]])
    if abs(a) >= abs(c):
        horizontal, vertical = a, d
    else:
        image, horizontal, vertical = image.swapaxes(0, 1), c, b
    return image[:: -1 if vertical < 0 else 1, :: -1 if horizontal < 0 else 1]
