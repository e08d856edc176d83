"""A frame's result as a picture: every target's box, and the map of the first."""

import cv2

from relo.tracking.crops import RGBImage
from relo.tracking.frame_result import FrameResult
from relo.tracking.render import COLORS, LOST, draw_box, draw_frame, line_unit


def draw_result(result: FrameResult, truth_xywh: list[float] | None = None) -> RGBImage:
    """The frame with what was found on it, see `relo.tracking.render.draw_frame`.

    One target has its score, presence and status as the caption; several have a colour and a number each, from 1 on.

    Args:
        result: with the first target's map, if it shall be in the corner.
        truth_xywh: the annotated box of the first target.
    """
    first, *others = result.targets
    canvas = draw_frame(
        result.image,
        first.box_xywh.tolist(),
        _caption(result),
        None if first.response is None else first.response.numpy(),
        truth_xywh,
        is_lost=first.status == "lost",
    )
    if others:
        factor, unit = canvas.shape[1] // result.image.shape[1], line_unit(canvas)
        for i, target in enumerate(result.targets):
            color = LOST if target.status == "lost" else COLORS[i % len(COLORS)]
            x, y, w, h = target.box_xywh.tolist()
            if i:
                draw_box(canvas, [x, y, w, h], factor, color, unit)
            corner = round(factor * x + 4 * unit), round(factor * y + 20 * unit)
            for ink, thickness in (((0, 0, 0), 4), (color, 2)):
                cv2.putText(
                    canvas, f"{i + 1}", corner, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, ink, round(thickness * unit) or 1
                )
    return canvas


def _caption(result: FrameResult) -> str:
    if len(result.targets) > 1:
        lost = sum(target.status == "lost" for target in result.targets)
        return f"#{result.index}  {len(result.targets)} targets" + (f"  {lost} lost" if lost else "")
    (target,) = result.targets
    presence = "" if target.presence is None else f"  presence {target.presence:.2f}"
    status = "" if target.status == "tracking" else f"  {target.status}"
    return f"#{result.index}  score {target.score:.2f}{presence}{status}"
