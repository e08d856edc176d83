import numpy as np
import pytest

from relo.tracking.render import FOUND, LOST, SHORT_SIDE, TRUTH, draw_frame

VIRIDIS_LEAST, VIRIDIS_GREATEST = (68, 1, 84), (253, 231, 37)


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
