"""What the headers of JPEG and PNG files say, read without decoding them."""

import re
from collections.abc import Iterator

JPEG = b"\xff\xd8"
SEQUENTIAL_FRAMES, DCT_FRAMES = (0xC0, 0xC1), (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
HUFFMAN_TABLES, START_OF_SCAN, END_OF_IMAGE = 0xC4, 0xDA, 0xD9

_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = {*range(0xC0, 0xD0)} - {HUFFMAN_TABLES, 0xC8, 0xCC}
_WITHOUT_CONTENT = (0x01, 0xD8)
# Not a zero byte after 0xFF, which belongs to a scan's data as the restarts 0xD0 to 0xD7 do.
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")


def announced_pixels(encoded: bytes) -> tuple[int, int] | None:
    """Width and height in a JPEG's or PNG's header, which damage can make anything; None for other kinds of files."""
    if encoded.startswith(_PNG):
        return int.from_bytes(encoded[16:20], "big"), int.from_bytes(encoded[20:24], "big")
    if encoded.startswith(JPEG):
        for marker, content, _ in jpeg_segments(encoded):
            if marker in _FRAMES:
                return int.from_bytes(content[3:5], "big"), int.from_bytes(content[1:3], "big")
            if marker == START_OF_SCAN:
                break
    return None


def jpeg_segments(encoded: bytes) -> Iterator[tuple[int, bytes, int]]:
    """The segments of a JPEG up to its end of image: marker, content, and the position after it.

    The data of a scan, which follow its segment, are passed over.
    """
    position = len(JPEG)
    while found := _MARKER.search(encoded, position):
        position = found.end()
        marker = encoded[position - 1]
        if marker == END_OF_IMAGE:
            return
        if marker not in _WITHOUT_CONTENT:
            start, position = position + 2, position + int.from_bytes(encoded[position : position + 2], "big")
            yield marker, encoded[start:position], position
