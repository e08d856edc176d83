"""An objective whose loss is finite, but not its gradient."""

import torch

from relo.data.clip_batch import ClipBatch
from relo.learning.base import Objective, StepResult
from relo.models.network import LocalizationNetwork


class BrokenGradient(Objective):
    """The square root of 0 on one part of the network: its slope is infinite, and times 0 no number."""

    trained_parts = ("box",)

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """A loss of 0."""
        parameters = torch.cat([parameter.flatten() for parameter in network.box.parameters()])
        loss = (0 * parameters).square().sum().sqrt()
        return StepResult(loss, {"loss": loss.detach()})
