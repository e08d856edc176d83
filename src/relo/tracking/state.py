"""What the tracker knows of one target between two frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relo.models.encoders.base import Templates

Status = Literal["tracking", "uncertain", "lost"]
"""See `relo.tracking.lost_and_found`; a rule without `lost_after` is always tracking."""


@dataclass(frozen=True)
class TargetState:
    """One target after one frame; the tracker takes it in and gives the next one out, and never changes it.

    `score` is of the chosen cell, and 1 on the given frame. Where the policy localizes, it is the cell's probability
    among all cells. It is not calibrated: a network trained by reward gives values near 1 on hits and misses alike, and
    they sum to 1 even when the target is gone. Where the prior does, it is the cell's own score in (0, 1), whatever the
    others have.
    """

    templates: Templates  # of this target alone (batch 1)
    template_crops: (
        Tensor  # [N, Hz, Hz, 3] uint8 RGB, what `templates` was made of: the given frame's first, then oldest to newest
    )
    template_boxes_xywh: Tensor  # [N, 4], shares of the crop's side
    memory: Tensor | None  # [layers, 1, K, C]; None before the first tracked frame
    box_xywh: Tensor  # [4] float64, image pixels; of a lost target where it was last believed
    score: float
    frame_index: int  # frames since the target was given; 0 is the given one
    presence: float | None = None  # probability that the box found in this frame is right, where the network says so
    frame_presence: float | None = None  # the same by this frame alone, see `relo.tracking.presence_filter`
    response: Tensor | None = None  # [S, S], the map that the cell was chosen from, where asked for
    status: Status = "tracking"
    unsure_frames: int = 0  # frames in a row, up to this one, whose box was not believed
    sure_xywh: Tensor | None = None  # [4], the last box that was believed; None is the given one
    image_size: tuple[int, int] | None = None  # width and height of the frame


def by_memory(states: Sequence[TargetState]) -> list[list[int]]:
    """The numbers of the targets with a memory, and of those without, whose propagator starts: one forward each."""
    groups = ([i for i, state in enumerate(states) if (state.memory is None) == is_new] for is_new in (False, True))
    return [group for group in groups if group]


def batched(states: Sequence[TargetState]) -> tuple[Templates, Tensor | None]:
    """What a network reads of B targets that all have a memory, or all have none: templates, and [layers, B, K, C]."""
    memories = [state.memory for state in states if state.memory is not None]
    return Templates.cat([state.templates for state in states]), torch.cat(memories, dim=1) if memories else None
