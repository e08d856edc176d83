"""The presence stage: a head for a network that has none yet, trained, calibrated on validation, and used."""

import copy
from pathlib import Path

import pytest
import torch

import relo.training.presence_calibration
from relo.errors import UserError
from relo.learning.presence import fit_calibration
from relo.models.checkpoints.weights import load_network, read_checkpoint, save_network
from relo.models.presence import ConvPresence
from relo.tracking.tracker import Tracker
from small_networks import make_network
from training_runs import HEADS, NETWORK, config, losses, refused, relo_here, write_config

OBJECTIVE = {"class_path": "relo.learning.presence.PresenceObjective"}
CALIBRATION = {"class_path": "relo.training.presence_calibration.CalibratePresence"}


def presence_config(data, init_from):
    network = copy.deepcopy(NETWORK)
    network["init_args"]["presence"] = {
        "class_path": "relo.models.presence.ConvPresence",
        "init_args": {"channels": HEADS["channels"], "hidden": [16, 8]},
    }
    settings = config(data, OBJECTIVE, init_from=str(init_from), fresh_parts=["presence"], localizations=["policy"])
    settings["model"]["network"] = network
    settings["trainer"]["limit_val_batches"] = 1.0
    # As Lightning orders them: what changes the network before what saves it.
    settings["trainer"]["callbacks"].insert(0, CALIBRATION)
    settings["trainer"]["callbacks"][1]["init_args"]["save_on_train_epoch_end"] = True
    settings["data"]["absence"] = {"hidden": 0.1, "outside": 0.2, "foreign": 0.2}
    return settings


def test_a_network_without_presence_gets_it_calibrated(data, tmp_path, monkeypatch, capsys):
    save_network(make_network(), tmp_path / "old")
    outcomes = {}

    def half_right(results):
        """Of the presence that validation gave, the greater half is called right, but for some."""
        presence = torch.cat([torch.from_numpy(result.presence[1:]).float() for result in results])
        outcomes["presence"], outcomes["is_right"] = presence, presence > presence.median()
        outcomes["is_right"][::7] ^= True
        return outcomes["presence"], outcomes["is_right"]

    monkeypatch.setattr(relo.training.presence_calibration, "presence_outcomes", half_right)
    path = write_config(tmp_path / "config.yaml", presence_config(data, tmp_path / "old"))
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert len(losses(tmp_path / "run")) == 4
    assert "AUROC" in capsys.readouterr().out
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    network, old = load_network(checkpoint), load_network(tmp_path / "old")
    temperature, bias = fit_calibration(outcomes["presence"].double().logit(eps=1e-6), outcomes["is_right"])
    assert network.presence.temperature.item() == pytest.approx(temperature, rel=1e-5)
    assert network.presence.bias.item() == pytest.approx(bias, rel=1e-5)
    for name, tensor in old.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name

    monkeypatch.setattr(relo.training.presence_calibration, "fit_calibration", fail)
    with pytest.warns(UserWarning, match="cannot be calibrated"):
        relo_here(monkeypatch, "fit", "--config", path, "--trainer.default_root_dir", "again", cwd=tmp_path / "again")
    assert Tracker.from_pretrained(checkpoint, device="cpu").network.presence is not None


@pytest.mark.parametrize("place", [0, 1])
def test_the_average_and_what_is_trained_are_calibrated_alike(place, data, tmp_path, monkeypatch):
    save_network(make_network(), tmp_path / "old")
    settings = presence_config(data, tmp_path / "old")
    settings["trainer"]["callbacks"].insert(place, {"class_path": "relo.training.callbacks.AveragedWeights"})
    monkeypatch.setattr(relo.training.presence_calibration, "fit_calibration", lambda log_odds, is_right: (2.0, 0.5))
    relo_here(monkeypatch, "fit", "--config", write_config(tmp_path / "config.yaml", settings), cwd=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
    for state in ("state_dict", "current_model_state"):
        found = [checkpoint[state][f"network.presence.{name}"].item() for name in ("temperature", "bias")]
        assert found == [2.0, 0.5], state


def test_sequences_of_one_frame_leave_presence_as_it_was(data, tmp_path, monkeypatch):
    save_network(make_network(), tmp_path / "old")
    path = write_config(tmp_path / "config.yaml", presence_config(data, tmp_path / "old"))
    nothing = torch.empty(0), torch.empty(0, dtype=torch.bool)
    monkeypatch.setattr(relo.training.presence_calibration, "presence_outcomes", lambda results: nothing)
    with pytest.warns(UserWarning, match="Presence is not calibrated: no sequence has a frame after its first"):
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert load_network(tmp_path / "run/checkpoints/last.ckpt").presence.temperature == 1


@pytest.mark.parametrize("change", ["--data.validation=[]", "--trainer.limit_val_batches=0"])
def test_a_calibration_without_a_validation_is_refused(change, data, tmp_path, monkeypatch, capsys):
    save_network(make_network(), tmp_path / "old")
    path = write_config(tmp_path / "config.yaml", presence_config(data, tmp_path / "old"))
    said = refused(monkeypatch, capsys, tmp_path, "fit", "--config", path, change)
    assert "CalibratePresence needs a validation" in said


def fail(log_odds, is_right):
    raise UserError("Presence cannot be calibrated on 3 right and 0 wrong boxes; both are needed.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"localizations": ["prior"]}, "CalibratePresence needs model.localizations with 'policy'"),
        ({"localizations": []}, "model.localizations names no map to validate with"),
        ({"rule": {"lost_after": 3}}, "leave lost_after out of model.rule"),
        ({"rule": {"presence_stays": 0.9}}, "leave presence_stays out of model.rule"),
    ],
)
def test_validation_that_tells_nothing_of_presence_is_refused(data, tmp_path, monkeypatch, capsys, changes, message):
    save_network(make_network(), tmp_path / "old")
    settings = presence_config(data, tmp_path / "old")
    settings["model"] |= changes
    path = write_config(tmp_path / "config.yaml", settings)
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_models_without_presence_are_what_they_were(tmp_path):
    save_network(make_network(), tmp_path / "old")
    old = load_network(tmp_path / "old")
    assert old.presence is None
    with_presence = make_network()
    with_presence.presence = ConvPresence(16, (16, 8))
    save_network(with_presence, tmp_path / "new")
    (tmp_path / "new/config.yaml").write_text((tmp_path / "old/config.yaml").read_text())
    with pytest.raises(UserError, match=r"surplus.*presence\."):
        load_network(Path(tmp_path / "new"))
