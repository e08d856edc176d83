"""The loop over a source: `Tracker.run`."""

import doctest
import threading

import cv2
import numpy as np
import pytest
import torch

import relo.tracking.run
import relo.tracking.tracker
from relo.errors import UserError
from relo.tracking.sources import open_frames
from relo.tracking.tracker import Tracker

BOX = [40, 30, 30.5, 40]
BOXES = [BOX, [90, 50, 25, 20], [5, 5, 60, 60]]
FRAMES = 6


@pytest.fixture
def tracker(network):
    return Tracker(network)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (FRAMES, 120, 160, 3), np.uint8)


@pytest.fixture
def folder(images, tmp_path):
    path = tmp_path / "frames"
    path.mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(path / f"{index}.png"), image[..., ::-1])
    return path


def boxes_of(results):
    return np.stack([result.boxes_xywh for result in results])


def stepped(tracker, images, boxes_xywh):
    """The boxes [T, B, 4] by `initialize` and `step`."""
    states = tracker.initialize([images[0]] * len(boxes_xywh), boxes_xywh)
    found = [torch.stack([state.box_xywh for state in states])]
    for image in images[1:]:
        states = tracker.step([image] * len(boxes_xywh), states)
        found.append(torch.stack([state.box_xywh for state in states]))
    return torch.stack(found).numpy()


def test_examples_of_the_docstrings_run():
    results = doctest.testmod(relo.tracking.tracker)
    assert results.failed == 0
    assert results.attempted > 3


def test_every_kind_of_source_gives_the_boxes_of_steps(tracker, images, folder):
    expected = stepped(tracker, images, BOXES)
    sources = (images, list(images), iter(images), folder, str(folder), f"{folder}/*.png", open_frames(folder))
    for source in sources:
        results = list(tracker.run(source, BOXES))
        assert np.array_equal(boxes_of(results), expected)
        assert [result.index for result in results] == list(range(FRAMES))
        assert np.allclose([result.seconds for result in results], np.arange(FRAMES) / 25)
        assert all(np.array_equal(result.image, image) for result, image in zip(results, images, strict=True))
    assert expected[0].tolist() == BOXES


@pytest.mark.parametrize("boxes", [BOX, tuple(BOX), [BOX], np.array(BOX), torch.tensor([BOX]).double()])
def test_one_target_in_any_form(tracker, images, boxes):
    assert np.array_equal(boxes_of(tracker.run(images, boxes)), stepped(tracker, images, [BOX]))


def test_results_hold_score_presence_and_maps_where_asked_for(tracker, images):
    for keep in (False, True):
        first, second = list(tracker.run(images[:2], BOXES, keep_response=keep))
        assert [target.score for target in first.targets] == [1, 1, 1]
        assert all(0 < target.score < 1 for target in second.targets)
        assert all(target.presence is None for target in second.targets)  # this network has no head for it
        assert all((target.response is not None) == keep for target in second.targets)


def test_start_and_limit(tracker, images, folder):
    expected = stepped(tracker, images[2:5], [BOX])
    for source in (images, folder, open_frames(folder)):
        results = list(tracker.run(source, BOX, start=2, limit=3))
        assert np.array_equal(boxes_of(results), expected)
        assert [result.index for result in results] == [2, 3, 4]


def test_frames_that_begin_later_keep_their_numbers(tracker, folder):
    found = list(tracker.run(open_frames(folder, start=2), BOX, start=1))
    assert [result.index for result in found] == [3, 4, 5]
    assert [round(25 * result.seconds) for result in found] == [3, 4, 5]


def test_a_limit_takes_no_frame_more_from_an_iterator(tracker, images):
    source = iter(images)
    assert len(list(tracker.run(source, BOX, limit=2))) == 2
    assert np.array_equal(next(source), images[2])


def test_an_iterator_may_use_one_buffer_for_all_frames(tracker, images):
    def frames():
        buffer = np.empty_like(images[0])
        for image in images:
            buffer[...] = image
            yield buffer

    assert np.array_equal(boxes_of(tracker.run(frames(), BOX)), stepped(tracker, images, [BOX]))


def test_tracking_goes_on_when_the_size_changes(tracker, images):
    mixed = [images[0], images[1][:100], images[2][:, :90], np.zeros((300, 400, 3), np.uint8)]
    results = list(tracker.run(mixed, BOXES))
    assert len(results) == 4
    for result in results[1:]:
        height, width = result.image.shape[:2]
        assert (result.boxes_xywh[:, :2] < [width, height]).all()


def test_what_was_found_before_a_source_breaks_off_has_come(tracker, folder):
    (folder / "3.png").write_bytes(b"half")
    results = []
    with pytest.raises(UserError, match=r"3\.png"):
        results.extend(tracker.run(folder, BOX))  # extend keeps what came before the error
    assert len(results) == 3


def test_a_folder_that_vanishes_halfway(tracker, folder, monkeypatch):
    monkeypatch.setattr(relo.tracking.run, "DECODED_AHEAD", 1)
    results = []

    def track():
        for result in tracker.run(folder, BOX):
            results.append(result)
            for file in folder.iterdir():
                file.unlink()

    with pytest.raises(UserError, match="png"):
        track()
    assert 1 <= len(results) < FRAMES


def test_a_run_that_is_left_stops_its_thread(tracker, folder):
    before = threading.active_count()
    run = tracker.run(folder, BOX)
    next(run)
    run.close()
    assert threading.active_count() == before


def test_mistakes_are_named_when_they_can_be(tracker, images, folder, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        tracker.run(tmp_path / "nowhere", BOX)  # at once
    with pytest.raises(ValueError, match=r"one box x, y, w, h or several \[B, 4\], not an array \[3\]"):
        tracker.run(folder, [1, 2, 3])
    with pytest.raises(ValueError, match="one box"):
        tracker.run(folder, [])
    for box, words in (([500, 500, 20, 20], "outside"), ([10, 10, 0, 5], "no area"), ([10, 10, np.nan, 5], "finite")):
        with pytest.raises(UserError, match=words):
            next(tracker.run(images, [BOX, box]))
    with pytest.raises(UserError, match="no frame"):
        next(tracker.run([], BOX))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image[..., 0], r"uint8 \[120, 160\]; convert it, .*COLOR_GRAY2RGB"),
        (lambda image: image[..., :1], r"uint8 \[120, 160, 1\]; convert it, .*COLOR_GRAY2RGB"),
        (lambda image: np.dstack([image, image[..., 0]]), r"uint8 \[120, 160, 4\]; convert it, .*COLOR_RGBA2RGB"),
        (lambda image: image / 255, r"float64 \[120, 160, 3\]\.$"),
        (lambda image: image[..., :2], r"uint8 \[120, 160, 2\]\.$"),
    ],
)
def test_an_image_of_other_channels_says_how_to_convert_it(tracker, images, change, words):
    results = []
    with pytest.raises(ValueError, match=words):
        results.extend(tracker.run([*images[:2], change(images[2])], BOX))
    assert len(results) == 2
