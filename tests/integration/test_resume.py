"""A run that is resumed, wherever and however it stopped, has the losses of one that was not interrupted."""

import argparse
import contextlib
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from training_runs import ACTOR_CRITIC, WARMUP, config, losses, relo_here, start_relo, write_config

EPOCHS, STEPS = 3, 12


def settings(data, every_n_train_steps=None):
    content = config(data, WARMUP)
    content["trainer"]["max_epochs"] = EPOCHS
    content["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = every_n_train_steps
    scheduler = {"class_path": "torch.optim.lr_scheduler.OneCycleLR"}
    content["model"]["scheduler"] = {**scheduler, "init_args": {"max_lr": 1e-3, "total_steps": STEPS}}
    content["model"]["scheduler_interval"] = "step"
    return content


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    path = write_config(folder / "config.yaml", settings(data))
    with pytest.MonkeyPatch.context() as monkeypatch:
        relo_here(monkeypatch, "fit", "--config", path, cwd=folder)
    whole = losses(folder / "run")
    assert sorted(whole) == list(range(STEPS))
    assert len(set(whole.values())) == STEPS
    return whole


@pytest.mark.parametrize("stop", [4, 6], ids=["at an epoch's end", "within an epoch"])
def test_stopped_run_goes_on(data, uninterrupted, stop, tmp_path, monkeypatch):
    path = write_config(tmp_path / "config.yaml", settings(data))
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps", stop, cwd=tmp_path)
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", "last", cwd=tmp_path)
    assert losses(tmp_path / "run") == {step: loss for step, loss in uninterrupted.items() if step >= stop}
    # The log of the first part is kept beside it.
    assert losses(tmp_path / "run", "metrics_1.csv") == {s: loss for s, loss in uninterrupted.items() if s < stop}


def test_a_run_killed_after_an_epochs_last_batch_and_again_goes_on(data, tmp_path, monkeypatch):
    content = config(data, ACTOR_CRITIC)
    content["trainer"]["max_epochs"] = EPOCHS
    content["trainer"]["callbacks"][0]["init_args"] |= {"every_n_train_steps": 1, "save_top_k": -1}
    path = write_config(tmp_path / "config.yaml", content)
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path / "whole")
    whole = losses(tmp_path / "whole/run")
    saved = tmp_path / "whole"
    for first in (8, 9):  # saved after a batch, as what a kill leaves; 8 ends an epoch
        (checkpoint,) = (saved / "run/checkpoints").glob(f"*step={first}.ckpt")
        saved = tmp_path / f"from {first}"
        relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", checkpoint, cwd=saved)
        assert losses(saved / "run") == {step: whole[step] for step in range(first, STEPS)}


def test_policy_learning_goes_on_within_an_epoch(data, tmp_path, monkeypatch):
    content = config(data, ACTOR_CRITIC)
    path = write_config(tmp_path / "config.yaml", content)
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path / "whole")
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps", "2", cwd=tmp_path / "parts")
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", "last", cwd=tmp_path / "parts")
    whole, rest = losses(tmp_path / "whole/run"), losses(tmp_path / "parts/run")
    assert rest == {step: whole[step] for step in (2, 3)}


def test_killed_run_goes_on(data, uninterrupted, tmp_path, monkeypatch):
    process, path = _start_long_run(data, tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = max(losses(tmp_path / "run"))
    path = write_config(path, settings(data, every_n_train_steps=1))
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", "last", cwd=tmp_path)
    rest = losses(tmp_path / "run")
    assert 0 < min(rest) <= done + 1
    assert max(rest) == STEPS - 1
    assert rest == {step: uninterrupted[step] for step in rest}


@pytest.mark.parametrize(("number", "code", "said"), [
    (signal.SIGINT, 130, "what was finished is kept"), (signal.SIGTERM, 143, "stopped by SIGTERM"),
])  # fmt: skip
def test_interrupted_run_keeps_what_is_done(number, code, said, data, uninterrupted, tmp_path, monkeypatch):
    process, path = _start_long_run(data, tmp_path, every_n_train_steps=1000, workers=1)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: the loader's processes get it too
        time.sleep(0.1)  # and what has started it sends it once more
    process.send_signal(number)
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    assert said in err
    assert (tmp_path / "run/checkpoints/last.ckpt").exists()
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", "last", cwd=tmp_path)
    rest = losses(tmp_path / "run")
    assert min(rest) > 0
    assert rest == {step: pytest.approx(uninterrupted[step], rel=1e-4) for step in rest}


def test_a_checkpoint_that_a_killed_run_saved_last_is_saved_over(data, tmp_path, monkeypatch):
    path, folder = write_config(tmp_path / "config.yaml", settings(data)), tmp_path / "run/checkpoints"
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps", "4", cwd=tmp_path)
    last = shutil.copy(folder / "last.ckpt", tmp_path)
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", "last", "--trainer.max_steps", "8", cwd=tmp_path)
    shutil.copy(last, folder)  # it was killed before it saved its own
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", "last", cwd=tmp_path)
    assert {file.name for file in folder.iterdir()} == {"epoch=2-step=12.ckpt", "last.ckpt"}


def with_objects(path, changes):
    """The checkpoint with other values at places such as ("callbacks", 0, "a"): 0 is the first entry."""
    checkpoint = torch.load(path, weights_only=True)
    for place, value in changes.items():
        *parents, last = place
        part = checkpoint
        for name in parents:
            part = next(iter(part.values())) if name == 0 and isinstance(part, dict) else part[name]
        part[last] = value
    changed = path.with_name("changed.ckpt")
    torch.save(checkpoint, changed)
    return changed


def test_objects_in_a_checkpoint_do_not_stop_what_can_do_without_them(data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", config(data, WARMUP))
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path / "whole")
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps", "2", cwd=tmp_path)
    last = shutil.copy(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "2 steps.ckpt")
    somebodys = argparse.Namespace(momentum=0.9)
    changed = with_objects(
        last,
        {("callbacks", 0, "best_model_score"): np.float64(0.5), ("callbacks", "Another"): {"args": somebodys}},
    )
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", changed, cwd=tmp_path)
    whole = losses(tmp_path / "whole/run")
    assert losses(tmp_path / "run") == {step: whole[step] for step in (2, 3)}

    for place in [("callbacks", 0, "best_model_score"), ("optimizer_states", 0, "state", 0, "step")]:
        changed = with_objects(last, {place: somebodys})
        tracked = ("--ckpt_path", changed, "--trainer.limit_val_batches=1.0")
        relo_here(monkeypatch, "validate", "--config", path, *tracked, cwd=tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", changed, cwd=tmp_path)
        sentence = capsys.readouterr().err.splitlines()[-1]
        for word in (str(changed), place[-1], "would run code of argparse.Namespace"):
            assert word in sentence


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_file_that_no_fit_has_saved(data, network, tmp_path, monkeypatch, capsys, command):
    """It has weights and names its network, but nothing of a training."""
    path = write_config(tmp_path / "config.yaml", config(data, WARMUP))
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state, "relo_network": network.config()}, tmp_path / "weights.ckpt")
    named = ("--ckpt_path", tmp_path / "weights.ckpt", "--trainer.limit_val_batches=1.0")
    with pytest.raises(SystemExit, match="2"):
        relo_here(monkeypatch, command, "--config", path, *named, cwd=tmp_path)
    assert "weights.ckpt lacks 'pytorch-lightning_version', so no fit has saved it" in capsys.readouterr().err


def _start_long_run(data, folder, every_n_train_steps=1, workers=0):
    """A run that is in its steps: it takes a while for each, and has done a few."""
    content = settings(data, every_n_train_steps)
    content["data"]["workers"] = workers
    content["trainer"]["callbacks"].append({"class_path": "slow_steps.SlowSteps"})
    path = write_config(folder / "config.yaml", content)
    process = start_relo("fit", "--config", path, cwd=folder)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if len(losses(folder / "run")) >= 3:
                return process, path
        time.sleep(0.05)
    process.kill()
    return pytest.fail(f"the run did not start: {process.communicate()}")
