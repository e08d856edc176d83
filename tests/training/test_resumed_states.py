"""A checkpoint whose training states are of other types is refused by name before anything is resumed."""

import copy

import pytest
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
