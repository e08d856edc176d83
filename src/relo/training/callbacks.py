"""Callbacks that belong to any fit: what is trained on how many clips, gradients that stay finite, averaged weights."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from rich import get_console
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from relo.errors import UserError
from relo.models.network import LocalizationNetwork
from relo.training.module import RELOModule


class NetworkSummary(Callback):
    """Before a fit, prints the network's parts, their parameters and which of them are trained."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table."""
        assert isinstance(pl_module, RELOModule)
        table = Table("part", "class", "parameters", "", title="The network")
        table.columns[2].justify = "right"
        for name, part in pl_module.network.named_children():
            count = sum(parameter.numel() for parameter in part.parameters())
            is_trained = any(parameter.requires_grad for parameter in part.parameters())
            table.add_row(name, type(part).__name__, f"{count:,}", "trained" if is_trained else "frozen")
        get_console().print(table)


class EffectiveBatch(Callback):
    """When training starts, shows on the console and logs how many clips a step takes."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show and log it."""
        assert isinstance(pl_module, RELOModule)
        loader: Any = trainer.train_dataloader
        batch_size, ranks, accumulated = loader.batch_size, trainer.world_size, trainer.accumulate_grad_batches
        clips, updates = batch_size * ranks * accumulated, pl_module.objective.updates
        counts = {
            "clips_per_step": clips,
            "batch_size": batch_size,
            "ranks": ranks,
            "accumulate_grad_batches": accumulated,
            "updates_per_batch": updates,
        }
        for logger in trainer.loggers:
            logger.log_hyperparams(counts)
        if trainer.is_global_zero:
            name, several = ("GPU", "GPUs") if trainer.strategy.root_device.type == "cuda" else ("process", "processes")
            places = f"{batch_size} per {name} x {ranks} {name if ranks == 1 else several}"
            several_updates = f"; {updates} updates from them" if updates > 1 else ""
            get_console().print(f"{clips} clips per step: {places} x {accumulated} accumulated{several_updates}")


class GradientHealth(Callback):
    """Logs the norm of the gradient before it is clipped, and ends a fit whose losses or gradients are not finite."""

    def __init__(self) -> None:
        self._clips: list[str] = []
        self._pending: list[tuple[Tensor, list[str]]] = []  # losses and clips whose gradients wait for the optimizer

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the names of the batch's clips."""
        self._clips = batch.sequence_id

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remember the loss, without waiting for its value."""
        self._pending.append((loss.detach(), self._clips))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norm as a whole and of each part that is trained.

        Raises:
            UserError: the norm or a loss is not finite. Raised here and not before the backward pass, where the other
                ranks would wait for this one.
        """
        assert isinstance(pl_module, RELOModule)
        norms = gradient_norms(pl_module.network)
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        self._check_finite(trainer, total)
        logs = {"grad_norm": total, **{f"grad_norm_{part}": norm for part, norm in norms.items()}}
        pl_module.logs |= logs
        pl_module.log_dict({f"train/{name}": value for name, value in logs.items()})

    def _check_finite(self, trainer: Trainer, gradient_norm: Tensor) -> None:
        pending, self._pending = self._pending, []
        # Where gradients are scaled (16-mixed), steps that overflow are skipped, and the scale is lowered.
        is_scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        losses = torch.stack([loss.float() for loss, _ in pending])
        if torch.isfinite(losses.sum() if is_scaled else losses.sum() + gradient_norm):
            return
        place = f"at step {trainer.global_step}"
        for loss, clips in pending:
            if not torch.isfinite(loss):
                found = f"The loss is {loss.item()} {place}, on clips of {', '.join(clips)}"
                break
        else:
            elsewhere = " or those of another rank" if trainer.world_size > 1 else ""
            clips = [clip for _, names in pending for clip in names]
            norm = f"The norm of the gradient is {gradient_norm.item()}"
            found = f"{norm} {place}, after clips of {', '.join(clips)}{elsewhere}"
        raise UserError(f"{found}: lower the learning rate, or look at these clips.")


def gradient_norms(network: LocalizationNetwork) -> dict[str, Tensor]:
    """The norm of the gradient of each part that is trained: scalars by the part's name."""
    gradients = {
        name: [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        for name, part in network.named_children()
    }
    return {name: nn.utils.get_total_norm(tensors) for name, tensors in gradients.items() if tensors}


class AveragedWeights(EMAWeightAveraging):
    """Lightning's moving average of the weights: checkpoints and validation have it, training goes on beside it.

    Lightning copies the whole module, with all that it refers to: a trainer's process group cannot be copied. Here the
    network alone is. Until the first update the average is of the weights that there are.
    """

    _is_swapped = False

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,
        decay: float = 0.999,
        **others: Any,
    ) -> None:
        """As of `EMAWeightAveraging`; by linear interpolation, with which what does not change stays to the bit."""
        super().__init__(device, use_buffers, decay, **others)
        self._kwargs |= {"avg_fn": None, "multi_avg_fn": get_ema_multi_avg_fn(decay)}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the network."""
        assert isinstance(pl_module, RELOModule)
        if stage == "fit":
            network = nn.ModuleDict({"network": pl_module.network})  # under the names that checkpoints have
            device = pl_module.device if self._device is None else self._device
            self._average_model = AveragedModel(network, device, use_buffers=self._use_buffers, **self._kwargs)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the network to its device, where it goes after the setup."""
        if self._average_model is not None and self._device is None:
            self._average_model.to(pl_module.device)

    def other_network(self) -> LocalizationNetwork:
        """Of the average and what is trained, the one that the module does not have at present."""
        average: Any = self._average_model
        network: LocalizationNetwork = average.module["network"]
        return network

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module the average."""
        self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        self._follow(pl_module)
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average in the place of what is trained, which is kept beside it."""
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:  # within a validation
            average, trained = (checkpoint.pop(entry) for entry in ("current_model_state", "state_dict"))
            checkpoint |= {"state_dict": average, "current_model_state": trained}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the weights back in their places, which a validation that is stopped leaves exchanged."""
        if self._is_swapped:
            self._swap_models(pl_module)

    def _follow(self, pl_module: Any) -> None:
        """Before the first update, copy the weights: the copy of the setup is older than those of `init_from`."""
        if self._average_model is not None and not self._average_model.n_averaged:
            self.other_network().load_state_dict(pl_module.network.state_dict())

    def _swap_models(self, pl_module: LightningModule) -> None:
        super()._swap_models(pl_module)
        self._is_swapped = not self._is_swapped
