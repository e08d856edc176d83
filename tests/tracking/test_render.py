import numpy as np
import pytest
import torch

from relo.tracking.frame_result import FrameResult
from relo.tracking.render import (
    FOUND,
    LONGEST_SIDE,
    LOST,
    PALETTE,
    SHORT_SIDE,
    TRUTH,
    DrawnTarget,
    draw_result,
    draw_targets,
)
from relo.tracking.state import TargetState

VIRIDIS_LEAST, VIRIDIS_GREATEST = (68, 1, 84), (253, 231, 37)


def draw_frame(image, box_xywh, caption="", response=None, truth_xywh=None, is_lost=False):
    """The frame with one target on it."""
    return draw_targets(image, [DrawnTarget(box_xywh, "", is_lost, response, truth_xywh)], caption)


def has_color(image, color, tolerance=6):
    return bool((np.abs(image.astype(int) - color).max(-1) <= tolerance).any())


@pytest.mark.parametrize("shape", [(20, 30), (240, 320), (480, 640), (2160, 3840), (900, 60)])
def test_everything_is_drawn_at_any_size(shape):
    image = np.full((*shape, 3), 90, np.uint8)
    response = np.arange(16.0).reshape(4, 4)
    box_xywh = [0.1 * shape[1], 0.6 * shape[0], 0.4 * shape[1], 0.3 * shape[0]]
    drawn = draw_frame(image, box_xywh, "#3  score 0.50", response, [0, 0.9 * shape[0], shape[1], 0.1 * shape[0]])
    assert (image == 90).all()
    assert min(drawn.shape[:2]) >= min(SHORT_SIDE, 2160)
    corner = drawn[: drawn.shape[0] // 2, drawn.shape[1] // 2 :]
    for color in (VIRIDIS_LEAST, VIRIDIS_GREATEST):
        assert has_color(corner, color)
    assert has_color(drawn, FOUND)
    assert has_color(drawn, TRUTH)


@pytest.mark.parametrize("shape", [(1, 2000), (8, 3000), (2000, 1), (1, 20_000)])
def test_thin_frames_do_not_grow_without_end(shape):
    box_xywh = [0, 0, shape[1], shape[0]]
    targets = [DrawnTarget(box_xywh, f"{number} lost", number == 1, np.zeros((4, 4)), box_xywh) for number in range(3)]
    drawn = draw_targets(np.zeros((*shape, 3), np.uint8), targets, "#3  score 0.50")
    assert max(drawn.shape[:2]) <= max(LONGEST_SIDE, *shape)
    assert max(drawn.shape[:2]) / min(drawn.shape[:2]) == max(shape) / min(shape)


def test_box_lies_where_it_was_found():
    drawn = draw_frame(np.zeros((480, 640, 3), np.uint8), [100, 200, 50, 40])
    rows, columns = np.nonzero((drawn == FOUND).all(-1))
    assert abs(columns.min() - 100) <= 2
    assert abs(columns.max() - 149) <= 2
    assert abs(rows.min() - 200) <= 2
    assert abs(rows.max() - 239) <= 2


def test_box_of_a_lost_target_has_another_color():
    drawn = draw_frame(np.zeros((480, 640, 3), np.uint8), [100, 200, 50, 40], is_lost=True)
    assert has_color(drawn, LOST)
    assert not has_color(drawn, FOUND)


@pytest.mark.parametrize("truth_xywh", [None, [np.nan] * 4, [5, 5, 0, 0]])
def test_absent_truth_is_not_drawn(truth_xywh):
    drawn = draw_frame(np.zeros((100, 100, 3), np.uint8), [10, 10, 20, 20], truth_xywh=truth_xywh)
    assert not has_color(drawn, TRUTH)


@pytest.mark.parametrize("far", [1e6, 1e10, 1e300])
def test_truth_far_beyond_the_image_is_drawn_where_it_crosses_it(far):
    image = np.zeros((480, 480, 3), np.uint8)
    assert has_color(draw_frame(image, [10, 10, 20, 20], truth_xywh=[-far, 100, 2 * far, far]), TRUTH)
    assert not has_color(draw_frame(image, [10, 10, 20, 20], truth_xywh=[far, far, 5, 5]), TRUTH)


@pytest.mark.parametrize("level", [0.0, -7.5])
def test_flat_map_is_drawn(level):
    drawn = draw_frame(np.full((480, 480, 3), 90, np.uint8), [10, 300, 20, 20], response=np.full((4, 4), level))
    assert has_color(drawn, VIRIDIS_LEAST)
    assert not has_color(drawn, VIRIDIS_GREATEST)


def places(image, color):
    """Top, left, bottom and right of a color's pixels."""
    rows, columns = np.nonzero((image == color).all(-1))
    return [rows.min(), columns.min(), rows.max(), columns.max()]


def test_several_targets_have_a_box_a_label_and_a_map_each():
    image = np.full((720, 1280, 3), 90, np.uint8)
    boxes_xywh = [[150.0 * i + 10, 300, 80, 60] for i in range(8)]
    flat = np.zeros((4, 4), np.float32)
    targets = [DrawnTarget(box_xywh, f"{i + 1}", response=flat) for i, box_xywh in enumerate(boxes_xywh)]
    drawn, without_labels = (
        draw_targets(image, [DrawnTarget(t.box_xywh, t.label * labels, response=t.response) for t in targets])
        for labels in (1, 0)
    )
    for (x, y, w, h), color in zip(boxes_xywh, PALETTE, strict=True):
        around = slice(int(x) - 10, int(x + w) + 10)
        top, left, bottom, right = places(drawn[:, around], color)
        distances = left - 10, right - (10 + w - 1), bottom - (y + h - 1)
        assert max(map(abs, distances)) <= 3
        assert top < y - 10  # the label above it
        assert places(without_labels[:, around], color)[0] >= y - 3
        assert has_color(drawn[:, 1150:], color)  # the rim of its map


def test_one_target_is_drawn_as_ever():
    image = np.full((480, 640, 3), 90, np.uint8)
    response = np.arange(16.0).reshape(4, 4)
    alone = draw_targets(image, [DrawnTarget([10, 200, 50, 40], response=response)])
    assert has_color(alone, FOUND)
    assert has_color(alone, VIRIDIS_GREATEST)


def test_labels_do_not_cover_each_other():
    """Of targets in one place, and at the image's corners."""
    image = np.zeros((480, 640, 3), np.uint8)
    boxes_xywh = [[100, 100, 60, 60]] * 4 + [[0, 0, 30, 30], [600, 450, 60, 60], [-500, -500, 10, 10]]
    targets = [DrawnTarget(box_xywh, "8", is_lost=True) for box_xywh in boxes_xywh]
    drawn = draw_targets(image, targets)
    alone = [draw_targets(image, [DrawnTarget([300, 300, 60, 60]), DrawnTarget([100, 200, 60, 60], "8", True)])]
    whole = (alone[0] == PALETTE[1]).all(-1).sum()
    for color in PALETTE[:7]:
        assert (drawn == color).all(-1).sum() >= 0.8 * whole


def test_more_maps_than_there_is_room_for_are_left_out():
    targets = [DrawnTarget([10, 10, 20, 20], response=np.zeros((4, 4)))] * 400
    assert not has_color(draw_targets(np.full((480, 480, 3), 90, np.uint8), targets), VIRIDIS_LEAST)


def state(box_xywh, **known):
    return TargetState(None, None, None, None, torch.tensor(box_xywh), 0.5, 0, **known)


def test_a_result_is_drawn_with_all_that_is_known():
    image = np.full((480, 640, 3), 90, np.uint8)
    found = state([100.0, 200, 50, 40], presence=0.25, response=torch.arange(16.0).reshape(4, 4))
    lost = state([300.0, 200, 50, 40], status="lost")
    one = draw_result(FrameResult(7, 0.2, image, [found]), [200, 300, 50, 40])
    caption, map_, truth = "#7  score 0.50  presence 0.25", found.response.numpy(), [200, 300, 50, 40]
    np.testing.assert_array_equal(one, draw_frame(image, [100, 200, 50, 40], caption, map_, truth))
    two = draw_result(FrameResult(7, 0.2, image, [found, lost]))
    targets = [DrawnTarget([100, 200, 50, 40], "1", response=map_), DrawnTarget([300, 200, 50, 40], "2 lost", True)]
    np.testing.assert_array_equal(two, draw_targets(image, targets, "#7"))
    assert has_color(two, LOST)
    assert draw_result(FrameResult(7, 0.2, image, [])).shape == image.shape
