"""Means, deviations and paired tests of scores by seed and sequence."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]  # [seeds, sequences]

CONFIDENCE = 0.95
DRAWS = 10_000


@dataclass(frozen=True)
class Summary:
    """A row's scores on some sequences."""

    mean: float  # over seeds and sequences
    deviation: float | None  # standard deviation of the seeds' means; None for one seed
    standard_error: float | None  # of the mean over sequences, the seeds as they are; None for one sequence


@dataclass(frozen=True)
class Comparison:
    """A row's differences to its reference, paired by seed and sequence."""

    mean: float
    low: float | None  # the ends of the mean's `interval`; None for one sequence
    high: float | None
    p_value: float  # of `sign_flip_test` by sequence, averaged over the seeds


def summarize(scores: Scores) -> Summary:
    """Mean and spread of scores [seeds, sequences]."""
    seeds, sequences = scores.shape
    deviation = float(scores.mean(1).std(ddof=1)) if seeds > 1 else None
    error = float(stats.sem(scores.mean(0))) if sequences > 1 else None
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
    low, high = stats.t.interval(confidence, freedom_all, mean, (variance / differences.size) ** 0.5)
    return float(low), float(high)


def sign_flip_test(differences: NDArray[np.float64], generator: np.random.Generator, draws: int = DRAWS) -> float:
    """The two-sided p-value of differences [n] under the hypothesis that their signs are arbitrary.

    Of all 2^n signs where these are no more than `draws`, else of so many random ones.
    """
    if len(differences) == 1:
        return 1.0
    test = stats.permutation_test(
        (differences,),
        lambda signed, axis: abs(signed.sum(axis)),
        permutation_type="samples",  # of one sample: the signs
        alternative="greater",
        vectorized=True,
        n_resamples=draws,
        batch=1000,  # of 10,000 draws for 1,000 sequences, 8 MB
        random_state=generator,
    )
    return float(test.pvalue)
