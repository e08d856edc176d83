"""Encoders that look for what resembles the target: correlation of features, group by group, below the attention."""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from relo.errors import UserError
from relo.models.encoders.base import Encoder
from relo.models.encoders.layers import TokenTypes, check_blocks, check_sizes, foreground_share
from relo.settings import LARGEST_WIDTH, check_whole

FINE_STRIDE = 8
TOKEN_STRIDE = 16


class CorrelatingEncoder(Encoder):
    """What is common to encoders with a convolutional stem: tokens of stride 16 in attention, a map of stride 8.

    Features of stride 8 bypass the blocks, since box edges are fine structure. A subclass makes its stem, calls
    `_add_blocks`, and correlates.
    """

    def __init__(
        self, width: int, depth: int, channels: int, correlation_groups: int, search_size: int, template_size: int
    ) -> None:
        super().__init__()
        check_whole("The encoder", 1, LARGEST_WIDTH, channels=channels, correlation_groups=correlation_groups)
        check_sizes(TOKEN_STRIDE, search_size, template_size)
        self.width, self.depth, self.channels = width, depth, channels
        self.search_size, self.template_size = search_size, template_size
        self.map_size = search_size // FINE_STRIDE
        self.correlation_groups = correlation_groups

    def _add_blocks(self, heads: int, max_templates: int) -> None:
        """Make what turns embedded features into the map.

        Raises:
            UserError: a number of heads that does not divide the width, or of templates out of range.
        """
        check_blocks(self.width, self.depth, heads)
        check_whole("The encoder", 1, 64, max_templates=max_templates)
        search_cells, template_cells = self.search_size // TOKEN_STRIDE, self.template_size // TOKEN_STRIDE
        self.search_position = nn.Parameter(torch.zeros(1, search_cells**2, self.width))
        self.template_position = nn.Parameter(torch.zeros(max_templates, template_cells**2, self.width))
        trunc_normal_(self.search_position, std=0.02)
        trunc_normal_(self.template_position, std=0.02)
        self.types = TokenTypes(self.width)
        self.blocks = nn.ModuleList(Block(self.width, heads, qkv_bias=True) for _ in range(self.depth))
        for block in self.blocks:
            # torch's fused attention has a slow backward pass on CPUs for so few tokens, most of all in bfloat16
            block.attn.fused_attn = False  # type: ignore[union-attr]
        self.norm = nn.LayerNorm(self.width)
        self.widen = nn.Conv2d(self.width, self.channels, kernel_size=1)

    def _template_tokens(self, embedded: Tensor, boxes_xywh: Tensor) -> Tensor:
        """Embedded templates [B * N, width, h, h] with boxes [B, N, 4] -> tokens [B, N * h * h, width].

        Raises:
            UserError: a target has more templates than there are positions for.
        """
        (batch, count), most = boxes_xywh.shape[:2], len(self.template_position)
        if count > most:
            raise UserError(
                f"The encoder takes {most} templates at most, not {count}: set its max_templates, or fewer."
            )
        tokens = rearrange(embedded, "(b n) c h w -> b n (h w) c", b=batch)
        types = self.types.of_templates(boxes_xywh, self.template_size // TOKEN_STRIDE)
        return (tokens + self.template_position[:count] + types).flatten(1, 2)

    def _search_tokens(self, embedded: Tensor) -> Tensor:
        """Embedded search images [B, width, h, h] -> tokens [B, h * h, width]."""
        return rearrange(embedded, "b c h w -> b (h w) c") + self.search_position + self.types.search

    def to_map(self, search_tokens: Tensor, bypass: Tensor | None) -> Tensor:
        """Search tokens [B, L, width], and features of stride 8 [B, channels, S, S] -> the map [B, channels, S, S]."""
        assert bypass is not None
        coarse = rearrange(self.norm(search_tokens), "b (h w) c -> b c h w", h=self.search_size // TOKEN_STRIDE)
        return F.relu(F.interpolate(self.widen(coarse), scale_factor=2.0, mode="bilinear") + bypass)


def target_kernel(features: Tensor, boxes_xywh: Tensor, groups: int) -> Tensor:
    """What `correlate` compares with: template features of unit length, weighted by the target's share of each cell.

    Args:
        features: [B, N, C, h, h], of N templates.
        boxes_xywh: [B, N, 4], the target's boxes as shares of the crop's side.
        groups: channel groups that are compared apart.

    Returns:
        [B, N, C, h, h]; its weights add up to 1 in each template.
    """
    weight = foreground_share(boxes_xywh, features.shape[-1])[:, :, None]
    weight = weight / weight.sum((-2, -1), keepdim=True).clamp(min=1e-3)
    return normalise_groups(features, groups) * weight


def correlate(features: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """Mean cosine similarity of the target with every placement, in each channel group.

    A transposed convolution with the kernel turned around is the same as a convolution with a kernel for each
    target, which torch gets wrong in bfloat16 for some widths and ONNX cannot express for any number of targets.

    Args:
        features: [B, C, S, S], of search regions.
        kernel: [B, N, C, h, h] with an even h, of `target_kernel`; templates count alike.
        groups: as for the kernel.

    Returns:
        [B, groups, S, S].
    """
    turned = kernel.mean(1).flip(-2, -1)  # responses are linear in the template
    side = turned.shape[-1]
    turned = rearrange(turned, "b (g c) h w -> b g (h w) c", g=groups)
    signal = rearrange(normalise_groups(features, groups), "b (g c) h w -> b g c (h w)", g=groups)
    products = (turned.to(signal.dtype) @ signal).flatten(1, 2).float()  # [B, groups * h * w, S * S]
    response = F.fold(products, output_size=features.shape[-1] + 1, kernel_size=side, padding=side // 2 - 1)
    # The kernel's side is even: its centre falls between cells, so four placements meet in a cell.
    return F.avg_pool2d(response, kernel_size=2, stride=1)


def normalise_groups(features: Tensor, groups: int) -> Tensor:
    """Unit length at every position, in each channel group: [..., C, H, W] -> the same shape."""
    return F.normalize(features.unflatten(-3, (groups, -1)).float(), dim=-3).flatten(-4, -3)
