"""Plots of scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from relo.metrics.functional import success_thresholds


def success_plot(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw success curves (21 values each, by name) with their areas in the legend, and save the picture."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot(
        xlabel="overlap threshold", ylabel="success rate", xlim=(0, 1), ylim=(0, 1), title="Success, one pass"
    )
    for name, curve in curves.items():
        axes.plot(success_thresholds(), curve, label=f"{name} [{100 * sum(curve) / len(curve):.1f}]")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
