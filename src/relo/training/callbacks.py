"""What runs show and leave behind: tables, the scores of a validation, the checkpoint of a stopped fit."""

import json
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchmetrics import MetricCollection

from relo.evaluation.plots import success_plot
from relo.evaluation.result_folder import SequenceResult
from relo.evaluation.sequence_scores import sequence_auc
from relo.metrics import SuccessAUC
from relo.tracking.boxes_file import write_boxes, write_values, write_whole
from relo.training.module import RELOModule

REPORTED = {
    "auc": "success AUC",
    "precision": "precision (20 px)",
    "normalized_precision": "normalized precision (0.2)",
    "ao": "AO",
    "sr_50": "SR 0.5",
}


class NetworkSummary(Callback):
    """Before a fit, prints the network's parts, their parameters and which of them learn."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table."""
        assert isinstance(pl_module, RELOModule)
        if not trainer.is_global_zero:
            return
        table = Table("part", "class", "parameters", "", title="The network")
        table.columns[2].justify = "right"
        for name, part in pl_module.network.named_children():
            parameters = list(part.parameters())
            learns = "learns" if any(p.requires_grad for p in parameters) else "frozen"
            table.add_row(name, type(part).__name__, f"{sum(p.numel() for p in parameters):,}", learns)
        Console().print(table)


class AveragedWeights(EMAWeightAveraging):
    """Lightning's moving average of the weights: checkpoints and validation have it, training goes on beside it.

    Lightning copies the whole module, with all that it refers to: a trainer's process group cannot be copied. Here the
    network alone is.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the network."""
        assert isinstance(pl_module, RELOModule)
        if stage == "fit":
            network = nn.ModuleDict({"network": pl_module.network})  # under the names that checkpoints have
            self._average_model = AveragedModel(network, self._device, use_buffers=self._use_buffers, **self._kwargs)


class InterruptCheckpoint(Callback):
    """On Ctrl-C, ends the step in hand and saves `last.ckpt` beside the other checkpoints, for `--ckpt_path last`.

    A second Ctrl-C stops at once. With several processes, which do not stop in the same step, what was saved is kept,
    and nothing is added.
    """

    def __init__(self) -> None:
        self._asked = False
        self._handler_before: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take Ctrl-C over."""
        if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self._asked or not trainer.training:
                raise KeyboardInterrupt
            self._asked = True

        self._asked = False
        self._handler_before = signal.signal(signal.SIGINT, stop)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here, if asked to."""
        if self._asked:
            self._save(trainer)
            raise KeyboardInterrupt

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, if a validation within the fit was stopped."""
        if isinstance(exception, KeyboardInterrupt) and self._handler_before is not None and trainer.validating:
            self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give Ctrl-C back."""
        if self._handler_before is not None:
            signal.signal(signal.SIGINT, self._handler_before)
            self._handler_before = None

    def _save(self, trainer: Trainer) -> None:
        folder = next((c.dirpath for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
        if folder is not None:
            trainer.save_checkpoint(Path(folder) / f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}.ckpt")


class ValidationReport(Callback):
    """After `relo validate`, writes into `<default_root_dir>/validation`:

    - `<map>/<dataset>/<sequence>.txt`, the boxes x, y, w, h of every frame as floats, and the scores beside them;
    - `scores.json`, the scores of each map, its success curve and every sequence's AUC;
    - `success.png`, the success curves.

    During a fit it only prints the table.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the results of all ranks, then print and write them."""
        assert isinstance(pl_module, RELOModule)
        report: dict[str, dict[str, Any]] = {name: _summary(pl_module.scores[name]) for name in pl_module.localizations}
        sequences = {name: _gather(_scores(results)) for name, results in pl_module.validation_results.items()}
        folder = Path(trainer.default_root_dir) / "validation"
        if trainer.state.fn == "validate":
            _write_boxes(folder, pl_module.validation_results)
        if not trainer.is_global_zero:
            return
        count = len(next(iter(sequences.values())))
        Console().print(score_table(report, count))
        if trainer.state.fn == "validate":
            content = {**report, "sequences": count, "per_sequence": sequences}
            write_whole(folder / "scores.json", json.dumps(content, indent=2) + "\n")
            success_plot({name: report[name]["success_curve"] for name in report}, folder / "success.png")
            Console().print(f"Boxes, scores and plots are in {folder}.")


def score_table(report: dict[str, dict[str, Any]], sequences: int) -> Table:
    """The scores of each map side by side, in percent."""
    table = Table(title=f"One-pass evaluation of {sequences} sequences (percent)")
    table.add_column("")
    for name in report:
        table.add_column(name, justify="right")
    for metric, title in REPORTED.items():
        cells = [f"{100 * scores[metric]:.2f}" for scores in report.values()]
        if metric == "auc":
            cells = [f"{c} ± {100 * s['auc_standard_error']:.2f}" for c, s in zip(cells, report.values(), strict=True)]
        table.add_row(title, *cells)
    return table


def _summary(metrics: MetricCollection) -> dict[str, Any]:
    """The scores of one map over all ranks (every rank must call this)."""
    success = metrics["auc"]
    assert isinstance(success, SuccessAUC)
    return {
        **{name: float(value) for name, value in metrics.compute().items()},
        "auc_standard_error": float(success.standard_error()),
        "success_curve": success.curve().tolist(),
    }


def _scores(results: list[SequenceResult]) -> dict[str, float]:
    """Each sequence's AUC, by dataset and name."""
    return {f"{result.sequence.dataset}/{result.sequence.name}": sequence_auc(result) for result in results}


def _gather(scores: dict[str, float]) -> dict[str, float]:
    """The entries of all ranks, sorted by name."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts: list[dict[str, float]] = [{}] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, scores)
        scores = {name: value for part in parts for name, value in part.items()}
    return dict(sorted(scores.items()))


def _write_boxes(folder: Path, results: dict[str, list[SequenceResult]]) -> None:
    for name, of_map in results.items():
        for result in of_map:
            target = folder / name / result.sequence.dataset
            target.mkdir(parents=True, exist_ok=True)
            write_values(target / f"{result.name}_score.txt", result.scores)
            write_boxes(target / f"{result.name}.txt", result.boxes_xywh)
