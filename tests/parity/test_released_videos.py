"""Whole videos against the public release's own tracker: the same seeded weights and drawn frames, the same boxes.

Such weights do not track: the boxes wander and soon fill the image, which tries its borders.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from drawn_videos import drawn_video
from test_released_outputs import seeded_network

from relo.tracking.rule import TrackingRule
from relo.tracking.sources import open_frames
from relo.tracking.tracker import Tracker


@dataclass(frozen=True)
class Recorded:
    """What the release's tracker gave on a drawn video with T256's seeded weights (float32, on a CPU)."""

    video: dict[str, int]
    rule: dict[str, float]
    rows: tuple[tuple[float, ...], ...]  # x, y, w, h in pixels and the windowed map's maximum; first the given box


RECORDED = {
    "one template": Recorded(
        video={"seed": 1, "width": 160, "height": 120},
        rule={"templates": 1, "window_exponent": 2.2},
        rows=(
            (144.5, 98, 12, 20, 0),
            (131.59570, 93.63098, 28.40430, 26.36902, 0.36956),
            (118.68988, 78.33343, 41.31012, 41.66657, 0.35318),
            (88.36703, 65.64559, 71.63297, 54.35441, 0.30106),
            (40.53450, 0.00000, 119.46550, 101.80556, 0.30545),
            (7.64190, 0.00000, 152.35810, 94.62071, 0.39245),
            (8.76549, 0.00000, 151.23451, 120.00000, 0.32255),
            (0.00000, 0.00000, 160.00000, 120.00000, 0.39867),
        ),
    ),
    # Of the frames 2, 4 and 6, where an update is due, the first has too low a maximum.
    "template updates": Recorded(
        video={"seed": 2, "width": 97, "height": 213},
        rule={
            "templates": 2,
            "window_exponent": 3.0,
            "template_update_interval": 2,
            "template_update_threshold": 0.3,
        },
        rows=(
            (15.25, 38, 33, 15.5, 0),
            (0.00000, 34.96034, 42.15188, 33.35552, 0.38724),
            (0.00000, 2.48552, 56.69214, 60.95156, 0.25544),
            (0.00000, 0.00000, 48.55612, 69.63445, 0.30158),
            (0.00000, 0.00000, 59.88835, 65.56384, 0.53042),
            (0.00000, 0.00000, 97.00000, 68.08316, 0.43379),
            (0.00000, 0.00000, 97.00000, 125.02136, 0.31593),
            (0.00000, 0.00000, 97.00000, 140.66718, 0.54252),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("crop_on_device", [False, True])
@pytest.mark.parametrize("name", RECORDED)
def test_every_box_is_the_release_s(name: str, crop_on_device: bool):
    recorded = RECORDED[name]
    frames = drawn_video(frames=len(recorded.rows), **recorded.video)
    rule = TrackingRule(window="logits", released=True, **recorded.rule)
    tracker = Tracker(seeded_network("t256"), rule, crop_on_device=crop_on_device)
    states = tracker.initialize(frames[:1], [recorded.rows[0][:4]])
    found = []
    for frame in frames[1:]:
        states = tracker.step([frame], states, keep_response=True)
        found.append([*states[0].box_xywh.tolist(), float(states[0].response.max())])
    np.testing.assert_allclose(found, recorded.rows[1:], rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant", "sequence", "start", "rule"),
    [
        ("t256_default_david", "t256", "david", 0, {"templates": 1, "window_exponent": 2.0}),
        ("t256_lasot_crossing", "t256", "otb_Crossing", 0, {"templates": 1, "window_exponent": 2.2}),
        ("b256_default_david100", "b256", "david", 100, {"templates": 2, "window_exponent": 3.0}),
        (
            "b256_update5_bag",
            "b256",
            "vot_bag",
            0,
            # Of raw logits: every threshold below the lowest of them updates whatever the score.
            {"templates": 2, "window_exponent": 3.0, "template_update_interval": 5, "template_update_threshold": -1e6},
        ),
    ],
)
def test_every_box_on_real_videos(shared: Path, name: str, variant: str, sequence: str, start: int, rule: dict):
    expected = np.loadtxt(shared / "reference" / "closed_loop" / f"{name}.csv", delimiter=",")
    frames = islice(open_frames(shared / "sequences" / sequence / "img", start), len(expected))
    tracker = Tracker(seeded_network(variant), TrackingRule(window="logits", released=True, **rule))
    states = tracker.initialize([next(frames)], expected[:1, :4])
    found = []
    for frame in frames:
        states = tracker.step([frame], states)
        found.append(states[0].box_xywh.tolist())
    np.testing.assert_allclose(found, expected[1:, :4], rtol=0, atol=1e-3)
