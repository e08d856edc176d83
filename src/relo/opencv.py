"""The interface of OpenCV's trackers: code that uses `cv2.TrackerCSRT` changes one line."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import relo
from relo.errors import UserError
from relo.models.checkpoints.weights import SHIPPED
from relo.tracking.arguments import as_boxes
from relo.tracking.crops import RGBImage
from relo.tracking.rule import TrackingRule
from relo.tracking.state import TargetState

_CONVERSIONS = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}  # by the number of channels


class Tracker:
    """Tracks one target, called as OpenCV's trackers are: frames are BGR, boxes are tuples x, y, w, h in pixels.

    >>> import numpy as np
    >>> import relo.opencv
    >>> frame, next_frame = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), np.uint8)
    >>> tracker = relo.opencv.Tracker()  # was: tracker = cv2.TrackerCSRT.create()
    >>> tracker.init(frame, (40, 30, 30, 40))
    >>> ok, box = tracker.update(next_frame)
    >>> [type(value).__name__ for value in (ok, *box)]
    ['bool', 'int', 'int', 'int', 'int']
    """

    def __init__(
        self,
        model: str | Path | relo.Tracker = SHIPPED,
        rule: TrackingRule | None = None,
        device: str | None = None,
    ) -> None:
        """Load the network.

        Args:
            model: what `relo.Tracker.from_pretrained` takes; or such a tracker, which several of these may share.
            rule: None is the model's own. Under one with `lost_after` a lost target is searched for.
            device: None is the GPU where there is one.

        Raises:
            UserError: the weights, the rule or the device cannot be used.
            ValueError: a rule or a device for a tracker that has its own.
        """
        if isinstance(model, relo.Tracker) and not (rule is None and device is None):
            raise ValueError("A relo.Tracker has its own rule and device; give these when it is made.")
        self._tracker = model if isinstance(model, relo.Tracker) else relo.Tracker.from_pretrained(model, rule, device)
        self.state: TargetState | None = None
        """What is known of the target: its score, its presence, and the box with fractions of pixels."""

    @classmethod
    def create(
        cls,
        model: str | Path | relo.Tracker = SHIPPED,
        rule: TrackingRule | None = None,
        device: str | None = None,
    ) -> "Tracker":
        """The same as the constructor, as `cv2.TrackerCSRT.create()` is."""
        return cls(model, rule, device)

    def init(self, image: NDArray[np.uint8], boundingBox: Sequence[float]) -> None:
        """Start to follow a target; it may be called again, for another one.

        Args:
            image: BGR uint8 [H, W, 3]; grey [H, W] and BGRA [H, W, 4] are converted.
            boundingBox: x, y, w, h in pixels, whole or not.

        Raises:
            UserError: the box is outside the image or has no area, or the image is none.
            ValueError: other than four numbers as the box.
        """
        (self.state,) = self._tracker.initialize([_to_rgb(image)], as_boxes(boundingBox))

    def update(self, image: NDArray[np.uint8]) -> tuple[bool, tuple[int, int, int, int]]:
        """Find the target in the next frame.

        Returns:
            Whether the target is there, and its box x, y, w, h in whole pixels. It is there where presence is at least
            the rule's `sure_presence`, and always for a network without a presence head. Under a rule with `lost_after`
            it is there until it counts as lost; the box is then where it was last believed.

        Raises:
            UserError: `init` was not called, or the image is none.
        """
        if self.state is None:
            raise UserError("The tracker has no target yet; call init(image, box) before update(image).")
        (self.state,) = self._tracker.step([_to_rgb(image)], [self.state])
        return self._is_there(self.state), _whole(self.state.box_xywh.tolist())

    def _is_there(self, state: TargetState) -> bool:
        rule = self._tracker.rule
        if rule.lost_after is None:
            return state.presence is None or state.presence >= rule.sure_presence
        return state.status != "lost"


def _to_rgb(image: NDArray[np.uint8]) -> RGBImage:
    """An image as OpenCV holds it, in the order of channels of the network.

    Raises:
        UserError: it is no such image.
    """
    if not isinstance(image, np.ndarray):
        raise UserError(f"The frame is {image!r} and no image; has the video ended, or is its path wrong?")
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if image.dtype != np.uint8 or channels not in _CONVERSIONS or not image.size:
        raise UserError(
            f"A frame must be uint8 [H, W, 3] in BGR, grey [H, W] or BGRA, not {image.dtype} {list(image.shape)}."
        )
    return np.asarray(cv2.cvtColor(image, _CONVERSIONS[channels]), np.uint8)


def _whole(box_xywh: Sequence[float]) -> tuple[int, int, int, int]:
    """The box of whole pixels nearest to a box x, y, w, h, not empty."""
    x, y, w, h = (round(value) for value in box_xywh)
    return x, y, max(w, 1), max(h, 1)
