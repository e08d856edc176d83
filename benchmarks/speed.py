"""How fast the networks track, stage by stage, against the plain path and against what the machine can multiply.

    python benchmarks/speed.py [--models t256 b256 l256] [--batches 1 4 16] [--device cuda] [--compile]

A row is a network, a precision and a batch of targets in one 1280 x 720 video. Times are medians of few runs, in
milliseconds a frame of one target; another program on the same cores shows in them. Weights are random unless a model
folder is named; they do not change the speed. "GFLOP" counts a multiply-add as two; "of peak" is their rate as a
share of the fastest square matrix product measured in the same precision. "of plain" is the time of encoder and heads
as a share of the plain path's (see plain.py) in float32 at the same batch; the two are measured in turn. "box px" is
the largest difference between the two in any cell's box.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain import plain_step
from torch.utils.flop_counter import FlopCounterMode

from relo.inference import Precision, fastest_precision, optimize_for_inference
from relo.models.network import LocalizationNetwork
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from relo.weights import load_network, released_network

STAGES = ("crop", "encode", "heads", "decode")
RELEASED = ("t256", "b256", "l256")


class StageClock:
    """Times the stages of `Tracker.step` by marking where the network's encoder and heads begin and end."""

    def __init__(self, network: LocalizationNetwork, device: torch.device) -> None:
        self.device = device
        self.marks: list[float] = []
        for name in ("encode", "localize"):
            setattr(network, name, self._marked(getattr(network, name)))

    def mark(self) -> None:
        """Take the time, when the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.append(time.perf_counter())

    def stages(self, work: Callable[[], Any]) -> list[float]:
        """Milliseconds of each of `STAGES` in one step."""
        self.marks = []
        self.mark()
        work()
        self.mark()
        start, encode, encoded, heads, localized, end = self.marks
        return [1e3 * s for s in (encode - start, encoded - encode, localized - heads, end - localized)]

    def _marked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:
            self.mark()
            result = function(*args, **kwargs)
            self.mark()
            return result

        return marked


def runs(seconds: float, work: Callable[[], Any]) -> list[Any]:
    """Results of `work`, again and again: once to warm up, then until the time is used, three times at least."""
    work()
    results, start = [], time.perf_counter()
    while len(results) < 3 or time.perf_counter() - start < seconds:
        results.append(work())
    return results


def peak_flops(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP a second of the fastest of some large square matrix products."""
    side = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=device).to(dtype)

    def product() -> float:
        start = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return 2 * side**3 / min(runs(0.5, product))


def measure(
    network: LocalizationNetwork, precision: Precision, batch: int, device: torch.device, seconds: float, compiled: bool
) -> tuple[list[float], float, float, float]:
    """Medians of the stages and of the plain path (ms a step), FLOP a step, largest difference of boxes (px)."""
    templates = 1 if network.encoder.width < 512 else 2
    fast = optimize_for_inference(network, precision)
    if compiled:
        torch._inductor.config.freezing = device.type == "cpu"
        fast.encode = torch.compile(
            fast.encode, dynamic=False, mode=None if device.type == "cpu" else "max-autotune-no-cudagraphs"
        )
    tracker = Tracker(fast, TrackingRule(templates=templates), device, precision)
    clock = StageClock(fast, device)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (720, 1280, 3), dtype=np.uint8) for _ in range(2)]
    boxes_xywh = [[60.0 + 70 * (i % 16), 40.0 * (i + 1), 70.0, 50.0] for i in range(batch)]
    states = tracker.step([images[1]] * batch, tracker.initialize([images[0]] * batch, boxes_xywh))
    size = network.encoder.search_size
    inputs = torch.randn(batch, 3, size, size, device=device)
    template_images = torch.randn(batch, templates, 3, *[network.encoder.template_size] * 2, device=device)
    template_boxes = torch.tensor([0.25, 0.25, 0.5, 0.5], device=device).expand(batch, templates, 4)
    memory = network(inputs, network.encode_templates(template_images, template_boxes))[1]

    def plain() -> Any:
        return plain_step(network, inputs, template_images, template_boxes, memory)

    def both() -> tuple[list[float], float]:
        stages = clock.stages(lambda: tracker.step([images[1]] * batch, states))
        clock.mark()
        plain()
        clock.mark()
        return stages, 1e3 * (clock.marks[-1] - clock.marks[-2])

    measured = runs(seconds, both)
    stages = [statistics.median(column) for column in zip(*(stages for stages, _ in measured), strict=True)]
    with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
        fast_templates = fast.encode_templates(template_images, template_boxes)
        with FlopCounterMode(display=False) as counter:
            network(inputs, network.encode_templates(template_images, template_boxes), memory, skip=("critic", "prior"))
        found = fast(inputs, fast_templates, memory, skip=("critic", "prior"))[0]
    difference = size * float((found.boxes_cxcywh - plain()[0].boxes_cxcywh).abs().max())
    template_flops = _template_flops(network, template_images, template_boxes)
    return stages, statistics.median(t for _, t in measured), counter.get_total_flops() - template_flops, difference


def _template_flops(network: LocalizationNetwork, images: torch.Tensor, boxes_xywh: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network.encode_templates(images, boxes_xywh)
    return counter.get_total_flops()


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=RELEASED, help="released variants (random weights) or model folders"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16], help="targets in one step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure a row")
    parser.add_argument("--compile", action="store_true", help="compile the encoder (a minute a row)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    reduced = fastest_precision(device)
    precisions: list[Precision] = ["float32"] if reduced == "float32" else ["float32", reduced]
    peaks = {precision: peak_flops(getattr(torch, precision), device) for precision in precisions}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} threads"
    listed = ", ".join(f"{precision} {peak / 1e9:,.0f} GFLOP/s" for precision, peak in peaks.items())
    print(f"{name}; matrix products: {listed}; reduced precision chosen by trial: {reduced}.")
    _print_row("model", "precision", "batch", *STAGES, "ms", "frames/s", "GFLOP", "of peak", "of plain", "box px")
    for model in options.models:
        network = released_network(model) if model in RELEASED else load_network(model)
        network = network.eval().to(device)
        for precision in precisions:
            for batch in options.batches:
                stages, plain, flops, difference = measure(
                    network, precision, batch, device, options.seconds, options.compile
                )
                total, computed = sum(stages), stages[1] + stages[2]
                _print_row(
                    Path(model).name,
                    precision,
                    str(batch),
                    *(f"{stage / batch:.2f}" for stage in stages),
                    f"{total / batch:.2f}",
                    f"{1e3 * batch / total:.1f}",
                    f"{flops / batch / 1e9:.1f}",
                    f"{flops / (computed / 1e3) / peaks[precision]:.0%}",
                    f"{computed / plain:.2f}",
                    f"{difference:.1g}",
                )


def _print_row(*cells: str) -> None:
    print("".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
