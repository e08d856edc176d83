"""`relo fit | validate`: the Lightning CLI over our module and data module."""

import errno
import itertools
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any, NoReturn

import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import Namespace, get_loader, set_loader
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from relo.commands.config_checks import check_config_files, check_trainer, require_values
from relo.console import make_console
from relo.data.datamodule import TrackingDataModule, named_workers
from relo.errors import UserError, excerpt, one_sentence
from relo.files import REFUSALS, reason
from relo.models.checkpoints.plugin import import_fault, is_of_an_import
from relo.models.checkpoints.released import resolve_reference
from relo.models.checkpoints.weights import load_stage, read_checkpoint
from relo.models.memory import enough_memory
from relo.training.callbacks import EffectiveBatch, GradientHealth, NetworkSummary
from relo.training.checkpoints import (
    InertCheckpointIO,
    InterruptCheckpoint,
    checkpoint_folders,
    last_checkpoint,
    save_over_later_ones,
)
from relo.training.module import RELOModule
from relo.training.ranks import watch_ranks
from relo.training.recipe import Recipe
from relo.training.validation import ValidationReport
from relo.yaml_traps import MOST_DIGITS, MOST_LEVELS, refuse_traps

# Said of every run by Lightning and its dependencies, and nothing that the user could change.
_NOISE = (
    ".*LeafSpec.*is deprecated",
    "Checkpoint directory .* exists and is not empty",
    "Experiment logs directory .* exists and is not empty",
    ".*does not have many workers",
    ".*smaller than the logging interval",
    "Found .* module.* in eval mode",
    "(?s).*does not round-trip",
)

_LESS_MEMORY = {
    "fit": "lower data.batch_size (data.validation_batch, where it was validating) or set trainer.precision to "
    "bf16-mixed; what was saved is kept, and --ckpt_path last goes on from it",
    "validate": "lower data.validation_batch",
}

_FOREIGN = ("lightning.", "torch.optim.", "torch.cuda.")

_MOVED_CLASS = re.compile(r"\brelo\.(?=(?:callbacks|module|monitoring|presence_calibration)\.[A-Z])")
_load_yaml = get_loader("yaml")


def _load(text: str) -> Any:
    """A config file, or a value in one: it may name a variant of the release in the place of its settings.

    Classes may have the paths that they had before there was `relo.training`.
    """
    is_file = "\n" in text  # whose settings may contradict each other
    may_expand = "*" in text or len(text) > MOST_DIGITS // 2 or text.count("[") + text.count("{") > MOST_LEVELS
    if is_file or may_expand:
        refuse_traps(text)
    return resolve_reference(_load_yaml(_MOVED_CLASS.sub("relo.training.", text)))


set_loader("yaml", _load, (yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """Says what is wrong with a config in one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print and exit with."""
        raise UserError(f"{one_sentence(message)} (see `relo {self.prog.rpartition(' ')[2]} --help`)")


class CLI(LightningCLI):
    """The Lightning CLI, with crop settings written once and checkpoints checked before the work starts."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Cut training clips by the same rule as in tracking."""
        for name in ("template_crop", "search_crop"):
            parser.link_arguments(f"model.{name}", f"data.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and read the checkpoint that is named, so that a wrong one ends here."""
        try:
            super().parse_arguments(parser, args)
        except Exception as error:
            if isinstance(error, UserError) or not is_of_an_import(error):
                raise
            raise UserError(f"A part that the config names cannot be imported: {import_fault(error)}.") from error
        settings = self.config[self.config.subcommand]
        settings.weights_only = True  # a checkpoint of someone else's must not run code
        if "verbose" in settings:
            settings.verbose = False  # `ValidationReport` prints the scores
        for name in ("augmentation", "absence"):  # the parser looks at what is in them, not at whether they are such
            if not isinstance(found := settings.data[name], Namespace):
                raise UserError(f"The config has data.{name}: {excerpt(found)}, where settings by name belong.")
        parts = ("trainer", Trainer), ("model", RELOModule), ("model", Recipe), ("data", TrackingDataModule)
        for name, kind in parts:
            require_values(settings[name], kind, name)
        check_trainer(settings)
        if settings.ckpt_path in ("best", "hpc"):  # Lightning's words; what they stand for is not known here
            raise UserError(f"There is no checkpoint {settings.ckpt_path!r} here: name a file, or take `last`.")
        if settings.ckpt_path not in (None, "last"):
            read_checkpoint(Path(settings.ckpt_path))

    def _parse_ckpt_path(self) -> None:
        """Leave the config as it is: our checkpoints hold no settings for it, and Lightning would read the file."""

    def instantiate_classes(self) -> None:
        """Build the parts; the parser wraps what a part says in its refusal where it is optional or one of a list."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            causes = list(_causes(error))
            for cause in causes:
                if isinstance(cause, (UserError, MisconfigurationException)):
                    raise cause from None
            said = one_sentence(str(causes[-1]))
            raise UserError(f"A part that the config names refuses its settings: {said}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; what it does not accept is the config's mistake.

        Checkpoints that are given no folder of their own lie in the run's, `trainer.default_root_dir`.
        """
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ImportError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"The config's trainer cannot be built: {one_sentence(str(error))}") from error
        folder = self.config_init[self.subcommand].trainer.default_root_dir
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None and folder is not None:
                callback.dirpath = str(folder)
        return trainer

    def after_instantiate_classes(self) -> None:
        """Find the last checkpoint, and see to it that there are weights to validate and that no log is lost."""
        settings = self.config_init[self.subcommand]
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = InertCheckpointIO(self.trainer)
        if settings.ckpt_path is None:
            path = self._left_by_slurm()
        else:
            path = last_checkpoint(self.trainer) if settings.ckpt_path == "last" else None
        if path is not None:
            read_checkpoint(path)
            settings.ckpt_path = str(path)
            save_over_later_ones(self.trainer)
        if self.subcommand == "fit":
            _require_names(self.trainer)
            _require_folders(self.trainer)
            _keep_logs(self.trainer.loggers)
            return
        self.trainer.loggers = [logger for logger in self.trainer.loggers if not isinstance(logger, CSVLogger)]
        if settings.ckpt_path is None:
            init_from = self.model.recipe.init_from
            if init_from is None:
                raise UserError(f"There are no weights to {self.subcommand}: give --ckpt_path or --model.init_from.")
            load_stage(self.model.network, init_from)
        if not self.datamodule.validation_sources or not self.trainer.limit_val_batches:
            raise UserError(
                "There is nothing to validate on: name sequences in data.validation, with a "
                "trainer.limit_val_batches above 0."
            )

    def _left_by_slurm(self) -> Path | None:
        """What a fit goes on from where SLURM has requeued its job: the newest checkpoint.

        Lightning takes the one that was saved for the requeueing, however old it is; in a validation, too, in the place
        of `model.init_from`.
        """
        folder = Path(self.trainer.default_root_dir)
        if not SLURMEnvironment.detect() or not any(folder.glob("*hpc_ckpt_*")):  # it counts unfinished ones, too
            return None
        if self.subcommand == "fit":
            left = list(folder.glob("hpc_ckpt_*.ckpt"))
            with suppress(UserError):  # there may be no last one
                left.append(last_checkpoint(self.trainer))
            if left:
                return max(left, key=lambda path: path.stat().st_mtime)
        self.trainer._checkpoint_connector._user_managed = True  # it is settled that there is none
        return None

    def _run_subcommand(self, subcommand: str) -> None:
        """Do the work; where processes or memory end it, say which, and what to do."""
        watch_ranks(self.trainer)
        with _foreign_refusals(), named_workers(), enough_memory(_LESS_MEMORY[subcommand]):
            super()._run_subcommand(subcommand)


@contextmanager
def _foreign_refusals() -> Iterator[None]:
    """Turn what Lightning and torch's optimizers raise into a sentence: they look at some settings only when used.

    Errors that our code or a user's raises go on as they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        modules = [f"{frame.f_globals.get('__name__', '')}." for frame, _ in walk_tb(error.__traceback__)]
        # torch.nn serves all: who called it is asked.
        module = next(module for module in reversed(modules) if not module.startswith("torch.nn."))
        if not module.startswith(_FOREIGN):
            raise
        said = f"{type(error).__name__}: {one_sentence(str(error))}"
        raise UserError(f"{module[:-1]} cannot do what the config asks for ({said}).") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from, back to the first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def run(arguments: list[str]) -> None:
    """Run one of Lightning's commands, which is the first of the arguments.

    Raises:
        UserError: a mistake in the config, or one that turned up in the work.
        KeyboardInterrupt: it was stopped.
    """
    check_config_files(arguments)
    sys.argv[1:] = arguments  # read again by the processes that a distributed strategy starts
    callbacks = [NetworkSummary(), EffectiveBatch(), GradientHealth(), ValidationReport(), InterruptCheckpoint()]
    with _without_noise():
        try:
            CLI(
                RELOModule,
                TrackingDataModule,
                parser_class=Parser,
                save_config_callback=SaveConfigCallback if arguments[0] == "fit" else None,
                save_config_kwargs={"overwrite": True},
                seed_everything_default=0,
                auto_configure_optimizers=False,
                trainer_defaults={
                    "callbacks": callbacks,
                    "num_sanity_val_steps": 0,
                    "enable_model_summary": False,
                },
            )
        except MisconfigurationException as error:
            raise UserError(one_sentence(str(error))) from error
        except OSError as error:  # of Lightning's loggers, or their folder was removed
            if error.errno not in REFUSALS | {errno.ENOENT, errno.ENOTDIR}:
                raise
            raise UserError(f"{error.filename or 'The log'} cannot be written ({reason(error)}).") from error
        except SIGTERMException:  # an exit without a code would say that all is done
            make_console(stderr=True).print("relo: stopped by SIGTERM; what was saved is kept.")
            sys.exit(128 + signal.SIGTERM)
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning's way out, with exit code 1
                raise KeyboardInterrupt from None
            raise


def _require_names(trainer: Trainer) -> None:
    """Try the patterns of checkpoints' names: Lightning fills them in when it saves.

    Raises:
        UserError: a pattern cannot be filled in.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            try:
                callback.format_checkpoint_name({"epoch": torch.tensor(0), "step": torch.tensor(0)})
            except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
                raise UserError(
                    f"No name can be made of ModelCheckpoint's filename {excerpt(callback.filename)}."
                ) from error


@rank_zero_only
def _require_folders(trainer: Trainer) -> None:
    """Make the folders of logs and checkpoints now, since a fit writes there only after some steps.

    Raises:
        UserError: one cannot be made or written.
    """
    logs = [logger.log_dir for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    for folder in (Path(trainer.default_root_dir), *map(Path, logs), *checkpoint_folders(trainer)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The folder {folder} cannot be made ({error.strerror}): choose another.") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"The folder {folder} cannot be written: choose another, or change its permissions.")


@rank_zero_only
def _keep_logs(loggers: list[Any]) -> None:
    """Move an earlier run's CSV log aside: Lightning would delete it."""
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            log = Path(logger.log_dir) / "metrics.csv"
            if log.exists():
                names = (log.with_name(f"metrics_{number}.csv") for number in itertools.count(1))
                log.rename(next(name for name in names if not name.exists()))


@contextmanager
def _without_noise() -> Iterator[None]:
    """Keep what Lightning advertises and what only its developers could change off the console."""

    def is_no_advertisement(record: logging.LogRecord) -> bool:
        return "Tip:" not in record.getMessage()

    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addFilter(is_no_advertisement)
    try:
        with warnings.catch_warnings():
            for pattern in _NOISE:
                warnings.filterwarnings("ignore", pattern)
            yield
    finally:
        log.removeFilter(is_no_advertisement)
