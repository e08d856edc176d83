"""How much longer a training step and a tracked frame take beside other programs, and what waiting threads make of it.

    python benchmarks/busy.py [--works training tracking] [--beside 1 2] [--rounds 5] [--seconds 1] [--model nano]

Each work runs in a process of its own, once as the commands set it, and once with the waiting and the
number of threads that OpenMP's libraries have by default. They take turns: alone, then beside so many processes that do
nothing but count.
Times are the medians of the rounds' medians, in milliseconds; "times" is the ratio to the same alone.

- training: a warm-up step of 16 clips of one frame (noise; it does not change the time), optimizer included.
- tracking: a step of the tracker on a 640 x 480 frame that is in memory already.

"alone" means what it says only if nothing else runs on the machine.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rl_step import random_clips, train
from tables import open_network, parser_of

from relo.learning.warmup import WarmupObjective
from relo.models.devices import fit_threads
from relo.models.network import LocalizationNetwork
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker

WAITING = {
    "the commands'": {},
    "OpenMP's own": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
}
"""Settings; GNU's library counts turns of a loop, LLVM's and Intel's milliseconds."""

COUNTING = [sys.executable, "-c", "while True: pass"]


def training(network: LocalizationNetwork) -> Callable[[], object]:
    """A step of the warm-up."""
    clip = random_clips(network, batch=16, frames=1, device=torch.device("cpu"))
    return partial(train, network, clip, WarmupObjective(), torch.optim.AdamW(network.parameters(), lr=1e-6))


def tracking(network: LocalizationNetwork) -> Callable[[], object]:
    """A frame of one target."""
    first, second = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), dtype=np.uint8)
    if not WAITING["OpenMP's own"].keys() & os.environ.keys():  # as `relo track` does
        fit_threads(network)
    tracker = Tracker(network.eval(), TrackingRule(), torch.device("cpu"), "float32")
    return partial(tracker.step, [second], tracker.initialize([first], [[300.0, 200.0, 60.0, 50.0]]))


WORKS = {"training": training, "tracking": tracking}


def serve(work: str, model: str) -> None:
    """Do the work for as many seconds as each line of the input says, and print its median time in milliseconds."""
    torch.manual_seed(0)
    step = WORKS[work](open_network(model))
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - start))
        print(statistics.median(times), flush=True)


@contextmanager
def running(command: Sequence[str], **settings: object) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed in the end."""
    with subprocess.Popen(command, **settings) as process:
        try:
            yield process
        finally:
            process.kill()


def measure(work: str, options: argparse.Namespace) -> Iterator[list[str]]:
    """The cells of a work's rows: one per way of waiting."""
    settings = {"OMP_WAIT_POLICY", *itertools.chain.from_iterable(WAITING.values())}
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    command = [sys.executable, __file__, "--serve", work, "--model", options.model]
    counts = [0, *options.beside]
    with ExitStack() as stack:
        processes = {
            waiting: stack.enter_context(
                running(command, env=environment | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for waiting, own in WAITING.items()
        }
        for process in processes.values():
            process.stdout.readline()
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(options.rounds):
            for count in counts:
                for waiting, process in processes.items():
                    with ExitStack() as others:
                        for _ in range(count):
                            others.enter_context(running(COUNTING))
                        print(options.seconds, file=process.stdin, flush=True)
                        times.setdefault((waiting, count), []).append(float(process.stdout.readline()))
    for waiting in WAITING:
        alone, *beside = (statistics.median(times[waiting, count]) for count in counts)
        cells = (cell for value in beside for cell in (f"{value:.1f}", f"{value / alone:.1f}"))
        yield [work, waiting, f"{alone:.1f}", *cells]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--beside", nargs="+", type=int, default=[1, os.cpu_count() or 2], help="busy processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--model", default="nano", help="a file of configs/model, without .yaml")
    parser.add_argument("--serve", choices=WORKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve, options.model)
        return
    columns = (cell for count in options.beside for cell in (f"beside {count}", "times"))
    title = f"{options.model}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"
    table = Table("work", "waiting", "alone (ms)", *columns, title=title)
    for work in options.works:
        for cells in measure(work, options):
            table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
