import numpy as np
import pytest

from relo.data.synthetic.flexible import draw_deformation

CORNERS = np.array([[-30, -60], [30, 60]], np.float32)


def grid():
    x, y = np.meshgrid(np.linspace(-30, 30, 13, dtype=np.float32), np.linspace(-60, 60, 13, dtype=np.float32))
    return x.ravel(), y.ravel()


@pytest.mark.parametrize("strengths", [(0.09, 0, 0), (0, 0.4, 0), (0, 0, 0.9), (0.09, 0.4, 0.9), (0.5, 2, 1.2)])
def test_places_are_drawn_where_they_are_looked_up(strengths):
    frames = np.arange(20)[:, None]
    x, y = grid()
    for seed in range(4):
        deformation = draw_deformation(np.random.default_rng(seed), 20, 85, *strengths).invertible(CORNERS)
        back_x, back_y = deformation.sources(*deformation.destinations(x, y, frames), frames)
        np.testing.assert_allclose(back_x, np.broadcast_to(x, (20, len(x))), atol=0.3)
        np.testing.assert_allclose(back_y, np.broadcast_to(y, (20, len(y))), atol=0.3)


@pytest.mark.parametrize("strengths", [(0.09, 0, 0), (0, 0.4, 0), (0, 0, 0.9)])
def test_no_turn_or_stretch_undoes_it(strengths):
    """What is left of the motion after the best affine fit, frame by frame, is what bends, swings or turns in depth."""
    x, y = grid()
    plane = np.column_stack([x, y, np.ones_like(x)])
    left = []
    for seed in range(4):
        deformation = draw_deformation(np.random.default_rng(seed), 20, 85, *strengths)
        for index in range(20):
            drawn = np.column_stack(deformation.destinations(x, y, index))
            fitted = plane @ np.linalg.lstsq(plane, drawn, rcond=None)[0]
            left.append(np.abs(drawn - fitted).max())
    assert max(left) > 1.5


def test_nothing_moves_without_strength():
    x, y = grid()
    deformation = draw_deformation(np.random.default_rng(0), 5, 85, 0, 0, 0)
    for places in (deformation.sources(x, y, 2), deformation.destinations(x, y, 2)):
        np.testing.assert_array_equal(places, (x, y))


def test_deformations_change_smoothly():
    x, y = grid()
    for seed in range(4):
        deformation = draw_deformation(np.random.default_rng(seed), 40, 85, 0.09, 0.4, 0.9).invertible(CORNERS)
        drawn = np.stack(deformation.destinations(x, y, np.arange(40)[:, None]))
        assert np.abs(np.diff(drawn, axis=1)).max() < 0.15 * 120


def test_a_turn_in_depth_narrows_across_its_axis():
    deformation = draw_deformation(np.random.default_rng(3), 40, 85, 0, 0, 1.2)
    sharpest = int(np.abs(deformation.turn).argmax())
    axis = np.float32([np.cos(deformation.axis), np.sin(deformation.axis)])
    ends = np.float32([20, -20])
    across_x, across_y = deformation.destinations(ends * axis[0], ends * axis[1], sharpest)
    along_x, along_y = deformation.destinations(-ends * axis[1], ends * axis[0], sharpest)
    assert np.hypot(np.diff(across_x), np.diff(across_y)) < 0.97 * np.hypot(np.diff(along_x), np.diff(along_y))
