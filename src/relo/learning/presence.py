"""Presence: a head is trained to say whether the box that the localization chooses is right.

Calibrated log-odds become probabilities that are as often right as they say.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.geometry import cxcywh_to_xyxy, iou, xywh_to_xyxy
from relo.learning.base import Objective, StepResult, masked_mean, mean_loss
from relo.learning.closed_loop import (
    DEFAULT_RULE,
    LARGEST_JITTER,
    LoopFrame,
    follow_clips,
    jittered,
    surroundings_of,
)
from relo.learning.rollout import check_groups, groups_of, in_groups, unroll
from relo.models.heads import at_cells
from relo.models.network import LocalizationMaps, LocalizationNetwork
from relo.models.presence import PresenceHead, best_peaks
from relo.settings import LARGEST_SIDE, check_number, check_whole
from relo.tracking.rule import TrackingRule

RIGHT_IOU = 0.5
"""A box is right where its IoU with the target exceeds this."""

TRAINED_PEAKS = 2
"""Peaks of the map whose boxes are trained on per frame, where no other number is set."""

ODDS_EPSILON = 1e-6
"""Probabilities are kept this far from 0 and 1 where they become log-odds."""


@dataclass(frozen=True)
class PresenceFrames:
    """N frames for a presence head to learn from."""

    features: Tensor  # [N, C, S, S]
    scores: Tensor  # [N, S, S], the map that a cell is chosen from, as logarithms
    boxes_cxcywh: Tensor  # [N, S, S, 4], shares of the search side
    truth_xyxy: Tensor  # [N, 4], shares of the search side; it may lie beside the crop
    present: Tensor  # [N] bool
    counts: Tensor  # [N] bool: the frame is learned from

    def select(self, rows: Tensor) -> "PresenceFrames":
        """Some of the frames [M]."""
        return PresenceFrames(*(values[rows] for values in vars(self).values()))


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
            UserError: no peak is to be trained on, or another number out of its range.
        """
        check_whole(type(self).__name__, 1, LARGEST_SIDE**2, peaks=peaks)
        check_groups(type(self).__name__, frames_per_group)
        self.peaks = peaks
        self.frames_per_group = frames_per_group

    def check(self, network: LocalizationNetwork) -> None:
        """Refuse a network without a presence head, or whose map has fewer cells than peaks are to be trained on.

        Raises:
            UserError: the head is missing, or the map has too few cells.
        """
        require_presence(network)
        cells = network.encoder.map_size**2
        if self.peaks > cells:
            raise UserError(
                f"{type(self).__name__} has peaks = {self.peaks}, but the network's map has {cells} cells: set at most "
                f"{cells} peaks."
            )

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Run the network over the clip's frames; logs how often the best box and its presence are right."""
        groups = groups_of(clip, self.frames_per_group)
        head = require_presence(network)
        steps = unroll(network, clip, (head.localization, "box"), groups=groups)
        loss, logs = presence_loss(head, steps, clip, groups, self.peaks)
        return StepResult(loss, {"loss": loss.detach(), **logs})


class TrackedPresence(PresenceObjective):
    """Presence of boxes as a tracker meets them: clips are tracked, and each search region lies around the box before.

    So the head learns from frames whose memory is of another thing, and from regions that the target has left. It needs
    clips with surroundings (`data.surroundings`), as long as the sequences allow. Every frame is used once, in
    `updates` optimizer steps per batch, but for those whose search region leaves the surroundings before it leaves the
    image: a tracker would see there what the clip has lost. A schedule counts batches.
    """

    def __init__(
        self,
        updates: int = 8,
        peaks: int = TRAINED_PEAKS,
        jitter: float = 0.1,
        rule: TrackingRule = DEFAULT_RULE,
    ) -> None:
        """Set the loop.

        Args:
            updates: optimizer steps per batch.
            peaks: see `PresenceObjective`.
            jitter: standard deviation of the first box, see `relo.learning.closed_loop.jittered`.
            rule: how search regions are cut and cells chosen, by the map that the head reads.

        Raises:
            UserError: no peak or update, or another number out of its range.
        """
        super().__init__(peaks)
        check_whole("TrackedPresence", 1, 1000, updates=updates)
        check_number("TrackedPresence", 0, LARGEST_JITTER, jitter=jitter)
        self.updates = updates
        self.jitter = jitter
        self.rule = rule

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """The loss of all frames at once."""
        return self._result(require_presence(network), self.track(network, clip, generator))

    def losses(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> Iterator[StepResult]:
        """The losses of equal parts of the frames, drawn without replacement.

        Raises:
            UserError: there are fewer frames than updates, or the clips carry no surroundings.
        """
        frames = self.track(network, clip, generator)
        count = len(frames.present)
        if count < self.updates:
            raise UserError(f"The {count} frames per batch cannot be split into {self.updates} updates: set fewer.")
        order = torch.randperm(count, generator=generator, device=generator.device)
        for rows in order.tensor_split(self.updates):
            yield self._result(require_presence(network), frames.select(rows))

    @torch.no_grad()
    def track(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> PresenceFrames:
        """The frames of all clips, as the tracker meets them, ordered by time step."""
        localization = require_presence(network).localization
        rule = replace(self.rule, localization=localization)
        window = rule.window_map(network.encoder.map_size).to(clip.present.device)

        def choose(frame: LoopFrame) -> Tensor:
            _, _, response = rule.windowed(frame.maps, window)
            chosen_xywh = at_cells(frame.cells_xywh, response.flatten(1).argmax(1))
            # No crop can be cut around a box that is not finite; the loss will show it.
            return torch.where(chosen_xywh.isfinite().all(-1, keepdim=True), chosen_xywh, frame.truth_xywh)

        first_xywh = jittered(surroundings_of(clip).first_box_xywh, self.jitter, generator)
        frames = [
            PresenceFrames(
                frame.features,
                *frame.maps.candidates(localization),
                truth_xyxy=xywh_to_xyxy(frame.truth_in_crop_xywh),
                present=frame.present,
                counts=frame.is_whole,
            )
            for frame in follow_clips(network, clip, (localization, "box"), rule, first_xywh, choose)
        ]
        return PresenceFrames(*map(torch.cat, zip(*(vars(frame).values() for frame in frames), strict=True)))

    def _result(self, head: PresenceHead, frames: PresenceFrames) -> StepResult:
        loss, logs = cross_entropy(*judged_peaks(head, frames, self.peaks), frames.counts)
        return StepResult(loss, {"loss": loss.detach(), **logs})


def require_presence(network: LocalizationNetwork) -> PresenceHead:
    """The network's presence head.

    Raises:
        UserError: the network has no presence head.
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
    judged = []
    for (features, maps), truth_xyxy, shown in zip(steps, truths_xyxy.unbind(1), present.unbind(1), strict=True):
        scores, boxes_cxcywh = (values.detach() for values in maps.candidates(head.localization))
        frames = PresenceFrames(features, scores, boxes_cxcywh, truth_xyxy, shown, torch.ones_like(shown))
        judged.append((*judged_peaks(head, frames, peaks), frames.counts))
    return cross_entropy(*(torch.stack(column) for column in zip(*judged, strict=True)))


def judged_peaks(head: PresenceHead, frames: PresenceFrames, peaks: int) -> tuple[Tensor, Tensor]:
    """The head's log-odds [N, peaks] of the boxes at the map's peaks, the best first, and whether they are right."""
    _, cells = best_peaks(frames.scores, peaks)
    odds = at_cells(head(frames.features, frames.scores, frames.boxes_cxcywh)[:, None], cells)
    boxes_xyxy = cxcywh_to_xyxy(at_cells(frames.boxes_cxcywh[:, None], cells))
    ious = iou(boxes_xyxy, frames.truth_xyxy[:, None])
    return odds, (ious > RIGHT_IOU) & frames.present[:, None]


def cross_entropy(odds: Tensor, right: Tensor, counts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of log-odds [..., peaks] given what is right [..., peaks], and what to log of the best peak.

    Only frames that count [...] are looked at.
    """
    losses = binary_cross_entropy_with_logits(odds, right.float(), reduction="none").mean(-1)
    best_odds, best_right = odds[..., 0].detach(), right[..., 0]
    return mean_loss(losses, counts), {
        "right": masked_mean(best_right, counts),
        "presence": masked_mean(best_odds.sigmoid(), counts),
        "accuracy": masked_mean((best_odds > 0) == best_right, counts),
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
    inputs = log_odds.double().cpu().numpy()
    labels = np.where(is_right.cpu().numpy(), (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def cross_entropy(weights: NDArray[np.float64]) -> float:
        odds = weights[0] * inputs + weights[1]
        return float((np.logaddexp(0, odds) - labels * odds).mean())

    slope, bias = minimize(cross_entropy, (1.0, 0.0), tol=1e-9).x.tolist()
    if not slope > 0:
        raise UserError(
            "Presence is no greater where boxes are right than where they are wrong: train the head longer."
        )
    return 1 / slope, bias
