"""Where a resumed fit goes on: Lightning's counts of batches, epochs and validations, set right in its checkpoints."""

from typing import Any, Literal, cast

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

Validation = Literal["due", "under way"]
"""A validation within a fit that is still to be run: whole, also where a part of it is done."""


def correct_progress(fit_loop: dict[str, Any], batches: float, validation: Validation | None = None) -> None:
    """Let a resumed run go on where Lightning (2.6) would count on wrongly from the state of its loop.

    - Within an epoch that was cut short (by max_steps, say), it counts the epoch as done.
    - A validation that is due, or between two of its batches, it leaves out: it is noted as under way.
    - From the last batch of an epoch, it gives the next one no number of its own, and at the second resume begins that
      epoch's count of batches again: where no validation is due, the epoch is noted as over.

    Args:
        fit_loop: the state of Lightning's loop, in a checkpoint.
        batches: of an epoch.
        validation: one that is under way, or that is due after this batch.
    """
    batch, epoch = fit_loop["epoch_loop.batch_progress"], fit_loop["epoch_progress"]
    current = batch["current"]
    is_at_batch_end = current["completed"] == current["processed"] - 1 and current["processed"] == current["ready"]
    if validation == "under way" or (validation == "due" and is_at_batch_end):
        for counts in (batch["total"], current):
            counts["completed"] = counts["processed"]
        validated = fit_loop["epoch_loop.val_loop.batch_progress"]
        _reset(validated["total"], validated["current"])
        validated["total"].update(ready=1, started=1)
    elif current["ready"] == current["completed"] and 0 < current["completed"] < batches:
        for counts in epoch.values():
            counts["processed"] = counts["completed"] = counts["ready"] - 1
    elif current["processed"] >= batches and is_at_batch_end:
        batch["total"]["completed"] = batch["total"]["processed"]
        batch["is_last_batch"] = False
        optimizer = fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        schedule = fit_loop["epoch_loop.scheduler_progress"]
        _reset(current, schedule["current"], *(progress["current"] for progress in optimizer.values()))
        fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
        for counts in epoch.values():
            counts["processed"] = counts["completed"] = counts["ready"]


def _reset(*trackers: dict[str, int]) -> None:
    for counts in trackers:
        counts.update(dict.fromkeys(counts, 0))


def is_validation_due(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that was trained on last, by the count of batches."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    is_by_time = getattr(trainer, "_val_check_time_interval", None) is not None  # since Lightning 2.6
    return fetcher is not None and not is_by_time and loop._should_check_val_fx(fetcher)


def current_validation(trainer: Trainer, is_tracking: bool) -> Validation | None:
    """The validation within a fit that a checkpoint, saved now, is to go on with; one that is over is none.

    Args:
        trainer: of the fit.
        is_tracking: a validation has begun, and its scores are not there yet.
    """
    if trainer.validating and (is_tracking or not trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready):
        return "under way"
    return "due" if is_validation_due(trainer) else None


def settle_progress(trainer: Trainer) -> None:
    """Before a resumed run begins, set right what Lightning (2.6) would make of the counts of its checkpoint.

    - With max_steps, it takes one more batch of an epoch that is over, as also where a validation was due that this
      run does not have, and leaves the next epoch out.
    - A validation that was under way would be without the sequences before.
    - A batch that was not trained on yet would be counted twice in the log.
    - A checkpoint that this run goes on from would be saved once more within the next step, if that is of several
      batches.
    """
    loop = trainer.fit_loop
    if not loop.is_resuming:
        return
    epoch, inner = cast(Any, loop.epoch_progress), loop.epoch_loop  # their types are of other counts
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and (n := callback._every_n_train_steps):
            callback._last_global_step_saved = trainer.global_step if trainer.global_step % n == 0 else 0
    if inner.val_loop.restarted_mid_evaluation:
        inner.val_loop.batch_progress.reset()
    is_over = epoch.current.ready == epoch.current.processed
    batch: Any = inner.batch_progress
    is_trained = batch.current.processed == batch.current.ready
    if not is_trained and not inner._should_accumulate():
        inner._batches_that_stepped -= 1  # Lightning counts it, and then again
    if not is_over and is_trained and batch.is_last_batch and not is_validation_due(trainer):
        is_over = True
        inner._batches_that_stepped += 1  # as at the end of a batch
    if is_over:
        for counts in (epoch.total, epoch.current):
            counts.processed = counts.completed = counts.ready
        loop._restarting = inner.restarting = False
        loop.reset_restart_stage()
        inner.reset_restart_stage()
