"""A prior head that brings its own boxes tracks by them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from relo.models.heads import CornerPrior
from relo.models.network import LocalizationNetwork
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from small_networks import make_network


class OneCell(nn.Module):
    """Stands for a tower that is sure of one cell."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column

    def forward(self, features: Tensor) -> Tensor:
        logits = torch.zeros(len(features), 1, *features.shape[2:])
        logits[:, :, self.row, self.column] = 50.0
        return logits


@pytest.fixture
def corner_network() -> LocalizationNetwork:
    """Corners at the centres of cells (0, 5) and (2, 7) of 8 x 8: a box in the crop's upper right corner."""
    made = make_network()
    prior = CornerPrior(16, (8,))
    prior.top_left, prior.bottom_right = OneCell(0, 5), OneCell(2, 7)
    return LocalizationNetwork(made.encoder, made.propagator, made.policy, made.box, prior=prior)


@pytest.mark.parametrize("window_exponent", [0.0, 1.0, 8.0])
def test_the_box_and_its_score_are_the_heads_whatever_the_window(corner_network, window_exponent):
    images = np.random.default_rng(0).integers(0, 255, (2, 400, 400, 3), np.uint8)
    tracker = Tracker(corner_network, TrackingRule(localization="prior", window_exponent=window_exponent))
    states = tracker.initialize(images[:1], [[180, 180, 40, 40]])
    state = tracker.step(images[1:], states, keep_response=True)[0]
    # The search region is 160 px wide around (200, 200).
    x1, y1, x2, y2 = (120 + 160 * (cell + 0.5) / 8 for cell in (5, 0, 7, 2))
    np.testing.assert_allclose(state.box_xywh, [x1, y1, x2 - x1, y2 - y1], atol=1e-3)
    assert state.score == pytest.approx(1, abs=1e-3)
    assert divmod(int(state.response.argmax()), 8) == (1, 6)


def test_the_policy_of_the_same_network_tracks_by_the_box_head(corner_network):
    images = np.random.default_rng(0).integers(0, 255, (2, 400, 400, 3), np.uint8)
    found = {}
    for localization in ("policy", "prior"):
        tracker = Tracker(corner_network, TrackingRule(localization=localization))
        found[localization] = tracker.step(images[1:], tracker.initialize(images[:1], [[180, 180, 40, 40]]))[0]
    assert not np.allclose(found["policy"].box_xywh, found["prior"].box_xywh, atol=5)
