"""The LightningModule: it only wires network, objective, recipe, metrics and tracking together."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.errors import UserError
from relo.learning.base import Objective, StepResult
from relo.learning.rollout import Rollout
from relo.models.checkpoints.weights import FORMAT, FORMAT_ENTRY
from relo.models.heads import Localization
from relo.models.network import LocalizationNetwork
from relo.settings import check_whole
from relo.tracking.rule import TrackingRule
from relo.training.checkpoints import add_average
from relo.training.recipe import Recipe
from relo.training.resumed_progress import correct_progress, current_validation, settle_progress
from relo.training.resumed_states import require_same_stage
from relo.training.validation import TrackedSequences


class RELOModule(lightning.LightningModule):
    """Trains a network by an objective, and validates it by tracking whole sequences.

    `relo fit` adds the callbacks of `relo.training.callbacks`. To a Trainer of your own, add their `GradientHealth`: it
    logs gradient norms, and ends a fit whose losses are not finite.

    Attributes:
        rollout: of the last batch, for callbacks; None for objectives without a policy.
        logs: of the last batch, for callbacks: scalars by name, means over the batch's updates.
        validation: the sequences that the last validation tracked, and their scores.
    """

    def __init__(
        self,
        network: LocalizationNetwork,
        objective: Objective,
        rule: TrackingRule | None = None,
        localizations: Sequence[Localization] = ("policy", "prior"),
        seed: int = 0,
        **recipe: Any,
    ) -> None:
        """Wire the parts.

        Args:
            network: the network to train.
            objective: the loss, and which parts of the network it trains.
            rule: how the network tracks in validation; the sides of its crops must be the network's.
            localizations: the maps to validate with, one pass each: "policy", "prior" or both.
            seed: seeds what the objective draws, together with epoch, batch and rank.
            recipe: the attributes of `relo.training.recipe.Recipe`.

        Raises:
            UserError: settings that do not fit the network.
        """
        super().__init__()
        self.network = network
        self.objective = objective
        self.rule = rule or TrackingRule()
        check_whole("The model", 0, 2**63 - 1, seed=seed)
        self.localizations = tuple(localizations)
        self.seed = seed
        self.recipe = Recipe(**recipe)
        objective.check(network)
        self.frozen_parts = self.recipe.prepare(network, objective.trained_parts)
        self.template_crop = self.rule.template_crop(network.encoder.template_size)
        self.search_crop = self.rule.search_crop(network.encoder.search_size)
        self.validation = TrackedSequences(network, self.localizations)
        self.rollout: Rollout | None = None
        self.logs: dict[str, Tensor] = {}
        self._updates: Iterator[StepResult] = iter(())  # of the current batch, those that are still to come
        self._update_logs: list[dict[str, Tensor]] = []  # of the batch's updates so far

    def setup(self, stage: str) -> None:
        """Check what only the trainer knows.

        Raises:
            UserError: gradients are to be accumulated over batches, each of which gives several updates.
        """
        if stage != "fit":
            return
        if self.objective.updates > 1 and self.trainer.accumulate_grad_batches > 1:
            raise UserError(
                f"{type(self.objective).__name__} takes {self.objective.updates} steps on every batch, which leaves "
                "nothing to accumulate: set trainer.accumulate_grad_batches to 1."
            )
        self.train()  # Lightning does not call it before a fit

    def on_fit_start(self) -> None:
        """Load the weights of the earlier stage, unless a checkpoint of this one was loaded: both are known by now.

        Raises:
            UserError: they cannot be read, or do not fit.
        """
        self.validation.stop()
        if self.trainer.ckpt_path is None:
            self.recipe.load_first_weights(self.network, self.frozen_parts)

    def train(self, mode: bool = True) -> "RELOModule":
        """Switch to training; frozen parts stay in evaluation mode."""
        super().train(mode)
        if mode:
            self.recipe.rest(self.frozen_parts.values())
        return self

    def on_train_start(self) -> None:
        """Go on where a checkpoint was saved."""
        settle_progress(self.trainer)

    def on_train_batch_start(self, batch: ClipBatch, batch_index: int) -> None:
        """Seed what the batch draws, and begin with its first update."""
        place = (self.current_epoch, batch_index, self.global_rank)
        seed = int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])
        # Stochastic depth draws from torch's global generator: seeding it too makes a resumed run repeat itself.
        torch.manual_seed(seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        self._updates = self.objective.losses(self.network, batch, generator)
        self._update_logs = []

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take the objective's updates of the batch, each with a backward pass and clipping of its own."""
        for _ in range(self.objective.updates):
            # The closure runs `training_step`, which asks for the next update, and its backward pass.
            optimizer.step(closure=optimizer_closure)

    def training_step(self, batch: ClipBatch, batch_index: int) -> Tensor:
        """The loss of the batch's next update; logs what the objective reports, and keeps the rollout for callbacks."""
        result = next(self._updates)
        self.rollout = result.rollout
        self._update_logs.append(result.logs)
        self.logs = {name: torch.stack([logs[name] for logs in self._update_logs]).mean() for name in result.logs}
        self.log_dict({f"train/{name}": value for name, value in self.logs.items()}, batch_size=len(batch))
        self.log("loss", result.loss.detach(), prog_bar=True, logger=False, batch_size=len(batch))
        return result.loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The recipe's optimizer and schedule."""
        return self.recipe.optimizers(self.network)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.validation.start(self.network, self.rule, self.trainer)

    def validation_step(self, batch: list[AnnotatedSequence], batch_index: int) -> None:
        """Track a batch of sequences from their first boxes, once per localization, and score them."""
        self.validation.track(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of all sequences, over all ranks."""
        self.log_dict({f"val/{name}": value for name, value in self.validation.finish().items()}, sync_dist=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or stage before anything of it is taken.

        Raises:
            UserError: tensors are missing, surplus or of another shape; or its run trained other parts.
        """
        parameters = self.recipe.parameters_by_rate(self.network) if self.trainer.state.fn == "fit" else None
        require_same_stage(checkpoint, self.state_dict(), parameters, str(self.trainer.ckpt_path))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write into the checkpoint how to build its network and how it tracks, so that it can be used alone."""
        rule = self.rule
        if rule.localization not in self.localizations:  # a warm-up trains no policy
            rule = replace(rule, localization=self.localizations[0])
        checkpoint |= {FORMAT_ENTRY: FORMAT, "relo_network": self.network.config(), "relo_rule": asdict(rule)}
        if "callbacks" not in checkpoint:  # weights alone: Lightning does not ask callbacks for their average
            add_average(self.trainer, self, checkpoint)
        if self.trainer.state.fn == "fit":
            validation = current_validation(self.trainer, self.validation.is_under_way)
            correct_progress(checkpoint["loops"]["fit_loop"], self.trainer.num_training_batches, validation)
