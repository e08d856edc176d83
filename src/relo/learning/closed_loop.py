"""Closed-loop rollouts: the next search region is cut around the box that the policy chose."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch, Surroundings
from relo.data.frame_geometry import to_image, to_packed
from relo.errors import UserError
from relo.geometry import clamped_xyxy, clip_to_image, cxcywh_to_xywh, xywh_to_cxcywh, xywh_to_xyxy
from relo.images import normalise_crops
from relo.learning.rewards import RewardTerm
from relo.learning.rollout import POLICY_HEADS, Rollout, RolloutRule, draw_cells, make_rollout, network_outputs, unroll
from relo.models.heads import at_cells
from relo.models.network import Head, LocalizationMaps, LocalizationNetwork
from relo.settings import LARGEST, check_number
from relo.tracking.rule import TrackingRule

DEFAULT_RULE = TrackingRule()

LARGEST_JITTER = 10
"""The largest standard deviation of `jittered` boxes."""


@dataclass(frozen=True)
class LoopFrame:
    """One frame of R clips, whose search regions lie around the boxes that were chosen on the frames before."""

    features: Tensor  # [R, C, S, S], what the heads read
    maps: LocalizationMaps
    search_images: Tensor  # [R, 3, Hx, Hx], normalised
    cells_xywh: Tensor  # [R, S, S, 4] float64, every cell's box in image pixels, without gradients
    truth_xywh: Tensor  # [R, 4] float64, image pixels (of the nearest visible frame where the target is hidden)
    truth_in_crop_xywh: Tensor  # [R, 4], shares of the search side; it may lie beside the crop
    present: Tensor  # [R] bool
    is_whole: Tensor  # [R] bool: the surroundings hold all that the search region shows of the image


def follow_clips(
    network: LocalizationNetwork,
    clip: ClipBatch,
    heads: Collection[Head],
    rule: TrackingRule,
    first_xywh: Tensor,
    choose: Callable[[LoopFrame], Tensor],
) -> Iterator[LoopFrame]:
    """Unroll the network over R clips whose search regions are cut, from their surroundings, around chosen boxes.

    Args:
        network: the network.
        clip: the clips.
        heads: those to run.
        rule: the map whose cells have the boxes, and how regions are cut and boxes kept in the image.
        first_xywh: the boxes [R, 4] on the frame before the first, image pixels.
        choose: gives the boxes [R, 4] that the next search regions lie around, image pixels.

    Raises:
        UserError: the clips carry no surroundings.
    """
    around = surroundings_of(clip)
    crop_rule = rule.search_crop(network.encoder.search_size)
    chosen_xywh = first_xywh
    regions: list[Tensor] = []  # [R, 3] of each frame, in pixels of the surroundings
    crops: list[Tensor] = []

    def search_images() -> Iterator[Tensor]:
        # Each is asked for when the box of the frame before was chosen.
        for images, geometry in zip(around.images.unbind(1), around.geometry.unbind(1), strict=True):
            regions.append(crop_rule.region(to_packed(chosen_xywh, geometry)))
            crops.append(normalise_crops(crop_rule.cut_on_device(images, regions[-1])))
            yield crops[-1]

    for t, (features, maps) in enumerate(unroll(network, clip, heads, search_images())):
        geometry, truth_xywh, region = around.geometry[:, t], around.boxes_xywh[:, t], regions[t]
        in_crop_cxcywh = maps.cells_cxcywh(rule.localization).detach().double()  # [R, S, S, 4]
        cells_xywh = to_image(crop_rule.to_image(in_crop_cxcywh, region[:, None, None]), geometry[:, None, None])
        width, height = around.image_sizes[:, t, None, None].unbind(-1)
        frame = LoopFrame(
            features,
            maps,
            crops[t],
            cells_xywh=clip_to_image(cells_xywh, width, height, rule.margin_px),
            truth_xywh=truth_xywh,
            truth_in_crop_xywh=crop_rule.to_crop(to_packed(truth_xywh, geometry), region).float(),
            present=clip.present[:, t],
            is_whole=_holds(around, t, region),
        )
        chosen_xywh = choose(frame)
        yield frame


def _holds(around: Surroundings, t: int, region: Tensor) -> Tensor:
    """Whether frame t's squares [R, 3, Hs, Hs] hold the part of the image that lies in regions [R, 3]: bool [R]."""
    image_xywh = torch.cat([torch.zeros_like(around.image_sizes[:, t]), around.image_sizes[:, t]], dim=-1)
    low, high = xywh_to_xyxy(to_packed(image_xywh.double(), around.geometry[:, t])).split(2, dim=-1)
    center, half = region[:, :2], region[:, 2:] / 2
    low, high = low.maximum(center - half), high.minimum(center + half)
    is_inside = (low >= -1) & (high <= around.images.shape[-1] + 1)  # but for a pixel
    return is_inside.all(-1) | (low >= high).any(-1)


def surroundings_of(clip: ClipBatch) -> Surroundings:
    """The surroundings that the clips carry.

    Raises:
        UserError: the clips carry no surroundings.
    """
    if clip.surroundings is None:
        raise UserError(
            "A closed loop needs clips with surroundings: set data.surroundings (8 is a good value) and "
            "data.sampler to relo.data.sampler.ConsecutiveSampler."
        )
    return clip.surroundings


def jittered(boxes_xywh: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Boxes [R, 4], moved and scaled at random: by a part of their sides, and in the logarithm of their size."""
    noise = torch.empty_like(boxes_xywh).normal_(generator=generator) * deviation
    center, size = xywh_to_cxcywh(boxes_xywh).split(2, dim=-1)
    return cxcywh_to_xywh(torch.cat([center + noise[:, :2] * size, size * noise[:, 2:].exp()], -1))


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
        rule: TrackingRule = DEFAULT_RULE,
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
            UserError: a limit that would lose every target, or another number out of its range.
        """
        check_number("ClosedLoop", 0, LARGEST, size_limit=size_limit, restart_cost=restart_cost)
        if drift_limit is not None:
            check_number("ClosedLoop", 0, LARGEST, drift_limit=drift_limit)
        check_number("ClosedLoop", 0, LARGEST_JITTER, jitter=jitter)
        if size_limit <= 1 or drift_limit == 0:
            raise UserError(
                f"drift_limit must be positive and size_limit above 1, not {drift_limit} and {size_limit}: a perfect "
                "box would count as lost."
            )
        self.drift_limit = drift_limit
        self.size_limit = size_limit
        self.restart_cost = restart_cost
        self.jitter = jitter
        self.rule = replace(rule, localization="policy")

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
        actions: list[Tensor] = []
        losses: list[Tensor] = []  # [R, S, S] of each frame: a box there would lose the target

        def choose(frame: LoopFrame) -> Tensor:
            assert frame.maps.policy_logits is not None
            cell = draw_cells(frame.maps.policy_logits, generator)
            lost = self._is_lost(frame.cells_xywh, frame.truth_xywh[:, None, None]) & frame.present[:, None, None]
            # No crop can be cut around such a box; the loss will show it.
            lost = lost | ~frame.cells_xywh.isfinite().all(-1)
            actions.append(cell)
            losses.append(lost)
            restart_xywh = jittered(frame.truth_xywh, self.jitter, generator)
            return torch.where(at_cells(lost, cell)[:, None], restart_xywh, at_cells(frame.cells_xywh, cell))

        first_xywh = jittered(surroundings_of(clip).first_box_xywh, self.jitter, generator)
        frames = list(follow_clips(network, clip, heads, self.rule, first_xywh, choose))
        chosen, lost = torch.stack(actions, dim=1), torch.stack(losses, dim=1)
        rollout = make_rollout(
            network_outputs((frame.features, frame.maps) for frame in frames),
            chosen,
            torch.stack([frame.search_images for frame in frames], dim=1),
            clamped_xyxy(torch.stack([frame.truth_in_crop_xywh for frame in frames], dim=1)),
            clip.present,
            rewards,
        )
        costs = -self.restart_cost * lost.to(rollout.truth_xyxy.dtype)  # [R, T, S, S]
        return replace(
            rollout,
            terms=rollout.terms | {"restart": at_cells(costs, chosen)},
            restarts=at_cells(lost, chosen),
            cell_costs=costs,
            samples=samples,
        )

    def _is_lost(self, boxes_xywh: Tensor, truth_xywh: Tensor) -> Tensor:
        """Whether each box [..., 4] is too far from its truth [..., 4], or of too different a size: bool [...]."""
        if self.drift_limit is None:
            return torch.zeros(boxes_xywh.shape[:-1], dtype=torch.bool, device=boxes_xywh.device)
        boxes_cxcywh, truth_cxcywh = xywh_to_cxcywh(boxes_xywh), xywh_to_cxcywh(truth_xywh)
        size, truth_size = (boxes[..., 2:].clamp(min=1).prod(-1).sqrt() for boxes in (boxes_cxcywh, truth_cxcywh))
        drift = (boxes_cxcywh[..., :2] - truth_cxcywh[..., :2]).norm(dim=-1) / truth_size
        ratio = (size / truth_size).log().abs().exp()
        return (drift > self.drift_limit) | (ratio > self.size_limit)
