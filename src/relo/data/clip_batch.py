"""The batch of clips that the data module yields and the objectives learn from."""

from dataclasses import dataclass, fields
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
        moved = {f.name: v.to(*args, **kwargs) if isinstance(v := getattr(self, f.name), Tensor) else v for f in fields(self)}
        return ClipBatch(**moved)

    def pin_memory(self) -> "ClipBatch":
        """The same batch in page-locked memory (called by the data loader)."""
        pinned = {f.name: v.pin_memory() if isinstance(v := getattr(self, f.name), Tensor) else v for f in fields(self)}
        return ClipBatch(**pinned)

    @staticmethod
    def stack(clips: list["ClipBatch"]) -> "ClipBatch":
        """One batch out of several (the data loader's collate function)."""
        columns = {f.name: [getattr(clip, f.name) for clip in clips] for f in fields(ClipBatch)}
        return ClipBatch(
            **{name: torch.cat(v) if isinstance(v[0], Tensor) else sum(v, []) for name, v in columns.items()}
        )
