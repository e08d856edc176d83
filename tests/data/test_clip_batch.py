"""A batch is moved, selected from and stacked as a whole, with its surroundings."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from relo.data.clip_batch import ClipBatch, Surroundings
from small_networks import make_clip


def carrying(batch: int = 3, frames: int = 2, seed: int = 0) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)

    def boxes_xywh(*shape: int) -> Tensor:
        return 100 * torch.rand(*shape, 4, generator=generator, dtype=torch.float64)

    surroundings = Surroundings(
        images=torch.randint(256, (batch, frames, 3, 8, 8), generator=generator).to(torch.uint8),
        geometry=boxes_xywh(batch, frames),
        boxes_xywh=boxes_xywh(batch, frames),
        first_box_xywh=boxes_xywh(batch),
        image_sizes=torch.randint(50, 400, (batch, frames, 2), generator=generator),
    )
    return replace(make_clip(batch, frames, seed=seed), surroundings=surroundings)


def tensors(clip: ClipBatch) -> dict[str, Tensor]:
    parts = [clip] if clip.surroundings is None else [clip, clip.surroundings]
    values = {(type(part).__name__, field.name): getattr(part, field.name) for part in parts for field in fields(part)}
    return {".".join(place): value for place, value in values.items() if isinstance(value, Tensor)}


def test_stacking_puts_clips_one_after_the_other():
    first, second = carrying(2, seed=1), carrying(1, seed=2)
    stacked = ClipBatch.stack([first, second])
    assert len(stacked) == 3
    assert stacked.sequence_id == first.sequence_id + second.sequence_id
    assert tensors(stacked).keys() == tensors(first).keys()
    for name, value in tensors(stacked).items():
        assert value.dtype == tensors(first)[name].dtype
        torch.testing.assert_close(value[:2], tensors(first)[name], rtol=0, atol=0)
        torch.testing.assert_close(value[2:], tensors(second)[name], rtol=0, atol=0)


def test_clips_with_and_without_surroundings_make_no_batch():
    clips = [carrying(), make_clip(3)]
    for order in (clips, clips[::-1]):
        with pytest.raises(ValueError, match="surroundings"):
            ClipBatch.stack(order)
    assert ClipBatch.stack([make_clip(), make_clip()]).surroundings is None


def test_selected_clips_may_repeat():
    clip, wanted = carrying(3), torch.tensor([2, 0, 2, 2])
    selected = clip.select(wanted)
    assert selected.sequence_id == [clip.sequence_id[i] for i in wanted.tolist()]
    for name, value in tensors(selected).items():
        torch.testing.assert_close(value, tensors(clip)[name][wanted], rtol=0, atol=0)
    assert make_clip(3).select(wanted).surroundings is None


def test_every_tensor_is_moved():
    moved = carrying().to("meta")
    assert len(tensors(moved)) == 11
    assert all(value.is_meta for value in tensors(moved).values())
    assert not any(value.is_meta for value in tensors(carrying()).values())


def test_every_tensor_is_pinned(monkeypatch):
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor.clone()) or pinned[-1])
    clip = carrying()
    held = tensors(clip.pin_memory())
    assert {id(value) for value in held.values()} == {id(value) for value in pinned}
    for name, value in held.items():
        torch.testing.assert_close(value, tensors(clip)[name], rtol=0, atol=0)
