"""Our tracker as one of the GOT-10k toolkit's (`pip install 'relo[got10k]'`):

from got10k.experiments import ExperimentGOT10k
from relo.evaluation.adapters.got10k import got10k_tracker

ExperimentGOT10k("data/GOT-10k", subset="val").run(got10k_tracker(Tracker.from_pretrained("relo-b256")))
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from relo.errors import UserError
from relo.tracking.state import TargetState
from relo.tracking.tracker import Tracker


def got10k_tracker(tracker: Tracker, name: str = "RELO") -> Any:
    """A `got10k.trackers.Tracker` that tracks as `tracker` does; deterministic, so the toolkit runs it once.

    Args:
        tracker: the tracker.
        name: its folder among the toolkit's results.

    Raises:
        UserError: the toolkit is not installed.
    """
    try:
        from got10k.trackers import Tracker as ToolkitTracker
    except ImportError as error:
        raise UserError(f"The GOT-10k toolkit cannot be imported ({error}): pip install 'relo[got10k]'.") from error

    class GOT10kTracker(ToolkitTracker):  # type: ignore[misc]
        """Follows one target at a time, in images that the toolkit decodes."""

        states: list[TargetState]

        def init(self, image: Any, box: NDArray[np.float64]) -> None:
            """Take up the target with box x, y, w, h in an RGB image of PIL."""
            self.states = tracker.initialize([np.asarray(image)], box[None])

        def update(self, image: Any) -> NDArray[np.float64]:
            """The target's box x, y, w, h in the next image."""
            self.states = tracker.step([np.asarray(image)], self.states)
            return self.states[0].box_xywh.numpy()

    return GOT10kTracker(name, is_deterministic=True)
