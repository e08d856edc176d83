"""The recipe of a training stage: the weights that the network starts with, its optimizer, what frozen parts do."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.layers import DropPath
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from relo.errors import UserError, one_sentence
from relo.models.checkpoints.states import load_state_strictly
from relo.models.checkpoints.weights import load_stage
from relo.models.initialisation import start_as_released
from relo.models.network import LocalizationNetwork
from relo.settings import LARGEST, check_number


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, whatever the objective.

    Attributes:
        optimizer: the optimizer, over the trainable parameters.
        scheduler: the learning-rate schedule; constant if not given.
        scheduler_interval: whether the schedule advances by epoch or by step.
        encoder_lr_factor: the encoder's learning rate as a multiple of the others'.
        encoder_lr_parts: the parts trained at that rate; in the release the propagator's tokens are among them.
        released_start: give temporal tokens, token types and heads the first weights that they have in the release
            (`relo.models.initialisation`), not those that the network was made with.
        init_from: a checkpoint or model folder of an earlier stage; its weights are loaded strictly at the start of a
            fit (not when a run is resumed), and by `relo validate` where no checkpoint is given.
        fresh_parts: parts that keep their random weights when `init_from` is loaded, such as "policy".
        policy_from_prior: start the policy with the weights of the prior's head in `init_from`, not with random ones;
            both must be towers of one size (`ConvPolicy` and `ConvPrior`).
        frozen_stochastic_depth: frozen parts keep their stochastic depth on while the others are trained, as in the
            release.
        checkpoint_activations: compute the encoder's layers again in the backward pass instead of keeping what they
            computed: less memory, a third more time.

    Raises:
        UserError: a factor that is negative or not finite.
    """

    optimizer: Callable[[Iterable], Optimizer] = lambda p: torch.optim.AdamW(p, lr=1e-4, weight_decay=1e-4)
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    scheduler_interval: Literal["epoch", "step"] = "epoch"
    encoder_lr_factor: float = 1.0
    encoder_lr_parts: Sequence[str] = ("encoder",)
    released_start: bool = False
    init_from: str | None = None
    fresh_parts: Sequence[str] = ()
    policy_from_prior: bool = False
    frozen_stochastic_depth: bool = True
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        check_number("The model", 0, LARGEST, encoder_lr_factor=self.encoder_lr_factor)

    def prepare(self, network: LocalizationNetwork, trained_parts: Iterable[str] | None) -> dict[str, nn.Module]:
        """Set up a network that was just made, and freeze what is not trained.

        Args:
            network: the network.
            trained_parts: the parts that the objective trains; None is all of them.

        Returns:
            The frozen parts, by name.

        Raises:
            UserError: the network lacks a part that is named, or has no prior to start the policy from.
        """
        parts = dict(network.named_children())
        trained = list(parts if trained_parts is None else trained_parts)
        for name in (*self.fresh_parts, *self.encoder_lr_parts, *trained):
            if name not in parts:
                raise UserError(f"The network has no part {name!r}; it has {', '.join(sorted(parts))}.")
        if self.policy_from_prior and (self.init_from is None or network.prior is None):
            raise UserError("policy_from_prior needs a network with a prior, and init_from, which brings its weights.")
        network.encoder.checkpoint_activations = self.checkpoint_activations
        if self.released_start:
            start_as_released(network)
        for name, part in parts.items():
            part.requires_grad_(name in trained)
        return {name: part for name, part in parts.items() if name not in trained}

    def rest(self, frozen_parts: Iterable[nn.Module]) -> None:
        """Put frozen parts into evaluation mode, so that BatchNorm statistics stay as they are."""
        for part in frozen_parts:
            part.eval()
            for layer in part.modules():
                if isinstance(layer, DropPath):
                    layer.train(self.frozen_stochastic_depth)

    def load_first_weights(self, network: LocalizationNetwork, frozen_parts: Collection[str]) -> None:
        """Load the weights of the earlier stage; where there is none, warn of parts that are frozen at random."""
        if self.init_from is None:
            untrained = [name for name in ("encoder", "propagator", "box") if name in frozen_parts]
            if untrained:
                rank_zero_warn(
                    f"Nothing trains {', '.join(untrained)}, whose weights are random: set model.init_from to a "
                    "checkpoint of the warm-up."
                )
            return
        load_stage(network, self.init_from, self.fresh_parts)
        if self.policy_from_prior:
            assert network.prior is not None  # see `prepare`
            load_state_strictly(network.policy, network.prior.state_dict(), "The prior's head")

    def optimizers(self, network: LocalizationNetwork) -> OptimizerLRScheduler:
        """Optimizer and schedule, with one parameter group for each learning rate.

        Raises:
            UserError: the optimizer or the schedule refuses its settings, a learning rate is not finite, or the
                schedule's rates are not those that `encoder_lr_factor` asks for.
        """
        others, encoder = self.parameters_by_rate(network)
        optimizer = _made(self.optimizer, [{"params": params} for params in (others, encoder) if params], "optimizer")
        for group in optimizer.param_groups:
            check_number("The optimizer", 0, LARGEST, lr=float(group["lr"]))
        if encoder:
            optimizer.param_groups[-1]["lr"] *= self.encoder_lr_factor
        if self.scheduler is None:
            return optimizer
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        scheduler = _made(self.scheduler, optimizer, "scheduler")
        if encoder and self.encoder_lr_factor != 1:
            self._require_encoder_rate(scheduler, rates)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.scheduler_interval},
        }

    def _require_encoder_rate(self, scheduler: Any, rates: list[float]) -> None:
        """Refuse a schedule that goes from other rates than the optimizer's `rates`, as OneCycleLR does.

        It may have lists of its own, in which the encoder's rate is the asked-for multiple.
        """
        groups = scheduler.optimizer.param_groups
        first = [float(group.get("initial_lr", group["lr"])) for group in groups]
        if first == rates:
            return
        for starts in (first, getattr(scheduler, "max_lrs", first)):  # the second is CyclicLR's
            if len(groups) == 1 or not math.isclose(starts[-1], self.encoder_lr_factor * starts[0], rel_tol=1e-6):
                raise UserError(
                    f"{type(scheduler).__name__} sets learning rates of its own, which model.encoder_lr_factor "
                    f"{self.encoder_lr_factor:g} does not reach: set the factor to 1, or give the schedule lists of "
                    "two rates, the encoder's last, where both are trained."
                )

    def parameters_by_rate(self, network: LocalizationNetwork) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters that are trained at the optimizer's rate, and those at the encoder's; no frozen ones."""
        encoder = [p for part in self.encoder_lr_parts for p in getattr(network, part).parameters()]
        encoder_ids = {id(p) for p in encoder}
        others = [p for p in network.parameters() if id(p) not in encoder_ids]
        return [p for p in others if p.requires_grad], [p for p in encoder if p.requires_grad]


def _made(make: Callable[[Any], Any], argument: Any, what: str) -> Any:
    """What a setting `model.<what>` makes; torch checks its arguments only then."""
    try:
        return make(argument)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"model.{what} refuses its settings: {one_sentence(str(error))}.") from error
