"""Whether a video that was read has lost frames."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 2  # frames that an estimate of their number may be off


def remarks_on_lost_frames(
    seconds: Sequence[float], announced: int, frames_per_second: float, *, ended: bool, counted: bool
) -> list[str]:
    """What a person should know of a video of which frames seem to be lost; empty if all seem to be there.

    Args:
        seconds: the time of each frame from the video's first on; all 0 where there are no times.
        announced: the number of frames, as the file says; below 1 if it does not.
        frames_per_second: the rate, as the file says.
        ended: whether the last of the frames was the video's last; otherwise there may be more.
        counted: whether the file notes a number of frames. Others note a duration, and the number is estimated by a
            constant rate: it is too large by a few frames where sound lasts longer, and by many where the rate varies.
    """
    if announced < 1:
        return []
    found, remarks = len(seconds), []
    # Where the rate varies, or frames that repeat the one before were left out, times say how far the video has come.
    reached = max(found, round(max(seconds) * frames_per_second) + 1)
    if ended and announced - reached > (0 if counted else max(_TOLERANCE, announced // 100)):
        remarks.append(f"The video announces {announced} frames and ends after {found}: it may be cut off or damaged.")
    if not counted and min(announced, reached) - found > _TOLERANCE:
        remarks += _remarks_on_holes(np.asarray(seconds), 1 / frames_per_second)
    return remarks


def _remarks_on_holes(seconds: NDArray[np.float64], interval: float) -> list[str]:
    """That some frames come far later than the one before, measured by the other intervals of the same video."""
    intervals = np.diff(seconds)
    if not len(intervals):
        return []
    in_order = np.sort(intervals)
    usual = max(interval, float(in_order[max(0, len(intervals) - 3 - len(intervals) // 20)]))  # but the few longest
    holes = np.flatnonzero(intervals > 3 * usual)
    if not len(holes):
        return []
    start, end = seconds[holes[0]], seconds[holes[0] + 1]
    lost = round(float((intervals[holes] / usual - 1).sum()))
    more = f" and in {len(holes) - 1} more places" if len(holes) > 1 else ""
    return [
        f"The video has no frames between {start:.2f} s and {end:.2f} s{more}, where about {lost} are to be expected: "
        "it may be damaged."
    ]
