"""What several targets in one video cost on a CPU, beside one target: milliseconds per frame, by engine and threads.

    python benchmarks/many_targets.py [--model relo-small] [--targets 1 2 4 8] [--threads 1 2] [--seconds 30]

A row is an engine with a number of threads; a frame is 640 x 480, and a step goes from image to boxes. All rows and
numbers of targets take turns of a few steps, since a busy machine slows what does run, too. Column "1" is the median
time of a step of one target. The next, by number of targets, are medians over the rounds of a step's time by that of
one target in the same round, with the same engine and threads. "of cores" is the last of them in the time that the
process had on its cores, in which waiting for a core does not show: it is what idle cores share. "moves" is how far a
coordinate of a target's box is from where it is found alone, in pixels, at most.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import torch
from engines import video
from rich.table import Table
from tables import number_table, open_network, parser_of, print_table

from relo.models.checkpoints.weights import SHIPPED
from relo.models.inference import optimize_for_inference
from relo.tracking.engine import Engine
from relo.tracking.tracker import Tracker

STEPS = 3  # of a turn


@dataclass
class Row:
    """An engine with a number of threads; milliseconds of a step in each round, by clock and cores, by targets."""

    engine: Engine
    threads: int
    tracker: Tracker
    clock: dict[int, list[float]] = field(default_factory=dict)
    cores: dict[int, list[float]] = field(default_factory=dict)
    moves: float = 0.0

    def turn(self, images: Sequence[Any], targets: int) -> None:
        """Time some steps of so many targets."""
        torch.set_num_threads(self.threads)
        boxes_xywh = [[20.0 + 70 * i, 30.0 + 45 * i, 70.0, 50.0] for i in range(targets)]
        states = self.tracker.initialize([images[0]] * targets, boxes_xywh)
        states = self.tracker.step([images[0]] * targets, states)
        found = self.tracker.step([images[1]] * targets, states)
        clock, cores = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            self.tracker.step([images[1]] * targets, states)
        self.cores.setdefault(targets, []).append(1e3 * (time.process_time() - cores) / STEPS)
        self.clock.setdefault(targets, []).append(1e3 * (time.perf_counter() - clock) / STEPS)
        alone = self.tracker.step([images[1]], states[-1:])[0]
        self.moves = max(self.moves, (alone.box_xywh - found[-1].box_xywh).abs().max().item())

    def cells(self) -> list[str]:
        """The row of the table."""
        one, *others = self.clock.values()
        ratios = [*(ratio(times, one) for times in others), ratio(self.cores[max(self.cores)], self.cores[1])]
        times = [f"{statistics.median(one):.1f} ms", *(f"{value:.2f}x" for value in ratios)]
        return [self.engine, str(self.threads), *times, f"{self.moves:.1g}"]


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds."""
    return statistics.median(time / other for time, other in zip(times, others, strict=True))


def tabulate(options: argparse.Namespace) -> Table:
    """Measure all rows in turns.

    Raises:
        UserError: the model cannot be read, or an engine cannot compute it.
    """
    network = optimize_for_inference(open_network(options.model).eval())
    cv2.setNumThreads(1)
    rows = [
        Row(engine, threads, Tracker(network, device="cpu", engine=engine))
        for engine, threads in itertools.product(options.engines, options.threads)
    ]
    images, counts = video(), sorted({1, *options.targets})
    start = time.perf_counter()
    while time.perf_counter() - start < options.seconds or not rows[-1].clock:
        for row, targets in itertools.product(rows, counts):
            row.turn(images, targets)
    busy = f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    title = f"{options.model}: a step of several targets by a step of one{busy}"
    table = number_table(title, "engine", "threads", *map(str, counts), "of cores", "moves")
    for row in rows:
        table.add_row(*row.cells())
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default=SHIPPED, help="a model, or its config (random weights)")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "torch"], choices=["onnxruntime", "torch"])
    parser.add_argument("--targets", nargs="+", type=int, default=[1, 2, 4, 8], help="how many; one is always measured")
    threads = sorted({1, os.cpu_count() or 1})
    parser.add_argument("--threads", nargs="+", type=int, default=threads, help="of torch and onnxruntime")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure")
    torch.manual_seed(0)
    print_table(parser, arguments, tabulate)


if __name__ == "__main__":
    main()
