"""From the scores of every sequence to the numbers of a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relo.errors import UserError
from relo.studies.plan import Plan
from relo.studies.statistics import Comparison, Scores, Summary, compare, summarize
from relo.studies.study import Study

POOLED = "pooled"
"""What tables call the sequences of all pooled test sets."""


@dataclass(frozen=True)
class Entry:
    """A row of a group on one test set.

    Attributes:
        group: the group's name.
        row: the row's name.
        title: the row's title in the group.
        test: the test set's name, or `POOLED`.
        seeds: those with which the row has been trained and evaluated.
        sequences: how many there are.
        by_seed: the mean of each seed.
        windows: the window's exponent that was chosen for each seed; empty where there was no choice.
        summary: mean and spread.
        comparison: with the group's reference; None for the reference itself, and where it has not been evaluated.
    """

    group: str
    row: str
    title: str
    test: str
    seeds: tuple[int, ...]
    sequences: int
    by_seed: tuple[float, ...]
    windows: tuple[float, ...]
    summary: Summary
    comparison: Comparison | None


@dataclass(frozen=True)
class _Evaluated:
    seeds: tuple[int, ...]
    sequences: tuple[str, ...]
    scores: Scores  # [seeds, sequences]


def entries(study: Study, plan: Plan, output: Path) -> list[Entry]:
    """Every row of every group on every test set, as far as there are scores.

    Args:
        study: the study.
        plan: of all its rows and seeds.
        output: the results' folder.

    Raises:
        UserError: a row and its reference were evaluated on other sequences.
    """
    return list(_entries(study, plan, output))


def _entries(study: Study, plan: Plan, output: Path) -> Iterator[Entry]:
    seeds = sorted({seed for _, seed in plan.evaluations})
    for test, members in {**{name: (name,) for name in study.tests}, POOLED: study.pooled}.items():
        evaluated = {row: _evaluated(plan, row, seeds, members, output) for row in study.rows}
        for group_name, group in study.groups.items():
            reference = evaluated[group.reference]
            for row, title in group.rows.items():
                found = evaluated[row]
                if found is None:
                    continue
                comparison = None
                if row != group.reference and reference is not None:
                    comparison = _compare(found, reference, f"{row} and {group.reference} on {test}")
                windows = [plan.evaluations[row, seed].window_exponent(output) for seed in found.seeds]
                yield Entry(
                    group_name,
                    row,
                    title,
                    test,
                    found.seeds,
                    len(found.sequences),
                    tuple(found.scores.mean(1).tolist()),
                    tuple(window for window in windows if window is not None),
                    summarize(found.scores),
                    comparison,
                )


def _evaluated(plan: Plan, row: str, seeds: Sequence[int], tests: Sequence[str], output: Path) -> _Evaluated | None:
    """The scores of a row with those seeds that have been evaluated on all of the test sets; None without any."""
    by_seed: dict[int, dict[str, float]] = {}
    for seed in seeds:
        found = {test: plan.evaluations[row, seed].aucs(output, test) for test in tests}
        scores = {f"{test}/{name}": auc for test, aucs in found.items() for name, auc in (aucs or {}).items()}
        if all(found.values()):
            by_seed[seed] = scores
    if not by_seed:
        return None
    names = tuple(sorted(next(iter(by_seed.values()))))
    if any(scores.keys() != set(names) for scores in by_seed.values()):
        raise UserError(
            f"The sequences of {', '.join(tests)} have changed between the evaluations of {row}: delete its scores in "
            f"{output / 'scores' / row} and run again."
        )
    return _Evaluated(
        tuple(by_seed), names, np.array([[scores[name] for name in names] for scores in by_seed.values()])
    )


def _compare(found: _Evaluated, reference: _Evaluated, what: str) -> Comparison | None:
    """Over the seeds that both have."""
    if found.sequences != reference.sequences:
        raise UserError(f"{what} were evaluated on other sequences: delete their scores and run again.")
    common = [seed for seed in found.seeds if seed in reference.seeds]
    if not common:
        return None
    first, second = (
        evaluated.scores[[evaluated.seeds.index(seed) for seed in common]] for evaluated in (found, reference)
    )
    return compare(first, second, np.random.default_rng(0))
