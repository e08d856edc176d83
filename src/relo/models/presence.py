"""The presence head: whether the box of a cell is right, by the map and by what the localization says of it."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from relo.errors import UserError
from relo.models.checkpoints.plugin import PluginModule
from relo.models.heads import Localization, check_channels, conv_norm_relu

PEAKS = 3
"""Local maxima of the localization's map that `ConvPresence` reads: one stands alone, or it has rivals."""


class PresenceHead(PluginModule):
    """Contract: the map and a localization's scores -> for each cell the log-odds that its box is right.

    A box is right where its IoU with the target exceeds 0.5; the box of a target that is hidden, or beside the search
    region, never is. The log-odds are divided by `temperature`, and `bias` is added: numbers of the state that a
    calibration sets (`relo.learning.presence.fit_calibration`).

    Attributes:
        localization: the map whose scores are read, and whose choice of a cell the head is trained on.
    """

    temperature: Tensor
    bias: Tensor

    def __init__(self, localization: Localization = "policy") -> None:
        super().__init__()
        self.localization = localization
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))

    @abstractmethod
    def cell_logits(self, features: Tensor, scores: Tensor, boxes_cxcywh: Tensor) -> Tensor:
        """Log-odds [B, S, S] before calibration; the arguments are those of `forward`."""

    def forward(self, features: Tensor, scores: Tensor, boxes_cxcywh: Tensor) -> Tensor:
        """Log-odds of every cell.

        Args:
            features: the encoder's map [B, C, S, S].
            scores: of the cells [B, S, S], unnormalised logarithms: the policy's logits, or the log-odds of the prior.
            boxes_cxcywh: of the cells [B, S, S, 4], shares of the search side.

        Returns:
            [B, S, S].
        """
        return self.cell_logits(features, scores, boxes_cxcywh).float() / self.temperature + self.bias

    @torch.no_grad()
    def calibrate(self, temperature: float, bias: float) -> None:
        """Divide the log-odds by a (further) temperature, then add a bias."""
        self.temperature *= temperature
        self.bias.copy_(self.bias / temperature + bias)


class ConvPresence(PresenceHead):
    """Two convolutions over the map, scores and box sizes; what the frame as a whole says is added to every cell."""

    def __init__(
        self,
        channels: int,
        hidden: tuple[int, int] | list[int] = (48, 32),
        localization: Localization = "policy",
    ) -> None:
        """Set the widths.

        Args:
            channels: of the encoder's map.
            hidden: of the two convolutions.
            localization: see `PresenceHead`.
        """
        super().__init__(localization)
        check_channels(channels, hidden, "The presence head")
        if len(hidden) != 2:
            raise UserError(f"The presence head has two convolutions, and hidden has {len(hidden)} numbers.")
        wide, narrow = hidden
        self.reduce = nn.Sequential(nn.Conv2d(channels, wide, kernel_size=1), nn.BatchNorm2d(wide), nn.ReLU())
        self.norm_planes = nn.BatchNorm2d(4)
        self.cells = nn.Sequential(conv_norm_relu(wide + 4, wide), conv_norm_relu(wide, narrow))
        self.norm_peaks = nn.BatchNorm1d(PEAKS)
        self.frame = nn.Linear(2 * narrow + PEAKS, narrow)
        self.logit = nn.Conv2d(narrow, 1, kernel_size=1)

    def cell_logits(self, features: Tensor, scores: Tensor, boxes_cxcywh: Tensor) -> Tensor:
        """[B, C, S, S], [B, S, S] and [B, S, S, 4] -> [B, S, S].

        Raises:
            UserError: it is trained on one frame at a time, which has no statistics.
        """
        # Over several processes, statistics may be of all of them.
        if self.training and len(scores) == 1 and not isinstance(self.norm_peaks, nn.SyncBatchNorm):
            raise UserError(
                "The presence head is trained on at least two frames at a time, and gets one: raise data.batch_size, "
                "or lower the objective's updates."
            )
        log_shares = scores.flatten(1).log_softmax(1).view_as(scores)
        sizes = boxes_cxcywh[..., 2:].permute(0, 3, 1, 2)
        planes = self.norm_planes(torch.cat([scores[:, None], log_shares[:, None], sizes], dim=1))
        cells = self.cells(torch.cat([self.reduce(features), planes], dim=1))  # [B, narrow, S, S]
        peaks = self.norm_peaks(best_peaks(log_shares, PEAKS)[0])
        frame = self.frame(torch.cat([cells.amax((2, 3)), cells.mean((2, 3)), peaks], dim=1))
        return self.logit((cells + frame[:, :, None, None]).relu()).squeeze(1)


def best_peaks(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest of the scores [B, S, S] that no neighbour exceeds, the greatest first.

    Where a map has fewer peaks, its least score stands for those that lack.

    Returns:
        The scores [B, count], and the cells that have them [B, count] (int64, row * S + column).
    """
    is_peak = scores == max_pool2d(scores[:, None], 3, stride=1, padding=1)[:, 0]
    least = scores.amin((1, 2), keepdim=True)
    peaks = torch.where(is_peak, scores, least).flatten(1)
    lacking = max(count - peaks.shape[1], 0)
    values, cells = peaks.topk(count - lacking)
    if lacking:
        values, cells = (torch.cat([each, each[:, -1:].expand(-1, lacking)], 1) for each in (values, cells))
    return values, cells
