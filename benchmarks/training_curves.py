"""The curves of trainings that followed each other, from their logs: one picture with a panel per stage.

    python benchmarks/training_curves.py runs/weights --output docs/weights_curves.png [--smooth 0.9]

RUNS holds a folder per stage with the log of Lightning's CSVLogger (`<stage>/log/metrics.csv`, and `metrics_1.csv` and
so on of what ran before it was stopped), as `make weights` leaves it; stages stand in the order in which they ended.
The left axis is of the loss, logarithmic; the right one is of what boxes are worth: the IoU of the trained or the most
probable cell's box, the best cell's, and how often presence is right. Bold lines are moving averages.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tables import parser_of

from relo.errors import UserError
from relo.evaluation.plots import save_png

SHARES = {
    "train/iou": "IoU of the trained cell",
    "train/greedy_iou": "IoU of the most probable cell",
    "train/best_iou": "IoU of the best cell",
    "train/accuracy": "presence is right",
}
LOSS = "train/loss"


def stage_logs(runs: Path) -> dict[str, list[Path]]:
    """The logs of each stage by its name, the earlier part of a training first; stages in the order of their ends."""
    stages: dict[str, list[Path]] = {}
    for path in sorted(runs.glob("*/log/metrics*.csv"), key=lambda path: path.stat().st_mtime):
        stages[path.parts[-3]] = [*stages.pop(path.parts[-3], []), path]
    return stages


def read_training(paths: Sequence[Path]) -> dict[str, NDArray[np.float64]]:
    """Steps and values [n, 2] of each column that has numbers; of steps that were run again, the last ones.

    Raises:
        UserError: see `read_log`.
    """
    rows: list[dict[str, float]] = []
    for path in paths:
        log = read_log(path)
        rows = [row for row in rows if row["step"] < log[0]["step"]] + log
    points = {name: [(row["step"], row[name]) for row in rows if name in row] for name in (LOSS, *SHARES)}
    return {name: np.array(found) for name, found in points.items() if found}


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows that have numbers of ours, and their steps.

    Raises:
        UserError: it cannot be read, or is no log.
    """
    try:
        with path.open(newline="") as file:
            rows = [
                row for row in csv.DictReader(file) if any(row.get(name) for name in (LOSS, *SHARES)) and row["step"]
            ]
        if not rows:
            raise ValueError("no loss is in it")
        return [{name: float(row[name]) for name in ("step", LOSS, *SHARES) if row.get(name)} for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no log of a training ({error}); name the folder that `make weights` made."
        ) from error


def smoothed(values: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """The moving average [n] that forgets by `decay` per value; the first ones weigh no more than others."""
    weights = decay ** np.arange(len(values))
    return np.convolve(values, weights)[: len(values)] / np.cumsum(weights)


def draw(logs: dict[str, dict[str, NDArray[np.float64]]], decay: float) -> Figure:
    """A panel per stage."""
    figure = Figure(figsize=(4.5 * len(logs), 3.5), layout="constrained")
    for axes, (stage, log) in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs.items(), strict=True):
        right = axes.twinx()
        colors = iter(("tab:blue", "tab:orange", "tab:green", "tab:red"))
        for name, points in log.items():
            color, side = next(colors), axes if name == LOSS else right
            side.plot(*points.T, color=color, alpha=0.25, linewidth=0.8)
            label = "loss (left)" if name == LOSS else SHARES[name]
            side.plot(points[:, 0], smoothed(points[:, 1], decay), color=color, linewidth=1.8, label=label)
        if LOSS in log and (log[LOSS][:, 1] > 0).all():
            axes.set_yscale("log")
        right.set_ylim(0, 1)
        axes.set(title=stage, xlabel="step")
        (handles, labels), (more_handles, more_labels) = (a.get_legend_handles_labels() for a in (axes, right))
        right.legend(handles + more_handles, labels + more_labels, fontsize=7, loc="lower right")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the picture."""
    parser = parser_of(__doc__)
    parser.add_argument("runs", type=Path, help="the folder of the stages' folders")
    parser.add_argument("--output", type=Path, required=True, help="the picture, .png")
    parser.add_argument("--smooth", type=float, default=0.9, help="of the moving average; 0 is none")
    options = parser.parse_args(arguments)
    if not 0 <= options.smooth < 1:
        parser.error(f"--smooth must be from 0 to below 1, but is {options.smooth}.")
    stages = stage_logs(options.runs)
    try:
        if not stages:
            raise UserError(
                f"{options.runs} holds no <stage>/log/metrics.csv; name the folder that `make weights` made."
            )
        save_png(draw({stage: read_training(paths) for stage, paths in stages.items()}, options.smooth), options.output)
    except UserError as error:
        parser.error(str(error))
    print(f"Written: {options.output}")


if __name__ == "__main__":
    main()
