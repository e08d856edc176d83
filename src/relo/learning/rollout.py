"""A rollout: the network walks over a clip and chooses a cell on every frame."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch
from relo.errors import UserError
from relo.geometry import cxcywh_to_xyxy, iou, xywh_to_xyxy
from relo.learning.rewards import RewardTerm, reward_terms
from relo.models.checkpoints.plugin import Plugin
from relo.models.encoders.base import Templates
from relo.models.network import Head, LocalizationNetwork


@dataclass(frozen=True)
class Rollout:
    """R walks over clips of T frames on a map of S x S cells.

    Logits, log-probabilities, values and boxes carry the gradients of the parts that learn. Where a clip was walked
    several times (`samples`), its walks are neighbours: R is clips times samples.
    """

    logits: Tensor  # [R, T, S, S]
    actions: Tensor  # [R, T] int64, row * S + column of the chosen cell
    log_probs: Tensor  # [R, T], of the actions
    values: Tensor | None  # [R, T]; None for a network without critic
    cells_xyxy: Tensor  # [R, T, S, S, 4], every cell's box, shares of the search side
    truth_xyxy: Tensor  # [R, T, 4], clamped to the crop
    terms: dict[str, Tensor]  # [R, T] each: the weighted terms of the reward
    present: Tensor  # [R, T] bool
    search_images: Tensor  # [R, T, 3, Hx, Hx], what the network saw
    features: Tensor  # [R, T, C, S, S], what the heads read, without gradients
    prior_scores: Tensor | None = None  # [R, T, S, S], where they were asked for
    restarts: Tensor | None = None  # [R, T] bool: the target was lost, and the next frame starts from the truth
    cell_costs: Tensor | None = None  # [R, T, S, S]: the reward that the restart behind each cell takes; 0 for none
    samples: int = 1
    groups: int = 1  # groups of frames in a clip, each of which the network began without memory

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
        return chosen(self.cells_xyxy.flatten(2, 3), self.actions)

    @property
    def ious(self) -> Tensor:
        """IoU of the chosen boxes with the truth [R, T]."""
        return iou(self.chosen_xyxy.detach(), self.truth_xyxy)

    def detach(self) -> "Rollout":
        """The same rollout without gradients."""
        return replace(self, **{name: tensor.detach() for name, tensor in self._tensors().items()})

    def select(self, rows: Tensor) -> "Rollout":
        """The walks `rows` [M] alone."""
        selected: dict[str, Any] = {name: tensor[rows] for name, tensor in self._tensors().items()}
        return replace(self, **selected, terms={name: term[rows] for name, term in self.terms.items()}, samples=1)

    def _tensors(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


class RolloutRule(Plugin):
    """Contract: how the network walks over a batch of clips, and where each search region comes from."""

    @abstractmethod
    def __call__(
        self,
        network: LocalizationNetwork,
        clip: ClipBatch,
        rewards: Sequence[RewardTerm],
        generator: torch.Generator,
        samples: int = 1,
        heads: Collection[Head] = ("policy", "box", "critic"),
    ) -> Rollout:
        """Walk over B clips, sampling one cell a frame from the policy.

        Args:
            network: the network; parts without gradients build no graph.
            clip: B clips of T search frames.
            rewards: the terms of the reward.
            generator: the source of what is drawn, on the clip's device.
            samples: walks a clip.
            heads: those to run: "policy" and "box", and "critic" and "prior" where they are needed.
        """


class TeacherForced(RolloutRule):
    """The crops surround each frame's truth, whatever was chosen before: the released RL (paper, section 3)."""

    def __init__(self, frames_per_group: int | None = None) -> None:
        """Args: `frames_per_group`, see `groups_of`; rewards are those of the whole clip all the same."""
        self.frames_per_group = frames_per_group

    def __call__(
        self,
        network: LocalizationNetwork,
        clip: ClipBatch,
        rewards: Sequence[RewardTerm],
        generator: torch.Generator,
        samples: int = 1,
        heads: Collection[Head] = ("policy", "box", "critic"),
    ) -> Rollout:
        """Walk once over every clip; only the actions are drawn `samples` times.

        Raises:
            UserError: the clips cannot be split into such groups.
        """
        groups = groups_of(clip, self.frames_per_group)
        walk = walk_through(network, clip, heads, groups)
        logits = walk.frames("logits").repeat_interleave(samples, 0)
        return walk.rollout(
            draw_cells(logits, generator),
            xywh_to_xyxy(clip.search_boxes_xywh).clamp(0, 1),
            clip.present,
            rewards,
            samples,
        )


class Walk:
    """The network's way through the frames of B clips, and what the heads said on it."""

    def __init__(self, network: LocalizationNetwork, clip: ClipBatch, heads: Collection[Head], groups: int = 1) -> None:
        """Start before the first frame.

        Args:
            network: the network.
            clip: the clips whose templates to follow.
            heads: those to run: "policy" and "box", and "critic" and "prior" where they are needed.
            groups: groups of frames in a clip that are walked side by side, as if each were a clip of its own.
        """
        self.network = network
        self.heads = heads
        self.clip = clip
        self.groups = groups
        self.templates: Templates | None = None
        self.memory: Tensor | None = None
        self.columns: dict[str, list[Tensor]] = {}

    def step(self, search_images: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One frame [B * groups, 3, Hx, Hx] further; gives logits [B * groups, S, S] and boxes_cxcywh of the cells.

        `features` [B * groups, C, S, S] of a walk made before, by the same encoder, need not be computed again.
        """
        if features is None:
            features, self.memory = self.network.encode(search_images, self._templates(), self.memory)
        maps = self.network.localize(features, self.heads)
        seen = {
            "logits": maps.policy_logits,
            "boxes_cxcywh": maps.boxes_cxcywh,
            "values": maps.value,
            "prior_scores": maps.prior_scores,
            "features": features.detach(),
            "search_images": search_images,
        }
        for name, value in seen.items():
            if value is not None:
                self.columns.setdefault(name, []).append(value)
        return maps.candidates("policy")

    def _templates(self) -> Templates:
        if self.templates is None:
            self.templates = encode_templates(self.network, self.clip, self.groups)
        return self.templates

    def frames(self, name: str) -> Tensor:
        """A column so far [B, T, ...], the frames of a clip one after the other."""
        return torch.stack(self.columns[name], dim=1).unflatten(0, (-1, self.groups)).flatten(1, 2)

    def rollout(
        self,
        actions: Tensor,
        truth_xyxy: Tensor,
        present: Tensor,
        rewards: Sequence[RewardTerm],
        samples: int = 1,
    ) -> Rollout:
        """The rollout of actions [B * samples, T], for truths [B, T, 4] (shares of the crop) and present [B, T]."""

        def rows(tensor: Tensor) -> Tensor:
            return tensor.repeat_interleave(samples, 0) if samples > 1 else tensor

        seen = {name: rows(self.frames(name)) for name in self.columns}
        cells_xyxy, truth_xyxy, present = cxcywh_to_xyxy(seen["boxes_cxcywh"]), rows(truth_xyxy), rows(present)
        boxes_xyxy = chosen(cells_xyxy.detach().flatten(2, 3), actions)
        return Rollout(
            logits=seen["logits"],
            actions=actions,
            log_probs=chosen(seen["logits"].flatten(2).log_softmax(-1), actions),
            values=seen.get("values"),
            cells_xyxy=cells_xyxy,
            truth_xyxy=truth_xyxy,
            terms=reward_terms(rewards, boxes_xyxy, truth_xyxy, iou(boxes_xyxy, truth_xyxy), present),
            present=present,
            search_images=seen["search_images"],
            features=seen["features"],
            prior_scores=seen.get("prior_scores"),
            samples=samples,
            groups=self.groups,
        )


def walk_through(
    network: LocalizationNetwork,
    clip: ClipBatch,
    heads: Collection[Head],
    groups: int = 1,
    features: Tensor | None = None,
) -> Walk:
    """The network's way over the clips' own search regions; `features` as in `Walk.step`, but of all frames."""
    walk = Walk(network, clip, heads, groups)
    search_images = in_groups(clip.search_images, groups)
    features = None if features is None else in_groups(features, groups)
    for t in range(search_images.shape[1]):
        walk.step(search_images[:, t], None if features is None else features[:, t])
    return walk


def groups_of(clip: ClipBatch, frames_per_group: int | None) -> int:
    """How many groups the frames of a clip form, of so many consecutive ones each; one if not given.

    The network begins every group without memory (the public release's `MEM_TRANS_LEN`).

    Raises:
        UserError: the frames do not form whole groups.
    """
    frames = clip.search_images.shape[1]
    if frames_per_group is None:
        return 1
    if frames_per_group < 1 or frames % frames_per_group:
        raise UserError(
            f"The {frames} search frames of a clip do not form groups of {frames_per_group}: set frames_per_group to a "
            f"divisor of the sampler's search_frames."
        )
    return frames // frames_per_group


def in_groups(frames: Tensor, groups: int) -> Tensor:
    """Frames [B, T, ...] -> [B * groups, T / groups, ...], the groups of a clip side by side."""
    return frames.unflatten(1, (groups, -1)).flatten(0, 1)


def encode_templates(network: LocalizationNetwork, clip: ClipBatch, groups: int = 1) -> Templates:
    """The clips' templates, once for each of their groups."""
    templates = network.encode_templates(clip.template_images, clip.template_boxes_xywh)
    if groups == 1:
        return templates
    return templates[torch.arange(len(clip), device=clip.present.device).repeat_interleave(groups)]


def encoder_learns(network: LocalizationNetwork) -> bool:
    """Whether gradients reach the encoder or the propagator."""
    parts = (network.encoder, network.propagator)
    return any(parameter.requires_grad for part in parts for parameter in part.parameters())


def draw_cells(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One cell [...] of each map of logits [..., S, S], drawn from their softmax; int64, row * S + column.

    A map that is not finite gives any of its cells: the loss then tells, by the names of the clips, what is wrong.
    """
    probabilities = logits.detach().flatten(-2).softmax(-1).nan_to_num(nan=1.0)
    return torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator).view(logits.shape[:-2])


def chosen(values: Tensor, actions: Tensor) -> Tensor:
    """The entries of values [R, T, cells, ...] at actions [R, T]: [R, T, ...]."""
    index = actions.view(*actions.shape, 1, *[1] * (values.dim() - 3)).expand(-1, -1, 1, *values.shape[3:])
    return values.gather(2, index).squeeze(2)


def reevaluate(network: LocalizationNetwork, clip: ClipBatch, rollout: Rollout) -> Rollout:
    """A rollout as policy, critic and boxes of today see it; actions and rewards stay.

    It is always the whole of it: BatchNorm would give the same policy other probabilities on a part of the clips.

    Args:
        network: the network; it walks anew where its encoder learns, else only the heads that the rollout ran are run.
        clip: the clips of the rollout.
        rollout: what was done.
    """
    clip = replace(clip.repeat(rollout.samples), search_images=rollout.search_images)
    heads: list[Head] = ["policy", "box"]
    if rollout.values is not None:
        heads.append("critic")
    if rollout.prior_scores is not None:
        heads.append("prior")
    features = None if encoder_learns(network) else rollout.features
    walk = walk_through(network, clip, heads, rollout.groups, features)
    seen = {name: walk.frames(name) for name in walk.columns}
    return replace(
        rollout,
        logits=seen["logits"],
        log_probs=chosen(seen["logits"].flatten(2).log_softmax(-1), rollout.actions),
        values=seen.get("values"),
        cells_xyxy=cxcywh_to_xyxy(seen["boxes_cxcywh"]),
        features=seen["features"],
        prior_scores=seen.get("prior_scores"),
    )
