"""A visitor's video: what it is, and any of its frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

from relo.app.uploads import is_text
from relo.errors import UserError
from relo.tracking.crops import RGBImage
from relo.tracking.sources import Frames, open_frames


class UploadedVideo:
    """Opens a file that a visitor gave; sentences about it say the visitor's name of it, and no path of the server."""

    def __init__(self, path: Path, name: str) -> None:
        """Read the first frame.

        Raises:
            UserError: the file cannot be read as a video.
        """
        self.path = path
        self.name = name
        self._lock = Lock()
        self._images: Iterator[RGBImage] = iter(())
        self._next = 0  # the index of the frame that comes next in `_images`
        if is_text(path):
            raise UserError(f"{name} is no video: it holds text.")
        frames = self.open()
        self.count = frames.count
        self.frames_per_second = frames.frames_per_second
        height, width = self.frame(0).shape[:2]
        self.width, self.height = width, height

    def open(self, start: int = 0, limit: int | None = None) -> Frames:
        """The frames from one on; as `open_frames`."""
        with self.named():
            return replace(open_frames(self.path, start, limit), name=self.name)

    def frame(self, index: int) -> RGBImage:
        """One frame; those that come soon after the last one asked for are found fast.

        Raises:
            UserError: there is no such frame, or it cannot be read.
        """
        with self._lock, self.named():
            if index < self._next or not self._next:
                self._images, self._next = iter(open_frames(self.path)), 0
            for image in self._images:
                self._next += 1
                if self._next > index:
                    return image
            count, self._next = self._next, 0
        raise UserError(f"{self.name} has {count} frames; there is no frame {index}.")

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors inside speak of the file by the visitor's name."""
        try:
            yield
        except UserError as error:
            raise UserError(str(error).replace(str(self.path), self.name)) from error

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._images, self._next = iter(()), 0
