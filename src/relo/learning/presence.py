"""Presence: a head is trained to say whether the box that the localization chooses is right.

Calibrated log-odds become probabilities that are as often right as they say.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.geometry import cxcywh_to_xyxy, iou, xywh_to_xyxy
from relo.learning.base import Objective, StepResult
from relo.learning.rollout import groups_of, in_groups, unroll
from relo.models.heads import at_cells
from relo.models.network import LocalizationMaps, LocalizationNetwork
from relo.models.presence import PresenceHead, best_peaks

RIGHT_IOU = 0.5
"""A box is right where its IoU with the target exceeds this."""

TRAINED_PEAKS = 2
"""Peaks of the map whose boxes are trained on per frame, where no other number is set."""

ODDS_EPSILON = 1e-6
"""Probabilities are kept this far from 0 and 1 where they become log-odds."""


class PresenceObjective(Objective):
    """Binary cross-entropy of the presence of chosen boxes; all parts but the presence head are frozen.

    A box is right if its IoU with the target exceeds 0.5 and the target can be seen. Boxes are chosen by the map that
    the head reads (`PresenceHead.localization`): its best cell, and the next best peaks, among which are the
    look-alikes that a tracker's window may prefer. `data.absence` brings in frames that do not show the target.
    """

    trained_parts = ("presence",)

    def __init__(self, peaks: int = TRAINED_PEAKS, frames_per_group: int | None = None) -> None:
        """Set the loss.

        Args:
            peaks: how many peaks of the map are trained on per frame, the best first.
            frames_per_group: see `relo.learning.rollout.groups_of`.

        Raises:
            UserError: no peak is to be trained on.
        """
        if peaks < 1:
            raise UserError(f"PresenceObjective takes at least 1 peak per frame, not {peaks}.")
        self.peaks = peaks
        self.frames_per_group = frames_per_group

    def check(self, network: LocalizationNetwork) -> None:
        """Refuse a network without a presence head.

        Raises:
            UserError: it has none.
        """
        require_presence(network)

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Run the network over the clip's frames; logs how often the best box and its presence are right."""
        groups = groups_of(clip, self.frames_per_group)
        head = require_presence(network)
        steps = unroll(network, clip, (head.localization, "box"), groups=groups)
        loss, logs = presence_loss(head, steps, clip, groups, self.peaks)
        return StepResult(loss, {"loss": loss.detach(), **logs})


def require_presence(network: LocalizationNetwork) -> PresenceHead:
    """The network's presence head.

    Raises:
        UserError: it has none.
    """
    if network.presence is None:
        raise UserError(
            "Training presence needs a presence head: give the network one (relo.models.presence.ConvPresence)."
        )
    return network.presence


def presence_loss(
    head: PresenceHead,
    steps: Iterable[tuple[Tensor, LocalizationMaps]],
    clip: ClipBatch,
    groups: int,
    peaks: int = TRAINED_PEAKS,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Binary cross-entropy of the presence of the boxes at the map's best peaks, over all frames; and what to log.

    Its gradient reaches the head and the features that it reads, not the map and the boxes.

    Args:
        head: the presence head.
        steps: what `relo.learning.rollout.unroll` yields, with the head's map and boxes.
        clip: the clips.
        groups: of their frames, as they were unrolled.
        peaks: how many per frame, the best first.
    """
    # The truth is not clamped to the crop: a box is right by the whole of its target.
    truths_xyxy, present = in_groups(xywh_to_xyxy(clip.search_boxes_xywh), groups), in_groups(clip.present, groups)
    log_odds, is_right = [], []
    for t, (features, maps) in enumerate(steps):
        scores, boxes_cxcywh = (values.detach() for values in maps.candidates(head.localization))
        _, cells = best_peaks(scores, peaks)  # [B, peaks]
        log_odds.append(at_cells(head(features, scores, boxes_cxcywh)[:, None], cells))
        ious = iou(cxcywh_to_xyxy(at_cells(boxes_cxcywh[:, None], cells)), truths_xyxy[:, t, None])
        is_right.append((ious > RIGHT_IOU) & present[:, t, None])
    odds, right = torch.stack(log_odds), torch.stack(is_right)  # [T, B, peaks]
    loss = binary_cross_entropy_with_logits(odds, right.float())
    best_odds, best_right = odds[..., 0].detach(), right[..., 0]
    return loss, {
        "right": best_right.float().mean(),
        "presence": best_odds.sigmoid().mean(),
        "accuracy": ((best_odds > 0) == best_right).float().mean(),
    }


def fit_calibration(log_odds: Tensor, is_right: Tensor) -> tuple[float, float]:
    """Temperature and bias by logistic regression: sigmoid(log_odds / temperature + bias) fits what was right.

    Labels are drawn a little to the middle, as Platt (1999) has it, so that log-odds which part right from wrong
    without an error give a finite temperature.

    Args:
        log_odds: [N].
        is_right: [N] bool.

    Raises:
        UserError: all are right, or all wrong, or the log-odds are no greater where they are right.
    """
    positives, negatives = int(is_right.sum()), int((~is_right).sum())
    if not positives or not negatives:
        raise UserError(
            f"Presence cannot be calibrated on {positives} right and {negatives} wrong boxes; both are needed."
        )
    inputs = torch.stack([log_odds.double(), torch.ones_like(log_odds, dtype=torch.float64)], dim=1)  # [N, 2]
    labels = torch.where(is_right, (positives + 1) / (positives + 2), 1 / (negatives + 2)).double()
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    with torch.enable_grad(), torch.inference_mode(False):
        inputs, labels = inputs.clone(), labels.clone()
        optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = binary_cross_entropy_with_logits(inputs @ weights, labels)
            value.backward()
            return value

        optimizer.step(loss)
    slope, bias = weights.detach().tolist()
    if not slope > 0:
        raise UserError(
            "Presence is no greater where boxes are right than where they are wrong: train the head longer."
        )
    return 1 / slope, bias
