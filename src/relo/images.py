"""How pixels enter a network: one normalisation for training and tracking."""

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor


def normalise_images(images: Tensor) -> Tensor:
    """RGB uint8 [..., H, W, 3] -> float32 [..., 3, H, W] with ImageNet's mean and standard deviation."""
    mean = 255 * torch.tensor(IMAGENET_DEFAULT_MEAN, device=images.device)[:, None, None]
    std = 255 * torch.tensor(IMAGENET_DEFAULT_STD, device=images.device)[:, None, None]
    # A contiguous copy first: the arithmetic then runs over long rows, three times as fast.
    pixels = images.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.sub_(mean).div_(std)
