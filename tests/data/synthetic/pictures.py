"""Photographs and cut-outs for tests: small files of random textures."""

from pathlib import Path

import cv2
import numpy as np

from relo.data.synthetic.image_sources import find_sources


def texture(number, height, width):
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    fine = rng.integers(0, 40, (height, width, 3)).astype(np.uint8)
    return cv2.add(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) // 2, fine)


def disc(height, width, radius=0.4):
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), int(radius * min(height, width)), 255, -1, cv2.LINE_AA)
    return mask


def write_photographs(folder, count=12, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        cv2.imwrite(str(folder / f"p{number}.jpg"), texture(number, 90, 120))
    return folder


def write_cut_outs(folder, count=12, first=1000):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        cv2.imwrite(str(folder / f"c{number}.png"), np.dstack([texture(number, 60, 50), disc(60, 50)]))
    return folder


def make_sources(folder: Path, split="train"):
    return find_sources([write_photographs(folder / "photographs")], [write_cut_outs(folder / "things")], split)
