"""Changes of crops' pixels that a config names. The only file that knows albumentations.

It is imported where such changes are asked for: a worker process without them keeps 30 MB that it would need.
"""

import os
from collections.abc import Sequence
from copy import deepcopy

import numpy as np

from relo.errors import UserError, excerpt, one_sentence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version

from albumentations import Compose, ImageOnlyTransform

__all__ = ["Compose", "ImageOnlyTransform", "compose"]


def compose(photometric: Sequence[ImageOnlyTransform]) -> Compose:
    """The transforms one after the other, as a function of `image`.

    Raises:
        UserError: one fails on an image, or gives none of the same size with three channels of 0 to 255.
    """
    for transform in photometric:
        _try(transform)
    return Compose(list(photometric))


def _try(transform: ImageOnlyTransform) -> None:
    """Apply a transform to an image, whatever its probability."""
    certain = deepcopy(transform)
    certain.p = 1.0
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    name = f"data.photometric: {type(transform).__name__}"
    try:
        changed = Compose([certain])(image=image)["image"]
    except Exception as error:  # of whatever kind: it is not our code
        raise UserError(
            f"{name} cannot change an image ({one_sentence(str(error)) or type(error).__name__})."
        ) from error
    if getattr(changed, "dtype", None) != image.dtype or changed.shape != image.shape:
        found = f"{changed.dtype} {list(changed.shape)}" if isinstance(changed, np.ndarray) else excerpt(changed)
        raise UserError(f"{name} gives {found} for an image uint8 [64, 64, 3]: it must keep type and size.")
