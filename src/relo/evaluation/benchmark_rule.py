"""Choose the tracking rule for a benchmark (the model's or a file's, with its changes), and describe the choice."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from relo.data.sequences.datasets import find_benchmark
from relo.errors import UserError
from relo.models.checkpoints.weights import RULE_FILE, resolve
from relo.models.heads import Localization
from relo.tracking.rule import RuleFile, TrackingRule, own_rules, read_rule_file

EVERYWHERE = "none"
"""Given as a benchmark: one rule for all of them."""


@dataclass(frozen=True)
class BenchmarkRule:
    """How to track a benchmark, and why so.

    Attributes:
        rule: the rule.
        benchmark: whose settings are applied where there are any; None is one rule for every benchmark.
        settings: what they are; None where the benchmark has none of its own.
        summary: the same in a sentence.
    """

    rule: TrackingRule
    benchmark: str | None
    settings: Mapping[str, Any] | None
    summary: str

    def notes(self) -> dict[str, Any]:
        """What `run.json` says of it, beside the whole rule."""
        return {"benchmark": self.benchmark, "benchmark_settings": self.settings}


def benchmark_rule(
    model: str,
    rule: Path | None,
    benchmark: str | None,
    dataset: str,
    localization: Localization | None = None,
    split: str = "test",
) -> BenchmarkRule:
    """The rule to track a dataset with.

    Args:
        model: a model's name, its folder, or a checkpoint.
        rule: a file of the tracking settings that differ from the model's own, see `read_rule_file`.
        benchmark: whose settings to apply; the dataset's own if not given, and "none" for one rule everywhere.
        dataset: the dataset's name.
        localization: the map that picks the cell, if not the rule's.
        split: the dataset's split: only its test split is the benchmark, whose settings need not be asked for.

    Raises:
        UserError: there is no such model or benchmark, the file cannot be used, or settings were asked for of a model
            that has none.
    """
    name = None
    if benchmark is not None and benchmark != EVERYWHERE:
        name = find_benchmark(benchmark).name
    elif benchmark is None and split == "test":
        with suppress(UserError):  # a dataset that is no benchmark
            name = find_benchmark(dataset).name
    if rule is not None:
        origin, file = f"{rule} for {model}", read_rule_file(rule, model)
    else:
        own = resolve(model)
        has_file = os.path.lexists(own / RULE_FILE)
        origin, file = str(own / RULE_FILE) if has_file else model, own_rules(own)
        # Exported graphs have settings without a file.
        if not has_file and not file.benchmarks and name is not None and benchmark is not None:
            raise UserError(f"The model {model} has no {RULE_FILE} with settings for benchmarks; give one with --rule.")
    entry = None if name is None else _entries(file, str(rule or origin)).get(name)
    chosen = file.rule if entry is None else file.on(entry)
    if localization is not None:
        chosen = replace(chosen, localization=localization)
    settings = None if entry is None else file.benchmarks[entry]
    if settings is not None:
        reason = f"{origin} has settings of its own for {name}: {_listed(settings)}."
    elif name is not None:
        reason = f"{origin} has no settings of its own for {name}: its default rule holds."
    elif benchmark is None and split != "test":
        reason = f"Split {split} of {dataset} is no benchmark: the default rule of {origin} holds."
    else:
        reason = f"One rule for every benchmark, from {origin}."
    return BenchmarkRule(chosen, name, settings, f"{reason} Rule: {_listed(asdict(chosen))}.")


def _entries(file: RuleFile, origin: str) -> dict[str, str]:
    """The names under which a file has settings, by the benchmarks' own."""
    entries: dict[str, str] = {}
    for entry in file.benchmarks:
        try:
            name = find_benchmark(entry).name
        except UserError as error:
            raise UserError(f"{origin}: {error}") from error
        if name in entries:
            raise UserError(f"{origin}: {entries[name]} and {entry} are one benchmark; keep one of them.")
        entries[name] = entry
    return entries


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str(value).lower()}" for name, value in settings.items() if value is not None) or "none"
