"""`relo track` beside its tracker alone: frames a second, memory, and whether the boxes are the same.

    python benchmarks/track_command.py [--frames 10000] [--size 640 480] [--targets 1] [--model relo-small]

It makes a video (H.264, seeded), and tracks it three times on the CPU, each with the same number of threads:

    step      `tracker.step` on frames that are in memory; decoding does not count
    run       `tracker.run` on the video
    command   `relo track VIDEO --box ... --save ... --render ...`, in a process of its own

"frames/s" is from the first box to the last, "of step" its share of the rate of `step`; the command's second row
counts from the start of its process to its end, torch's import and the video's last frames included. "largest
difference" is that of any number of any box to those of `step`; the command writes ten-thousandths. "memory" is what
the command has resident after 500 frames (or a fifth of them) and with the last box (Linux only).
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from tables import parser_of, print_table

from relo.data.sequences.parsing import read_boxes
from relo.models.checkpoints.weights import SHIPPED
from relo.models.devices import fit_threads
from relo.tracking.crops import RGBImage
from relo.tracking.sources import open_frames
from relo.tracking.tracker import Tracker
from relo.tracking.video_writer import VideoWriter

SETTLED = 500
"""Frames after which memory should not grow."""

IN_MEMORY = 200
"""Frames that are decoded at once for `step`."""


@dataclass
class Watched:
    """What was seen of a command while it ran."""

    seconds: float = 0.0  # from the start to the end of its process
    reached: dict[int, float] = field(default_factory=dict)  # when so many frames had been found
    memory: dict[int, int] = field(default_factory=dict)  # bytes, likewise
    highest: int = 0  # bytes


def made_images(count: int, width: int, height: int, targets: int) -> Iterator[RGBImage]:
    """Textured squares that circle over a smooth background."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    background = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    side = min(width, height) // 10
    squares = [cv2.resize(random.integers(0, 256, (6, 6, 3), np.uint8), (side, side)) for _ in range(targets)]
    for index in range(count):
        image = background.copy()
        for square, (x, y, w, h) in zip(squares, boxes_at(index, width, height, targets), strict=True):
            image[y : y + h, x : x + w] = square
        yield image


def boxes_at(index: int, width: int, height: int, targets: int) -> list[list[int]]:
    """The squares' boxes x, y, w, h in a frame."""
    side = min(width, height) // 10
    angles = index / 60 + 2 * np.pi * np.arange(targets) / targets
    x = width / 2 - side / 2 + width / 3 * np.cos(angles)
    y = height / 2 - side / 2 + height / 3 * np.sin(angles)
    return [[round(left), round(top), side, side] for left, top in zip(x, y, strict=True)]


def step_alone(tracker: Tracker, video: Path, boxes_xywh: list[list[int]]) -> tuple[float, NDArray[np.float64]]:
    """Frames a second, and the boxes [T, B, 4]."""
    images = iter(open_frames(video))
    states = tracker.initialize([next(images)] * len(boxes_xywh), boxes_xywh)
    found, seconds = [[state.box_xywh.tolist() for state in states]], 0.0
    while chunk := list(islice(images, IN_MEMORY)):
        start = time.perf_counter()
        for image in chunk:
            states = tracker.step([image] * len(boxes_xywh), states)
            found.append([state.box_xywh.tolist() for state in states])
        seconds += time.perf_counter() - start
    return (len(found) - 1) / seconds, np.array(found)


def run_alone(tracker: Tracker, video: Path, boxes_xywh: list[list[int]]) -> tuple[float, NDArray[np.float64]]:
    """Frames a second, and the boxes [T, B, 4]."""
    results = tracker.run(video, boxes_xywh)
    found = [next(results).boxes_xywh]
    start = time.perf_counter()
    found += [result.boxes_xywh for result in results]
    return (len(found) - 1) / (time.perf_counter() - start), np.stack(found)


def watch(command: Sequence[str], boxes: Path, settled: int, count: int) -> Watched:
    """Run a command that writes a line per frame, and look at its lines and its memory meanwhile."""
    watched, start = Watched(), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.05)
            done = boxes.read_bytes().count(b"\n") if boxes.exists() else 0
            memory = resident_memory(process.pid)
            for mark in (1, settled, count):
                if done >= mark and mark not in watched.reached:
                    watched.reached[mark], watched.memory[mark] = time.perf_counter() - start, memory
            if settled in watched.reached and done < count:
                watched.highest = max(watched.highest, memory)
        watched.seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return watched


def resident_memory(process: int) -> int:
    """Bytes; 0 where it cannot be seen."""
    with suppress(OSError, ValueError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def compare(options: argparse.Namespace) -> Table:
    """Track three times."""
    count, (width, height) = options.frames, options.size
    settled = min(SETTLED, count // 5)
    boxes_xywh = boxes_at(0, width, height, options.targets)
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        video, boxes = folder / "video.mp4", folder / "boxes.txt"
        with VideoWriter(video, 30) as writer:
            for image in made_images(count, width, height, options.targets):
                writer.write(image)
        tracker = Tracker.from_pretrained(options.model, device="cpu")
        fit_threads(tracker.network)
        step_rate, expected = step_alone(tracker, video, boxes_xywh)
        run_rate, run_boxes = run_alone(tracker, video, boxes_xywh)
        command = [sys.executable, "-m", "relo", "track", str(video), "--model", options.model, "--device", "cpu"]
        command += ["--save", str(boxes), *([] if options.no_video else ["--render", str(folder / "out.mp4")])]
        command += [word for box in boxes_xywh for word in ("--box", ",".join(map(str, box)))]
        one_each = [folder / f"boxes_{i + 1}.txt" for i in range(options.targets)] if options.targets > 1 else [boxes]
        watched = watch(command, one_each[0], settled, count)
        command_boxes = np.stack([read_boxes(path) for path in one_each], axis=1)
    seconds = watched.reached[count] - watched.reached[1]
    engine, threads = tracker.engine, torch.get_num_threads()
    title = f"{count} frames of {width} x {height} px, targets: {options.targets}, {engine}, torch threads: {threads}"
    table = Table("", "frames/s", "of step", "largest difference (px)", title=title)
    for row, rate, found in (
        ("step", step_rate, expected),
        ("run", run_rate, run_boxes),
        ("command", (count - 1) / seconds, command_boxes),
        ("command, start and end included", count / watched.seconds, command_boxes),
    ):
        table.add_row(row, f"{rate:.1f}", f"{rate / step_rate:.3f}", f"{np.abs(found - expected).max():.5f}")
    early, late = watched.memory[settled], watched.memory[count]
    if early:
        table.caption = (
            f"memory: {early / 2**20:.0f} MiB after {settled} frames, {late / 2**20:.0f} at the end "
            f"({100 * (late / early - 1):+.1f} %), {watched.highest / 2**20:.0f} at most"
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--model", default=SHIPPED, help="a model's name, its folder, or a checkpoint")
    parser.add_argument("--no-video", action="store_true", help="leave --render out of the command")
    parser.add_argument("--folder", type=Path, help="where the videos lie meanwhile")
    print_table(parser, arguments, compare)


if __name__ == "__main__":
    main()
