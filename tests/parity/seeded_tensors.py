"""Weights and inputs drawn from seeds, so that two implementations can be compared without shipping weights.

Every tensor of the public release is drawn from a generator seeded by its own name; the distributions keep activations
of a deep network in range. Whoever holds the release can draw the same tensors and compare.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor


def seeded_weight(released_name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    seed_bytes = hashlib.sha256(f"{seed}:{released_name}".encode()).digest()[:8]
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(seed_bytes, "little")))
    noise = torch.from_numpy(generator.standard_normal(shape, dtype=np.float64).astype(np.float32))
    kind = released_name.rsplit(".", 1)[-1]
    if kind == "running_mean":
        return 0.1 * noise
    if kind == "running_var":
        return 1 + 0.1 * noise.abs()
    if kind in ("gamma_1", "gamma_2"):
        return 0.5 + 0.1 * noise
    if kind == "weight":
        return noise / float(np.sqrt(np.prod(shape[1:]))) if len(shape) > 1 else 1 + 0.1 * noise
    return 0.02 * noise if kind.endswith("bias") else 0.2 * noise


def seeded_inputs(
    frames: int, templates: int, batch: int, seed: int = 0, template_size: int = 128, search_size: int = 256
) -> tuple[Tensor, Tensor, Tensor]:
    """Template images [B, N, 3, Hz, Hz], their boxes_xywh [B, N, 4] and search images [T, B, 3, Hx, Hx]."""
    generator = np.random.Generator(np.random.PCG64(seed))
    template = generator.standard_normal((templates, batch, 3, template_size, template_size)).astype(np.float32)
    search = generator.standard_normal((frames, batch, 3, search_size, search_size)).astype(np.float32)
    corner = generator.uniform(0.15, 0.35, (templates, batch, 2))
    size = generator.uniform(0.2, 0.5, (templates, batch, 2))
    boxes_xywh = np.concatenate([corner, size], -1).astype(np.float32)
    return (
        torch.from_numpy(template).transpose(0, 1),
        torch.from_numpy(boxes_xywh).transpose(0, 1),
        torch.from_numpy(search),
    )


def seeded_targets(frames: int, batch: int, cells: int, reach: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes_xywh [T, B, 4] with centres up to `reach` beyond the middle, and an action [T, B] of so many cells."""
    generator = np.random.Generator(np.random.PCG64(seed))
    size = generator.uniform(0.05, 0.5, (frames, batch, 2))
    center = 0.5 + generator.uniform(-reach, reach, (frames, batch, 2))
    boxes_xywh = np.concatenate([center - size / 2, size], -1).astype(np.float32)
    return torch.from_numpy(boxes_xywh), torch.from_numpy(generator.integers(0, cells, (frames, batch)))
