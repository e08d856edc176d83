"""An encoder small enough to train from nothing on a CPU: a stem, a correlation, a few blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from relo.errors import UserError
from relo.models.encoders.base import Templates
from relo.models.encoders.correlation import CorrelatingEncoder, correlate, target_kernel
from relo.models.encoders.layers import check_blocks
from relo.settings import LARGEST_WIDTH, check_whole


class Nano(CorrelatingEncoder):
    """Stride-8 convolutional stem, stride-16 tokens in joint attention, and a stride-8 map for the heads.

    A network from scratch cannot match two images before it has learned to compare them, so the stem's search features
    get the normalised correlation with the template's features beside them.
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

        Raises:
            UserError: a number out of range; sizes, heads, groups or stages of the stem that do not fit.
        """
        super().__init__(width, depth, channels, correlation_groups, search_size, template_size)
        check_blocks(width, depth, heads)
        if len(stem) != 3:
            raise UserError(f"The stem has three stages, and stem has {len(stem)} numbers of channels.")
        for stage in stem:
            check_whole("The encoder", 1, LARGEST_WIDTH, stem=stage)
        if stem[2] % correlation_groups:
            raise UserError(f"correlation_groups {correlation_groups} must divide the stem's {stem[2]} channels.")
        # 3 x 3 convolutions with batch normalisation and ReLU
        self.stem = nn.Sequential(
            Conv2dNormActivation(3, stem[0], stride=2),
            Conv2dNormActivation(stem[0], stem[1], stride=2),
            Conv2dNormActivation(stem[1], stem[1]),
            Conv2dNormActivation(stem[1], stem[2], stride=2),
            Conv2dNormActivation(stem[2], stem[2]),
        )
        self.match = Conv2dNormActivation(stem[2] + correlation_groups, stem[2])
        self.embed = nn.Conv2d(stem[2], width, kernel_size=2, stride=2)
        self._add_blocks(heads, max_templates)
        self.carry = nn.Conv2d(stem[2], channels, kernel_size=1)
        self.to(memory_format=torch.channels_last)  # a quarter faster on CPUs

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Templates [B, N, 3, Hz, Hz], boxes [B, N, 4] -> tokens, and kernel [B, N, stem, Hz / 8, Hz / 8]."""
        features = self.stem(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        tokens = self._template_tokens(self.embed(features), boxes_xywh)
        features = features.unflatten(0, images.shape[:2])
        return Templates(tokens, target_kernel(features, boxes_xywh, self.correlation_groups))

    def embed_search(self, images: Tensor, templates: Templates) -> tuple[Tensor, Tensor | None]:
        """Search images [B, 3, Hx, Hx] -> tokens [B, (Hx / 16)^2, width], and the stride-8 features."""
        features = self.stem(images.contiguous(memory_format=torch.channels_last))  # [B, stem, S, S]
        assert templates.kernel is not None
        similarity = correlate(features, templates.kernel, self.correlation_groups)
        features = features + self.match(torch.cat([features, similarity], dim=1))
        return self._search_tokens(self.embed(features)), self.carry(features)
