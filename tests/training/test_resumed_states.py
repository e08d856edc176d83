"""A checkpoint whose training states are of other types is refused by name before anything is resumed."""

import copy
from functools import partial

import pytest
import timm.optim
import torch
from lightning import Trainer

from relo.errors import UserError
from relo.training.resumed_states import require_resumable


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)


@pytest.fixture
def checkpoint(trainer) -> dict:
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = torch.optim.AdamW(parameters)
    torch.cat(parameters).sum().backward()
    optimizer.step()
    return {
        "pytorch-lightning_version": "2.6.0",
        "epoch": 0,
        "global_step": 1,
        "optimizer_states": [copy.deepcopy(optimizer.state_dict())],
        "lr_schedulers": [],
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "callbacks": {},
    }


def test_a_good_checkpoint_is_taken(checkpoint, trainer):
    require_resumable(checkpoint, trainer, "last.ckpt")


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.Adafactor,
        partial(timm.optim.Adafactor, min_dim_size_to_factor=2),
        partial(torch.optim.LBFGS, line_search_fn="strong_wolfe"),
        torch.optim.ASGD,
        torch.optim.Rprop,
        torch.optim.SGD,
    ],
)
def test_states_of_other_optimizers_are_taken(make, checkpoint, trainer):
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in [(2, 3), (3,), (2, 3, 4, 5), ()]]
    optimizer = make(parameters)

    def loss():
        optimizer.zero_grad()
        value = sum((parameter - 2).square().sum() for parameter in parameters)
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(loss)
    checkpoint["optimizer_states"] = [optimizer.state_dict()]
    require_resumable(checkpoint, trainer, "last.ckpt")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("epoch",), "word"),
        (("optimizer_states",), {}),
        (("optimizer_states", 0), 3),
        (("optimizer_states", 0, "state", 0), 1e308),
        (("optimizer_states", 0, "state", 0, "exp_avg"), 10**400),
        (("optimizer_states", 0, "state", 0, "exp_avg"), torch.zeros(4)),
        (("optimizer_states", 0, "state", 0, "step"), [None]),
        (("optimizer_states", 0, "state", 0, "step"), None),
        (("optimizer_states", 0, "state", 1), {"step": 1.0}),
        (("optimizer_states", 0, "state", 0, "exp_avg"), 1.0),
        (("optimizer_states", 0, "state", 0, "row_var"), "word"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), "word"),
        (("loops", "fit_loop"), []),
        (("loops", "fit_loop", "epoch_progress", "total", "ready"), "word"),
        (("pytorch-lightning_version",), None),
    ],
)
def test_what_cannot_be_resumed(place, value, checkpoint, trainer):
    target = checkpoint
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    with pytest.raises(UserError, match=r"last\.ckpt cannot be resumed: its entry ") as error:
        require_resumable(checkpoint, trainer, "last.ckpt")
    assert len(str(error.value)) < 300
