"""What is refused before a video is decoded: pictures of any size, and files that make FFmpeg open others."""

from collections.abc import Mapping
from functools import cache

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from relo.data.image_headers import announced_pixels
from relo.errors import UserError

MOST_WIDTH, MOST_HEIGHT = 8192, 4320
"""Of a frame, in pixels (8K); any sides whose product is no larger."""

# Of the bytes that name other files, FFmpeg opens whatever they name: a pipe is waited for, a list may name itself.
_LISTS = {"concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "vobsub", "webm_dash_manifest"}
# Above the bound: codecs round sides up, and a size that FFmpeg takes can be named.
_PIXELS_FOR_FFMPEG = 2 * MOST_WIDTH * MOST_HEIGHT

DECODER_OPTIONS = {"max_pixels": str(_PIXELS_FOR_FFMPEG)}
"""What keeps a decoder of FFmpeg from taking memory for larger frames."""


def require_readable_size(width: int, height: int, name: str) -> None:
    """Refuse frames of more pixels than 8K has.

    Raises:
        UserError: the frames have more.
    """
    if width * height > MOST_WIDTH * MOST_HEIGHT:
        raise UserError(
            f"{name} has frames of {width} x {height} px; at most {MOST_WIDTH} x {MOST_HEIGHT} px (8K) are read: scale "
            "it down first."
        )


@cache
def file_options() -> Mapping[str, str]:
    """FFmpeg's options for a local file: it opens no other file that this one names, and no address."""
    names = set[str]()
    for name in av.formats_available - _LISTS:
        try:
            names.add(av.format.ContainerFormat(name, "r").name)
        except ValueError:  # only written
            continue
    return {"protocol_whitelist": "file", "format_whitelist": ",".join(sorted(names - _LISTS))}


def announced_size(container: InputContainer, stream: VideoStream) -> tuple[int, int]:
    """Width and height in the header of a container, or of the first image in it; 0, 0 if neither says.

    Args:
        container: opened with the option `codec_whitelist` of no codec, as decoding overwrites what the header says.
        stream: its video.
    """
    context = stream.codec_context
    if context.width and context.height:
        return context.width, context.height
    try:
        packet = next(container.demux(stream))
    except av.FFmpegError:  # damage
        return 0, 0
    return (packet.size and announced_pixels(bytes(packet))) or (0, 0)
