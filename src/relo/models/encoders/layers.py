"""What several encoders share: models of timm, where a template's target lies, and the types of tokens."""

from typing import Any

import timm
import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from relo.errors import UserError, excerpt
from relo.geometry import xywh_to_xyxy
from relo.settings import LARGEST_DEPTH, LARGEST_SIDE, LARGEST_WIDTH, check_whole

FROM_HUB = "hub"
"""What an encoder's `pretrained` says to let timm fetch the weights."""


_MOST_WEIGHTS = 2**33  # 32 GB of them


def check_blocks(width: int, depth: int, heads: int) -> None:
    """Refuse transformer blocks that cannot be made, before memory is taken for them.

    Raises:
        UserError: a number out of range, heads that do not divide the width, or more than 8.6 billion weights.
    """
    check_whole("The encoder", 1, LARGEST_WIDTH, width=width, heads=heads)
    check_whole("The encoder", 1, LARGEST_DEPTH, depth=depth)
    if width % heads:
        raise UserError(f"The encoder has width {width}, which is no multiple of its {heads} heads.")
    if (weights := 12 * depth * width**2) > _MOST_WEIGHTS:
        raise UserError(
            f"The encoder has width {width} and depth {depth}, {weights / 1e9:,.1f} billion weights; at most "
            f"{_MOST_WEIGHTS / 1e9:.1f} billion are made."
        )


def check_sizes(stride: int, search_size: int, template_size: int) -> None:
    """Refuse sides of crops that tokens of a stride do not divide.

    Raises:
        UserError: a side is not a multiple of the stride, or larger than 8192 px.
    """
    check_whole("The encoder", stride, LARGEST_SIDE, search_size=search_size, template_size=template_size)
    if search_size % stride or template_size % stride:
        raise UserError(f"search_size {search_size} and template_size {template_size} must be multiples of {stride}.")


def create_timm(name: str, purpose: str, **options: Any) -> Any:
    """A model of timm; `purpose` ends the sentence that says that timm has no such model.

    Raises:
        UserError: timm does not know the name, or its model does not take the options.
    """
    if ":" in name:  # a model's config may come from someone else, and shall not make this machine fetch anything
        raise UserError(f"timm cannot make {excerpt(name)} {purpose}: it is an address; give the architecture's name.")
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # weights come from a hub, whose HTTP libraries have errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"timm cannot make {name!r} {purpose}: {reason}") from error


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


class TokenTypes(nn.Module):
    """Learned vectors that tell search tokens from template tokens, and a template's target from its background."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.search = nn.Parameter(torch.zeros(width))
        self.foreground = nn.Parameter(torch.zeros(width))
        self.background = nn.Parameter(torch.zeros(width))
        for vector in (self.search, self.foreground, self.background):
            trunc_normal_(vector, std=0.02)

    def of_templates(self, boxes_xywh: Tensor, cells: int, dtype: torch.dtype | None = None) -> Tensor:
        """The types of a template's cells, by the share of each that the target covers.

        Args:
            boxes_xywh: [..., 4], the target's boxes as shares of the crop's side.
            cells: cells on a side of the template's grid.
            dtype: what the shares are rounded to; the boxes' own by default.

        Returns:
            [..., cells * cells, width], row by row.
        """
        share = foreground_share(boxes_xywh, cells).flatten(-2).to(dtype or boxes_xywh.dtype)[..., None]
        return share * self.foreground + (1 - share) * self.background
