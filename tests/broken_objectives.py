"""Objectives whose loss or gradient is no number."""

import os

import torch

from relo.data.clip_batch import ClipBatch
from relo.learning.base import Objective, StepResult
from relo.models.network import LocalizationNetwork


class BrokenGradient(Objective):
    """The square root of 0 on one part of the network: its slope is infinite, and times 0 no number."""

    trained_parts = ("box",)

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """A loss of 0."""
        loss = (0 * _sum(network)).square().sqrt()
        return StepResult(loss, {"loss": loss.detach()})


class BrokenLoss(Objective):
    """No number on the last of the ranks, and on the others the sum of a part's parameters."""

    trained_parts = ("box",)

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """A loss that is no number on the last rank."""
        is_last = int(os.environ.get("LOCAL_RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1
        loss = _sum(network) * (float("nan") if is_last else 1.0)
        return StepResult(loss, {"loss": loss.detach()})


def _sum(network: LocalizationNetwork) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in network.box.parameters()]).sum()
