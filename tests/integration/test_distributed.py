"""Two processes on the CPU: what one process learns and scores, they do."""

import json

import pytest
import torch

from relo.weights import read_checkpoint
from training_runs import ACTOR_CRITIC, NETWORK, WARMUP, config, losses, relo, relo_here, write_config

DDP = ("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")


def network_of(run):
    return read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Two steps of two processes with batches of 2, and of one with batches of 4: the folders of both."""
    folder = tmp_path_factory.mktemp("ddp")
    content = config(data, WARMUP)
    content["model"]["network"] = {**NETWORK, "class_path": "still_network.StillNetwork"}
    content["model"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    path = write_config(folder / "config.yaml", content)
    for name in ("two", "one"):
        (folder / name).mkdir()
    relo("fit", "--config", path, "--trainer.max_steps=2", *DDP, cwd=folder / "two")
    with pytest.MonkeyPatch.context() as monkeypatch:
        relo_here(
            monkeypatch, "fit", "--config", path, "--trainer.max_steps=2", "--data.batch_size=4", cwd=folder / "one"
        )
    return folder


def test_two_processes_take_the_steps_of_one(trained):
    two, one = network_of(trained / "two/run"), network_of(trained / "one/run")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    learned = losses(trained / "one/run")
    assert len(set(learned.values())) == len(learned) == 2


def test_validation_scores_uneven_shares_as_one_process(trained, tmp_path, monkeypatch):
    path, weights = trained / "config.yaml", trained / "two/run/checkpoints/last.ckpt"
    arguments = ("validate", "--config", path, "--ckpt_path", weights, "--trainer.limit_val_batches=1.0")
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    relo(*arguments, *DDP, cwd=tmp_path / "two")
    relo_here(monkeypatch, *arguments, cwd=tmp_path / "one")
    two, one = (json.loads((tmp_path / n / "run/validation/scores.json").read_text()) for n in ("two", "one"))
    assert two["sequences"] == one["sequences"] == 3
    for name in ("policy", "prior"):
        assert two[name] == {key: pytest.approx(value, abs=1e-6) for key, value in one[name].items()}
        assert two["per_sequence"][name] == pytest.approx(one["per_sequence"][name], abs=1e-6)
        assert len(list((tmp_path / "two/run/validation" / name).rglob("*_score.txt"))) == 3


def test_policy_learns_in_two_processes(data, tmp_path):
    content = config(data, ACTOR_CRITIC)
    path = write_config(tmp_path / "config.yaml", content)
    relo("fit", "--config", path, "--trainer.max_steps=2", *DDP, cwd=tmp_path)
    assert len(losses(tmp_path / "run")) == 2
