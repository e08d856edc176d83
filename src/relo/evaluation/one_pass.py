"""One-pass evaluation: every sequence from its first box to its last frame, many sequences in one batch.

Slots stand in a queue, each tracking one sequence. The first slots step together as a batch and go to the queue's end;
where a sequence has ended, the next one takes its slot. While a batch is tracked, threads decode the next frames of the
other slots and cut the search regions from them.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from relo.data.sequence_checks import remarks_on_sizes
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.data.sequences.base import SequenceReader
from relo.errors import UserError
from relo.evaluation.result_folder import (
    SequenceResult,
    check_names,
    claim,
    read_finished,
    write_result,
)
from relo.evaluation.results import RUN_FILE
from relo.files import require_kept
from relo.models.memory import shortage
from relo.tracking.crops import RGBImage, SearchView
from relo.tracking.state import TargetState
from relo.tracking.tracker import Tracker

_logger = logging.getLogger(__name__)


class FailedSequences(UserError):
    """Some sequences could not be tracked; `failures` says why, by name. The others are in `results`."""

    def __init__(self, failures: dict[str, str], results: list[SequenceResult]) -> None:
        self.failures = failures
        self.results = results
        super().__init__(failure_sentence(failures, len(failures) + len(results)))


def failure_sentence(failures: Mapping[str, str], total: int) -> str:
    """What to say of sequences that failed, by name with the reason, among a total of them."""
    listed = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    return f"{len(failures)} of {total} sequences could not be tracked. {listed}"


def run_one_pass(
    tracker: Tracker,
    sequences: SequenceReader | Sequence[AnnotatedSequence],
    *,
    numbers: Sequence[int] | None = None,
    batch_size: int = 8,
    workers: int = 2,
    folder: Path | None = None,
    split: str | None = None,
    notes: Mapping[str, Any] | None = None,
    on_result: Callable[[SequenceResult], None] | None = None,
    on_frames: Callable[[int], None] | None = None,
) -> list[SequenceResult]:
    """Track every sequence from its first box to its last frame.

    A batch holds up to `batch_size` sequences. Boxes do not depend on `batch_size`, `workers` and what an earlier run
    has finished, not even in their last bit (on one machine, by one version of its libraries).

    Args:
        tracker: the tracker; its rule names the localization.
        sequences: a reader, or a list of sequences (of one dataset: names must differ).
        numbers: which of them to track, in this order; all by default.
        batch_size: sequences in one forward.
        workers: threads that decode frames and cut them; at most `batch_size` + 4 `workers` sequences are under way,
            and about as many frames, or what was cut from them, wait in memory.
        folder: write each sequence's boxes there as soon as it is done (`<name>.txt`, beside it `<name>_score.txt`,
            `<name>_time.txt` and, where the network says so, `<name>_presence.txt`), and take sequences that are
            there already from their files.
        split: the split that the sequences are of, to be noted in the folder with the dataset's name.
        notes: what else to note there, by name.
        on_result: called with each result when it is done, in the order of their ends; not for those taken from
            files.
        on_frames: called with the number of frames just done, those taken from files included.

    Returns:
        The results in the order of `numbers`.

    Raises:
        FailedSequences: sequences that cannot be read or tracked, by name, after all the others are done.
        UserError: the folder holds results of another dataset, tracker or rule, or two sequences would share a file, or
            a name leads out of it, or what was written there is gone.
        torch.OutOfMemoryError, MemoryError: the memory does not suffice; finished sequences are in the folder.
    """
    if folder is not None:
        check_names(_names(sequences))
        claim(folder, tracker, _dataset(sequences), split, notes)
    with tracker.fixed_batches(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        queue = _SlotQueue(tracker, pool, batch_size, 4 * workers, folder, on_result or _ignore, on_frames or _ignore)
        try:
            queue.track(sequences, range(len(sequences)) if numbers is None else numbers)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    ordered = [queue.results[place] for place in sorted(queue.results)]
    if folder is not None:
        require_kept(folder, [folder / RUN_FILE, *(folder / f"{result.name}.txt" for result in ordered)])
    if queue.failures:
        raise FailedSequences(queue.failures, ordered)
    return ordered


def _ignore(done: object) -> None:
    """Nobody asked to be told."""


def _dataset(sequences: SequenceReader | Sequence[AnnotatedSequence]) -> str:
    if isinstance(sequences, SequenceReader):
        return sequences.dataset
    return " and ".join(sorted({sequence.dataset for sequence in sequences}))


def _names(sequences: SequenceReader | Sequence[AnnotatedSequence]) -> list[str]:
    return sequences.names if isinstance(sequences, SequenceReader) else [each.name for each in sequences]


@dataclass
class _Slot:
    """Tracks one sequence: its next frame, being decoded and cut, and what was found in the frames before."""

    place: int  # among the results
    sequence: AnnotatedSequence
    tracker: Tracker
    pool: ThreadPoolExecutor
    state: TargetState | None = None
    found: list[tuple[list[float], float, float, float | None]] = field(default_factory=list)
    image_sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height
    decoded: "deque[Future[RGBImage]]" = field(default_factory=deque)  # frames ahead of the search
    viewed: "Future[tuple[SearchView, float]] | None" = None  # with the seconds that cutting took
    next_frame: int = 0

    def decode_ahead(self, count: int) -> None:
        """Decode up to `count` frames before their search regions are known."""
        while len(self.decoded) < count and self.next_frame < len(self.sequence):
            self.decoded.append(self.pool.submit(self.sequence.frames.__getitem__, self.next_frame))
            self.next_frame += 1

    def search(self, region: Tensor) -> None:
        """Cut the region [3] from the next frame, in the thread that decodes it, its pixels still at hand."""
        if self.decoded:
            read = self.decoded.popleft().result  # to wait is safe: whatever was submitted before has a thread already
        else:
            read = partial(self.sequence.frames.__getitem__, self.next_frame)
            self.next_frame += 1
        self.viewed = self.pool.submit(self._view, read, region)

    def _view(self, read: Callable[[], RGBImage], region: Tensor) -> tuple[SearchView, float]:
        assert self.state is not None
        image = read()
        start = time.perf_counter()
        view = self.tracker.view(image, self.state, region)
        return view, time.perf_counter() - start

    def record(self, state: TargetState, seconds: float) -> None:
        assert state.image_size is not None
        self.state = state
        self.found.append((state.box_xywh.tolist(), state.score, seconds, state.presence))
        self.image_sizes.append(state.image_size)

    def result(self) -> SequenceResult:
        boxes_xywh, scores, seconds, presences = zip(*self.found, strict=True)
        presence = None
        if any(value is not None for value in presences):
            # The target is there on the frame where it is given.
            presence = np.array([1.0 if value is None else value for value in presences])
        name = f"{self.sequence.dataset}/{self.sequence.name}"
        remarks = remarks_on_sizes(name, np.array(self.image_sizes, np.int32))
        return SequenceResult(
            self.sequence, np.array(boxes_xywh), np.array(scores), np.array(seconds), presence, remarks
        )


_Viewed = tuple[_Slot, SearchView, float]  # with the seconds that it took


@dataclass
class _SlotQueue:
    """The slots, and what comes of their sequences.

    There are more slots than a batch holds, by `spare` ones whose frames keep the threads busy during a step. Which
    slots share a batch depends on the sequences' lengths alone. Where there are too few sequences to fill the queue,
    each slot's frames are decoded further ahead.
    """

    tracker: Tracker
    pool: ThreadPoolExecutor
    batch_size: int
    spare: int
    folder: Path | None
    on_result: Callable[[SequenceResult], None]
    on_frames: Callable[[int], None]
    results: dict[int, SequenceResult] = field(default_factory=dict)  # by place
    failures: dict[str, str] = field(default_factory=dict)
    slots: deque[_Slot] = field(default_factory=deque)

    def track(self, sequences: SequenceReader | Sequence[AnnotatedSequence], numbers: Sequence[int]) -> None:
        """Track the sequences of these numbers: free slots take the next one until all are done."""
        waiting = self._waiting(sequences, numbers)
        while True:
            while len(self.slots) < self.batch_size + self.spare and (slot := next(waiting, None)) is not None:
                self.slots.append(slot)
            if not self.slots:
                return
            if batch := self._next_batch():
                self._step(batch)

    def _waiting(
        self, sequences: SequenceReader | Sequence[AnnotatedSequence], numbers: Sequence[int]
    ) -> Iterator[_Slot]:
        """Slots for the sequences that no earlier run has finished; each sequence is opened when it is its turn."""
        names = _names(sequences)
        filed: set[str] = set()
        for place, number in enumerate(numbers):
            try:
                sequence = sequences[number]
                if not len(sequence) or not len(sequence.boxes_xywh):
                    raise UserError("it has no frame or no box.")
            except Exception as error:
                self._fail(names[number], error)
                continue
            if self.folder is not None:
                if sequence.name in filed:
                    raise UserError(f"Two sequences are named {sequence.name}; give each dataset a folder of its own.")
                filed.add(sequence.name)
                finished = read_finished(self.folder, sequence, self.tracker.tells_presence)
                if finished is not None:
                    self.results[place] = finished
                    self.on_frames(len(sequence))
                    continue
            slot = _Slot(place, sequence, self.tracker, self.pool)
            slot.decode_ahead(1)
            yield slot

    def _next_batch(self) -> list[_Viewed]:
        """The first slots of the queue, with their views; targets of new ones are initialized, and tracked later."""
        batch: list[_Viewed] = []
        # The last is ready last: to wait for it first wakes this thread once, not once per slot.
        last = self.slots[min(self.batch_size, len(self.slots)) - 1]
        (last.viewed or last.decoded[0]).exception()
        while self.slots and len(batch) < self.batch_size:
            slot = self.slots.popleft()
            try:
                if slot.viewed is not None:
                    batch.append((slot, *slot.viewed.result()))
                    continue
                image = slot.decoded.popleft().result()
                start = time.perf_counter()
                (state,) = self.tracker.initialize([image], slot.sequence.boxes_xywh[:1])
            except Exception as error:
                self._drop(slot, error)
            else:
                self._record([(slot, state, time.perf_counter() - start)])
        return batch

    def _step(self, batch: Sequence[_Viewed]) -> None:
        """Track one frame in every slot of a batch."""
        start = time.perf_counter()
        states = [slot.state for slot, _, _ in batch if slot.state is not None]
        found = None
        try:
            found = self.tracker.step_views([view for _, view, _ in batch], states)
        except Exception as error:
            if len(batch) == 1 or shortage(error) is not None:
                self._drop(batch[0][0], error)
                return
        if found is None:  # one by one, to learn which of them it was
            for member in batch:
                self._step([member])
            return
        share = (time.perf_counter() - start) / len(batch)
        self._record([(slot, state, share + cutting) for (slot, _, cutting), state in zip(batch, found, strict=True)])

    def _record(self, stepped: Sequence[tuple[_Slot, TargetState, float]]) -> None:
        """Note what was found, in how many seconds; finished slots are freed, the others go to the queue's end."""
        self.on_frames(len(stepped))
        unfinished = []
        for slot, state, seconds in stepped:
            slot.record(state, seconds)
            if len(slot.found) == len(slot.sequence):
                self._finish(slot)
            else:
                unfinished.append(slot)
        regions = self.tracker.search_regions([slot.state for slot in unfinished if slot.state is not None])
        for slot, region in zip(unfinished, regions, strict=True):
            slot.search(region)
        self.slots.extend(unfinished)
        count = len(self.slots)
        lacking = min(self.batch_size, count) + self.spare - count
        for slot in unfinished:
            slot.decode_ahead(ceil(lacking / count))

    def _finish(self, slot: _Slot) -> None:
        result = self.results[slot.place] = slot.result()
        if self.folder is not None:
            write_result(self.folder, result)
        self.on_result(result)

    def _drop(self, slot: _Slot, error: Exception) -> None:
        for future in slot.decoded:
            future.cancel()
        self._fail(slot.sequence.name, error)

    def _fail(self, name: str, error: Exception) -> None:
        if shortage(error) is not None:  # the next sequence would fare no better
            raise error
        if isinstance(error, UserError):
            self.failures[name] = str(error)
            return
        _logger.debug("Sequence %s could not be tracked.", name, exc_info=error)
        self.failures[name] = f"{type(error).__name__}: {error}"
