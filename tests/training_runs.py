"""Runs of the whole chain at a size of seconds: synthetic stores, configs, and `relo` in this or another process."""

import csv
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import refusals
from relo.commands.main import main
from relo.data.packing import pack
from relo.data.sequences import open_reader
from relo.data.synthetic.command import synthesize

HEADS = {"channels": 16, "hidden": [8, 8]}
NETWORK = {
    "class_path": "relo.models.network.LocalizationNetwork",
    "init_args": {
        "encoder": {
            "class_path": "relo.models.encoders.nano.Nano",
            "init_args": {
                "width": 32,
                "depth": 2,
                "heads": 2,
                "stem": [8, 16, 16],
                "correlation_groups": 4,
                "channels": 16,
                "search_size": 64,
                "template_size": 32,
            },
        },
        "propagator": {
            "class_path": "relo.models.temporal.LayerAligned",
            "init_args": {"width": 32, "tokens": 2, "depth": 2},
        },
        "policy": {"class_path": "relo.models.heads.ConvPolicy", "init_args": HEADS},
        "box": {"class_path": "relo.models.heads.ConvBox", "init_args": HEADS},
        "critic": {"class_path": "relo.models.heads.ConvCritic", "init_args": HEADS},
        "prior": {"class_path": "relo.models.heads.ConvPrior", "init_args": HEADS},
    },
}
WARMUP = {
    "class_path": "relo.learning.warmup.WarmupObjective",
    "init_args": {"prior": {"class_path": "relo.learning.priors.GaussianPrior"}},
}
ACTOR_CRITIC = {"class_path": "relo.learning.policy.ActorCritic"}
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "weight_decay": 1e-4}}


@dataclass(frozen=True)
class Data:
    """12 sequences of 24 frames to train on, and 3 of 12 frames that were held out; 160 x 120 px."""

    train: Path  # clip stores
    test: Path
    test_root: Path  # the held-out sequences in LaSOT's layout


def make_data(folder: Path) -> Data:
    size = {"width": 160, "height": 120, "workers": 0}
    synthesize(folder / "raw_train", layout="got10k", split="train", sequences=12, frames=24, **size)
    synthesize(folder / "raw_test", layout="lasot", split="test", sequences=3, frames=12, **size)
    data = Data(folder / "train", folder / "test", folder / "raw_test")
    console = Console(quiet=True)
    pack(open_reader("got10k", folder / "raw_train", "train"), data.train, split="train", console=console)
    pack(open_reader("lasot", data.test_root, "test"), data.test, split="test", console=console)
    return data


def config(data: Data, objective: dict[str, Any], **model: Any) -> dict[str, Any]:
    """A config of 4 steps an epoch that leaves everything in `run` of the working directory."""
    return {
        "seed_everything": 0,
        "trainer": {
            "default_root_dir": "run",
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "log_every_n_steps": 1,
            "limit_val_batches": 0,
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": "run", "name": "log", "version": "", "flush_logs_every_n_steps": 1},
            },
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"dirpath": "run/checkpoints", "save_last": True},
                }
            ],
        },
        "model": {"network": NETWORK, "objective": objective, "optimizer": ADAMW, **model},
        "data": {
            "train": [{"path": str(data.train)}],
            "validation": [{"path": str(data.test)}],
            "sampler": {
                "class_path": "relo.data.sampler.OrderSampler",
                "init_args": {"templates": 1, "search_frames": 2},
            },
            "clips_per_epoch": 8,
            "batch_size": 2,
            "workers": 0,
        },
    }


def write_config(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def environment() -> dict[str, str]:
    """One thread a process; this file's folder can be imported from."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}


def start_relo(
    *arguments: object, cwd: Path, launcher: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, "-m", "relo", *map(str, arguments)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # In a session of its own, as from a shell: a signal can be sent to it and its workers alone.
    variables = environment() | dict(variables or {})
    return subprocess.Popen(command, cwd=cwd, env=variables, start_new_session=True, **pipes)


def relo(*arguments: object, cwd: Path, launcher: Sequence[str] = ()) -> str:
    """Run the command in a process of its own, or as a launcher starts it, and give what it printed."""
    process = start_relo(*arguments, cwd=cwd, launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return out + err


def relo_here(monkeypatch: pytest.MonkeyPatch, *arguments: object, cwd: Path) -> None:
    """Run the command in this process."""
    _enter(monkeypatch, cwd)
    main([str(argument) for argument in arguments])


def _enter(monkeypatch: pytest.MonkeyPatch, cwd: Path) -> None:
    cwd.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", ["relo"])


def losses(run: Path, log: str = "metrics.csv") -> dict[int, float]:
    """The loss of every step that a run has logged."""
    with (run / "log" / log).open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}


def refused(monkeypatch, capsys, cwd: Path, *arguments: object) -> str:
    """The one sentence that a command ends with, run in a folder."""
    _enter(monkeypatch, cwd)
    return refusals.refused(capsys, *arguments)
