"""Which targets `relo track` follows: boxes that are written, in a file, or drawn by hand on the first frame."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from relo.app.select import select_boxes
from relo.console import make_console
from relo.data.sequences.parsing import parse_box, read_boxes
from relo.errors import UserError
from relo.tracking.crops import RGBImage
from relo.tracking.sources import Frames

Boxes = list[list[float]]
"""x, y, w, h in image pixels, one box per target."""

_MOST_TARGETS = 256  # of which each takes memory


def check_choice(box: Sequence[str] | None, boxes: Path | None, select: bool) -> None:
    """Refuse other than one way of saying where the targets are.

    Raises:
        UserError: no way is given, or more than one.
    """
    given = [name for name, value in {"--box": box, "--boxes": boxes, "--select": select}.items() if value]
    if len(given) != 1:
        found = f"not by {' and '.join(given)}" if given else "such as --box 120,80,60,90"
        raise UserError(
            "Say where the target is on the first frame by one of --box x,y,w,h, --boxes FILE and --select, "
            f"{found} (see `relo track --help`)."
        )


def written_boxes(box: Sequence[str] | None, boxes: Path | None, start: int) -> Boxes:
    """The boxes of `--box` or `--boxes`.

    Raises:
        UserError: a text or file that holds no such boxes, where the message names the line; or too many.
    """
    if boxes is None:
        found = [_first_box(text, start) for text in box or ()]
    else:
        found = read_boxes(boxes).tolist()
        if not found:
            raise UserError(f"{boxes} holds no box; write one line x,y,w,h for each target.")
    if len(found) > _MOST_TARGETS:
        raise UserError(
            f"{len(found):,} targets are given by {boxes or '--box'}; at most {_MOST_TARGETS} are tracked at once: "
            "give fewer, in several runs."
        )
    return found


def drawn_boxes(frames: Frames) -> tuple[Boxes, Frames]:
    """The boxes that a person draws on the first frame, and the frames, with that one still in front.

    Raises:
        UserError: there is neither a window nor the page to draw in, or nothing was drawn.
    """
    images = iter(frames)
    first = next(images)
    drawn = _draw_in_window(first) if _has_window() else select_boxes(first)
    if not drawn:
        raise UserError("No box was drawn: draw one around each target, or give --box x,y,w,h.")
    return drawn, replace(frames, images=chain([first], images))


def _first_box(text: str, start: int) -> list[float]:
    """The box that is written, or that of frame `start` in the file of this name."""
    try:
        return parse_box(text)
    except ValueError as error:
        if not os.path.isfile(text):  # unlike pathlib's, false for any text
            raise UserError(
                f"--box {text!r} is not a box; give x,y,w,h in pixels, such as 120,80,40,60, or a file that holds it."
            ) from error
    boxes_xywh = read_boxes(Path(text))
    index = 0 if len(boxes_xywh) == 1 else start
    if index >= len(boxes_xywh):
        raise UserError(f"{text} has {len(boxes_xywh)} boxes, none of frame {start}; give its box x,y,w,h.")
    return [float(number) for number in boxes_xywh[index]]


def _has_window() -> bool:
    """Whether OpenCV can open a window here: the headless builds cannot, and a server has no display."""
    if any(line.split() == ["GUI:", "NONE"] for line in cv2.getBuildInformation().splitlines()):
        return False
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _draw_in_window(image: RGBImage) -> Boxes:
    title = "Draw a box around each target"
    make_console(stderr=True).print(f"{title}; Enter takes it, Escape ends.")
    picture = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    try:
        return [[float(value) for value in box] for box in cv2.selectROIs(title, picture, printNotice=False)]
    finally:
        cv2.destroyWindow(title)
