"""Signals that arrive while a checkpoint is written wait until it is."""

import os
import signal

import pytest
import torch
from lightning import Trainer

from relo.data.datamodule import named_workers
from relo.errors import UserError
from relo.training.checkpoints import InertCheckpointIO

KILLED = "DataLoader worker (pid 3278) is killed by signal: Killed. "


class Signalling:
    """A part of a checkpoint that sends a signal to the process that pickles it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self):
        os.kill(os.getpid(), self.number)
        return str, ("sent",)


def checkpoint_io():
    return InertCheckpointIO(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))


def raises(*_):
    raise RuntimeError(KILLED)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGCHLD])
def test_what_a_signal_raises_comes_when_a_checkpoint_is_whole(number, tmp_path):
    before = signal.signal(number, raises)
    try:
        with pytest.raises(RuntimeError, match="DataLoader worker"):
            checkpoint_io().save_checkpoint({"state_dict": {}, "part": Signalling(number)}, tmp_path / "last.ckpt")
        assert signal.getsignal(number) is raises
    finally:
        signal.signal(number, before)
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["part"] == "sent"


def _fail_while_failing():
    try:
        raise RuntimeError(KILLED)
    finally:
        raise RuntimeError("unexpected pos 353216 vs 353104")


def test_a_loaders_death_is_named_where_another_error_follows():
    with pytest.raises(UserError, match="Process 3278, which prepared clips, was killed"), named_workers():
        _fail_while_failing()
