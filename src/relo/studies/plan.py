"""From a study to its steps."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from relo.errors import UserError
from relo.settings import check_whole
from relo.studies.steps import Evaluation, Step, Training, callbacks_of, digest
from relo.studies.study import Stage, Study, merged, resolved

_LARGEST_SEED = 2**32 - 1  # Lightning's

Plan = dict[tuple[str, int], Evaluation]
"""Evaluations by row and seed, the rows of one seed before those of the next."""


def make_plan(study: Study, seeds: Sequence[int], output: Path) -> Plan:
    """The evaluations of all rows with some seeds, and in them what they need; their results lie in `output`.

    Raises:
        UserError: a config cannot be read, or a seed is out of range.
    """
    for seed in seeds:
        check_whole("A training", 0, _LARGEST_SEED, seed=seed)
    settings_in, digest_of = cache(resolved), cache(_digest_of_files)  # each file is read once
    clips = {name: asdict(rendering) for name, rendering in study.data.items()}
    validation = {name: asdict(entry) for name, entry in study.validation.items()}

    def training(stage: Stage, names: Sequence[str], before: Training | None, seed: int) -> Training:
        config, given, changes = study.stage(stage), None, study.changed(names)
        callbacks: list[Any] = []
        if config is None:
            given = study.file(study.weights or "")
            label, content = "weights", digest_of(given)
        else:
            label = stage if not names else f"{stage}.{'+'.join(Path(name).stem for name in names)}"
            configs = [settings_in(config), *([changes] if names else [])]
            callbacks = callbacks_of(merged(settings_in(config), changes))
            # They are named once more: what was trained when they were left out is not taken for the same.
            named = [callbacks] if callbacks else []
            content = digest([configs, clips, None if before is None else before.digest, *named])
        folder = output / "training" / f"{label}-{content}" / f"seed{seed}"
        needs = () if before is None else (before,)
        return Training(f"{label}, seed {seed}", folder, needs, label, content, seed, config, changes, callbacks, given)

    def evaluation(row: str, of: Training) -> Evaluation:
        file = study.rows[row].rule or study.evaluation.rule
        rule = None if file is None else study.file(file)
        settings = asdict(study.evaluation) | {"rule": None if rule is None else settings_in(rule)}
        content = digest([of.digest, study.rows[row].localization, settings, validation])
        name, folder = f"{row}, seed {of.seed}: evaluation", output / "scores" / row / f"seed{of.seed}"
        return Evaluation(name, folder, (of,), study, row, of, output, rule, content)

    plan: Plan = {}
    for seed in seeds:
        for name, row in study.rows.items():
            last: Training | None = None
            for stage in row.stages:
                last = training(stage, row.changes(stage), last, seed)
            assert last is not None  # a row has a stage
            first = plan.get((name, seeds[0]))
            # Given weights are the same with every seed.
            plan[name, seed] = first if first is not None and last.given is not None else evaluation(name, last)
    return plan


def steps_of(plan: Plan) -> list[Step]:
    """The steps of a plan, each once and after those that it needs."""
    trained = ((evaluation.training, evaluation) for evaluation in plan.values())
    return list(dict.fromkeys(step for training, last in trained for step in (*training.needs, training, last)))


def chosen_rows(study: Study, only: Sequence[str]) -> list[str]:
    """The rows that `only` names, by their own name or by their group's; all of them where it names none.

    Raises:
        UserError: a name is neither.
    """
    for name in only:
        if name not in study.rows and name not in study.groups:
            raise UserError(
                f"{study.path} has no group and no row {name!r}; its groups are {', '.join(study.groups)}, its rows "
                f"{', '.join(study.rows)}."
            )
    chosen = {*only, *(row for name in only if name in study.groups for row in study.groups[name].rows)}
    return [name for name in study.rows if name in chosen or not only]


def _digest_of_files(path: Path) -> str:
    """Of the contents of a file, or of the files of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return digest([hashlib.blake2b(file.read_bytes()).hexdigest() for file in files])
