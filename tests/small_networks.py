"""A network and clips that are small enough for any test."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from relo.data.clip_batch import ClipBatch
from relo.models.checkpoints.released import read_variant
from relo.models.encoders.nano import Nano
from relo.models.heads import ConvBox, ConvCritic, ConvPolicy, ConvPrior
from relo.models.network import HEADS, LocalizationMaps, LocalizationNetwork
from relo.models.temporal import LayerAligned


class PresentNetwork(LocalizationNetwork):
    """Says that a target is there where its map is bright."""

    def localize(self, features: torch.Tensor, heads: Collection[str] = HEADS) -> LocalizationMaps:
        return replace(super().localize(features, heads), presence=features.mean(1).sigmoid())


def make_network(seed: int = 0, depth: int = 2) -> LocalizationNetwork:
    """A network that runs in milliseconds: 64 px search, 32 px template, an 8 x 8 map."""
    torch.manual_seed(seed)
    encoder = Nano(
        width=32,
        depth=depth,
        heads=2,
        stem=(8, 16, 16),
        correlation_groups=4,
        channels=16,
        search_size=64,
        template_size=32,
    )
    heads = {"channels": 16, "hidden": (8, 8)}
    propagator = LayerAligned(32, 2, depth)
    return LocalizationNetwork(
        encoder, propagator, ConvPolicy(**heads), ConvBox(**heads), ConvCritic(**heads), ConvPrior(**heads)
    )


def write_small_release(folder: Path) -> None:
    """The files of the release's variants, with networks that are small enough to write in a test."""
    small = {"width": 32, "depth": 2, "heads": 4, "stage1": 1, "stage2": 1}
    for variant, changes in {"t256": {}, "b256": {"stage1": 2}, "l256": {"width": 48}}.items():
        contents = read_variant(variant)
        sizes = small | changes
        parts = contents["network"]["init_args"]
        parts["encoder"]["init_args"] |= sizes
        parts["propagator"]["init_args"] |= {"width": sizes["width"], "tokens": 2, "depth": sizes["depth"]}
        for head in ("policy", "box", "critic", "prior"):
            parts[head]["init_args"]["channels"] = sizes["width"]
        (folder / f"{variant}.yaml").write_text(yaml.safe_dump(contents))


def make_clip(batch: int = 2, frames: int = 2, templates: int = 1, seed: int = 0) -> ClipBatch:
    """Random images with boxes near the middle, for `make_network`."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    corner, size = uniform(batch, frames, 2, low=0.2, high=0.5), uniform(batch, frames, 2, low=0.15, high=0.4)
    return ClipBatch(
        template_images=torch.randn(batch, templates, 3, 32, 32, generator=generator),
        template_boxes_xywh=torch.tensor([0.25, 0.25, 0.5, 0.5]).expand(batch, templates, 4),
        search_images=torch.randn(batch, frames, 3, 64, 64, generator=generator),
        search_boxes_xywh=torch.cat([corner, size], dim=-1),
        present=torch.ones(batch, frames, dtype=torch.bool),
        sequence_id=[f"made/clip-{i}" for i in range(batch)],
        frame_index=torch.arange(frames).expand(batch, frames),
    )
