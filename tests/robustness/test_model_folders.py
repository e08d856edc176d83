"""Model folders in which files are missing, of another kind, or beside others that mean another network."""

import os
from pathlib import Path

import pytest

from relo.commands.main import main
from relo.errors import UserError
from relo.models.checkpoints.weights import load_network, load_stage, save_network
from relo.models.export import export_onnx
from relo.tracking.tracker import Tracker
from small_networks import make_network


@pytest.fixture
def model(tmp_path) -> Path:
    save_network(make_network(), tmp_path / "model", {"window_exponent": 0.5})
    return tmp_path / "model"


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit, match="2"):
        main([str(argument) for argument in arguments])
    return " ".join(capsys.readouterr().err.split())


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
