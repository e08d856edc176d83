"""The frames of a camera that is plugged in."""

import time
from collections.abc import Generator
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.errors import UserError
from relo.tracking.timed_frame import TimedFrame


class CameraReader:
    """Iterates the frames of a camera, without an end.

    By OpenCV: PyAV's wheels have no camera driver for Linux, and FFmpeg names cameras differently on each system.
    """

    announced = 0
    is_counted = False
    is_live = True

    def __init__(self, number: int) -> None:
        """Open the camera.

        Raises:
            UserError: there is no such camera, or another program holds it.
        """
        self.name = f"camera {number}"
        self._capture = _quietly_opened(number)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = rate if 0 < rate < 1000 else None

    def __iter__(self) -> Generator[TimedFrame, None, None]:
        """The frames; frees the camera when the iterator is closed.

        Raises:
            UserError: the camera gives no more frames.
        """
        try:
            while True:
                is_read, frame = self._capture.read()
                if not is_read:
                    raise UserError(f"{self.name.capitalize()} gives no more frames; is it still connected?")
                yield TimedFrame(time.monotonic(), partial(_rgb, frame))
        finally:
            self._capture.release()


def _quietly_opened(number: int) -> cv2.VideoCapture:
    """Open without OpenCV's own warnings: the error raised here says what is wrong."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(number)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise UserError(f"Camera {number} cannot be opened; is it connected, and free?")
    return capture


def _rgb(frame: cv2.typing.MatLike) -> NDArray[np.uint8]:
    code = cv2.COLOR_GRAY2RGB if frame.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(frame, code), np.uint8)
