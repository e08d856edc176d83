"""Frames that are intact: damage that a decoder only warns of is found, too.

OpenCV prints libjpeg's warnings and returns pixels all the same. TurboJPEG raises them: it decodes a JPEG once more, in
grey and at an eighth of its size, which takes half of OpenCV's time. OpenCV itself refuses a damaged PNG, which has
checksums, and any kind of image that is cut off.
"""

from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from relo.data.sequences.base import decode_frame
from relo.errors import UserError

_JPEG = b"\xff\xd8"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_HUFFMAN_TABLES, _SEQUENTIAL_FRAMES = 0xC4, (0xC0, 0xC1)
_FIRST_AC_TABLE, _END_OF_BLOCK = 0x10, 0x00
_ZEROS = bytes(32)


def decode_intact(encoded: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image to RGB uint8 [H, W, 3], as `decode_frame` does, but only if it is intact.

    Raises:
        UserError: the bytes are no image, or a damaged one; the message begins with `name`.
    """
    image = decode_frame(encoded, name)
    if encoded.startswith(_JPEG) and (damage := _jpeg_damage(encoded)):
        raise UserError(f"{name} is damaged ({damage}); copy or extract it again.")
    return image


def _jpeg_damage(encoded: bytes) -> str:
    """What is wrong with a JPEG file that can be decoded; empty if nothing is."""
    try:
        simplejpeg.decode_jpeg(encoded, "gray", min_height=1, min_width=1)  # the smallest scale
    except ValueError as error:
        # TurboJPEG does not read rare kinds of chroma subsampling that libjpeg reads.
        return "" if "subsampling" in str(error) else str(error)
    return "a run of zeros" if _ZEROS in encoded and _has_zeros_for_coefficients(encoded) else ""


def _has_zeros_for_coefficients(encoded: bytes) -> bool:
    """Whether the only scan of a sequential JPEG has a run of zero bytes that stand for coefficients.

    Zero bits are the first symbol of a Huffman table. Where that is not the end of a block, they make a whole block of
    equal coefficients, which no encoder writes. A decoder that leaves them at the right block has nothing to warn of.
    """
    first_symbol, sequential = _END_OF_BLOCK, False
    for marker, start, end in _segments(encoded):
        if marker in _SEQUENTIAL_FRAMES:
            sequential = True
        elif marker == _HUFFMAN_TABLES:
            while start < end:  # table's class and number, 16 counts of codes, the symbols
                if encoded[start] == _FIRST_AC_TABLE:
                    first_symbol = encoded[start + 17]
                start += 17 + sum(encoded[start + 1 : start + 17])
        elif marker == _START_OF_SCAN:
            scan = encoded[end : encoded.find(_END_OF_IMAGE, end)]
            several = bytes((0xFF, _START_OF_SCAN)) in scan
            return sequential and not several and first_symbol != _END_OF_BLOCK and _ZEROS in scan
    return False


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """The markers of a JPEG's header up to its first scan, each with where its content starts and ends."""
    position = len(_JPEG)
    while position + 4 <= len(encoded):
        marker, length = encoded[position + 1], int.from_bytes(encoded[position + 2 : position + 4], "big")
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        yield marker, position + 4, position + 2 + length
        position += 2 + length
