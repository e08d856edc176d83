"""Gradients are measured before they are clipped, and one that is no number stops the run."""

import csv

import pytest
import torch

from relo.learning.policy import ActorCritic
from relo.module import RELOModule, gradient_norms
from small_networks import make_clip, make_network
from training_runs import ACTOR_CRITIC, config, relo_here, write_config


def test_norms_of_the_parts_that_learn():
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


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_gradient_that_is_no_number_stops_the_run(data, accumulated, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", config(data, {"class_path": "broken_gradient.BrokenGradient"}))
    with pytest.raises(SystemExit) as stop:
        relo_here(
            monkeypatch, "fit", "--config", path, f"--trainer.accumulate_grad_batches={accumulated}", cwd=tmp_path
        )
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "The norm of the gradient is nan at step 0" in error
    assert error.count("got10k/") == 2 * accumulated  # batches of 2 clips, named
