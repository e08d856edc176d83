"""The plain path that speed is compared with: the same mathematics as the network, step by step, with nothing spared.

Every frame embeds the templates again, every token goes through every layer, attention is unfused, and all heads run.
"""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from relo.models.network import LocalizationMaps, LocalizationNetwork


def plain_step(
    network: LocalizationNetwork,
    search_images: Tensor,
    template_images: Tensor,
    boxes_xywh: Tensor,
    memory: Tensor | None,
) -> tuple[LocalizationMaps, Tensor | None]:
    """One frame of B targets: search images [B, 3, Hx, Hx], templates [B, N, 3, Hz, Hz], boxes [B, N, 4], memory."""
    encoder, propagator = network.encoder, network.propagator
    with sdpa_kernel(SDPBackend.MATH):
        templates = encoder.encode_templates(template_images, boxes_xywh)
        search_tokens, bypass = encoder.embed_search(search_images, templates)
        count = search_tokens.shape[1]
        static = count + templates.tokens.shape[1]
        temporal = propagator.start(search_images.shape[0], memory)
        tokens = torch.cat([search_tokens, templates.tokens, temporal], dim=1)
        record: list[Tensor] = []
        for index in range(encoder.depth):
            tokens = propagator.before_layer(index, tokens, static, memory, record)
            tokens = encoder.run_layer(index, tokens, static, needed=tokens.shape[1])
        features = encoder.to_map(tokens[:, :count], bypass)
        return network.localize(features), propagator.after_layers(tokens, static, record)
