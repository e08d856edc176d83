"""Means, deviations and paired tests of scores by seed and sequence."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

Scores = NDArray[np.float64]  # [seeds, sequences]

CONFIDENCE = 0.95
DRAWS = 10_000


@dataclass(frozen=True)
class Summary:
    """A row's scores on some sequences.

    Attributes:
        mean: over seeds and sequences.
        deviation: standard deviation of the seeds' means; None for one seed.
        standard_error: of the mean over sequences, the seeds as they are; None for one sequence.
    """

    mean: float
    deviation: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Comparison:
    """A row against its reference, paired by seed and sequence.

    Attributes:
        mean: of the differences.
        low: lower end of the interval (see `interval`); None for one sequence.
        high: its upper end.
        p_value: of the differences by sequence, averaged over the seeds (see `sign_flip_test`).
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float


def summarize(scores: Scores) -> Summary:
    """Mean and spread of scores [seeds, sequences]."""
    seeds, sequences = scores.shape
    deviation = float(scores.mean(1).std(ddof=1)) if seeds > 1 else None
    error = float(scores.mean(0).std(ddof=1) / sequences**0.5) if sequences > 1 else None
    return Summary(float(scores.mean()), deviation, error)


def compare(scores: Scores, reference: Scores, generator: np.random.Generator) -> Comparison:
    """Compare scores [seeds, sequences] with those of the same seeds on the same sequences."""
    differences = scores - reference
    low, high = interval(differences) if differences.shape[1] > 1 else (None, None)
    return Comparison(float(differences.mean()), low, high, sign_flip_test(differences.mean(0), generator))


def interval(differences: Scores, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """A confidence interval of the mean of differences [seeds, sequences], both of them drawn at random.

    Every seed is evaluated on every sequence: a difference is the mean plus an effect of the seed, one of the sequence
    and a rest, and the variance of the mean is estimated from the three mean squares (the two-way analysis of variance
    with random effects), with Satterthwaite's degrees of freedom. With few seeds that vary, Student's t makes the
    interval wide, as it must be; resampling three seeds does not. For one seed it is the interval over sequences.

    Args:
        differences: at least two sequences.
        confidence: the share of such intervals that hold the true mean.
    """
    seeds, sequences = differences.shape
    mean = float(differences.mean())
    by_seed, by_sequence = differences.mean(1, keepdims=True), differences.mean(0, keepdims=True)
    square_sequence = seeds * float(np.square(by_sequence - mean).sum()) / (sequences - 1)
    terms = [(square_sequence, sequences - 1)]
    if seeds > 1:
        freedom = (seeds - 1) * (sequences - 1)
        square_seed = sequences * float(np.square(by_seed - mean).sum()) / (seeds - 1)
        square_rest = float(np.square(differences - by_seed - by_sequence + mean).sum()) / freedom
        # An effect whose mean square is below the rest's is estimated to be none, and the rest takes its place.
        if square_seed > square_rest and square_sequence > square_rest:
            terms += [(square_seed, seeds - 1), (-square_rest, freedom)]
        elif square_seed > square_rest:
            terms = [(square_seed, seeds - 1)]
        else:
            terms = [(max(square_sequence, square_rest), sequences - 1)]
    variance = sum(square for square, _ in terms)
    if variance == 0:
        return mean, mean
    freedom_all = variance**2 / sum(square**2 / freedom for square, freedom in terms)
    reach = float(student_t.ppf(0.5 + confidence / 2, freedom_all)) * (variance / differences.size) ** 0.5
    return mean - reach, mean + reach


def sign_flip_test(differences: NDArray[np.float64], generator: np.random.Generator, draws: int = DRAWS) -> float:
    """The two-sided p-value of differences [n] under the hypothesis that their signs are arbitrary.

    Of all 2^n signs where these are no more than `draws`, else of so many random ones (the given signs counted among
    them).
    """
    count = len(differences)
    observed = abs(differences.sum()) * (1 - 1e-12)  # sums of the same numbers differ by rounding
    if 2**count <= draws:
        signs = np.array(list(itertools.product((-1, 1), repeat=count)), np.int8)
        return float((np.abs(signs @ differences) >= observed).mean())
    signs = 2 * generator.integers(0, 2, (draws, count), np.int8) - 1
    return float((1 + (np.abs(signs @ differences) >= observed).sum()) / (1 + draws))
