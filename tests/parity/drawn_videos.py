"""Videos that are drawn from a seed, the same on every machine: whole-number arithmetic alone."""

import numpy as np
from numpy.typing import NDArray


def drawn_video(seed: int, frames: int, width: int, height: int) -> list[NDArray[np.uint8]]:
    """Coarse and fine blocks of colour, [height, width, 3] each, that slide past each other."""
    rng = np.random.Generator(np.random.PCG64(seed))
    layers = [
        np.kron(rng.integers(0, top, (2 * height // block, 2 * width // block, 3)), np.ones((block, block, 1), int))
        for block, top in ((16, 160), (4, 64), (1, 32))
    ]
    speeds = rng.integers(-3, 4, (len(layers), 2))
    return [
        sum(np.roll(layer, t * speed, (0, 1))[:height, :width] for layer, speed in zip(layers, speeds, strict=True))
        .clip(0, 255)
        .astype(np.uint8)
        for t in range(frames)
    ]
