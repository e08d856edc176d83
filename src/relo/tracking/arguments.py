"""What programs hand to a tracker: images and boxes of the right form, or an error that says what was given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relo.errors import excerpt
from relo.tracking.crops import RGBImage


def as_boxes(boxes_xywh: Any, least: int = 1) -> NDArray[np.float64]:
    """One box [4] or several [B, 4], of any array or sequence, as boxes [B, 4].

    Raises:
        ValueError: another shape, what is no number, or fewer than `least` boxes.
    """
    given = boxes_xywh.detach().cpu().double() if isinstance(boxes_xywh, torch.Tensor) else boxes_xywh
    try:
        boxes = np.asarray(given)
        if np.iscomplexobj(boxes):
            raise TypeError("complex numbers")
        boxes = boxes.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"Give boxes x, y, w, h of numbers, not {excerpt(boxes_xywh)} ({excerpt(error)}).") from error
    is_one_or_several = (boxes.ndim in (1, 2) and boxes.shape[-1] == 4) or boxes.shape == (0,)
    if not is_one_or_several or boxes.size < 4 * least:
        raise ValueError(f"Give one box x, y, w, h or several [B, 4], not an array {list(boxes.shape)}.")
    return boxes.reshape(-1, 4)


def check_images(images: Sequence[RGBImage], targets: int) -> None:
    """Refuse what is not one RGB image for each target.

    Raises:
        ValueError: another number, type or shape.
    """
    if len(images) != targets:
        raise ValueError(f"{len(images)} images for {targets} targets; give one image per target.")
    for image in images:
        if not isinstance(image, np.ndarray):
            raise ValueError(f"An image must be an array, RGB uint8 [H, W, 3], not {type(image).__name__}.")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            found = f"{image.dtype} {list(image.shape)}{_advice(image)}"
            raise ValueError(f"An image must be RGB uint8 [H, W, 3], not {found}.")


def _advice(image: NDArray) -> str:
    """How to make an RGB image of one with another number of channels."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        return ""
    conversion = {1: "GRAY2RGB", 4: "RGBA2RGB"}.get(1 if image.ndim == 2 else image.shape[2])
    return "" if conversion is None else f"; convert it, as by cv2.cvtColor(image, cv2.COLOR_{conversion})"
