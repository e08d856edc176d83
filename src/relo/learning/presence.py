"""Presence: a head learns, on a frozen network, whether the box that the localization chooses is right."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.geometry import cxcywh_to_xyxy, iou, xywh_to_xyxy
from relo.learning.base import Objective, StepResult
from relo.learning.warmup import frame_maps
from relo.models.network import Head, LocalizationMaps, LocalizationNetwork
from relo.models.presence import best_peaks

RIGHT_IOU = 0.5
"""A box is right where its IoU with the target exceeds this."""

ODDS_EPSILON = 1e-6
"""Probabilities are kept this far from 0 and 1 where they become log-odds."""


class PresenceObjective(Objective):
    """Binary cross-entropy of the presence of chosen boxes; all parts but the presence head are frozen.

    A box is right if its IoU with the target exceeds 0.5 and the target can be seen. Boxes are chosen by the map that
    the head reads (`PresenceHead.localization`): its best cell, and the next best peaks, among which are the
    look-alikes that a tracker's window may prefer. `data.absence` brings in frames that do not show the target.
    """

    trained_parts = ("presence",)

    def __init__(self, peaks: int = 2, frames_per_group: int | None = None) -> None:
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

    def __call__(self, network: LocalizationNetwork, clip: ClipBatch, generator: torch.Generator) -> StepResult:
        """Run the network over the clip's frames; logs how often the best box and its presence are right.

        Raises:
            UserError: the network has no presence head.
        """
        if network.presence is None:
            raise UserError(
                "PresenceObjective needs a presence head: give the network one (relo.models.presence.ConvPresence)."
            )
        localization = network.presence.localization
        heads: tuple[Head, ...] = ("presence",)
        log_odds, is_right = [], []
        for t, maps in enumerate(frame_maps(network, clip, heads, self.frames_per_group)):
            scores, boxes_cxcywh = maps.candidates(localization)
            _, cells = best_peaks(scores, self.peaks)  # [B, peaks]
            log_odds.append(presence_log_odds(maps).flatten(1).gather(1, cells))
            chosen_cxcywh = boxes_cxcywh.flatten(1, 2).gather(1, cells[..., None].expand(-1, -1, 4))
            truth_xyxy = xywh_to_xyxy(clip.search_boxes_xywh[:, t])[:, None]
            ious = iou(cxcywh_to_xyxy(chosen_cxcywh), truth_xyxy)
            is_right.append((ious > RIGHT_IOU) & clip.present[:, t, None])
        odds, right = torch.stack(log_odds), torch.stack(is_right)  # [T, B, peaks]
        loss = binary_cross_entropy_with_logits(odds, right.float())
        best_odds, best_right = odds[..., 0].detach(), right[..., 0]
        logs = {
            "loss": loss.detach(),
            "right": best_right.float().mean(),
            "presence": best_odds.sigmoid().mean(),
            "accuracy": ((best_odds > 0) == best_right).float().mean(),
        }
        return StepResult(loss, logs)


def presence_log_odds(maps: LocalizationMaps) -> Tensor:
    """The log-odds of the presence of every cell [B, S, S]."""
    assert maps.presence is not None
    return maps.presence.logit(eps=ODDS_EPSILON)
