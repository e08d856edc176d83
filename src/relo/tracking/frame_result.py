"""What was found in one frame of a source."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relo.tracking.crops import RGBImage
from relo.tracking.state import TargetState


@dataclass(frozen=True)
class FrameResult:
    """One frame and what is known of each target after it, in the order in which the targets were given."""

    index: int  # of the frame in its source, from 0
    seconds: float  # since the source's first frame
    image: RGBImage  # RGB uint8 [H, W, 3]
    targets: Sequence[TargetState]

    @property
    def boxes_xywh(self) -> NDArray[np.float64]:
        """The targets' boxes [B, 4] in image pixels."""
        return np.array([target.box_xywh.tolist() for target in self.targets]).reshape(-1, 4)
