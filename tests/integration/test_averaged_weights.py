"""`AveragedWeights`: what checkpoints of a fit hold, on one and on two processes, and resumed."""

import copy

import pytest
import torch
import yaml

from relo.learning.warmup import WarmupObjective
from relo.models.checkpoints.weights import load_network, read_checkpoint, save_network
from relo.training.callbacks import AveragedWeights
from relo.training.module import RELOModule
from small_networks import make_network
from training_runs import WARMUP, config, relo, relo_here, write_config

DECAY = 0.5
DDP = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=1")
STATES = ("state_dict", "current_model_state")


def averaged_run(data, folder, start=None, **model):
    """A config that averages, and keeps the checkpoint of each of its 4 steps."""
    settings = config(data, WARMUP, localizations=["prior"], **model)
    callbacks = settings["trainer"]["callbacks"]
    callbacks[0]["init_args"] |= {"every_n_train_steps": 1, "save_top_k": -1}
    averaging = {"decay": DECAY, "update_starting_at_step": start}
    callbacks.append({"class_path": "relo.training.callbacks.AveragedWeights", "init_args": averaging})
    return write_config(folder / "config.yaml", settings)


def box_bias(folder, step):
    """The average and the current value of a bias after some steps."""
    (path,) = (folder / "run/checkpoints").glob(f"*step={step}.ckpt")
    checkpoint = read_checkpoint(path)
    return [checkpoint[state]["network.box.offset.2.bias"] for state in STATES]


@pytest.mark.parametrize(
    "options", [pytest.param((), id="one process"), pytest.param(DDP, id="two processes", marks=pytest.mark.slow)]
)
def test_checkpoints_hold_the_moving_average(options, data, tmp_path):
    path = averaged_run(data, tmp_path)
    relo("fit", "--config", path, *options, cwd=tmp_path)
    expected = None
    for step in (1, 2, 3, 4):
        average, current = box_bias(tmp_path, step)
        expected = current if expected is None else DECAY * expected + (1 - DECAY) * current
        torch.testing.assert_close(average, expected)
    assert not torch.equal(average, current)
    network = load_network(tmp_path / "run/checkpoints/last.ckpt")
    assert torch.equal(network.box.offset[2].bias, average)


def test_a_resumed_fit_goes_on_averaging(data, tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder, limits in zip(folders, ([4], [2, 4]), strict=True):
        path = averaged_run(data, folder)
        for number, limit in enumerate(limits):
            options = (f"--trainer.max_steps={limit}", *(("--ckpt_path=last",) if number else ()))
            relo_here(monkeypatch, "fit", "--config", path, *options, cwd=folder)
    whole, parts = (box_bias(folder, 4) for folder in folders)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)


def test_a_file_of_weights_alone_has_the_average(data, tmp_path, monkeypatch):
    settings = yaml.safe_load(averaged_run(data, tmp_path).read_text())
    weights = copy.deepcopy(settings["trainer"]["callbacks"][0])
    weights["init_args"] |= {"dirpath": "run/weights", "save_weights_only": True, "every_n_train_steps": 4}
    settings["trainer"]["callbacks"].append(weights)
    relo_here(monkeypatch, "fit", "--config", write_config(tmp_path / "config.yaml", settings), cwd=tmp_path)
    average, current = box_bias(tmp_path, 4)
    checkpoint = read_checkpoint(tmp_path / "run/weights/last.ckpt")
    assert torch.equal(checkpoint["state_dict"]["network.box.offset.2.bias"], average)
    assert not torch.equal(average, current)
    assert "current_model_state" not in checkpoint


def test_before_its_first_update_the_average_is_what_is_trained(data, tmp_path, monkeypatch):
    save_network(make_network(seed=5), tmp_path / "earlier")
    path = averaged_run(data, tmp_path, start=2, init_from=str(tmp_path / "earlier"))
    relo_here(monkeypatch, "fit", "--config", path, cwd=tmp_path)
    for step in (1, 2, 3):  # the third step is the first that the average takes
        average, current = box_bias(tmp_path, step)
        assert torch.equal(average, current), step
    assert not torch.equal(*box_bias(tmp_path, 4))


def test_what_does_not_change_is_its_own_average():
    module = RELOModule(make_network(), WarmupObjective())
    averaging = AveragedWeights(decay=0.999)
    averaging.setup(None, module, "fit")
    for _ in range(100):
        averaging._average_model.update_parameters(torch.nn.ModuleDict({"network": module.network}))
    for average, parameter in zip(averaging.other_network().parameters(), module.network.parameters(), strict=True):
        assert torch.equal(average, parameter)


def test_the_average_lies_where_the_weights_will():
    module = RELOModule(make_network(), WarmupObjective())
    module._device = torch.device("meta")  # as Lightning says before it moves the module
    for device, expected in (None, "meta"), ("cpu", "cpu"):
        averaging = AveragedWeights(device)
        averaging.setup(None, module, "fit")
        assert {tensor.device.type for tensor in averaging._average_model.state_dict().values()} == {expected}
