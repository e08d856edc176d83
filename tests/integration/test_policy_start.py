"""The policy may start with the weights of the prior's head."""

import pytest
import torch

from relo.models.checkpoints.weights import load_network, save_network
from relo.models.heads import ConvPrior
from relo.models.network import LocalizationNetwork
from small_networks import make_network
from training_runs import ACTOR_CRITIC, config, relo_here, write_config

STANDING_STILL = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}


def settings(data, **model):
    content = config(data, ACTOR_CRITIC, policy_from_prior=True, **model)
    content["model"]["optimizer"] = STANDING_STILL
    content["trainer"]["max_steps"] = 1
    return content


def test_the_policy_starts_as_the_prior(data, tmp_path, monkeypatch):
    network = make_network(seed=3)
    save_network(network, tmp_path / "start")
    path = write_config(tmp_path / "config.yaml", settings(data, init_from=str(tmp_path / "start")))
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    trained = load_network(tmp_path / "run/checkpoints/last.ckpt")
    for name, parameter in trained.policy.named_parameters():
        assert torch.equal(parameter, dict(network.prior.named_parameters())[name]), name
        assert torch.equal(parameter, dict(trained.prior.named_parameters())[name]), name
    before, after = (n.policy.tower[0][1].running_mean for n in (network, trained))
    assert not torch.equal(before, after)  # the policy learns on its own: its statistics have moved


def test_learning_on_random_weights_is_warned_of(data, tmp_path, monkeypatch):
    content = config(data, ACTOR_CRITIC)
    content["trainer"]["max_steps"] = 1
    path = write_config(tmp_path / "config.yaml", content)
    with pytest.warns(UserWarning, match="Nothing trains encoder, propagator, box, whose weights are random"):
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)


def test_a_head_of_another_size_is_refused(data, tmp_path, monkeypatch, capsys):
    made = make_network()
    network = LocalizationNetwork(
        made.encoder, made.propagator, made.policy, made.box, made.critic, ConvPrior(16, (8, 4))
    )
    save_network(network, tmp_path / "start")
    content = settings(data, init_from=str(tmp_path / "start"))
    content["model"]["network"] = network.config()
    path = write_config(tmp_path / "config.yaml", content)
    with pytest.raises(SystemExit) as refused:
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert refused.value.code == 2
    assert "The prior's head does not fit" in capsys.readouterr().err


def test_it_needs_weights_to_start_from(data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", settings(data))
    with pytest.raises(SystemExit) as refused:
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert refused.value.code == 2
    assert "policy_from_prior needs" in capsys.readouterr().err
