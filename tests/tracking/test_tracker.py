from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from relo.errors import UserError
from relo.models.checkpoints.weights import save_network
from relo.models.encoders.base import Encoder, Templates
from relo.models.heads import BoxHead, PolicyHead, PriorHead
from relo.models.network import LocalizationNetwork
from relo.models.temporal import NoPropagation
from relo.tracking.rule import TrackingRule
from relo.tracking.state import TargetState
from relo.tracking.tracker import Tracker

SIDE = 64


class Pixels(Encoder):
    """Its map is the search image itself, a cell a pixel."""

    width, depth, channels, map_size, search_size, template_size = 1, 0, 3, SIDE, SIDE, 32

    def encode_templates(self, images, boxes_xywh):
        return Templates(images.flatten(2).mean(-1, keepdim=True))

    def embed_search(self, images, templates):
        return images.flatten(2)[:, :1].mean(2, keepdim=True), images

    def run_layer(self, index, tokens):
        raise AssertionError("no layers")

    def to_map(self, search_tokens, bypass):
        return bypass


class BrightestPolicy(PolicyHead):
    def forward(self, features):
        return features.mean(1)


class ExtentBox(BoxHead):
    """Every cell gives the extent of the bright pixels."""

    def forward(self, features):
        bright = features.mean(1) > 0
        cells = torch.arange(SIDE)
        sides = []
        for axis in (1, 2):
            hit = bright.any(axis)
            low = torch.where(hit, cells, SIDE).amin(1)
            high = torch.where(hit, cells + 1, 0).amax(1).clamp(min=1)
            sides.append(torch.stack([low, torch.maximum(high, low + 1)], 1) / SIDE)
        (x1, x2), (y1, y2) = sides[0].unbind(1), sides[1].unbind(1)
        box = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
        return box[:, None, None].expand(-1, SIDE, SIDE, -1)


class Fixed(nn.Module):
    """Gives the same map for every target."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, features):
        return self.value.expand(len(features), *self.value.shape)


class FixedPolicy(Fixed, PolicyHead): ...


class FixedPrior(Fixed, PriorHead):
    def forward(self, features):
        return super().forward(features), None


class CellBox(BoxHead):
    """The box of a cell is centred on it, a quarter of the search side wide."""

    def forward(self, features):
        centers = (torch.arange(SIDE) + 0.5) / SIDE
        rows, columns = torch.meshgrid(centers, centers, indexing="ij")
        box = torch.stack([columns, rows, torch.full_like(rows, 0.25), torch.full_like(rows, 0.25)], -1)
        return box.expand(len(features), -1, -1, -1)


def seeing_network():
    return LocalizationNetwork(Pixels(), NoPropagation(1, 1), BrightestPolicy(), ExtentBox())


def map_network(logits, scores=None):
    prior = None if scores is None else FixedPrior(scores)
    return LocalizationNetwork(Pixels(), NoPropagation(1, 1), FixedPolicy(logits), CellBox(), prior=prior)


def noise(seed, height=120, width=160):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def square_at(x, y, side=24, height=120, width=160):
    image = np.zeros((height, width, 3), np.uint8)
    image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = 255
    return image


def tensors_of(state: TargetState):
    return [state.templates.tokens, state.template_crops, state.template_boxes_xywh, state.box_xywh] + (
        [] if state.memory is None else [state.memory]
    )


def tracked(tracker, images, box_xywh):
    states = tracker.initialize(images[:1], [box_xywh])
    boxes = [states[0].box_xywh]
    for image in images[1:]:
        states = tracker.step([image], states)
        boxes.append(states[0].box_xywh)
    return torch.stack(boxes)


@pytest.mark.parametrize("released", [False, True])
def test_follows_a_moving_target(released):
    path = [(60 + round(40 * np.sin(t / 6)), 48 + t % 30) for t in range(40)]
    boxes_xywh = tracked(
        Tracker(seeing_network(), TrackingRule(released=released)), [square_at(*p) for p in path], [60, 48, 24, 24]
    )
    truth = torch.tensor([[*p, 24, 24] for p in path], dtype=torch.float64)
    assert (boxes_xywh - truth).abs().max() < 2


def test_target_half_outside_keeps_its_box_inside():
    path = [(20 - 2 * t, 40) for t in range(16)]  # ends with 14 of 24 columns in view
    boxes_xywh = tracked(Tracker(seeing_network()), [square_at(*p) for p in path], [20, 40, 24, 24])
    x, y, w, h = boxes_xywh[-1].tolist()
    assert x == pytest.approx(0, abs=1)
    assert w == pytest.approx(14, abs=2)
    assert (y, h) == (pytest.approx(40, abs=2), pytest.approx(24, abs=2))


def test_start_half_outside_the_image():
    boxes_xywh = tracked(Tracker(seeing_network()), [square_at(-12, 40)] * 3, [-12, 40, 24, 24])
    assert boxes_xywh[0].tolist() == [-12, 40, 24, 24]
    x, _, w, _ = boxes_xywh[-1].tolist()
    assert x == pytest.approx(0, abs=1)
    assert w == pytest.approx(12, abs=2)


def test_image_size_may_change_on_the_way():
    images = [square_at(60, 50), square_at(62, 50, height=90, width=100), square_at(64, 50, height=300, width=400)]
    boxes_xywh = tracked(Tracker(seeing_network()), images, [60, 50, 24, 24])
    np.testing.assert_allclose(boxes_xywh[:, 0], [60, 62, 64], atol=2)


def test_target_of_one_pixel():
    image = np.zeros((120, 160, 3), np.uint8)
    image[50, 80] = 255
    tracker = Tracker(seeing_network(), TrackingRule(margin_px=1))
    boxes_xywh = tracked(tracker, [image] * 4, [80, 50, 1, 1])
    assert (boxes_xywh[-1] - torch.tensor([80, 50, 1, 1])).abs().max() < 1


def test_boxes_keep_the_margin():
    image = np.zeros((120, 160, 3), np.uint8)
    image[50, 159] = 255
    x, _, w, h = tracked(Tracker(seeing_network()), [image] * 2, [155, 46, 8, 8])[-1].tolist()
    assert (w, h) == (10, 10)
    assert x == 150


def test_image_smaller_than_the_margin():
    boxes_xywh = tracked(Tracker(seeing_network()), [square_at(1, 1, 3, 6, 7)] * 3, [1, 1, 3, 3])
    assert torch.isfinite(boxes_xywh).all()
    assert (boxes_xywh[-1, 2:] <= torch.tensor([7, 6])).all()


def test_very_large_frame():
    image = square_at(3000, 2000, 400, 3000, 4000)
    box_xywh = tracked(Tracker(seeing_network()), [image] * 2, [2950, 1960, 400, 400])[-1]
    np.testing.assert_allclose(box_xywh, [3000, 2000, 400, 400], atol=30)  # a cell is 25 px here


def test_a_batch_gives_each_target_its_own_boxes(network):
    tracker = Tracker(network)
    videos = [[noise(10 * target + t) for t in range(8)] for target in range(5)]
    boxes_xywh = [[40 + 5 * i, 30, 30 + 2 * i, 40] for i in range(5)]
    alone = torch.stack([tracked(tracker, video, box) for video, box in zip(videos, boxes_xywh, strict=True)])
    states = tracker.initialize([video[0] for video in videos], boxes_xywh)
    for t in range(1, 8):
        states = tracker.step([video[t] for video in videos], states)
        together = torch.stack([state.box_xywh for state in states])
        torch.testing.assert_close(together, alone[:, t], rtol=0, atol=1e-3)


def test_new_and_old_targets_share_a_batch(network):
    tracker = Tracker(network)
    old = tracker.step([noise(1)], tracker.initialize([noise(0)], [[40, 30, 30, 40]]))
    new = tracker.initialize([noise(2)], [[70, 50, 20, 20]])
    mixed = tracker.step([noise(3), noise(3), noise(3)], [new[0], old[0], new[0]])
    expected = tracker.step([noise(3)], new) + tracker.step([noise(3)], old) + tracker.step([noise(3)], new)
    for state, other in zip(mixed, expected, strict=True):
        torch.testing.assert_close(state.box_xywh, other.box_xywh, rtol=0, atol=1e-3)
        torch.testing.assert_close(state.memory, other.memory)
        assert state.frame_index == other.frame_index


def test_nothing_of_one_target_reaches_the_next(network):
    tracker = Tracker(network)
    video = [noise(20 + t) for t in range(5)]
    before = tracked(tracker, video, [50, 40, 30, 30])
    tracked(tracker, [noise(90 + t) for t in range(5)], [10, 10, 60, 60])
    assert torch.equal(tracked(tracker, video, [50, 40, 30, 30]), before)


def test_step_leaves_states_as_they_are(network):
    tracker = Tracker(network, TrackingRule(templates=2, template_update_interval=1, template_update_threshold=-1e9))
    states = tracker.step([noise(1)], tracker.initialize([noise(0)], [[40, 30, 30, 40]]))
    copies = [tensor.clone() for tensor in tensors_of(states[0])]
    first = tracker.step([noise(2)], states)
    assert all(torch.equal(a, b) for a, b in zip(copies, tensors_of(states[0]), strict=True))
    assert torch.equal(tracker.step([noise(2)], states)[0].box_xywh, first[0].box_xywh)


def test_frames_are_counted_and_memory_is_kept(network):
    tracker = Tracker(network)
    states = tracker.initialize([noise(0)], [[40, 30, 30, 40]])
    assert (states[0].frame_index, states[0].memory, states[0].score) == (0, None, 1.0)
    states = tracker.step([noise(1)], states)
    assert states[0].frame_index == 1
    assert states[0].memory is not None
    assert states[0].memory.shape[1] == 1


def test_no_targets(network):
    assert Tracker(network).initialize([], []) == []
    assert Tracker(network).step([], []) == []


@pytest.mark.parametrize(
    ("box_xywh", "message"),
    [
        ([200, 10, 20, 20], "200, 10, 20, 20 lies outside the image of 160 x 120 px"),
        ([10, -30, 20, 30], "outside"),
        ([10, 10, 0, 20], "no area"),
        ([10, 10, 20, -5], "no area"),
        ([float("nan"), 10, 20, 20], "not finite"),
        ([10, 10, float("inf"), 20], "not finite"),
        ([-10000, -10000, 30000, 30000], "-10000, 30000, 30000 is more than 2 times as large as .* 160 x 120 px"),
        ([0, 0, 321, 5], "more than 2 times"),
        ([0, -200, 5, 241], "more than 2 times"),
        ([-1e308, 0, 1.5e308, 1], "more than 2 times"),
    ],
)
def test_box_that_cannot_be_tracked_is_refused(network, box_xywh, message):
    with pytest.raises(UserError, match=message):
        Tracker(network).initialize([noise(0)], [box_xywh])


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8)])
def test_image_of_another_kind_is_refused(network, image):
    with pytest.raises(ValueError, match="uint8"):
        Tracker(network).initialize([image], [[1, 1, 4, 4]])


@pytest.mark.parametrize("box_xywh", [[-80, -60, 320, 240], [-8.5, -0.5, 170, 121.5], [159, 119, 40, 40]])
def test_box_that_sticks_out_is_taken_as_it_stands(network, box_xywh):
    tracker = Tracker(network)
    states = tracker.initialize([noise(0)], [box_xywh])
    assert states[0].box_xywh.tolist() == box_xywh
    assert torch.isfinite(tracker.step([noise(1)], states)[0].box_xywh).all()


def test_one_image_a_target(network):
    tracker = Tracker(network)
    with pytest.raises(ValueError, match="1 images for 2 targets"):
        tracker.initialize([noise(0)], [[1, 1, 4, 4]] * 2)
    with pytest.raises(ValueError, match="2 images for 1 targets"):
        tracker.step([noise(0)] * 2, tracker.initialize([noise(0)], [[1, 1, 4, 4]]))


def test_broken_weights_are_named(network):
    with torch.no_grad():
        network.encoder.norm.weight.fill_(float("nan"))
    tracker = Tracker(network)
    with pytest.raises(UserError, match="not a number"):
        tracker.step([noise(1)], tracker.initialize([noise(0)], [[40, 30, 30, 40]]))


def test_window_on_probabilities_and_on_raw_logits():
    logits = torch.full((SIDE, SIDE), -9.0)
    logits[20, 31] = -1.0
    image, box_xywh = noise(0, 400, 400), [180, 180, 40, 40]  # the search region is 160 px around (200, 200)

    def chosen(rule):
        tracker = Tracker(map_network(logits), rule)
        return tracker.step([image], tracker.initialize([image], [box_xywh]), keep_response=True)[0]

    state = chosen(TrackingRule(window="probabilities"))
    center = state.box_xywh[:2] + state.box_xywh[2:] / 2
    np.testing.assert_allclose(center, [120 + 160 * 31.5 / SIDE, 120 + 160 * 20.5 / SIDE], rtol=1e-6)
    assert state.score == pytest.approx(float(logits.flatten().softmax(0).max()))
    assert state.response.shape == (SIDE, SIDE)
    assert divmod(int(state.response.argmax()), SIDE) == (20, 31)
    # Raw negative logits are raised most where the window is least: in the corner.
    state = chosen(TrackingRule(window="logits"))
    assert divmod(int(state.response.argmax()), SIDE) == (0, 0)


def test_response_is_the_windowed_map():
    torch.manual_seed(0)
    logits = torch.randn(SIDE, SIDE)
    tracker = Tracker(map_network(logits), TrackingRule(window="logits", window_exponent=2.0))
    state = tracker.step([noise(1)], tracker.initialize([noise(0)], [[40, 30, 30, 40]]), keep_response=True)[0]
    hann = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, SIDE + 1) / (SIDE + 1)))
    np.testing.assert_allclose(state.response, logits * np.outer(hann, hann) ** 2, rtol=1e-4, atol=1e-6)


def test_response_only_where_asked(network):
    tracker = Tracker(network)
    states = tracker.initialize([noise(0)], [[40, 30, 30, 40]])
    assert tracker.step([noise(1)], states)[0].response is None


def test_prior_localizes_by_its_own_map():
    logits, scores = torch.zeros(SIDE, SIDE), torch.full((SIDE, SIDE), 1e-4)
    logits[20, 20], scores[40, 45] = 50.0, 0.75
    image, box_xywh = noise(0, 400, 400), [180, 180, 40, 40]
    found = {}
    for localization in ("policy", "prior"):
        tracker = Tracker(map_network(logits, scores), TrackingRule(localization=localization, window_exponent=0))
        found[localization] = tracker.step([image], tracker.initialize([image], [box_xywh]))[0]
    center = {name: state.box_xywh[:2] + state.box_xywh[2:] / 2 for name, state in found.items()}
    np.testing.assert_allclose(center["policy"], [120 + 160 * 20.5 / SIDE] * 2, rtol=1e-6)
    np.testing.assert_allclose(center["prior"], [120 + 160 * 45.5 / SIDE, 120 + 160 * 40.5 / SIDE], rtol=1e-6)
    assert found["policy"].score == pytest.approx(1)
    assert found["prior"].score == pytest.approx(0.75)


def test_prior_needs_its_head():
    with pytest.raises(UserError, match="prior"):
        Tracker(seeing_network(), TrackingRule(localization="prior"))


def test_rule_of_another_network_is_refused(network):
    with pytest.raises(UserError, match="search_size"):
        Tracker(network, TrackingRule(search_size=256))


def test_template_update_replaces_the_oldest_but_the_first():
    rule = TrackingRule(templates=3, template_update_interval=2, template_update_threshold=-1e9)
    tracker = Tracker(seeing_network(), rule)
    states = tracker.initialize([square_at(60, 50)], [[60, 50, 24, 24]])
    given, history = states[0].template_crops[0], []
    for t in range(1, 7):
        states = tracker.step([square_at(60, 50) // 255 * (255 - 20 * (t // 2))], states)
        history.append(states[0].template_crops)
    assert all(torch.equal(crops[0], given) for crops in history)
    brightness = [[int(crop.max()) for crop in crops] for crops in history]
    assert brightness[0] == [255, 255, 255]
    assert brightness[1] == brightness[2] == [255, 255, 235]
    assert brightness[3] == [255, 235, 215]
    assert brightness[5] == [255, 215, 195]
    assert (states[0].templates.tokens[0, :, 0].diff() < 0).all()  # encoded in the same order


def test_template_update_needs_a_high_enough_peak(network):
    rule = TrackingRule(templates=2, template_update_interval=1, template_update_threshold=1e9)
    tracker = Tracker(network, rule)
    states = tracker.initialize([noise(0)], [[40, 30, 30, 40]])
    stepped = tracker.step([noise(1)], states)
    assert torch.equal(stepped[0].template_crops, states[0].template_crops)


def test_network_is_in_evaluation_and_unchanged(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tracker = Tracker(network.train())
    tracked(tracker, [noise(t) for t in range(3)], [40, 30, 30, 40])
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_bfloat16_stays_near_float32():
    # One cell stands out, so that rounding cannot change the choice.
    path = [(60 + t, 48) for t in range(6)]
    images = [square_at(*p) for p in path]
    full = tracked(Tracker(seeing_network()), images, [60, 48, 24, 24])
    reduced = tracked(Tracker(seeing_network(), precision="bfloat16"), images, [60, 48, 24, 24])
    torch.testing.assert_close(reduced, full, rtol=0, atol=0.5)


def test_random_network_runs_in_bfloat16(network):
    boxes_xywh = tracked(Tracker(network, precision="bfloat16"), [noise(t) for t in range(3)], [40, 30, 30, 40])
    assert torch.isfinite(boxes_xywh).all()


def test_from_pretrained_takes_the_rule_of_the_folder(network, tmp_path):
    save_network(network, tmp_path)
    video = [noise(t) for t in range(4)]
    expected = tracked(Tracker(network), video, [40, 30, 30, 40])
    torch.testing.assert_close(
        tracked(Tracker.from_pretrained(tmp_path, device="cpu"), video, [40, 30, 30, 40]), expected, rtol=0, atol=1e-3
    )
    assert Tracker.from_pretrained(tmp_path, device="cpu").rule == TrackingRule()
    (tmp_path / "tracking.yaml").write_text("window: logits\nwindow_exponent: 3.0\nreleased: true\n")
    rule = TrackingRule(window="logits", window_exponent=3.0, released=True)
    assert Tracker.from_pretrained(tmp_path, device="cpu").rule == rule
    prior = Tracker.from_pretrained(str(tmp_path), device="cpu", localization="prior")
    assert prior.rule == replace(rule, localization="prior")


def test_from_pretrained_names_a_missing_model(tmp_path):
    with pytest.raises(UserError, match="nothing"):
        Tracker.from_pretrained(tmp_path / "nothing")


VIDEOS = {
    "moving": ([square_at(60 + round(40 * np.sin(t / 6)), 48 + t % 30) for t in range(20)], [60, 48, 24, 24]),
    "leaving": ([square_at(20 - 2 * t, 40) for t in range(16)], [20, 40, 24, 24]),
    "half outside": ([square_at(-12, 40)] * 3, [-12, 40, 24, 24]),
    "gone": ([square_at(60, 50), *[np.zeros((120, 160, 3), np.uint8)] * 4], [60, 50, 24, 24]),
    "other sizes": ([square_at(60, 50, 24, 60 * n, 80 * n) for n in (2, 1, 5)], [60, 50, 24, 24]),
    "small": ([square_at(1, 1, 3, 6, 7)] * 3, [1, 1, 3, 3]),
    "large": ([square_at(3000, 2000, 400, 3000, 4000)] * 2, [2950, 1960, 400, 400]),
}  # fmt: skip


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("video", VIDEOS)
def test_crops_of_the_device_give_the_same_boxes(video, released):
    images, box_xywh = VIDEOS[video]
    rule = TrackingRule(released=released)
    expected = tracked(Tracker(seeing_network(), rule), images, box_xywh)
    found = tracked(Tracker(seeing_network(), rule, crop_on_device=True), images, box_xywh)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_crops_of_the_device_for_many_targets(network):
    cpu, device = Tracker(network), Tracker(network, crop_on_device=True)
    videos = [[noise(10 * target // 2 + t, 100 + 20 * target) for t in range(6)] for target in range(5)]
    states = cpu.initialize([video[0] for video in videos], [[40 + 5 * i, 30, 30 + 2 * i, 40] for i in range(5)])
    for t in range(1, 6):
        images = [video[t] for video in videos]
        found = device.step(images, states)
        states = cpu.step(images, states)
        for state, other in zip(found, states, strict=True):
            torch.testing.assert_close(state.box_xywh, other.box_xywh, rtol=0, atol=0.05)
            torch.testing.assert_close(state.memory, other.memory, rtol=0, atol=0.05)


def step_in_views(tracker, images, states):
    """A step whose crops are cut beforehand; frames that are not kept are wiped out."""
    regions = tracker.search_regions(states)
    copies = [image.copy() for image in images]
    views = [tracker.view(*seen) for seen in zip(copies, states, regions, strict=True)]
    for copy, view in zip(copies, views, strict=True):
        copy[...] = copy if view.image is copy else 0
    return tracker.step_views(views, states)


@pytest.mark.parametrize("crop_on_device", [False, True])
def test_crops_cut_beforehand_give_the_same_states(network, crop_on_device):
    rule = TrackingRule(templates=2, template_update_interval=3, template_update_threshold=-1e9)
    tracker = Tracker(network, rule)
    other = Tracker(network, rule, crop_on_device=crop_on_device)
    videos = [[noise(10 * target + t, 100 + 20 * target) for t in range(8)] for target in range(3)]
    states = others = tracker.initialize([video[0] for video in videos], [[40, 30, 30 + i, 40] for i in range(3)])
    for t in range(1, 8):
        images = [video[t] for video in videos]
        states, others = tracker.step(images, states), step_in_views(other, images, others)
        for state, same in zip(states, others, strict=True):
            torch.testing.assert_close(same.box_xywh, state.box_xywh, rtol=0, atol=1e-4)
            assert torch.equal(same.template_crops, state.template_crops)
            assert same.frame_index == t


def test_a_frame_is_kept_only_where_a_template_may_be_cut_from_it(network):
    rule = TrackingRule(templates=2, template_update_interval=2, template_update_threshold=-1e9)
    for tracker, due in ((Tracker(network), []), (Tracker(network, rule), [2, 4])):
        states = tracker.initialize([noise(0)], [[40, 30, 30, 40]])
        for t in range(1, 5):
            view = tracker.view(noise(t), states[0], tracker.search_regions(states)[0])
            assert (view.image is not None) == (t in due)
            states = tracker.step_views([view], states)
        with pytest.raises(ValueError, match="uint8"):
            tracker.view(noise(0).astype(float), states[0], tracker.search_regions(states)[0])


def test_settings_for_training_do_not_reach_float32():
    seen = []

    class Watching(BrightestPolicy):
        def forward(self, features):
            seen.append([setting() for setting in FLOAT32_SETTINGS])
            return super().forward(features)

    network = LocalizationNetwork(Pixels(), NoPropagation(1, 1), Watching(), ExtentBox())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        settings = [setting() for setting in FLOAT32_SETTINGS]
        assert "ieee" not in settings
        tracked(Tracker(network), [square_at(60, 48)] * 2, [60, 48, 24, 24])
        assert [setting() for setting in FLOAT32_SETTINGS] == settings
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [["ieee"] * len(FLOAT32_SETTINGS)]


FLOAT32_SETTINGS = [
    lambda: torch.backends.cuda.matmul.fp32_precision,
    lambda: torch.backends.cudnn.conv.fp32_precision,
    lambda: torch.backends.mkldnn.matmul.fp32_precision,
]
