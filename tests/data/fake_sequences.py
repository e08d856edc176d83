"""A reader of sequences whose frames and boxes are known."""

from pathlib import Path

import cv2
import numpy as np

from relo.data.sequences.base import ImageFiles, Sequence, SequenceReader


class FakeReader(SequenceReader):
    """`sequences` videos of `frames` frames whose pixels tell sequence and frame apart; JPEG files written on demand.

    Frame f of sequence s is of one colour: RGB (40 s, 4 f, 128), but for a white target. Every seventh frame is hidden.
    """

    dataset = "fake"

    def __init__(self, root: Path, sequences: int = 3, frames: int = 24, size: tuple[int, int] = (96, 72)) -> None:
        self.root = root
        self.frames = frames
        self.size = size
        self._names = [f"video {i}" for i in range(sequences)]
        for s, name in enumerate(self._names):
            (root / name).mkdir(parents=True, exist_ok=True)
            for f in range(frames):
                path = root / name / f"{f:04d}.jpg"
                if not path.exists():
                    image = np.full((size[1], size[0], 3), (128, 4 * f, 40 * s), np.uint8)  # BGR
                    x, y, w, h = self.boxes_xywh()[f].astype(int)
                    image[max(y, 0) : y + h, max(x, 0) : x + w] = 255
                    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])

    @property
    def names(self) -> list[str]:
        return self._names

    def boxes_xywh(self) -> np.ndarray:
        f = np.arange(self.frames)
        return np.stack([8 + 2 * f, 20 + f % 5, 16 + f % 3, 12 + f % 4], axis=1).astype(np.float64)

    def __getitem__(self, index: int) -> Sequence:
        names = tuple(f"{f:04d}.jpg" for f in range(self.frames))
        return Sequence(
            name=self._names[index],
            dataset=self.dataset,
            frames=ImageFiles(self.root / self._names[index], names),
            boxes_xywh=self.boxes_xywh(),
            visible=np.arange(self.frames) % 7 != 6,
            class_name="rectangle",
            sentence="a white rectangle" if index else None,
        )
