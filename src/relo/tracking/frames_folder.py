"""Frames into a folder of images, or into what a name asks for: a folder or a video file."""

import os
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.errors import UserError
from relo.files import atomic_write, unwritable
from relo.tracking.sources import DEFAULT_FRAMES_PER_SECOND
from relo.tracking.video_writer import VideoWriter

_JPEG_QUALITY = 95


class FramesFolder:
    """Writes frames as `00000000.jpg`, `00000001.jpg`, ... of a folder; used as `VideoWriter` is."""

    def __init__(self, path: Path) -> None:
        """Prepare; the folder is made with the first frame.

        Raises:
            UserError: the folder holds files already, among which the frames would be lost, or is no folder.
        """
        try:
            if path.exists() and any(not name.startswith(".") for name in os.listdir(path)):
                raise UserError(f"The folder {path} holds files already; give another, or empty it.")
        except OSError as error:
            raise unwritable(path, error) from error
        self.path = path
        self._count = 0

    def write(self, image: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Write an RGB frame uint8 [H, W, 3]; images have no time.

        Raises:
            UserError: the file cannot be written.
        """
        path = self.path / f"{self._count:08d}.jpg"
        is_encoded, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        try:
            if not is_encoded:
                height, width = image.shape[:2]
                raise UserError(f"{path} cannot be written: a frame of {width} x {height} px is too large for JPEG.")
            with atomic_write(path, synced=False) as partial:  # as a video's frames are
                partial.write_bytes(data.tobytes())
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}; {self._count} frames before it are complete.") from error
        self._count += 1

    def __enter__(self) -> "FramesFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing waits to be written."""


def open_render(path: str | Path, frames_per_second: float = DEFAULT_FRAMES_PER_SECOND) -> VideoWriter | FramesFolder:
    """What writes frames to this name: to a folder, if it is one, ends with a slash or has no ending; else to a video.

    Raises:
        UserError: see `VideoWriter` and `FramesFolder`.
    """
    if str(path).endswith(("/", os.sep)) or not Path(path).suffix or Path(path).is_dir():
        return FramesFolder(Path(path))
    return VideoWriter(Path(path), frames_per_second)
