"""Lost and found: what becomes of a target by each frame's presence, and where one that is lost is searched for.

    tracking   presence is at least `sure_presence`: the box is believed, and memory and templates follow it
    uncertain  it is less: the box moves, with the size that it had when it was last believed
    lost       for `lost_after` frames in a row it was less: the box stays where it was last believed

A lost target that is seen again with `found_presence` is uncertain for a frame: its box has moved there, and is
believed, with a size of its own, if the next frame is sure of it.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from relo.geometry import square_corners
from relo.tracking.rule import TrackingRule
from relo.tracking.state import TargetState


def apply_presence(rule: TrackingRule, before: TargetState, after: TargetState) -> TargetState:
    """The state after a frame, with status, box and memory by its presence; the memory of a frame in doubt is not kept.

    Presence is that of the frame alone: by all frames, a target that is gone would be believed for some more of them.

    Args:
        rule: without `lost_after`, all stays as it is.
        before: the state before the frame.
        after: the state with what the network found in the frame; without presence, there is no doubt.
    """
    if rule.lost_after is None or after.frame_presence is None:
        return after
    if before.status != "lost" and after.frame_presence >= rule.sure_presence:
        return replace(after, status="tracking", unsure_frames=0, sure_xywh=after.box_xywh)
    unsure_frames = before.unsure_frames + 1
    sure_xywh = before.box_xywh if before.sure_xywh is None else before.sure_xywh
    is_found = before.status == "lost" and after.frame_presence >= rule.found_presence
    doubted = replace(after, memory=before.memory, unsure_frames=unsure_frames, sure_xywh=sure_xywh)
    if unsure_frames >= rule.lost_after and not is_found:
        return replace(doubted, status="lost", box_xywh=sure_xywh)
    assert after.image_size is not None
    return replace(doubted, status="uncertain", box_xywh=_recentered(sure_xywh, after.box_xywh, after.image_size))


def lost_region(rule: TrackingRule, state: TargetState, usual: Tensor) -> Tensor:
    """Where a lost target is searched for next: a region [3], see `relo.geometry.CropRule`.

    The searched area is a square about the place where the target was last believed. Each frame it grows by
    `search_growth`, up to the whole image, in which it lies as far as it can. Once it is larger than `search_window`
    allows, every other frame looks about that place, and the frames between scan the area: row by row, with windows
    that overlap by the target's size.

    Args:
        rule: with `lost_after` set.
        state: of a lost target.
        usual: the search region [3] around its box.
    """
    assert rule.lost_after is not None
    assert state.image_size is not None
    turn = state.unsure_frames - rule.lost_after  # frames searched so far
    side, extent = float(usual[2]), torch.tensor(state.image_size, dtype=torch.float64)
    whole = max(side, *state.image_size)
    # Powers beyond those that are needed overflow.
    steps = min(turn + 1, math.ceil(math.log(whole / side) / math.log(rule.search_growth)))
    area = math.ceil(min(side * rule.search_growth**steps, whole))
    window = area if rule.search_window is None else min(area, math.ceil(side * rule.search_window))
    if window == area or turn % 2 == 0:
        return _region(_center_inside(usual[:2], window, extent), window)
    middle = _center_inside(usual[:2], area, extent)
    low, high = (middle - area / 2).clamp(min=0), torch.minimum(middle + area / 2, extent)
    columns, rows = (
        _window_centers(float(start), float(end), window, window - side / rule.search_factor)
        for start, end in zip(low, high, strict=True)
    )
    place = turn // 2 % (len(columns) * len(rows))
    center = torch.stack([columns[place % len(columns)], rows[place // len(columns)]])
    return _region(center, window)


def _recentered(box_xywh: Tensor, to_xywh: Tensor, image_size: tuple[int, int]) -> Tensor:
    """A box [4] moved to the centre of another, and into the image as far as it fits; its size stays to the bit."""
    size = box_xywh[2:]
    corner = to_xywh[:2] + (to_xywh[2:] - size) / 2
    room = (torch.tensor(image_size).to(size) - size).clamp(min=0)
    return torch.cat([corner.clamp(min=0).minimum(room), size])


def _center_inside(center: Tensor, side: float, extent: Tensor) -> Tensor:
    """The centre [2] of a square, moved so that it lies in the image; where it is larger, in the image's middle."""
    low = torch.full_like(extent, side / 2).minimum(extent / 2)
    return center.clamp(min=low, max=extent - low)


def _window_centers(start: float, end: float, window: int, stride: float) -> Tensor:
    """Centres [n] of windows that cover an interval, evenly spaced and no further apart than `stride`."""
    room = end - start - window
    if room <= 0:
        return torch.tensor([(start + end) / 2], dtype=torch.float64)
    count = math.ceil(room / max(stride, 1.0)) + 1
    return torch.linspace(start + window / 2, end - window / 2, count, dtype=torch.float64)


def _region(center: Tensor, side: int) -> Tensor:
    """A region [3] on whole pixels."""
    region = torch.cat([center, torch.tensor([side], dtype=torch.float64)])
    return torch.cat([square_corners(region) + side / 2, region[2:]])
