"""Draw what the tracker found: boxes, scores, and the maps that they were chosen from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.tracking.crops import RGBImage
from relo.tracking.frame_result import FrameResult

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the canvas

FOUND: Color = (255, 60, 60)
TRUTH: Color = (70, 225, 90)
LOST: Color = (150, 150, 150)
INK: Color = (255, 255, 255)
PALETTE: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (255, 255, 255),
)
"""For several targets: Okabe and Ito's colors, which color-blind people tell apart, with white in black's place."""

SHORT_SIDE = 480  # smaller frames are enlarged, so that text and lines can be read
LONGEST_SIDE = 8192  # thin frames are enlarged up to this; larger ones few encoders take
FAR = 2**24  # pixels; OpenCV takes no corner beyond 32 bits
MAP_SHARE = 0.3  # side of a map, as a share of the frame's short side
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# [256, 3]; OpenCV computes it for each image again.
_LEVELS = np.arange(256, dtype=np.uint8)
_VIRIDIS = np.asarray(cv2.applyColorMap(_LEVELS, cv2.COLORMAP_VIRIDIS).reshape(-1, 3)[:, ::-1], np.uint8)


@dataclass(frozen=True)
class DrawnTarget:
    """What is drawn of one target."""

    box_xywh: Sequence[float]  # image pixels
    label: str = ""  # beside the box
    is_lost: bool = False  # its box is grey
    response: NDArray[np.floating] | None = None  # the map [S, S] for the right edge, in viridis
    truth_xywh: Sequence[float] | None = None  # the annotated box; left out where it is not finite or has no area


def draw_result(result: FrameResult, truth_xywh: Sequence[float] | None = None) -> RGBImage:
    """The frame [H, W, 3] with all that is known of its targets.

    Args:
        result: of a frame; maps are drawn where its targets have them.
        truth_xywh: the annotated box of the first target, if any.
    """
    caption, labels = f"#{result.index}", [""]
    if len(result.targets) == 1:
        state = result.targets[0]
        presence = "" if state.presence is None else f"  presence {state.presence:.2f}"
        status = "" if state.status == "tracking" else f"  {state.status}"
        caption += f"  score {state.score:.2f}{presence}{status}"
    else:
        labels = [
            f"{number}" if state.status == "tracking" else f"{number} {state.status}"
            for number, state in enumerate(result.targets, 1)
        ]
    targets = [
        DrawnTarget(
            state.box_xywh.tolist(),
            label,
            state.status == "lost",
            None if state.response is None else state.response.numpy(),
            None if place else truth_xywh,
        )
        for place, (state, label) in enumerate(zip(result.targets, labels, strict=True))
    ]
    return draw_targets(result.image, targets, caption)


def draw_targets(image: RGBImage, targets: Sequence[DrawnTarget], caption: str = "") -> RGBImage:
    """The frame [H, W, 3] with targets on it; one with a short side under 480 px is enlarged by a whole factor.

    No side is enlarged beyond 8192 px.

    A single target's box is red, several have the colors of `PALETTE` in turn, as the rims of their maps do; annotated
    boxes are green. Labels keep clear of each other, of the maps and of the caption, as long as there is room.

    Args:
        image: RGB uint8; not changed.
        targets: what is drawn.
        caption: a line for the top left corner.
    """
    factor = max(1, min(math.ceil(SHORT_SIDE / min(image.shape[:2])), LONGEST_SIDE // max(image.shape[:2])))
    enlarged = (image.shape[1] * factor, image.shape[0] * factor)
    canvas = np.asarray(cv2.resize(image, enlarged), np.uint8) if factor > 1 else image.copy()
    unit = min(canvas.shape[:2]) / SHORT_SIDE  # line widths and letters grow with the frame
    colors = [FOUND] if len(targets) == 1 else [PALETTE[i % len(PALETTE)] for i in range(len(targets))]
    taken = _draw_maps(canvas, targets, colors, unit)
    for target in targets:
        truth_xywh = target.truth_xywh
        if truth_xywh is not None and np.isfinite(truth_xywh).all() and min(truth_xywh[2:]) > 0:
            _draw_box(canvas, _corners(truth_xywh, factor), TRUTH, unit)
    boxes = [_corners(target.box_xywh, factor) for target in targets]
    for target, box, color in zip(targets, boxes, colors, strict=True):
        _draw_box(canvas, box, LOST if target.is_lost else color, unit)
    if caption:
        taken.append(_draw_caption(canvas, caption, unit))
    for target, box, color in zip(targets, boxes, colors, strict=True):
        if target.label:
            taken.append(_draw_label(canvas, target.label, box, color, unit, taken))
    return canvas


def _corners(box_xywh: Sequence[float], factor: int) -> Rectangle:
    x, y, w, h = (factor * value for value in box_xywh)
    left, top, right, bottom = (round(min(max(edge, -FAR), FAR)) for edge in (x, y, x + w, y + h))
    return left, top, right, bottom


def _draw_box(canvas: RGBImage, box: Rectangle, color: Color, unit: float) -> None:
    left, top, right, bottom = box
    corners = (left, top), (right - 1, bottom - 1)
    thickness = max(2, round(2 * unit))
    # A dark rim keeps the line visible on any background.
    cv2.rectangle(canvas, *corners, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, *corners, color, thickness, cv2.LINE_AA)


def _draw_maps(
    canvas: RGBImage, targets: Sequence[DrawnTarget], colors: Sequence[Color], unit: float
) -> list[Rectangle]:
    """Draw the targets' maps below one another at the right edge; the places that they take."""
    maps = [(target.response, color) for target, color in zip(targets, colors, strict=True)]
    responses = [(response, color) for response, color in maps if response is not None]
    if not responses:
        return []
    height, width = canvas.shape[:2]
    gap, rim = round(8 * unit), max(1, round(unit if len(targets) == 1 else 3 * unit))
    step = min(round(MAP_SHARE * min(height, width)) + gap, (height - gap) // len(responses))
    side = min(step - gap, width, height)
    if side < 1:  # there are too many to see anything
        return []
    places = []
    for place, (response, color) in enumerate(responses):
        left, top = width - side - gap, gap + place * step
        rectangle = (left - rim, top - rim, left + side + rim, top + side + rim)
        cv2.rectangle(
            canvas, rectangle[:2], (rectangle[2] - 1, rectangle[3] - 1), INK if len(targets) == 1 else color, -1
        )
        # Cells stay visible: they are the actions to choose from.
        drawn = cv2.resize(in_viridis(response), (side, side), interpolation=cv2.INTER_NEAREST)
        canvas[top : top + side, left : left + side] = drawn
        places.append(rectangle)
    return places


def in_viridis(response: NDArray[np.floating]) -> RGBImage:
    """A map [S, S] as colors [S, S, 3], from its least to its greatest value."""
    span = response - response.min()
    levels = (255 * span / max(float(span.max()), np.finfo(np.float32).tiny)).round().astype(np.uint8)
    return _VIRIDIS[levels]


def _draw_caption(canvas: RGBImage, caption: str, unit: float) -> Rectangle:
    """Draw a line at the top left corner; the place that it takes."""
    size, thickness, gap = 0.6 * unit, max(1, round(1.5 * unit)), round(8 * unit)
    (width, height), baseline = cv2.getTextSize(caption, _FONT, size, thickness)
    strip = canvas[: height + baseline + 2 * gap, : width + 2 * gap]
    strip[:] = strip // 3
    cv2.putText(canvas, caption, (gap, gap + height), _FONT, size, INK, thickness, cv2.LINE_AA)
    return 0, 0, strip.shape[1], strip.shape[0]


def _draw_label(
    canvas: RGBImage, label: str, box: Rectangle, color: Color, unit: float, taken: Sequence[Rectangle]
) -> Rectangle:
    """Draw a label beside a box, clear of what is `taken` if there is such a place; the place that it takes."""
    plate = _plate(label, color, unit)[: canvas.shape[0], : canvas.shape[1]]
    height, width = plate.shape[:2]
    left, top, right, bottom = box
    rim = max(2, round(2 * unit))
    wanted = [
        (left - rim, top - height - rim),  # above the box, below it, right and left of it, and in its corners
        (left - rim, bottom + rim),
        (right - width + rim, top - height - rim),
        (right - width + rim, bottom + rim),
        (right + rim, top - rim),
        (left - width - rim, top - rim),
        (right + rim, bottom - height + rim),
        (left - width - rim, bottom - height + rim),
        (left + rim, top + rim),
        (right - width - rim, bottom - height - rim),
    ]
    room = canvas.shape[1] - width, canvas.shape[0] - height
    places = [(x, y, x + width, y + height) for x, y in wanted if 0 <= x <= room[0] and 0 <= y <= room[1]]
    free = [place for place in places if not any(_overlap(place, other) for other in taken)]
    x, y = min(max(wanted[0][0], 0), room[0]), min(max(wanted[0][1], 0), room[1])
    place = (free or places or [(x, y, x + width, y + height)])[0]
    canvas[place[1] : place[3], place[0] : place[2]] = plate
    return place


@lru_cache(256)  # text takes longer than all else, and labels seldom change
def _plate(label: str, color: Color, unit: float) -> RGBImage:
    """A text on a plate of a color."""
    size, thickness, gap = 0.5 * unit, max(1, round(1.5 * unit)), max(2, round(3 * unit))
    (width, height), _ = cv2.getTextSize(label, _FONT, size, thickness)
    plate = np.full((height + 2 * gap, width + 2 * gap, 3), color, np.uint8)
    ink = (0, 0, 0) if sum(color) > 382 else INK
    cv2.putText(plate, label, (gap, gap + height), _FONT, size, ink, thickness, cv2.LINE_AA)
    return plate


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
