"""The batch of clips that the data module yields and the objectives learn from."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


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

    def __len__(self) -> int:
        return self.search_images.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> "ClipBatch":
        """The same batch with every tensor moved, as `Tensor.to` does for a device."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> "ClipBatch":
        """The same batch in page-locked memory (called by the data loader)."""
        return self._map(Tensor.pin_memory)

    def select(self, clips: Tensor) -> "ClipBatch":
        """The batch of some of the clips [M] (int64), which may repeat."""
        return replace(
            self._map(lambda tensor: tensor[clips]), sequence_id=[self.sequence_id[i] for i in clips.tolist()]
        )

    def _map(self, function: Callable[[Tensor], Tensor]) -> "ClipBatch":
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {n: function(v) if isinstance(v, Tensor) else v for n, v in values.items()}
        return ClipBatch(**moved)

    @staticmethod
    def stack(clips: list["ClipBatch"]) -> "ClipBatch":
        """One batch out of several (the data loader's collate function)."""
        columns = {field.name: [getattr(clip, field.name) for clip in clips] for field in fields(ClipBatch)}
        ids = [name for clip in clips for name in clip.sequence_id]
        tensors = {name: torch.cat(column) for name, column in columns.items() if name != "sequence_id"}
        return ClipBatch(sequence_id=ids, **tensors)
