"""A presence head learns which boxes are right, alone on a frozen network, and is calibrated."""

import copy

import pytest
import torch
from torch import nn

from relo.errors import UserError
from relo.learning.presence import PresenceObjective, fit_calibration
from relo.learning.priors import GaussianPrior
from relo.learning.warmup import WarmupObjective
from relo.models.network import LocalizationMaps
from relo.models.presence import ConvPresence, PresenceHead, best_peaks
from relo.training.module import RELOModule
from small_networks import make_clip, make_network


def network_with_presence(localization="policy"):
    network = make_network()
    network.presence = ConvPresence(16, (16, 8), localization)
    return network


def half_hidden(batch=8):
    """Clips on which whether the target is there can be seen: where it is not, the search image is dark."""
    clip = make_clip(batch=batch)
    clip.present[::2] = False
    clip.search_images[~clip.present] -= 3.0
    return clip


@pytest.mark.parametrize("localization", ["policy", "prior"])
def test_it_learns_alone_whether_boxes_are_right(localization):
    network, clip, generator = network_with_presence(localization), half_hidden(), torch.Generator()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)  # boxes that are right where there is a target
    for _ in range(40):
        optimizer.zero_grad()
        WarmupObjective(prior=GaussianPrior())(network, clip, generator).loss.backward()
        optimizer.step()
    network.policy.load_state_dict(network.prior.state_dict())
    before = copy.deepcopy(network.state_dict())
    module = RELOModule(network, PresenceObjective(), optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2))
    module.train()
    optimizer, logs = module.configure_optimizers(), []
    for _ in range(40):
        optimizer.zero_grad()
        result = module.objective(network, clip, generator)
        result.loss.backward()
        optimizer.step()
        logs.append({name: value.item() for name, value in result.logs.items()})
    assert 0.2 < logs[-1]["right"] <= 0.5
    assert logs[-1]["loss"] < 0.3 * logs[0]["loss"]
    assert logs[-1]["accuracy"] > 0.9
    changed = {name.partition(".")[0] for name, t in network.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"presence"}


@pytest.mark.parametrize(
    "objective", [PresenceObjective(), WarmupObjective(prior=GaussianPrior(), presence_weight=0.5)]
)
def test_one_frame_at_a_time_is_refused(objective):
    network, clip = network_with_presence("prior").train(), make_clip(batch=1)
    with pytest.raises(UserError, match=r"at least two frames at a time, and gets one: raise data\.batch_size"):
        objective(network, clip, torch.Generator())
    network.eval()
    objective(network, clip, torch.Generator())


def test_the_warm_up_trains_presence_with_all_else():
    network, clip, generator = network_with_presence("prior"), half_hidden(), torch.Generator()
    alone = WarmupObjective(prior=GaussianPrior())
    together = WarmupObjective(prior=GaussianPrior(), presence_weight=0.5)
    assert set(together.trained_parts) - set(alone.trained_parts) == {"presence"}
    network.eval()
    result = together(network, clip, generator)
    by_itself = PresenceObjective()(network, clip, generator)
    assert result.logs["presence_loss"].item() == pytest.approx(by_itself.loss.item(), rel=1e-5)
    expected = alone(network, clip, generator).loss + 0.5 * by_itself.loss
    assert result.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    clip.present[:] = False  # what is left teaches presence, the features that it reads, and nothing of boxes and map
    together(network, clip, generator).loss.backward()
    moved = {name: any(p.grad is not None and p.grad.any() for p in part.parameters())
             for name, part in network.named_children()}  # fmt: skip
    assert moved["encoder"]
    assert moved["presence"]
    assert not moved["box"]
    assert not moved["prior"]


class Marks(PresenceHead):
    """Its log-odds are the first channel of the map."""

    def cell_logits(self, features, scores, boxes_cxcywh):
        return features[:, 0]


class Made(nn.Module):
    """A network whose maps are given."""

    def __init__(self, maps, log_odds):
        super().__init__()
        self.maps, self.features, self.presence = maps, log_odds[:, None], Marks()

    def encode_templates(self, images, boxes_xywh):
        return None

    def encode(self, images, templates, memory):
        return self.features, None

    def localize(self, features, heads):
        assert heads == (self.presence.localization, "box")
        return self.maps


def test_labels_are_those_of_the_chosen_boxes():
    """Three targets: a right best box and a wrong second, the reverse, and a hidden one under a right box."""
    truth, aside = torch.tensor([0.5, 0.5, 0.2, 0.2]), torch.tensor([0.8, 0.5, 0.2, 0.2])
    logits, boxes = torch.zeros(3, 8, 8), torch.full((3, 8, 8, 4), 0.05)
    for number, (best, second) in enumerate([(truth, aside), (aside, truth), (truth, aside)]):
        logits[number, 1, 1], boxes[number, 1, 1] = 5.0, best
        logits[number, 5, 6], boxes[number, 5, 6] = 4.0, second
    presence = torch.full((3, 8, 8), 0.5)
    presence[:, 1, 1], presence[:, 5, 6] = 0.9, 0.2
    clip = make_clip(batch=3, frames=1)
    clip.search_boxes_xywh[:] = torch.tensor([0.4, 0.4, 0.2, 0.2])
    clip.present[2] = False
    network = Made(LocalizationMaps(logits, boxes), presence.logit())
    result = PresenceObjective(peaks=2)(network, clip, torch.Generator())
    said, right = torch.tensor([0.9, 0.2] * 3), torch.tensor([1, 0, 0, 1, 0, 0])
    wanted = -torch.where(right == 1, said, 1 - said).log().mean()
    assert result.loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert result.logs["right"].item() == pytest.approx(1 / 3)
    assert result.logs["accuracy"].item() == pytest.approx(1 / 3)
    best_only = PresenceObjective(peaks=1)(network, clip, torch.Generator())
    assert best_only.loss.item() == pytest.approx(-torch.tensor([0.9, 0.1, 0.1]).log().mean().item(), abs=1e-5)


def test_what_cannot_learn_is_refused():
    with pytest.raises(UserError, match="set its localization to prior"):
        RELOModule(network_with_presence(), WarmupObjective(prior=GaussianPrior(), presence_weight=1.0))
    with pytest.raises(UserError, match="presence_weight needs a prior"):
        WarmupObjective(presence_weight=1.0)
    for objective in (PresenceObjective(), WarmupObjective(prior=GaussianPrior(), presence_weight=1.0)):
        with pytest.raises(UserError, match=r"needs a presence head: .*relo\.models\.presence\.ConvPresence"):
            RELOModule(make_network(), objective)
    with pytest.raises(UserError, match="PresenceObjective has peaks = 0"):
        PresenceObjective(peaks=0)


def test_peaks_are_local_maxima():
    scores = torch.zeros(2, 6, 6)
    scores[0, 1, 1], scores[0, 1, 2], scores[0, 4, 5] = 3.0, 2.9, 1.0
    scores[1] = torch.arange(36.0).view(6, 6)  # one peak: the least score stands for the second
    values, cells = best_peaks(scores, 2)
    assert values.tolist() == [[3.0, 1.0], [35.0, 0.0]]
    assert cells[0].tolist() == [7, 29]
    assert cells[1, 0] == 35


def test_calibration_recovers_what_the_outcomes_were_drawn_with():
    generator = torch.Generator().manual_seed(0)
    log_odds = 3 * torch.randn(20_000, generator=generator)
    is_right = torch.rand(20_000, generator=generator) < (log_odds / 2.5 - 0.7).sigmoid()
    temperature, bias = fit_calibration(log_odds, is_right)
    assert temperature == pytest.approx(2.5, rel=0.05)
    assert bias == pytest.approx(-0.7, abs=0.07)


def test_calibration_of_log_odds_without_an_error_is_finite():
    temperature, bias = fit_calibration(torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([False, False, True, True]))
    assert 0.1 < temperature < 10
    assert bias == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("is_right", "message"),
    [([True] * 4, "4 right and 0 wrong"), ([False] * 4, "0 right and 4 wrong"), ([True, True, False, False], "longer")],
)
def test_calibration_without_anything_to_go_by_is_refused(is_right, message):
    with pytest.raises(UserError, match=message):
        fit_calibration(torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor(is_right))


def test_calibrations_follow_one_another():
    head = Marks()
    features = torch.linspace(-3, 3, 16).view(1, 1, 4, 4)
    head.calibrate(2.0, 0.5)
    head.calibrate(0.5, -1.0)
    torch.testing.assert_close(head(features, features[:, 0], None), (features[:, 0] / 2 + 0.5) / 0.5 - 1)
    assert set(head.state_dict()) == {"temperature", "bias"}
