"""How fast the networks track, stage by stage, against the plain path and against what the machine can multiply.

    python benchmarks/speed.py [--models t256 b256 l256] [--batches 1 4 16] [--device cuda] [--compile] [--release DIR]

A row is a network, a precision and a batch of targets in one 1280 x 720 video. Times are medians, in milliseconds a
frame of one target; another program on the same machine shows in them. Weights are random unless a model folder is
named; they do not change the speed.

- crop, encode, heads, decode: the stages of a step that runs operation by operation, waiting for the device after each.
- ms, frames/s: the whole step as the tracker runs it, images in, boxes out. On a GPU it is a CUDA graph, which cannot
  be seen into and leaves out the gaps between operations: it is shorter than its stages together.
- GFLOP: of encoder and heads; a multiply-add is two. "of peak" is their rate in the whole step, as a share of the
  fastest square matrix product measured in the same precision.
- of plain: the time of encoder and heads, operation by operation, as a share of the plain path's (see plain.py) in
  float32 at the same batch; the two are measured in turn.
- release: the same as a share of the time that the public release's own network takes per frame, in float32; measured
  in turn, too, where `--release` names a checkout of it (which needs easydict).
- differs: the largest difference from the plain path in any cell's logit or box (shares of the search side).

On a GPU a last table says which of the times are met that the project wants of an H200.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain import plain_step
from release import release_network, release_step
from tables import milliseconds, open_network, parser_of, wait
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from relo.errors import UserError
from relo.models.devices import find_device
from relo.models.inference import Precision, computing, fastest_precision, optimize_for_inference
from relo.models.network import LocalizationNetwork
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker

STAGES = ("crop", "encode", "heads", "decode")
MEASURES = ("ms", "frames/s", "GFLOP", "of peak", "of plain", "release", "differs")
COLUMNS = ("model", "precision", "batch", *STAGES, *MEASURES)
RELEASED = ("t256", "b256", "l256")

H200_TARGETS = {"t256": (1.5, 3000), "b256": (2.5, 1500), "l256": (5.0, 500)}
"""Milliseconds per frame of one target, at most; frames per second in batches, at least."""

TOLERANCE = 1e-4
"""How far float32 outputs may be from the plain path's."""


@dataclass(frozen=True)
class Row:
    """What was measured of one network in one precision at one batch."""

    model: str
    precision: Precision
    batch: int
    stages: Sequence[float]  # ms per step
    step: float  # ms
    plain: float  # ms per step
    flops: float  # a step
    differs: float
    release: float = math.nan  # ms per step, where it is measured

    @property
    def frames_per_second(self) -> float:
        """Targets' frames."""
        return 1e3 * self.batch / self.step


class StageClock:
    """Times the stages of `Tracker.step` by marking where the network's encoder and heads begin and end."""

    def __init__(self, network: LocalizationNetwork, device: torch.device) -> None:
        self.device = device
        self.marks: list[float] | None = None
        for name in ("encode", "localize"):
            setattr(network, name, self._marked(getattr(network, name)))

    def stages(self, work: Callable[[], Any]) -> list[float]:
        """Milliseconds of each of `STAGES` in one step."""
        self.marks = []
        self._mark()
        work()
        self._mark()
        (start, encode, encoded, heads, localized, end), self.marks = self.marks, None
        return [1e3 * s for s in (encode - start, encoded - encode, localized - heads, end - localized)]

    def _mark(self) -> None:
        if self.marks is not None:  # not while a CUDA graph is recorded, which must not wait
            wait(self.device)
            self.marks.append(time.perf_counter())

    def _marked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:
            self._mark()
            result = function(*args, **kwargs)
            self._mark()
            return result

        return marked


def runs(seconds: float, work: Callable[[], Any], device: torch.device) -> list[Any]:
    """Results of `work`, again and again: first to warm up, then until the time is used, three times at least."""
    for _ in range(5 if device.type == "cuda" else 1):  # a CUDA graph is recorded at the second time
        work()
    results, start = [], time.perf_counter()
    while len(results) < 3 or time.perf_counter() - start < seconds:
        results.append(work())
    return results


def peak_flops(precision: Precision, device: torch.device) -> float:
    """FLOP a second of the fastest of some large square matrix products."""
    side = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=device).to(getattr(torch, precision))
    with computing(device, "float32"):  # what is float32 stays it
        return 2e3 * side**3 / min(runs(0.5, lambda: milliseconds(lambda: matrix @ matrix, device), device))


def measure(
    name: str,
    network: LocalizationNetwork,
    precision: Precision,
    batch: int,
    device: torch.device,
    seconds: float,
    compiled: bool,
    release: nn.Module | None = None,
) -> Row:
    """Measure a network in evaluation mode on the device."""
    templates = 1 if network.encoder.width < 512 else 2
    fast = optimize_for_inference(network, precision)
    if compiled:
        torch.compiler.reset()  # or torch would give up compiling after some rows
        torch._inductor.config.freezing = device.type == "cpu"
        fast.encode = torch.compile(fast.encode, dynamic=False)
        fast.localize = torch.compile(fast.localize, dynamic=False)
    clock = StageClock(fast, device)
    rule = TrackingRule(templates=templates)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (720, 1280, 3), dtype=np.uint8) for _ in range(2)]
    boxes_xywh = [[60.0 + 70 * (i % 16), 60.0 + 80 * (i // 16 % 8), 70.0, 50.0] for i in range(batch)]
    stepwise = Tracker(fast, rule, device, precision, cuda_graphs=False)
    states = stepwise.step([images[1]] * batch, stepwise.initialize([images[0]] * batch, boxes_xywh))

    size = network.encoder.search_size
    inputs = torch.randn(batch, 3, size, size, device=device)
    template_images = torch.randn(batch, templates, 3, *[network.encoder.template_size] * 2, device=device)
    template_boxes = torch.tensor([0.25, 0.25, 0.5, 0.5], device=device).expand(batch, templates, 4)

    def plain(memory: torch.Tensor | None) -> Any:
        with computing(device, "float32"):
            return plain_step(network, inputs, template_images, template_boxes, memory)

    def released(memory: Any) -> Any:
        with computing(device, "float32"):
            return None if release is None else release_step(release, inputs, template_images, template_boxes, memory)

    memory, release_memory = plain(None)[1], None if release is None else released(None)[1]
    measured = runs(
        seconds,
        lambda: (
            clock.stages(lambda: stepwise.step([images[1]] * batch, states)),
            milliseconds(lambda: plain(memory), device),
            milliseconds(lambda: released(release_memory), device),
        ),
        device,
    )
    stages = [statistics.median(column) for column in zip(*(stages for stages, _, _ in measured), strict=True)]
    step = sum(stages)
    if device.type == "cuda":
        tracker = Tracker(fast, rule, device, precision)
        step = statistics.median(
            runs(seconds, lambda: milliseconds(lambda: tracker.step([images[1]] * batch, states), device), device)
        )

    with computing(device, precision):
        found = fast(inputs, fast.encode_templates(template_images, template_boxes), memory, heads=("policy", "box"))
    expected = plain(memory)[0]
    differs = max(
        float((getattr(found[0], name) - getattr(expected, name)).abs().max())
        for name in ("policy_logits", "boxes_cxcywh")
    )
    encoded = network.encode_templates(template_images, template_boxes)
    with FlopCounterMode(display=False) as counter:
        network(inputs, encoded, memory, heads=("policy", "box"))
    plain_time = statistics.median(plain_time for _, plain_time, _ in measured)
    release_time = math.nan if release is None else statistics.median(release_time for _, _, release_time in measured)
    return Row(name, precision, batch, stages, step, plain_time, counter.get_total_flops(), differs, release_time)


def judged(rows: Sequence[Row]) -> Iterator[list[str]]:
    """The cells of the last table: what is wanted of an H200, the best that was measured, whether that is enough."""
    for model, (most, least) in H200_TARGETS.items():
        of_model = [row for row in rows if row.model == model]
        single = min((row for row in of_model if row.batch == 1), key=lambda row: row.step, default=None)
        batched = max((row for row in of_model if row.batch > 1), key=lambda row: row.frames_per_second, default=None)
        exact = max((row for row in of_model if row.precision == "float32"), key=lambda row: row.differs, default=None)
        if single is not None:
            met = "met" if single.step <= most else "missed"
            yield [model, f"at most {most} ms", f"{single.step:.2f} ms", single.precision, "batch 1", met]
        if batched is not None:
            rate = batched.frames_per_second
            met = "met" if rate >= least else "missed"
            wanted = f"at least {least} frames/s"
            yield [model, wanted, f"{rate:.0f} frames/s", batched.precision, f"batch {batched.batch}", met]
        if exact is not None:
            met = "met" if exact.differs <= TOLERANCE else "missed"
            wanted = f"differs by at most {TOLERANCE:g}"
            yield [model, wanted, f"{exact.differs:.1g}", exact.precision, f"batch {exact.batch}", met]


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--models", nargs="+", default=RELEASED, help="released variants (random weights) or model folders"
    )
    parser.add_argument("--batches", nargs="+", type=int, help="targets in one step; 1 4 16, on a GPU 64 too")
    parser.add_argument("--precisions", nargs="+", help="float32 and the reduced one chosen by trial, if not given")
    parser.add_argument("--device", help="such as cpu or cuda:1; the GPU if there is one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure each thing in a row")
    parser.add_argument("--compile", action="store_true", help="compile encoder and heads (a minute a row)")
    parser.add_argument("--release", type=Path, help="a checkout of the public release, to be timed in turn with ours")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        device = find_device(options.device)
    except UserError as error:
        parser.error(str(error))
    precisions = options.precisions or list(dict.fromkeys(["float32", fastest_precision(device)]))
    batches = options.batches or ([1, 4, 16, 64] if device.type == "cuda" else [1, 4, 16])
    peaks = {precision: peak_flops(precision, device) for precision in precisions}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} threads"
    listed = ", ".join(f"{precision} {peak / 1e9:,.0f} GFLOP/s" for precision, peak in peaks.items())
    print(f"{name}; torch {torch.__version__}; matrix products: {listed}.")
    _print_row(*COLUMNS)
    rows = []
    for model in options.models:
        network = open_network(model).eval().to(device)
        release = None
        if options.release is not None and model in RELEASED:
            release = release_network(options.release, model).to(device)
        for precision in precisions:
            for batch in batches:
                row = measure(
                    Path(model).name, network, precision, batch, device, options.seconds, options.compile, release
                )
                rows.append(row)
                _print_row(
                    row.model,
                    precision,
                    str(batch),
                    *(f"{stage / batch:.2f}" for stage in row.stages),
                    f"{row.step / batch:.2f}",
                    f"{row.frames_per_second:.1f}",
                    f"{row.flops / batch / 1e9:.1f}",
                    f"{1e3 * row.flops / row.step / peaks[precision]:.0%}",
                    f"{(row.stages[1] + row.stages[2]) / row.plain:.2f}",
                    f"{(row.stages[1] + row.stages[2]) / row.release:.2f}",
                    f"{row.differs:.1g}",
                )
    if device.type == "cuda":
        print(f"\nWanted of an H200, measured on {name}:")
        for cells in judged(rows):
            print("".join(f"{cell:<24}" for cell in cells))


def _print_row(*cells: str) -> None:
    print("".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
