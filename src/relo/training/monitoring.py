"""What a training shows of its health every n steps: a row of a table in the console, a figure of the policy."""

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich import box, get_console
from rich.table import Table
from torch import Tensor

from relo.errors import UserError
from relo.evaluation.plots import save_png
from relo.learning.health import action_histogram
from relo.settings import check_whole
from relo.training.figures import policy_figure, seen_frames
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

_MOST_STEPS = 2**31


class _EveryNSteps(Callback):
    def __init__(self, every_n_steps: int) -> None:
        check_whole(type(self).__name__, 1, _MOST_STEPS, every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from the step that a resumed run starts at."""
        self._last_step = trainer.global_step

    def _is_due(self, step: int) -> bool:
        """Whether an n-th step was taken since this was last asked; a batch may take several steps, or none."""
        is_due = step // self.every_n_steps > self._last_step // self.every_n_steps
        self._last_step = step
        return is_due


class HealthTable(_EveryNSteps):
    """Every n steps a row in the console: means over the steps since the row before, of the first rank's batches."""

    def __init__(self, every_n_steps: int = 50) -> None:
        """Args: `every_n_steps`, steps between two rows."""
        super().__init__(every_n_steps)
        self._seen: dict[str, list[Tensor]] = {}
        self._rows = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a table."""
        super().on_train_start(trainer, pl_module)
        self._seen, self._rows = {}, 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Keep the step's values where they are, and print a row where one is due."""
        assert isinstance(pl_module, RELOModule)
        if not trainer.is_global_zero:
            return
        for name, value in pl_module.logs.items():
            self._seen.setdefault(name, []).append(value)
        step = trainer.global_step
        if self._is_due(step):
            means = torch.stack([torch.stack(values).float().mean() for values in self._seen.values()]).tolist()
            row = health_row(step, dict(zip(self._seen, means, strict=True)), self._rows % _HEADER_EVERY == 0)
            get_console().print(row, crop=False)
            self._seen = {}
            self._rows += 1


def health_row(step: int, values: dict[str, float], with_header: bool) -> Table:
    """A row of the table, of the columns that there are values for; the rows of one run stand below each other."""
    cells = {"step": str(step)}  # by title
    for name, title in _COLUMNS.items():
        if name in values:
            cells[title] = _number(values[name])
        if name == "reward":
            terms = {term: value for term, value in values.items() if term.startswith("reward_")}
            titles = {term: term.removeprefix("reward_").removesuffix("Reward") for term in terms}
            cells |= {f"reward\n{titles[term]}": _number(value) for term, value in terms.items()}
    table = Table(box=box.SIMPLE_HEAD, show_header=with_header, show_edge=False, padding=0)
    widths = [max(7, *map(len, title.split("\n"))) for title in cells]
    for title, width in zip(cells, widths, strict=True):
        table.add_column(title, justify="right", width=width, no_wrap=True)
    table.width = sum(widths) + len(widths) - 1  # a file, which counts as 80 columns wide, gets all of it
    table.add_row(*cells.values())
    return table


def _number(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.0e}"


class PolicyFigures(_EveryNSteps):
    """Every n steps a figure `figures/step_000123.png` in the run's folder, which TensorBoard and W&B get too.

    It shows frames of the first rank's batch with the truth and the chosen box, the policy's map beside the prior's
    where the network has one, and how often each cell was chosen since the last figure.
    """

    def __init__(self, every_n_steps: int = 500, frames: int = 4) -> None:
        """Args: `every_n_steps`, steps between two figures; `frames`, how many frames of the batch to show."""
        super().__init__(every_n_steps)
        check_whole("PolicyFigures", 1, 64, frames=frames)
        self.frames = frames
        # Actions and present of each step: [R, T]. Small, and counted only when a figure is due: counting would wait.
        self._acted: deque[tuple[Tensor, Tensor]] = deque(maxlen=every_n_steps)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        super().on_train_start(trainer, pl_module)
        self._acted.clear()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
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
        if not self._is_due(step):
            return
        actions, present = (torch.cat(column) for column in zip(*self._acted, strict=True))
        histogram = action_histogram(replace(rollout, actions=actions, present=present)).cpu().numpy()
        frames = seen_frames(rollout, pl_module.network.prior, self.frames)
        figure = policy_figure(frames, histogram, f"Step {step}", f"chosen cells, {len(self._acted)} steps")
        self._acted.clear()
        path = Path(trainer.default_root_dir) / "figures" / f"step_{step:06d}.png"
        save_png(figure, path, dpi=100)
        loggers: list[Any] = trainer.loggers
        for logger in loggers:
            if hasattr(logger, "log_image"):  # W&B's takes files, TensorBoard's figures
                logger.log_image(key="policy", images=[str(path)], step=step)
            elif hasattr(logger.experiment, "add_figure"):
                logger.experiment.add_figure("policy", figure, global_step=step)
