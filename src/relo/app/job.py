"""Tracking for one visitor: a thread that goes through the video, and what it has found so far."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

from relo.app.refusals import unexpected
from relo.app.result_files import open_results
from relo.app.shared_tracker import SharedTracker
from relo.app.video import UploadedVideo
from relo.errors import UserError
from relo.tracking.frame_result import FrameResult

Phase = Literal["starting", "tracking", "done", "stopped", "failed"]
_RATE_SECONDS = 3.0


class Job:
    """Tracks an uploaded video in a thread; any thread may read its attributes meanwhile."""

    def __init__(
        self,
        tracker: SharedTracker,
        video: UploadedVideo,
        boxes_xywh: Sequence[Sequence[float]],
        start: int,
        max_frames: int,
        folder: Path,
    ) -> None:
        """Begin, from boxes [B, 4] on frame `start`; files of the results go to the folder."""
        self.phase: Phase = "starting"
        self.error: str | None = None
        self.remarks: list[str] = []
        self.targets = len(boxes_xywh)
        self.first_index = start
        self.total = None if video.count is None else video.count - start
        self.records: list[dict[str, Any]] = []  # one per frame, as the page gets it
        self.latest: FrameResult | None = None
        self.started = Event()  # the first frame is done, or has failed
        self._tracker, self._video, self._boxes_xywh = tracker, video, boxes_xywh
        self._max_frames, self._folder = max_frames, folder
        self._first_seconds = 0.0
        self._times: deque[float] = deque(maxlen=100)
        self._is_stopped = Event()
        self._thread = Thread(target=self._run, name="relo-job", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether there is more to come."""
        return self.phase in ("starting", "tracking")

    @property
    def rate(self) -> float | None:
        """Frames per second, lately."""
        times = [moment for moment in tuple(self._times) if moment > time.monotonic() - _RATE_SECONDS]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None

    def stop(self) -> None:
        """End after the current frame; what was found is kept."""
        self._is_stopped.set()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        phase: Phase = "failed"
        try:
            with self._video.named():
                self._track()
            phase = "stopped" if self._is_stopped.is_set() else "done"
        except UserError as error:
            self.error = str(error).replace(f"{self._folder}{os.sep}", "")
        except Exception as error:
            self.error = unexpected(error)
        self.phase = phase
        self.started.set()

    def _track(self) -> None:
        frames = self._video.open(self.first_index, self._max_frames)
        results: Iterator[FrameResult] = self._tracker.run(frames, self._boxes_xywh)
        first = next(results)
        with open_results(self._folder, frames, self.targets) as write:
            self._take(first, write)
            self.phase = "tracking"
            self.started.set()
            for result in results:
                self._take(result, write)
                if self._is_stopped.is_set():
                    break
        self.remarks += frames.remarks
        if len(self.records) == self._max_frames != self.total:
            self.remarks.append(f"Tracking ended after {self._max_frames} frames, the most that this server tracks.")

    def _take(self, result: FrameResult, write: Callable[[FrameResult], None]) -> None:
        write(result)
        if self.latest is None:
            self._first_seconds = result.seconds
        self.records.append(_record(result, result.seconds - self._first_seconds))
        self.latest = result
        self._times.append(time.monotonic())


def _record(result: FrameResult, seconds: float) -> dict[str, Any]:
    """A frame's result as the page gets it; `seconds` from the first frame, as in the rendered video."""
    return {
        "index": result.index,
        "seconds": round(seconds, 4),
        "boxes": [[round(value, 2) for value in box_xywh] for box_xywh in result.boxes_xywh.tolist()],
        "score": [round(target.score, 4) for target in result.targets],
        "presence": [None if target.presence is None else round(target.presence, 4) for target in result.targets],
        "status": [target.status for target in result.targets],
    }
