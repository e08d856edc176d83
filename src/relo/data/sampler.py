"""Which frames make a clip."""

from abc import abstractmethod
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from relo.errors import UserError
from relo.models.checkpoints.plugin import Plugin
from relo.settings import check_number, check_whole


@dataclass(frozen=True)
class ClipFrames:
    """The frames of one clip, in the order in which the network sees them."""

    templates: NDArray[np.int64]  # [N], 0-based frame numbers
    search: NDArray[np.int64]  # [T]
    start: int | None = None  # the frame before the first search frame, where these are consecutive

    @property
    def previous(self) -> NDArray[np.int64]:
        """The frame before each search frame [T]: the search frame before it in the clip.

        Before the first it is the start, or the frame before it in the video (also where time runs backwards, as in the
        release): -1 where it is the video's first.
        """
        start = self.search[0] - 1 if self.start is None else self.start
        return np.concatenate([[start], self.search[:-1]])


class ClipSampler(Plugin):
    """Contract: draws a clip from a sequence.

    Attributes:
        templates: N, template frames per clip.
        search_frames: T, search frames per clip.
        consecutive: its clips have a start frame, which their search frames follow at equal steps.
    """

    templates: int
    search_frames: int
    consecutive: bool = False

    @abstractmethod
    def accepts(self, visible: NDArray[np.bool_]) -> bool:
        """Whether a sequence with these visible flags [frames] can give a clip."""

    @abstractmethod
    def sample(self, visible: NDArray[np.bool_], rng: np.random.Generator) -> ClipFrames:
        """A clip of a sequence that `accepts` has let pass; all that is random comes from `rng`."""


class OrderSampler(ClipSampler):
    """The paper's sampler: templates first, then search frames, all near one frame and sorted in time.

    A base frame is drawn among the visible frames; templates and search frames are drawn with replacement among the
    visible ones from `max_gap` before it to `max_gap` - 1 after it (the release's range), and sorted forwards or
    backwards in time; the first ones are the templates. A still (a sequence of one frame) is repeated.

    Args:
        templates: N, template frames per clip.
        search_frames: T, search frames per clip.
        max_gap: how far from the base frame the others may be.
        backwards: probability that time runs backwards.
        min_frames: shorter videos are not used.

    Raises:
        UserError: a number out of its range.
    """

    def __init__(
        self,
        templates: int = 2,
        search_frames: int = 2,
        max_gap: int = 400,
        backwards: float = 0.5,
        min_frames: int = 20,
    ) -> None:
        check_whole("OrderSampler", 1, 4096, templates=templates, search_frames=search_frames)
        check_whole("OrderSampler", 0, 2**31, max_gap=max_gap, min_frames=min_frames)
        check_number("OrderSampler", 0, 1, backwards=backwards)
        self.templates = templates
        self.search_frames = search_frames
        self.max_gap = max_gap
        self.backwards = backwards
        self.min_frames = min_frames

    def accepts(self, visible: NDArray[np.bool_]) -> bool:
        """At least `min_frames` frames, of which more than 2 (T + N) show the target; or a still that shows it."""
        if len(visible) == 1:
            return bool(visible[0])
        enough = np.count_nonzero(visible) > 2 * (self.search_frames + self.templates)
        return len(visible) >= self.min_frames and bool(enough)

    def sample(self, visible: NDArray[np.bool_], rng: np.random.Generator) -> ClipFrames:
        """A clip around a random visible frame."""
        shown = np.flatnonzero(visible)
        base = rng.choice(shown)
        near = shown[(shown >= base - self.max_gap) & (shown < base + max(self.max_gap, 1))]
        frames = np.sort(rng.choice(near, self.templates + self.search_frames))
        if rng.random() < self.backwards:
            frames = frames[::-1]
        return ClipFrames(frames[: self.templates].copy(), frames[self.templates :].copy())


class ConsecutiveSampler(ClipSampler):
    """A stretch of video, as a tracker sees it: search frames at equal steps after a start frame, forwards in time.

    The stride is drawn among those that the video is long enough for, the start among the visible frames that have a
    visible one among their search frames; the others may be hidden. Templates are drawn with replacement among the
    visible frames up to the start, the oldest first. Stills cannot give a clip.

    Args:
        templates: N, template frames per clip.
        search_frames: T, search frames per clip.
        max_stride: the most frames from one search frame to the next.
        max_gap: how far before the start frame a template may be.
        min_frames: shorter videos are not used.

    Raises:
        UserError: a number out of its range.
    """

    consecutive = True

    def __init__(
        self,
        templates: int = 1,
        search_frames: int = 8,
        max_stride: int = 1,
        max_gap: int = 400,
        min_frames: int = 20,
    ) -> None:
        check_whole("ConsecutiveSampler", 1, 4096, templates=templates, search_frames=search_frames)
        check_whole("ConsecutiveSampler", 1, 2**31, max_stride=max_stride)
        check_whole("ConsecutiveSampler", 0, 2**31, max_gap=max_gap, min_frames=min_frames)
        self.templates = templates
        self.search_frames = search_frames
        self.max_stride = max_stride
        self.max_gap = max_gap
        self.min_frames = min_frames

    def accepts(self, visible: NDArray[np.bool_]) -> bool:
        """At least `min_frames` frames, and a start frame for one stride or more."""
        return len(visible) >= self.min_frames and bool(self._starts(visible))

    def sample(self, visible: NDArray[np.bool_], rng: np.random.Generator) -> ClipFrames:
        """A clip from a random visible frame on."""
        starts = self._starts(visible)
        stride = int(rng.choice(list(starts)))
        start = int(rng.choice(starts[stride]))
        shown = np.flatnonzero(visible[: start + 1])
        templates = np.sort(rng.choice(shown[shown >= start - self.max_gap], self.templates))
        return ClipFrames(templates, start + stride * np.arange(1, self.search_frames + 1), start)

    def _starts(self, visible: NDArray[np.bool_]) -> dict[int, NDArray[np.int64]]:
        """The frames from which a clip can start, by stride; only strides that have any."""
        starts = {}
        for stride in range(1, self.max_stride + 1):
            length = self.search_frames * stride + 1
            if len(visible) < length:
                break
            clips = sliding_window_view(visible, length)[:, ::stride]  # [starts, 1 + T]
            possible = np.flatnonzero(clips[:, 0] & clips[:, 1:].any(axis=1))
            if len(possible):
                starts[stride] = possible
        return starts


@dataclass(frozen=True)
class Absence:
    """How often a search frame does not show the target, for a presence head to learn from; never by default.

    Attributes:
        hidden: probability of a frame on which the target is hidden, where the sequence has one.
        outside: probability of a search region elsewhere in the frame, which the target's box does not touch.
        foreign: probability of a frame of another sequence, about the target there.

    Raises:
        UserError: probabilities below 0, or that sum to more than 1.
    """

    hidden: float = 0.0
    outside: float = 0.0
    foreign: float = 0.0

    def __post_init__(self) -> None:
        if not (all(share >= 0 for share in astuple(self)) and sum(astuple(self)) <= 1):
            raise UserError(
                f"data.absence has hidden {self.hidden}, outside {self.outside} and foreign {self.foreign}; they are "
                "probabilities that sum to 1 at most."
            )

    def draw(self, frames: int, rng: np.random.Generator) -> list[Literal["hidden", "outside", "foreign"] | None]:
        """What each of the search frames lacks its target by; None shows it, if its sequence does.

        Where absence is not asked for, nothing is drawn.
        """
        if self == Absence():
            return [None] * frames
        kinds: tuple[Literal["hidden", "outside", "foreign"] | None, ...] = ("hidden", "outside", "foreign", None)
        bounds = np.cumsum(astuple(self))
        return [kinds[place] for place in np.searchsorted(bounds, rng.random(frames), side="right")]
