"""A callback that measures how far the optimizer leads."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer


class Travel(Callback):
    """Writes a line for every batch to `travel.txt`: global step, updates, and their greatest and least distance."""

    def __init__(self) -> None:
        self.places: list[torch.Tensor] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        self.places.append(_place(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.places.append(_place(pl_module))
        steps = torch.stack(self.places).diff(dim=0).norm(dim=1)
        with Path("travel.txt").open("a") as file:
            file.write(f"{trainer.global_step} {len(steps)} {steps.max().item():.9f} {steps.min().item():.9f}\n")
        self.places = []


def _place(module: LightningModule) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters() if parameter.requires_grad])
