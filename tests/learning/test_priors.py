import math

import numpy as np
import pytest
import torch

from relo.learning.priors import BinaryPrior, GaussianPrior, corner_radius, gaussian_map


def radius_in_plain_python(width: float, height: float, overlap: float) -> float:
    """CenterNet's radius, written apart from the code under test."""
    candidates = []
    for a, b, c in (
        (1, width + height, width * height * (1 - overlap) / (1 + overlap)),
        (4, 2 * (width + height), (1 - overlap) * width * height),
        (4 * overlap, -2 * overlap * (width + height), (overlap - 1) * width * height),
    ):
        candidates.append((b + math.sqrt(b * b - 4 * a * c)) / 2)
    return min(candidates)


@pytest.mark.parametrize(("width", "height"), [(4, 4), (1, 1), (8, 2), (3.5, 6.25)])
def test_radius_equals_the_formula(width: float, height: float) -> None:
    radius = corner_radius(torch.tensor([width, height], dtype=torch.float64), 0.7)
    assert radius.item() == pytest.approx(radius_in_plain_python(width, height, 0.7), abs=1e-9)


def test_gaussian_peaks_at_the_target_cell_and_is_cut_at_the_radius() -> None:
    boxes = torch.tensor([[0.40, 0.10, 0.30, 0.20]], dtype=torch.float64)  # centre (0.55, 0.20): column 8, row 3 of 16
    heat = gaussian_map(boxes, 16, 0.7)[0].numpy()
    assert np.unravel_index(heat.argmax(), heat.shape) == (3, 8)
    assert heat[3, 8] == 1
    radius = int(radius_in_plain_python(0.30 * 16, 0.20 * 16, 0.7))
    assert heat[3, 8 + radius] == pytest.approx(math.exp(-(radius**2) / (2 * ((2 * radius + 1) / 6) ** 2)))
    assert heat[3, 8 + radius + 1] == 0


def test_focal_loss_by_hand() -> None:
    scores = torch.full((1, 4, 4), 0.5)
    boxes = torch.tensor([[0.3, 0.3, 0.1, 0.1]])  # far smaller than a cell: no bump beside the peak
    expected = -(0.5**2) * math.log(0.5) * 16  # the peak and the 15 cells elsewhere give the same at 0.5
    loss = GaussianPrior().loss(scores, boxes, torch.ones(1, dtype=torch.bool))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_absent_frames_do_not_count() -> None:
    scores = torch.rand(2, 8, 8).clamp(0.01, 0.99)
    boxes = torch.tensor([[0.2, 0.2, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2]])
    for prior in (GaussianPrior(), BinaryPrior()):
        both = prior.loss(scores, boxes, torch.tensor([True, False]))
        alone = prior.loss(scores[:1], boxes[:1], torch.tensor([True]))
        assert both.item() == pytest.approx(alone.item(), rel=1e-6)
        assert prior.loss(scores, boxes, torch.tensor([False, False])).item() == 0


def test_binary_prior_is_least_for_the_mask_of_the_box() -> None:
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.25]])
    mask = torch.full((1, 8, 8), 1e-4)
    mask[0, 4:6, 2:6] = 1 - 1e-4
    present = torch.ones(1, dtype=torch.bool)
    assert BinaryPrior().loss(mask, boxes, present).item() == pytest.approx(-math.log(1 - 1e-4), rel=1e-3)
    assert BinaryPrior().loss(mask.roll(1, dims=2), boxes, present) > BinaryPrior().loss(mask, boxes, present)


def test_binary_prior_keeps_one_cell_for_a_tiny_box() -> None:
    boxes = torch.tensor([[0.51, 0.51, 0.01, 0.01]])
    mask = torch.full((1, 4, 4), 1e-4)
    mask[0, 2, 2] = 1 - 1e-4
    loss = BinaryPrior().loss(mask, boxes, torch.ones(1, dtype=torch.bool))
    assert loss.item() == pytest.approx(-math.log(1 - 1e-4), rel=1e-3)
