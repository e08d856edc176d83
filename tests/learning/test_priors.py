import math

import numpy as np
import pytest
import torch

from relo.errors import UserError
from relo.geometry import xywh_to_cxcywh
from relo.learning.priors import (
    BinaryPrior,
    CornerExpectation,
    GaussianPrior,
    corner_radius,
    gaussian_map,
    prior_boxes_xyxy,
)
from relo.models.network import LocalizationMaps


def maps_of(scores: torch.Tensor | None, own_boxes_cxcywh: torch.Tensor | None = None) -> LocalizationMaps:
    """The maps of a network whose prior head gives these scores and, maybe, boxes [B, 4] for all cells."""
    shape = (1, 4, 4) if scores is None else scores.shape
    if own_boxes_cxcywh is not None:
        own_boxes_cxcywh = own_boxes_cxcywh[:, None, None].expand(*shape, 4)
    return LocalizationMaps(torch.zeros(shape), torch.zeros(*shape, 4), None, scores, own_boxes_cxcywh)


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


@pytest.mark.parametrize(
    ("center", "cell"),
    [
        ((0.55, 0.20), (9, 3)),  # 8.8 and 3.2 cells
        ((8.5 / 16, 9.5 / 16), (8, 10)),  # half to even
        ((0.01, 0.98), (0, None)),  # 15.68: the nearest corner is that of a cell beyond the last
        ((-0.01, 0.3), (0, 5)),
        ((-0.2, 0.3), (None, 5)),
    ],
)
def test_released_gaussian_peaks_at_the_cell_whose_corner_is_nearest(center, cell) -> None:
    boxes_xywh = torch.tensor([[*center, 0.0, 0.0]]) + torch.tensor([-0.15, -0.1, 0.3, 0.2])
    heat = gaussian_map(boxes_xywh, 16, 0.7, released=True)[0]
    column, row = cell
    if None in cell:
        assert 0 < heat.max() < 1 or heat.max() == 0
    else:
        assert (heat == 1).nonzero().tolist() == [[row, column]]


def test_released_bump_of_a_center_beyond_the_map_reaches_into_it() -> None:
    heat = gaussian_map(torch.tensor([[0.83, 0.40, 0.30, 0.20]]), 16, 0.7, released=True)[0]  # centre (15.68, 8)
    radius = int(radius_in_plain_python(0.30 * 16, 0.20 * 16, 0.7))
    sigma = (2 * radius + 1) / 6
    assert heat[8, 15].item() == pytest.approx(math.exp(-1 / (2 * sigma**2)))
    assert heat[8 - radius, 15].item() == pytest.approx(math.exp(-(1 + radius**2) / (2 * sigma**2)))
    assert heat[:, : 16 - radius].sum() == 0


def test_released_focal_loss_is_divided_by_the_peaks() -> None:
    scores = torch.full((3, 4, 4), 0.5)
    inside, beyond = [0.3, 0.3, 0.1, 0.1], [0.9, 0.3, 0.1, 0.1]
    boxes_xywh = torch.tensor([inside, beyond, beyond])
    frame = -(0.5**2) * math.log(0.5) * 16
    prior = GaussianPrior(released=True)
    for present, expected in (
        ([True, True, False], 2 * frame),
        ([True, False, False], frame),
        ([False, True, True], 2 * frame),
        ([False, False, False], 0),
    ):
        loss = prior.loss(maps_of(scores), boxes_xywh, torch.tensor(present))
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_by_hand() -> None:
    scores = torch.full((1, 4, 4), 0.5)
    boxes = torch.tensor([[0.3, 0.3, 0.1, 0.1]])  # far smaller than a cell: no bump beside the peak
    expected = -(0.5**2) * math.log(0.5) * 16  # the peak and the 15 cells elsewhere give the same at 0.5
    loss = GaussianPrior().loss(maps_of(scores), boxes, torch.ones(1, dtype=torch.bool))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_absent_frames_do_not_count() -> None:
    scores = torch.rand(2, 8, 8).clamp(0.01, 0.99)
    boxes = torch.tensor([[0.2, 0.2, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2]])
    for prior in (GaussianPrior(), BinaryPrior()):
        both = prior.loss(maps_of(scores), boxes, torch.tensor([True, False]))
        alone = prior.loss(maps_of(scores[:1]), boxes[:1], torch.tensor([True]))
        assert both.item() == pytest.approx(alone.item(), rel=1e-6)
        assert prior.loss(maps_of(scores), boxes, torch.tensor([False, False])).item() == 0


def test_binary_prior_is_least_for_the_mask_of_the_box() -> None:
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.25]])
    mask = torch.full((1, 8, 8), 1e-4)
    mask[0, 4:6, 2:6] = 1 - 1e-4
    present = torch.ones(1, dtype=torch.bool)
    assert BinaryPrior().loss(maps_of(mask), boxes, present).item() == pytest.approx(-math.log(1 - 1e-4), rel=1e-3)
    assert BinaryPrior().loss(maps_of(mask.roll(1, dims=2)), boxes, present) > BinaryPrior().loss(
        maps_of(mask), boxes, present
    )


def test_binary_prior_keeps_one_cell_for_a_tiny_box() -> None:
    boxes = torch.tensor([[0.51, 0.51, 0.01, 0.01]])
    mask = torch.full((1, 4, 4), 1e-4)
    mask[0, 2, 2] = 1 - 1e-4
    loss = BinaryPrior().loss(maps_of(mask), boxes, torch.ones(1, dtype=torch.bool))
    assert loss.item() == pytest.approx(-math.log(1 - 1e-4), rel=1e-3)


def test_corner_expectation_by_hand() -> None:
    truth_xywh = torch.tensor([[0.2, 0.2, 0.2, 0.4], [0.5, 0.5, 0.2, 0.2]])
    # The first box is right. The second is moved by its half: of two areas of 0.04, 0.02 in common, and so a GIoU of
    # 1/3; x1 and x2 are off by 0.1 each, so the mean of the four errors is 0.05.
    own_boxes_cxcywh = xywh_to_cxcywh(truth_xywh + torch.tensor([[0.0, 0, 0, 0], [0.1, 0, 0, 0]]))
    maps = maps_of(torch.full((2, 4, 4), 0.5), own_boxes_cxcywh)
    both, first, second = torch.tensor([[True, True], [True, False], [False, True]])
    assert CornerExpectation().loss(maps, truth_xywh, first).item() == pytest.approx(0, abs=1e-5)
    expected = 2 * 2 / 3 + 5 * 0.05
    assert CornerExpectation().loss(maps, truth_xywh, second).item() == pytest.approx(expected, abs=1e-5)
    assert CornerExpectation().loss(maps, truth_xywh, both).item() == pytest.approx(expected / 2, abs=1e-5)
    assert CornerExpectation().loss(maps, truth_xywh, ~(first | second)).item() == 0
    assert CornerExpectation(3.0, 0.0).loss(maps, truth_xywh, second).item() == pytest.approx(2, abs=1e-5)


def test_corner_expectation_looks_at_the_part_of_the_target_in_the_crop() -> None:
    maps = maps_of(torch.full((1, 4, 4), 0.5), torch.tensor([[0.1, 0.5, 0.2, 0.4]]))
    present = torch.ones(1, dtype=torch.bool)
    assert CornerExpectation().loss(maps, torch.tensor([[-0.2, 0.3, 0.4, 0.4]]), present).item() < 1e-4


def test_a_prior_names_the_head_that_it_needs() -> None:
    boxes_xywh, present = torch.tensor([[0.2, 0.2, 0.4, 0.4]]), torch.ones(1, dtype=torch.bool)
    scores = torch.full((1, 4, 4), 0.5)
    corners = maps_of(scores, torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    for prior, maps, head in (
        (CornerExpectation(), maps_of(scores), "CornerPrior"),
        (CornerExpectation(), maps_of(None), "CornerPrior"),
        (GaussianPrior(), corners, "ConvPrior"),
        (BinaryPrior(), corners, "ConvPrior"),
        (GaussianPrior(), maps_of(None), "ConvPrior"),
    ):
        with pytest.raises(UserError, match=rf"{type(prior).__name__} needs a prior head .*{head}"):
            prior.loss(maps, boxes_xywh, present)


def test_the_prior_localizes_by_its_own_boxes_or_else_the_box_heads() -> None:
    scores = torch.full((2, 4, 4), 0.1)
    scores[0, 1, 3] = scores[1, 2, 0] = 0.9
    cells_cxcywh, own_cxcywh = torch.rand(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    for own, cells in ((None, cells_cxcywh), (own_cxcywh, own_cxcywh)):
        found = prior_boxes_xyxy(LocalizationMaps(torch.zeros(2, 4, 4), cells_cxcywh, None, scores, own))
        for box_xyxy, (cx, cy, w, h) in zip(
            found.tolist(), (cells[0, 1, 3].tolist(), cells[1, 2, 0].tolist()), strict=True
        ):
            assert box_xyxy == pytest.approx([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
