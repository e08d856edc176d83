"""How pixels enter a network: one normalisation for training and tracking."""

from functools import cache

import torch
from torch import Tensor

# As in timm, which a worker process of a loader would import, 25 MB of it, for these six numbers.
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise_images(images: Tensor) -> Tensor:
    """RGB uint8 [..., H, W, 3] -> float32 [..., 3, H, W] with ImageNet's mean and standard deviation."""
    mean, deviation = _statistics(images.device)
    # A contiguous copy first: the arithmetic then runs over long rows, three times as fast.
    pixels = images.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.sub_(mean).div_(deviation)


def normalise_crops(crops: Tensor) -> Tensor:
    """RGB float32 [..., 3, H, W], 0 to 255 -> the same shape with ImageNet's mean and standard deviation."""
    mean, deviation = _statistics(crops.device)
    return (crops - mean).div_(deviation)


def restore_images(images: Tensor) -> Tensor:
    """Normalised images [..., 3, H, W] -> RGB uint8 [..., H, W, 3], for people to look at."""
    mean, deviation = _statistics(images.device)
    pixels = (images.float() * deviation + mean).round().clamp(0, 255)
    return pixels.movedim(-3, -1).to(torch.uint8)


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and standard deviation [3, 1, 1] of values 0 to 255; kept, since sending them to a GPU waits."""
    with torch.inference_mode(False):
        mean = 255 * torch.tensor(_IMAGENET_MEAN, device=device)[:, None, None]
        deviation = 255 * torch.tensor(_IMAGENET_DEVIATION, device=device)[:, None, None]
    return mean, deviation
