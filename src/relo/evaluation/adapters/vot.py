"""Our tracker in the VOT toolkit, by the TraX protocol (`pip install 'relo[vot]'`). In the workspace's `trackers.ini`:

    [RELO]
    protocol = trax
    command = python -m relo.evaluation.adapters.vot --model relo-b256

Targets may come as rectangles, polygons or masks, of which the bounding box is followed; several at once, also later in
the video, are one batch. Answers are rectangles, with the tracker's score as `confidence`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from relo.data.sequences.base import ImageFiles
from relo.errors import UserError
from relo.tracking.crops import RGBImage
from relo.tracking.rule import read_rule_file
from relo.tracking.state import TargetState
from relo.tracking.tracker import Tracker


def serve(tracker: Tracker, name: str = "RELO") -> None:
    """Answer a TraX client on standard input and output until it quits.

    Raises:
        UserError: TraX is not installed, or the client sends what cannot be tracked.
    """
    try:
        from trax import Image, Rectangle, Region, Server, TraxException, TraxStatus
    except ImportError as error:
        raise UserError(f"TraX cannot be imported ({error}): pip install 'relo[vot]'.") from error

    regions = [Region.RECTANGLE, Region.POLYGON, Region.MASK]
    with Server(regions, [Image.PATH], tracker_name=name, multiobject=True) as server:
        states: list[TargetState] = []
        while True:
            try:
                request = server.wait()
            except TraxException as error:
                raise UserError("The TraX client disconnected without sending a quit message.") from error
            if request.type not in (TraxStatus.INITIALIZE, TraxStatus.FRAME):
                return
            image = _read(request.image)
            if request.type == TraxStatus.INITIALIZE:
                states = []
            states = tracker.step([image] * len(states), states)
            new_xywh = [bounding_box_xywh(region) for region, _ in request.objects or ()]
            states += tracker.initialize([image] * len(new_xywh), new_xywh)
            server.status(
                [(Rectangle.create(*state.box_xywh.tolist()), {"confidence": state.score}) for state in states]
            )


def bounding_box_xywh(region: Any) -> list[float]:
    """The box x, y, w, h around a TraX region.

    Raises:
        UserError: an empty mask, or a region of another kind.
    """
    from trax import Mask, Polygon, Rectangle

    if isinstance(region, Rectangle):
        return list(region.bounds())
    if isinstance(region, Polygon):
        corners = np.array(list(region))
        return [*corners.min(0).tolist(), *np.ptp(corners, axis=0).tolist()]
    if isinstance(region, Mask):
        rows, columns = np.nonzero(region.array())
        if not len(rows):
            raise UserError("The mask of the target is empty.")
        x, y = region.offset()
        left, top = int(columns.min()), int(rows.min())
        return [x + left, y + top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
    raise UserError(f"A target was given as {type(region).__name__}; a rectangle, polygon or mask was expected.")


def _read(images: Any) -> RGBImage:
    path = Path(images["color"].path())
    return ImageFiles(path.parent, (path.name,))[0]


def main() -> None:
    """The command that the VOT toolkit starts."""
    parser = argparse.ArgumentParser(prog="python -m relo.evaluation.adapters.vot", description=serve.__doc__)
    parser.add_argument("--model", required=True, help="a model's name, its folder, or a checkpoint")
    parser.add_argument(
        "--rule", type=Path, help="a YAML file of settings that differ from the model's own, or lost_and_found"
    )
    parser.add_argument("--device", help="where to compute; the GPU if there is one")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    options = parser.parse_args()
    try:
        rule = None if options.rule is None else read_rule_file(options.rule, options.model).rule
        serve(Tracker.from_pretrained(options.model, rule, options.device, options.precision))
    except UserError as error:
        print(f"relo: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
