"""The contract of an encoder, and the run through its layers that every encoder shares."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from relo.models.checkpoints.plugin import PluginModule
from relo.models.temporal import TemporalPropagator


@dataclass(frozen=True)
class Templates:
    """What an encoder keeps of B targets; computed once per target, then handed to every frame."""

    tokens: Tensor  # [B, M, width], enter the first layer beside the search tokens
    kernel: Tensor | None = None  # [B, ...], for encoders that also correlate search and template features

    def __getitem__(self, index: slice | Tensor) -> "Templates":
        """The templates of some of the targets, given as a slice or as numbers [M]."""
        return Templates(self.tokens[index], None if self.kernel is None else self.kernel[index])

    @staticmethod
    def cat(templates: Sequence["Templates"]) -> "Templates":
        """One batch of targets out of several."""
        if len(templates) == 1:
            return templates[0]
        kernels = [item.kernel for item in templates if item.kernel is not None]
        return Templates(torch.cat([item.tokens for item in templates]), torch.cat(kernels) if kernels else None)


class Encoder(PluginModule):
    """Search image and templates to the S x S map that the heads read, by joint attention over one token sequence.

    The order in the sequence is: search tokens, template tokens, temporal tokens. A subclass sets the attributes, and
    implements the steps; the run through the layers, where the temporal tokens are exchanged, is here.

    Attributes:
        width: channels of a token.
        depth: layers that `run_layer` knows; the temporal memory has at most one entry for each.
        channels: channels of the map that the heads read.
        map_size: S, cells on a side of the map.
        search_size, template_size: side of the crops, in pixels.
        blocks, norm: the layers and the normalisation that `run_layer` and `to_map` run unless they are overridden.
        checkpoint_activations: compute each layer again in the backward pass instead of keeping what it computed.
    """

    width: int
    depth: int
    channels: int
    map_size: int
    search_size: int
    template_size: int
    blocks: nn.ModuleList | nn.Sequential
    norm: nn.Module
    checkpoint_activations: bool = False

    def config(self) -> dict[str, Any]:
        """How to build the encoder again; without `pretrained`, since a saved network brings its own weights."""
        config = super().config()
        config["init_args"].pop("pretrained", None)
        return config

    @abstractmethod
    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Templates [B, N, 3, Hz, Hz] with boxes [B, N, 4] (shares of the crop) -> what every frame needs."""

    @abstractmethod
    def embed_search(self, images: Tensor, templates: Templates) -> tuple[Tensor, Tensor | None]:
        """Search images [B, 3, Hx, Hx] -> tokens [B, L, width], and features that bypass the layers (or None)."""

    def run_layer(self, index: int, tokens: Tensor, static: int, needed: int) -> Tensor:
        """Tokens [B, L + M + temporal, width] through layer `index`; by default, a block that takes tokens alone.

        Args:
            index: the layer.
            tokens: search, template and temporal tokens.
            static: L + M, the number of search and template tokens.
            needed: only the first so many tokens of the result will be read; the others may be left out of it.
        """
        return self.blocks[index](tokens)

    def to_map(self, search_tokens: Tensor, bypass: Tensor | None) -> Tensor:
        """The search tokens [B, L, width] that left the last layer -> the map [B, channels, S, S].

        By default the normalised tokens are the map.
        """
        return rearrange(self.norm(search_tokens), "b (h w) c -> b c h w", h=self.map_size)

    def forward(
        self, images: Tensor, templates: Templates, propagator: TemporalPropagator, memory: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """One frame of B targets.

        Args:
            images: [B, 3, Hx, Hx], normalised RGB.
            templates: of the same B targets.
            propagator: what the temporal tokens do at each layer.
            memory: [layers, B, K, width] recorded on the previous frame, or None on the first.

        Returns:
            The map [B, channels, S, S] and the memory for the next frame.
        """
        search_tokens, bypass = self.embed_search(images, templates)
        temporal = propagator.start(images.shape[0], memory)
        tokens = torch.cat([search_tokens, templates.tokens, temporal.to(search_tokens.dtype)], dim=1)
        static = tokens.shape[1] - temporal.shape[1]
        record: list[Tensor] = []
        for index in range(self.depth):
            tokens = propagator.before_layer(index, tokens, static, memory, record)
            next_layer = index + 1 if index + 1 < self.depth else None
            temporal_read = propagator.tokens_read(next_layer, memory is not None)
            needed = search_tokens.shape[1] if next_layer is None and not temporal_read else static + temporal_read
            if self.checkpoint_activations and tokens.requires_grad:  # which they do where gradients are computed
                tokens = checkpoint(self.run_layer, index, tokens, static, needed, use_reentrant=False)
            else:
                tokens = self.run_layer(index, tokens, static, needed)
        next_memory = propagator.after_layers(tokens, static, record)
        return self.to_map(tokens[:, : search_tokens.shape[1]], bypass), next_memory
