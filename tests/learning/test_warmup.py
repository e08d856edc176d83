import pytest
import torch

from relo.errors import UserError
from relo.geometry import xywh_to_cxcywh
from relo.learning.base import target_cell
from relo.learning.priors import GaussianPrior
from relo.learning.warmup import WarmupObjective
from relo.models.network import LocalizationMaps, LocalizationNetwork
from small_networks import make_clip


def test_target_cell_by_hand() -> None:
    boxes = torch.tensor([[0.4, 0.1, 0.2, 0.2], [-0.3, 0.9, 0.1, 0.4]])  # centres (0.5, 0.2) and (-0.25, 1.1)
    assert target_cell(boxes, 8).tolist() == [1 * 8 + 4, 7 * 8 + 0]


def test_the_truth_at_the_target_cell_alone_costs_nothing(clip) -> None:
    truth = clip.search_boxes_xywh[:, 0]
    boxes = torch.zeros(2, 8, 8, 4) + 0.9
    boxes.flatten(1, 2)[torch.arange(2), target_cell(truth, 8)] = xywh_to_cxcywh(truth)
    maps = LocalizationMaps(policy_logits=torch.zeros(2, 8, 8), boxes_cxcywh=boxes)
    losses = WarmupObjective().frame_losses(maps, truth, clip.present[:, 0])
    assert losses["giou_loss"].item() == pytest.approx(0, abs=1e-5)
    assert losses["l1_loss"].item() == pytest.approx(0, abs=1e-6)
    assert losses["iou"].item() == pytest.approx(1, abs=1e-5)


def test_warmup_learns_a_batch_by_heart(network: LocalizationNetwork, clip) -> None:
    objective = WarmupObjective(prior=GaussianPrior())
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    generator = torch.Generator()
    first = objective(network, clip, generator)
    for _ in range(80):
        optimizer.zero_grad()
        result = objective(network, clip, generator)
        result.loss.backward()
        optimizer.step()
    assert result.logs["iou"] > 0.8 > first.logs["iou"]
    assert result.logs["prior_loss"] < 0.3 * first.logs["prior_loss"]


def test_policy_and_critic_get_no_gradient(network: LocalizationNetwork, clip) -> None:
    WarmupObjective(prior=GaussianPrior())(network, clip, torch.Generator()).loss.backward()
    for part in (network.policy, network.critic):
        assert all(p.grad is None for p in part.parameters())
    assert network.prior.tower[-1].weight.grad is not None


def test_every_frame_with_a_target_counts_alike(network: LocalizationNetwork) -> None:
    """Of four, two are hidden: the mean is that of the other two, wherever they are."""
    network.eval()
    clip = make_clip(batch=2, frames=2)
    clip.search_images[1], clip.search_boxes_xywh[1] = clip.search_images[0], clip.search_boxes_xywh[0]
    clip.template_images[1] = clip.template_images[0]
    means = []
    for hidden in ([(0, 1), (1, 1)], [(0, 0), (1, 1)], [(1, 0), (1, 1)], [(0, 0), (1, 0)]):
        clip.present[:] = True
        for walk, frame in hidden:
            clip.present[walk, frame] = False
        means.append(WarmupObjective()(network, clip, torch.Generator()).loss.item())
    first, mixed, both, second = means
    assert mixed == pytest.approx((first + second) / 2, rel=1e-5)
    assert both == pytest.approx((first + second) / 2, rel=1e-5)
    assert first != pytest.approx(second, rel=1e-2)


def test_frames_without_target_teach_nothing(network: LocalizationNetwork) -> None:
    clip = make_clip(batch=1, frames=2)
    clip.present[0, 1] = False
    network.eval()
    loss = WarmupObjective()(network, clip, torch.Generator()).loss
    clip.search_boxes_xywh[0, 1] = torch.tensor([0.9, 0.9, 0.05, 0.05])
    assert WarmupObjective()(network, clip, torch.Generator()).loss == loss


def test_reading_boxes_at_the_prior_needs_a_prior() -> None:
    with pytest.raises(UserError, match="needs a prior"):
        WarmupObjective(box_cell="prior")
