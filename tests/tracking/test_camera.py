import cv2
import numpy as np
import pytest

from relo.errors import UserError
from relo.tracking.sources import open_frames


class Capture:
    """A camera that is unplugged after some frames, which are blue."""

    def __init__(self, count):
        self.left, self.is_released = count, False

    def isOpened(self):
        return True

    def read(self):
        self.left -= 1
        return (True, np.full((8, 12, 3), (255, 0, 0), np.uint8)) if self.left >= 0 else (False, None)

    def get(self, what):
        return {cv2.CAP_PROP_FPS: 30.0}[what]

    def release(self):
        self.is_released = True


@pytest.mark.parametrize("number", [0, "0"])
def test_a_camera_is_live_and_freed(monkeypatch, number):
    capture = Capture(10**9)
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: capture)
    frames = open_frames(number, start=2, limit=5)
    assert (frames.name, frames.count, frames.is_live, frames.frames_per_second) == ("camera 0", None, True, 30.0)
    images, seconds = zip(*((image, list(frames.seconds)) for image in frames), strict=True)
    assert images[0][0, 0].tolist() == [0, 0, 255]
    assert np.shape(seconds) == (5, 1)  # of hours, the last frame's alone is kept
    assert (np.diff(np.ravel(seconds), prepend=0.0) > 0).all()
    assert capture.is_released
    assert frames.remarks == []


def test_a_camera_that_is_unplugged(monkeypatch):
    capture = Capture(1)
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: capture)
    frames = iter(open_frames("3"))
    next(frames)
    with pytest.raises(UserError, match=r"^Camera 3 gives no more frames; is it still connected\?$"):
        next(frames)
    assert capture.is_released
