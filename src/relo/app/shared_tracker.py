"""One tracker for all visitors: it takes their steps in turn, in a thread of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from relo.tracking.arguments import as_boxes
from relo.tracking.crops import RGBImage
from relo.tracking.frame_result import FrameResult
from relo.tracking.run import follow, timed
from relo.tracking.sources import Frames
from relo.tracking.state import TargetState
from relo.tracking.tracker import Tracker

Result = TypeVar("Result")


class SharedTracker:
    """Lets any number of threads track: steps are queued, so a visitor's next frame waits for one of each other's."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.device = tracker.device
        self.has_presence = tracker.tells_presence
        self.sure_presence = tracker.rule.sure_presence
        self._thread = ThreadPoolExecutor(1, "relo-tracker")

    def run(self, frames: Frames, boxes_xywh: Sequence[Sequence[float]]) -> Iterator[FrameResult]:
        """Follow targets, with their maps, from boxes [B, 4] on the first of the frames.

        Raises:
            UserError: a box cannot be tracked, or the frames cannot be read.
        """
        return follow(self, timed(frames), as_boxes(boxes_xywh), keep_response=True)

    def initialize(self, images: Sequence[RGBImage], boxes_xywh: NDArray[np.float64]) -> list[TargetState]:
        """`relo.Tracker.initialize`, in turn."""
        return self._in_turn(self._tracker.initialize, images, boxes_xywh)

    def step(
        self, images: Sequence[RGBImage], states: Sequence[TargetState], keep_response: bool = False
    ) -> list[TargetState]:
        """`relo.Tracker.step`, in turn."""
        return self._in_turn(self._tracker.step, images, states, keep_response)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _in_turn(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return self._thread.submit(work, *arguments).result()
