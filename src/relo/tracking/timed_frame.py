"""A frame of a video and its time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LARGEST_DISORDER = 1.0  # seconds; stamps that step back further begin a new count, as in joined recordings
_SHORTEST_INTERVAL = 0.001  # seconds between frames whose stamps are equal or out of order


class TimedFrame(NamedTuple):
    """A frame whose colours are computed when they are asked for: frames that are skipped cost nothing more."""

    stamp: float | None  # seconds, from any origin; None where the source gives none
    image: Callable[[], NDArray[np.uint8]]  # gives RGB [H, W, 3]


class Clock:
    """Turns stamps into seconds since the first frame, which grow with every frame."""

    def __init__(self, interval: float) -> None:
        """Prepare; `interval` is the time between frames without a stamp, in seconds."""
        self._interval = interval
        self._origin: float | None = None
        self._last: float | None = None

    def seconds(self, stamp: float | None) -> float:
        """The time of the next frame."""
        expected = 0.0 if self._last is None else self._last + self._interval
        if stamp is None:
            self._last = expected
            return expected
        if self._origin is None or (self._last is not None and stamp - self._origin < self._last - _LARGEST_DISORDER):
            self._origin = stamp - expected
        seconds = stamp - self._origin
        if self._last is not None:
            seconds = max(seconds, self._last + _SHORTEST_INTERVAL)
        self._last = seconds
        return seconds
