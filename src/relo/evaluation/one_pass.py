"""One-pass evaluation: from its first box to its last frame through every sequence, many sequences in one batch."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.data.sequences.base import SequenceReader
from relo.errors import UserError
from relo.evaluation.result_folder import SequenceResult, claim, read_finished, write_result
from relo.tracking.state import TargetState
from relo.tracking.tracker import RGBImage, Tracker


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
    """A sequence under way: its frames, decoded ahead, and what has been found so far."""

    number: int
    sequence: AnnotatedSequence
    pool: ThreadPoolExecutor
    ahead: int
    state: TargetState | None = None
    boxes_xywh: list[list[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    presences: list[float | None] = field(default_factory=list)
    decoding: deque["Future[RGBImage]"] = field(default_factory=deque)
    next_frame: int = 0

    def decode_ahead(self) -> None:
        while len(self.decoding) < self.ahead and self.next_frame < len(self.sequence):
            self.decoding.append(self.pool.submit(self.sequence.frames.__getitem__, self.next_frame))
            self.next_frame += 1

    def take_frame(self) -> RGBImage:
        image = self.decoding.popleft().result()
        self.decode_ahead()
        return image

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
        for future in self.decoding:
            future.cancel()

    def result(self) -> SequenceResult:
        presence = None
        if any(value is not None for value in self.presences):
            # The target is there on the frame where it is given.
            presence = np.array([1.0 if value is None else value for value in self.presences])
        return SequenceResult(
            self.sequence, np.array(self.boxes_xywh), np.array(self.scores), np.array(self.seconds), presence
        )


def run_one_pass(
    tracker: Tracker,
    sequences: SequenceReader | Sequence[AnnotatedSequence],
    *,
    batch_size: int = 8,
    workers: int = 2,
    folder: Path | None = None,
    split: str | None = None,
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
        workers: threads that decode frames ahead; at most `batch_size` + 2 `workers` frames and a few wait in memory.
        folder: write each sequence's boxes there as soon as it is done (`<name>.txt`, beside it `<name>_score.txt`,
            `<name>_time.txt` and, where the network says so, `<name>_presence.txt`), and take sequences that are
            there already from their files.
        split: the split that the sequences are of, to be noted in the folder with the dataset's name.
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
        claim(folder, tracker, _dataset(sequences), split)
    _keep_freed_memory()
    ahead = max(1, -(-2 * workers // batch_size)) + 1
    results: dict[int, SequenceResult] = {}
    failures: dict[str, Exception] = {}
    lanes: list[_Lane] = []
    filed: set[str] = set()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def open_lanes() -> Iterator[_Lane]:
        for number in range(len(sequences)):
            try:
                sequence = sequences[number]
                if not len(sequence) or not len(sequence.boxes_xywh):
                    raise UserError("it has no frame or no box.")
            except Exception as error:
                failures[_name(sequences, number)] = error
                continue
            finished = None
            if folder is not None:
                if sequence.name in filed:
                    raise UserError(f"Two sequences are named {sequence.name}; give each dataset a folder of its own.")
                filed.add(sequence.name)
                finished = read_finished(folder, sequence)
            if finished is not None:
                results[number] = finished
                if on_frames is not None:
                    on_frames(len(sequence))
                continue
            lane = _Lane(number, sequence, pool, ahead)
            lane.decode_ahead()
            yield lane

    waiting = open_lanes()
    upcoming = next(waiting, None)  # one more sequence than the batch holds is decoded ahead
    try:
        while lanes or upcoming is not None:
            while len(lanes) < batch_size and upcoming is not None:
                lanes.append(upcoming)
                upcoming = next(waiting, None)
            for lane, error in _advance(tracker, lanes):
                failures[lane.sequence.name] = error
                lane.cancel()
                lanes.remove(lane)
            if on_frames is not None:
                on_frames(len(lanes))
            for lane in [lane for lane in lanes if lane.done]:
                lanes.remove(lane)
                result = results[lane.number] = lane.result()
                if folder is not None:
                    write_result(folder, result)
                if on_result is not None:
                    on_result(result)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    ordered = [results[number] for number in sorted(results)]
    if failures:
        raise FailedSequences(failures, ordered)
    return ordered


def _keep_freed_memory() -> None:
    """Let the C library use a frame's memory again, where it would give it back and have the next frame paged in anew.

    glibc raises its threshold to the largest block of at most 32 MB that was freed (mallopt(3), M_MMAP_THRESHOLD).
    Tracking large frames takes a tenth less time so; where the library is another, nothing happens.
    """
    np.empty(2**25 - 2**16, np.uint8)


def _advance(tracker: Tracker, lanes: Sequence[_Lane]) -> list[tuple[_Lane, Exception]]:
    """One frame further in every lane; gives the lanes that failed, and why."""
    failed: list[tuple[_Lane, Exception]] = []
    under_way: list[tuple[_Lane, RGBImage]] = []
    for lane in lanes:
        try:
            image = lane.take_frame()
            if lane.state is None:
                start = time.perf_counter()
                state = tracker.initialize([image], lane.sequence.boxes_xywh[:1])[0]
                lane.record(state, time.perf_counter() - start)
            else:
                under_way.append((lane, image))
        except Exception as error:
            failed.append((lane, error))
    try:
        _step(tracker, under_way)
    except Exception:
        # One by one, to learn which of them it was.
        for member in under_way:
            try:
                _step(tracker, [member])
            except Exception as error:
                failed.append((member[0], error))
    return failed


def _step(tracker: Tracker, under_way: Sequence[tuple[_Lane, RGBImage]]) -> None:
    start = time.perf_counter()
    states = [lane.state for lane, _ in under_way if lane.state is not None]
    found = tracker.step([image for _, image in under_way], states)
    share = (time.perf_counter() - start) / max(len(found), 1)
    for (lane, _), state in zip(under_way, found, strict=True):
        lane.record(state, share)


def _dataset(sequences: SequenceReader | Sequence[AnnotatedSequence]) -> str:
    if isinstance(sequences, SequenceReader):
        return sequences.dataset
    return " and ".join(sorted({sequence.dataset for sequence in sequences}))


def _name(sequences: SequenceReader | Sequence[AnnotatedSequence], number: int) -> str:
    return sequences.names[number] if isinstance(sequences, SequenceReader) else sequences[number].name
