"""From a study to its steps."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from relo.errors import UserError
from relo.studies.steps import Evaluation, GivenWeights, Step, Training, digest, resolved
from relo.studies.study import Row, Study


@dataclass(frozen=True)
class Plan:
    """The steps of some rows and seeds of a study.

    Attributes:
        steps: all of them; each comes after those that it needs, and the rows of one seed before those of the next.
        evaluations: those that give scores, by row and seed.
    """

    steps: tuple[Step, ...]
    evaluations: dict[tuple[str, int], Evaluation]


def make_plan(study: Study, rows: Collection[str], seeds: Sequence[int]) -> Plan:
    """The steps of some rows of a study.

    Raises:
        UserError: a config is no YAML.
    """
    of_rows = [_evaluation(study, name, row, seeds[0]) for name, row in study.rows.items() if name in rows]
    steps: dict[Step, None] = {}
    evaluations = {}
    for seed in seeds:
        for of_row in of_rows:
            evaluation = replace(of_row, training=_with_seed(of_row.training, seed))
            stages = [evaluation.training.start, evaluation.training]
            steps |= dict.fromkeys([*(stage for stage in stages if stage is not None), evaluation])
            evaluations[of_row.row, seed] = evaluation
    return Plan(tuple(steps), evaluations)


def chosen_rows(study: Study, only: Sequence[str]) -> list[str]:
    """The rows that `only` names, by their own name or by their group's; all of them where it names none.

    Raises:
        UserError: a name is neither.
    """
    chosen: set[str] = set()
    for name in only:
        if name not in study.rows and name not in study.groups:
            raise UserError(
                f"{study.path} has no group and no row {name!r}; its groups are {', '.join(study.groups)}, its rows "
                f"{', '.join(study.rows)}."
            )
        chosen |= {name} & study.rows.keys()
        chosen |= study.groups[name].rows.keys() if name in study.groups else set()
    return [name for name in study.rows if name in chosen or not only]


def _evaluation(study: Study, name: str, row: Row, seed: int) -> Evaluation:
    training: Training | None = None
    for stage in row.stages:
        if stage == "warmup" and study.weights is not None:
            training = GivenWeights("weights", seed, (), None, _file_digest(study.weights), study.weights)
            continue
        base, override = (study.warmup, row.warmup) if stage == "warmup" else (study.rl, row.rl)
        assert base is not None  # checked when the study was read
        training = _training(study, stage, base, override, training, seed)
    assert training is not None
    rule = row.rule or study.evaluation.rule
    rule_file = None if rule is None else study.file(rule)
    return Evaluation(name, training, row.localization, study.tests, study.validation, study.evaluation, rule_file)


def _file_digest(path: Path) -> str:
    """Of the contents of a file, or of the files of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return digest([hashlib.blake2b(file.read_bytes()).hexdigest() for file in files])


def _with_seed(training: Training, seed: int) -> Training:
    start = None if training.start is None else _with_seed(training.start, seed)
    return replace(training, seed=seed, start=start)


def _training(
    study: Study, stage: str, base: Path, override: str | None, start: Training | None, seed: int
) -> Training:
    configs = (base,) if override is None else (base, study.file(override))
    data = {name: asdict(rendering) for name, rendering in study.data.items()}
    settings = [[resolved(path) for path in configs], data, None if start is None else start.digest]
    label = stage if override is None else f"{stage}.{Path(override).stem}"
    return Training(label, seed, configs, start, digest(settings))
