"""Handcrafted priors: what conventional trackers train their map against, and the baseline to the policy."""

from abc import abstractmethod

import torch
from torch import Tensor

from relo.errors import UserError
from relo.geometry import clamped_xyxy, cxcywh_to_xyxy
from relo.learning.base import box_losses, masked_mean, regression_loss, target_cell
from relo.models.checkpoints.plugin import Plugin
from relo.models.heads import at_cells
from relo.models.network import LocalizationMaps
from relo.settings import LARGEST, check_number


class Prior(Plugin):
    """Contract: compares what a prior head gives with what the prior says it should be."""

    @abstractmethod
    def loss(self, maps: LocalizationMaps, boxes_xywh: Tensor, present: Tensor) -> Tensor:
        """The loss of the maps of B targets with boxes [B, 4] (shares of the crop's side).

        Frames whose `present` [B] is false do not count.

        Raises:
            UserError: the network has no prior head, or one that this prior cannot train.
        """


class ScorePrior(Prior):
    """A prior that says what the score of every cell should be."""

    @abstractmethod
    def target_map(self, boxes_xywh: Tensor, map_size: int) -> Tensor:
        """The scores [..., S, S] in 0 to 1 that targets with boxes [..., 4] (shares of the crop's side) should get."""

    def _learned_scores(self, maps: LocalizationMaps) -> Tensor:
        if maps.prior_scores is None or maps.prior_boxes_cxcywh is not None:
            raise UserError(
                f"{type(self).__name__} needs a prior head that gives a score for every cell: set the network's prior "
                "to relo.models.heads.ConvPrior."
            )
        return maps.prior_scores


class GaussianPrior(ScorePrior):
    """A Gaussian bump at the target's cell, learned with CornerNet's focal loss (Law and Deng, ECCV 2018)."""

    def __init__(self, min_overlap: float = 0.7, alpha: float = 2.0, beta: float = 4.0, released: bool = False) -> None:
        """Set the bump and the loss.

        Args:
            min_overlap: least IoU with the target of a box whose corners lie within the bump's radius of its own.
            alpha: how strongly easy cells are discounted.
            beta: how strongly cells near the centre are spared.
            released: as the public release does, draw the bump as `gaussian_map` has it, and divide the loss by the
                number of peaks that lie on the map.

        Raises:
            UserError: a number out of its range.
        """
        check_number("GaussianPrior", 0.01, 0.99, min_overlap=min_overlap)
        check_number("GaussianPrior", 0, 100, alpha=alpha, beta=beta)
        self.min_overlap = min_overlap
        self.alpha = alpha
        self.beta = beta
        self.released = released

    def target_map(self, boxes_xywh: Tensor, map_size: int) -> Tensor:
        """The bump, 1 at its peak."""
        return gaussian_map(boxes_xywh, map_size, self.min_overlap, self.released)

    def loss(self, maps: LocalizationMaps, boxes_xywh: Tensor, present: Tensor) -> Tensor:
        """Focal loss, averaged over the frames that count."""
        scores = self._learned_scores(maps)
        heat = self.target_map(boxes_xywh, scores.shape[-1])
        peak = heat == 1
        at_peak = -((1 - scores) ** self.alpha) * scores.log()
        elsewhere = -((1 - heat) ** self.beta) * scores**self.alpha * (1 - scores).log()
        losses = torch.where(peak, at_peak, elsewhere).sum((-2, -1))
        if self.released:
            return (losses * present).sum() / (peak.any(-1).any(-1) & present).sum().clamp(min=1)
        return masked_mean(losses, present)


class BinaryPrior(ScorePrior):
    """1 inside the target's box, 0 outside, learned with binary cross-entropy."""

    def target_map(self, boxes_xywh: Tensor, map_size: int) -> Tensor:
        """1 at every cell whose centre is inside the box, and at the target's own."""
        cells = torch.arange(map_size, device=boxes_xywh.device)
        centers = (cells.to(boxes_xywh.dtype) + 0.5) / map_size
        x, y, w, h = boxes_xywh[..., None].unbind(-2)
        columns, rows = (centers >= x) & (centers <= x + w), (centers >= y) & (centers <= y + h)
        inside = rows[..., :, None] & columns[..., None, :]
        is_target = target_cell(boxes_xywh, map_size)[..., None, None] == cells[:, None] * map_size + cells
        return (inside | is_target).to(boxes_xywh.dtype)

    def loss(self, maps: LocalizationMaps, boxes_xywh: Tensor, present: Tensor) -> Tensor:
        """Binary cross-entropy, averaged over cells and over the frames that count."""
        scores = self._learned_scores(maps)
        inside = self.target_map(boxes_xywh, scores.shape[-1]) == 1
        # Written out: autocast forbids torch's binary cross-entropy of probabilities on a GPU.
        entropy = -torch.where(inside, scores, 1 - scores).log()
        return masked_mean(entropy.mean((-2, -1)), present)


class CornerExpectation(Prior):
    """The box itself, from the expectations of two corners, learned with GIoU and L1 (STARK, Yan et al., ICCV 2021)."""

    def __init__(self, giou_weight: float = 2.0, l1_weight: float = 5.0) -> None:
        """Set the loss.

        Args:
            giou_weight: weight of 1 - GIoU.
            l1_weight: weight of the mean absolute error of x1, y1, x2, y2 (shares of the search side).

        Raises:
            UserError: a weight below 0, or that is no number.
        """
        check_number("CornerExpectation", 0, LARGEST, giou_weight=giou_weight, l1_weight=l1_weight)
        self.giou_weight = giou_weight
        self.l1_weight = l1_weight

    def loss(self, maps: LocalizationMaps, boxes_xywh: Tensor, present: Tensor) -> Tensor:
        """GIoU and L1 of the prior head's own box, averaged over the frames that count."""
        if maps.prior_boxes_cxcywh is None:
            raise UserError(
                f"{type(self).__name__} needs a prior head that gives a box from its corners: set the network's prior "
                "to relo.models.heads.CornerPrior."
            )
        losses = box_losses(prior_boxes_xyxy(maps), clamped_xyxy(boxes_xywh), present)
        return regression_loss(losses, self.giou_weight, self.l1_weight)


def prior_boxes_xyxy(maps: LocalizationMaps) -> Tensor:
    """The boxes [B, 4] by which the prior alone localizes: its best cell's, from its own head or the box head."""
    assert maps.prior_scores is not None
    best = maps.prior_scores.flatten(1).argmax(1)
    return cxcywh_to_xyxy(at_cells(maps.cells_cxcywh("prior"), best))


def gaussian_map(boxes_xywh: Tensor, map_size: int, min_overlap: float, released: bool = False) -> Tensor:
    """Gaussian bumps [B, S, S] with a peak of exactly 1 at the cell of each box [B, 4] (shares of the crop's side).

    The standard deviation is a sixth of the bump's diameter of 2 r + 1 cells, with r from `corner_radius`. The cell
    is the one that holds the box's centre; `released`, the one whose upper left corner is nearest to it, even if it
    lies beyond the map.
    """
    if released:
        corner, size = (boxes_xywh * map_size).split(2, dim=-1)
        column, row = (corner + size / 2).round().unbind(-1)  # half to even
    else:
        cell = target_cell(boxes_xywh, map_size)
        row, column = cell // map_size, cell % map_size
    radius = corner_radius(boxes_xywh[..., 2:] * map_size, min_overlap).floor().clamp(min=0)[..., None, None]
    cells = torch.arange(map_size, device=boxes_xywh.device)
    below, beside = cells[:, None] - row[..., None, None], cells - column[..., None, None]
    heat = torch.exp(-(below**2 + beside**2) / (2 * ((2 * radius + 1) / 6) ** 2))
    return torch.where(below.abs().maximum(beside.abs()) <= radius, heat, 0)


def corner_radius(sizes_wh: Tensor, min_overlap: float) -> Tensor:
    """The radius [...] of the bump for boxes of size w, h [..., 2] in cells, as in CenterNet (Zhou et al., 2019).

    Three ways to displace two corners by r (one in and one out, both in, both out) give a quadratic in r each.
    CenterNet takes (b + sqrt(b^2 - 4 a c)) / 2 for each and the least of them; that is not the root of the equation (it
    is not divided by a), but the trackers compared with were trained with it.
    """
    width, height = sizes_wh.unbind(-1)
    total, area = width + height, width * height
    quadratics = (
        (1.0, total, area * (1 - min_overlap) / (1 + min_overlap)),
        (4.0, 2 * total, area * (1 - min_overlap)),
        (4 * min_overlap, -2 * min_overlap * total, -area * (1 - min_overlap)),
    )
    return torch.stack([(b + (b**2 - 4 * a * c).clamp(min=0).sqrt()) / 2 for a, b, c in quadratics]).amin(0)
