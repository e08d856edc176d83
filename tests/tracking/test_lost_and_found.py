"""What becomes of a target by presence: it is tracked, in doubt, lost, searched for and taken back."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tracker import SIDE, BrightestPolicy, ExtentBox, Pixels, seeing_network, square_at

from relo.errors import UserError
from relo.evaluation.one_pass import run_one_pass
from relo.geometry import CropRule, iou_xywh
from relo.models.heads import ConvPrior
from relo.models.network import LocalizationNetwork
from relo.models.presence import ConvPresence, PresenceHead
from relo.models.temporal import NoPropagation
from relo.tracking.lost_and_found import apply_presence, lost_region
from relo.tracking.rule import TrackingRule
from relo.tracking.state import TargetState
from relo.tracking.tracker import Tracker
from small_networks import make_network

IMAGE = (320, 240)
RULE = TrackingRule(lost_after=3, sure_presence=0.5, found_presence=0.7, search_growth=1.5)
USUAL = CropRule(RULE.search_factor, 128)
boxes = st.builds(
    lambda x, y, w, h: torch.tensor([x, y, w, h], dtype=torch.float64),
    *(st.floats(0, 250), st.floats(0, 180), st.floats(10, 70), st.floats(10, 60)),
)


def state_with(box_xywh, **changes):
    state = TargetState(None, None, None, None, box_xywh, 1.0, 0, image_size=IMAGE)
    return replace(state, **changes)


def run(rule, first, frames):
    """The states over frames, each of which gives a found box and its presence."""
    states = [first]
    for found_xywh, presence in frames:
        states.append(
            apply_presence(rule, states[-1], replace(states[-1], box_xywh=found_xywh, frame_presence=presence))
        )
    return states


@given(first=boxes, frames=st.lists(st.tuples(boxes, st.floats(0, 1)), max_size=30), lost_after=st.integers(1, 5))
def test_no_box_changes_its_size_but_on_a_frame_that_is_sure_of_it(first, frames, lost_after):
    rule = replace(RULE, lost_after=lost_after)
    states = run(rule, state_with(first), frames)
    for before, after, (found_xywh, presence) in zip(states, states[1:], frames, strict=False):
        if after.status == "tracking":
            assert presence >= rule.sure_presence
            assert before.status != "lost"
            assert torch.equal(after.box_xywh, found_xywh)
            assert after.unsure_frames == 0
        else:
            assert torch.equal(after.box_xywh[2:], before.box_xywh[2:])
            assert after.unsure_frames == before.unsure_frames + 1
            corner, size = after.box_xywh.split(2)
            if after.status == "uncertain" and (size <= torch.tensor(IMAGE)).all():
                assert (corner >= 0).all() and (corner + size <= torch.tensor(IMAGE) + 1e-9).all()  # noqa: PT018
        if after.status == "lost":
            assert after.unsure_frames >= lost_after
            assert torch.equal(after.box_xywh, after.sure_xywh)
            assert presence < (rule.found_presence if before.status == "lost" else rule.sure_presence)
        if before.status == "lost":
            assert after.status == ("uncertain" if presence >= rule.found_presence else "lost")


def test_a_loss_and_what_follows_by_hand():
    first, found = (torch.tensor(values, dtype=torch.float64) for values in ([50, 50, 20, 20], [100, 80, 40, 40]))
    presences = [0.9, 0.1, 0.4, 0.1, 0.6, 0.9, 0.2, 0.8, 0.6]
    states = run(RULE, state_with(first), [(found + i, p) for i, p in enumerate(presences)])
    assert [state.status for state in states[1:]] == [
        *("tracking", "uncertain", "uncertain", "lost", "lost"),
        *("uncertain", "lost", "uncertain", "tracking"),  # taken back, but not for sure; then for good
    ]
    assert [state.unsure_frames for state in states[1:]] == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    sure = found.tolist()
    centre = (found[:2] + found[2:] / 2).tolist()
    assert states[4].box_xywh.tolist() == states[5].box_xywh.tolist() == states[7].box_xywh.tolist() == sure
    moved_xywh = states[2].box_xywh
    assert (moved_xywh[:2] + moved_xywh[2:] / 2).tolist() == [
        pytest.approx(value + 1 + 0.5, abs=1e-9) for value in centre
    ]
    assert states[9].box_xywh.tolist() == (found + 8).tolist()


searches = st.sampled_from([None, 1.0, 1.5, 2.5])


@settings(max_examples=50)
@given(box_xywh=boxes, window=searches, growth=st.floats(1.01, 5))
def test_the_searched_area_grows_to_the_whole_image_and_starts_small_again(box_xywh, window, growth):
    rule = replace(RULE, search_window=window, search_growth=growth)
    usual = USUAL.region(box_xywh)
    largest = max(usual[2], *IMAGE)
    regions = [
        lost_region(rule, state_with(box_xywh, status="lost", unsure_frames=3 + turn), usual)
        for turn in (*range(40), 10_000)
    ]
    sides = torch.stack(regions)[:, 2]
    assert (sides.diff() >= 0).all()
    assert sides[0] == pytest.approx(min(float(usual[2]) * min(growth, window or growth), largest), abs=1)
    assert sides[-1] == pytest.approx(largest if window is None else min(largest, float(usual[2]) * window), abs=1)
    # Whole pixels, in the image wherever they fit.
    corners = torch.stack(regions)[:, :2] - sides[:, None] / 2
    assert torch.equal(corners, corners.round())
    fits = sides[:, None] <= torch.tensor(IMAGE)
    over = torch.where(fits, torch.maximum(-corners, corners + sides[:, None] - torch.tensor(IMAGE)), 0)
    assert over.max() <= 0.5  # a centre between two pixels
    # A new loss starts anew: the region knows nothing but the state.
    again = lost_region(rule, state_with(box_xywh, status="lost", unsure_frames=3), usual)
    assert torch.equal(again, regions[0])


@settings(max_examples=30)
@given(box_xywh=boxes, window=searches, target=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_target_of_the_same_size_is_wholly_in_some_window_wherever_it_is(box_xywh, window, target):
    rule = replace(RULE, search_window=window)
    usual = USUAL.region(box_xywh)
    size = float(box_xywh[2:].prod().sqrt())
    corner = np.array(target) * (np.array(IMAGE) - size)
    for turn in range(40, 700):
        x, y, side = lost_region(rule, state_with(box_xywh, status="lost", unsure_frames=3 + turn), usual).tolist()
        low, high = np.array([x, y]) - side / 2, np.array([x, y]) + side / 2
        if (low <= corner + 1).all() and (corner + size <= high + 1).all():
            return
    pytest.fail("never seen")


class SeesBright(PresenceHead):
    """Sure of what it sees where anything is bright."""

    def cell_logits(self, features, scores, boxes_cxcywh):
        is_bright = features.amax((1, 2, 3)) > 0.5
        return torch.where(is_bright, 4.0, -4.0)[:, None, None].expand(-1, SIDE, SIDE)


def seeing(rule):
    network = LocalizationNetwork(Pixels(), NoPropagation(1, 1), BrightestPolicy(), ExtentBox(), presence=SeesBright())
    return Tracker(network, rule)


def gone_and_back(frames=30, place=(270, 190)):
    """A square that moves, is away for a while, and comes back in another corner."""
    size = {"width": 320, "height": 240}
    away = [np.zeros((240, 320, 3), np.uint8)] * frames
    return [square_at(40 + t, 40, **size) for t in range(5)] + away + [square_at(*place, **size)] * 24


@pytest.mark.parametrize("window", [None, 1.5])
def test_a_target_that_comes_back_elsewhere_is_found(window):
    images = gone_and_back()
    tracker = seeing(replace(RULE, search_window=window))
    states = tracker.initialize(images[:1], [[40, 40, 24, 24]])
    trace = []
    for image in images[1:]:
        states = tracker.step([image], states)
        trace.append(states[0])
    away = trace[4:34]
    assert [state.status for state in away] == ["uncertain"] * 2 + ["lost"] * 28
    assert all(torch.equal(state.box_xywh[2:], trace[3].box_xywh[2:]) for state in away)
    assert all(torch.equal(state.box_xywh, trace[3].box_xywh) for state in away[2:])
    assert trace[-1].status == "tracking"
    np.testing.assert_allclose(trace[-1].box_xywh, [270, 190, 24, 24], atol=4)
    assert all(0 <= state.presence <= 1 for state in trace)
    # The plain rule goes on looking where the target was.
    plain = seeing(TrackingRule())
    states = plain.initialize(images[:1], [[40, 40, 24, 24]])
    for image in images[1:]:
        states = plain.step([image], states)
    assert states[0].status == "tracking"
    assert iou_xywh(states[0].box_xywh, trace[-1].box_xywh) < 0.5


def test_lost_and_tracked_targets_share_a_batch():
    tracker = seeing(RULE)
    images, other = gone_and_back(), [square_at(100 + t, 80, width=320, height=240) for t in range(40)]
    alone = {}
    for name, video, box in (("lost", images, [40, 40, 24, 24]), ("seen", other, [100, 80, 24, 24])):
        states = tracker.initialize(video[:1], [box])
        alone[name] = [states := tracker.step([image], states) for image in video[1:40]]
    states = tracker.initialize([images[0], other[0]], [[40, 40, 24, 24], [100, 80, 24, 24]])
    for t in range(1, 40):
        states = tracker.step([images[t], other[t]], states)
        for state, name in zip(states, ("lost", "seen"), strict=True):
            (expected,) = alone[name][t - 1]
            torch.testing.assert_close(state.box_xywh, expected.box_xywh)
            assert state.status == expected.status


class Scripted(PresenceHead):
    """Says what it is told."""

    said = 1.0

    def cell_logits(self, features, scores, boxes_cxcywh):
        return torch.full_like(scores, self.said).logit()


def noise(seed):
    return np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)


@pytest.mark.parametrize("stays", [None, 0.97])
def test_nothing_is_learned_from_frames_in_doubt(stays):
    network = make_network()
    network.presence = Scripted()
    rule = replace(RULE, templates=2, template_update_interval=1, template_update_threshold=-1e9, presence_stays=stays)
    tracker = Tracker(network, rule)
    states = tracker.initialize([noise(0)], [[60, 40, 30, 30]])
    for t, presence in enumerate([0.9, 0.3, 0.2, 0.1, 0.2, 0.9, 0.9]):
        network.presence.said = presence
        (before,), states = states, tracker.step([noise(t + 1)], states)
        (after,) = states
        assert after.frame_presence == pytest.approx(presence, abs=1e-5)
        assert (after.presence == after.frame_presence) == (stays is None)
        is_sure = after.status == "tracking"
        assert is_sure == (t in (0, 6))
        assert (after.memory is before.memory) != is_sure
        assert (after.templates is before.templates) != is_sure
        assert torch.equal(after.box_xywh[2:], before.box_xywh[2:]) != is_sure


@pytest.mark.parametrize("stays", [None, 0.97])
@pytest.mark.parametrize(("least", "updates"), [(None, [1, 2, 3]), (0.5, [1, 3]), (0.85, [3])])
def test_templates_are_updated_by_presence(least, updates, stays):
    network = make_network()
    network.presence = Scripted()
    settings = {"templates": 2, "template_update_interval": 1, "template_update_threshold": -1e9}
    tracker = Tracker(network, TrackingRule(**settings, template_update_presence=least, presence_stays=stays))
    states = tracker.initialize([noise(0)], [[60, 40, 30, 30]])
    updated = []
    for t, presence in enumerate([0.8, 0.4, 0.9], start=1):
        network.presence.said = presence
        (before,), states = states, tracker.step([noise(t)], states)
        if states[0].templates is not before.templates:
            updated.append(t)
    assert updated == updates


def test_off_it_changes_nothing():
    """To the bit: with a presence head and without, and with thresholds that nothing reads."""
    plain, network = make_network(), make_network()
    network.presence = ConvPresence(16, (16, 8))
    rules = (TrackingRule(), TrackingRule(sure_presence=1.0, found_presence=1.0, search_growth=2.0, search_window=1.0))
    trackers = [Tracker(plain), *(Tracker(network, rule) for rule in rules)]
    traces = []
    for tracker in trackers:
        states = tracker.initialize([noise(0)], [[60, 40, 30, 30]])
        trace = []
        for t in range(1, 8):
            states = tracker.step([noise(t)], states)
            trace.append(states[0])
        traces.append(trace)
    for expected, *others in zip(*traces, strict=True):
        for state in others:
            assert torch.equal(state.box_xywh, expected.box_xywh)
            assert torch.equal(state.memory, expected.memory)
            assert state.score == expected.score
            assert state.status == "tracking"
            assert 0 <= state.presence <= 1
        assert expected.presence is None


@pytest.mark.parametrize("setting", [{"lost_after": 3}, {"template_update_presence": 0.5}])
def test_a_network_that_cannot_say_is_refused(setting):
    name = next(iter(setting))
    with pytest.raises(UserError, match=rf"sets {name} .*no presence head: leave {name} out"):
        Tracker(seeing_network(), TrackingRule(**setting))
    network = make_network()
    network.prior, network.presence = ConvPrior(16, (8, 8)), ConvPresence(16, (16, 8), "policy")
    with pytest.raises(UserError, match=r"'prior'.*a presence head for localization 'policy'"):
        Tracker(network, TrackingRule(localization="prior", **setting))
    assert Tracker(network, TrackingRule(localization="policy", **setting)).tells_presence
    states = Tracker(network, TrackingRule(localization="prior")).initialize([noise(0)], [[60, 40, 30, 30]])
    assert Tracker(network, TrackingRule(localization="prior")).step([noise(1)], states)[0].presence is None


@pytest.mark.parametrize("localization", ["policy", "prior"])
def test_presence_is_that_of_the_cell_that_the_rule_chooses(localization):
    class Ramp(PresenceHead):
        def cell_logits(self, features, scores, boxes_cxcywh):
            return (torch.arange(64.0).view(1, 8, 8) / 64).expand_as(scores)

    network = make_network()
    network.presence = Ramp(localization)
    tracker = Tracker(network, TrackingRule(localization=localization))
    states = tracker.initialize([noise(0)], [[60, 40, 30, 30]])
    state = tracker.step([noise(1)], states, keep_response=True)[0]
    expected = (state.response.argmax() / 64).sigmoid()
    assert state.presence == pytest.approx(expected.item(), abs=1e-6)


def test_results_have_the_presence_of_every_frame(data, tmp_path):
    from relo.data.clip_store import ClipStore

    network = make_network()
    network.presence = Scripted()
    network.presence.said = 0.25
    store = ClipStore(data.test)
    rule = TrackingRule(lost_after=2)
    results = run_one_pass(Tracker(network, rule), store, folder=tmp_path)
    for result in results:
        np.testing.assert_allclose(result.presence, [1.0] + [0.25] * 11, atol=1e-5)
        assert (result.boxes_xywh[1:, 2:] == result.boxes_xywh[0, 2:]).all()
        assert (result.boxes_xywh[2:] == result.boxes_xywh[0]).all()
    assert len(list(tmp_path.glob("*_presence.txt"))) == len(store)


def test_result_folders_of_rules_with_fewer_settings_go_on(data, tmp_path):
    from relo.data.clip_store import ClipStore

    store, tracker = ClipStore(data.test), Tracker(make_network())
    run_one_pass(tracker, store, folder=tmp_path)
    contents = json.loads((tmp_path / "run.json").read_text())
    for name in ("lost_after", "sure_presence", "search_window"):
        del contents["rule"][name]
    (tmp_path / "run.json").write_text(json.dumps(contents))
    run_one_pass(tracker, store, folder=tmp_path)
    contents["rule"]["lost_after"] = 5
    (tmp_path / "run.json").write_text(json.dumps(contents))
    with pytest.raises(UserError, match="other rule"):
        run_one_pass(tracker, store, folder=tmp_path)
    assert asdict(TrackingRule())["lost_after"] is None
