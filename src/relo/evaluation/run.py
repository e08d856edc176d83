"""Tracking a whole benchmark: the sequences in an order that keeps batches full, shared among devices."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import cv2
import torch

from relo.data.sequences.base import SequenceReader
from relo.errors import UserError
from relo.evaluation.benchmark_rule import BenchmarkRule
from relo.evaluation.one_pass import FailedSequences, run_one_pass
from relo.evaluation.result_folder import SequenceResult
from relo.models.inference import Precision
from relo.models.memory import enough_memory
from relo.processes import exit_reason
from relo.tracking.engine import EngineChoice
from relo.tracking.tracker import Tracker


@dataclass
class Outcome:
    """What was tracked now, not by an earlier run."""

    frames: int = 0
    failures: dict[str, str] = field(default_factory=dict)  # why, by sequence
    remarks: list[str] = field(default_factory=list)  # on the other sequences


def longest_first(
    reader: SequenceReader, on_remarks: Callable[[Sequence[str]], None] = lambda remarks: None
) -> tuple[list[int], list[int]]:
    """The sequences' numbers from the longest to the shortest, and the number of frames of each by its number.

    So the batch stays full to the end, and shares are even. A sequence that cannot be read counts as empty.
    `on_remarks` is called with the remarks on each sequence.
    """
    lengths = []
    for number in range(len(reader)):
        try:
            sequence = reader[number]
        except UserError:  # named where it is tracked
            lengths.append(0)
        else:
            lengths.append(len(sequence))
            on_remarks(sequence.remarks)
    return sorted(range(len(lengths)), key=lambda number: -lengths[number]), lengths


def track_share(
    *,
    numbers: Sequence[int],
    device: str,
    on_frames: Callable[[int], None],
    reader: SequenceReader,
    split: str,
    folder: Path,
    model: str,
    rule: BenchmarkRule,
    precision: Precision,
    engine: EngineChoice,
    batch_size: int,
    workers: int,
) -> Outcome:
    """Track the sequences of these numbers on one device; `on_frames` gets the number of frames just done.

    Raises:
        UserError: the model or the folder cannot be used, or the device's memory does not suffice.
    """
    outcome = Outcome()

    def note(result: SequenceResult) -> None:
        outcome.frames += len(result.boxes_xywh)
        outcome.remarks.extend(result.remarks)

    if device.startswith("cuda"):
        # What is left to the CPU is small: threads of torch and OpenCV would only hinder those that decode.
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    with enough_memory(f"on {device}, lower --batch_size; finished sequences are kept, and the command goes on there"):
        tracker = Tracker.from_pretrained(model, rule.rule, device, precision, engine=engine)
        try:
            run_one_pass(
                tracker,
                reader,
                numbers=numbers,
                batch_size=batch_size,
                workers=workers,
                folder=folder,
                split=split,
                notes=rule.notes(),
                on_result=note,
                on_frames=on_frames,
            )
        except FailedSequences as error:
            outcome.failures = error.failures
    return outcome


def track_on_devices(
    track: Callable[..., Outcome], numbers: Sequence[int], devices: Sequence[str], on_frames: Callable[[int], None]
) -> Outcome:
    """Share the sequences among devices, each in a process of its own; a single one, in this process.

    Args:
        track: `track_share`, given all but `numbers`, `device` and `on_frames`.
        numbers: the sequences to track, in order.
        devices: one or more.
        on_frames: called with the number of frames just done, on whichever device.

    Raises:
        UserError: a share cannot be tracked at all, or its process was killed; the others are stopped.
    """
    if len(devices) == 1:
        return track(numbers=numbers, device=devices[0], on_frames=on_frames)
    # Spawned, not forked: a GPU that this process has touched cannot be used in a fork of it.
    context = multiprocessing.get_context("spawn")
    receivers: dict[Connection, tuple[str, SpawnProcess]] = {}
    processes = []
    whole = Outcome()
    try:
        for place, device in enumerate(devices):
            receiver, sender = context.Pipe(duplex=False)
            share = partial(track, numbers=numbers[place :: len(devices)], device=device)
            process = context.Process(target=_track_in_process, args=(share, sender), daemon=True)
            process.start()
            processes.append(process)
            receivers[receiver] = device, process
            sender.close()  # so that the end of the process is the end of the pipe
        while receivers:
            for ready in wait(list(receivers)):
                assert isinstance(ready, Connection)
                try:
                    message = ready.recv()
                except EOFError as error:
                    device, process = receivers[ready]
                    process.join()
                    raise UserError(
                        f"The process for {device} {exit_reason(process.exitcode or 0)}: try a smaller --batch_size if "
                        "it was short of memory; finished sequences are kept."
                    ) from error
                if isinstance(message, UserError):
                    raise message
                if isinstance(message, Outcome):
                    whole.frames += message.frames
                    whole.failures |= message.failures
                    whole.remarks += message.remarks
                    del receivers[ready]
                else:
                    on_frames(message)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return whole


def _track_in_process(share: "partial[Outcome]", sender: Connection) -> None:
    """Send the number of frames of each step, and at the end the outcome; stop where the first process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    with suppress(BrokenPipeError):
        try:
            sender.send(share(on_frames=sender.send))
        except UserError as error:
            sender.send(UserError(str(error)))
