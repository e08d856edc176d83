"""The classes of a downloaded model are relo's, unless the person allows others; nothing is imported unchecked."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from relo.errors import UserError
from relo.models.checkpoints.plugin import build
from relo.models.checkpoints.weights import load_network, save_network
from small_networks import make_network

OWN = """
from pathlib import Path
from relo.models.encoders.nano import Nano

Path(__file__).with_name("imported").touch()


class Mine(Nano):
    pass
"""


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    """A model whose encoder is a class of `stranger.py`, which lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text(OWN)
    save_network(make_network(), tmp_path / "model")
    path = tmp_path / "model/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["init_args"]["encoder"]["class_path"] = "stranger.Mine"
    path.write_text(yaml.safe_dump(config))
    yield tmp_path / "model"
    sys.modules.pop("stranger", None)


def test_a_strange_class_is_not_imported(model):
    with pytest.raises(UserError, match=r"'stranger.Mine'.*RELO_TRUST=stranger"):
        load_network(model)
    assert not (model.parent / "imported").exists()


def test_nor_from_a_checkpoint(model):
    config = yaml.safe_load((model / "config.yaml").read_text())
    state = {f"network.{name}": tensor for name, tensor in make_network().state_dict().items()}
    torch.save({"relo_network": config, "state_dict": state}, model.parent / "last.ckpt")
    with pytest.raises(UserError, match="RELO_TRUST=stranger"):
        load_network(model.parent / "last.ckpt")
    assert not (model.parent / "imported").exists()


def test_the_person_may_allow_it(model, monkeypatch):
    monkeypatch.setenv("RELO_TRUST", "other, stranger")
    assert type(load_network(model).encoder).__name__ == "Mine"


@pytest.mark.parametrize(
    "class_path",
    ["os.system", "relo.models.os.system", "relo.commands.main.main", "relo.__main__.x", "relo", "", "strangers.Mine"],
)
def test_nothing_but_a_part_is_called(class_path, monkeypatch):
    monkeypatch.setenv("RELO_TRUST", "stranger")
    with pytest.raises(UserError):
        build({"class_path": class_path, "init_args": {}})
