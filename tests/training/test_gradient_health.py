"""Gradients are measured before they are clipped, and one that is no number stops the run."""

import csv
from types import SimpleNamespace

import pytest
import torch

from relo.learning.policy import ActorCritic
from relo.training.callbacks import GradientHealth, gradient_norms
from relo.training.module import RELOModule
from small_networks import make_clip, make_network
from training_runs import ACTOR_CRITIC, config, relo_here, write_config


def test_norms_of_the_trained_parts():
    module = RELOModule(make_network(), ActorCritic())
    module.objective(module.network, make_clip(), torch.Generator()).loss.backward()
    norms = gradient_norms(module.network)
    assert set(norms) == {"policy", "critic"}
    for name, norm in norms.items():
        entries = torch.cat([p.grad.flatten() for p in getattr(module.network, name).parameters()])
        assert norm == pytest.approx(entries.double().square().sum().sqrt().item(), rel=1e-5)


def test_norms_are_logged_as_they_were_before_clipping(data, tmp_path, monkeypatch):
    content = config(data, ACTOR_CRITIC)
    content["trainer"]["gradient_clip_val"] = 1e-4
    path = write_config(tmp_path / "config.yaml", content)
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    with (tmp_path / "run/log/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        policy, critic, total = (float(row[f"train/grad_norm{part}"]) for part in ("_policy", "_critic", ""))
        assert total > 1e-3
        assert total**2 == pytest.approx(policy**2 + critic**2, rel=1e-4)
        assert "train/grad_norm_box" not in row


def stopped(monkeypatch, capsys, data, folder, objective, *arguments):
    """The sentence with which a run ends."""
    path = write_config(folder / "config.yaml", config(data, {"class_path": f"broken_objectives.{objective}"}))
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, *arguments, cwd=folder)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_gradient_that_is_no_number_stops_the_run(data, accumulated, tmp_path, monkeypatch, capsys):
    accumulation = f"--trainer.accumulate_grad_batches={accumulated}"
    error = stopped(monkeypatch, capsys, data, tmp_path, "BrokenGradient", accumulation)
    assert "The norm of the gradient is nan at step 0" in error
    assert error.count("got10k/") == 2 * accumulated  # batches of 2 clips, named


def test_a_loss_that_is_no_number_stops_the_run(data, tmp_path, monkeypatch, capsys):
    error = stopped(monkeypatch, capsys, data, tmp_path, "BrokenLoss", "--trainer.accumulate_grad_batches=2")
    assert "The loss is nan at step 0" in error
    assert error.count("got10k/") == 2  # the batch with that loss, and not the other


def test_overflow_of_scaled_gradients_is_left_to_the_scaler(tmp_path):
    """In half precision the scale is found by trying: steps whose gradients overflow are skipped."""
    module = RELOModule(make_network(), ActorCritic())
    module.log_dict = lambda logs: None
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=object()), world_size=1, global_step=3)
    for parameter in module.network.policy.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    health = GradientHealth()
    health.on_train_batch_start(trainer, module, make_clip(), 0)
    health.on_before_backward(trainer, module, torch.zeros(()))
    health.on_before_optimizer_step(trainer, module, None)
    assert module.logs["grad_norm"] == torch.inf
