"""The scores of tracking whole sequences: what they are computed with, shown as, and written to."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from rich.console import Console
from rich.table import Table
from torchmetrics import Metric, MetricCollection

from relo.data.datamodule import SequenceDataset
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.plots import success_plot
from relo.evaluation.result_folder import SequenceResult, identity, read_finished, write_result
from relo.evaluation.sequence_scores import sequence_auc
from relo.files import write_text
from relo.learning.base import of_all_ranks
from relo.metrics import AverageOverlap, NormalizedPrecision, Precision, SuccessAUC, SuccessRate
from relo.tracking.tracker import Tracker

UNFINISHED = "unfinished.json"
"""In the folder of a validation that is under way or was stopped: what it tracks by."""

METRICS: dict[str, tuple[Callable[[], Metric], str]] = {
    "auc": (SuccessAUC, "success AUC"),
    "precision": (Precision, "precision (20 px)"),
    "normalized_precision": (NormalizedPrecision, "normalized precision (0.2)"),
    "ao": (AverageOverlap, "AO"),
    "sr_50": (partial(SuccessRate, 0.5), "SR 0.5"),
}


def tracking_metrics() -> MetricCollection:
    """The metrics of one localization, by name; they take boxes_xywh, true boxes_xywh and which are visible."""
    metrics: dict[str, Any] = {name: metric() for name, (metric, _) in METRICS.items()}
    return MetricCollection(metrics, compute_groups=False)


def results_folder(trainer: Any) -> Path | None:
    """Where `relo validate` leaves what it finds; None in a fit, and where a trainer has no `ValidationReport`."""
    reports = any(isinstance(callback, ValidationReport) for callback in trainer.callbacks)
    return Path(trainer.default_root_dir) / "validation" if reports and trainer.state.fn == "validate" else None


def begin_validation(folder: Path, trackers: Mapping[str, Tracker], trainer: Trainer) -> None:
    """Remove earlier results, but for those of the same sequences by the same trackers, where the work was stopped.

    Raises:
        UserError: the results of two sequences would share a file.
    """
    sequences = getattr(trainer.val_dataloaders, "dataset", None)
    content: dict[str, Any] = {name: identity(tracker) for name, tracker in trackers.items()}
    if isinstance(sequences, SequenceDataset):
        sequences.require_own_names()
        content["sources"] = [asdict(source) for source in sequences.sources]
    if trainer.is_global_zero:
        text = json.dumps(content, indent=2, default=str) + "\n"
        before = None
        with suppress(OSError, ValueError):
            before = (folder / UNFINISHED).read_text()
        if before != text:
            for name in trackers:
                for file in folder.glob(f"{name}/*/*.txt"):
                    file.unlink(missing_ok=True)
            write_text(folder / UNFINISHED, text)
    trainer.strategy.barrier()


def track(tracker: Tracker, batch: Sequence[AnnotatedSequence], folder: Path | None) -> list[SequenceResult]:
    """Track a batch of sequences from their first boxes.

    With a folder, results are those of its files `<dataset>/<sequence>.txt` and the ones beside it, as `relo test`
    leaves them: what is there is not tracked again.
    """
    if folder is None:
        return run_one_pass(tracker, batch, batch_size=len(batch))
    missing = [sequence for sequence in batch if read_finished(folder / sequence.dataset, sequence) is None]
    run_one_pass(
        tracker,
        missing,
        batch_size=len(batch),
        on_result=lambda result: write_result(folder / result.sequence.dataset, result),
    )
    return [result for sequence in batch if (result := read_finished(folder / sequence.dataset, sequence)) is not None]


class ValidationReport(Callback):
    """After `relo validate`, writes into `<default_root_dir>/validation`, beside the sequences' results:

    - `scores.json`, the scores of each map, its success curve and every sequence's AUC;
    - `success.png`, the success curves.

    During a fit it only prints the table.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Gather the results of all ranks, then print and write them."""
        report = {name: _summary(metrics) for name, metrics in pl_module.scores.items()}
        sequences = {name: _sequence_aucs(results) for name, results in pl_module.validation_results.items()}
        count = len(next(iter(sequences.values())))
        folder = results_folder(trainer)
        if not trainer.is_global_zero:
            return
        Console().print(score_table(report, count))
        if folder is not None:
            content = {**report, "sequences": count, "per_sequence": sequences}
            write_text(folder / "scores.json", json.dumps(content, indent=2) + "\n")
            success_plot({name: scores["success_curve"] for name, scores in report.items()}, folder / "success.png")
            (folder / UNFINISHED).unlink(missing_ok=True)
            Console().print(f"Boxes, scores and plots are in {folder}.")


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
