"""What a training shows of its health: clips a step, a table in the console, figures of the policy."""

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback, Trainer
from matplotlib.figure import Figure
from rich import box, get_console
from rich.table import Table
from torch import Tensor

from relo.errors import UserError
from relo.geometry import cxcywh_to_xyxy, iou
from relo.images import restore_images
from relo.learning.health import action_histogram
from relo.learning.rollout import Rollout
from relo.models.heads import PriorHead, at_cells
from relo.training.figures import SeenFrame, policy_figure
from relo.training.module import RELOModule

_COLUMNS = {
    "loss": "loss",
    "giou_loss": "GIoU\nloss",
    "l1_loss": "L1\nloss",
    "prior_loss": "prior\nloss",
    "reward": "reward",
    "entropy": "entropy",
    "kl": "KL",
    "clip_share": "clipped\nshare",
    "explained_variance": "explained\nvariance",
    "lost": "lost\nshare",
    "iou": "IoU\nchosen",
    "greedy_iou": "IoU\ngreedy",
    "best_iou": "IoU\nbest",
    "grad_norm": "gradient\nnorm",
}
"""Titles of what may be logged, in the order of the table's columns; a reward's terms follow the reward."""

_HEADER_EVERY = 20  # rows


class EffectiveBatch(Callback):
    """When training starts, tells console and loggers how many clips a step learns from."""

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        """Say it."""
        assert isinstance(pl_module, RELOModule)
        loader: Any = trainer.train_dataloader
        counts = {
            "batch_size": loader.batch_size,
            "ranks": trainer.world_size,
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "updates_per_batch": pl_module.objective.updates,
        }
        clips = counts["batch_size"] * counts["ranks"] * counts["accumulate_grad_batches"]
        for logger in trainer.loggers:
            logger.log_hyperparams({"clips_per_step": clips, **counts})
        if trainer.is_global_zero:
            get_console().print(_effective_batch(clips, device=trainer.strategy.root_device.type, **counts))


def _effective_batch(
    clips: int, *, batch_size: int, ranks: int, accumulate_grad_batches: int, updates_per_batch: int, device: str
) -> str:
    name = "GPU" if device == "cuda" else "process"
    several = "GPUs" if device == "cuda" else "processes"
    told = (
        f"{clips} clips a step: {batch_size} a {name} x {ranks} {name if ranks == 1 else several} "
        f"x {accumulate_grad_batches} accumulated"
    )
    return told if updates_per_batch == 1 else f"{told}; {updates_per_batch} updates from them"


class HealthTable(Callback):
    """Every n steps a row in the console: means over the steps since the row before, of the first rank's batches."""

    def __init__(self, every_n_steps: int = 50) -> None:
        """Args: `every_n_steps`, steps between two rows."""
        self.every_n_steps = _positive(every_n_steps, "HealthTable")
        self._seen: dict[str, list[Tensor]] = {}
        self._rows = 0
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin a table."""
        self._seen, self._rows, self._last_step = {}, 0, trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step's figures where they are, and print a row where one is due."""
        assert isinstance(pl_module, RELOModule)
        if not trainer.is_global_zero:
            return
        for name, value in pl_module.logs.items():
            self._seen.setdefault(name, []).append(value)
        step = trainer.global_step
        if step % self.every_n_steps or step == self._last_step:
            return
        names = list(self._seen)
        means = torch.stack([torch.stack(self._seen[name]).float().mean() for name in names]).tolist()
        row = health_row(step, dict(zip(names, means, strict=True)), with_header=self._rows % _HEADER_EVERY == 0)
        get_console().print(row, crop=False)
        self._seen, self._rows, self._last_step = {}, self._rows + 1, step


def health_row(step: int, values: dict[str, float], with_header: bool) -> Table:
    """A row of the table, of the columns that there are values for; the rows of one run stand below each other."""
    titles = {name: title for name, title in _COLUMNS.items() if name in values}
    terms = {name: name.removeprefix("reward_").removesuffix("Reward") for name in values if name.startswith("reward_")}
    table = Table(box=box.SIMPLE_HEAD, show_header=with_header, show_edge=False, padding=0)
    cells = {"step": ("step", str(step))}
    for name, title in titles.items():
        cells[name] = (title, _number(values[name]))
        if name == "reward":
            cells |= {term: (f"reward\n{short}", _number(values[term])) for term, short in terms.items()}
    widths = [max(7, *map(len, title.split("\n"))) for title, _ in cells.values()]
    for (title, _), width in zip(cells.values(), widths, strict=True):
        table.add_column(title, justify="right", width=width, no_wrap=True)
    table.width = sum(widths) + len(widths) - 1  # a file, which counts as 80 columns wide, gets all of it
    table.add_row(*(cell for _, cell in cells.values()))
    return table


def _number(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.0e}"


class PolicyFigures(Callback):
    """Every n steps a figure `figures/step_000123.png` in the run's folder, which TensorBoard and W&B get too.

    It shows frames of the first rank's batch with the truth and the chosen box, the policy's map beside the prior's
    where the network has one, and how often each cell was chosen since the last figure.
    """

    def __init__(self, every_n_steps: int = 500, frames: int = 4) -> None:
        """Args: `every_n_steps`, steps between two figures; `frames`, how many frames of the batch to show."""
        self.every_n_steps = _positive(every_n_steps, "PolicyFigures")
        self.frames = frames
        # Actions and present of each step: [R, T]. Small, and counted only when a figure is due: counting would wait.
        self._acted: deque[tuple[Tensor, Tensor]] = deque(maxlen=every_n_steps)
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to count."""
        self._acted.clear()
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember what was chosen, and draw where a figure is due.

        Raises:
            UserError: the objective leaves no rollout.
        """
        assert isinstance(pl_module, RELOModule)
        if not trainer.is_global_zero:
            return
        rollout = pl_module.rollout
        if rollout is None:
            raise UserError(
                f"{type(pl_module.objective).__name__} trains no policy to draw: take PolicyFigures out of "
                "trainer.callbacks."
            )
        self._acted.append((rollout.actions, rollout.present))
        step = trainer.global_step
        if step % self.every_n_steps or step == self._last_step:
            return
        self._last_step = step
        figure = self._figure(rollout, pl_module.network.prior, step)
        path = Path(trainer.default_root_dir) / "figures" / f"step_{step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)
        for logger in trainer.loggers:
            _send(logger, figure, path, step)

    def _figure(self, rollout: Rollout, prior: PriorHead | None, step: int) -> Figure:
        actions, present = (torch.cat(column) for column in zip(*self._acted, strict=True))
        histogram = action_histogram(replace(rollout, actions=actions, present=present)).cpu().numpy()
        counted = f"chosen cells, {len(self._acted)} steps"
        self._acted.clear()
        return policy_figure(seen_frames(rollout, prior, self.frames), histogram, f"Step {step}", counted)


@torch.no_grad()
def seen_frames(rollout: Rollout, prior: PriorHead | None, count: int) -> list[SeenFrame]:
    """Some frames of a rollout, spread over its clips, those with a visible target first.

    Args:
        rollout: what was done.
        prior: the network's head, for a rollout that was made without the prior's scores.
        count: how many, if there are so many.
    """
    present = rollout.present[:: rollout.samples]
    order = torch.cat([present.nonzero(), (~present).nonzero()])  # [clips * T, 2]
    order = order[: max(int(present.sum()), min(count, len(order)))]
    places = order[torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()]
    walks, times = (places * torch.tensor([rollout.samples, 1], device=places.device)).unbind(1)

    policy = rollout.logits[walks, times].float().flatten(1).softmax(1).view(len(walks), *rollout.logits.shape[2:])
    cells_xyxy, ious = rollout.cells_xyxy[walks, times], rollout.ious[walks, times]
    chosen_xyxy, truth_xyxy = rollout.chosen_xyxy[walks, times], rollout.truth_xyxy[walks, times]
    images = restore_images(rollout.search_images[walks, times])
    visible = rollout.present[walks, times].tolist()
    scores = None if rollout.prior_scores is None else rollout.prior_scores[walks, times]
    if scores is None and prior is not None:
        scores, own_cxcywh = _run(prior, rollout.features[walks, times])
        cells_xyxy = cells_xyxy if own_cxcywh is None else cxcywh_to_xyxy(own_cxcywh)
    frames = [
        SeenFrame(
            image=images[i].cpu().numpy(),
            truth_xyxy=truth_xyxy[i].cpu().numpy() if visible[i] else None,
            chosen_xyxy=chosen_xyxy[i].cpu().numpy(),
            iou=float(ious[i]),
            policy=policy[i].cpu().numpy(),
        )
        for i in range(len(walks))
    ]
    if scores is None:
        return frames
    best_xyxy = at_cells(cells_xyxy, scores.flatten(1).argmax(1))
    prior_ious = iou(best_xyxy, truth_xyxy)
    return [
        replace(
            frame,
            prior=scores[i].cpu().numpy(),
            prior_xyxy=best_xyxy[i].cpu().numpy(),
            prior_iou=float(prior_ious[i]),
        )
        for i, frame in enumerate(frames)
    ]


def _run(prior: PriorHead, features: Tensor) -> tuple[Tensor, Tensor | None]:
    """The prior's scores and boxes of features [M, C, S, S], without a trace in its BatchNorm statistics."""
    learns = prior.training
    prior.eval()
    scores, boxes_cxcywh = prior(features.to(next(prior.parameters()).dtype))
    prior.train(learns)
    return scores.float(), None if boxes_cxcywh is None else boxes_cxcywh.float()


def _send(logger: Any, figure: Figure, path: Path, step: int) -> None:
    """Give the figure to a logger that takes pictures: W&B's takes files, TensorBoard's figures."""
    if hasattr(logger, "log_image"):
        logger.log_image(key="policy", images=[str(path)], step=step)
    elif hasattr(logger.experiment, "add_figure"):
        logger.experiment.add_figure("policy", figure, global_step=step)


def _positive(steps: int, callback: str) -> int:
    if steps < 1:
        raise UserError(f"{callback}'s every_n_steps must be at least 1, not {steps}.")
    return steps
