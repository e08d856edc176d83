"""What a scoring rule is: one sequence's truth and result in, scores and curves out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relo.errors import UserError
from relo.models.checkpoints.plugin import Plugin


@dataclass(frozen=True)
class SequenceTruth:
    """What is known of one sequence.

    Attributes:
        name: the sequence's name in its benchmark.
        boxes_xywh: float64 [N, 4], image pixels, as annotated; NaN, zeros or negative sizes where the benchmark
            writes them.
        absent: bool [N], the target cannot be seen, by the benchmark's own flags; None where it has none.
        image_size: width and height in pixels, where the rule needs it.
        origin: the file that the boxes come from, for errors.
    """

    name: str
    boxes_xywh: Tensor
    absent: Tensor | None = None
    image_size: tuple[int, int] | None = None
    origin: str = ""

    def __len__(self) -> int:
        return len(self.boxes_xywh)


@dataclass(frozen=True)
class Remark:
    """Something unusual about one sequence's result, and what the rule made of it."""

    sequence: str
    kind: Literal["missing", "short", "long", "invalid", "unmatched"]
    text: str


@dataclass(frozen=True)
class SequenceScore:
    """The scores of one sequence.

    Attributes:
        name: the sequence's name.
        frames: its number of annotated frames.
        weight: how much it counts in the benchmark's mean.
        values: scores as fractions, by name.
        curves: curves [K] by name, at the rule's thresholds.
        remarks: what was unusual.
    """

    name: str
    frames: int
    weight: float
    values: Mapping[str, float]
    curves: Mapping[str, Tensor]
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class BenchmarkScore:
    """One tracker's scores on one benchmark; standard errors are over sequences, where these count alike."""

    values: Mapping[str, float]
    curves: Mapping[str, Tensor]
    standard_errors: Mapping[str, float]


class ScoringRule(Plugin, ABC):
    """How a benchmark scores: a subclass, or an instance of one, for each rule.

    A rule takes result files as their authors wrote them. Every irregularity is either refused (`UserError`) or
    scored the way the benchmark's own code does, and then told in a `Remark`: never mended in silence.

    Attributes:
        name: what the rule is called on the command line and in every report.
        source: the code or paper that the rule follows.
        scores: the names of `SequenceScore.values`, the most important first.
        missing_result: whether a sequence without a result is refused or scored as a result of zeros.
        repetitions: the rule pools several runs of one sequence; else there must be one.
    """

    name: str
    source: str
    scores: tuple[str, ...] = ("auc", "precision", "normalized_precision")
    missing_result: Literal["refuse", "zeros"] = "refuse"
    repetitions: bool = False

    @property
    @abstractmethod
    def thresholds(self) -> Mapping[str, Tensor]:
        """Where each curve is sampled, [K] by the curve's name."""

    @property
    def needs_absent(self) -> bool:
        """Whether the rule cannot score without flags of absent frames."""
        return False

    @abstractmethod
    def score(self, truth: SequenceTruth, predictions_xywh: Sequence[Tensor]) -> SequenceScore:
        """Score one sequence.

        Args:
            truth: the annotation of N frames.
            predictions_xywh: one or more runs, float64 [M, 4] each, image pixels, as written in the file.

        Raises:
            UserError: the benchmark's own code would refuse this result.
        """

    def summarize(self, scores: Sequence[SequenceScore]) -> BenchmarkScore:
        """The benchmark's scores: means of the sequences' by their weights."""
        weights = torch.tensor([score.weight for score in scores], dtype=torch.float64)
        weights = weights / weights.sum()
        values, errors = {}, {}
        for name in scores[0].values:
            column = torch.tensor([score.values[name] for score in scores], dtype=torch.float64)
            values[name] = float(weights @ column)
            if len(scores) > 1 and bool((weights == weights[0]).all()):
                errors[name] = float(column.std() / len(scores) ** 0.5)
        curves = {name: weights @ torch.stack([score.curves[name] for score in scores]) for name in scores[0].curves}
        return BenchmarkScore(values, curves, errors)


def count_rows(truth: SequenceTruth, rows: int, treatment: str) -> tuple[Remark, ...]:
    """A remark where a result's number of rows is not the truth's."""
    if rows == len(truth):
        return ()
    kind: Literal["short", "long"] = "short" if rows < len(truth) else "long"
    return (Remark(truth.name, kind, f"{rows} rows for {len(truth)} frames; {treatment}"),)


def count_invalid(truth: SequenceTruth, invalid: Tensor, treatment: str) -> tuple[Remark, ...]:
    """A remark where rows [M] of a result are no box."""
    count = int(invalid.sum())
    if not count:
        return ()
    first = int(invalid.nonzero()[0]) + 1
    rows = f"{count} rows without a box (the first is row {first})" if count > 1 else f"row {first} is without a box"
    return (Remark(truth.name, "invalid", f"{rows}; {treatment}"),)


def refuse_rows(truth: SequenceTruth, rows: int, rule: str) -> None:
    """Refuse a result whose number of rows the rule cannot score."""
    if rows != len(truth):
        raise UserError(
            f"The result of sequence {truth.name} has {rows} rows, but the sequence has {len(truth)} frames, and rule "
            f"{rule} does not score that; track the sequence again, or name another rule."
        )
