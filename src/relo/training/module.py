"""The LightningModule: it only wires network, objective, optimizer, metrics and tracking together."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.layers import DropPath
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MetricCollection

from relo.data.clip_batch import ClipBatch
from relo.data.sequences.base import Sequence as TrackingSequence
from relo.errors import UserError
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.result_folder import SequenceResult
from relo.learning.base import Objective, StepResult
from relo.learning.rollout import Rollout
from relo.metrics import AverageOverlap, NormalizedPrecision, Precision, SuccessAUC, SuccessRate
from relo.models.checkpoints.states import load_state_strictly, misfit
from relo.models.checkpoints.weights import FORMAT, FORMAT_ENTRY, load_stage
from relo.models.heads import Localization
from relo.models.initialisation import start_as_released
from relo.models.network import LocalizationNetwork
from relo.tracking.rule import TrackingRule
from relo.tracking.tracker import Tracker


class RELOModule(lightning.LightningModule):
    """Trains a network by an objective, and validates it by tracking whole sequences."""

    def __init__(
        self,
        network: LocalizationNetwork,
        objective: Objective,
        rule: TrackingRule | None = None,
        optimizer: Callable[[Iterable], Optimizer] = lambda p: torch.optim.AdamW(p, lr=1e-4, weight_decay=1e-4),
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        encoder_lr_factor: float = 1.0,
        encoder_lr_parts: Sequence[str] = ("encoder",),
        released_start: bool = False,
        init_from: str | None = None,
        fresh_parts: Sequence[str] = (),
        policy_from_prior: bool = False,
        frozen_stochastic_depth: bool = True,
        checkpoint_activations: bool = False,
        localizations: Sequence[Localization] = ("policy", "prior"),
        seed: int = 0,
    ) -> None:
        """Wire the parts.

        Args:
            network: the network to train.
            objective: the loss, and which parts of the network learn by it.
            rule: how the network tracks in validation; the sides of its crops must be the network's.
            optimizer: the optimizer, over the parts that learn.
            scheduler: the learning-rate schedule; constant if not given.
            scheduler_interval: whether the schedule advances by epoch or by step.
            encoder_lr_factor: the encoder's learning rate as a multiple of the others'.
            encoder_lr_parts: the parts that learn at that rate; in the release the propagator's tokens are among them.
            released_start: give temporal tokens, token types and heads the first weights that they have in the release
                (`relo.models.initialisation`), not those that the network was made with.
            init_from: a checkpoint or model folder of an earlier stage; its weights are loaded strictly at the start of
                a fit (not when a run is resumed), and by `relo validate` where no checkpoint is given.
            fresh_parts: parts that keep their random weights when `init_from` is loaded, such as "policy".
            policy_from_prior: start the policy with the weights of the prior's head in `init_from`, not with random
                ones; both must be towers of one size (`ConvPolicy` and `ConvPrior`).
            frozen_stochastic_depth: frozen parts keep their stochastic depth on while the others learn, as in the
                release.
            checkpoint_activations: compute the encoder's layers anew in the backward pass instead of keeping what they
                computed: less memory, a third more time.
            localizations: the maps to validate with, one pass each: "policy", "prior" or both.
            seed: seeds what the objective draws, together with epoch, batch and rank.
        """
        super().__init__()
        self.network = network
        self.objective = objective
        self.rule = rule or TrackingRule()
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.encoder_lr_factor = encoder_lr_factor
        self.encoder_lr_parts = tuple(encoder_lr_parts)
        self.init_from = init_from
        self.fresh_parts = tuple(fresh_parts)
        self.policy_from_prior = policy_from_prior
        self.frozen_stochastic_depth = frozen_stochastic_depth
        network.encoder.checkpoint_activations = checkpoint_activations
        self.localizations = tuple(localizations)
        self.seed = seed
        self.scores: dict[str, MetricCollection] = {name: _tracking_metrics() for name in self.localizations}
        self.metrics = nn.ModuleDict(self.scores)  # so that they follow the module to its device
        self._updates: Iterator[StepResult] | None = None
        self._told: list[dict[str, Tensor]] = []  # logs of the batch's updates so far
        # Of the last batch, for callbacks; logs are means over its updates:
        self.rollout: Rollout | None = None
        self.logs: dict[str, Tensor] = {}
        self._pending: list[tuple[Tensor, list[str]]] = []  # losses and clips whose gradients wait for the optimizer
        self.validation_results: dict[str, list[SequenceResult]] = {}
        self.template_crop = self.rule.template_crop(network.encoder.template_size)
        self.search_crop = self.rule.search_crop(network.encoder.search_size)
        self._check_settings()
        if released_start:
            start_as_released(network)
        for name, part in network.named_children():
            part.requires_grad_(self._learns(name))

    def setup(self, stage: str) -> None:
        """Load the weights of the earlier stage, unless a checkpoint of this one is about to be loaded.

        Warns of parts that are frozen as they were made, at random: that is a mistake, or a test.
        """
        if stage != "fit" or self.trainer.ckpt_path is not None:
            return
        frozen = [name for name in ("encoder", "propagator", "box") if not self._learns(name)]
        if self.init_from is None and frozen and self.trainer.is_global_zero:
            warnings.warn(
                f"Nothing trains {', '.join(frozen)}, whose weights are random: set model.init_from to a checkpoint of "
                "the warm-up.",
                stacklevel=1,
            )
        if self.init_from is not None:
            load_stage(self.network, self.init_from, self.fresh_parts)
            if self.policy_from_prior:
                assert self.network.prior is not None  # checked when the module was made
                load_state_strictly(self.network.policy, self.network.prior.state_dict(), "The prior's head")

    def train(self, mode: bool = True) -> "RELOModule":
        """Switch to training; frozen parts stay in evaluation mode, so that BatchNorm statistics stay as they are."""
        super().train(mode)
        for name, part in self.network.named_children():
            if mode and not self._learns(name):
                part.eval()
                for layer in part.modules():
                    if isinstance(layer, DropPath):
                        layer.train(self.frozen_stochastic_depth)
        return self

    def on_fit_start(self) -> None:
        """Put frozen parts into evaluation mode (Lightning does not call `train` before a fit).

        Raises:
            UserError: gradients are to be accumulated over batches, each of which gives several updates.
        """
        if self.objective.updates > 1 and self.trainer.accumulate_grad_batches > 1:
            raise UserError(
                f"{type(self.objective).__name__} takes {self.objective.updates} steps on every batch, which leaves "
                "nothing to accumulate: set trainer.accumulate_grad_batches to 1, or its epochs and minibatches."
            )
        self.train()

    def on_train_batch_start(self, batch: ClipBatch, batch_index: int) -> None:
        """Seed what the batch draws, and begin with its first update."""
        place = (self.current_epoch, batch_index, self.global_rank)
        seed = int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])
        # Stochastic depth draws from torch's global generator: seeding it too makes a resumed run repeat itself.
        torch.manual_seed(seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        self._updates = self.objective.losses(self.network, batch, generator)
        self._told = []

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take the objective's updates of the batch, each with a backward pass and clipping of its own."""
        for _ in range(self.objective.updates):
            optimizer.step(closure=optimizer_closure)

    def training_step(self, batch: ClipBatch, batch_index: int) -> Tensor:
        """The loss of the batch's next update; logs what the objective reports, and keeps the rollout for callbacks."""
        assert self._updates is not None
        result = next(self._updates)
        self.rollout = result.rollout
        self._pending.append((result.loss.detach(), batch.sequence_id))
        self._told.append(result.logs)
        self.logs = {name: torch.stack([told[name] for told in self._told]).mean() for name in result.logs}
        self.log_dict({f"train/{name}": value for name, value in self.logs.items()}, batch_size=len(batch))
        self.log("loss", result.loss.detach(), prog_bar=True, logger=False, batch_size=len(batch))
        return result.loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the gradient's norm before it is clipped, as a whole and of each part that learns.

        Raises:
            UserError: the norm or a loss is not finite. Said here and not before the backward pass, where the other
                ranks would wait for this one.
        """
        norms = gradient_norms(self.network)
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        self._check_finite(total)
        logs = {"grad_norm": total, **{f"grad_norm_{part}": norm for part, norm in norms.items()}}
        self.logs |= logs
        self.log_dict({f"train/{name}": value for name, value in logs.items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One parameter group for what learns at the encoder's rate, one for the rest; frozen parts are in neither."""
        others, encoder = self._parameters_by_rate()
        optimizer = self.make_optimizer([{"params": params} for params in (others, encoder) if params])
        if encoder:
            optimizer.param_groups[-1]["lr"] *= self.encoder_lr_factor
        if self.make_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": self.scheduler_interval},
        }

    def on_validation_epoch_start(self) -> None:
        """Forget the results of the last validation."""
        self.validation_results = {name: [] for name in self.localizations}

    def validation_step(self, batch: list[TrackingSequence], batch_index: int) -> None:
        """Track a batch of sequences from their first boxes, once a localization, and score them."""
        for name in self.localizations:
            tracker = Tracker(self.network, replace(self.rule, localization=name), device=self.device)
            for result in run_one_pass(tracker, batch, batch_size=len(batch)):
                self.validation_results[name].append(result)
                sequence = result.sequence
                self.scores[name].update(
                    torch.from_numpy(result.boxes_xywh).to(self.device),
                    torch.from_numpy(sequence.boxes_xywh).to(self.device),
                    torch.from_numpy(sequence.visible).to(self.device),
                )

    def on_validation_epoch_end(self) -> None:
        """Log the scores of all sequences, over all ranks."""
        for name in self.localizations:
            scores = self.scores[name].compute()
            self.log_dict({f"val/{name}_{metric}": value.float() for metric, value in scores.items()}, sync_dist=False)
            self.scores[name].reset()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or stage before anything of it is taken.

        Raises:
            UserError: tensors are missing, surplus or of another shape; or other parts learn in the checkpoint's run.
        """
        source = str(self.trainer.ckpt_path)
        difference = misfit({name: t.shape for name, t in self.state_dict().items()}, checkpoint["state_dict"])
        if difference is not None:
            raise UserError(f"{source} is a checkpoint of another network than model.network ({difference}).")
        if self.trainer.state.fn != "fit" or not checkpoint.get("optimizer_states"):
            return
        learned = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
        if learned != [len(group) for group in self._parameters_by_rate() if group]:
            raise UserError(
                f"{source} is of another stage, in which other parts learn, or at other rates: to start this stage "
                "from its weights, use --model.init_from instead of --ckpt_path."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write into the checkpoint how to build its network and how it tracks, so that it can be used alone."""
        checkpoint[FORMAT_ENTRY] = FORMAT
        checkpoint["relo_network"] = self.network.config()
        rule = self.rule
        if self.localizations and rule.localization not in self.localizations:  # a warm-up trains no policy
            rule = replace(rule, localization=self.localizations[0])
        checkpoint["relo_rule"] = asdict(rule)
        if self.trainer.state.fn == "fit":
            _leave_epoch_unfinished(checkpoint["loops"]["fit_loop"], self.trainer.num_training_batches)

    def _check_finite(self, gradient_norm: Tensor) -> None:
        pending, self._pending = self._pending, []
        # Where gradients are scaled (16-mixed), steps that overflow are skipped, and the scale is lowered.
        is_scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        losses = torch.stack([loss.float() for loss, _ in pending])
        if torch.isfinite(losses.sum() if is_scaled else losses.sum() + gradient_norm):
            return
        guilty = [(loss.item(), clips) for loss, clips in pending if not torch.isfinite(loss)]
        if guilty:
            loss, clips = guilty[0]
            told = f"The loss is {loss} at step {self.global_step}, on clips of {', '.join(clips)}"
        else:
            elsewhere = " or those of another rank" if self.trainer.world_size > 1 else ""
            clips = [clip for _, clips in pending for clip in clips]
            told = (
                f"The norm of the gradient is {gradient_norm.item()} at step {self.global_step}, after clips of "
                f"{', '.join(clips)}{elsewhere}"
            )
        raise UserError(f"{told}: lower the learning rate, or look at these clips.")

    def _parameters_by_rate(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters that learn at the optimizer's rate, and those that learn at the encoder's."""
        encoder = [p for part in self.encoder_lr_parts for p in getattr(self.network, part).parameters()]
        encoder_ids = {id(p) for p in encoder}
        others = [p for p in self.network.parameters() if id(p) not in encoder_ids]
        return [p for p in others if p.requires_grad], [p for p in encoder if p.requires_grad]

    def _learns(self, part: str) -> bool:
        return self.objective.trained_parts is None or part in self.objective.trained_parts

    def _check_settings(self) -> None:
        parts = {name for name, _ in self.network.named_children()}
        for name in (*self.fresh_parts, *self.encoder_lr_parts, *(self.objective.trained_parts or ())):
            if name not in parts:
                raise UserError(f"The network has no part {name!r}; it has {', '.join(sorted(parts))}.")
        if self.policy_from_prior and (self.init_from is None or self.network.prior is None):
            raise UserError("policy_from_prior needs a network with a prior, and init_from, which brings its weights.")
        if "prior" in self.localizations and self.network.prior is None:
            raise UserError("Validation asks for the prior, but the network has no prior: see model.localizations.")


def gradient_norms(network: LocalizationNetwork) -> dict[str, Tensor]:
    """The norm of the gradient of each part that learns: scalars by the part's name."""
    gradients = {
        name: [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        for name, part in network.named_children()
    }
    return {name: torch.nn.utils.get_total_norm(tensors) for name, tensors in gradients.items() if tensors}


def _leave_epoch_unfinished(fit_loop: dict[str, Any], batches: float) -> None:
    """Let a resumed run go on within an epoch that was cut short (by max_steps, say): Lightning counts it as done."""
    batch = fit_loop["epoch_loop.batch_progress"]["current"]
    if batch["ready"] == batch["completed"] and 0 < batch["completed"] < batches:
        for progress in fit_loop["epoch_progress"].values():
            progress["processed"] = progress["completed"] = progress["ready"] - 1


def _tracking_metrics() -> MetricCollection:
    return MetricCollection(
        {
            "auc": SuccessAUC(),
            "precision": Precision(),
            "normalized_precision": NormalizedPrecision(),
            "ao": AverageOverlap(),
            "sr_50": SuccessRate(0.5),
        },
        compute_groups=False,
    )
