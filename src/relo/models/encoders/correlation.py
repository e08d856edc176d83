"""Where in a search region features look like the target's: cosine similarity of every placement, group by group."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from relo.models.encoders.layers import foreground_share


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
