"""Tables of a store's sequences in few large objects, which the processes of a loader share, as they would not lists.

A list of a million strings is a million objects, each of which a forked process copies when it touches it, and a
spawned one builds for itself.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Names(Sequence[str]):
    """Strings as one, and where each ends; equal to a tuple of the same."""

    def __init__(self, names: Iterable[str]) -> None:
        names = tuple(names)
        self._text = "".join(names)
        self._ends = np.fromiter(accumulate(map(len, names), initial=0), np.int64, len(names) + 1)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        """One string, or some."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        place = range(len(self))[index]
        start, end = self._ends[place : place + 2].tolist()
        return self._text[start:end]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names | tuple) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Visibility:
    """On which frames sequences show their target: all flags, one sequence after the other."""

    flags: NDArray[np.bool_]  # [sum of lengths]
    lengths: NDArray[np.int64]  # [sequences]

    def accepted(self, accepts: Callable[[NDArray[np.bool_]], bool]) -> NDArray[np.int64]:
        """The numbers of the sequences whose flags a function accepts; equal flags may be shown to it once."""
        ends = self.lengths.cumsum()
        starts = ends - self.lengths
        shown = np.concatenate([[0], self.flags.cumsum()])
        counts = shown[ends] - shown[starts]
        is_accepted = np.zeros(len(self.lengths), bool)
        # Nearly all sequences show their target always; these differ in their length alone.
        is_uniform = (counts == 0) | (counts == self.lengths)
        kinds, members = np.unique(2 * self.lengths[is_uniform] + (counts[is_uniform] > 0), return_inverse=True)
        answers = [accepts(np.full(kind // 2, bool(kind % 2))) for kind in kinds.tolist()]
        is_accepted[is_uniform] = np.array(answers, bool)[members]
        for number in np.flatnonzero(~is_uniform).tolist():
            is_accepted[number] = accepts(self.flags[starts[number] : ends[number]])
        return np.flatnonzero(is_accepted)
