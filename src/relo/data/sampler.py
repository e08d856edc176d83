"""Which frames make a clip."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relo.plugin import Plugin


@dataclass(frozen=True)
class ClipFrames:
    """The frames of one clip, in the order in which the network sees them."""

    templates: NDArray[np.int64]  # [N], 0-based frame numbers
    search: NDArray[np.int64]  # [T]


class ClipSampler(Plugin):
    """Contract: draws a clip from a sequence.

    Attributes:
        templates: N, template frames a clip.
        search_frames: T, search frames a clip.
    """

    templates: int
    search_frames: int

    @abstractmethod
    def accepts(self, visible: NDArray[np.bool_]) -> bool:
        """Whether a sequence with these visible flags [frames] can give a clip."""

    @abstractmethod
    def sample(self, visible: NDArray[np.bool_], rng: np.random.Generator) -> ClipFrames:
        """A clip of a sequence that `accepts` has let pass; all that is random comes from `rng`."""


class OrderSampler(ClipSampler):
    """The paper's sampler: templates first, then search frames, all near one frame and sorted in time.

    A base frame is drawn among the visible frames; templates and search frames are drawn with replacement among the
    visible ones within `max_gap` of it, and sorted forwards or backwards in time; the first ones are the templates. A
    still (a sequence of one frame) is repeated.
    """

    def __init__(
        self,
        templates: int = 2,
        search_frames: int = 2,
        max_gap: int = 400,
        backwards: float = 0.5,
        min_frames: int = 20,
    ) -> None:
        """Set the clip.

        Args:
            templates: N, template frames a clip.
            search_frames: T, search frames a clip.
            max_gap: how far from the base frame the others may be.
            backwards: probability that time runs backwards.
            min_frames: shorter videos are not used.
        """
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
        near = shown[np.abs(shown - base) <= self.max_gap]
        frames = np.sort(rng.choice(near, self.templates + self.search_frames))
        if rng.random() < self.backwards:
            frames = frames[::-1]
        return ClipFrames(frames[: self.templates].copy(), frames[self.templates :].copy())
