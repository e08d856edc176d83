"""Validation by tracking whole sequences: their scores, what they are shown as, and written to."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from rich.table import Table
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from relo.console import make_console
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.errors import UserError
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.plots import save_png, success_plot
from relo.evaluation.result_folder import SequenceResult, identity, read_finished, write_result
from relo.evaluation.sequence_scores import sequence_auc
from relo.files import write_text
from relo.learning.base import of_all_ranks
from relo.metrics import AverageOverlap, NormalizedPrecision, Precision, SuccessAUC, SuccessRate
from relo.models.heads import Localization
from relo.models.network import LocalizationNetwork
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker

METRICS: dict[str, tuple[Callable[[], Metric], str]] = {
    "auc": (SuccessAUC, "success AUC"),
    "precision": (Precision, "precision (20 px)"),
    "normalized_precision": (NormalizedPrecision, "normalized precision (0.2)"),
    "ao": (AverageOverlap, "AO"),
    "sr_50": (partial(SuccessRate, 0.5), "SR 0.5"),
}


class TrackedSequences(nn.Module):
    """The sequences of a validation, tracked from their first boxes once per localization, and their scores.

    Attributes:
        scores: the metrics of all sequences of all ranks, by localization.
        results: the sequences that this rank has tracked, by localization.
        unfinished: by localization, where `relo validate` keeps what it has found.
    """

    def __init__(self, network: LocalizationNetwork, localizations: Sequence[Localization]) -> None:
        """Start with no sequence.

        Raises:
            UserError: no localization is given, or one that the network does not have.
        """
        super().__init__()
        if not localizations:
            raise UserError("model.localizations names no map to validate with: name policy, prior or both.")
        if "prior" in localizations and network.prior is None:
            raise UserError("Validation asks for the prior, but the network has no prior: see model.localizations.")
        self.scores = {name: _metrics() for name in localizations}
        self.results: dict[Localization, list[SequenceResult]] = {}
        self.unfinished: dict[Localization, Path] = {}
        # So that they follow the module to its device.
        self._metrics = nn.ModuleDict({str(name): metrics for name, metrics in self.scores.items()})
        self._trackers: dict[Localization, Tracker] = {}

    @property
    def is_under_way(self) -> bool:
        """Whether a validation has begun, and its scores are not there yet."""
        return bool(self._trackers)

    def start(self, network: LocalizationNetwork, rule: TrackingRule, trainer: Trainer) -> None:
        """Forget the last validation, and make the trackers of this one."""
        folder, self.unfinished = _results_folder(trainer), {}
        self.results = {name: [] for name in self.scores}
        self._trackers = {name: Tracker(network, replace(rule, localization=name)) for name in self.scores}
        if folder is not None:
            self.unfinished = {
                name: _unfinished_folder(folder, tracker, network) for name, tracker in self._trackers.items()
            }

    def track(self, batch: Sequence[AnnotatedSequence]) -> None:
        """Track a batch of sequences, and take up their scores."""
        for name, tracker in self._trackers.items():
            for result in _track(tracker, batch, self.unfinished.get(name)):
                self.results[name].append(result)
                values = (result.boxes_xywh, result.sequence.boxes_xywh, result.sequence.visible)
                self.scores[name].update(*(torch.from_numpy(value).to(tracker.device) for value in values))

    def finish(self) -> dict[str, Tensor]:
        """The scores by localization and metric, such as `policy_auc`; those of the next validation begin at zero."""
        self.stop()
        found: dict[str, Tensor] = {}
        for name, metrics in self.scores.items():
            found |= {f"{name}_{metric}": value.float() for metric, value in metrics.compute().items()}
            metrics.reset()
        return found

    def stop(self) -> None:
        """Let go of the trackers, which hold buffers on a GPU."""
        self._trackers = {}


def _metrics() -> MetricCollection:
    """The metrics of one localization, by name; they take boxes_xywh, true boxes_xywh and which are visible."""
    metrics: dict[str, Any] = {name: metric() for name, (metric, _) in METRICS.items()}
    return MetricCollection(metrics, compute_groups=False)


def _results_folder(trainer: Any) -> Path | None:
    """Where `relo validate` leaves what it finds; None in a fit, and where a trainer has no `ValidationReport`."""
    reports = any(isinstance(callback, ValidationReport) for callback in trainer.callbacks)
    return Path(trainer.default_root_dir) / "validation" if reports and trainer.state.fn == "validate" else None


def _unfinished_folder(folder: Path, tracker: Tracker, network: LocalizationNetwork) -> Path:
    """Where a validation keeps what it has found, to go on from there when it was stopped.

    Its name is a hash of what decides the boxes: another network, rule or map has another.
    """
    decisive = {**identity(tracker), "network": network.config()}
    return folder / f"unfinished-{hashlib.sha256(json.dumps(decisive, default=str).encode()).hexdigest()[:16]}"


def _track(tracker: Tracker, batch: Sequence[AnnotatedSequence], unfinished: Path | None) -> list[SequenceResult]:
    """Track a batch of sequences from their first boxes, but for those whose results are in the folder.

    With a folder, all results are those of its files, whose boxes have four decimals: a stopped validation has the
    scores of another.
    """
    if not batch:
        return []
    if unfinished is None:
        return run_one_pass(tracker, batch, batch_size=len(batch))
    found = {
        id(sequence): read_finished(unfinished / sequence.dataset, sequence, tracker.tells_presence)
        for sequence in batch
    }

    def keep(result: SequenceResult) -> None:
        folder = unfinished / result.sequence.dataset
        write_result(folder, result)
        found[id(result.sequence)] = read_finished(folder, result.sequence) or result

    missing = [sequence for sequence in batch if found[id(sequence)] is None]
    run_one_pass(tracker, missing, batch_size=len(batch), on_result=keep)
    return [result for sequence in batch if (result := found[id(sequence)]) is not None]


class ValidationReport(Callback):
    """After `relo validate`, writes into `<default_root_dir>/validation`:

    - `<map>/<dataset>/<sequence>.txt`, the boxes x, y, w, h of every frame as floats, and scores, times and
      presence beside them, as `relo test` leaves them;
    - `scores.json`, the scores of each map, its success curve and every sequence's AUC;
    - `success.png`, the success curves.

    During a fit it only prints the table.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Gather the results of all ranks, then print and write them."""
        report = {name: _summary(metrics) for name, metrics in pl_module.validation.scores.items()}
        sequences = {name: _sequence_aucs(results) for name, results in pl_module.validation.results.items()}
        count = len(next(iter(sequences.values())))
        folder = _results_folder(trainer)
        if folder is not None:
            for name, results in pl_module.validation.results.items():
                for result in results:
                    write_result(folder / name / result.sequence.dataset, result)
            trainer.strategy.barrier()  # what ranks found is written before it goes where a stopped validation left it
        if not trainer.is_global_zero:
            return
        make_console().print(score_table(report, count))
        if folder is not None:
            content = {**report, "sequences": count, "per_sequence": sequences}
            # NaN, as the error of a single sequence, is no JSON: null stands for it.
            content = json.loads(json.dumps(content), parse_constant=lambda number: None)
            write_text(folder / "scores.json", json.dumps(content, indent=2) + "\n")
            curves = {name: scores["success_curve"] for name, scores in report.items()}
            save_png(success_plot(curves), folder / "success.png")
            for unfinished in pl_module.validation.unfinished.values():
                shutil.rmtree(unfinished, ignore_errors=True)
            make_console(soft_wrap=True).print(f"Boxes, scores and plots are in {folder}.")


def score_table(report: dict[str, dict[str, Any]], sequences: int) -> Table:
    """The scores of each map side by side, in percent."""
    table = Table(title=f"One-pass evaluation of {sequences} sequences (percent)")
    table.add_column("")
    for name in report:
        table.add_column(name, justify="right")
    for metric, (_, title) in METRICS.items():
        cells = [f"{100 * scores[metric]:.2f}" for scores in report.values()]
        if metric == "auc":
            cells = [f"{c} ± {100 * s['auc_standard_error']:.2f}" for c, s in zip(cells, report.values(), strict=True)]
        table.add_row(title, *cells)
    return table


def _summary(metrics: MetricCollection) -> dict[str, Any]:
    """The scores of one map over all ranks (every rank must call this)."""
    success: Any = metrics["auc"]
    return {
        **{name: float(value) for name, value in metrics.compute().items()},
        "auc_standard_error": float(success.standard_error()),
        "success_curve": success.curve().tolist(),
    }


def _sequence_aucs(results: list[SequenceResult]) -> dict[str, float]:
    """Each sequence's AUC by dataset and name, of all ranks."""
    scores = {f"{result.sequence.dataset}/{result.sequence.name}": sequence_auc(result) for result in results}
    return dict(sorted(item for part in of_all_ranks(scores) for item in part.items()))
