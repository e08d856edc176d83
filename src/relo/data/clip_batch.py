"""The batch of clips that the data module yields and the objectives learn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Surroundings:
    """Consecutive frames around the target, for rollouts that choose their own search regions.

    A point p of an image is at (p - (x, y)) * (scale_x, scale_y) in its square, as in `relo.data.frame_geometry`.
    """

    images: Tensor  # [B, T, 3, Hs, Hs] uint8 RGB, not normalised; black outside the image
    geometry: Tensor  # [B, T, 4] float64: x, y, scale_x, scale_y
    boxes_xywh: Tensor  # [B, T, 4] float64, the truth in image pixels (the nearest visible box where hidden)
    first_box_xywh: (
        Tensor  # [B, 4] float64, image pixels: the truth on the frame before the first, where a rollout starts
    )
    image_sizes: Tensor  # [B, T, 2] int64: width, height of the images


@dataclass
class ClipBatch:
    """B clips of N templates and T search frames each; boxes are shares of the crop's side."""

    template_images: Tensor  # [B, N, 3, Hz, Hz], normalised RGB
    template_boxes_xywh: Tensor  # [B, N, 4]
    search_images: Tensor  # [B, T, 3, Hx, Hx], normalised RGB
    search_boxes_xywh: Tensor  # [B, T, 4]
    present: Tensor  # [B, T] bool: the target can be seen
    sequence_id: list[str]  # B names, "dataset/sequence"
    frame_index: Tensor  # [B, T] int64, 0-based frame numbers of the search frames
    surroundings: Surroundings | None = None  # where the data module was asked for them

    def __len__(self) -> int:
        return self.search_images.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> "ClipBatch":
        """The same batch with every tensor moved, as `Tensor.to` does for a device."""
        moved: ClipBatch = _mapped(self, lambda tensor: tensor.to(*args, **kwargs))
        return moved

    def pin_memory(self) -> "ClipBatch":
        """The same batch in page-locked memory (called by the data loader)."""
        pinned: ClipBatch = _mapped(self, Tensor.pin_memory)
        return pinned

    def select(self, clips: Tensor) -> "ClipBatch":
        """The batch of some of the clips [M] (int64), which may repeat."""
        selected: ClipBatch = _mapped(self, lambda tensor: tensor[clips])
        return replace(selected, sequence_id=[self.sequence_id[i] for i in clips.tolist()])

    def repeat(self, times: int) -> "ClipBatch":
        """The batch with every clip `times` times, its copies beside it."""
        if times == 1:
            return self
        return self.select(torch.arange(len(self), device=self.present.device).repeat_interleave(times))

    @staticmethod
    def stack(clips: list["ClipBatch"]) -> "ClipBatch":
        """One batch out of several (the data loader's collate function).

        Raises:
            ValueError: some carry surroundings and some do not.
        """
        if len({clip.surroundings is None for clip in clips}) > 1:
            raise ValueError("Clips with surroundings and clips without make no batch.")
        stacked: ClipBatch = _joined(clips)
        return stacked


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A dataclass with every tensor in it changed, also in the dataclasses it holds."""
    if isinstance(value, Tensor):
        return function(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _mapped(getattr(value, field.name), function) for field in fields(value)})
    return value


def _joined(values: Sequence[Any]) -> Any:
    """One dataclass out of several: tensors and lists end to end, those of the dataclasses they hold alike."""
    first = values[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, list):
        return [item for value in values for item in value]
    names = [field.name for field in fields(first)]
    return replace(first, **{name: _joined([getattr(value, name) for value in values]) for name in names})
