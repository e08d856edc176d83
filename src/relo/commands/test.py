"""`relo test`: track a whole benchmark, on every GPU there is, and leave result files to score or submit."""

import os
import time
from functools import partial
from pathlib import Path

import torch

from relo.commands.help_texts import fill_help
from relo.console import make_console
from relo.data.remarks import show
from relo.data.sequences import open_reader
from relo.data.sequences.datasets import DATASETS, find_dataset
from relo.errors import UserError
from relo.evaluation.benchmark_rule import benchmark_rule
from relo.evaluation.one_pass import failure_sentence
from relo.evaluation.run import longest_first, track_on_devices, track_share
from relo.models.checkpoints.plugin import trust as trust_modules
from relo.models.devices import find_device
from relo.models.exported import names_graphs
from relo.models.heads import Localization
from relo.models.inference import Precision
from relo.progress import FrameRate, progress_bar
from relo.settings import check_whole
from relo.tracking.engine import EngineChoice

_LARGEST_BATCH = 2**16


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
    trust: list[str] | None = None,
) -> None:
    """Track every sequence of a benchmark in one pass, many in one batch.

    Each sequence's boxes, scores and seconds are written as soon as it is done; a run that was stopped goes on where it
    was. Score the folder with `relo evaluate`, or pack it for a server with `relo submit`.

    Args:
        model: a model's name, its folder, a checkpoint, or ONNX graphs (their folder or one of the two files).
        dataset: {datasets}.
        root: the dataset's folder.
        output: the results' folder, one for each dataset and split: its name is the tracker's name in scores.
        split: a split of the dataset; its test split if not given.
        rule: a YAML file of the tracking settings that differ from the model's own, or "lost_and_found".
        benchmark: whose settings to apply, of those under `benchmarks` in that file, or else the model's; the dataset's
            own if not given, and "none" for one rule everywhere. The console and `run.json` say what was applied.
        localization: the map that picks the cell, "policy" or "prior"; the rule's if not given.
        batch_size: sequences in one batch of a device; boxes are the same to the last digit with any.
        workers: threads that decode frames ahead; one per core if not given.
        device: where to compute, such as "cpu" or "cuda:1", or several as "cuda:0,cuda:1", which share the sequences;
            all GPUs if not given, or the CPU where there is none; exported graphs, on the CPU.
        precision: "float32", or "bfloat16" or "float16" to be faster.
        engine: what computes the network: "torch", "onnxruntime" (in float32 on the CPU), or "auto": onnxruntime for
            small networks on the CPU, where it takes half the time.
        shards: on several machines, how many share the sequences; with one folder for all, or one each to be put
            together.
        shard: which of them this one is, from 0.
        trust: modules whose classes the model's config may name; otherwise it may name relo's alone.

    Raises:
        UserError: the model, the dataset or a setting cannot be used, or sequences failed: these are named, after all
            the others are done.
        KeyboardInterrupt: it was stopped; finished sequences are kept.
    """
    trust_modules(trust or ())
    devices = _devices(device, model)
    workers = (os.cpu_count() or 1) if workers is None else workers
    check_whole("This command", 1, _LARGEST_BATCH, batch_size=batch_size)
    check_whole("This command", 1, 1024, workers=workers)
    if not 0 <= shard < shards:
        raise UserError(f"There is no shard {shard} of {shards}: --shard goes from 0 to --shards less one.")
    split = split or find_dataset(dataset).test_split
    chosen = benchmark_rule(model, rule, benchmark, dataset, localization, split)
    reader = open_reader(dataset, root, split)
    console = make_console()
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(chosen.summary)
    remarks = reader.unused
    with console.status(f"looking at {len(reader)} sequences"):
        numbers, lengths = longest_first(reader, remarks.extend)
    show(remarks, console)
    numbers = numbers[shard::shards]
    track = partial(
        track_share,
        reader=reader,
        split=split,
        folder=output,
        model=model,
        rule=chosen,
        precision=precision,
        engine=engine,
        batch_size=batch_size,
        workers=max(1, workers // len(devices)),
    )
    start = time.perf_counter()
    with progress_bar(console, FrameRate()) as progress:
        task = progress.add_task("tracking", total=sum(lengths[number] for number in numbers))
        outcome = track_on_devices(track, numbers, devices, partial(progress.advance, task))
    seconds = time.perf_counter() - start
    show(outcome.remarks, console)
    say(
        f"{len(numbers) - len(outcome.failures)} of {len(numbers)} sequences are in {output}; {outcome.frames:,} "
        f"frames tracked now, {outcome.frames / seconds:,.1f} a second."
    )
    if outcome.failures:
        raise UserError(failure_sentence(outcome.failures, len(numbers)))


def _devices(device: str | None, model: str) -> list[str]:
    # Torch's devices are not onnxruntime's, which refuses what it lacks.
    is_exported = names_graphs(model)
    if device is None:
        gpus = 0 if is_exported else torch.cuda.device_count()
        return [f"cuda:{number}" for number in range(gpus)] or ["cpu"]
    names = [name.strip() for name in device.split(",")]
    return names if is_exported else [str(find_device(name)) for name in names]
