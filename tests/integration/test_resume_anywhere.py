"""Runs that are stopped in a validation, between batches of one step, or at an epoch's end lose and repeat nothing."""

import csv
import shutil
import signal

import pytest
import torch

from relo.errors import UserError
from relo.files import machine
from relo.models.checkpoints.weights import read_checkpoint, save_network
from training_runs import WARMUP, config, losses, relo_here, write_config

SIGINT, SIGTERM = ("SIGINT", 130), ("SIGTERM", 143)


@pytest.fixture(autouse=True)
def same_handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def settings(data, **trainer):
    content = config(data, WARMUP, localizations=["prior"])
    content["trainer"] |= {"max_epochs": 3, **trainer}
    content["data"]["validation_batch"] = 1  # of three sequences
    return content


def fit(monkeypatch, content, cwd, *options):
    relo_here(monkeypatch, "fit", "--config", write_config(cwd / "config.yaml", content), *options, cwd=cwd)


def fit_until(monkeypatch, content, cwd, stop, *options):
    """A fit that is stopped: by a signal, in a hook, at its n-th call."""
    (name, code), hook, count = stop
    callbacks = content["trainer"]["callbacks"]
    signalling = {"class_path": "signal_at.SignalAt", "init_args": {"name": name, "hook": hook, "count": count}}
    stopped = content | {"trainer": content["trainer"] | {"callbacks": [*callbacks, signalling]}}
    with pytest.raises(SystemExit) as end:
        fit(monkeypatch, stopped, cwd, *options)
    assert end.value.code == code


def scores(run):
    """The scores of every validation that a run has logged, by step."""
    with (run / "log/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/prior_auc")]
    return {int(row["step"]): row["val/prior_auc"] for row in rows}


def later(values, step):
    return {key: value for key, value in values.items() if key >= step}


@pytest.fixture(scope="module")
def validated(data, tmp_path_factory):
    """A run of three epochs, with a validation at the end of each."""
    folder = tmp_path_factory.mktemp("validated")
    with pytest.MonkeyPatch.context() as monkeypatch:
        content = settings(data, limit_val_batches=1.0)
        content["trainer"]["callbacks"][0]["init_args"] |= {"every_n_train_steps": 1, "save_top_k": -1}
        fit(monkeypatch, content, folder)
    assert sorted(scores(folder / "run")) == [3, 7, 11]
    return folder / "run"


@pytest.mark.parametrize("stop", [
    pytest.param((SIGINT, "on_validation_batch_end", 5), id="Ctrl-C in the second validation"),
    pytest.param((SIGTERM, "on_validation_batch_start", 5), id="SIGTERM in the second validation"),
    pytest.param((SIGTERM, "on_validation_batch_start", 6), id="SIGTERM in the last batch of the second validation"),
    pytest.param((SIGTERM, "on_train_epoch_end", 2), id="SIGTERM at the end of the second epoch"),
])  # fmt: skip
def test_a_stopped_validation_is_run_as_a_whole(stop, data, validated, tmp_path, monkeypatch):
    content = settings(data, limit_val_batches=1.0)
    content["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = 1000
    fit_until(monkeypatch, content, tmp_path, stop)
    done = scores(tmp_path / "run")
    fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    assert losses(tmp_path / "run") == later(losses(validated), 8)
    assert done | scores(tmp_path / "run") == scores(validated)


def test_a_validation_that_a_killed_run_has_not_begun_is_run(data, validated, tmp_path, monkeypatch):
    (checkpoint,) = (validated / "checkpoints").glob("*step=8.ckpt")  # saved before the second validation
    content = settings(data, limit_val_batches=1.0)
    fit(monkeypatch, content, tmp_path, "--ckpt_path", checkpoint)
    assert losses(tmp_path / "run") == later(losses(validated), 8)
    assert scores(tmp_path / "run") == later(scores(validated), 7)
    fit(monkeypatch, settings(data), tmp_path / "without", "--ckpt_path", checkpoint)  # this one has no validation
    assert losses(tmp_path / "without/run") == later(losses(validated), 8)


def test_sigterm_behind_a_validation_within_an_epoch(data, tmp_path, monkeypatch):
    content = settings(data, limit_val_batches=1.0, val_check_interval=2)
    fit(monkeypatch, content, tmp_path / "whole")
    whole = tmp_path / "whole/run"
    fit_until(monkeypatch, content, tmp_path, (SIGTERM, "on_validation_batch_start", 9))  # its third: after step 6
    done = scores(tmp_path / "run")
    assert sorted(done) == [1, 3, 5]
    fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    assert losses(tmp_path / "run") == later(losses(whole), 6)
    assert done | scores(tmp_path / "run") == scores(whole)


@pytest.mark.parametrize("kind", [SIGINT, SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_validation_within_an_epoch_that_was_due_is_run(kind, data, tmp_path, monkeypatch):
    content = settings(data, limit_val_batches=1.0, val_check_interval=2)
    content["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = 1000
    fit(monkeypatch, content, tmp_path / "whole")
    whole = tmp_path / "whole/run"
    fit_until(monkeypatch, content, tmp_path, (kind, "on_train_batch_end", 6))
    fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    assert losses(tmp_path / "run") == later(losses(whole), 6)
    assert scores(tmp_path / "run") == later(scores(whole), 5)


def test_validations_within_steps_of_several_batches_are_refused(data, tmp_path, monkeypatch, capsys):
    content = settings(data, limit_val_batches=1.0, val_check_interval=3, accumulate_grad_batches=2)
    with pytest.raises(SystemExit, match="2"):
        fit(monkeypatch, content, tmp_path)
    assert "set trainer.val_check_interval to a multiple of trainer.accumulate_grad_batches, 2" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_start", "on_validation_epoch_start"])
def test_checkpoints_that_others_save_at_any_moment(hook, data, validated, tmp_path, monkeypatch):
    """As SLURM's signal has it: before the last batch of the second epoch, and in the validation behind it."""
    count = {"on_train_batch_start": 8, "on_validation_batch_start": 5, "on_validation_epoch_start": 2}[hook]
    content = settings(data, limit_val_batches=1.0)
    saves = {"class_path": "saves_at.SavesAt", "init_args": {"hook": hook, "count": count, "path": "saved.ckpt"}}
    saving = content | {"trainer": content["trainer"] | {"callbacks": [*content["trainer"]["callbacks"], saves]}}
    fit(monkeypatch, saving, tmp_path / "first")
    fit(monkeypatch, content, tmp_path, "--ckpt_path", tmp_path / "first/saved.ckpt")
    assert losses(tmp_path / "run") == later(losses(validated), 7 if hook == "on_train_batch_start" else 8)
    assert scores(tmp_path / "run") == later(scores(validated), 7)


@pytest.mark.parametrize("kind", [SIGINT, SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_step_of_several_batches_is_stopped_at_its_end(kind, data, tmp_path, monkeypatch):
    content = settings(data, accumulate_grad_batches=2)
    content["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = 1
    fit(monkeypatch, content, tmp_path / "whole")
    fit_until(monkeypatch, content, tmp_path, (kind, "on_train_batch_end", 3))
    saved = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
    assert saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] % 2 == 0
    # Killed within the first step after it was resumed, it has the same checkpoint.
    fit_until(monkeypatch, content, tmp_path, (kind, "on_train_batch_start", 1), "--ckpt_path", "last")
    fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    whole, rest = losses(tmp_path / "whole/run"), losses(tmp_path / "run")
    assert min(rest) > 0
    assert rest == later(whole, min(rest))


def test_a_resumed_run_does_not_save_within_its_first_step(data, tmp_path, monkeypatch):
    content = settings(data, accumulate_grad_batches=2)
    content["trainer"]["callbacks"][0]["init_args"]["every_n_train_steps"] = 1
    fit(monkeypatch, content, tmp_path, "--trainer.max_steps", "3")
    last = tmp_path / "run/checkpoints/last.ckpt"
    before = last.read_bytes()
    monkeypatch.setattr("relo.training.callbacks.GradientHealth.on_train_batch_start", _ends_at_second(last, before))
    with pytest.raises(RuntimeError, match="second"):
        fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    assert last.read_bytes() == before


def _ends_at_second(last, before):
    calls = []

    def end(*_):
        calls.append(None)
        if len(calls) == 2:
            raise RuntimeError("second batch")

    return end


def test_checkpoints_by_time_within_steps_of_several_batches_are_refused(data, tmp_path, monkeypatch, capsys):
    content = settings(data, accumulate_grad_batches=2)
    content["trainer"]["callbacks"][0]["init_args"]["train_time_interval"] = "0:10:00"
    with pytest.raises(SystemExit, match="2"):
        fit(monkeypatch, content, tmp_path)
    assert "give ModelCheckpoint every_n_train_steps instead" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [None, 3], ids=["whole epochs", "limited epochs"])
@pytest.mark.parametrize("stop", ["max_steps", "max_epochs"])
def test_from_an_epochs_end_to_a_limit_of_steps(limit, stop, data, tmp_path, monkeypatch):
    content = settings(data, **({} if limit is None else {"limit_train_batches": limit}))
    steps = limit or 4
    fit(monkeypatch, content, tmp_path / "whole")
    part = {"max_steps": steps, "max_epochs": 1}[stop]
    fit(monkeypatch, content, tmp_path, f"--trainer.{stop}", str(part))
    fit(monkeypatch, content, tmp_path, "--ckpt_path", "last", "--trainer.max_steps", str(3 * steps))
    whole, rest = losses(tmp_path / "whole/run"), losses(tmp_path / "run")
    assert sorted(whole) == list(range(3 * steps))
    assert rest == later(whole, steps)
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["epoch"] == 2


def test_limited_epochs_go_on_within_one(data, tmp_path, monkeypatch):
    content = settings(data, limit_train_batches=3)
    fit(monkeypatch, content, tmp_path / "whole")
    fit(monkeypatch, content, tmp_path, "--trainer.max_steps", "4")
    fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    assert losses(tmp_path / "run") == later(losses(tmp_path / "whole/run"), 4)


def test_averages_of_a_fit_that_is_stopped_in_a_validation(data, tmp_path, monkeypatch):
    content = settings(data, limit_val_batches=1.0)
    content["trainer"]["callbacks"].append(
        {"class_path": "relo.training.callbacks.AveragedWeights", "init_args": {"decay": 0.5}}
    )
    fit(monkeypatch, content, tmp_path / "whole")
    saves = {"hook": "on_validation_batch_start", "count": 1, "path": "saved.ckpt"}
    content["trainer"]["callbacks"].append({"class_path": "saves_at.SavesAt", "init_args": saves})
    fit_until(monkeypatch, content, tmp_path, (SIGINT, "on_validation_batch_start", 2))
    del content["trainer"]["callbacks"][-1]
    stopped, within = (read_checkpoint(tmp_path / name) for name in ("run/checkpoints/last.ckpt", "saved.ckpt"))
    for state in ("state_dict", "current_model_state"):
        for name, tensor in stopped[state].items():
            assert torch.equal(tensor, within[state][name]), name
    fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    assert losses(tmp_path / "run") == later(losses(tmp_path / "whole/run"), 4)
    whole, parts = (read_checkpoint(f / "run/checkpoints/last.ckpt") for f in (tmp_path / "whole", tmp_path))
    for state in ("state_dict", "current_model_state"):
        for name, tensor in whole[state].items():
            assert torch.equal(tensor, parts[state][name]), name


def _no_room(*_):
    raise UserError("There is no room.")


def test_what_a_killed_save_of_slurm_left_is_removed(data, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    left = tmp_path / f"run/.hpc_ckpt_1.ckpt.4194305@{machine()}"
    left.touch()
    fit(monkeypatch, settings(data), tmp_path, "--trainer.max_epochs", "1")
    assert not left.exists()


def test_a_link_to_a_checkpoint_is_not_saved_through(data, tmp_path, monkeypatch, capsys):
    content = settings(data)
    content["trainer"]["callbacks"][0]["init_args"]["save_last"] = "link"
    fit(monkeypatch, content, tmp_path, "--trainer.max_epochs", "1")
    folder = tmp_path / "run/checkpoints"
    named = (folder / "last.ckpt").resolve()
    before = named.read_bytes()
    shutil.copy(named, tmp_path / "kept")
    fit_until(monkeypatch, content, tmp_path, (SIGINT, "on_train_batch_end", 1), "--ckpt_path", "last")
    assert named.read_bytes() == before
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == 5
    (folder / "last.ckpt").unlink()
    (folder / "last.ckpt").symlink_to(named.name)
    with monkeypatch.context() as patches:
        patches.setattr("relo.training.checkpoints.InertCheckpointIO.save_checkpoint", _no_room)
        fit_until(patches, content, tmp_path, (("SIGINT", 2), "on_train_batch_end", 1), "--ckpt_path", "last")
    assert (folder / "last.ckpt").resolve() == named
    for file in folder.iterdir():
        file.unlink()
    (folder / "last.ckpt").symlink_to("gone.ckpt")
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    assert "There is no last checkpoint in " in capsys.readouterr().err


def test_a_resumed_fit_does_without_the_earlier_stages_weights(data, network, tmp_path, monkeypatch):
    save_network(network, tmp_path / "earlier")
    content = settings(data)
    content["model"]["init_from"] = str(tmp_path / "earlier")
    fit(monkeypatch, content, tmp_path / "whole")
    fit(monkeypatch, content, tmp_path, "--trainer.max_steps", "3")
    shutil.rmtree(tmp_path / "earlier")
    fit(monkeypatch, content, tmp_path, "--ckpt_path", "last")
    assert losses(tmp_path / "run") == later(losses(tmp_path / "whole/run"), 3)
