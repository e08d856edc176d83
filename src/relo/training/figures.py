"""A figure of what a policy looks at: search regions with boxes, its maps beside the prior's, and where it acted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor

from relo.geometry import cxcywh_to_xyxy, iou
from relo.images import restore_images
from relo.learning.rollout import Rollout
from relo.models.heads import PriorHead, at_cells

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
    count = min(count, len(order))
    order = order[: max(int(present.sum()), count)]
    places = order[torch.linspace(0, len(order) - 1, count).round().long()]
    at = (places[:, 0] * rollout.samples, places[:, 1])  # rows and times [count] of the rollout

    policy, cells_xyxy, truth_xyxy = rollout.logits[at].float(), rollout.cells_xyxy[at], rollout.truth_xyxy[at]
    columns = {
        "image": restore_images(rollout.search_images[at]),
        "chosen_xyxy": rollout.chosen_xyxy[at],
        "iou": rollout.ious[at],
        "policy": policy.flatten(1).softmax(1).view_as(policy),
    }
    scores = None if rollout.prior_scores is None else rollout.prior_scores[at]
    if scores is None and prior is not None:
        scores, own_cxcywh = _run(prior, rollout.features[at])
        cells_xyxy = cells_xyxy if own_cxcywh is None else cxcywh_to_xyxy(own_cxcywh)
    if scores is not None:
        best_xyxy = at_cells(cells_xyxy, scores.flatten(1).argmax(1))
        columns |= {"prior": scores, "prior_xyxy": best_xyxy, "prior_iou": iou(best_xyxy, truth_xyxy)}
    truths = [
        truth if is_visible else None
        for truth, is_visible in zip(truth_xyxy.cpu().numpy(), rollout.present[at].tolist(), strict=True)
    ]
    arrays: dict[str, Any] = {name: column.cpu().numpy() for name, column in columns.items()}
    return [
        SeenFrame(truth_xyxy=truth, **{name: array[i] for name, array in arrays.items()})
        for i, truth in enumerate(truths)
    ]


def _run(prior: PriorHead, features: Tensor) -> tuple[Tensor, Tensor | None]:
    """The prior's scores and boxes of features [M, C, S, S], without a trace in its BatchNorm statistics."""
    was_training = prior.training
    prior.eval()
    scores, boxes_cxcywh = prior(features.to(next(prior.parameters()).dtype))
    prior.train(was_training)
    return scores.float(), None if boxes_cxcywh is None else boxes_cxcywh.float()


def policy_figure(frames: list[SeenFrame], histogram: Map, title: str, histogram_title: str) -> Figure:
    """One column per frame: the search region, the policy's map and, if there is one, the prior's; and the histogram.

    A row's maps share one colour scale. The policy's grows with the square root, so that a spread-out map is not black.

    Args:
        frames: what to show; all with a prior, or none.
        histogram: how often each cell was chosen, as shares [S, S].
        title: the figure's title.
        histogram_title: the histogram's title.
    """
    priors = [frame.prior for frame in frames if frame.prior is not None]
    rows = 3 if priors else 2
    figure = Figure(figsize=(PANEL * (len(frames) + 2), PANEL * rows + 1.1), layout="constrained")
    figure.suptitle(title, fontsize="x-large")
    halves: Any = figure.subfigures(1, 2, width_ratios=(len(frames) + 0.4, 1.6))
    seen, acted = halves
    axes = seen.subplots(rows, len(frames), squeeze=False)
    for frame, column in zip(frames, axes.T, strict=True):
        _draw_frame(column, frame)
    _draw_maps(seen, axes[1], [frame.policy for frame in frames], 0.5, "probability of a cell")
    if priors:
        _draw_maps(seen, axes[2], priors, 1.0, "score of a cell")
    for panel, label in zip(axes[:, 0], ("search region", "policy", "prior"), strict=False):
        panel.set_ylabel(label, fontsize="large")
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))
    keys = {"truth": TRUTH, "chosen cell's box": CHOSEN} | ({"prior's best box": PRIOR} if priors else {})
    handles = [Line2D([], [], color=color, linewidth=3, label=name) for name, color in keys.items()]
    seen.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    _draw_histogram(acted, histogram, histogram_title)
    return figure


def _draw_frame(column: NDArray[Any], frame: SeenFrame) -> None:
    """The search region with its boxes, above the maps' titles and true boxes."""
    region, policy, *_ = column
    region.imshow(frame.image, extent=_SHARES)
    overlap = f"IoU {frame.iou:.2f}" + ("" if frame.prior_iou is None else f", prior {frame.prior_iou:.2f}")
    region.set_title("target cannot be seen" if frame.truth_xyxy is None else overlap)
    policy.set_title(f"entropy {entr(frame.policy).sum():.1f} nats", fontsize="medium")
    for box_xyxy, color in ((frame.truth_xyxy, TRUTH), (frame.prior_xyxy, PRIOR), (frame.chosen_xyxy, CHOSEN)):
        _draw_box(region, box_xyxy, color, 2.2)
    for panel in column[1:]:
        _draw_box(panel, frame.truth_xyxy, TRUTH, 1.2)


def _draw_maps(figure: Any, axes: NDArray[Any], maps: Sequence[Map], power: float, label: str) -> None:
    scale = PowerNorm(power, 0, max(float(values.max()) for values in maps))
    for panel, values in zip(axes, maps, strict=True):
        drawn = panel.imshow(values, extent=_SHARES, cmap="magma", norm=scale)
    figure.colorbar(drawn, ax=axes, pad=0.01, ticks=MaxNLocator(4)).set_label(label, fontsize="medium")


def _draw_histogram(figure: Any, histogram: Map, title: str) -> None:
    panel = figure.subplots()
    drawn = panel.imshow(histogram, extent=_SHARES, cmap="viridis", vmin=0)
    panel.set(xticks=[], yticks=[], title=title)
    panel.set_xlabel(f"uniform would be {1 / histogram.size:.4f}\nentropy {entr(histogram).sum():.1f} nats")
    bar = figure.colorbar(drawn, ax=panel, shrink=0.8, location="bottom", ticks=MaxNLocator(4))
    bar.set_label("share of the actions")


def _draw_box(axes: Axes, box_xyxy: Box | None, color: str, width: float) -> None:
    if box_xyxy is None:
        return
    left, top, right, bottom = box_xyxy
    # A dark rim keeps the line visible on any background.
    rim = [effects.Stroke(linewidth=width + 1.6, foreground="black"), effects.Normal()]
    style: dict[str, Any] = {"fill": False, "edgecolor": color, "linewidth": width, "path_effects": rim}
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, **style))
