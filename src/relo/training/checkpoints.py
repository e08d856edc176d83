"""Checkpoints of a fit: saved when it is stopped, found again, and read without running anything of the file's."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from relo.errors import UserError
from relo.files import atomic_write, remove_leftovers
from relo.models.checkpoints.inert_pickle import foreign_parts
from relo.models.checkpoints.states import require_restored
from relo.models.checkpoints.weights import read_checkpoint
from relo.training.resumed_progress import is_validation_due
from relo.training.resumed_states import require_resumable

_OF_VALIDATIONS = ("pytorch-lightning_version", "state_dict")
_OF_FITS = (*_OF_VALIDATIONS, "epoch", "global_step", "loops", "optimizer_states", "lr_schedulers")
"""What Lightning takes from a checkpoint."""

_ONE_PRESS_SECONDS = 0.5
"""Ctrl-C may come twice, from the terminal and from what has started us and passes it on."""


class InertCheckpointIO(TorchCheckpointIO):
    """Saves a checkpoint in full or not at all, and loads what can be restored without the file's code.

    A validation needs the tensors alone. A fit that is resumed needs all but the states of callbacks that it does not
    have.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; one of another scheme than a file's, such as s3://, as Lightning does.

        Raises:
            UserError: it cannot be written, or a weight is not a number; an earlier one of its name stays.
        """
        for name, weight in checkpoint["state_dict"].items():
            if isinstance(weight, Tensor) and torch.isnan(weight).any():
                raise UserError(
                    f"{path} is not saved, since {name} is no number any more: look at the settings of optimizer, "
                    "schedule and averaging, and go on from an earlier checkpoint."
                )
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # Of a full disk the writer in C++ says nothing; the file in Python does.
        with _signals_wait(), atomic_write(Path(path)) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint, on the CPU.

        Raises:
            UserError: it cannot be read, lacks what every fit saves, or the run needs an object of it that was not
                restored; that is named.
        """
        checkpoint = read_checkpoint(Path(path))
        is_fit = self._trainer.state.fn == "fit"
        for name in _OF_FITS if is_fit else _OF_VALIDATIONS:
            if name not in checkpoint:
                raise UserError(
                    f"{path} lacks {name!r}, so no fit has saved it: --model.init_from begins from its weights."
                )
        if not is_fit:
            return {name: entry for name, entry in checkpoint.items() if not any(foreign_parts(entry))}
        states = checkpoint.get("callbacks")
        if isinstance(states, dict):
            present = {callback.state_key for callback in self._trainer.callbacks}  # type: ignore[attr-defined]
            checkpoint["callbacks"] = {
                name: state if name in present or not any(foreign_parts(state)) else {}
                for name, state in states.items()
            }
        require_restored(checkpoint, str(path))
        require_resumable(checkpoint, self._trainer, str(path))
        return checkpoint


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Handle signals behind the block: of what they raise within, torch makes errors of its own when it writes."""
    waiting: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, getattr(signal, "SIGCHLD", signal.SIGINT)):  # Windows has no SIGCHLD
            if number not in handlers and callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                signal.signal(number, lambda *received: waiting.append(received))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number, frame in waiting:
        handlers[number](number, frame)


class InterruptCheckpoint(Callback):
    """On Ctrl-C or SIGTERM, ends the step in hand and saves `last.ckpt` beside the others, for `--ckpt_path last`.

    A step may be of several batches, whose gradients are in no checkpoint. A second Ctrl-C stops at once. With several
    processes, which do not stop in the same step, what was saved is kept, and nothing is added.
    """

    def __init__(self) -> None:
        self._asked = False
        self._must_end = False  # SIGTERM came within a step
        self._is_saved = False
        self._handler_before: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take Ctrl-C over, and remove what a killed fit left of a checkpoint.

        Raises:
            UserError: checkpoints may be saved within a step.
        """
        if trainer.accumulate_grad_batches > 1 and any(
            isinstance(callback, ModelCheckpoint) and callback._train_time_interval is not None
            for callback in trainer.checkpoint_callbacks
        ):
            raise UserError(
                "A checkpoint by train_time_interval may fall between batches whose gradients are added up, and lose "
                "them: give ModelCheckpoint every_n_train_steps instead, or set trainer.accumulate_grad_batches to 1."
            )
        if trainer.is_global_zero:
            for folder in {*checkpoint_folders(trainer), Path(trainer.default_root_dir)}:  # SLURM's lie in the latter
                remove_leftovers(folder, r".+\.ckpt")
        if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return

        pressed = -math.inf

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal pressed
            now = time.monotonic()
            if now - pressed < _ONE_PRESS_SECONDS:
                return
            pressed = now
            if self._asked or not trainer.training:
                raise KeyboardInterrupt
            self._asked = True

        self._asked = self._must_end = self._is_saved = False
        self._handler_before = signal.signal(signal.SIGINT, stop)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look where validations fall.

        Raises:
            UserError: one would be within a step, where no checkpoint can be saved.
        """
        between: Any = getattr(trainer, "val_check_batch", None)
        accumulated = trainer.accumulate_grad_batches
        is_within = trainer.enable_validation and between not in (None, math.inf, trainer.num_training_batches)
        if is_within and between % accumulated:
            raise UserError(
                f"A validation after every {between} batches would fall between batches whose gradients are added up: "
                f"set trainer.val_check_interval to a multiple of trainer.accumulate_grad_batches, {accumulated}."
            )

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop here, if asked to and a step is whole."""
        if self._handler_before is None:
            return
        signals = trainer._signal_connector
        if trainer.fit_loop._should_accumulate():
            if signals.received_sigterm:  # Lightning would stop at it
                self._must_end, signals.received_sigterm = True, False
            return
        signals.received_sigterm = signals.received_sigterm or self._must_end
        if self._asked or signals.received_sigterm:
            self._save(trainer)
        if self._asked:
            raise KeyboardInterrupt  # on SIGTERM, Lightning stops by itself

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, if a validation within the fit was stopped, or SIGTERM came behind a step."""
        if self._handler_before is None or self._is_saved:
            return
        loop = trainer.fit_loop.epoch_loop
        if trainer.validating and isinstance(exception, (KeyboardInterrupt, SIGTERMException)):
            progress = cast(Any, loop.val_loop.batch_progress)
            progress.reset()
            progress.total.ready = progress.total.started = 1  # one under way: it will be run, as a whole
            self._save(trainer)
        elif isinstance(exception, SIGTERMException) and not loop._should_accumulate():
            epoch = trainer.fit_loop.epoch_progress.current
            if epoch.completed < epoch.ready:  # as it was at the end of the batch, or of the validation behind it
                loop._batches_that_stepped -= 1
                if not is_validation_due(trainer):
                    for counts in (loop.batch_progress.total, loop.batch_progress.current):
                        counts.completed -= 1
            self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give Ctrl-C back; where it has stopped us, it is ignored from now on, as Lightning has it."""
        if self._handler_before is not None:
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._handler_before)
            self._handler_before = None

    def _save(self, trainer: Trainer) -> None:
        for folder in checkpoint_folders(trainer)[:1]:
            path = folder / f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}.ckpt"
            with _instead_of_link(path):
                trainer.save_checkpoint(path)
        self._is_saved = True


@contextmanager
def _instead_of_link(path: Path) -> Iterator[None]:
    """Write a file in the place of a link, as of `save_last: link`, which stays where that fails."""
    named = os.readlink(path) if path.is_symlink() else None
    if named is not None:
        path.unlink()
    try:
        yield
    finally:
        if named is not None and not path.exists():
            path.symlink_to(named)


def add_average(trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Put the averaged weights, where there are any, into a checkpoint of weights alone, which no fit goes on from."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            callback.on_save_checkpoint(trainer, module, checkpoint)
    for entry in ("current_model_state", "averaging_state"):
        checkpoint.pop(entry, None)


def save_over_later_ones(trainer: Trainer) -> None:
    """Let a fit that goes on from its last checkpoint save over what came after it.

    Where a fit is killed when a checkpoint is saved, but not yet the last one, that step is done again: under a new
    name its checkpoint would stay for ever, as its own callback does not know the first one.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback._enable_version_counter = False


def checkpoint_folders(trainer: Trainer) -> list[Path]:
    """The folders of a trainer's checkpoints, as far as they are known."""
    callbacks = (callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint))
    return [Path(callback.dirpath) for callback in callbacks if callback.dirpath]


def last_checkpoint(trainer: Trainer) -> Path:
    """The newest "last" checkpoint of a trainer's folders.

    Raises:
        UserError: there is no such checkpoint.
    """
    folders = checkpoint_folders(trainer)
    pattern = f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}*.ckpt"
    found = [path for folder in folders for path in folder.glob(pattern) if path.exists()]  # a link may lead nowhere
    if not found:
        where = f"in {', '.join(map(str, folders))}" if folders else "as the config gives checkpoints no folder"
        raise UserError(f"There is no last checkpoint {where}: leave --ckpt_path out to start from the beginning.")
    return max(found, key=lambda path: path.stat().st_mtime)
