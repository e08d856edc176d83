"""What ends a run: processes that are killed, and a network for which no memory suffices."""

import os
import signal
import time
from collections.abc import Collection

import torch
from lightning import Callback, LightningModule, Trainer

from relo.models.heads import Localization
from relo.models.network import HEADS, LocalizationMaps, LocalizationNetwork


class Dies(Callback):
    """On one rank, before a step: the process or a loader's is killed, it raises, or it waits for ever."""

    def __init__(self, what: str, step: int = 2, rank: int = 0) -> None:
        self.what, self.step, self.rank = what, step, rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step != self.step or trainer.global_rank != self.rank:
            return
        if self.what == "rank":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "loader":
            os.kill(trainer.train_dataloader._iterator._workers[0].pid, signal.SIGKILL)
        elif self.what == "stuck":
            time.sleep(600)
        else:
            raise ValueError(self.what)


class LargeNetwork(LocalizationNetwork):
    """Its maps find no memory on the GPU, as it says, from a call on."""

    calls = 0

    def localize(self, features: torch.Tensor, heads: Collection[Localization] = HEADS) -> LocalizationMaps:
        self.calls += 1
        if self.calls > int(os.environ.get("CALLS_THAT_FIT", 0)):
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.10 GiB of which 1.20 "
                "GiB is free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
            )
        return super().localize(features, heads)
