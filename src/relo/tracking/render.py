"""Draw what the tracker found: the box, its score, and the map that it was chosen from."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

RGBImage = NDArray[np.uint8]  # [H, W, 3]
Color = tuple[int, int, int]

FOUND: Color = (255, 60, 60)
TRUTH: Color = (70, 225, 90)
LOST: Color = (150, 150, 150)
INK: Color = (255, 255, 255)
SHORT_SIDE = 480  # smaller frames are enlarged, so that text and lines can be read
FAR = 2**24  # pixels; OpenCV takes no corner beyond 32 bits
MAP_SHARE = 0.3  # side of the map, as a share of the frame's short side


def draw_frame(
    image: RGBImage,
    box_xywh: Sequence[float],
    caption: str = "",
    response: NDArray[np.floating] | None = None,
    truth_xywh: Sequence[float] | None = None,
    is_lost: bool = False,
) -> RGBImage:
    """The frame [H, W, 3] with what was found on it; one with a short side under 480 px is enlarged by a whole factor.

    Args:
        image: RGB uint8; not changed.
        box_xywh: the found box, image pixels, in red, or where the target `is_lost`, in grey.
        caption: a line for the top left corner.
        response: the map [S, S] for the top right corner, in viridis from its least to its greatest value.
        truth_xywh: the annotated box, in green; left out where it is not finite or has no area.
        is_lost: see above.
    """
    factor = math.ceil(SHORT_SIDE / min(image.shape[:2]))
    enlarged = (image.shape[1] * factor, image.shape[0] * factor)
    canvas = np.array(cv2.resize(image, enlarged) if factor > 1 else image, np.uint8)
    unit = min(canvas.shape[:2]) / SHORT_SIDE  # line widths and letters grow with the frame
    if response is not None:
        _draw_map(canvas, response, unit)
    if truth_xywh is not None and np.isfinite(truth_xywh).all() and min(truth_xywh[2:]) > 0:
        _draw_box(canvas, truth_xywh, factor, TRUTH, unit)
    _draw_box(canvas, box_xywh, factor, LOST if is_lost else FOUND, unit)
    if caption:
        _draw_caption(canvas, caption, unit)
    return canvas


def _draw_box(canvas: RGBImage, box_xywh: Sequence[float], factor: int, color: Color, unit: float) -> None:
    x, y, w, h = (factor * value for value in box_xywh)
    left, top, right, bottom = (round(min(max(edge, -FAR), FAR)) for edge in (x, y, x + w, y + h))
    corners = (left, top), (right - 1, bottom - 1)
    thickness = max(2, round(2 * unit))
    # A dark rim keeps the line visible on any background.
    cv2.rectangle(canvas, *corners, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, *corners, color, thickness, cv2.LINE_AA)


def _draw_map(canvas: RGBImage, response: NDArray[np.floating], unit: float) -> None:
    side = min(round(MAP_SHARE * min(canvas.shape[:2])), canvas.shape[1], canvas.shape[0])
    span = response - response.min()
    levels = (255 * span / max(float(span.max()), np.finfo(np.float32).tiny)).round().astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    gap, rim = round(8 * unit), max(1, round(unit))
    left, top = canvas.shape[1] - side - gap, gap
    cv2.rectangle(canvas, (left - rim, top - rim), (left + side + rim - 1, top + side + rim - 1), INK, -1)
    # Cells stay visible: they are the actions to choose from.
    canvas[top : top + side, left : left + side] = cv2.resize(colors, (side, side), interpolation=cv2.INTER_NEAREST)


def _draw_caption(canvas: RGBImage, caption: str, unit: float) -> None:
    font, size, thickness, gap = cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, max(1, round(1.5 * unit)), round(8 * unit)
    (width, height), baseline = cv2.getTextSize(caption, font, size, thickness)
    strip = canvas[: height + baseline + 2 * gap, : width + 2 * gap]
    strip[:] = strip // 3
    cv2.putText(canvas, caption, (gap, gap + height), font, size, INK, thickness, cv2.LINE_AA)
