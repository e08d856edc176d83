"""Frames and maps as pictures that a browser shows."""

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from relo.tracking.crops import RGBImage
from relo.tracking.render import FOUND, PALETTE, in_viridis

_QUALITY = 80


def page_colors() -> dict[str, list[str]]:
    """The targets' colors in CSS, as they are drawn in videos: those of several, and that of one alone."""
    several, alone = ([f"rgb({red} {green} {blue})" for red, green, blue in colors] for colors in (PALETTE, (FOUND,)))
    return {"several": several, "alone": alone}


def to_jpeg(image: RGBImage, longest_side: int) -> bytes:
    """A frame as JPEG, made smaller where a side is longer."""
    scale = longest_side / max(image.shape[:2])
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), _QUALITY)


def map_to_png(response: NDArray[np.floating]) -> bytes:
    """A localization map [S, S] as a PNG with a pixel per cell, in viridis from its least to its greatest value."""
    encoded = cv2.imencode(".png", cv2.cvtColor(in_viridis(response), cv2.COLOR_RGB2BGR))[1]
    return encoded.tobytes()
