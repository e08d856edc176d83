"""What the headers of image files say, read without decoding them."""

import re
from collections.abc import Iterator
from typing import Literal

JPEG = b"\xff\xd8"
SEQUENTIAL_FRAMES, DCT_FRAMES = (0xC0, 0xC1), (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
HUFFMAN_TABLES, START_OF_SCAN, END_OF_IMAGE = 0xC4, 0xDA, 0xD9

_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*")
_FRAMES = {*range(0xC0, 0xD0)} - {HUFFMAN_TABLES, 0xC8, 0xCC}
_APPLICATION_1, _BITS, _COMPONENTS_AT = 0xE1, 8, 5
# Widths and heights, of the image and of tiles, which the decoder takes memory for, too; the types they are written in.
_TIFF_WIDTHS, _TIFF_HEIGHTS = (256, 322), (257, 323)
_TIFF_TYPES = {3: 2, 4: 4}  # bytes of each
_IMPOSSIBLE = 1 << 32
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")  # the chunks of an animated PNG that others lack
_OS2_HEADER = 12  # bytes of a BMP's older header
_WITHOUT_CONTENT = (0x01, 0xD8)
# Not a zero byte after 0xFF, which belongs to a scan's data as the restarts 0xD0 to 0xD7 do.
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")


def is_known_kind(encoded: bytes) -> bool:
    """Whether it begins as a JPEG, PNG, BMP, WebP or TIFF does, whose header can be read here."""
    return _is_webp(encoded) or encoded.startswith((JPEG, _PNG, b"BM", *_TIFF))


def _is_webp(encoded: bytes) -> bool:
    return encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP"


def announced_pixels(encoded: bytes) -> tuple[int, int] | None:
    """Width and height in an image's header, which damage can make anything; None for other kinds of files.

    Read are JPEG, PNG, BMP, WebP and TIFF.
    """
    if encoded.startswith(_PNG):
        return int.from_bytes(encoded[16:20], "big"), int.from_bytes(encoded[20:24], "big")
    if encoded.startswith(b"BM"):
        if _number(encoded, 14, 4) == _OS2_HEADER:
            return _number(encoded, 18, 2), _number(encoded, 20, 2)
        width, height = (int.from_bytes(encoded[start : start + 4], "little", signed=True) for start in (18, 22))
        return abs(width), abs(height)  # a negative height counts rows from the top
    if _is_webp(encoded):
        return _webp_pixels(encoded)
    if encoded.startswith(_TIFF):
        return _tiff_pixels(encoded)
    if encoded.startswith(JPEG):
        for marker, content, _ in jpeg_segments(encoded):
            if marker in _FRAMES:
                return int.from_bytes(content[3:5], "big"), int.from_bytes(content[1:3], "big")
            if marker == START_OF_SCAN:
                break
    return None


def scans_of_jpeg(encoded: bytes) -> int:
    """Over how many scans a JPEG is spread: each costs a decoder as much time as the whole image, even an empty one."""
    if not encoded.startswith(JPEG):
        return 0
    return sum(marker == START_OF_SCAN for marker, _, _ in jpeg_segments(encoded))


def without_animation(encoded: bytes) -> bytes:
    """An image file as it is; of an animated PNG the still picture, since OpenCV crashes on damaged animations."""
    if not encoded.startswith(_PNG) or b"acTL" not in encoded:
        return encoded
    kept, position = [_PNG], len(_PNG)
    while position < len(encoded):
        end = position + 12 + int.from_bytes(encoded[position : position + 4], "big")  # length, kind, content, checksum
        if encoded[position + 4 : position + 8] not in _ANIMATION:
            kept.append(encoded[position:end])
        position = end
    return b"".join(kept)


def has_one_bit(encoded: bytes) -> bool:
    """Whether it is a PNG of one bit per pixel, as masks are."""
    return encoded.startswith(_PNG) and encoded[24:25] == b"\x01"


def upright_jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of a grey or colour JPEG of 8 bits without Exif, which may turn it; None for any other image.

    Such are lossless JPEGs, too, which no decoder scales.
    """
    size = None
    if encoded.startswith(JPEG):
        for marker, content, _ in jpeg_segments(encoded):
            if marker == START_OF_SCAN:
                return size
            if marker == _APPLICATION_1 and content.startswith(b"Exif"):
                return None
            if marker in _FRAMES and len(content) > _COMPONENTS_AT:
                if marker not in DCT_FRAMES or content[0] != _BITS or content[_COMPONENTS_AT] not in (1, 3):
                    return None
                size = int.from_bytes(content[3:5], "big"), int.from_bytes(content[1:3], "big")
    return None


def is_dct_jpeg(encoded: bytes) -> bool:
    """Whether it is a JPEG of cosine transforms, as all but lossless ones are."""
    frames = (marker for marker, _, _ in jpeg_segments(encoded) if marker in _FRAMES)
    return encoded.startswith(JPEG) and next(frames, None) in DCT_FRAMES


def upright_size(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG as of `upright_jpeg_size`, or of a PNG without Exif; None for any other image."""
    if encoded.startswith(_PNG) and b"eXIf" not in encoded:
        size = announced_pixels(encoded)
        return size if size is not None and min(size) > 0 else None
    return upright_jpeg_size(encoded)


def _webp_pixels(encoded: bytes) -> tuple[int, int] | None:
    if encoded[12:16] == b"VP8X":
        return _number(encoded, 24, 3) + 1, _number(encoded, 27, 3) + 1
    if encoded[12:16] == b"VP8L":
        bits = _number(encoded, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if encoded[12:16] == b"VP8 ":
        return _number(encoded, 26, 2) & 0x3FFF, _number(encoded, 28, 2) & 0x3FFF
    return None


def _tiff_pixels(encoded: bytes) -> tuple[int, int] | None:
    """Of the first image in the file, or of its tiles where those are larger; damage may name a side twice."""
    order: Literal["little", "big"] = "little" if encoded.startswith(b"II") else "big"
    directory = _number(encoded, 4, 4, order)
    width = height = 0
    for place in range(_number(encoded, directory, 2, order)):
        entry = directory + 2 + 12 * place
        tag, kind = (_number(encoded, start, 2, order) for start in (entry, entry + 2))
        size = _TIFF_TYPES.get(kind)
        side = _IMPOSSIBLE if size is None else _number(encoded, entry + 8, size, order)
        width = max(width, side) if tag in _TIFF_WIDTHS else width
        height = max(height, side) if tag in _TIFF_HEIGHTS else height
    return (width, height) if width and height else None


def _number(encoded: bytes, start: int, size: int, order: Literal["little", "big"] = "little") -> int:
    return int.from_bytes(encoded[start : start + size], order)


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
