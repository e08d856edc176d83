"""Closed-loop rollouts: the next search region is cut around the box that the policy chose."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.data.frame_geometry import to_image, to_packed
from relo.errors import UserError
from relo.geometry import clip_to_image, cxcywh_to_xywh, xywh_to_cxcywh
from relo.images import normalise_crops
from relo.learning.base import clamped_xyxy
from relo.learning.rewards import RewardTerm
from relo.learning.rollout import POLICY_HEADS, Rollout, RolloutRule, draw_cells, make_rollout, network_outputs, unroll
from relo.models.heads import at_cells
from relo.models.network import Head, LocalizationNetwork
from relo.tracking.rule import TrackingRule

_DEFAULT_RULE = TrackingRule()


class ClosedLoop(RolloutRule):
    """Tracking as it is done: an action moves the next search region, which is cut from the clip's surroundings.

    A rollout that has lost its target begins again from the truth, at a cost. Frames whose target is hidden earn
    nothing: what they lead to is credited to the last action on which the target was seen.
    """

    def __init__(
        self,
        drift_limit: float | None = 2.0,
        size_limit: float = 3.0,
        restart_cost: float = 1.0,
        jitter: float = 0.1,
        rule: TrackingRule = _DEFAULT_RULE,
    ) -> None:
        """Set the loop.

        Args:
            drift_limit: the target is lost where the box's centre is further from the truth's, in units of the truth's
                sqrt(w h); at 2 it leaves a search region of factor 4. None lets every rollout go on to its end.
            size_limit: the target is lost, too, where sqrt(w h) of the box is that many times too large or too small.
            restart_cost: what losing the target costs, in reward.
            jitter: standard deviation of the first box's centre, in units of the truth's width and height, and of the
                logarithm of its size.
            rule: how search regions are cut and boxes kept in the image; actions are drawn without its window.

        Raises:
            UserError: a limit that would lose every target.
        """
        if size_limit <= 1 or (drift_limit is not None and drift_limit <= 0):
            raise UserError(
                f"drift_limit must be positive and size_limit above 1, not {drift_limit} and {size_limit}: a perfect "
                "box would count as lost."
            )
        self.drift_limit = drift_limit
        self.size_limit = size_limit
        self.restart_cost = restart_cost
        self.jitter = jitter
        self.rule = rule

    def __call__(
        self,
        network: LocalizationNetwork,
        clip: ClipBatch,
        rewards: Sequence[RewardTerm],
        generator: torch.Generator,
        samples: int = 1,
        heads: Collection[Head] = POLICY_HEADS,
    ) -> Rollout:
        """Track through every clip `samples` times; the memory stays where a rollout begins again.

        Raises:
            UserError: the clips carry no surroundings.
        """
        clip = clip.repeat(samples)
        around = clip.surroundings
        if around is None:
            raise UserError(
                "A closed loop needs clips with surroundings: set data.surroundings (8 is a good value) and "
                "data.sampler to relo.data.sampler.ConsecutiveSampler."
            )
        crop_rule = self.rule.search_crop(network.encoder.search_size)
        chosen_xywh = [self._jittered(around.first_box_xywh, generator)]
        regions: list[Tensor] = []  # [R, 3] of each frame, in pixels of the surroundings
        crops: list[Tensor] = []

        def search_images() -> Iterator[Tensor]:
            # Each is asked for when the box of the frame before was chosen.
            for images, geometry in zip(around.images.unbind(1), around.geometry.unbind(1), strict=True):
                regions.append(crop_rule.region(to_packed(chosen_xywh[-1], geometry)))
                crops.append(normalise_crops(crop_rule.cut_on_device(images, regions[-1])))
                yield crops[-1]

        steps, frames = [], []
        for t, (features, maps) in enumerate(unroll(network, clip, heads, search_images())):
            geometry, truth_xywh, region = around.geometry[:, t], around.boxes_xywh[:, t], regions[t]
            logits, boxes_cxcywh = maps.candidates("policy")
            cell = draw_cells(logits, generator)
            in_crop_cxcywh = boxes_cxcywh.detach().double()  # [R, S, S, 4]
            cells_xywh = to_image(crop_rule.to_image(in_crop_cxcywh, region[:, None, None]), geometry[:, None, None])
            width, height = around.image_sizes[:, t, None, None].unbind(-1)
            cells_xywh = clip_to_image(cells_xywh, width, height, self.rule.margin_px)
            lost = self._is_lost(cells_xywh, truth_xywh[:, None, None]) & clip.present[:, t, None, None]
            lost = lost | ~cells_xywh.isfinite().all(-1)  # no crop can be cut around such a box; the loss will show it
            steps.append((features, maps))
            frames.append((crops[t], cell, lost, crop_rule.to_crop(to_packed(truth_xywh, geometry), region).float()))
            restart_xywh = self._jittered(truth_xywh, generator)
            chosen_xywh.append(torch.where(at_cells(lost, cell)[:, None], restart_xywh, at_cells(cells_xywh, cell)))
        search_crops, actions, lost, truths_xywh = (torch.stack(column, dim=1) for column in zip(*frames, strict=True))
        truths_xyxy = clamped_xyxy(truths_xywh)
        rollout = make_rollout(network_outputs(steps), actions, search_crops, truths_xyxy, clip.present, rewards)
        costs = -self.restart_cost * lost.to(truths_xyxy.dtype)  # [R, T, S, S]: a box there would lose the target
        return replace(
            rollout,
            terms=rollout.terms | {"restart": at_cells(costs, actions)},
            restarts=at_cells(lost, actions),
            cell_costs=costs,
            samples=samples,
        )

    def _jittered(self, boxes_xywh: Tensor, generator: torch.Generator) -> Tensor:
        """Boxes [R, 4], moved and scaled at random."""
        noise = torch.empty_like(boxes_xywh).normal_(generator=generator) * self.jitter
        center, size = xywh_to_cxcywh(boxes_xywh).split(2, dim=-1)
        return cxcywh_to_xywh(torch.cat([center + noise[:, :2] * size, size * noise[:, 2:].exp()], -1))

    def _is_lost(self, boxes_xywh: Tensor, truth_xywh: Tensor) -> Tensor:
        """Whether each box [..., 4] is too far from its truth [..., 4], or of too different a size: bool [...]."""
        if self.drift_limit is None:
            return torch.zeros(boxes_xywh.shape[:-1], dtype=torch.bool, device=boxes_xywh.device)
        boxes_cxcywh, truth_cxcywh = xywh_to_cxcywh(boxes_xywh), xywh_to_cxcywh(truth_xywh)
        size, truth_size = (boxes[..., 2:].clamp(min=1).prod(-1).sqrt() for boxes in (boxes_cxcywh, truth_cxcywh))
        drift = (boxes_cxcywh[..., :2] - truth_cxcywh[..., :2]).norm(dim=-1) / truth_size
        ratio = (size / truth_size).log().abs().exp()
        return (drift > self.drift_limit) | (ratio > self.size_limit)
