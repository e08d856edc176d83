"""A job that SLURM has requeued: which checkpoint it goes on from."""

import os
import shutil

import pytest

from relo.models.checkpoints.weights import save_network
from small_networks import make_network
from training_runs import WARMUP, config, losses, relo_here, write_config


@pytest.fixture
def path(data, tmp_path):
    """A config that saves the last checkpoint at every step."""
    settings = config(data, WARMUP, localizations=["prior"])
    settings["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = 1
    return write_config(tmp_path / "config.yaml", settings)


@pytest.fixture
def on_slurm(monkeypatch):
    """Lets what is started be a job of one task."""

    def start():
        for name, value in {"NTASKS": "1", "JOB_NAME": "fit", "JOB_ID": "1", "PROCID": "0", "LOCALID": "0"}.items():
            monkeypatch.setenv(f"SLURM_{name}", value)

    return start


@pytest.mark.parametrize(("newest", "steps"), [("last", {3}), ("requeued", {1, 2, 3})])
def test_a_requeued_fit_goes_on_from_the_newest_checkpoint(newest, steps, path, on_slurm, tmp_path, monkeypatch):
    last, requeued = tmp_path / "run/checkpoints/last.ckpt", tmp_path / "run/hpc_ckpt_1.ckpt"
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps=1", cwd=tmp_path)
    shutil.copy(last, requeued)
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps=3", "--ckpt_path=last", cwd=tmp_path)
    os.utime(last if newest == "requeued" else requeued, (0, 0))
    on_slurm()
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps=4", cwd=tmp_path)
    assert losses(tmp_path / "run").keys() == steps


@pytest.mark.parametrize("steps", [{0, 1, 2, 3}, {1, 2, 3}])
def test_a_fit_that_was_killed_as_it_was_requeued(steps, path, on_slurm, tmp_path, monkeypatch):
    if 0 not in steps:  # it has saved its last step before
        relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps=1", cwd=tmp_path)
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run/.hpc_ckpt_1.ckpt.7@node").touch()  # which Lightning takes for number 17
    on_slurm()
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert losses(tmp_path / "run").keys() == steps


def test_a_validation_scores_the_model_that_is_named(path, on_slurm, tmp_path, monkeypatch):
    save_network(make_network(), tmp_path / "model")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/hpc_ckpt_1.ckpt").touch()
    on_slurm()
    options = f"--model.init_from={tmp_path / 'model'}", "--trainer.limit_val_batches=1.0"
    relo_here(monkeypatch, "validate", "--config", path, *options, cwd=tmp_path)
    assert (tmp_path / "run/validation/scores.json").exists()
