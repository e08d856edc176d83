"""What a tracker sees of one target's next frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class SearchView:
    """Where a target is looked for in its next frame, and the pixels there."""

    region: Tensor  # [3] float64, see `relo.geometry.CropRule`
    image_shape: tuple[int, ...]  # H, W, 3
    crop: NDArray[np.uint8] | None  # [Hx, Hx, 3] RGB; None where the step is to cut it
    image: NDArray[np.uint8] | None  # [H, W, 3] RGB, the frame; None where nothing is left to be cut from it
