"""Model folders in which files are missing, of another kind, or beside others that mean another network."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from refusals import refused
from relo.errors import UserError
from relo.evaluation.benchmark_rule import benchmark_rule
from relo.models.checkpoints.plugin import build
from relo.models.checkpoints.weights import load_network, load_stage, save_network
from relo.models.export import export_onnx
from relo.models.heads import ConvPolicy
from relo.tracking.tracker import Tracker
from small_networks import make_network


@pytest.fixture
def model(tmp_path) -> Path:
    save_network(make_network(), tmp_path / "model", {"window_exponent": 0.5})
    return tmp_path / "model"


@pytest.mark.parametrize("graph", ["step.onnx", "templates.onnx"])
def test_a_model_is_not_written_beside_graphs(model, tmp_path, capsys, graph):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / graph).touch()
    said = refused(capsys, "export", "--model", model, "--format", "safetensors", "--output", tmp_path / "other")
    assert f"other holds exported graphs ({graph}); give the model a folder of its own" in said
    assert os.listdir(tmp_path / "other") == [graph]


def test_graphs_are_not_written_beside_a_model(model):
    with pytest.raises(UserError, match=r"model holds a model \(model\.safetensors\); give graphs a folder"):
        export_onnx(make_network(), model)


def test_a_folder_of_both_is_not_read(model):
    (model / "step.onnx").touch()
    for read in (load_network, Tracker.from_pretrained, lambda path: load_stage(make_network(), path)):
        with pytest.raises(UserError, match=r"holds a model \(model\.safetensors\) and exported graphs \(step\.onnx\)"):
            read(model)


@pytest.mark.parametrize("kind", ["dead link", "folder", "pipe"])
def test_a_rule_that_is_no_file_is_named(model, kind):
    rule = model / "tracking.yaml"
    rule.unlink()
    {"dead link": lambda: rule.symlink_to("gone"), "folder": rule.mkdir, "pipe": lambda: os.mkfifo(rule)}[kind]()
    with pytest.raises(UserError, match=r"model/tracking\.yaml (cannot be read|is a pipe)"):
        Tracker.from_pretrained(model)
    with pytest.raises(UserError, match=r"model/tracking\.yaml (cannot be read|is a pipe)"):
        benchmark_rule(str(model), None, "lasot", "lasot")


def test_types_of_tensors_are_those_of_checkpoints(model):
    weights = load_file(model / "model.safetensors")
    name = "policy.tower.0.0.weight"
    weights[name] = torch.ones_like(weights[name]).to(torch.float8_e8m0fnu)
    save_file(weights, model / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is refused: .* plain arrays of real numbers.*policy\.tow"):
        load_network(model)


class ReadsItself(ConvPolicy):
    """Cannot be built without memory, and draws numbers."""

    def __init__(self, channels: int, hidden: Sequence[int]) -> None:
        super().__init__(channels, hidden)
        self.first = torch.rand((), device="cpu").item() + next(self.parameters()).sum().item()


def changed(model: Path, change) -> None:
    config = yaml.safe_load((model / "config.yaml").read_text())
    change(config["init_args"])
    (model / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("part", "settings", "words"),
    [
        ("prior", {"hidden": [16384] * 30}, r"does not fit the network .*prior\.tower"),
        ("encoder", {"depth": 512}, r"does not fit the network .*encoder\.blocks"),
        ("propagator", {"width": 16384}, "set the propagator's width to the encoder's"),
    ],
)
def test_a_network_of_other_sizes_than_the_weights_takes_no_memory(model, monkeypatch, part, settings, words):
    def build_without_memory(config):
        assert torch.get_default_device().type == "meta"
        return build(config)

    monkeypatch.setattr("relo.models.checkpoints.weights.build", build_without_memory)
    changed(model, lambda parts: parts[part]["init_args"].update(settings))
    with pytest.raises(UserError, match=words):
        load_network(model)


@pytest.mark.parametrize("policy", [ConvPolicy, ReadsItself])
def test_a_network_is_built_as_if_once(model, policy):
    changed(model, lambda parts: parts["policy"].update(class_path=f"{policy.__module__}.{policy.__name__}"))
    torch.manual_seed(0)
    loaded = load_network(model)
    drawn = torch.get_rng_state()
    torch.manual_seed(0)
    build(loaded.config())
    assert type(loaded.policy) is policy
    assert torch.equal(torch.get_rng_state(), drawn)
    torch.testing.assert_close(loaded.state_dict(), make_network().state_dict(), rtol=0, atol=0)
