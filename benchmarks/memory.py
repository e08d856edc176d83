"""Whether memory stays flat over many tracked frames and many training steps.

    python benchmarks/memory.py [--frames 100000] [--steps 10000] [--models relo-small nano] [--training nano]

A row is work in a process of its own. Its memory, without pages of files, is given in MB after 10 %, 50 % and 100 % of
the work, each the median of the last twentieth; "growth" is from 10 %, which is the work's warm-up, to the end. The
command fails where one grows by more than 5 %.

Tracking goes frame by frame, with two templates, one of which is renewed, and lost and found on; frames are 320 x 240,
and every fourth second hides the target. A model is a name, a folder or a file of configs/model, whose weights are
then random. Training is `relo fit` with warm-up and RL on synthetic clips, with a log and checkpoints. Only Linux tells
what a process holds.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from lightning import Callback
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tables import config_of, open_network, parser_of

from relo.commands.main import main as relo
from relo.data.packing import pack
from relo.data.sequences import open_reader
from relo.data.synthetic.command import synthesize
from relo.errors import UserError
from relo.models.presence import ConvPresence
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker

LIMIT = 0.05  # of growth
PARTS = (0.1, 0.5, 1.0)
SIDE = 48  # of the target, in pixels
RULE = TrackingRule(
    templates=2,
    template_update_interval=10,
    template_update_threshold=-1e9,
    lost_after=5,
    search_window=2.0,
)
REWARDS = [{"class_path": f"relo.learning.rewards.{name}"} for name in ("IoUReward", "AUCReward")]
OBJECTIVES: dict[str, dict[str, Any]] = {
    "warm-up": {
        "class_path": "relo.learning.warmup.WarmupObjective",
        "init_args": {"prior": {"class_path": "relo.learning.priors.GaussianPrior"}},
    },
    "RL": {"class_path": "relo.learning.policy.ActorCritic", "init_args": {"rewards": REWARDS}},
}


class Samples:
    """The memory of this process as some work goes on."""

    def __init__(self, count: int) -> None:
        self.megabytes: dict[int, list[float]] = {part: [] for part in range(len(PARTS))}
        self._count = count

    def take(self, done: int) -> None:
        """Look at the memory, if so much is done that it counts."""
        if self._count >= 1000 and done % (self._count // 1000):
            return
        for part, share in enumerate(PARTS):
            if share - 0.05 < done / self._count <= share:
                self.megabytes[part].append(own_megabytes())

    def medians(self) -> list[float]:
        """After each part."""
        return [statistics.median(values) for values in self.megabytes.values()]


class Probe(Callback):
    """Samples the memory of a fit after its steps, and leaves them in a file."""

    def __init__(self, path: str, steps: int) -> None:
        self._path, self._samples = Path(path), Samples(steps)

    def on_train_batch_end(self, trainer: Any, *_: object) -> None:
        """Look at the memory."""
        self._samples.take(trainer.global_step)

    def on_train_end(self, *_: object) -> None:
        """Write the medians."""
        self._path.write_text(json.dumps(self._samples.medians()))


def own_megabytes() -> float:
    """What this process holds, without pages of files."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def frames() -> Iterator[tuple[np.ndarray, list[float]]]:
    """Images [240, 320, 3] without end of a thing that circles over noise, and hides now and then; its box_xywh."""
    generator = np.random.default_rng(0)
    background = cv2.resize(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8), (320, 240))
    thing = cv2.resize(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8), (SIDE, SIDE))
    number = 0
    while True:
        image, angle = background.copy(), number / 40
        x, y = round(136 + 100 * np.cos(angle)), round(96 + 80 * np.sin(angle))
        if number % 100 < 75:
            image[y : y + SIDE, x : x + SIDE] = thing
        yield image, [float(x), float(y), SIDE, SIDE]
        number += 1


def track(model: str, count: int) -> list[float]:
    """Memory while so many frames are tracked."""
    torch.manual_seed(0)
    network = open_network(model)
    if network.presence is None:
        network.presence = ConvPresence(network.encoder.channels)
    rule = replace(RULE, localization=network.presence.localization)
    tracker = Tracker(network, rule, device="cpu")
    images, samples = frames(), Samples(count)
    image, box_xywh = next(images)
    states = tracker.initialize([image], [box_xywh])
    for done in range(1, count + 1):
        states = tracker.step([next(images)[0]], states)
        samples.take(done)
    return samples.medians()


def train(model: str, objective: str, count: int) -> list[float]:
    """Memory while so many steps are trained."""
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as nowhere:
        folder, store = Path(name), Path(name) / "clips"
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            size = {"width": 160, "height": 120, "workers": 0}
            synthesize(folder / "raw", layout="got10k", split="train", sequences=20, frames=24, **size)
            pack(open_reader("got10k", folder / "raw", "train"), store, split="train", console=Console(quiet=True))
            path = folder / "fit.yaml"
            path.write_text(yaml.safe_dump(fit_config(folder, store, model, objective, count)))
            relo(["fit", "--config", str(path)])
        medians: list[float] = json.loads((folder / "memory.json").read_text())
        return medians


def fit_config(folder: Path, store: Path, model: str, objective: str, count: int) -> dict[str, Any]:
    """Settings of a fit that logs, saves and samples its memory."""
    logger = {"save_dir": str(folder), "name": "log", "version": ""}
    return {
        "trainer": {
            "default_root_dir": str(folder),
            "accelerator": "cpu",
            "max_steps": count,
            "enable_progress_bar": False,
            "limit_val_batches": 0,
            "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger},
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"every_n_train_steps": max(1, count // 100), "save_last": True},
                },
                {
                    "class_path": "memory.Probe",
                    "init_args": {"path": str(folder / "memory.json"), "steps": count},
                },
            ],
        },
        "model": {
            "network": str(config_of(model).resolve()),
            "objective": OBJECTIVES[objective],
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}},
        },
        "data": {
            "train": [{"path": str(store)}],
            "sampler": {
                "class_path": "relo.data.sampler.OrderSampler",
                "init_args": {"templates": 1, "search_frames": 2},
            },
            "clips_per_epoch": 1000,
            "batch_size": 2,
            "workers": 0,
        },
    }


def tabulate(options: argparse.Namespace) -> tuple[Table, bool]:
    """Do all the work; whether memory stayed flat.

    Raises:
        UserError: a model cannot be read.
    """
    if not os.path.exists("/proc/self/status"):
        raise UserError("Memory is read from /proc, which Linux alone has.")
    for model in (*options.models, *options.training):
        if model.endswith(".yaml") and not Path(model).is_file():
            raise UserError(f"There is no model {model}.")
    rows: list[tuple[str, int, Callable[[], list[float]]]] = [
        (f"track, {Path(model).stem}", options.frames, partial(track, model, options.frames))
        for model in options.models
    ]
    rows += [
        (f"{objective}, {Path(model).stem}", options.steps, partial(train, model, objective, options.steps))
        for model in options.training
        for objective in OBJECTIVES
    ]
    titles = [f"{round(100 * share)} %" for share in PARTS]
    table = Table("work", "frames or steps", *titles, "growth", title="Memory of a process (MB)", box=SIMPLE_HEAD)
    is_flat = True
    context = multiprocessing.get_context("spawn")
    for name, count, work in rows:
        with context.Pool(1) as pool:
            megabytes = pool.apply(work)
        growth = megabytes[-1] / megabytes[0] - 1
        is_flat &= growth <= LIMIT
        table.add_row(name, f"{count:,}", *(f"{value:.1f}" for value in megabytes), f"{100 * growth:+.1f} %")
    return table, is_flat


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--models", nargs="*", default=["relo-small", "nano"], help="to track with")
    parser.add_argument("--training", nargs="*", default=["nano"], help="files of configs/model to train")
    options = parser.parse_args(arguments)
    if min(options.frames, options.steps) < 20:
        parser.error("memory is measured over 20 frames and steps at least")
    try:
        table, is_flat = tabulate(options)
    except UserError as error:
        parser.error(str(error))
    Console().print(table)
    if not is_flat:
        parser.exit(1, f"Memory grows by more than {100 * LIMIT:.0f} %.\n")


if __name__ == "__main__":
    main()
