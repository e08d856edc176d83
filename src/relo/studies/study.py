"""A study: what to train, what to evaluate on, and which rows to compare, as its YAML file describes it."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from jsonargparse import ArgumentParser

from relo.data.synthetic.command import Difficulty
from relo.errors import UserError, excerpt, one_sentence
from relo.files import read_yaml
from relo.models.checkpoints.weights import load_network
from relo.models.inference import Precision
from relo.settings import check_whole
from relo.tracking.rule import read_rule_file, rule_from_settings
from relo.yaml_traps import MOST_LEVELS, MOST_NODES

RowLocalization = Literal["policy", "prior", "oracle"]
Stage = Literal["warmup", "rl"]

POOLED = "pooled"
"""What tables call the sequences of all pooled test sets."""


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
    """Sequences that are there already: a split of a dataset."""

    path: str  # the dataset's root; relative to the folder of the study's results
    dataset: str  # its name, as for `relo test`
    split: str = "test"


@dataclass(frozen=True)
class EvaluationSettings:
    """How rows are evaluated."""

    batch_size: int = 32  # sequences in one batch
    precision: Precision = "float32"  # of the network's layers
    rule: str | None = None  # a file of tracking settings; the training config's own if not given
    # Each row and seed tracks the validation sets with each of these, and the test sets with the one whose AUC,
    # averaged over the sets, was best; with the rule's own if none are given. Oracles have no window.
    window_exponents: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One way to train and to localize.

    Attributes:
        stages: the stages that are trained, one upon the other. Without "rl" the warmed-up network is evaluated,
            without "warmup" the RL stage starts from random weights.
        warmup: the change or changes of the study (or YAML files beside it) that are merged over its warm-up's config,
            in this order. Rows with the same ones share the warm-up.
        rl: likewise for the RL stage.
        localization: the map that picks the cell: the policy's, the prior's, or "oracle", which is shown the truth and
            picks the cell with the best box.
        rule: a file of tracking settings for this row, where the study's `evaluation.rule` does not suit it.
    """

    stages: tuple[Stage, ...] = ("warmup", "rl")
    warmup: str | list[str] = field(default_factory=list)
    rl: str | list[str] = field(default_factory=list)
    localization: RowLocalization = "policy"
    rule: str | None = None

    def changes(self, stage: Stage) -> list[str]:
        """The names of a stage's changes."""
        names = self.warmup if stage == "warmup" else self.rl
        return [names] if isinstance(names, str) else names


@dataclass(frozen=True)
class Group:
    """Rows that are compared with each other; a row may be in several groups."""

    title: str  # what is varied
    reference: str  # the row that the others are held against
    rows: dict[str, str]  # the title of each row, by its name, in order
    axis: str | None = None  # what the titles count, where they are numbers: the scores are then plotted over it, too


@dataclass(frozen=True)
class Study:
    """A study. It names files relative to its own.

    Attributes:
        path: its file.
        data: what to render and pack into the clip store `data/<name>` of the results' folder, by name. Training runs
            in that folder, so configs name these stores by their relative path.
        tests: what to evaluate on, by name.
        validation: what `evaluation.window_exponents` are chosen on, by name.
        changes: parts of a training config that rows merge over a stage's, by name; or a YAML file that holds these.
        rows: what to train and evaluate, by name.
        groups: how rows are compared, by name.
        rl: the config of the RL stage.
        seeds: each row is trained with each of these.
        warmup: the config of the warm-up, or, where `weights` are given, none.
        weights: a checkpoint or model folder in the place of every row's and seed's warm-up.
        pooled: the test sets whose sequences make up a row's main score; all if none are given.
        evaluation: how rows are evaluated.
    """

    path: Path
    data: dict[str, Rendering]
    tests: dict[str, Rendering | Recorded]
    validation: dict[str, Rendering | Recorded]
    changes: dict[str, dict[str, Any]]
    rows: dict[str, Row]
    groups: dict[str, Group]
    rl: str
    seeds: list[int]
    warmup: str | None = None
    weights: str | None = None
    pooled: list[str] = field(default_factory=list)
    evaluation: EvaluationSettings = EvaluationSettings()

    def file(self, name: str) -> Path:
        """A file that the study names."""
        return self.path.parent / name

    def stage(self, stage: Stage) -> Path | None:
        """The config of a stage; None where it is not trained."""
        name = self.warmup if stage == "warmup" else self.rl
        return None if name is None else self.file(name)

    def changed(self, names: Sequence[str]) -> dict[str, Any]:
        """Changes in one, the later over the earlier."""
        settings: dict[str, Any] = {}
        for name in names:
            settings = merged(settings, self.changes[name] if name in self.changes else resolved(self.file(name)))
        return settings


_LARGEST_BATCH = 2**16
_TABLES = {"data": Rendering, "tests": Rendering, "validation": Rendering, "rows": Row, "groups": Group}


def read_study(path: Path) -> Study:
    """Read a study from YAML: the attributes of `Study`, but for `path`.

    Raises:
        UserError: the file cannot be read, or a setting does not exist, is missing or makes no sense.
    """
    content = _table(read_yaml(path, "The study"), str(path))
    tables: dict[str, dict[str, Any]] = {}
    for name, kind in _TABLES.items():
        tables[name] = {}
        for key, entry in _table(content.pop(name, None) or {}, f"{path}, {name}").items():
            place = f"{path}, {name}.{key}"
            settings = _table(entry or {}, place)
            is_recorded = name in ("tests", "validation") and "path" in settings
            tables[name][key] = _typed(Recorded if is_recorded else kind, settings, place)
    changes = _table(_Resolver(path).resolved(content.pop("changes", None) or {}), f"{path}, changes")
    for name, change in changes.items():
        _table(change, f"{path}, changes.{name}")
    content["pooled"] = content.get("pooled") or list(tables["tests"])
    study: Study = _typed(Study, content, str(path), path=path.resolve(), changes=changes, **tables)
    _check(study)
    return study


def resolved(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, those of the YAML files that it names in their place.

    Raises:
        UserError: a file cannot be read, holds anything else or too much, or names itself.
    """
    return _table(_Resolver(path).resolved(read_yaml(path, "The config")), str(path))


def merged(settings: Any, change: Any) -> Any:
    """Settings with a change over them: tables are merged, anything else is replaced."""
    if isinstance(settings, dict) and isinstance(change, dict):
        return settings | {name: merged(settings.get(name), value) for name, value in change.items()}
    return change


def _table(content: Any, place: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{place}: here must be settings by name, such as `name: value`.")
    return content


class _Resolver:
    """Puts the settings of YAML files into the place of their names."""

    def __init__(self, path: Path) -> None:
        """Begin with a file, whose values may name others."""
        self._path = path
        self._read = cache(read_yaml)  # each file once
        self._count = 0  # of values, those of a file as often as it is named

    def resolved(self, value: Any) -> Any:
        """A value of the file.

        Raises:
            UserError: a file that is named cannot be read, or names itself; there are too many values, or one is none
                that a config can hold.
        """
        return self._resolved(value, (self._path,), 0)

    def _resolved(self, value: Any, within: tuple[Path, ...], level: int) -> Any:
        """A value of the last of files of which each names the next."""
        path = within[-1]
        self._count += 1
        if self._count > MOST_NODES or level > MOST_LEVELS:
            raise UserError(
                f"{self._path} has more than {MOST_NODES:,} values, or values within one another over {MOST_LEVELS} "
                "times, each file that it names counted as often as it is named."
            )
        if isinstance(value, dict):
            return {str(name): self._resolved(entry, within, level + 1) for name, entry in value.items()}
        if isinstance(value, list):
            return [self._resolved(entry, within, level + 1) for entry in value]
        if isinstance(value, str) and value.endswith((".yaml", ".yml")) and os.path.isfile(path.parent / value):
            named = path.parent / value
            if any(named.samefile(other) for other in within):
                raise UserError(f"{named} names itself, or a file that names it: its settings would have no end.")
            return _table(self._resolved(self._read(named, "The config"), (*within, named), level + 1), str(named))
        if isinstance(value, date):
            return str(value)  # `relo fit` reads it as text
        if value is not None and not isinstance(value, (str, int, float)):
            raise UserError(
                f"{path} holds {excerpt(value)}; a setting is a text, a number, true, false, null or a list."
            )
        return value


def _typed(kind: type, settings: dict[str, Any], place: str, **given: Any) -> Any:
    """Plain data as the attributes of a dataclass, types checked; those that are `given` are taken as they are."""

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise UserError(f"{place}: {one_sentence(message)}.")

    parser: Any = Parser()
    parser.add_class_arguments(kind, skip=set(given), fail_untyped=True)
    return kind(**vars(parser.instantiate(parser.parse_object(settings))), **given)


def _check(study: Study) -> None:
    def require(holds: bool, sentence: str) -> None:
        if not holds:
            raise UserError(f"{study.path}: {sentence}.")

    require(bool(study.seeds) and len(set(study.seeds)) == len(study.seeds), "give at least one seed, and none twice")
    require(bool(study.tests) and bool(study.groups), "give at least one test set and one group")
    require((study.warmup is None) != (study.weights is None), "give either warmup or weights")
    for name in (*study.data, *study.tests, *study.validation, *study.rows, *study.groups):
        is_plain = re.fullmatch(r"[\w-]+", name) is not None
        require(is_plain, f"{name!r} names folders, so letters, digits, - and _ only")
    exponents = study.evaluation.window_exponents
    require(bool(exponents) == bool(study.validation), "window_exponents and validation sets need each other")
    for exponent in exponents:
        rule_from_settings({"window_exponent": exponent}, f"{study.path}, evaluation.window_exponents")
    check_whole(f"{study.path}, evaluation", 1, _LARGEST_BATCH, batch_size=study.evaluation.batch_size)
    require(POOLED not in study.tests, f"{POOLED!r} is what tables call the pooled test sets; name the set otherwise")
    for name in study.pooled:
        require(name in study.tests, f"pooled names {name!r}, which is no test set ({', '.join(study.tests)})")
    rules = dict.fromkeys([study.evaluation.rule, *(row.rule for row in study.rows.values())])
    for name in filter(None, [study.warmup, study.rl, *rules]):
        require(os.path.isfile(study.file(name)), f"there is no file {study.file(name)}")
    for name in filter(None, rules):
        read_rule_file(study.file(name))
    if study.weights is not None:
        require(os.path.exists(study.file(study.weights)), f"there are no weights {study.weights}")
        load_network(study.file(study.weights))
    for row_name, row in study.rows.items():
        place = f"rows.{row_name}"
        require(row.stages in (("warmup", "rl"), ("warmup",), ("rl",)), f"{place} has no such stages: {row.stages}")
        for stage in get_args(Stage):
            changes = row.changes(stage)
            is_trained = stage in row.stages and study.stage(stage) is not None
            require(is_trained or not changes, f"{place} changes the config of {stage}, which is not trained")
            for name in changes:
                known = name in study.changes or os.path.isfile(study.file(name))
                require(known, f"{place} names {name!r}: there is no such change, and there is no file {name}")
        has_map = "rl" in row.stages or row.localization != "policy"
        require(has_map, f"{place} localizes by the policy, which the warm-up does not train")
        require(any(row_name in group.rows for group in study.groups.values()), f"{place} is in no group")
    for group_name, group in study.groups.items():
        place = f"groups.{group_name}"
        for name in group.rows:
            require(name in study.rows, f"{place} has {name!r}, which is no row")
        require(
            group.reference in group.rows,
            f"{place} has the reference {group.reference!r}, which is not one of its rows",
        )
        are_numbers = all(map(_is_number, group.rows.values()))
        require(group.axis is None or are_numbers, f"{place} has an axis, so its rows' titles must be finite numbers")


def _is_number(title: str) -> bool:
    try:
        return math.isfinite(float(title))
    except ValueError:
        return False
