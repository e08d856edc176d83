import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from relo.learning.priors import CornerExpectation
from relo.models.checkpoints.plugin import build
from relo.models.heads import SCORE_FLOOR, CornerPrior
from relo.models.inference import optimize_for_inference
from relo.models.network import LocalizationMaps, LocalizationNetwork
from small_networks import make_clip, make_network


class Given(nn.Module):
    """Stands for a tower: the same logits [B, 1, S, S] for any features."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, features: Tensor) -> Tensor:
        return self.logits


def corner_head(top_left: Tensor, bottom_right: Tensor) -> CornerPrior:
    """A head whose towers give these logits [B, S, S]."""
    head = CornerPrior(channels=1, hidden=(1,))
    head.top_left, head.bottom_right = Given(top_left[:, None]), Given(bottom_right[:, None])
    return head


def run(head: CornerPrior) -> tuple[Tensor, Tensor]:
    return head(torch.zeros_like(head.top_left.logits))


def expectation_in_plain_python(logits: list[list[float]]) -> tuple[float, float, float]:
    """x and y of the expected corner and the greatest probability, written apart from the code under test."""
    side = len(logits)
    weights = [[math.exp(value) for value in row] for row in logits]
    total = sum(sum(row) for row in weights)
    x = sum((column + 0.5) / side * weights[row][column] for row in range(side) for column in range(side)) / total
    y = sum((row + 0.5) / side * weights[row][column] for row in range(side) for column in range(side)) / total
    return x, y, max(max(row) for row in weights) / total


def test_corners_are_the_expectations_of_the_cells_centres() -> None:
    logits = 2 * torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    logits[0, :, :3, :3] += 4  # so that the corners are in order
    logits[1, :, 3:, 3:] += 4
    scores, boxes_cxcywh = run(corner_head(*logits))
    for i in range(3):
        x1, y1, peak1 = expectation_in_plain_python(logits[0, i].tolist())
        x2, y2, peak2 = expectation_in_plain_python(logits[1, i].tolist())
        expected = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        torch.testing.assert_close(boxes_cxcywh[i], expected.expand(6, 6, 4), rtol=0, atol=1e-5)
        row, column = int((y1 + y2) / 2 * 6), int((x1 + x2) / 2 * 6)
        assert scores[i, row, column].item() == pytest.approx(math.sqrt(peak1 * peak2), rel=1e-4)
        assert (scores[i] > SCORE_FLOOR).sum() == 1


MAPS = arrays("float32", (2, 1, 5, 5), elements=st.floats(-80, 80, width=32)).map(torch.from_numpy)


@settings(max_examples=60)
@given(logits=MAPS)
def test_any_logits_give_a_box_and_one_best_cell_that_holds_its_centre(logits: Tensor) -> None:
    scores, boxes_cxcywh = run(corner_head(*logits))
    assert torch.isfinite(boxes_cxcywh).all()
    center, size = boxes_cxcywh[0, 0, 0].detach().split(2)
    assert (size > 0).all()
    assert (center - size / 2 >= 0).all()
    assert (center + size / 2 <= 1).all()
    assert ((scores > 0) & (scores < 1)).all()
    row, column = divmod(int(scores.argmax()), 5)
    assert (center * 5 - torch.tensor([column, row]) - 0.5).abs().max() <= 0.5 + 1e-4


def test_crossed_corners_learn_to_part() -> None:
    """From a top-left that lies right of and below the bottom-right, the box is drawn to the target."""
    logits = torch.zeros(2, 1, 8, 8)
    logits[0, :, 6, 6] = logits[1, :, 1, 1] = 5.0
    head = corner_head(*logits)
    truth_xywh, present = torch.tensor([[0.3, 0.2, 0.4, 0.5]]), torch.ones(1, dtype=torch.bool)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        scores, boxes_cxcywh = run(head)
        maps = LocalizationMaps(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, 4), None, scores, boxes_cxcywh)
        loss = CornerExpectation().loss(maps, truth_xywh, present)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2
    expected = torch.tensor([0.5, 0.45, 0.4, 0.5])
    torch.testing.assert_close(boxes_cxcywh[0, 0, 0].detach(), expected, rtol=0, atol=0.02)


def network() -> LocalizationNetwork:
    made = make_network()
    return LocalizationNetwork(
        made.encoder, made.propagator, made.policy, made.box, made.critic, CornerPrior(16, (8, 8))
    ).eval()


@torch.inference_mode()
def maps_of(of: LocalizationNetwork, precision: str = "float32") -> LocalizationMaps:
    clip = make_clip()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        maps, _ = of(clip.search_images[:, 0], of.encode_templates(clip.template_images, clip.template_boxes_xywh))
    return maps


def test_the_network_hands_out_the_heads_boxes_beside_the_box_heads() -> None:
    maps = maps_of(network())
    assert maps.prior_scores.shape == (2, 8, 8)
    assert maps.prior_boxes_cxcywh.shape == maps.boxes_cxcywh.shape == (2, 8, 8, 4)
    assert not torch.allclose(maps.prior_boxes_cxcywh, maps.boxes_cxcywh)
    assert maps_of(make_network().eval()).prior_boxes_cxcywh is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_made_fast_gives_the_same_boxes(precision: str) -> None:
    plain = network()
    with torch.no_grad():  # sharp maps, and BatchNorm statistics that matter
        for corner in (plain.prior.top_left, plain.prior.bottom_right):
            corner[-1].weight.mul_(10)
            corner[0][1].running_mean.normal_(std=0.1)
    fast = optimize_for_inference(plain, precision)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.prior.modules())
    found, expected = maps_of(fast, precision), maps_of(plain)
    tolerance = 1e-5 if precision == "float32" else 0.02
    torch.testing.assert_close(found.prior_boxes_cxcywh, expected.prior_boxes_cxcywh, rtol=0, atol=tolerance)
    assert found.prior_boxes_cxcywh.dtype == found.prior_scores.dtype == torch.float32


def test_its_config_rebuilds_it() -> None:
    made = network()
    rebuilt = build(made.config()).eval()
    rebuilt.load_state_dict(made.state_dict())
    torch.testing.assert_close(maps_of(rebuilt).prior_boxes_cxcywh, maps_of(made).prior_boxes_cxcywh)
