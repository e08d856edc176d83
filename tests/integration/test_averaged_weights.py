"""`AveragedWeights`: what checkpoints of a fit hold, on one and on two processes, and resumed."""

import pytest
import torch

from relo.models.checkpoints.weights import load_network, read_checkpoint
from training_runs import WARMUP, config, relo, relo_here, write_config

DECAY = 0.5
DDP = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=1")
STATES = ("state_dict", "current_model_state")


def averaged_run(data, folder):
    """A config that averages, and keeps the checkpoint of each of its 4 steps."""
    settings = config(data, WARMUP, localizations=["prior"])
    callbacks = settings["trainer"]["callbacks"]
    callbacks[0]["init_args"] |= {"every_n_train_steps": 1, "save_top_k": -1}
    callbacks.append({"class_path": "relo.training.callbacks.AveragedWeights", "init_args": {"decay": DECAY}})
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
