"""Statistics over the batches of all ranks."""

import torch
from torch import Tensor, distributed


@torch.no_grad()
def mean_over_ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values [...] of every rank where its mask [...] holds; without gradients, 0 where none holds.

    Ranks may have different numbers of values that count; each must call this as often as the others.
    """
    sums = torch.stack([(values * mask).sum(), mask.sum().to(values.dtype)])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums)
    total, count = sums
    return total / count.clamp(min=1)
