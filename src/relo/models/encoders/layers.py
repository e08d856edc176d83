"""What several encoders share: where a template's target lies, positions of a grid, and the types of tokens."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from relo.errors import UserError
from relo.geometry import xywh_to_xyxy


def foreground_share(boxes_xywh: Tensor, cells: int) -> Tensor:
    """The share of each cell's area that a box covers.

    Args:
        boxes_xywh: [..., 4], as shares of the image's side.
        cells: cells on a side of the grid.

    Returns:
        [..., cells, cells] in [0, 1], rows first.
    """
    edges = torch.arange(cells, device=boxes_xywh.device, dtype=boxes_xywh.dtype)
    x1, y1, x2, y2 = (xywh_to_xyxy(boxes_xywh) * cells)[..., None].unbind(-2)
    columns = (torch.minimum(x2, edges + 1) - torch.maximum(x1, edges)).clamp(min=0)
    rows = (torch.minimum(y2, edges + 1) - torch.maximum(y1, edges)).clamp(min=0)
    return rows[..., :, None] * columns[..., None, :]


def fit_positions(positions: Tensor, cells: int) -> Tensor:
    """Learned positions of one square grid for another: its top left corner, or all of it widened bicubically.

    Widened, the corners keep their positions, as in the public release.

    Args:
        positions: [1, n * n, width], rows first.
        cells: cells on a side of the other grid.

    Returns:
        [1, cells * cells, width].

    Raises:
        UserError: the positions are not those of a square grid.
    """
    side = math.isqrt(positions.shape[1]) if positions.dim() == 3 else 0
    if not side or positions.shape[:2] != (1, side * side):
        raise UserError(f"Positions of shape {list(positions.shape)} do not form a square grid.")
    grid = rearrange(positions, "b (h w) c -> b c h w", h=side)
    if side < cells:
        grid = F.interpolate(grid, size=(cells, cells), mode="bicubic", align_corners=True)
    return rearrange(grid[:, :, :cells, :cells], "b c h w -> b (h w) c")


def check_template_count(count: int, most: int) -> None:
    """Refuse more templates than an encoder has positions for.

    Raises:
        UserError: `count` is greater than `most`.
    """
    if count > most:
        raise UserError(f"The encoder takes {most} templates at most, not {count}: set its max_templates, or fewer.")


class TokenTypes(nn.Module):
    """Learned vectors that tell search tokens from template tokens, and a template's target from its background."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.search = nn.Parameter(torch.zeros(width))
        self.foreground = nn.Parameter(torch.zeros(width))
        self.background = nn.Parameter(torch.zeros(width))
        for vector in (self.search, self.foreground, self.background):
            trunc_normal_(vector, std=0.02)

    def of_template(self, share: Tensor) -> Tensor:
        """The foreground share [...] of template cells -> their type vectors [..., width]."""
        share = share[..., None]
        return share * self.foreground + (1 - share) * self.background
