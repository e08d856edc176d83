"""Rollouts: the network is unrolled over a clip, and a cell is chosen on every frame."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.geometry import clamped_xyxy, cxcywh_to_xyxy, iou
from relo.learning.rewards import RewardTerm, reward_terms
from relo.models.checkpoints.plugin import Plugin
from relo.models.heads import at_cells
from relo.models.network import Head, LocalizationMaps, LocalizationNetwork
from relo.settings import check_whole

POLICY_HEADS: tuple[Head, ...] = ("policy", "box", "critic")


@dataclass(frozen=True)
class Rollout:
    """R = clips x `samples` rollouts of T frames, those of a clip side by side, on a map of S x S cells.

    Logits, values and boxes carry the gradients of the trainable parts.
    """

    logits: Tensor  # [R, T, S, S]
    cells_xyxy: Tensor  # [R, T, S, S, 4], every cell's box, shares of the search side
    values: Tensor | None  # [R, T]; None for a network without critic
    prior_scores: Tensor | None  # [R, T, S, S], where they were asked for
    features: Tensor  # [R, T, C, S, S], what the heads read, without gradients
    search_images: Tensor  # [R, T, 3, Hx, Hx], what the network saw
    actions: Tensor  # [R, T] int64, row * S + column of the chosen cell
    truth_xyxy: Tensor  # [R, T, 4], clamped to the crop
    present: Tensor  # [R, T] bool
    terms: dict[str, Tensor]  # [R, T] each: the weighted terms of the reward
    restarts: Tensor | None = None  # [R, T] bool: the target was lost, and the next frame starts from the truth
    cell_costs: Tensor | None = None  # [R, T, S, S]: the reward that the restart behind each cell takes; 0 for none
    old_log_probs: Tensor | None = None  # [R, T], of the actions under the policy that chose them
    advantages: Tensor | None = None  # [R, T]
    returns: Tensor | None = None  # [R, T], what the critic has to predict
    samples: int = 1
    groups: int = 1  # groups of frames in a clip, each of which the network began without memory

    @property
    def log_policy(self) -> Tensor:
        """Log-probabilities of all cells [R, T, S * S]."""
        return self.logits.flatten(2).log_softmax(-1)

    @property
    def log_probs(self) -> Tensor:
        """Log-probabilities of the actions [R, T]."""
        return at_cells(self.log_policy.view_as(self.logits), self.actions)

    @property
    def log_ratio(self) -> Tensor:
        """Logarithm of the actions' probability over that under the policy that chose them [R, T]."""
        assert self.old_log_probs is not None
        return self.log_probs - self.old_log_probs

    @property
    def greedy_actions(self) -> Tensor:
        """The most probable cells [R, T], int64, row * S + column."""
        return self.logits.flatten(2).argmax(-1)

    @property
    def entropy(self) -> Tensor:
        """Entropy of the policy in nats [R, T]."""
        log_policy = self.log_policy
        return -(log_policy.exp() * log_policy).sum(-1)

    @property
    def rewards(self) -> Tensor:
        """The sum of the terms [R, T]; 0 where the target cannot be seen."""
        return torch.stack(list(self.terms.values())).sum(0)

    @property
    def shown(self) -> Tensor:
        """Whether the crop shows anything of the target [R, T]: in a closed loop it may lie beside the crop."""
        return self.present & (self.truth_xyxy[..., 2:] > self.truth_xyxy[..., :2]).all(-1)

    @property
    def cell_ious(self) -> Tensor:
        """IoU of every cell's box with the truth [R, T, S, S]."""
        return iou(self.cells_xyxy.detach(), self.truth_xyxy[:, :, None, None])

    @property
    def chosen_xyxy(self) -> Tensor:
        """The boxes of the chosen cells [R, T, 4]."""
        return at_cells(self.cells_xyxy, self.actions)

    @property
    def ious(self) -> Tensor:
        """IoU of the chosen boxes with the truth [R, T]."""
        return iou(self.chosen_xyxy.detach(), self.truth_xyxy)

    def detach(self) -> "Rollout":
        """The same rollout without gradients."""
        return self._with_tensors(Tensor.detach)

    def select(self, rows: Tensor) -> "Rollout":
        """The rollouts `rows` [M] alone."""
        return replace(self._with_tensors(lambda tensor: tensor[rows]), samples=1)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "Rollout":
        changed: dict[str, Any] = {name: change(each) for name, each in vars(self).items() if isinstance(each, Tensor)}
        return replace(self, **changed, terms={name: change(term) for name, term in self.terms.items()})


def unroll(
    network: LocalizationNetwork,
    clip: ClipBatch,
    heads: Collection[Head],
    search_images: Iterable[Tensor] | None = None,
    groups: int = 1,
) -> Iterator[tuple[Tensor, LocalizationMaps]]:
    """Run the network over B clips frame by frame, handing its memory on.

    Args:
        network: the network.
        clip: the clips.
        heads: those to run.
        search_images: of each frame [B, 3, Hx, Hx]; the clips' own if not given. Each is asked for after the maps of
            the frame before were used, so it may depend on them.
        groups: groups of a clip's frames that are unrolled side by side (see `groups_of`).

    Yields:
        Of each frame, what the heads read [B * groups, C, S, S], and their maps.
    """
    templates = network.encode_templates(clip.template_images, clip.template_boxes_xywh)
    if groups > 1:
        templates = templates[torch.arange(len(clip), device=clip.present.device).repeat_interleave(groups)]
    if search_images is None:
        search_images = in_groups(clip.search_images, groups).unbind(1)
    memory = None
    for images in search_images:
        features, memory = network.encode(images, templates, memory)
        yield features, network.localize(features, heads)


def groups_of(clip: ClipBatch, frames_per_group: int | None) -> int:
    """How many groups the frames of a clip form, of so many consecutive ones each; one if not given.

    The network begins every group without memory (the public release's `MEM_TRANS_LEN`).

    Raises:
        UserError: the frames do not form whole groups.
    """
    frames = clip.search_images.shape[1]
    if frames_per_group is None:
        return 1
    if frames % frames_per_group:
        raise UserError(
            f"The {frames} search frames of a clip do not form groups of {frames_per_group}: set frames_per_group to a "
            f"divisor of the sampler's search_frames."
        )
    return frames // frames_per_group


def check_groups(owner: str, frames_per_group: int | None) -> None:
    """Refuse a `frames_per_group` (see `groups_of`) that no clip has; `owner` begins the sentence.

    Raises:
        UserError: it is neither None nor a number of frames.
    """
    if frames_per_group is not None:
        check_whole(owner, 1, 4096, frames_per_group=frames_per_group)


def in_groups(frames: Tensor, groups: int) -> Tensor:
    """Frames [B, T, ...] -> [B * groups, T / groups, ...], the groups of a clip side by side."""
    return frames.unflatten(1, (groups, -1)).flatten(0, 1)


def out_of_groups(frames: Tensor, groups: int) -> Tensor:
    """Frames [B * groups, T / groups, ...] -> [B, T, ...], what `in_groups` took apart."""
    return frames.unflatten(0, (-1, groups)).flatten(1, 2)


class RolloutRule(Plugin):
    """Contract: how the network is unrolled over a batch of clips, and where each search region comes from."""

    @abstractmethod
    def __call__(
        self,
        network: LocalizationNetwork,
        clip: ClipBatch,
        rewards: Sequence[RewardTerm],
        generator: torch.Generator,
        samples: int = 1,
        heads: Collection[Head] = POLICY_HEADS,
    ) -> Rollout:
        """Roll out B clips `samples` times each, drawing one cell per frame from the policy by the generator."""


class TeacherForced(RolloutRule):
    """The crops surround each frame's truth, whatever was chosen before: the released RL (paper, section 3)."""

    def __init__(self, frames_per_group: int | None = None) -> None:
        """Args: `frames_per_group`, see `groups_of`; rewards are those of the whole clip all the same."""
        check_groups(type(self).__name__, frames_per_group)
        self.frames_per_group = frames_per_group

    def __call__(
        self,
        network: LocalizationNetwork,
        clip: ClipBatch,
        rewards: Sequence[RewardTerm],
        generator: torch.Generator,
        samples: int = 1,
        heads: Collection[Head] = POLICY_HEADS,
    ) -> Rollout:
        """Unroll once over every clip; only the actions are drawn `samples` times.

        Raises:
            UserError: the clips cannot be split into such groups.
        """
        groups = groups_of(clip, self.frames_per_group)
        outputs = network_outputs(unroll(network, clip, heads, groups=groups), groups, samples)
        clip = clip.repeat(samples)
        actions = draw_cells(outputs["logits"], generator)
        truth_xyxy = clamped_xyxy(clip.search_boxes_xywh)
        rollout = make_rollout(outputs, actions, clip.search_images, truth_xyxy, clip.present, rewards)
        return replace(rollout, samples=samples, groups=groups)


def network_outputs(
    steps: Iterable[tuple[Tensor, LocalizationMaps]], groups: int = 1, samples: int = 1
) -> dict[str, Any]:
    """The fields of a `Rollout` that the network gives, from an unrolling; of each clip `samples` times."""
    features, maps = zip(*steps, strict=True)

    def column(frames: list[Tensor]) -> Tensor:
        stacked = out_of_groups(torch.stack(frames, dim=1), groups)
        return stacked.repeat_interleave(samples, 0) if samples > 1 else stacked

    return {
        "logits": column([frame.policy_logits for frame in maps]),
        "cells_xyxy": cxcywh_to_xyxy(column([frame.boxes_cxcywh for frame in maps])),
        "values": None if maps[0].value is None else column([frame.value for frame in maps]),
        "prior_scores": None if maps[0].prior_scores is None else column([frame.prior_scores for frame in maps]),
        "features": column([frame.detach() for frame in features]),
    }


def make_rollout(
    outputs: dict[str, Any],
    actions: Tensor,
    search_images: Tensor,
    truth_xyxy: Tensor,
    present: Tensor,
    rewards: Sequence[RewardTerm],
) -> Rollout:
    """A rollout of actions [R, T], with what they earn; the other arguments are its fields."""
    boxes_xyxy = at_cells(outputs["cells_xyxy"].detach(), actions)
    terms = reward_terms(rewards, boxes_xyxy, truth_xyxy, iou(boxes_xyxy, truth_xyxy), present)
    return Rollout(
        **outputs, search_images=search_images, actions=actions, truth_xyxy=truth_xyxy, present=present, terms=terms
    )


def draw_cells(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One cell [...] of each map of logits [..., S, S], drawn from their softmax; int64, row * S + column.

    A map that is not finite gives any of its cells: the loss then shows, by the names of the clips, what is wrong.
    """
    probabilities = logits.detach().flatten(-2).softmax(-1).nan_to_num(nan=1.0)
    return torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator).view(logits.shape[:-2])


def reevaluate(network: LocalizationNetwork, clip: ClipBatch, rollout: Rollout) -> Rollout:
    """A rollout of clips with what the network now says of it; actions and rewards stay.

    It is always the whole of it: BatchNorm would give the same policy other probabilities on a part of the clips. What
    the encoder computed is used again where nothing of it is trained.
    """
    given = {"critic": rollout.values, "prior": rollout.prior_scores}
    heads: list[Any] = ["policy", "box", *(head for head, output in given.items() if output is not None)]
    encoder = (*network.encoder.parameters(), *network.propagator.parameters())
    if any(parameter.requires_grad for parameter in encoder):
        clip = replace(clip.repeat(rollout.samples), search_images=rollout.search_images)
        steps = unroll(network, clip, heads, groups=rollout.groups)
    else:
        features = in_groups(rollout.features, rollout.groups).unbind(1)
        steps = ((frame, network.localize(frame, heads)) for frame in features)
    return replace(rollout, **network_outputs(steps, rollout.groups))
