"""Changes of crops' pixels that a config names. The only file that knows albumentations.

It is imported where such changes are asked for: a worker process without them keeps 30 MB that it would need.
"""

import os
from collections.abc import Sequence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version

from albumentations import Compose, ImageOnlyTransform

__all__ = ["Compose", "ImageOnlyTransform", "compose"]


def compose(photometric: Sequence[ImageOnlyTransform]) -> Compose:
    """The transforms one after the other, as a function of `image`."""
    return Compose(list(photometric))
