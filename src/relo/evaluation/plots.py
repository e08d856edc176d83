"""Plots of scores."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from relo.files import atomic_write
from relo.metrics.functional import success_thresholds

_AXES = {
    "success": ("overlap threshold", "success rate"),
    "precision": ("centre error threshold (px)", "precision"),
    "normalized_precision": ("normalized centre error threshold", "normalized precision"),
}
_LINE_STYLES = ("-", "--", ":", "-.")


def curve_plot(
    kind: str,
    thresholds: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    scores: Mapping[str, float],
    title: str,
) -> Figure:
    """Curves of several trackers, the best first in the legend.

    Args:
        kind: `success`, `precision` or `normalized_precision`.
        thresholds: where the curves are sampled, K values.
        curves: K values by tracker.
        scores: the number in the legend by tracker, as a fraction.
        title: of the plot.
    """
    label_x, label_y = _AXES[kind]
    figure = Figure(figsize=(5, 4), layout="constrained")
    limits = (thresholds[0], thresholds[-1])
    axes = figure.add_subplot(xlabel=label_x, ylabel=label_y, xlim=limits, ylim=(0, 1), title=title)
    styles = [style for style in _LINE_STYLES for _ in range(10)]  # ten colours, then the next style
    for name, style in zip(sorted(curves, key=lambda name: -scores[name]), cycle(styles), strict=False):
        axes.plot(thresholds, curves[name], style, label=f"{_plain(name)} [{100 * scores[name]:.1f}]")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left" if kind == "success" else "lower right", fontsize="small")
    return figure


def success_plot(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Success curves (21 values each, by name), with their areas in the legend."""
    areas = {name: sum(curve) / len(curve) for name, curve in curves.items()}
    return curve_plot("success", success_thresholds().tolist(), curves, areas, "Success, one pass")


def save_png(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure as a PNG file, in full or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=dpi, format="png")


def attribute_bars(scores: Mapping[str, Mapping[str, float]], counts: Mapping[str, int], label: str) -> Figure:
    """Grouped bars, one group per attribute.

    Args:
        scores: the score on each attribute's sequences, by tracker and attribute, as fractions.
        counts: the number of sequences of each attribute, in order.
        label: what the score is called.
    """
    figure = Figure(figsize=(max(6.0, 0.6 * len(counts)), 3.6), layout="constrained")
    axes = figure.add_subplot(ylabel=label, ylim=(0, 1))
    width = 0.8 / len(scores)
    for number, (name, by_attribute) in enumerate(scores.items()):
        places = [group - 0.4 + (number + 0.5) * width for group in range(len(counts))]
        axes.bar(places, [by_attribute[attribute] for attribute in counts], width, label=_plain(name))
    axes.set_xticks(range(len(counts)), [f"{attribute}\n({count})" for attribute, count in counts.items()])
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def attribute_radar(scores: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]) -> Figure:
    """A radar chart with one spoke per attribute; the arguments are those of `attribute_bars`."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(projection="polar")
    assert isinstance(axes, PolarAxes)
    angles = [2 * math.pi * number / len(counts) for number in range(len(counts))]
    for name, by_attribute in scores.items():
        values = [by_attribute[attribute] for attribute in counts]
        axes.plot([*angles, angles[0]], [*values, values[0]], label=_plain(name))
        axes.fill(angles, values, alpha=0.1)
    axes.set_xticks(angles, list(counts))
    axes.set_rlabel_position(180 / len(counts))  # between two spokes' names
    axes.set_ylim(0, max(0.1, 1.1 * max(max(values.values()) for values in scores.values())))
    axes.legend(loc="lower right", bbox_to_anchor=(1.15, -0.12), fontsize="small")
    return figure


def _plain(name: str) -> str:
    """A name in which matplotlib finds no formula, and which it lists, unlike those that begin with "_"."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")
