"""Policy objectives through the trainer: several updates a batch, clipping, mixed precision, resuming."""

import csv
import math

import numpy as np
import pytest
import torch

from relo.learning.clipped import GRPO, PPO
from relo.learning.expected import ExpectedGradient, RewardAugmentedLikelihood
from relo.learning.policy import ActorCritic
from relo.learning.prior_training import PriorLikelihood, PriorObjective
from relo.learning.priors import GaussianPrior
from relo.learning.warmup import WarmupObjective
from relo.training.module import RELOModule
from small_networks import make_clip, make_network
from training_runs import config, losses, relo_here, write_config

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0, "weight_decay": 0.0}}
PPO_CONFIG = {"class_path": "relo.learning.clipped.PPO", "init_args": {"epochs": 2, "minibatches": 2}}
GRPO_CONFIG = {"class_path": "relo.learning.clipped.GRPO", "init_args": {"group_size": 4, "epochs": 3}}
SEVERAL = pytest.mark.parametrize(("objective", "updates"), [(PPO_CONFIG, 4), (GRPO_CONFIG, 3)], ids=["ppo", "grpo"])
OBJECTIVES = {
    "warm-up": lambda: WarmupObjective(prior=GaussianPrior()),
    "prior alone": lambda: PriorObjective(GaussianPrior()),
    "actor-critic": ActorCritic,
    "actor-critic with boxes": lambda: ActorCritic(box_weight=1.0, trained_parts=["policy", "critic", "box"]),
    "ppo": lambda: PPO(epochs=2, minibatches=2),
    "grpo": lambda: GRPO(group_size=4, epochs=2, minibatches=2),
    "expected": ExpectedGradient,
    "expected, discounted": lambda: ExpectedGradient(discount=0.5),
    "reward-augmented": RewardAugmentedLikelihood,
    "prior likelihood": lambda: PriorLikelihood(GaussianPrior()),
}


def logged(run):
    """The rows of a run's log, as numbers by name."""
    with (run / "log/metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@SEVERAL
def test_every_update_is_clipped_and_steps_count_batches(data, objective, updates, tmp_path, monkeypatch):
    content = config(data, objective, optimizer=SGD)
    content["trainer"]["gradient_clip_val"] = 1e-3
    content["trainer"]["callbacks"].append({"class_path": "travel.Travel"})
    path = write_config(tmp_path / "config.yaml", content)
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    rows = logged(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(row["train/grad_norm"] > 2e-3 for row in rows), "clipping must have something to do"
    assert all(row["train/kl"] >= 0 and 0 <= row["train/clip_share"] <= 1 for row in rows)
    travel = np.loadtxt(tmp_path / "travel.txt")
    np.testing.assert_array_equal(travel[:, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(travel[:, 1], updates)
    # A step of learning rate 1 goes as far as the clipped gradient is long.
    np.testing.assert_allclose(travel[:, 2:], 1e-3, rtol=1e-3)


@SEVERAL
def test_stopped_run_goes_on(data, objective, updates, tmp_path, monkeypatch):
    path = write_config(tmp_path / "config.yaml", config(data, objective))
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path / "whole")
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.max_steps", "2", cwd=tmp_path / "parts")
    relo_here(monkeypatch, "fit", "--config", path, "--ckpt_path", "last", cwd=tmp_path / "parts")
    whole, rest = losses(tmp_path / "whole/run"), losses(tmp_path / "parts/run")
    assert len(set(whole.values())) == 4
    assert rest == {step: whole[step] for step in (2, 3)}


def test_several_updates_refuse_accumulation(data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", config(data, PPO_CONFIG))
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, "--trainer.accumulate_grad_batches=2", cwd=tmp_path)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "PPO takes 4 steps on every batch" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "objective", [PPO_CONFIG, {"class_path": "relo.learning.policy.ActorCritic"}], ids=["ppo", "ac"]
)
def test_bfloat16(data, objective, tmp_path, monkeypatch):
    path = write_config(tmp_path / "config.yaml", config(data, objective))
    relo_here(monkeypatch, "fit", "--config", path, "--trainer.precision=bf16-mixed", cwd=tmp_path)
    learned = losses(tmp_path / "run")
    assert len(learned) == 4
    assert all(math.isfinite(loss) for loss in learned.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_learning_parameter_gets_a_gradient(name):
    """As plain DDP demands, in every update."""
    objective = OBJECTIVES[name]()
    module = RELOModule(make_network(), objective)
    module.train()
    for result in objective.losses(module.network, make_clip(), torch.Generator()):
        module.zero_grad()
        result.loss.backward()
        without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
        assert not without
