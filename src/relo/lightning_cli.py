"""`relo fit | validate | test | predict`: the Lightning CLI over our module and data module."""

import sys
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from relo.callbacks import ValidationReport
from relo.cli import one_sentence
from relo.data.datamodule import TrackingDataModule
from relo.errors import UserError
from relo.module import RELOModule
from relo.weights import read_checkpoint

NAMED_CHECKPOINTS = ("best", "last", "hpc")
"""Checkpoints that Lightning finds by itself."""


class Parser(LightningArgumentParser):
    """Says what is wrong with a config in one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print and exit with."""
        raise UserError(f"{one_sentence(message)} (see `relo fit --help`)")


class CLI(LightningCLI):
    """The Lightning CLI, with crop settings written once and checkpoints checked before the work starts."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Cut training clips by the same rule as in tracking."""
        for name in ("template_crop", "search_crop"):
            parser.link_arguments(f"model.{name}", f"data.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and read the checkpoint that is named, so that a wrong one ends here."""
        super().parse_arguments(parser, args)
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None and path not in NAMED_CHECKPOINTS:
            read_checkpoint(Path(path))


def run(arguments: list[str]) -> None:
    """Run one of Lightning's commands."""
    sys.argv[1:] = arguments
    CLI(
        RELOModule,
        TrackingDataModule,
        parser_class=Parser,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        trainer_defaults={"callbacks": [RichProgressBar(), ValidationReport()], "num_sanity_val_steps": 0},
    )
