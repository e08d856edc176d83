"""Track targets through a whole source: frame by frame, while frames are decoded ahead in a thread."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from relo.errors import UserError
from relo.tracking.background import read_ahead
from relo.tracking.crops import RGBImage
from relo.tracking.frame_result import FrameResult
from relo.tracking.sources import DEFAULT_FRAMES_PER_SECOND, Frames, open_frames
from relo.tracking.state import TargetState

Source = str | Path | int | Frames | Iterable[RGBImage]
IndexedFrame = tuple[int, float, RGBImage]
"""The frame's index in its source, the seconds since the source's first frame, and the image."""


class Steps(Protocol):
    """The steps of a `relo.Tracker`, or of what passes them on to one."""

    def initialize(self, images: Sequence[RGBImage], boxes_xywh: NDArray[np.float64]) -> list[TargetState]:
        """See `relo.Tracker.initialize`."""

    def step(
        self, images: Sequence[RGBImage], states: Sequence[TargetState], keep_response: bool = False
    ) -> list[TargetState]:
        """See `relo.Tracker.step`."""


DECODED_AHEAD = 4
"""Frames that wait for the tracker; they take memory."""


def open_timed(source: Source, start: int = 0, limit: int | None = None) -> Iterator[IndexedFrame]:
    """The frames of a source from frame `start` on, at most `limit` of them.

    Files are decoded ahead in a thread. Arrays are taken one by one when they are needed: whoever makes them may use
    one buffer for all.

    Raises:
        UserError: the source cannot be opened.
        ValueError: arrays cannot be taken from this start, or to this limit.
    """
    if isinstance(source, str | Path | int):
        return decoded_ahead(open_frames(source, start, limit))
    if isinstance(source, Frames):
        return islice(decoded_ahead(source), start, None if limit is None else start + limit)
    arrays = Frames("the source", source, None, DEFAULT_FRAMES_PER_SECOND)
    return islice(timed(arrays), start, None if limit is None else start + limit)


def decoded_ahead(frames: Frames) -> Iterator[IndexedFrame]:
    """Frames that are decoded ahead in a thread; live ones are taken one by one, as new as they are."""
    return timed(frames) if frames.is_live else read_ahead(timed(frames), DECODED_AHEAD)


def follow(
    tracker: Steps, frames: Iterable[IndexedFrame], boxes_xywh: NDArray[np.float64], keep_response: bool = False
) -> Generator[FrameResult, None, None]:
    """Track B targets, given by their boxes [B, 4] on the first frame, as one batch; closing it ends the reading.

    Raises:
        UserError: there is no frame, or what `Tracker.initialize`, `Tracker.step` and reading frames raise.
        ValueError: an image of another type or shape.
    """
    states: Sequence[TargetState] = []
    for index, seconds, image in frames:
        images = [image] * len(boxes_xywh)
        states = tracker.step(images, states, keep_response) if states else tracker.initialize(images, boxes_xywh)
        yield FrameResult(index, seconds, image, states)
    if not states:
        raise UserError("The source has no frame to track in.")


def timed(frames: Frames) -> Iterator[IndexedFrame]:
    """The frames with index and time; a source without times has those of its rate."""
    for index, image in enumerate(frames, frames.start):
        yield index, frames.seconds[-1] if frames.seconds else index / frames.frames_per_second, image
