"""Frames into a video file."""

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.errors import UserError
from relo.tracking.sources import DEFAULT_FRAMES_PER_SECOND

_CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG"}  # those that OpenCV's wheels can write everywhere


class VideoWriter:
    """Writes frames to a video file; a context manager, so that the file can be played even if the work stops halfway.

    The format follows the name: `.mp4` (MPEG-4), `.webm` (VP8, which browsers play) or `.avi` (Motion JPEG). The first
    frame sets the size; a frame of another size is scaled into it, with black bars where the shape differs.
    """

    def __init__(self, path: Path, frames_per_second: float = DEFAULT_FRAMES_PER_SECOND) -> None:
        """Prepare; the file is made with the first frame.

        Raises:
            UserError: the name's ending is not one of the above.
        """
        if path.suffix.lower() not in _CODECS:
            raise UserError(f"Cannot write a video as {path.name}; end the name in {', '.join(_CODECS)}.")
        self.path = path
        self.frames_per_second = frames_per_second
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append an RGB frame uint8 [H, W, 3].

        Raises:
            UserError: the file cannot be written.
        """
        if self._writer is None:
            self._open(image)
        assert self._writer is not None
        self._writer.write(cv2.cvtColor(fit_into(image, *self._size), cv2.COLOR_RGB2BGR))

    def _open(self, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)  # the codecs need even sides
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The video {self.path} cannot be written ({error.strerror}).") from error
        codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self.path), codec, self.frames_per_second, self._size)
        if not self._writer.isOpened():
            raise UserError(f"The video {self.path} cannot be written; is the place writable?")

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()


def fit_into(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The image [H, W, 3] scaled to fit [height, width, 3], black where it does not reach.

    One that is smaller by no more than a pixel is not scaled.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if not (0 <= height - rows <= 1 and 0 <= width - columns <= 1):
        scale = min(height / rows, width / columns)
        columns, rows = min(width, max(1, round(columns * scale))), min(height, max(1, round(rows * scale)))
        image = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[:rows, :columns] = image
    return canvas
