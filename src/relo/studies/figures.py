"""Figures of a study."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from relo.studies.results import Entry
from relo.studies.study import POOLED


def scores_over(axis: str, of_group: Sequence[Entry]) -> Figure:
    """The AUC over a number that the rows of a group differ in.

    Args:
        axis: what the rows' titles count.
        of_group: its entries, of all test sets.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    main, single = figure.subplots(1, 2, width_ratios=(1.3, 1))
    main.set(xlabel=axis, ylabel="success AUC (%)", title=f"{POOLED}: mean and deviation over seeds")
    single.set(xlabel=axis, title="by test set")
    for test in dict.fromkeys(entry.test for entry in of_group):
        points = sorted((entry for entry in of_group if entry.test == test), key=lambda entry: float(entry.title))
        places = [float(entry.title) for entry in points]
        means = [100 * entry.summary.mean for entry in points]
        spread = [100 * (entry.summary.deviation or 0) for entry in points]
        if test != POOLED:
            single.errorbar(places, means, spread, fmt="o-", markersize=3, linewidth=1.2, capsize=2, label=test)
            continue
        main.errorbar(places, means, spread, fmt="o-", color="black", linewidth=1.8, capsize=5)
        for entry, place in zip(points, places, strict=True):
            seeds = [100 * mean for mean in entry.by_seed]
            main.scatter([place] * len(seeds), seeds, s=14, color="white", edgecolors="black", linewidths=0.8, zorder=4)
    ticks = sorted({float(entry.title) for entry in of_group})
    for axes in (main, single):
        if ticks[0] > 0:
            axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    single.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def differences(title: str, of_group: Sequence[Entry]) -> Figure | None:
    """The differences to the reference with their intervals, and those of single test sets; None without any."""
    compared = [entry for entry in of_group if entry.comparison is not None]
    rows = list(dict.fromkeys(entry.title for entry in compared))
    if not rows:
        return None
    figure = Figure(figsize=(7, 1.4 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot(xlabel="difference in success AUC (points)", title=title)
    axes.axvline(0, color="0.4", linewidth=1)
    for test in dict.fromkeys(entry.test for entry in compared):
        of_test = [entry for entry in compared if entry.test == test]
        heights = [-rows.index(entry.title) for entry in of_test]
        found = [entry.comparison for entry in of_test if entry.comparison is not None]
        means = [100 * comparison.mean for comparison in found]
        if test != POOLED:
            axes.scatter(means, heights, s=14, alpha=0.6, label=test)
            continue
        reach = [100 * (c.mean - (c.mean if c.low is None else c.low)) for c in found]
        axes.errorbar(
            means, heights, xerr=reach, fmt="D", color="black", markersize=5, capsize=4, zorder=3, label=POOLED
        )
    axes.set_yticks([-number for number in range(len(rows))], rows)
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
