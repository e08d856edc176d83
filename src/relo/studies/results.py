"""From the scores of every sequence to the numbers of a table."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relo.errors import UserError
from relo.studies.plan import Plan
from relo.studies.statistics import Comparison, Scores, Summary, compare, summarize
from relo.studies.study import POOLED, Study

BySeed = dict[int, dict[str, float]]
"""The AUCs of a row's sequences, by seed and name."""


@dataclass(frozen=True)
class Entry:
    """A row of a group on one test set."""

    group: str
    row: str
    title: str  # the row's in the group
    test: str  # the test set's name, or `POOLED`
    seeds: tuple[int, ...]  # those with which the row has been trained and evaluated
    sequences: int  # how many there are
    by_seed: tuple[float, ...]  # the mean of each seed
    windows: tuple[float, ...]  # the window's exponent that was chosen for each seed; empty where there was no choice
    summary: Summary
    comparison: Comparison | None  # with the group's reference; None for that itself, and where it was not evaluated


def entries(study: Study, plan: Plan, output: Path) -> list[Entry]:
    """Every row of every group on every test set, as far as there are scores.

    Args:
        study: the study.
        plan: of all its rows and seeds.
        output: the results' folder.

    Raises:
        UserError: a row and its reference were evaluated on other sequences.
    """
    found = []
    for test, members in {**{name: [name] for name in study.tests}, POOLED: study.pooled}.items():
        evaluated = {row: _by_seed(plan, row, members, output) for row in study.rows}
        for name, group in study.groups.items():
            for row, title in group.rows.items():
                by_seed = evaluated[row]
                if not by_seed:
                    continue
                scores = _scores(by_seed, by_seed)
                windows = [plan[row, seed].window.read().get("window_exponent") for seed in by_seed]
                comparison = None
                if row != group.reference:
                    what = f"{row} and {group.reference} on {test}"
                    comparison = _compare(by_seed, evaluated[group.reference], what)
                entry = Entry(
                    group=name,
                    row=row,
                    title=title,
                    test=test,
                    seeds=tuple(by_seed),
                    sequences=scores.shape[1],
                    by_seed=tuple(scores.mean(1).tolist()),
                    windows=tuple(window for window in windows if window is not None),
                    summary=summarize(scores),
                    comparison=comparison,
                )
                found.append(entry)
    return found


def _by_seed(plan: Plan, row: str, tests: Collection[str], output: Path) -> BySeed:
    """The scores of a row with those seeds that have been evaluated on all of the test sets."""
    by_seed: BySeed = {}
    for seed in sorted(seed for planned, seed in plan if planned == row):
        found = {test: plan[row, seed].scores(test).read() for test in tests}
        if all(found.values()):
            by_seed[seed] = {f"{test}/{name}": auc for test in tests for name, auc in found[test]["auc"].items()}
    if len({frozenset(aucs) for aucs in by_seed.values()}) > 1:
        raise UserError(
            f"The sequences of {', '.join(tests)} have changed between the evaluations of {row}: delete its scores in "
            f"{output / 'scores' / row} and run again."
        )
    return by_seed


def _compare(by_seed: BySeed, reference: BySeed, what: str) -> Comparison | None:
    """Over the seeds that both have."""
    common = [seed for seed in by_seed if seed in reference]
    if any(by_seed[seed].keys() != reference[seed].keys() for seed in common):
        raise UserError(f"{what} were evaluated on other sequences: delete their scores and run again.")
    if not common:
        return None
    return compare(_scores(by_seed, common), _scores(reference, common), np.random.default_rng(0))


def _scores(by_seed: BySeed, seeds: Iterable[int]) -> Scores:
    """The scores [seeds, sequences] of some seeds, sequences in the order of their names."""
    return np.array([[auc for _, auc in sorted(by_seed[seed].items())] for seed in seeds])
