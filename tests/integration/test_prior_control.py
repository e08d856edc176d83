"""The control to RL: the prior's head is trained alone on a warmed-up network, and the network then tracks by it."""

import copy
import csv
import json

import numpy as np
import pytest

from relo.data.clip_store import ClipStore
from relo.data.sequences.parsing import read_boxes
from relo.models.checkpoints.weights import load_network
from relo.models.heads import CornerPrior
from relo.tracking.tracker import Tracker
from training_runs import HEADS, WARMUP, config, losses, relo_here, write_config

PRIORS = {"GaussianPrior": "ConvPrior", "BinaryPrior": "ConvPrior", "CornerExpectation": "CornerPrior"}
"""Which head learns which prior."""


@pytest.fixture(scope="module")
def warmed_up(data, tmp_path_factory):
    """A checkpoint of the warm-up, with a Gaussian prior."""
    folder = tmp_path_factory.mktemp("warmup")
    with pytest.MonkeyPatch.context() as monkeypatch:
        relo_here(monkeypatch, "fit", "--config", write_config(folder / "c.yaml", config(data, WARMUP)), cwd=folder)
    return folder / "run/checkpoints/last.ckpt"


def settings(data, prior, head, **model):
    objective = {
        "class_path": "relo.learning.prior_training.PriorObjective",
        "init_args": {"prior": {"class_path": f"relo.learning.priors.{prior}"}, "prior_weight": 0.5},
    }
    content = copy.deepcopy(config(data, objective, localizations=["prior"], **model))
    head = {"class_path": f"relo.models.heads.{head}", "init_args": HEADS}
    content["model"]["network"]["init_args"]["prior"] = head
    return content


def others(network):
    """The tensors of a network but the prior head's."""
    return {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("prior.")}


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_is_trained_alone_and_tracks(data, warmed_up, prior, tmp_path, monkeypatch):
    fresh = settings(data, prior, PRIORS[prior], init_from=str(warmed_up), fresh_parts=["prior"])
    path = write_config(tmp_path / "config.yaml", fresh)
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert len(losses(tmp_path / "run")) == 4
    with (tmp_path / "run/log/metrics.csv").open() as file:
        for row in csv.DictReader(file):
            assert 0.5 * float(row["train/prior_loss"]) == pytest.approx(float(row["train/loss"]))
            assert 0 <= float(row["train/iou"]) <= 1

    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    before, after = others(load_network(warmed_up)), others(load_network(checkpoint))
    assert before.keys() == after.keys()
    assert all(tensor.equal(before[name]) for name, tensor in after.items())

    whole = "--trainer.limit_val_batches=1.0"
    relo_here(monkeypatch, "validate", "--config", path, "--ckpt_path", checkpoint, whole, cwd=tmp_path)
    scores = json.loads((tmp_path / "run/validation/scores.json").read_text())
    assert scores["sequences"] == 3
    assert 0 <= scores["prior"]["auc"] <= 1

    # The tracker of the checkpoint is the one that was validated.
    tracker = Tracker.from_pretrained(checkpoint, device="cpu")
    assert tracker.rule.localization == "prior"
    assert isinstance(tracker.network.prior, CornerPrior) == (prior == "CornerExpectation")
    sequence = ClipStore(data.test)[0]
    states = tracker.initialize([sequence.frames[0]], sequence.boxes_xywh[:1])
    boxes_xywh = [sequence.boxes_xywh[0]]
    for i in range(1, len(sequence.frames)):
        states = tracker.step([sequence.frames[i]], states)
        boxes_xywh.append(states[0].box_xywh.numpy())
    validated = read_boxes(tmp_path / "run/validation/prior/lasot" / f"{sequence.name}.txt")
    np.testing.assert_allclose(np.array(boxes_xywh), validated, atol=0.05)


def test_a_head_that_cannot_learn_the_prior_is_one_sentence(data, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path / "config.yaml", settings(data, "CornerExpectation", "ConvPrior"))
    with pytest.raises(SystemExit) as stop:
        relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "CornerExpectation needs a prior head" in error
    assert "Traceback" not in error
