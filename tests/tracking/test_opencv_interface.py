"""`relo.opencv.Tracker` stands in for OpenCV's trackers."""

import doctest
import subprocess
import sys

import cv2
import numpy as np
import pytest

import relo.opencv
from relo.errors import UserError
from relo.models.checkpoints.weights import save_network
from relo.models.network import LocalizationNetwork
from relo.models.presence import ConvPresence
from relo.tracking.rule import TrackingRule

BOX = (40, 30, 30, 40)


def opencv_loop(tracker, frames, box):
    """What a program that uses OpenCV's trackers does."""
    tracker.init(frames[0], box)
    found = []
    for frame in frames[1:]:
        ok, (x, y, w, h) = tracker.update(frame)
        drawn = cv2.rectangle(frame.copy(), (x, y), (x + w, y + h), (0, 0, 255), 2)
        assert drawn.shape == frame.shape
        found.append((ok, (x, y, w, h)))
    return found


@pytest.fixture
def frames():
    """BGR, a bright square that moves 3 px each frame."""
    images = np.random.default_rng(0).integers(0, 60, (6, 120, 160, 3), np.uint8)
    for index, image in enumerate(images):
        image[30:70, 40 + 3 * index : 70 + 3 * index] = (40, 120, 250)
    return list(images)


def save_with_presence(network, folder, logit):
    head = ConvPresence(16, (16, 8))
    head.calibrate(1.0, logit)
    parts = (network.encoder, network.propagator, network.policy, network.box, network.critic, network.prior)
    save_network(LocalizationNetwork(*parts, head), folder)
    return folder


def test_it_is_there_where_relo_is_imported():
    subprocess.run([sys.executable, "-c", "import relo; relo.opencv.Tracker, relo.Tracker"], check=True)


def test_example_of_the_docstring_runs():
    results = doctest.testmod(relo.opencv)
    assert results.failed == 0
    assert results.attempted > 5


@pytest.mark.parametrize("make", [relo.opencv.Tracker, relo.opencv.Tracker.create])
def test_a_program_for_opencvs_trackers_runs_with_one_line_changed(make, frames):
    found = opencv_loop(make(), frames, BOX)
    assert all(ok is True for ok, _ in found)
    assert {type(value) for _, box in found for value in box} == {int}
    x, y, w, h = found[-1][1]
    assert abs(x + w / 2 - 70) < 8
    assert abs(y + h / 2 - 50) < 8


@pytest.mark.skipif(not hasattr(cv2, "TrackerMIL"), reason="this OpenCV has no tracker")
def test_types_are_those_of_opencv(network, frames):
    theirs, ours = cv2.TrackerMIL.create(), relo.opencv.Tracker(relo.Tracker(network))
    assert theirs.init(frames[0], BOX) is ours.init(frames[0], BOX) is None
    for tracker in (theirs, ours):
        ok, box = tracker.update(frames[1])
        assert (type(ok), type(box), *map(type, box)) == (bool, tuple, int, int, int, int)


def test_the_box_is_that_of_the_tracker_on_rgb(network, frames):
    tracker = relo.Tracker(network)
    found = opencv_loop(relo.opencv.Tracker(tracker), frames, [40, 30, 30.5, 40])
    rgb = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    results = list(tracker.run(rgb, [40, 30, 30.5, 40]))[1:]
    assert [box for _, box in found] == [tuple(map(round, result.boxes_xywh[0].tolist())) for result in results]


def test_grey_and_alpha_are_converted(network, frames):
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
    tracker = relo.opencv.Tracker(relo.Tracker(network))
    expected = opencv_loop(tracker, [cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) for frame in grey], BOX)
    assert opencv_loop(tracker, grey, BOX) == expected
    assert opencv_loop(tracker, [frame[..., None] for frame in grey], BOX) == expected
    alpha = [cv2.cvtColor(frame, cv2.COLOR_BGR2BGRA) for frame in frames]
    assert opencv_loop(tracker, alpha, BOX) == opencv_loop(tracker, frames, BOX)


def test_a_lost_target_is_not_ok_and_stays_where_it_was_believed(network, frames, tmp_path):
    model = save_with_presence(network, tmp_path / "model", -20.0)
    tracker = relo.opencv.Tracker(model, TrackingRule(lost_after=5), "cpu")
    found = opencv_loop(tracker, frames + frames, BOX)
    assert [ok for ok, _ in found] == [index < 4 for index in range(len(found))]
    assert found[-1] == (False, BOX)
    assert tracker.state.status == "lost"
    tracker.init(frames[0], BOX)  # another target
    assert tracker.state.status == "tracking"


def test_ok_under_other_rules_and_without_presence(network, frames, tmp_path):
    unsure, sure = (save_with_presence(network, tmp_path / f"{logit}", logit) for logit in (-20.0, 20.0))
    plain = TrackingRule()
    for model, rule in ((unsure, plain), (unsure, None), (sure, plain), (sure, None)):
        found = opencv_loop(relo.opencv.Tracker(model, rule, "cpu"), frames, BOX)
        assert {ok for ok, _ in found} == {model == sure}
    assert {ok for ok, _ in opencv_loop(relo.opencv.Tracker(relo.Tracker(network)), frames, BOX)} == {True}


def test_mistakes_are_named(network, frames):
    tracker = relo.opencv.Tracker(relo.Tracker(network))
    with pytest.raises(UserError, match=r"call init\(image, box\) before"):
        tracker.update(frames[0])
    with pytest.raises(UserError, match="None and no image"):
        tracker.init(None, BOX)
    with pytest.raises(UserError, match="outside"):
        tracker.init(frames[0], (500, 500, 20, 20))
    with pytest.raises(UserError, match="no area"):
        tracker.init(frames[0], (0, 0, 0, 0))  # cv2.selectROI after Escape
    with pytest.raises(ValueError, match="one box x, y, w, h"):
        tracker.init(frames[0], (1, 2, 3))
    tracker.init(frames[0], BOX)
    for image in (frames[0].astype(np.float32), frames[0][..., :2], frames[0][:0]):
        with pytest.raises(UserError, match=r"must be uint8 \[H, W, 3\]"):
            tracker.update(image)
    with pytest.raises(ValueError, match="its own rule and device"):
        relo.opencv.Tracker(relo.Tracker(network), TrackingRule())
