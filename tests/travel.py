"""A callback that measures how far the optimizer leads."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.nn.utils import parameters_to_vector


class Travel(Callback):
    """Writes a line for every batch to `travel.txt`: global step, updates, and the greatest distance of an update."""

    def __init__(self) -> None:
        self.places: list[torch.Tensor] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        self.places.append(parameters_to_vector(p for p in pl_module.parameters() if p.requires_grad).detach())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.places.append(parameters_to_vector(p for p in pl_module.parameters() if p.requires_grad).detach())
        steps = torch.stack(self.places).diff(dim=0).norm(dim=1)
        with Path("travel.txt").open("a") as file:
            file.write(f"{trainer.global_step} {len(steps)} {steps.max().item():.9f} {steps.min().item():.9f}\n")
        self.places = []
