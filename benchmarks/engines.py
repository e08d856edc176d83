"""Which engine runs a tracker's whole step fastest on a processor: torch, torch compiled, or onnxruntime.

    python benchmarks/engines.py [--model configs/model/small.yaml] [--threads 1] [--markdown FILE] [--json FILE]

A row is an engine; times are medians in milliseconds per frame of one target in a 640 x 480 video. With one thread they
are the process's time on its core, which is not lengthened when other programs have it. All engines take turns of
some frames, since a busy machine slows what does run, too: ratios hold better than the times.

- step: image in, box out; crop, network and box are its parts (cut and normalise the search region; compute the maps
  and the memory; choose a cell, and write its box in the image).
- of torch: the step's time as a share of torch's (of the first engine's).
- templates, first: what a target costs once, on its first frame and on the one after it, which has no memory yet.
- moves: how far any coordinate of the box is from torch's, in pixels, at most.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from tables import number_table, open_network, parser_of

from relo.errors import UserError
from relo.evaluation.report_page import ReportTable
from relo.models.inference import Precision, optimize_for_inference
from relo.models.network import LocalizationNetwork
from relo.tracking.engine import Engine
from relo.tracking.state import TargetState
from relo.tracking.tracker import Tracker

BOX_XYWH = [280.0, 200.0, 70.0, 50.0]
clock = time.process_time  # of one thread; else time.perf_counter
COLUMNS = ("engine", "step", "of torch", "crop", "network", "box", "templates", "first", "moves")


class TimedTracker:
    """A tracker whose step is timed part by part: where the network begins and ends is marked."""

    def __init__(self, tracker: Tracker) -> None:
        """Mark `tracker`'s network."""
        self.tracker = tracker
        self.marks: list[float] = []
        self.times: dict[str, list[float]] = {part: [] for part in ("crop", "network", "box", "step")}
        forward = tracker._localizer._forward

        def marked(*args: Any, **kwargs: Any) -> Any:
            self.marks.append(clock())
            result = forward(*args, **kwargs)
            self.marks.append(clock())
            return result

        tracker._localizer._forward = marked  # type: ignore[method-assign]

    def step(self, image: np.ndarray, states: Sequence[TargetState]) -> list[TargetState]:
        """A step, which is timed."""
        self.marks = []
        start = clock()
        states = self.tracker.step([image], states)
        end = clock()
        begun, done = self.marks
        for part, seconds in zip(self.times, (begun - start, done - begun, end - done, end - start), strict=True):
            self.times[part].append(1e3 * seconds)
        return states

    def medians(self) -> dict[str, float]:
        """Of every part's times."""
        return {part: statistics.median(times) for part, times in self.times.items()}


def milliseconds(work: Callable[[], Any]) -> float:
    start = clock()
    work()
    return 1e3 * (clock() - start)


def compiled(network: LocalizationNetwork) -> LocalizationNetwork:
    """The network with encoder and heads compiled."""
    torch._inductor.config.freezing = True
    network.encode = torch.compile(network.encode, dynamic=False)  # type: ignore[method-assign]
    network.localize = torch.compile(network.localize, dynamic=False)  # type: ignore[method-assign]
    return network


def trackers(network: LocalizationNetwork, names: Sequence[str], console: Console) -> dict[str, Tracker]:
    """A tracker for each engine that works here; of the others it is said why not."""
    made = {}
    for name in names:
        precision: Precision = "bfloat16" if name == "torch bfloat16" else "float32"
        fast = optimize_for_inference(network, precision)
        if name == "torch.compile":
            fast = compiled(fast)
        engine: Engine = "onnxruntime" if name == "onnxruntime" else "torch"
        image = np.zeros((480, 640, 3), np.uint8)
        try:
            tracker = Tracker(fast, device="cpu", precision=precision, engine=engine)
            states = tracker.initialize([image], [BOX_XYWH])
            for _ in range(3):  # a compiler works when it meets a shape, with and without memory
                states = tracker.step([image], states)
        except (UserError, RuntimeError) as error:
            console.print(f"{name} is left out: {str(error).splitlines()[0]}", markup=False)
            continue
        made[name] = tracker
    return made


def video() -> list[np.ndarray]:
    """Two frames [480, 640, 3] of smooth noise."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (49, 65, 3), dtype=np.uint8)
    large = cv2.resize(small, (650, 490), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(large[i : 480 + i, i : 640 + i]) for i in (0, 2)]


def measure(
    network: LocalizationNetwork, names: Sequence[str], seconds: float, console: Console
) -> list[dict[str, Any]]:
    """The rows, in milliseconds and pixels, engines taking turns until the time is used."""
    images = video()
    timed = {name: TimedTracker(tracker) for name, tracker in trackers(network, names, console).items()}
    templates: dict[str, list[float]] = {name: [] for name in timed}
    first: dict[str, list[float]] = {name: [] for name in timed}
    boxes_xywh: dict[str, torch.Tensor] = {}
    start = time.perf_counter()
    while not boxes_xywh or time.perf_counter() - start < seconds:
        for name, item in timed.items():
            tracker = item.tracker
            templates[name].append(milliseconds(lambda t=tracker: t.initialize([images[0]], [BOX_XYWH])))
            states = tracker.initialize([images[0]], [BOX_XYWH])
            first[name].append(milliseconds(lambda t=tracker, s=states: t.step([images[1]], s)))
            second = tracker.step([images[1]], states)
            for _ in range(20):
                boxes_xywh[name] = item.step(images[1], second)[0].box_xywh
    reference, medians = next(iter(timed)), {name: item.medians() for name, item in timed.items()}
    base = medians[reference]["step"]
    return [
        {
            "engine": name,
            "step": medians[name]["step"],
            "of_torch": medians[name]["step"] / base,
            **medians[name],
            "templates": statistics.median(templates[name]),
            "first": statistics.median(first[name]),
            "moves": float((boxes_xywh[name] - boxes_xywh[reference]).abs().max()),
        }
        for name in timed
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="configs/model/small.yaml", help="a model, or its config (random weights)")
    engines = ["torch", "torch bfloat16", "torch.compile", "onnxruntime"]
    parser.add_argument("--engines", nargs="+", default=engines, choices=engines, help="the first is compared with")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every engine")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure")
    parser.add_argument("--markdown", type=Path, help="write the table here, too")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    global clock
    clock = time.process_time if options.threads == 1 else time.perf_counter
    torch.manual_seed(0)
    console = Console()
    try:
        network = open_network(options.model)
    except UserError as error:
        parser.error(str(error))
    rows = measure(network.eval(), options.engines, options.seconds, console)
    busy = f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    title = f"{options.model}: milliseconds per frame, {options.threads} thread(s){busy}; torch {torch.__version__}"
    table = number_table(title, *COLUMNS, padding=(0, 1, 0, 0))
    cells = [
        [name, *(f"{time:.2f}" for time in times), f"{moves:.1g}"] for name, *times, moves in map(dict.values, rows)
    ]
    for row in cells:
        table.add_row(*row)
    console.print(table)
    if options.markdown is not None:
        options.markdown.write_text(f"{title}\n\n{ReportTable(COLUMNS, cells).markdown()}")
    if options.json is not None:
        options.json.write_text(json.dumps({"title": title, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
