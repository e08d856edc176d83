"""The scores of tracking whole sequences: what they are computed with, shown as, and written to."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from rich.console import Console
from rich.table import Table
from torchmetrics import Metric, MetricCollection

from relo.evaluation.plots import success_plot
from relo.evaluation.result_folder import SequenceResult, write_result
from relo.evaluation.sequence_scores import sequence_auc
from relo.files import write_text
from relo.learning.base import of_all_ranks
from relo.metrics import AverageOverlap, NormalizedPrecision, Precision, SuccessAUC, SuccessRate

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
        report = {name: _summary(metrics) for name, metrics in pl_module.scores.items()}
        sequences = {name: _sequence_aucs(results) for name, results in pl_module.validation_results.items()}
        count = len(next(iter(sequences.values())))
        folder = Path(trainer.default_root_dir) / "validation"
        is_written = trainer.state.fn == "validate"
        if is_written:
            for name, results in pl_module.validation_results.items():
                for result in results:
                    write_result(folder / name / result.sequence.dataset, result)
        if not trainer.is_global_zero:
            return
        Console().print(score_table(report, count))
        if is_written:
            content = {**report, "sequences": count, "per_sequence": sequences}
            write_text(folder / "scores.json", json.dumps(content, indent=2) + "\n")
            success_plot({name: scores["success_curve"] for name, scores in report.items()}, folder / "success.png")
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
