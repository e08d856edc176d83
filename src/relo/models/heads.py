"""Heads on the encoder's map: policy, critic, box, prior. Each reads [B, C, S, S] and knows no other."""

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from relo.errors import UserError
from relo.models.checkpoints.plugin import PluginModule
from relo.settings import LARGEST_WIDTH, check_whole

Localization = Literal["policy", "prior"]
"""The head whose map picks the cell."""

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
    """Contract: the map [B, C, S, S] -> boxes_cxcywh [B, S, S, 4], one per cell, as shares of the search side."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """[B, C, S, S] -> boxes_cxcywh [B, S, S, 4]."""


class PriorHead(PluginModule):
    """Contract: the map [B, C, S, S] -> a score in (0, 1) for every cell, trained against a prior, and maybe boxes.

    A tracker takes boxes of the prior's own by the greatest score, without its window; else they are the box head's.
    """

    @abstractmethod
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, C, S, S] -> scores [B, S, S]; boxes_cxcywh [B, S, S, 4] as shares of the search side, or None."""


def at_cells(maps: Tensor, cells: Tensor) -> Tensor:
    """The entries of maps [*batch, S, S, ...] at one cell each [*batch] (row * S + column): [*batch, ...].

    A side of the batch that is 1 in either stands for all of the other's.
    """
    axis = cells.dim()
    flat = maps.flatten(axis, axis + 1)
    index = cells.view(*cells.shape, *[1] * (flat.dim() - axis))
    return flat.take_along_dim(index, axis).squeeze(axis)


def check_channels(channels: int, hidden: Sequence[int], owner: str = "A head") -> None:
    """Refuse widths of convolutions that cannot be made.

    Raises:
        UserError: none is hidden, or a number is out of range.
    """
    if not hidden:
        raise UserError(f"{owner} has no hidden layer: give hidden at least one number of channels.")
    check_whole(owner, 1, LARGEST_WIDTH, channels=channels)
    for width in hidden:
        check_whole(owner, 1, LARGEST_WIDTH, hidden=width)


def conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """3 x 3 convolution, batch normalisation, ReLU; keeps the map's size."""
    return Conv2dNormActivation(in_channels, out_channels, bias=True, inplace=None)


def tower(in_channels: int, hidden: Sequence[int], out_channels: int) -> nn.Sequential:
    """3 x 3 convolutions of the hidden widths, then a 1 x 1 convolution to `out_channels`.

    Raises:
        UserError: see `check_channels`.
    """
    check_channels(in_channels, hidden)
    layers = [conv_norm_relu(a, b) for a, b in itertools.pairwise((in_channels, *hidden))]
    return nn.Sequential(*layers, nn.Conv2d(hidden[-1], out_channels, kernel_size=1))


def clamped_sigmoid(values: Tensor) -> Tensor:
    """Sigmoid kept within [1e-4, 1 - 1e-4]."""
    return values.sigmoid().clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)


class ConvPolicy(PolicyHead):
    """A tower to one logit per cell."""

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
        check_channels(channels, hidden)
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
    """A tower, then a sigmoid. The boxes are the box head's."""

    def __init__(self, channels: int, hidden: Sequence[int] = PAPER_TOWER) -> None:
        """Args: `channels`, of the encoder's map; `hidden`, widths of the tower."""
        super().__init__()
        self.tower = tower(channels, hidden, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, C, S, S] -> scores [B, S, S], None."""
        return clamped_sigmoid(self.tower(features).squeeze(1).float()), None


class CornerPrior(PriorHead):
    """A tower each for the top-left and the bottom-right corner: one box per frame, the same at every cell.

    A corner lies at the expectation of the cells' centres under its tower's softmax (STARK, Yan et al., ICCV 2021). The
    cell that holds the box's centre scores the geometric mean of the two softmaxes' peaks, without a gradient; the
    others score the floor.
    """

    def __init__(self, channels: int, hidden: Sequence[int] = PAPER_TOWER) -> None:
        """Args: `channels`, of the encoder's map; `hidden`, widths of the towers."""
        super().__init__()
        self.top_left = tower(channels, hidden, 1)
        self.bottom_right = tower(channels, hidden, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, C, S, S] -> scores [B, S, S] and boxes_cxcywh [B, S, S, 4]."""
        side = features.shape[-1]
        cells = (torch.arange(side, device=features.device) + 0.5) / side
        distributions = [
            corner(features).float().flatten(1).softmax(1).unflatten(1, (side, side))  # [B, S, S]
            for corner in (self.top_left, self.bottom_right)
        ]
        # Products and sums rather than a matrix product, which autocast would round.
        top_left, bottom_right = (
            torch.stack([(shares.sum(1) * cells).sum(1), (shares.sum(2) * cells).sum(1)], dim=1)  # [B, 2]: x, y
            for shares in distributions
        )
        center, size = (top_left + bottom_right) / 2, bottom_right - top_left
        # Corners in the wrong order give the least size, but the gradient of their own places: training sorts them.
        size = size + (size.clamp(min=SCORE_FLOOR) - size).detach()
        boxes_cxcywh = torch.cat([center, size], dim=1)[:, None, None].expand(-1, side, side, -1)

        peaks = torch.stack([shares.detach().amax((1, 2)) for shares in distributions])
        confidence = peaks.prod(0).sqrt().clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)
        column, row = (center.detach()[..., None] - cells).abs().argmin(-1).unbind(1)
        holds_center = torch.arange(side**2, device=features.device) == (row * side + column)[:, None]
        scores = torch.where(holds_center, confidence[:, None], SCORE_FLOOR).unflatten(1, (side, side))
        return scores, boxes_cxcywh
