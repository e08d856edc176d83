"""A callback for runs that end before their time."""

import os
import signal
import time
from pathlib import Path

from lightning import Callback, LightningModule, Trainer


class Dies(Callback):
    """Before a step of a rank, its process or a loader's is killed, or it raises, or waits for ever."""

    def __init__(self, what: str, step: int = 2, rank: int = 0) -> None:
        self.what, self.step, self.rank = what, step, rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if (trainer.global_step, trainer.global_rank) != (self.step, self.rank):
            return
        Path("died").touch()
        if self.what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "loader":
            os.kill(trainer.train_dataloader._iterator._workers[0].pid, signal.SIGKILL)
        elif self.what == "stuck":
            time.sleep(600)
        else:
            raise ValueError(self.what)


def dies(what: str, **place: int) -> dict[str, object]:
    """The callback in a config."""
    return {"class_path": "dying.Dies", "init_args": {"what": what, **place}}
