"""`relo test`: track a whole benchmark, on every GPU there is, and leave result files to score or submit."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

import cv2
import torch
from rich.console import Console

from relo.data.remarks import show
from relo.data.sequences import Sequence as AnnotatedSequence
from relo.data.sequences import SequenceReader, open_reader
from relo.data.sequences.datasets import DATASETS, fill_help, find_dataset
from relo.errors import UserError
from relo.evaluation.benchmark_rule import BenchmarkRule, benchmark_rule
from relo.evaluation.one_pass import FailedSequences, reasons, run_one_pass, told
from relo.evaluation.result_folder import SequenceResult
from relo.models.devices import find_device
from relo.models.heads import Localization
from relo.models.inference import Precision
from relo.tracking.engine import EngineChoice
from relo.tracking.progress import frame_progress
from relo.tracking.tracker import Tracker


class ChosenSequences(SequenceReader):
    """Some sequences of a reader, in an order of their own."""

    def __init__(self, reader: SequenceReader, numbers: Sequence[int]) -> None:
        """Choose the sequences of these numbers."""
        self.dataset = reader.dataset
        self._reader = reader
        self._numbers = numbers

    @property
    def names(self) -> list[str]:
        """The chosen sequences' names."""
        names = self._reader.names
        return [names[number] for number in self._numbers]

    def __getitem__(self, index: int) -> AnnotatedSequence:
        """The chosen sequence number `index`."""
        return self._reader[self._numbers[index]]


@dataclass(frozen=True)
class _Share:
    """What one process tracks, and how."""

    sequences: SequenceReader
    split: str
    model: str
    rule: BenchmarkRule
    localization: Localization | None
    device: str
    precision: Precision
    engine: EngineChoice
    batch_size: int
    workers: int
    folder: Path

    def track(self, on_frames: Callable[[int], None]) -> "_Outcome":
        """Track the sequences; `on_frames` is told how many frames were just done."""
        tracked: list[int] = []
        remarks: list[str] = []

        def note(result: SequenceResult) -> None:
            tracked.append(len(result.boxes_xywh))
            remarks.extend(result.remarks)

        if self.device.startswith("cuda"):
            # What is left to the CPU is small: threads of torch and OpenCV would only hinder those that decode.
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
        tracker = Tracker.from_pretrained(
            self.model, self.rule.rule, self.device, self.precision, self.localization, engine=self.engine
        )
        failures: dict[str, str] = {}
        try:
            run_one_pass(
                tracker,
                self.sequences,
                batch_size=self.batch_size,
                workers=self.workers,
                folder=self.folder,
                split=self.split,
                notes=self.rule.notes(),
                on_result=note,
                on_frames=on_frames,
            )
        except FailedSequences as error:
            failures = reasons(error.failures)
        return _Outcome(sum(tracked), failures, remarks)


@dataclass(frozen=True)
class _Outcome:
    """How many frames were tracked now, not by an earlier run; which sequences failed, and why; remarks on others."""

    frames: int
    failures: dict[str, str]
    remarks: list[str]


@fill_help(datasets=DATASETS)
def run_benchmark(
    *,
    model: str,
    dataset: str,
    root: Path,
    output: Path,
    split: str | None = None,
    rule: Path | None = None,
    benchmark: str | None = None,
    localization: Localization | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    device: str | None = None,
    precision: Precision = "float32",
    engine: EngineChoice = "auto",
    shards: int = 1,
    shard: int = 0,
) -> None:
    """Track every sequence of a benchmark in one pass, many in one batch.

    Each sequence's boxes, scores and seconds are written as soon as it is done; a run that was stopped goes on where it
    was. Score the folder with `relo evaluate`, or pack it for a server with `relo submit`.

    Args:
        model: a model's name, its folder, or a checkpoint.
        dataset: {datasets}.
        root: the dataset's folder.
        output: the results' folder, one for each dataset and split: its name is the tracker's name in scores.
        split: a split of the dataset; its test split if not given.
        rule: a YAML file of tracking settings; the model's own, or the default, if not given.
        benchmark: whose settings to apply, of those under `benchmarks` in that file; the dataset's own if not given,
            and "none" for one rule everywhere. The console and `run.json` say what was applied.
        localization: the map that picks the cell, "policy" or "prior"; the rule's if not given.
        batch_size: sequences in one batch of a device.
        workers: threads that decode frames ahead; one a core if not given.
        device: where to compute, such as "cpu" or "cuda:1", or several as "cuda:0,cuda:1", which share the sequences;
            all GPUs if not given, or the CPU where there is none.
        precision: "float32", or "bfloat16" or "float16" to be faster.
        engine: what computes the network: "torch", "onnxruntime" (in float32 on the CPU), or "auto": onnxruntime for
            small networks on the CPU, where it takes half the time.
        shards: on several machines, how many share the sequences; with one folder for all, or one each to be put
            together.
        shard: which of them this one is, from 0.

    Raises:
        UserError: the model, the dataset or a setting cannot be used, or sequences failed: these are named, after all
            the others are done.
        KeyboardInterrupt: it was stopped; finished sequences are kept.
    """
    devices = _devices(device)
    workers = workers or os.cpu_count() or 1
    if batch_size < 1 or workers < 1:
        raise UserError(f"Cannot track with --batch_size {batch_size} and --workers {workers}; both start at 1.")
    if not 0 <= shard < shards:
        raise UserError(f"There is no shard {shard} of {shards}: --shard goes from 0 to --shards less one.")
    split = split or find_dataset(dataset).test_split
    chosen = benchmark_rule(model, rule, benchmark, dataset, localization, split)
    reader = open_reader(dataset, root, split)
    console = Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    say(chosen.summary)
    remarks = reader.unused
    with console.status(f"looking at {len(reader)} sequences"):
        numbers, lengths = longest_first(reader, remarks.extend)
    show(remarks, console)
    numbers = numbers[shard::shards]
    shares = [
        _Share(
            ChosenSequences(reader, numbers[place :: len(devices)]),
            split,
            model,
            chosen,
            localization,
            name,
            precision,
            engine,
            batch_size,
            max(1, workers // len(devices)),
            output,
        )
        for place, name in enumerate(devices)
    ]
    start = time.perf_counter()
    with frame_progress(console) as progress:
        task = progress.add_task("tracking", total=sum(lengths[number] for number in numbers))
        outcomes = _track_side_by_side(shares, lambda frames: progress.advance(task, frames))
    seconds = time.perf_counter() - start
    show([remark for outcome in outcomes for remark in outcome.remarks], console)
    failures = {name: reason for outcome in outcomes for name, reason in outcome.failures.items()}
    frames = sum(outcome.frames for outcome in outcomes)
    say(
        f"{len(numbers) - len(failures)} of {len(numbers)} sequences are in {output}; {frames:,} frames tracked now, "
        f"{frames / seconds:,.1f} a second."
    )
    if failures:
        raise UserError(told(failures, len(numbers)))


def longest_first(
    reader: SequenceReader, on_remarks: Callable[[Sequence[str]], None] = lambda remarks: None
) -> tuple[list[int], list[int]]:
    """The sequences' numbers from the longest to the shortest, and the number of frames of each by its number.

    So the batch stays full to the end, and shards are even. A sequence that cannot be read counts as empty.
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


def _devices(device: str | None) -> list[str]:
    if device is None:
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    return [str(find_device(name.strip())) for name in device.split(",")]


def _track_side_by_side(shares: Sequence[_Share], on_frames: Callable[[int], None]) -> list[_Outcome]:
    """Track each share in a process of its own; one alone, in this process.

    Raises:
        UserError: a share cannot be tracked at all, or its process was killed; the others are stopped.
    """
    if len(shares) == 1:
        return [shares[0].track(on_frames)]
    # Spawned, not forked: a GPU that this process has touched cannot be used in a fork of it.
    context = multiprocessing.get_context("spawn")
    receivers: dict[Connection, str] = {}
    processes = []
    outcomes = []
    try:
        for share in shares:
            receiver, sender = context.Pipe(duplex=False)
            receivers[receiver] = share.device
            process = context.Process(target=_work, args=(share, sender), daemon=True)
            process.start()
            processes.append(process)
            sender.close()  # so that the end of the process is the end of the pipe
        while receivers:
            for ready in wait(list(receivers)):
                assert isinstance(ready, Connection)
                try:
                    message = ready.recv()
                except EOFError as error:
                    raise UserError(
                        f"The process for {receivers[ready]} was killed, perhaps for want of memory: try a smaller "
                        "--batch_size; finished sequences are kept."
                    ) from error
                if isinstance(message, UserError):
                    raise message
                if isinstance(message, _Outcome):
                    outcomes.append(message)
                    del receivers[ready]
                else:
                    on_frames(message)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return outcomes


def _work(share: _Share, sender: Connection) -> None:
    """A process: tells what it has done until nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    with suppress(BrokenPipeError):
        try:
            sender.send(share.track(sender.send))
        except UserError as error:
            sender.send(UserError(str(error)))
