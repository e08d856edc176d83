"""Presence learned on clips that are tracked: regions lie around chosen boxes, and what was lost is told apart."""

from dataclasses import replace

import pytest
import torch
from test_closed_loop import Seer, moving_clip

from relo.errors import UserError
from relo.learning.closed_loop import follow_clips
from relo.learning.presence import PresenceObjective, TrackedPresence
from relo.models.heads import at_cells
from relo.models.presence import ConvPresence, PresenceHead
from relo.tracking.rule import TrackingRule
from relo.training.module import RELOModule
from small_networks import make_clip, make_network


class Doubt(PresenceHead):
    """Gives every cell the same log-odds, which are trained."""

    def __init__(self):
        super().__init__("policy")
        self.odds = torch.nn.Parameter(torch.zeros(()))

    def cell_logits(self, features, scores, boxes_cxcywh):
        return self.odds.expand_as(scores)


def seer(offset=0.0):
    """A network that boxes the white target, or beside it."""
    network = Seer(offset)
    network.presence = Doubt()
    network.encoder.map_size = 4
    return network


def tracked(network, clip, **settings):
    objective = TrackedPresence(updates=1, jitter=0.0, **settings)
    return objective.track(network, clip, torch.Generator().manual_seed(0))


def test_regions_follow_the_boxes_that_were_chosen():
    clip = moving_clip(batch=2, frames=5)
    frames = tracked(seer(), clip)
    assert frames.truth_xyxy.shape == (10, 4)
    # A box that is right on every frame keeps the target near the middle, behind by one step of 6 px in 128.
    centers = (frames.truth_xyxy[:, :2] + frames.truth_xyxy[:, 2:]) / 2
    assert (centers - torch.tensor([0.5 + 6 / 128, 0.5])).abs().max() < 0.03
    drifting = tracked(seer(offset=0.2), clip)  # to the right of the target, and so is the next region
    centers = ((drifting.truth_xyxy[:, :2] + drifting.truth_xyxy[:, 2:]) / 2).view(5, 2, 2)
    assert (centers[1:, :, 0] - (0.3 + 6 / 128)).abs().max() < 0.03


def test_boxes_beside_the_target_are_wrong_and_right_ones_right():
    clip = moving_clip(batch=2, frames=4)
    objective = TrackedPresence(updates=1, jitter=0.0, peaks=1)
    assert objective(seer(), clip, torch.Generator()).logs["right"] == 1
    assert objective(seer(offset=0.25), clip, torch.Generator()).logs["right"] == 0
    clip.present[:, 2:] = False
    assert objective(seer(), clip, torch.Generator()).logs["right"] == 0.5


def test_frames_that_show_less_than_the_image_does_not_count():
    clip = moving_clip(batch=2, frames=3)
    assert tracked(seer(), clip).counts.all()
    # The second region reaches 157 px to the right of the first box's corner, the surroundings 150, the image 220.
    lost = tracked(seer(offset=0.6), clip)
    assert lost.counts.view(3, 2)[:2].tolist() == [[True] * 2, [False] * 2]
    objective = TrackedPresence(updates=1, jitter=0.0, peaks=1)
    assert objective(seer(offset=0.6), clip, torch.Generator()).logs["right"] == 0
    # What is black there is black for a tracker, too.
    clip.surroundings.image_sizes = torch.tensor([[250, 240]]).expand(2, 3, 2)
    assert tracked(seer(offset=0.6), clip).counts[:4].all()
    network = seer()
    network.localize = lambda features, heads: replace(
        Seer.localize(network, features, heads), boxes_cxcywh=torch.full((2, 4, 4, 4), torch.nan)
    )
    assert tracked(network, clip).boxes_cxcywh.isnan().all()  # to be seen in the loss


def test_the_loss_is_that_of_the_same_frames_untracked(monkeypatch):
    monkeypatch.setattr("relo.learning.closed_loop._holds", lambda around, t, region: region[:, 0] > -torch.inf)
    network, clip = make_network().eval(), moving_clip(batch=2, frames=3)
    network.presence = ConvPresence(16, (16, 8), "prior").eval()
    rule, seen = TrackingRule(localization="prior"), []
    window = rule.window_map(network.encoder.map_size)

    def choose(frame):
        seen.append(frame)
        return at_cells(frame.cells_xywh, (frame.maps.prior_scores * window).flatten(1).argmax(1))

    with torch.no_grad():
        list(follow_clips(network, clip, ("prior", "box"), rule, clip.surroundings.first_box_xywh, choose))
    untracked = replace(
        clip,
        search_images=torch.stack([frame.search_images for frame in seen], dim=1),
        search_boxes_xywh=torch.stack([frame.truth_in_crop_xywh for frame in seen], dim=1),
    )
    expected = PresenceObjective()(network, untracked, torch.Generator())
    result = TrackedPresence(jitter=0.0, rule=rule)(network, clip, torch.Generator())
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert result.logs["right"] == expected.logs["right"]


def test_every_frame_is_used_once_in_the_updates_of_a_batch():
    clip, network = moving_clip(batch=3, frames=4), seer()
    clip.present[0] = False  # 4 of 12 frames
    objective = TrackedPresence(updates=5, jitter=0.0, peaks=1)
    results = list(objective.losses(network, clip, torch.Generator().manual_seed(0)))
    assert len(results) == objective.updates == 5
    counts = [3, 3, 2, 2, 2]
    assert sum(n * r.logs["right"].item() for n, r in zip(counts, results, strict=True)) == pytest.approx(8)
    again = list(objective.losses(network, clip, torch.Generator().manual_seed(0)))
    assert [r.loss.item() for r in again] == [r.loss.item() for r in results]


def test_it_trains_the_presence_head_alone():
    network = make_network()
    network.presence = ConvPresence(16, (16, 8), "prior")
    module = RELOModule(network, TrackedPresence(updates=2), optimizer=torch.optim.AdamW)
    module.train()
    for result in module.objective.losses(network, moving_clip(batch=2, frames=4), torch.Generator()):
        result.loss.backward()
    moved = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert moved
    assert all(name.startswith("presence.") for name in moved)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="TrackedPresence has updates = 0"):
        TrackedPresence(updates=0)
    with pytest.raises(UserError, match="TrackedPresence has peaks = 0"):
        TrackedPresence(peaks=0)
    with pytest.raises(UserError, match=r"data\.surroundings"):
        TrackedPresence()(seer(), make_clip(), torch.Generator())
    with pytest.raises(UserError, match="The 8 frames per batch cannot be split into 9 updates"):
        list(TrackedPresence(updates=9).losses(seer(), moving_clip(batch=2, frames=4), torch.Generator()))
