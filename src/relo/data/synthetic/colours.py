"""Changes of a picture's colours: another paint, the colours of a place, light from one side."""

import cv2
import numpy as np
from numpy.typing import NDArray


def recoloured(rng: np.random.Generator, image: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """RGB uint8 [h, w, 3] in another hue, saturation and brightness; at 1, any hue."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hue = np.uint8(rng.uniform(-128, 128) * strength % 256)
    saturation, value = np.exp(rng.uniform(-0.6, 0.6, 2) * strength)
    step = np.arange(256)
    table = np.stack([(step + hue) % 256, step * saturation, 255 * (step / 255) ** value], axis=1)
    changed = cv2.LUT(hsv, np.clip(table, 0, 255).astype(np.uint8)[None])
    return np.asarray(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def with_colours_of(
    image: NDArray[np.uint8], opaque: NDArray[np.bool_], place: NDArray[np.uint8], strength: float
) -> NDArray[np.uint8]:
    """RGB uint8 [h, w, 3] moved towards the mean and spread of another picture's colours, in CIE L*a*b*."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    other = cv2.cvtColor(cv2.resize(place, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    mean, spread = lab[opaque].mean(0), lab[opaque].std(0) + 1
    other_mean, other_spread = other.reshape(-1, 3).mean(0), other.reshape(-1, 3).std(0) + 1
    moved = (lab - mean) * np.clip(other_spread / spread, 0.5, 2) + other_mean
    mixed = np.clip(lab + (moved - lab) * np.float32(strength), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB), np.uint8)


def lit_from_a_side(rng: np.random.Generator, image: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """RGB uint8 [h, w, 3] with light that falls off across it, by up to a factor of exp(strength) to either side."""
    height, width = image.shape[:2]
    corners = np.exp(rng.uniform(-strength, strength, (2, 2, 1)) + rng.normal(0, 0.08, (1, 1, 3)) * strength)
    light = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(image * light, 0, 255).astype(np.uint8)
