"""Heads on the encoder's map: policy, critic, box, prior. Each reads [B, C, S, S] and knows no other."""

import itertools
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from relo.plugin import PluginModule

PAPER_TOWER = (256, 128, 64, 32)
"""Channels of the four convolutions of a tower in the paper's networks."""

SCORE_FLOOR = 1e-4
"""Sigmoid outputs are kept this far from 0 and 1."""


class PolicyHead(PluginModule):
    """Contract: the map [B, C, S, S] -> unnormalised log-probabilities of the cells [B, S, S]."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> logits [B, S, S]."""


class Critic(PluginModule):
    """Contract: the map [B, C, S, S] -> the value of the state [B]."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> values [B]."""


class BoxHead(PluginModule):
    """Contract: the map [B, C, S, S] -> boxes_cxcywh [B, S, S, 4], one a cell, as shares of the search side."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> boxes_cxcywh [B, S, S, 4]."""


class PriorHead(PluginModule):
    """Contract: the map [B, C, S, S] -> a score in (0, 1) for every cell [B, S, S], trained against a prior."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> scores [B, S, S]."""


def conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """3 x 3 convolution, batch normalisation, ReLU; keeps the map's size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def tower(in_channels: int, hidden: Sequence[int], out_channels: int) -> nn.Sequential:
    """3 x 3 convolutions of the hidden widths, then a 1 x 1 convolution to `out_channels`."""
    layers = [conv_norm_relu(a, b) for a, b in itertools.pairwise((in_channels, *hidden))]
    return nn.Sequential(*layers, nn.Conv2d(hidden[-1], out_channels, kernel_size=1))


def clamped_sigmoid(values: Tensor) -> Tensor:
    """Sigmoid kept within [1e-4, 1 - 1e-4]."""
    return values.sigmoid().clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)


class ConvPolicy(PolicyHead):
    """A tower to one logit a cell."""

    def __init__(self, channels: int, hidden: Sequence[int] = PAPER_TOWER) -> None:
        """Args: `channels`, of the encoder's map; `hidden`, widths of the tower."""
        super().__init__()
        self.tower = tower(channels, hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> logits [B, S, S]."""
        return self.tower(features).squeeze(1)


class ConvCritic(Critic):
    """Four convolutions of its own, global average, linear."""

    def __init__(self, channels: int, hidden: Sequence[int] = PAPER_TOWER) -> None:
        """Args: `channels`, of the encoder's map; `hidden`, widths of the convolutions."""
        super().__init__()
        self.convolutions = nn.Sequential(*(conv_norm_relu(a, b) for a, b in itertools.pairwise((channels, *hidden))))
        self.value = nn.Linear(hidden[-1], 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> values [B]."""
        return self.value(self.convolutions(features).mean(dim=(2, 3))).squeeze(-1)


class ConvBox(BoxHead):
    """An offset tower (raw) and a size tower (sigmoid).

    The box of cell (ix, iy) is centred at ((ix + dx) / S, (iy + dy) / S).
    """

    def __init__(self, channels: int, hidden: Sequence[int] = PAPER_TOWER) -> None:
        """Args: `channels`, of the encoder's map; `hidden`, widths of the towers."""
        super().__init__()
        self.offset = tower(channels, hidden, 2)
        self.size = tower(channels, hidden, 2)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> boxes_cxcywh [B, S, S, 4]."""
        side = features.shape[-1]
        cells = torch.arange(side, device=features.device)
        rows, columns = torch.meshgrid(cells, cells, indexing="ij")
        corner = torch.stack([columns, rows])  # [2, S, S]: x, y of each cell
        center = (corner + self.offset(features).float()) / side
        return torch.cat([center, clamped_sigmoid(self.size(features).float())], dim=1).permute(0, 2, 3, 1)


class ConvPrior(PriorHead):
    """A tower, then a sigmoid."""

    def __init__(self, channels: int, hidden: Sequence[int] = PAPER_TOWER) -> None:
        """Args: `channels`, of the encoder's map; `hidden`, widths of the tower."""
        super().__init__()
        self.tower = tower(channels, hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> scores [B, S, S]."""
        return clamped_sigmoid(self.tower(features).squeeze(1).float())
