"""`relo track` beside its tracker alone: frames a second, memory, and whether the boxes are the same.

    python benchmarks/track_command.py [--frames 10000] [--size 640 480] [--targets 1] [--model relo-small]

It makes a video (H.264, seeded), and tracks it three times on the CPU, each with the same number of threads:

    step      `tracker.step` on frames that are in memory; decoding does not count
    run       `tracker.run` on the video
    command   `relo track VIDEO --box ... --save ... --render ...`, in a process of its own

All take turns of --turn seconds, in which the command's process is stopped while the others work, since the speed of a
machine that others share changes within minutes. "frames/s" is the median over the turns, "of step" the median of the
rate in a turn by that of `step` in the same round. "largest difference" is that of any number of any box to those of
`step`; the command writes ten-thousandths. "memory" is what the command has resident after 500 frames (or a fifth of
them), with the last box, and at most after it, when the video is copied with its index first; it is run once more for
that, without a stop. Only Linux and macOS can stop a process, and only Linux tells its memory.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from rich.table import Table
from tables import parser_of, print_table

from relo.data.sequences.parsing import read_boxes
from relo.errors import UserError
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


Found = list[list[list[float]]]
"""Boxes x, y, w, h of B targets in T frames."""


def step_alone(tracker: Tracker, video: Path, boxes_xywh: list[list[int]], found: Found) -> Iterator[float]:
    """Track a video whose frames are decoded before they count: the seconds of each frame after the first."""
    images = iter(open_frames(video))
    states = tracker.initialize([next(images)] * len(boxes_xywh), boxes_xywh)
    found.append([state.box_xywh.tolist() for state in states])
    while chunk := list(islice(images, IN_MEMORY)):
        for image in chunk:
            start = time.perf_counter()
            states = tracker.step([image] * len(boxes_xywh), states)
            found.append([state.box_xywh.tolist() for state in states])
            yield time.perf_counter() - start


def run_alone(tracker: Tracker, video: Path, boxes_xywh: list[list[int]], found: Found) -> Iterator[float]:
    """Track a video: the seconds of each frame after the first."""
    results = tracker.run(video, boxes_xywh)
    found.append(next(results).boxes_xywh.tolist())
    while True:
        start = time.perf_counter()
        result = next(results, None)
        if result is None:
            return
        found.append(result.boxes_xywh.tolist())
        yield time.perf_counter() - start


def turn_of(frames: Iterator[float], seconds: float) -> float:
    """Work for so many seconds: frames a second, or nan where there are no more."""
    spent, count = 0.0, 0
    for time_of_frame in frames:
        spent, count = spent + time_of_frame, count + 1
        if spent >= seconds:
            return count / spent
    return float("nan")


@dataclass
class Command:
    """A process that writes a line per frame, stopped between its turns."""

    process: subprocess.Popen[bytes]
    boxes: Path

    def done(self) -> int:
        """The frames that have their boxes."""
        return self.boxes.read_bytes().count(b"\n") if self.boxes.exists() else 0

    def begin(self) -> None:
        """Wait for the first box, and stop."""
        while self.process.poll() is None and not self.done():
            time.sleep(0.05)
        self._signal("SIGSTOP")

    def turn(self, seconds: float) -> float:
        """Let it work for so many seconds: frames a second, or nan where it has ended."""
        self._signal("SIGCONT")
        start, before = time.perf_counter(), self.done()
        deadline = start + seconds
        while self.process.poll() is None and time.perf_counter() < deadline:
            time.sleep(0.05)
        done, spent = self.done(), time.perf_counter() - start
        if self.process.poll() is not None:
            return float("nan")
        self._signal("SIGSTOP")
        return (done - before) / spent

    def memory(self, settled: int, count: int) -> tuple[int, int, int]:
        """Let it work to its end: the bytes held after `settled` frames, with the last one, and at most after that."""
        early = late = most = 0
        while self.process.poll() is None:
            held = resident_memory(self.process.pid)
            done = self.done()
            if not early and done >= settled:
                early = held
            if done < count:
                late = held or late
            else:
                most = max(most, held)
            time.sleep(0.05)
        return early, late, most

    def _signal(self, name: str) -> None:
        if self.process.poll() is None:
            self.process.send_signal(getattr(signal, name))


def resident_memory(process: int) -> int:
    """Bytes; 0 where it cannot be seen."""
    with suppress(OSError, ValueError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def compare(options: argparse.Namespace) -> Table:
    """Track three times, in turns."""
    count, (width, height) = options.frames, options.size
    boxes_xywh = boxes_at(0, width, height, options.targets)
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        video, boxes = folder / "video.mp4", folder / "boxes.txt"
        with VideoWriter(video, 30) as writer:
            for image in made_images(count, width, height, options.targets):
                writer.write(image)
        tracker = Tracker.from_pretrained(options.model, device="cpu")
        fit_threads(tracker.network, options.targets)
        words = [sys.executable, "-m", "relo", "track", str(video), "--model", options.model, "--device", "cpu"]
        words += ["--save", str(boxes), *([] if options.no_video else ["--render", str(folder / "out.mp4")])]
        words += [word for box in boxes_xywh for word in ("--box", ",".join(map(str, box)))]
        one_each = [folder / f"boxes_{i + 1}.txt" for i in range(options.targets)] if options.targets > 1 else [boxes]
        step_found, run_found = Found(), Found()
        step = step_alone(tracker, video, boxes_xywh, step_found)
        run = run_alone(tracker, video, boxes_xywh, run_found)
        rates: dict[str, list[float]] = {"step": [], "run": [], "command": []}
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            try:
                command = Command(process, one_each[0])
                command.begin()
                works = (partial(turn_of, step), partial(turn_of, run), command.turn)
                while not np.isnan(turns := [work(options.turn) for work in works]).any():
                    for of_work, rate in zip(rates.values(), turns, strict=True):
                        of_work.append(rate)
                if not process.poll():
                    for work in works:
                        work(float("inf"))
            finally:
                process.kill()  # it may be stopped, and would be waited for
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words)
        if not rates["step"]:
            raise UserError(f"{count} frames do not last for a turn of {options.turn} s: lower --turn.")
        command_found = np.stack([read_boxes(path) for path in one_each], axis=1)
        one_each[0].unlink()
        settled = min(SETTLED, count // 5)
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            early, late, most = Command(process, one_each[0]).memory(settled, count)
    engine, threads = tracker.engine, torch.get_num_threads()
    title = f"{count} frames of {width} x {height} px, targets: {options.targets}, {engine}, torch threads: {threads}"
    title += f", rounds: {len(rates['step'])}"
    table = Table("", "frames/s", "of step", "largest difference (px)", title=title)
    for (row, of_row), found in zip(rates.items(), (step_found, run_found, command_found), strict=True):
        share = statistics.median(rate / by for rate, by in zip(of_row, rates["step"], strict=True))
        difference = np.abs(np.array(found) - step_found).max()
        table.add_row(row, f"{statistics.median(of_row):.1f}", f"{share:.3f}", f"{difference:.5f}")
    if early:
        table.caption = (
            f"memory: {early / 2**20:.0f} MiB after {settled} frames, {late / 2**20:.0f} with the last box "
            f"({100 * (late / early - 1):+.1f} %), {most / 2**20:.0f} at most while files are finished"
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--model", default=SHIPPED, help="a model's name, its folder, or a checkpoint")
    parser.add_argument("--turn", type=float, default=3.0, help="seconds that each works before the next")
    parser.add_argument("--no-video", action="store_true", help="leave --render out of the command")
    parser.add_argument("--folder", type=Path, help="where the videos lie meanwhile")
    print_table(parser, arguments, compare)


if __name__ == "__main__":
    main()
