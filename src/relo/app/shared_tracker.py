"""One tracker for all visitors: it takes their steps in turn, in a thread of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from relo.tracking.frame_result import FrameResult
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

    def run(self, frames: Frames, boxes_xywh: Sequence[Sequence[float]], start: int) -> Iterator[FrameResult]:
        """Follow targets, with their maps, from boxes [B, 4] on the first of the frames, which is number `start`.

        Raises:
            UserError: a box cannot be tracked, or the frames cannot be read.
        """
        states: list[TargetState] = []
        for index, image in enumerate(frames, start):
            images = [image] * len(boxes_xywh)
            if states:
                states = self._in_turn(self._tracker.step, images, states, True)
            else:
                states = self._in_turn(self._tracker.initialize, images, boxes_xywh)
            yield FrameResult(index, frames.seconds[-1], image, states)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _in_turn(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return self._thread.submit(work, *arguments).result()
