"""An encoder small enough to train from nothing on a CPU: a stem, a correlation, a few blocks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from relo.models.encoders.base import Encoder, Templates
from relo.models.encoders.correlation import correlate, target_kernel
from relo.models.encoders.layers import TokenTypes, check_template_count, foreground_share

STEM_STRIDE = 8
TOKEN_STRIDE = 16


class Nano(Encoder):
    """Stride-8 convolutional stem, stride-16 tokens in joint attention, and a stride-8 map for the heads.

    A network from scratch cannot match two images before it has learned to compare them, so the stem's search features
    get the normalised correlation with the template's features beside them. They also bypass the blocks, since box
    edges are fine structure.
    """

    def __init__(
        self,
        width: int = 160,
        depth: int = 4,
        heads: int = 5,
        stem: Sequence[int] = (32, 64, 96),
        correlation_groups: int = 8,
        channels: int = 96,
        search_size: int = 128,
        template_size: int = 64,
        max_templates: int = 2,
    ) -> None:
        """Build the encoder.

        Args:
            width: channels of a token.
            depth: transformer blocks.
            heads: attention heads of a block.
            stem: channels after each of the three stride-2 stages of the stem.
            correlation_groups: channel groups that are correlated apart, each giving one response map.
            channels: channels of the map that the heads read.
            search_size: side of the search crop, in pixels.
            template_size: side of a template crop, in pixels.
            max_templates: how many templates a target may have.
        """
        super().__init__()
        self.width, self.depth, self.channels = width, depth, channels
        self.search_size, self.template_size = search_size, template_size
        self.map_size = search_size // STEM_STRIDE
        self.correlation_groups = correlation_groups
        self.stem = nn.Sequential(
            _downsample(3, stem[0]),
            _downsample(stem[0], stem[1]),
            _refine(stem[1]),
            _downsample(stem[1], stem[2]),
            _refine(stem[2]),
        )
        self.match = nn.Sequential(
            nn.Conv2d(stem[2] + correlation_groups, stem[2], kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(stem[2]),
            nn.ReLU(),
        )
        self.embed = nn.Conv2d(stem[2], width, kernel_size=2, stride=2)
        self.search_position = nn.Parameter(torch.zeros(1, (search_size // TOKEN_STRIDE) ** 2, width))
        self.template_position = nn.Parameter(torch.zeros(max_templates, (template_size // TOKEN_STRIDE) ** 2, width))
        trunc_normal_(self.search_position, std=0.02)
        trunc_normal_(self.template_position, std=0.02)
        self.types = TokenTypes(width)
        blocks = [Block(width, heads, qkv_bias=True) for _ in range(depth)]
        for block in blocks:
            # torch's fused attention has a slow backward pass on CPUs for so few tokens
            block.attn.fused_attn = False  # type: ignore[assignment]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Conv2d(width, channels, kernel_size=1)
        self.carry = nn.Conv2d(stem[2], channels, kernel_size=1)
        self.to(memory_format=torch.channels_last)  # a quarter faster on CPUs

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Templates [B, N, 3, Hz, Hz], boxes [B, N, 4] -> tokens, and kernel [B, N, stem, Hz / 8, Hz / 8]."""
        batch, count = images.shape[:2]
        check_template_count(count, len(self.template_position))
        images = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.stem(images)  # [B * N, stem, Hz / 8, Hz / 8]
        tokens = rearrange(self.embed(features), "(b n) c h w -> b n (h w) c", b=batch)
        share = foreground_share(boxes_xywh, self.template_size // TOKEN_STRIDE).flatten(2)
        tokens = tokens + self.template_position[:count] + self.types.of_template(share)
        features = features.unflatten(0, (batch, count))
        return Templates(tokens.flatten(1, 2), target_kernel(features, boxes_xywh, self.correlation_groups))

    def embed_search(self, images: Tensor, templates: Templates) -> tuple[Tensor, Tensor | None]:
        """Search images [B, 3, Hx, Hx] -> tokens [B, (Hx / 16)^2, width], and the stride-8 features."""
        features = self.stem(images.contiguous(memory_format=torch.channels_last))  # [B, stem, S, S]
        assert templates.kernel is not None
        similarity = correlate(features, templates.kernel, self.correlation_groups)
        features = features + self.match(torch.cat([features, similarity], dim=1))
        tokens = rearrange(self.embed(features), "b c h w -> b (h w) c")
        return tokens + self.search_position + self.types.search, features

    def run_layer(self, index: int, tokens: Tensor, static: int, needed: int) -> Tensor:
        """Tokens [B, L, width] through block `index`."""
        return self.blocks[index](tokens)

    def to_map(self, search_tokens: Tensor, bypass: Tensor | None) -> Tensor:
        """Search tokens and the stem's features -> the map [B, channels, S, S]."""
        coarse = rearrange(self.norm(search_tokens), "b (h w) c -> b c h w", h=self.search_size // TOKEN_STRIDE)
        coarse = F.interpolate(self.widen(coarse), scale_factor=2.0, mode="bilinear")
        return F.relu(coarse + self.carry(bypass))


def _downsample(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


def _refine(channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
