"""A study: what to train, what to evaluate on, and which rows to compare, as its YAML file describes it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser

from relo.commands.main import one_sentence
from relo.data.synthetic.command import Difficulty
from relo.errors import UserError
from relo.files import load_yaml
from relo.models.inference import Precision

RowLocalization = Literal["policy", "prior", "oracle"]
Stage = Literal["warmup", "rl"]

_NAME = re.compile(r"[\w-]+")
_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Rendering:
    """Synthetic sequences in LaSOT's layout; the attributes are those of `relo data synthesize`."""

    sequences: int
    frames: int = 60
    difficulty: Difficulty = "default"
    seed: int = 0
    width: int = 320
    height: int = 240


@dataclass(frozen=True)
class Recorded:
    """Sequences that are there already.

    Attributes:
        path: the root of a dataset; relative to the folder of the study's results.
        dataset: the dataset's name (see `relo.data.sequences.DATASETS`).
        split: a split of the dataset.
    """

    path: str
    dataset: str
    split: str = "test"


@dataclass(frozen=True)
class EvaluationSettings:
    """How rows are evaluated.

    Attributes:
        batch_size: sequences in one batch.
        precision: of the network's layers.
        rule: a file of tracking settings; the training config's own if not given.
        window_exponents: each row and seed tracks the validation sets with each of these, and the test sets with the
            one whose AUC, averaged over the sets, was best; the rule's own if none are given. Oracles have no window.
    """

    batch_size: int = 32
    precision: Precision = "float32"
    rule: str | None = None
    window_exponents: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One way to train and to localize.

    Attributes:
        stages: the stages that are trained, one upon the other. Without "rl" the warmed-up network is evaluated,
            without "warmup" the RL stage starts from random weights.
        warmup: a config that is merged over the study's for the warm-up. Rows with the same one share the warm-up.
        rl: a config that is merged over the study's for the RL stage.
        localization: the map that picks the cell: the policy's, the prior's, or "oracle", which is shown the truth and
            picks the cell with the best box.
        rule: a file of tracking settings for this row, where the study's `evaluation.rule` does not suit it.
    """

    stages: tuple[Stage, ...] = ("warmup", "rl")
    warmup: str | None = None
    rl: str | None = None
    localization: RowLocalization = "policy"
    rule: str | None = None


@dataclass(frozen=True)
class Group:
    """Rows that are compared with each other; a row may be in several groups.

    Attributes:
        title: what is varied.
        reference: the row that the others are held against.
        rows: the title of each row, by its name, in order.
        axis: what the titles count, where they are numbers: the scores are then plotted over it, too.
    """

    title: str
    reference: str
    rows: dict[str, str]
    axis: str | None = None


@dataclass(frozen=True)
class _Base:
    """What of a study is not sequences, rows or groups."""

    rl: str
    seeds: list[int]
    warmup: str | None = None
    weights: str | None = None
    pooled: list[str] = field(default_factory=list)
    evaluation: EvaluationSettings = EvaluationSettings()


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        path: its file.
        warmup: the config of the warm-up, or, where `weights` are given, none.
        weights: a checkpoint or model folder in the place of every row's and seed's warm-up.
        rl: the config of the RL stage.
        seeds: each row is trained with each of these.
        data: what to render and pack into the clip store `data/<name>` of the results' folder, by name. Training runs
            in that folder, so configs name these stores by their relative path.
        tests: what to evaluate on, by name.
        validation: what `evaluation.window_exponents` are chosen on, by name.
        pooled: the test sets whose sequences make up a row's main score.
        evaluation: how rows are evaluated.
        rows: what to train and evaluate, by name.
        groups: how rows are compared, by name.
    """

    path: Path
    warmup: Path | None
    weights: Path | None
    rl: Path
    seeds: tuple[int, ...]
    data: Mapping[str, Rendering]
    tests: Mapping[str, Rendering | Recorded]
    validation: Mapping[str, Rendering | Recorded]
    pooled: tuple[str, ...]
    evaluation: EvaluationSettings
    rows: Mapping[str, Row]
    groups: Mapping[str, Group]

    def file(self, name: str) -> Path:
        """A file that the study names; relative to the study's own."""
        return self.path.parent / name


def read_study(path: Path) -> Study:
    """Read a study from YAML: the attributes of `Study`, paths relative to the file.

    Raises:
        UserError: the file cannot be read, or a setting does not exist, is missing or makes no sense.
    """
    content = read_settings(path)
    tables: dict[str, dict[str, Any]] = {
        name: _table(content.pop(name, None) or {}, f"{path}, {name}")
        for name in ("data", "tests", "validation", "rows", "groups")
    }
    base = _typed(_Base, content, str(path))
    study = Study(
        path=path.resolve(),
        warmup=None if base.warmup is None else path.resolve().parent / base.warmup,
        weights=None if base.weights is None else path.resolve().parent / base.weights,
        rl=path.resolve().parent / base.rl,
        seeds=tuple(base.seeds),
        data={name: _typed(Rendering, entry, f"{path}, data.{name}") for name, entry in tables["data"].items()},
        tests={name: _test_set(entry, f"{path}, tests.{name}") for name, entry in tables["tests"].items()},
        validation={
            name: _test_set(entry, f"{path}, validation.{name}") for name, entry in tables["validation"].items()
        },
        pooled=tuple(base.pooled or tables["tests"]),
        evaluation=base.evaluation,
        rows={name: _typed(Row, entry or {}, f"{path}, rows.{name}") for name, entry in tables["rows"].items()},
        groups={name: _typed(Group, entry, f"{path}, groups.{name}") for name, entry in tables["groups"].items()},
    )
    _check(study)
    return study


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        UserError: it cannot be read, or holds anything else.
    """
    try:
        content = load_yaml(path)
    except OSError as error:
        raise UserError(f"The file {path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The file {path} is no YAML: {' '.join(str(error).split())}.") from error
    return _table(content, str(path))


def _table(content: Any, place: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{place}: here must be settings by name, such as `name: value`.")
    return content


def _test_set(settings: Any, place: str) -> Rendering | Recorded:
    if "path" in _table(settings, place):
        return _typed(Recorded, settings, place)
    return _typed(Rendering, settings, place)


def _typed(kind: type[_Settings], settings: Any, place: str) -> _Settings:
    """Plain data as the attributes of a dataclass, types checked; `place` says in errors where they stand."""

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise UserError(f"{place}: {one_sentence(message)}.")

    parser: Any = Parser()
    parser.add_class_arguments(kind, fail_untyped=True)
    parsed = parser.instantiate(parser.parse_object(_table(settings, place)))
    return kind(**vars(parsed))


def _check(study: Study) -> None:
    def require(holds: bool, sentence: str) -> None:
        if not holds:
            raise UserError(f"{study.path}: {sentence}.")

    require(bool(study.seeds) and len(set(study.seeds)) == len(study.seeds), "give at least one seed, and none twice")
    require(bool(study.tests) and bool(study.groups), "give at least one test set and one group")
    require((study.warmup is None) != (study.weights is None), "give either warmup or weights")
    for name in (*study.data, *study.tests, *study.validation, *study.rows, *study.groups):
        require(_NAME.fullmatch(name) is not None, f"{name!r} names folders, so letters, digits, - and _ only")
    exponents = study.evaluation.window_exponents
    require(bool(exponents) == bool(study.validation), "window_exponents and validation sets need each other")
    require(all(exponent >= 0 for exponent in exponents), f"window_exponents start at 0: {exponents}")
    for name in study.pooled:
        require(name in study.tests, f"pooled names {name!r}, which is no test set ({', '.join(study.tests)})")
    for name, row in study.rows.items():
        place = f"rows.{name}"
        require(row.stages in (("warmup", "rl"), ("warmup",), ("rl",)), f"{place} has no such stages: {row.stages}")
        trained = row.stages if study.weights is None else set(row.stages) - {"warmup"}
        for stage, file in (("warmup", row.warmup), ("rl", row.rl)):
            require(file is None or stage in trained, f"{place} has a config for {stage}, which is not trained")
        learned = "rl" in row.stages or row.localization != "policy"
        require(learned, f"{place} localizes by the policy, which the warm-up does not train")
        require(any(name in group.rows for group in study.groups.values()), f"{place} is in no group")
    for group_name, group in study.groups.items():
        place = f"groups.{group_name}"
        for name in group.rows:
            require(name in study.rows, f"{place} has {name!r}, which is no row")
        require(group.reference in group.rows, f"{place} has the reference {group.reference!r}, which is none of it")
        numbers = all(_is_number(title) for title in group.rows.values())
        require(group.axis is None or numbers, f"{place} has an axis, so its rows' titles must be numbers")
    files = [file for file in (study.warmup, study.rl) if file is not None]
    files += [study.file(file) for row in study.rows.values() for file in (row.warmup, row.rl) if file is not None]
    rules = (study.evaluation.rule, *(row.rule for row in study.rows.values()))
    files += [study.file(rule) for rule in rules if rule is not None]
    for path in files:
        require(path.is_file(), f"there is no file {path}")
    require(study.weights is None or study.weights.exists(), f"there are no weights {study.weights}")


def _is_number(title: str) -> bool:
    try:
        float(title)
    except ValueError:
        return False
    return True
