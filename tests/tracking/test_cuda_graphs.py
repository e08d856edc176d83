"""Recordings are those of CUDA where there is a GPU; on the CPU a stand-in shows whether buffers are kept apart."""

import itertools
import logging
import warnings

import numpy as np
import pytest
import torch

from relo.tracking import cuda_graphs
from relo.tracking.crops import DeviceCropper
from relo.tracking.cuda_graphs import CUDARecorder, Recording, ReplayedFunction
from relo.tracking.localizer import Localizer
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker
from small_networks import make_network

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=needs_gpu)]


def record_by_calling(function, inputs):
    """As a CUDA graph does: every replay reads the same inputs, and writes the same outputs."""
    outputs = tuple(None if tensor is None else torch.full_like(tensor, 99) for tensor in function(*inputs))

    def replay():
        for kept, tensor in zip(outputs, function(*inputs), strict=True):
            if kept is not None:
                kept.copy_(tensor)

    return Recording(replay, outputs)


def recorder(device):
    return CUDARecorder(device) if device.type == "cuda" else record_by_calling


def replaying_tracker(device, rule=None):
    """A tracker that replays, and one that does not."""
    network = make_network()
    plain = Tracker(network, rule, device, crop_on_device=True, cuda_graphs=False)
    tracker = Tracker(network, rule, device, crop_on_device=True, cuda_graphs=False)
    tracker._device_crop = DeviceCropper(tracker._search_crop, device, recorder(device))
    tracker._localizer = Localizer(network, tracker.rule, device, "float32", record=recorder(device))
    return tracker, plain


def noise(seed, height=120, width=160):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def tensors_of(state):
    tensors = [state.templates.tokens, state.templates.kernel, state.memory, state.box_xywh, state.template_crops]
    return [tensor for tensor in tensors if tensor is not None]


def assert_same(states, expected):
    for state, other in zip(states, expected, strict=True):
        for tensor, other_tensor in zip(tensors_of(state), tensors_of(other), strict=True):
            torch.testing.assert_close(tensor, other_tensor, rtol=0, atol=1e-5)
        assert state.score == pytest.approx(other.score, abs=1e-5)
        assert state.frame_index == other.frame_index


def counting(function):
    calls = []

    def counted(*inputs):
        calls.append(inputs)
        return function(*inputs)

    return counted, calls


@pytest.mark.parametrize("device", DEVICES)
def test_boxes_are_those_without(device):
    tracker, plain = replaying_tracker(device)
    boxes_xywh = [[40 + 5 * i, 30, 30 + 2 * i, 40] for i in range(3)]
    states = expected = plain.initialize([noise(i) for i in range(3)], boxes_xywh)
    for t in range(6):
        images = [noise(100 * t + i) for i in range(3)]
        states, expected = tracker.step(images, states), plain.step(images, expected)
        assert_same(states, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_states_stay_as_they_are_while_others_are_stepped(device):
    tracker, plain = replaying_tracker(device)
    states = plain.initialize([noise(0)] * 2, [[40, 30, 30, 40], [70, 50, 20, 20]])
    history, copies = [], []
    for t in range(5):
        states = tracker.step([noise(t)] * 2, states)
        history.append(states)
        copies.append([[tensor.clone() for tensor in tensors_of(state)] for state in states])
    for kept, copied in zip(history, copies, strict=True):
        for state, tensors in zip(kept, copied, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(tensors_of(state), tensors, strict=True))
    # An early state can be taken up again, alone and beside a late one.
    image = noise(50)
    for chosen in ([history[1][0]], [history[4][1], history[1][0]], [history[0][1], history[4][1]]):
        assert_same(tracker.step([image] * len(chosen), chosen), plain.step([image] * len(chosen), chosen))


@pytest.mark.parametrize("device", DEVICES)
def test_targets_may_come_go_and_change_places(device):
    tracker, plain = replaying_tracker(device)
    states = plain.initialize([noise(i) for i in range(4)], [[30 + 20 * i, 30, 25, 30] for i in range(4)])
    order = np.random.default_rng(0)
    recorded = {}
    for t in range(12):
        chosen = order.permutation(4)[: 1 + t % 4]
        # Frames of other sizes, some shared, and a new target now and then.
        images = [noise(10 * t + i // 2, 100 + 20 * (i % 2)) for i in chosen]
        if t % 3 == 2:
            states[chosen[0]] = plain.initialize([noise(t)], [[50, 40, 30, 30]])[0]
        given = [states[i] for i in chosen]
        found = tracker.step(images, given)
        assert_same(found, plain.step(images, given))
        for i, state in zip(chosen, found, strict=True):
            states[i] = state
        for part in (tracker._device_crop._cut, tracker._localizer._compute):
            recorded[part] = {key for key, value in part._recorded.items() if value is not None}
    assert all(len(keys) >= 3 for keys in recorded.values())


@pytest.mark.parametrize("device", DEVICES)
def test_new_templates_are_seen(device):
    rule = TrackingRule(templates=2, template_update_interval=2, template_update_threshold=-1e9)
    tracker, plain = replaying_tracker(device, rule)
    states = expected = plain.initialize([noise(0)], [[40, 30, 30, 40]])
    for t in range(1, 7):
        before = states[0].templates.tokens
        states, expected = tracker.step([noise(t)], states), plain.step([noise(t)], expected)
        assert_same(states, expected)
        assert torch.equal(states[0].templates.tokens, before) == (t % 2 == 1)


@pytest.mark.parametrize("device", DEVICES)
def test_responses_are_kept_apart(device):
    tracker, plain = replaying_tracker(device)
    states = plain.initialize([noise(0)], [[40, 30, 30, 40]])
    found = []
    for t in range(4):
        found.append(tracker.step([noise(t)], states, keep_response=True)[0].response)
        torch.testing.assert_close(found[-1], plain.step([noise(t)], states, keep_response=True)[0].response)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(found))


def test_recorded_when_shapes_are_met_again():
    function, calls = counting(lambda a, b: (a.sum(), b))
    recorded, records = counting(record_by_calling)
    replayed = ReplayedFunction(function, recorded)
    a, b = torch.arange(4.0), torch.ones(2)
    assert replayed(a, b)[1] is b
    assert (len(calls), len(records)) == (1, 0)
    total, copied = replayed(a, b)
    assert total == 6
    assert copied is not b
    assert len(records) == 1
    replayed(a + 1, None)
    assert len(records) == 1
    assert replayed(a + 1, b)[0] == 10
    replayed(a[:2], b)
    replayed(a[:2], b)
    assert len(records) == 2
    assert replayed(a + 2, b)[0] == 14


def test_old_recordings_are_dropped(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "KEPT", 3)
    recorded, records = counting(record_by_calling)
    replayed = ReplayedFunction(lambda a: (a.sum(),), recorded)
    for size in [*range(1, 6), *range(1, 6)]:
        replayed(torch.ones(size))
        assert len(replayed._recorded) <= 3
    assert not records  # each was forgotten before it was met again
    for _ in range(3):
        for size in (1, 2):
            assert replayed(torch.ones(size))[0] == size
    assert len(records) == 2


def test_what_cannot_be_recorded_runs_as_it_is(caplog):
    def refuse(function, inputs):
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            raise RuntimeError("the capture was invalidated")

    function, calls = counting(lambda a: (a.sum(),))
    replayed = ReplayedFunction(function, refuse)
    with caplog.at_level(logging.WARNING):
        for value in range(1, 5):
            assert replayed(torch.full((3,), value))[0] == 3 * value
    assert len(calls) == 4
    assert replayed._record is None
    assert [record.message for record in caplog.records] == [
        "No CUDA graph of this network, which makes it slower: operation not permitted when stream is capturing"
    ]


def test_graphs_need_a_gpu(network):
    with pytest.raises(ValueError, match="CUDA device that crops; this one is cpu"):
        Tracker(network, device="cpu", cuda_graphs=True)


@needs_gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_a_step_waits_for_the_gpu_once(network, graphs):
    tracker = Tracker(network, device="cuda", cuda_graphs=graphs)
    states = tracker.initialize([noise(0)] * 2, [[40, 30, 30, 40], [70, 50, 20, 20]])
    for t in range(4):
        states = tracker.step([noise(t)] * 2, states)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tracker.step([noise(9)] * 2, states)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([warning for warning in caught if "synchroniz" in str(warning.message)]) == 1
