"""Presence by all frames until now, held against the sums over all histories of the chain."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relo.tracking.presence_filter import filtered_presence
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker

probabilities = st.floats(0.01, 0.99)


def by_histories(rule, found):
    """The probability of being right after the frames, by every sequence of right and wrong that may have been."""
    stays, returns = rule.presence_stays, rule.presence_returns
    share = returns / (returns + 1 - stays)
    weights = {True: 0.0, False: 0.0}
    for history in product([True, False], repeat=len(found)):
        weight, last = 1.0, True
        for is_right, probability in zip(history, found, strict=True):
            becomes = stays if last else returns
            likelihood = probability / share if is_right else (1 - probability) / (1 - share)
            weight *= (becomes if is_right else 1 - becomes) * likelihood**rule.presence_evidence
            last = is_right
        weights[last] += weight
    return weights[True] / sum(weights.values())


@given(probabilities, probabilities, st.floats(0.05, 1), st.lists(probabilities, min_size=1, max_size=6))
def test_it_is_the_probability_over_all_histories(stays, returns, evidence, found):
    rule = TrackingRule(presence_stays=stays, presence_returns=returns, presence_evidence=evidence)
    value = None
    for probability in found:
        value = filtered_presence(rule, value, probability)
    assert value == pytest.approx(by_histories(rule, found), abs=1e-5)


def test_without_it_each_frame_stands_for_itself():
    assert filtered_presence(TrackingRule(), 0.2, 0.7) == 0.7
    assert filtered_presence(TrackingRule(presence_stays=0.9), 0.2, None) is None


def test_one_unsure_frame_is_doubted_less_than_several():
    rule = TrackingRule(presence_stays=0.97, presence_returns=0.14, presence_evidence=0.32)
    values = [None]
    for found in [0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9]:
        values.append(filtered_presence(rule, values[-1], found))
    assert values[2] > 0.6 > 0.5 > values[5]
    assert values[5] < values[6] < values[7] < values[8]


@pytest.mark.parametrize("found", [0.0, 1.0, 1e-30])
def test_certain_frames_leave_a_number(found):
    rule, value = TrackingRule(presence_stays=0.9), None
    for _ in range(50):
        value = filtered_presence(rule, value, found)
        assert 0 < value < 1


def test_it_changes_presence_and_no_box():
    images = np.random.default_rng(0).integers(0, 256, (6, 96, 128, 3), np.uint8)
    plain = Tracker.from_pretrained(device="cpu", rule=replace(Tracker.from_pretrained().rule, presence_stays=None))
    rule = replace(plain.rule, presence_stays=0.97, presence_returns=0.14, presence_evidence=0.32)
    tracker = Tracker.from_pretrained(device="cpu", rule=rule)
    states, others, expected = (tracker.initialize(images[:1], [[40, 30, 30, 30]]) for _ in range(3))
    for image in images[1:]:
        states, others = tracker.step([image], states), plain.step([image], others)
        assert states[0].box_xywh.equal(others[0].box_xywh)
        expected = [replace(others[0], presence=filtered_presence(rule, expected[0].presence, others[0].presence))]
        assert states[0].presence == expected[0].presence


def test_without_a_presence_head_for_the_map_there_is_none():
    tracker = Tracker.from_pretrained(device="cpu", localization="policy")  # the head reads the prior's map
    assert tracker.rule.presence_stays is not None
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3), np.uint8)
    states = tracker.initialize(images[:1], [[40, 30, 30, 30]])
    for image in images[1:]:
        states = tracker.step([image], states)
        assert states[0].presence is None
