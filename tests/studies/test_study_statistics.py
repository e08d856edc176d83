"""Means, intervals and tests over seeds and sequences."""

import itertools

import numpy as np
import pytest
from scipy import stats

from relo.studies.statistics import compare, interval, sign_flip_test, summarize


def test_sign_flips_are_all_tried_where_they_are_few():
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 9):
        differences = rng.normal(0.3, 1, count)
        sums = [
            abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((-1, 1), repeat=count)
        ]
        expected = sum(total >= abs(sum(differences)) - 1e-9 for total in sums) / len(sums)
        assert sign_flip_test(differences, rng) == pytest.approx(expected)


def test_random_sign_flips_agree_with_all_of_them():
    differences = np.random.default_rng(1).normal(0.4, 1, 13)
    exact = sign_flip_test(differences, np.random.default_rng(0))
    drawn = sign_flip_test(differences, np.random.default_rng(0), draws=5000)
    assert 0.01 < exact < 0.5
    assert drawn == pytest.approx(exact, abs=4 * (exact / 5000) ** 0.5)
    assert drawn == sign_flip_test(differences, np.random.default_rng(0), draws=5000)


def test_summary_and_comparison_of_hand_made_scores():
    scores = np.array([[0.2, 0.4, 0.9], [0.4, 0.6, 0.8]])
    summary = summarize(scores)
    assert summary.mean == pytest.approx(0.55)
    assert summary.deviation == pytest.approx(abs(0.5 - 0.6) / 2**0.5)
    assert summary.standard_error == pytest.approx(stats.sem([0.3, 0.5, 0.85]))
    comparison = compare(scores, scores - np.array([0.1, 0.2, 0.3]), np.random.default_rng(0))
    assert comparison.mean == pytest.approx(0.2)
    assert comparison.p_value == 2 / 8
    one = summarize(scores[:1, :1])
    assert (one.mean, one.deviation, one.standard_error) == (0.2, None, None)


def test_interval_of_one_seed_is_the_paired_t_test():
    differences = np.random.default_rng(0).normal(0.1, 0.3, (1, 12))
    expected = stats.ttest_1samp(differences[0], 0).confidence_interval(0.95)
    assert interval(differences) == pytest.approx((expected.low, expected.high))


def test_interval_where_only_seeds_differ_is_students_over_seeds():
    differences = np.random.default_rng(0).normal(0, 1, (4, 1)) + np.zeros((1, 50))
    expected = stats.ttest_1samp(differences[:, 0], 0).confidence_interval(0.95)
    assert interval(differences) == pytest.approx((expected.low, expected.high))


def test_interval_of_equal_differences_is_their_value():
    assert interval(np.full((3, 5), 0.25)) == (0.25, 0.25)


@pytest.mark.parametrize("seed_deviation", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_hold_the_true_mean_as_often_as_they_say(seeds, seed_deviation):
    """Where seeds, sequences and both together vary."""
    rng = np.random.default_rng(0)
    trials, sequences = 600, 40
    held = 0
    for _ in range(trials):
        of_seed, of_sequence = rng.normal(0, seed_deviation, (seeds, 1)), rng.normal(0, 0.2, (1, sequences))
        low, high = interval(0.3 + of_seed + of_sequence + rng.normal(0, 0.2, (seeds, sequences)))
        held += low <= 0.3 <= high
    assert 0.91 <= held / trials <= 0.99
