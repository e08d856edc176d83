"""Frames that are intact: damage that a decoder only warns of is found, too.

OpenCV prints libjpeg's warnings and returns pixels all the same. TurboJPEG raises them, and gives the same pixels in
half the time; where only damage is looked for, grey pixels at an eighth of the size do, which takes half of that again.
Kinds of JPEG that one of them reads otherwise are left to OpenCV, with TurboJPEG's warnings. OpenCV itself refuses a
damaged PNG, which has checksums, and any kind of image that is cut off.

A JPEG has no checksums: where bytes are changed or lost and the codes that follow make as many blocks as they should,
libjpeg has nothing to warn of. That holds for a code that is in no table, too: in a sequential JPEG in memory it is
skipped without a warning, at any scale; only reading by small pieces, as `cv2.imread` does, warns of it.
"""

from contextlib import suppress

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from relo.data.image_headers import (
    DCT_FRAMES,
    HUFFMAN_TABLES,
    SEQUENTIAL_FRAMES,
    START_OF_SCAN,
    is_dct_jpeg,
    jpeg_segments,
    upright_jpeg_size,
)
from relo.data.sequences.base import decode_frame, require_possible_size
from relo.errors import UserError

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_FIRST_AC_TABLE, _END_OF_BLOCK = 0x10, 0x00
_ALL_COEFFICIENTS = (1 << 64) - 1
_ZEROS = bytes(32)


def decode_intact(encoded: bytes, name: str, reduction: int = 1) -> NDArray[np.uint8]:
    """Decode an image to RGB uint8 [H, W, 3], as `decode_frame` does, but only if it is intact.

    Args:
        encoded: the image file's bytes.
        name: what to call it in the error.
        reduction: 1, 2, 4 or 8: the sides of an image that has an `upright_jpeg_size` are divided by it, and rounded
            up. It is decoded at that size, which takes less time than to scale it down.

    Raises:
        UserError: the bytes are no image, or a damaged one; the message begins with `name`.
    """
    require_possible_size(encoded, name)
    if size := upright_jpeg_size(encoded):
        width, height = (-(-side // reduction) for side in size)
        with suppress(ValueError):
            image = simplejpeg.decode_jpeg(encoded, "RGB", min_height=height, min_width=width)
            if image.shape[:2] == (height, width) and not _silent_damage(encoded):
                return np.asarray(image)
    image = decode_frame(encoded, name)
    # TurboJPEG does not scale lossless JPEGs, but simplejpeg makes room for no more than the small image.
    if is_dct_jpeg(encoded) and (damage := _jpeg_damage(encoded)):
        raise UserError(f"{name} is damaged ({damage}); copy or extract it again.")
    if size and reduction > 1:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return image


def intact_size(encoded: bytes, name: str) -> tuple[int, int]:
    """Width and height of an image if it is intact, as `decode_intact` would find, in less time.

    Raises:
        UserError: the bytes are no image, or a damaged one; the message begins with `name`.
    """
    require_possible_size(encoded, name)
    if (size := upright_jpeg_size(encoded)) and not _jpeg_damage(encoded, or_unknown=True):
        return size
    height, width = decode_intact(encoded, name).shape[:2]
    return width, height


def _jpeg_damage(encoded: bytes, or_unknown: bool = False) -> str:
    """What is wrong with a JPEG of cosine transforms that can be decoded, or is `or_unknown` to TurboJPEG; else ""."""
    try:
        simplejpeg.decode_jpeg(encoded, "gray", min_height=1, min_width=1)  # the smallest scale
    except ValueError as error:
        # TurboJPEG does not read rare kinds of subsampling that libjpeg reads.
        if or_unknown or "subsampling" not in str(error):
            return str(error)
    return _silent_damage(encoded)


def _silent_damage(encoded: bytes) -> str:
    """What is wrong with a JPEG file though a decoder does not warn of it; empty if nothing is."""
    if _lacks_scans(encoded):
        return "scans are missing"
    return "a run of zeros" if _ZEROS in encoded and _has_zeros_for_coefficients(encoded) else ""


def _lacks_scans(encoded: bytes) -> bool:
    """Whether coefficients of a component are in no scan, or, in a progressive JPEG, not down to their last bit.

    A decoder has nothing to warn of: progressive JPEGs are made to be shown before all of their scans are there.
    """
    missing: dict[int, int] = {}  # component -> its coefficients that are still to come, one bit each
    for marker, content, _ in jpeg_segments(encoded):
        if marker in DCT_FRAMES:
            missing = dict.fromkeys(content[6::3], _ALL_COEFFICIENTS)
        elif marker == START_OF_SCAN:
            components, (first, last, bits) = content[1:-3:2], content[-3:]
            if not bits & 0x0F:  # the lower half: how many of the lowest bits are left to later scans
                for component in components:
                    missing[component] &= ~((1 << last + 1) - (1 << first))
            if not any(missing.values()):
                return False
    return any(missing.values())


def _has_zeros_for_coefficients(encoded: bytes) -> bool:
    """Whether the only scan of a sequential JPEG has a run of zero bytes that stand for coefficients.

    Zero bits are the first symbol of a Huffman table. Where that is not the end of a block, they make a whole block of
    equal coefficients, which no encoder writes. A decoder that leaves them at the right block has nothing to warn of.
    """
    first_symbol, sequential = _END_OF_BLOCK, False
    for marker, content, end in jpeg_segments(encoded):
        if marker in SEQUENTIAL_FRAMES:
            sequential = True
        elif marker == HUFFMAN_TABLES:
            while content:  # table's class and number, 16 counts of codes, the symbols
                if content[0] == _FIRST_AC_TABLE and any(content[1:17]) and len(content) > 17:
                    first_symbol = content[17]
                content = content[17 + sum(content[1:17]) :]
        elif marker == START_OF_SCAN:
            scan = encoded[end : encoded.find(_END, end)]
            return sequential and _SCAN not in scan and first_symbol != _END_OF_BLOCK and _ZEROS in scan
    return False
