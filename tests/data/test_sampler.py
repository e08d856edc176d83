"""The clip samplers, rule by rule."""

import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relo.data.sampler import ClipFrames, ConsecutiveSampler, OrderSampler
from relo.errors import UserError

flags = arrays(np.bool_, st.integers(20, 1500), elements=st.booleans())


@given(flags, st.integers(1, 3), st.integers(1, 8), st.integers(0, 500), st.integers(0, 2**32))
def test_rules_of_a_clip(visible, templates, search_frames, max_gap, seed):
    sampler = OrderSampler(templates, search_frames, max_gap=max_gap)
    assume(sampler.accepts(visible))
    clip = sampler.sample(visible, np.random.default_rng(seed))
    frames = np.concatenate([clip.templates, clip.search])
    assert (len(clip.templates), len(clip.search)) == (templates, search_frames)
    assert visible[frames].all()
    assert np.ptp(frames) <= 2 * max_gap
    steps = np.diff(frames)
    assert (steps >= 0).all() or (steps <= 0).all()
    again = sampler.sample(visible, np.random.default_rng(seed))
    assert np.array_equal(np.concatenate([again.templates, again.search]), frames)


def many(sampler, visible, count=4000):
    rng = np.random.default_rng(0)
    clips = [sampler.sample(visible, rng) for _ in range(count)]
    return np.array([np.concatenate([clip.templates, clip.search]) for clip in clips])


def test_time_runs_backwards_half_of_the_time():
    frames = many(OrderSampler(1, 2), np.ones(5000, bool))
    forwards, backwards = frames[:, 0] < frames[:, -1], frames[:, 0] > frames[:, -1]
    assert abs(forwards.mean() - 0.5) < 0.03
    assert abs(backwards.mean() - 0.5) < 0.03


@pytest.mark.parametrize(("probability", "sign"), [(0.0, 1), (1.0, -1)])
def test_direction_can_be_fixed(probability, sign):
    frames = many(OrderSampler(1, 2, backwards=probability), np.ones(100, bool), 200)
    assert (sign * np.diff(frames, axis=1) >= 0).all()


def test_frames_are_drawn_with_replacement_up_to_the_gap_on_both_sides():
    visible = np.zeros(3000, bool)
    visible[[1000, 1400, 1801]] = True  # 1000 and 1801 are not within 400 of each other, or of both
    frames = many(OrderSampler(1, 2, min_frames=1), visible, 2000)
    assert any(len(set(clip)) == 1 for clip in frames.tolist())
    sets = {frozenset(clip) for clip in frames.tolist()}
    assert frozenset({1000, 1400}) in sets  # exactly 400 apart
    assert frozenset({1400, 1801}) not in sets
    assert not any({1000, 1801} <= clip for clip in sets)


def test_window_leaves_out_the_frame_at_the_gap_after_its_base():
    visible = np.zeros(3000, bool)
    visible[[1000, 1400, 1800]] = True
    sets = {frozenset(clip) for clip in many(OrderSampler(1, 1, min_frames=1), visible, 2000).tolist()}
    assert {frozenset({1000, 1400}), frozenset({1400, 1800})} <= sets
    assert frozenset({1000, 1800}) not in sets  # only the base 1400 could join them
    visible[[1399, 1799]] = True
    assert frozenset({1000, 1799}) in {
        frozenset(clip) for clip in many(OrderSampler(1, 1, min_frames=1), visible, 4000).tolist()
    }


def test_base_frame_only_centres_the_clip():
    # With the base drawn anywhere, frames up to 2 gaps apart meet in one clip.
    frames = many(OrderSampler(1, 3, max_gap=50), np.ones(1000, bool), 3000)
    assert 90 < np.ptp(frames, axis=1).max() <= 100


def test_which_sequences_are_long_enough():
    sampler = OrderSampler(templates=2, search_frames=4)  # more than 12 visible frames
    visible = np.zeros(30, bool)
    visible[:12] = True
    assert not sampler.accepts(visible)
    visible[20] = True
    assert sampler.accepts(visible)
    assert not sampler.accepts(np.ones(19, bool))
    assert sampler.accepts(np.ones(20, bool))


def test_stills_are_repeated():
    sampler = OrderSampler(templates=2, search_frames=3)
    assert sampler.accepts(np.array([True]))
    assert not sampler.accepts(np.array([False]))
    clip = sampler.sample(np.array([True]), np.random.default_rng(0))
    assert (clip.templates.tolist(), clip.search.tolist()) == ([0, 0], [0, 0, 0])


@pytest.mark.parametrize(
    ("search", "start", "previous"),
    [
        ([30, 34, 90], None, [29, 30, 34]),  # forwards with gaps
        ([90, 34, 34, 30], None, [89, 90, 34, 34]),  # backwards, a frame drawn twice
        ([0, 5], None, [-1, 0]),
        ([12, 15, 18], 9, [9, 12, 15]),  # consecutive at a stride of 3
    ],
)
def test_frames_before_the_search_frames(search, start, previous):
    assert ClipFrames(np.array([3]), np.array(search), start).previous.tolist() == previous


def test_sampler_can_be_sent_to_a_process():
    sampler = pickle.loads(pickle.dumps(OrderSampler(2, 8, max_gap=7)))
    assert (sampler.templates, sampler.search_frames, sampler.max_gap) == (2, 8, 7)


# ----------------------------------------------------------------------------------------------- consecutive frames


def possible(visible, search_frames, stride):
    """The start frames of a stride, one by one."""
    return [
        start
        for start in range(len(visible) - search_frames * stride)
        if visible[start] and any(visible[start + stride * step] for step in range(1, search_frames + 1))
    ]


rarely = arrays(np.bool_, st.integers(1, 60), elements=st.sampled_from([False, False, True]))


@given(rarely | flags, st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(0, 30), st.integers(0, 99))
def test_rules_of_a_stretch(visible, templates, search_frames, max_stride, max_gap, seed):
    sampler = ConsecutiveSampler(templates, search_frames, max_stride, max_gap, min_frames=2)
    starts = {stride: possible(visible, search_frames, stride) for stride in range(1, max_stride + 1)}
    assert sampler.accepts(visible) == any(starts.values())
    assume(any(starts.values()))
    clip = sampler.sample(visible, np.random.default_rng(seed))
    (stride,) = set(np.diff([clip.start, *clip.search]))  # one step, also from the start to the first search frame
    assert clip.start in starts[stride]
    assert (len(clip.templates), len(clip.search)) == (templates, search_frames)
    assert clip.templates.dtype == clip.search.dtype == np.int64
    assert visible[clip.templates].all()
    assert (np.diff(clip.templates) >= 0).all()
    assert ((clip.templates <= clip.start) & (clip.templates >= clip.start - max_gap)).all()
    again = sampler.sample(visible, np.random.default_rng(seed))
    assert again.start == clip.start
    assert np.array_equal([*again.templates, *again.search], [*clip.templates, *clip.search])


def test_every_stretch_can_be_drawn():
    visible = np.ones(30, bool)
    visible[10:14] = False
    sampler = ConsecutiveSampler(search_frames=4, max_stride=3)
    rng = np.random.default_rng(0)
    clips = [sampler.sample(visible, rng) for _ in range(6000)]
    drawn = {(int(clip.search[0] - clip.start), clip.start) for clip in clips}
    assert drawn == {(stride, start) for stride in (1, 2, 3) for start in possible(visible, 4, stride)}
    strides = np.array([clip.search[0] - clip.start for clip in clips])
    assert all(abs((strides == stride).mean() - 1 / 3) < 0.03 for stride in (1, 2, 3))
    assert any(not visible[clip.search].all() for clip in clips)  # hidden targets are part of tracking
    assert {0, 5} <= {int(clip.start - clip.templates[0]) for clip in clips}


def test_which_sequences_have_a_stretch():
    sampler = ConsecutiveSampler(search_frames=8, min_frames=9)
    assert not sampler.accepts(np.array([True]))  # a still
    assert not sampler.accepts(np.ones(8, bool))
    assert sampler.accepts(np.ones(9, bool))
    assert not ConsecutiveSampler(search_frames=8, min_frames=10).accepts(np.ones(9, bool))
    assert not ConsecutiveSampler(search_frames=1, min_frames=1).accepts(np.array([True]))
    alternating = np.arange(20) % 2 == 0
    assert not ConsecutiveSampler(search_frames=1).accepts(alternating)
    assert ConsecutiveSampler(search_frames=1, max_stride=2).accepts(alternating)


@pytest.mark.parametrize(
    ("name", "value"), [("templates", 0), ("search_frames", 0), ("max_stride", 0), ("max_gap", -1)]
)
def test_values_that_give_no_stretch_are_refused(name, value):
    with pytest.raises(UserError, match=f"ConsecutiveSampler has {name} = {value}; .* from {value + 1}"):
        ConsecutiveSampler(**{name: value})


def test_samplers_say_whether_their_frames_are_consecutive():
    visible, rng = np.ones(30, bool), np.random.default_rng(0)
    for sampler in (OrderSampler(), ConsecutiveSampler()):
        assert sampler.consecutive == (sampler.sample(visible, rng).start is not None)
