"""A video for the page."""

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, FRAMES = 96, 64, 20


def write_video(path: Path, frames: int = FRAMES) -> Path:
    """A bright square that moves to the right."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (WIDTH, HEIGHT))
    for i in range(frames):
        image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        image[24:40, 10 + i : 26 + i] = 220
        writer.write(image)
    writer.release()
    return path
