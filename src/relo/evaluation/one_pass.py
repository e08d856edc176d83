"""One-pass evaluation: from its first box to its last frame through every sequence, many sequences in one batch."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from relo.data.sequence_checks import remarks_on_sizes
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.data.sequences.base import SequenceReader
from relo.errors import UserError
from relo.evaluation.result_folder import SequenceResult, claim, read_finished, write_result
from relo.tracking.state import TargetState
from relo.tracking.tracker import RGBImage, Tracker
from relo.tracking.view import SearchView


class FailedSequences(UserError):
    """Some sequences could not be tracked; the others are in `results`, and in their files."""

    def __init__(self, failures: dict[str, Exception], results: list[SequenceResult]) -> None:
        self.failures = failures
        self.results = results
        super().__init__(told(reasons(failures), len(failures) + len(results)))


def reasons(failures: Mapping[str, Exception]) -> dict[str, str]:
    """Why each sequence failed, in words."""
    return {
        name: str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        for name, error in failures.items()
    }


def told(failures: Mapping[str, str], total: int) -> str:
    """What to say of sequences that failed, by name, among a total of them."""
    listed = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    return f"{len(failures)} of {total} sequences could not be tracked. {listed}"


@dataclass
class _Lane:
    """A sequence under way: its next frame, being decoded and cut, and what has been found so far."""

    number: int
    sequence: AnnotatedSequence
    tracker: Tracker
    pool: ThreadPoolExecutor
    state: TargetState | None = None
    boxes_xywh: list[list[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    presences: list[float | None] = field(default_factory=list)
    image_sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height
    decoded: deque["Future[RGBImage]"] = field(default_factory=deque)
    viewed: "Future[tuple[SearchView, float]] | None" = None
    next_frame: int = 0

    def decode_ahead(self, count: int) -> None:
        """Decode frames before it is known where in them the target will be looked for, up to so many."""
        while len(self.decoded) < count and self.next_frame < len(self.sequence):
            self.decoded.append(self.pool.submit(self.sequence.frames.__getitem__, self.next_frame))
            self.next_frame += 1

    def look(self, state: TargetState, region: Tensor) -> None:
        """Decode the next frame, if that is not done, and cut it in the same thread, its pixels still at hand."""
        if self.decoded:
            frame: Future[RGBImage] | int = self.decoded.popleft()
        else:
            frame, self.next_frame = self.next_frame, self.next_frame + 1
        self.viewed = self.pool.submit(self._view, frame, state, region)

    def _view(self, frame: "Future[RGBImage] | int", state: TargetState, region: Tensor) -> tuple[SearchView, float]:
        """The view, and the seconds that it took to cut it."""
        # To wait here is safe: whatever was submitted before has a thread already.
        image = self.sequence.frames[frame] if isinstance(frame, int) else frame.result()
        start = time.perf_counter()
        view = self.tracker.view(image, state, region)
        return view, time.perf_counter() - start

    def wait(self) -> None:
        """Until the next frame is decoded and cut, or has failed."""
        (self.viewed or self.decoded[0]).exception()

    def note_size(self, image_shape: tuple[int, ...]) -> None:
        self.image_sizes.append((image_shape[1], image_shape[0]))

    def record(self, state: TargetState, seconds: float) -> None:
        self.state = state
        self.boxes_xywh.append(state.box_xywh.tolist())
        self.scores.append(state.score)
        self.presences.append(state.presence)
        self.seconds.append(seconds)

    @property
    def done(self) -> bool:
        return len(self.boxes_xywh) == len(self.sequence)

    def cancel(self) -> None:
        for future in self.decoded:
            future.cancel()

    def result(self) -> SequenceResult:
        presence = None
        if any(value is not None for value in self.presences):
            # The target is there on the frame where it is given.
            presence = np.array([1.0 if value is None else value for value in self.presences])
        return SequenceResult(
            self.sequence,
            np.array(self.boxes_xywh),
            np.array(self.scores),
            np.array(self.seconds),
            presence,
            remarks_on_sizes(f"{self.sequence.dataset}/{self.sequence.name}", np.array(self.image_sizes, np.int32)),
        )


def run_one_pass(
    tracker: Tracker,
    sequences: SequenceReader | Sequence[AnnotatedSequence],
    *,
    batch_size: int = 8,
    workers: int = 2,
    folder: Path | None = None,
    split: str | None = None,
    notes: Mapping[str, Any] | None = None,
    on_result: Callable[[SequenceResult], None] | None = None,
    on_frames: Callable[[int], None] | None = None,
) -> list[SequenceResult]:
    """Track every sequence from its first box to its last frame.

    A batch holds up to `batch_size` sequences; where one ends, the next takes its place. Boxes do not depend on
    `batch_size` and `workers`, up to the rounding of floating-point sums.

    Args:
        tracker: the tracker; its rule names the localization.
        sequences: a reader, or a list of sequences (of one dataset: names must differ).
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
        The results in the order of the sequences.

    Raises:
        FailedSequences: sequences that cannot be read or tracked, by name, after all the others are done.
        UserError: the folder holds results of another dataset, tracker or rule, or two sequences would share a file.
    """
    if folder is not None:
        claim(folder, tracker, _dataset(sequences), split, notes)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        run = _Run(tracker, pool, batch_size, workers, folder, on_result, on_frames)
        try:
            run.track(sequences)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    ordered = [run.results[number] for number in sorted(run.results)]
    if run.failures:
        raise FailedSequences(run.failures, ordered)
    return ordered


_Viewed = tuple[_Lane, SearchView, float]  # with the seconds that it took
_Stepped = tuple[_Lane, TargetState, float]  # likewise


class _Run:
    """A pass over sequences.

    More of them are under way than a batch holds: while one batch is tracked, the next frames of the others are decoded
    and cut. They take turns, so which ones share a batch depends on their lengths alone. Where there are too few of
    them to keep the threads busy, their frames are decoded ahead besides.
    """

    def __init__(
        self,
        tracker: Tracker,
        pool: ThreadPoolExecutor,
        batch_size: int,
        workers: int,
        folder: Path | None,
        on_result: Callable[[SequenceResult], None] | None,
        on_frames: Callable[[int], None] | None,
    ) -> None:
        self.results: dict[int, SequenceResult] = {}
        self.failures: dict[str, Exception] = {}
        self._tracker = tracker
        self._pool = pool
        self._batch_size = batch_size
        self._in_hand = 4 * workers  # jobs that keep the threads busy during a step
        self._folder = folder
        self._on_result = on_result or (lambda result: None)
        self._on_frames = on_frames or (lambda frames: None)
        self._under_way: deque[_Lane] = deque()

    def track(self, sequences: SequenceReader | Sequence[AnnotatedSequence]) -> None:
        """Track all sequences; what comes of them is in `results` and `failures`."""
        waiting = self._open(sequences)
        while True:
            while len(self._under_way) < self._batch_size + self._in_hand and (lane := next(waiting, None)) is not None:
                self._under_way.append(lane)
            if not self._under_way:
                return
            self._record(self._step(self._next_batch()))

    def _open(self, sequences: SequenceReader | Sequence[AnnotatedSequence]) -> Iterator[_Lane]:
        """The sequences that are not done, one when it is asked for."""
        filed: set[str] = set()
        for number in range(len(sequences)):
            try:
                sequence = sequences[number]
                if not len(sequence) or not len(sequence.boxes_xywh):
                    raise UserError("it has no frame or no box.")
            except Exception as error:
                self.failures[_name(sequences, number)] = error
                continue
            finished = None
            if self._folder is not None:
                if sequence.name in filed:
                    raise UserError(f"Two sequences are named {sequence.name}; give each dataset a folder of its own.")
                filed.add(sequence.name)
                finished = read_finished(self._folder, sequence)
            if finished is not None:
                self.results[number] = finished
                self._on_frames(len(sequence))
                continue
            lane = _Lane(number, sequence, self._tracker, self._pool)
            lane.decode_ahead(1)
            yield lane

    def _next_batch(self) -> list[_Viewed]:
        """The lanes whose turn it is, with their views; new ones are taken up, and take their turn later."""
        batch: list[_Viewed] = []
        if self._under_way:
            # The last is ready last: to wait for it first wakes this thread once, not once a lane.
            self._under_way[min(self._batch_size, len(self._under_way)) - 1].wait()
        while self._under_way and len(batch) < self._batch_size:
            lane = self._under_way.popleft()
            try:
                if lane.viewed is not None:
                    view, seconds = lane.viewed.result()
                    lane.note_size(view.image_shape)
                    batch.append((lane, view, seconds))
                    continue
                image = lane.decoded.popleft().result()
                lane.note_size(image.shape)
                start = time.perf_counter()
                (state,) = self._tracker.initialize([image], lane.sequence.boxes_xywh[:1])
            except Exception as error:
                self._fail(lane, error)
            else:
                self._record([(lane, state, time.perf_counter() - start)])
        return batch

    def _step(self, batch: Sequence[_Viewed]) -> list[_Stepped]:
        """One frame further in every lane, but in those that fail."""
        start = time.perf_counter()
        states = [lane.state for lane, _, _ in batch if lane.state is not None]
        try:
            found = self._tracker.step_views([view for _, view, _ in batch], states)
        except Exception as error:
            if len(batch) > 1:  # one by one, to learn which of them it was
                return [stepped for member in batch for stepped in self._step([member])]
            self._fail(batch[0][0], error)
            return []
        share = (time.perf_counter() - start) / max(len(batch), 1)
        return [(lane, state, share + cutting) for (lane, _, cutting), state in zip(batch, found, strict=True)]

    def _record(self, stepped: Sequence[_Stepped]) -> None:
        """Note what was found, file the sequences that are at their end, and look at the next frames of the others."""
        self._on_frames(len(stepped))
        unfinished = []
        for lane, state, seconds in stepped:
            lane.record(state, seconds)
            if lane.done:
                self._finish(lane)
            else:
                unfinished.append((lane, state))
        regions = self._tracker.search_regions([state for _, state in unfinished])
        for (lane, state), region in zip(unfinished, regions, strict=True):
            lane.look(state, region)
            self._under_way.append(lane)
        count = len(self._under_way)
        lacking = min(self._batch_size, count) + self._in_hand - count
        for lane, _ in unfinished:
            lane.decode_ahead(max(0, -(-lacking // count)))

    def _finish(self, lane: _Lane) -> None:
        result = self.results[lane.number] = lane.result()
        if self._folder is not None:
            write_result(self._folder, result)
        self._on_result(result)

    def _fail(self, lane: _Lane, error: Exception) -> None:
        self.failures[lane.sequence.name] = error
        lane.cancel()


def _dataset(sequences: SequenceReader | Sequence[AnnotatedSequence]) -> str:
    if isinstance(sequences, SequenceReader):
        return sequences.dataset
    return " and ".join(sorted({sequence.dataset for sequence in sequences}))


def _name(sequences: SequenceReader | Sequence[AnnotatedSequence], number: int) -> str:
    return sequences.names[number] if isinstance(sequences, SequenceReader) else sequences[number].name
