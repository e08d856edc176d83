"""The frames of one sequence as a clip store keeps them: their own bytes, or cut around the target and scaled down."""

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.frame_geometry import WHOLE_IMAGE, nearest_visible, surroundings
from relo.data.image_headers import upright_jpeg_size, upright_size
from relo.data.intact_frames import decode_intact, intact_size
from relo.data.sequence_checks import check_annotation, misfits
from relo.data.sequences.base import Sequence, require_possible_size
from relo.data.store_environment import closed
from relo.data.store_manifest import PackingOptions
from relo.data.store_writer import PackedFrames
from relo.errors import UserError

_KEPT = (b"\xff\xd8", b"\x89PNG")  # how files begin whose bytes can be kept
_REDUCTIONS = (8, 4, 2)  # at which a JPEG is decoded in less time
_NEARLY_WHOLE = 0.75  # from this scale on, two pixels by two show as much as the area does, in an eighth of the time


def pack_frames(sequence: Sequence, options: PackingOptions, decode: bool = True) -> PackedFrames:
    """Read, check and encode the frames of one sequence.

    Args:
        sequence: the sequence.
        options: how to pack.
        decode: look for damage in frames whose bytes are kept, too; without it, headers say what sizes they have.

    Raises:
        UserError: a frame or an annotation is broken, or they do not fit each other.
    """
    count = len(sequence)
    check_annotation(sequence)
    if options.cut is not None and len(sequence.boxes_xywh) != count:
        raise UserError(f"{sequence.name} has its first box only, so its frames cannot be cut around the target.")
    around = nearest_visible(sequence.visible)
    geometry = np.tile(WHOLE_IMAGE, (count, 1))
    sizes = np.empty((count, 2), np.int32)
    values = []
    for i in range(count):
        encoded, name = sequence.frames.encoded(i), sequence.frames.name(i)
        if not options.changes_frames and encoded.startswith(_KEPT):
            sizes[i] = intact_size(encoded, name) if decode else _announced_size(encoded, name)
        else:
            box_xywh = None if options.cut is None else sequence.boxes_xywh[around[i]]
            size = upright_jpeg_size(encoded)
            encoded, sizes[i], geometry[i] = _changed(encoded, name, size, box_xywh, options)
        values.append(closed(encoded))
    if problems := misfits(sequence, sizes):
        raise UserError(problems[0])
    return PackedFrames(values, sizes, geometry)


def _announced_size(encoded: bytes, name: str) -> tuple[int, int]:
    """What the header says, where it is enough to know the size."""
    require_possible_size(encoded, name)
    return upright_size(encoded) or intact_size(encoded, name)


def _changed(
    encoded: bytes,
    name: str,
    size: tuple[int, int] | None,
    box_xywh: NDArray[np.float64] | None,
    options: PackingOptions,
) -> tuple[bytes, tuple[int, int], tuple[float, float, float, float]]:
    """The bytes to keep of a frame around a box [4], the size of its image, and its geometry.

    `size` is that of a JPEG which can be decoded smaller than it is.
    """
    image = None
    if size is None:
        image = decode_intact(encoded, name)
        height, width = image.shape[:2]
    else:
        width, height = size
    x1, y1, x2, y2 = 0, 0, width, height
    if box_xywh is not None and np.isfinite(box_xywh).all():
        x1, y1, x2, y2 = surroundings(box_xywh, options.cut or 1, width, height)
    longest = max(x2 - x1, y2 - y1)
    scale = 1.0 if options.max_side is None else min(1.0, options.max_side / longest)
    if scale == 1.0 and (x2 - x1, y2 - y1) == (width, height) and encoded.startswith(_KEPT):
        if image is None:
            intact_size(encoded, name)
        return encoded, (width, height), (0.0, 0.0, 1.0, 1.0)
    reduction = 1
    if image is None:
        reduction = next((r for r in _REDUCTIONS if r * scale <= 1), 1)
        image = decode_intact(encoded, name, reduction)
    # The part to keep in pixels of the image as it was decoded, and no less of it than was asked for.
    left, top, right, bottom = x1 // reduction, y1 // reduction, -(-x2 // reduction), -(-y2 // reduction)
    part = image[top:bottom, left:right]
    width_of_part, height_of_part = (right - left) * reduction, (bottom - top) * reduction
    if scale < 1.0:
        assert options.max_side is not None
        scale = options.max_side / max(width_of_part, height_of_part)
        side = max(1, round(width_of_part * scale)), max(1, round(height_of_part * scale))
        interpolation = cv2.INTER_LINEAR if scale * reduction > _NEARLY_WHOLE else cv2.INTER_AREA
        part = np.asarray(cv2.resize(part, side, interpolation=interpolation), np.uint8)
    shown = part.shape[1] / width_of_part, part.shape[0] / height_of_part
    bgr = cv2.cvtColor(part, cv2.COLOR_RGB2BGR)
    is_encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, options.quality])
    if not is_encoded:
        raise UserError(
            f"{name} cannot be packed: {part.shape[1]} x {part.shape[0]} px are too large for JPEG; scale such frames "
            "with --max_side."
        )
    return data.tobytes(), (width, height), (left * reduction, top * reduction, *shown)
