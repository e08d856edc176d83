"""Statistics over the batches of all ranks; each rank must ask for them as often as the others."""

import torch
from torch import Tensor, distributed


@torch.no_grad()
def mean_over_ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values [...] of every rank where its mask [...] holds; without gradients, 0 where none holds."""
    sums = torch.stack([(values * mask).sum(), mask.sum().to(values.dtype)])
    if _are_several():
        distributed.all_reduce(sums)
    total, count = sums
    return total / count.clamp(min=1)


@torch.no_grad()
def share_of_ranks(mask: Tensor) -> Tensor:
    """How often this rank's mask holds, over the mean of all ranks: 1 for one rank, or where all have as many."""
    own = mask.sum().float()
    if not _are_several():
        return torch.ones_like(own)
    total = own.clone()
    distributed.all_reduce(total)
    return own * distributed.get_world_size() / total.clamp(min=1)


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
