"""Calibrate the presence head on validation, each time a fit validates: the checkpoint that follows has it."""

import warnings
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from relo.console import make_console
from relo.data.datamodule import TrackingDataModule
from relo.errors import UserError
from relo.evaluation.sequence_scores import presence_outcomes, presence_scores
from relo.learning.base import of_all_ranks
from relo.learning.presence import ODDS_EPSILON, fit_calibration
from relo.training.callbacks import AveragedWeights
from relo.training.module import RELOModule


class CalibratePresence(Callback):
    """Fits temperature and bias of the presence head to the boxes of a validation: tracked, not cut around the truth.

    What is logged is how good presence was before, with the calibration of the validation before it.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that validation tracks with the presence head's map.

        Raises:
            UserError: the network has no presence head; or there is no validation, or it does not track by the map
                that the head reads, or with a rule that changes presence or boxes.
        """
        assert isinstance(pl_module, RELOModule)
        clips = getattr(trainer, "datamodule", None)
        is_empty = isinstance(clips, TrackingDataModule) and not clips.validation_sources
        if is_empty or not trainer.limit_val_batches:
            raise UserError(
                "CalibratePresence needs a validation: name sequences in data.validation, with a "
                "trainer.limit_val_batches above 0."
            )
        presence = pl_module.network.presence
        if presence is None or presence.localization not in pl_module.localizations:
            needed = "a presence head" if presence is None else f"model.localizations with {presence.localization!r}"
            raise UserError(f"CalibratePresence needs {needed}.")
        for setting in ("lost_after", "presence_stays"):
            if getattr(pl_module.rule, setting) is not None:
                raise UserError(
                    "CalibratePresence compares each frame's presence with the box that the network found there: leave "
                    f"{setting} out of model.rule."
                )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate on the sequences of all ranks; within a fit only.

        Sequences of one frame each, boxes that are all right or all wrong, or that presence does not separate, give a
        warning and no calibration: the fit goes on.
        """
        assert isinstance(pl_module, RELOModule)
        head = pl_module.network.presence
        if trainer.state.fn != "fit" or head is None:
            return
        outcomes = of_all_ranks(presence_outcomes(pl_module.validation.results[head.localization]))
        presence, is_right = map(torch.cat, zip(*outcomes, strict=True))
        if not len(presence):
            warnings.warn("Presence is not calibrated: no sequence has a frame after its first.", stacklevel=1)
            return
        scores = presence_scores(presence, is_right)
        pl_module.log_dict({f"val/presence_{name}": value for name, value in scores.items()}, sync_dist=False)
        try:
            temperature, bias = fit_calibration(presence.double().logit(eps=ODDS_EPSILON), is_right)
        except UserError as error:
            warnings.warn(str(error), stacklevel=1)
            return
        head.calibrate(temperature, bias)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, AveragedWeights):  # which may have taken its average back already
                other: Any = callback.other_network().presence
                other.calibrate(temperature, bias)
        if trainer.is_global_zero:
            make_console().print(
                f"Presence over {len(presence):,} frames, {100 * is_right.float().mean():.0f} % of boxes right: AUROC "
                f"{scores['auroc']:.3f}, calibration error {scores['calibration_error']:.3f}; calibrated with "
                f"temperature {head.temperature.item():.2f} and bias {head.bias.item():+.2f}."
            )
