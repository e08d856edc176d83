"""A figure of what a policy looks at: search regions with boxes, its maps beside the prior's, and where it acted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

TRUTH, CHOSEN, PRIOR = "#3ddc5c", "#ff3b30", "#29b6f6"
PANEL = 2.3  # side of an image or map, in inches
_SHARES = (0.0, 1.0, 1.0, 0.0)  # x from left to right, y from top to bottom, as shares of the crop

Map = NDArray[np.floating]  # [S, S]
Box = NDArray[np.floating]  # x1, y1, x2, y2 as shares of the crop's side


@dataclass(frozen=True)
class SeenFrame:
    """One frame of a rollout."""

    image: NDArray[np.uint8]  # [H, W, 3], RGB: the search region
    truth_xyxy: Box | None  # None where the target cannot be seen
    chosen_xyxy: Box  # of the cell that was drawn
    iou: float  # of the chosen box
    policy: Map  # probabilities, which sum to 1
    prior: Map | None = None  # scores in (0, 1)
    prior_xyxy: Box | None = None  # of the prior's best cell
    prior_iou: float | None = None


def policy_figure(frames: list[SeenFrame], histogram: Map, title: str, histogram_title: str) -> Figure:
    """A column a frame: the search region, the policy's map and, if there is one, the prior's; and the histogram.

    A row's maps share one colour scale. The policy's grows with the square root, so that a spread-out map is not black.

    Args:
        frames: what to show; all with a prior, or none.
        histogram: how often each cell was chosen, as shares [S, S].
        title: the figure's title.
        histogram_title: the histogram's title.
    """
    has_prior = frames[0].prior is not None
    rows = 3 if has_prior else 2
    figure = Figure(figsize=(PANEL * (len(frames) + 2), PANEL * rows + 1.1), layout="constrained")
    figure.suptitle(title, fontsize="x-large")
    halves: Any = figure.subfigures(1, 2, width_ratios=(len(frames) + 0.4, 1.6))
    seen, acted = halves
    axes = seen.subplots(rows, len(frames), squeeze=False)
    for panel, frame in zip(axes[0], frames, strict=True):
        panel.imshow(frame.image, extent=_SHARES)
        panel.set_title(_overlap(frame))
        _draw_boxes(panel, frame)
    policies = [frame.policy for frame in frames]
    for panel, policy in zip(axes[1], policies, strict=True):
        panel.set_title(f"entropy {_entropy(policy):.1f} nats", fontsize="medium")
    _draw_maps(seen, axes[1], policies, 0.5, "probability of a cell")
    if has_prior:
        scores = [frame.prior for frame in frames if frame.prior is not None]
        _draw_maps(seen, axes[2], scores, 1.0, "score of a cell")
    for panel, frame in zip(axes[1:].flat, frames * (rows - 1), strict=True):
        if frame.truth_xyxy is not None:
            _draw_box(panel, frame.truth_xyxy, TRUTH, 1.2)
    for panel, label in zip(axes[:, 0], ("search region", "policy", "prior"), strict=False):
        panel.set_ylabel(label, fontsize="large")
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))
    keys = {"truth": TRUTH, "chosen cell's box": CHOSEN} | ({"prior's best box": PRIOR} if has_prior else {})
    handles = [Line2D([], [], color=color, linewidth=3, label=name) for name, color in keys.items()]
    seen.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    _draw_histogram(acted, histogram, histogram_title)
    return figure


def _overlap(frame: SeenFrame) -> str:
    if frame.truth_xyxy is None:
        return "target cannot be seen"
    return f"IoU {frame.iou:.2f}" + ("" if frame.prior_iou is None else f", prior {frame.prior_iou:.2f}")


def _draw_maps(figure: Any, axes: NDArray[Any], maps: Sequence[Map], power: float, label: str) -> None:
    scale = PowerNorm(power, 0, max(float(values.max()) for values in maps))
    for panel, values in zip(axes, maps, strict=True):
        drawn = panel.imshow(values, extent=_SHARES, cmap="magma", norm=scale)
    figure.colorbar(drawn, ax=axes, pad=0.01, ticks=MaxNLocator(4)).set_label(label, fontsize="medium")


def _draw_histogram(figure: Any, histogram: Map, title: str) -> None:
    panel = figure.subplots()
    drawn = panel.imshow(histogram, extent=_SHARES, cmap="viridis", vmin=0)
    panel.set(xticks=[], yticks=[])
    panel.set_title(title)
    panel.set_xlabel(f"uniform would be {1 / histogram.size:.4f}\nentropy {_entropy(histogram):.1f} nats")
    bar = figure.colorbar(drawn, ax=panel, shrink=0.8, location="bottom", ticks=MaxNLocator(4))
    bar.set_label("share of the actions")


def _draw_boxes(axes: Axes, frame: SeenFrame) -> None:
    if frame.truth_xyxy is not None:
        _draw_box(axes, frame.truth_xyxy, TRUTH, 2.2)
    if frame.prior_xyxy is not None:
        _draw_box(axes, frame.prior_xyxy, PRIOR, 2.2)
    _draw_box(axes, frame.chosen_xyxy, CHOSEN, 2.2)


def _draw_box(axes: Axes, box_xyxy: Box, color: str, width: float) -> None:
    left, top, right, bottom = box_xyxy
    # A dark rim keeps the line visible on any background.
    rim = [effects.Stroke(linewidth=width + 1.6, foreground="black"), effects.Normal()]
    axes.add_patch(
        Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=width, path_effects=rim
        )
    )


def _entropy(probabilities: Map) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())
