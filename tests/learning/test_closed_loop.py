"""Closed-loop rollouts: an action moves the next search region."""

from dataclasses import replace

import pytest
import torch

from relo.data.clip_batch import ClipBatch, Surroundings
from relo.errors import UserError
from relo.geometry import cxcywh_to_xywh, iou_xywh
from relo.learning.clipped import GRPO, PPO
from relo.learning.closed_loop import ClosedLoop
from relo.learning.expected import ExpectedGradient
from relo.learning.policy import ActorCritic
from relo.learning.rewards import IoUReward
from relo.models.network import LocalizationMaps
from relo.tracking.rule import TrackingRule
from small_networks import make_clip, make_network

SIDE = 128  # of the surroundings, in pixels: 8 times a target of 32 image pixels, at half resolution


def moving_clip(batch: int = 2, frames: int = 4, step: float = 6.0) -> ClipBatch:
    """A white target of 32 x 32 px on black, that goes to the right."""
    clip = make_clip(batch, frames)
    x = 100 + step * torch.arange(1, frames + 1, dtype=torch.float64)
    boxes_xywh = torch.stack([x, torch.full_like(x, 90), *torch.full((2, frames), 32.0, dtype=torch.float64)], dim=-1)
    corner = boxes_xywh[:, :2] + 16 - SIDE
    geometry = torch.cat([corner, torch.full((frames, 2), 0.5, dtype=torch.float64)], dim=-1)
    images = torch.zeros(frames, 3, SIDE, SIDE, dtype=torch.uint8)
    images[:, :, 56:72, 56:72] = 255

    def every(tensor):
        return tensor.expand(batch, *tensor.shape)

    return replace(
        clip,
        surroundings=Surroundings(
            images=every(images),
            geometry=every(geometry),
            boxes_xywh=every(boxes_xywh),
            first_box_xywh=every(torch.tensor([100.0, 90.0, 32.0, 32.0], dtype=torch.float64)),
            image_sizes=every(torch.tensor([[320, 240]]).expand(frames, 2)),
        ),
    )


class Seer(torch.nn.Module):
    """Finds what is white in the search image and boxes it at every cell; its policy has one favourite cell."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.encoder = torch.nn.Identity()
        self.encoder.search_size = 64
        self.propagator = torch.nn.Identity()
        self.logits = torch.nn.Parameter(torch.zeros(4, 4))
        self.critic = object()
        self.offset = offset
        self.seen = []

    def encode_templates(self, images, boxes_xywh):
        return None

    def encode(self, images, templates, memory):
        self.seen.append(images)
        return images, None

    def localize(self, features, heads):
        light = (features.mean(1) > features.mean(1).amin((1, 2), keepdim=True) + 1).float()
        places = (torch.arange(64) + 0.5) / 64
        mass = light.sum((1, 2)).clamp(min=1)
        cx, cy = (light.sum(1) * places).sum(1) / mass, (light.sum(2) * places).sum(1) / mass
        size = mass.sqrt() / 64
        boxes_cxcywh = torch.stack([cx + self.offset, cy, size, size], dim=-1)
        return LocalizationMaps(
            policy_logits=self.logits.expand(len(features), 4, 4),
            boxes_cxcywh=boxes_cxcywh[:, None, None].expand(-1, 4, 4, -1),
            value=self.logits.sum().expand(len(features)),
        )


def roll(network, clip, samples=1, seed=0, **settings):
    loop = ClosedLoop(**{"jitter": 0.0, **settings})
    return loop(network, clip, [IoUReward()], torch.Generator().manual_seed(seed), samples)


def test_a_network_that_sees_follows_the_target():
    rollout = roll(Seer(), moving_clip())
    assert (rollout.ious > 0.9).all()
    assert not rollout.restarts.any()


def test_the_next_crop_is_cut_around_the_chosen_box():
    """Each frame's crop, cut from the surroundings around the box of the frame before, shows the target where it is."""
    clip, network = moving_clip(batch=1, step=6.0), Seer()
    roll(network, clip)
    for image in network.seen:
        column = (image[0].mean(0) > 0).float().sum(0).nonzero().flatten()
        center = (column[0] + column[-1] + 1) / 2 / 64
        # The region's centre is the last box's: the target is one step of 6 px further, of 128 px.
        assert center.item() == pytest.approx(0.5 + 6 / 128, abs=0.02)


def test_the_tracking_rule_says_how_search_regions_are_cut():
    usual, wide = (roll(Seer(), moving_clip(), rule=TrackingRule(search_factor=factor)) for factor in (4.0, 6.0))
    sizes = [(r.truth_xyxy[:, 0, 2:] - r.truth_xyxy[:, 0, :2]).prod(-1).sqrt() for r in (usual, wide)]
    torch.testing.assert_close(sizes[0], 1.5 * sizes[1], rtol=0.03, atol=0)


def test_the_truth_is_written_in_the_crop_that_was_cut():
    clip = moving_clip()
    rollout = roll(Seer(), clip, drift_limit=None)
    boxes_xywh = cxcywh_to_xywh(
        torch.cat(
            [
                (rollout.truth_xyxy[..., :2] + rollout.truth_xyxy[..., 2:]) / 2,
                rollout.truth_xyxy[..., 2:] - rollout.truth_xyxy[..., :2],
            ],
            dim=-1,
        )
    )
    assert torch.allclose(boxes_xywh[..., 2:], torch.tensor(0.25), atol=0.02)
    # The crop's centre is the last box's, and the target is one step further.
    expected_xy = torch.tensor([0.5 + 6 / 128 - 0.125, 0.5 - 0.125])
    assert torch.allclose(boxes_xywh[..., :2], expected_xy, atol=0.02)


def test_a_wrong_choice_has_consequences():
    """Who stays where the target was falls behind frame by frame, which no teacher-forced walk shows."""

    class Blind(Seer):
        def localize(self, features, heads):
            maps = super().localize(features, heads)
            return replace(maps, boxes_cxcywh=torch.tensor([0.5, 0.5, 0.25, 0.25]).expand(maps.boxes_cxcywh.shape))

    rollout = roll(Blind(), moving_clip(frames=4), drift_limit=None)
    left = 32 - 6.0 * torch.arange(1, 5)  # px of the target's width that the box still covers
    torch.testing.assert_close(rollout.ious, (left / (64 - left)).expand(2, 4), rtol=0.05, atol=0.02)


def test_a_lost_target_is_taken_up_again_at_a_cost():
    clip = moving_clip(frames=4)
    lost = roll(Seer(offset=0.6), clip, drift_limit=1.0, restart_cost=0.7)
    assert lost.restarts.all()
    torch.testing.assert_close(lost.terms["restart"], torch.full((2, 4), -0.7))
    # After every restart the truth lies where the first frame's did: near the middle of the crop.
    center = (lost.truth_xyxy[..., :2] + lost.truth_xyxy[..., 2:]) / 2
    assert ((center - 0.5).abs() < 0.1).all()
    drifting = roll(Seer(offset=0.6), clip, drift_limit=None)
    assert not drifting.restarts.any()
    assert (drifting.truth_xyxy[:, -1, 2:] == drifting.truth_xyxy[:, -1, :2]).any(-1).all()  # out of the crop


def test_hidden_targets_cannot_be_lost_and_earn_nothing():
    clip = moving_clip()
    clip = replace(clip, present=torch.zeros_like(clip.present))
    rollout = roll(Seer(offset=0.6), clip, drift_limit=1.0)
    assert not rollout.restarts.any()
    assert not rollout.rewards.any()


def test_samples_are_walks_of_their_own():
    network, clip = make_network().eval(), moving_clip(batch=2, frames=3)
    rollout = roll(network, clip, samples=3)
    assert rollout.samples == 3
    assert rollout.actions.shape == (6, 3)
    torch.testing.assert_close(rollout.search_images[0, 0], rollout.search_images[2, 0])  # one start
    differ = [not torch.equal(rollout.search_images[0, 2], rollout.search_images[i, 2]) for i in (1, 2)]
    assert any(differ)


def test_the_same_generator_gives_the_same_walk():
    network, clip = make_network().eval(), moving_clip()
    one, other = (roll(network, clip, jitter=0.2, seed=4) for _ in range(2))
    assert torch.equal(one.actions, other.actions)
    assert torch.equal(one.search_images, other.search_images)
    assert not torch.equal(roll(network, clip, jitter=0.2, seed=5).search_images, one.search_images)


@pytest.mark.parametrize(
    "objective",
    [
        ActorCritic(rollout=ClosedLoop(), discount=0.9, gae_lambda=0.95),
        ExpectedGradient(rollout=ClosedLoop(), discount=0.9),
        PPO(rollout=ClosedLoop(), discount=0.9, minibatches=2),
        GRPO(rollout=ClosedLoop(), group_size=2),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_every_objective_learns_in_the_loop(objective):
    network, clip = make_network(), moving_clip()
    network.requires_grad_(False)
    for part in objective.trained_parts:
        getattr(network, part).requires_grad_(True)
    for result in objective.losses(network, clip, torch.Generator().manual_seed(0)):
        network.zero_grad()
        result.loss.backward()
        assert result.loss.isfinite()
        assert "lost" in result.logs
        assert network.policy.tower[0][0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.encoder.parameters())


class Chooser(Seer):
    """Finds the target at half of its cells, and boxes beside it at the others."""

    def localize(self, features, heads):
        maps = super().localize(features, heads)
        beside = torch.zeros(4, 4, 4)
        beside[:2, :, 0] = 0.6
        return replace(maps, boxes_cxcywh=maps.boxes_cxcywh + beside)


@pytest.mark.parametrize("discount", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_the_expected_gradient_pays_for_what_is_lost_as_sampled_ones_do(discount):
    network = Chooser()
    network.logits.data = torch.linspace(-0.5, 0.5, 16).view(4, 4)
    loop = ClosedLoop(drift_limit=1.0, restart_cost=2.0, jitter=0.0)
    settings = {"rollout": loop, "rewards": [IoUReward()], "normalise_advantages": False, "discount": discount}
    generator, means, errors = torch.Generator().manual_seed(1), [], []
    for objective in (ExpectedGradient(value_weight=0.0, **settings), ActorCritic(value_weight=0.0, **settings)):
        samples = []
        for _ in range(60):
            network.logits.grad = None
            objective(network, moving_clip(batch=32, frames=2), generator).loss.backward()
            samples.append(network.logits.grad.clone())
        samples = torch.stack(samples)
        means.append(samples.mean(0))
        errors.append(samples.std(0) / len(samples) ** 0.5)
    assert ((means[0] - means[1]).abs() < 4.5 * (errors[0].square() + errors[1].square()).sqrt()).all()
    assert means[0][:2].min() > 0.02, "what loses the target is pushed down, by its cost and more"
    assert errors[1].max() < 0.2 * means[0].abs().max()  # the comparison means something


def test_every_cells_restart_is_known_and_the_chosen_ones_is_paid():
    rollout = roll(Chooser(), moving_clip(batch=8, frames=3), drift_limit=1.0, restart_cost=2.0)
    expected = torch.zeros(4, 4)
    expected[:2] = -2
    torch.testing.assert_close(rollout.cell_costs, expected.expand(8, 3, 4, 4))
    torch.testing.assert_close(rollout.terms["restart"], -2.0 * (rollout.actions < 8))
    assert torch.equal(rollout.restarts, rollout.actions < 8)


def test_a_network_that_has_come_apart_shows_in_the_loss():
    """Its boxes are no numbers, and no crop can be cut around them."""
    network = make_network().requires_grad_(False)
    network.encoder.embed.weight[0] = torch.nan
    network.policy.requires_grad_(True)
    network.critic.requires_grad_(True)
    objective = ActorCritic(rollout=ClosedLoop())
    assert objective(network, moving_clip(), torch.Generator().manual_seed(0)).loss.isnan()


def test_clips_without_surroundings_are_refused():
    with pytest.raises(UserError, match=r"data\.surroundings"):
        roll(make_network(), make_clip())


@pytest.mark.parametrize("setting", [{"drift_limit": 0.0}, {"size_limit": 1.0}])
def test_limits_that_lose_every_target_are_refused(setting):
    with pytest.raises(UserError, match="would count as lost"):
        ClosedLoop(**setting)


def test_boxes_of_a_walk_are_those_of_the_image():
    """What the walk takes for its box, in image pixels, is the box that the network saw in the crop."""
    clip = moving_clip(batch=1, frames=1)
    rollout = roll(Seer(), clip)
    truth_xywh = clip.surroundings.boxes_xywh[0, 0]
    # The region is cut about the first box, (116, 106) with a side of 128 px, on the surroundings' grid of 2 px.
    x1, y1, x2, y2 = rollout.chosen_xyxy[0, 0].double()
    found_xywh = torch.stack([116 + (x1 - 0.5) * 128, 106 + (y1 - 0.5) * 128, (x2 - x1) * 128, (y2 - y1) * 128])
    assert iou_xywh(found_xywh, truth_xywh) > 0.9
