"""The upper bound: a tracker that is shown the truth, and takes the cell whose box is best. It cheats, by design."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relo.data.frame_geometry import nearest_visible
from relo.data.sequences.base import FrameSource
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.geometry import cxcywh_to_xyxy, generalized_iou, iou, xywh_to_xyxy
from relo.models.heads import at_cells
from relo.models.inference import computing
from relo.tracking.crops import RGBImage, SearchFrame, SearchView
from relo.tracking.localizer import Located
from relo.tracking.state import TargetState, batched
from relo.tracking.tracker import Tracker


class ImageWithTruth(np.ndarray):
    """An RGB image that carries the target's box x, y, w, h in it."""

    truth_xywh: NDArray[np.float64]  # [4]


class OracleTracker(Tracker):
    """Takes, on every frame, the cell whose box has the greatest IoU with the truth; where none has any, the nearest.

    What is left to miss is what no cell's box fits, or lies outside the search region. It is greedy: a worse box now
    might have led to a better one later. It tracks images with their truth (see `with_truth`).
    """

    def view(self, image: RGBImage, state: TargetState, region: Tensor) -> SearchView:
        """A view that keeps the frame, which carries the truth."""
        return replace(super().view(image, state, region), image=image)

    def _locate(self, crops: Tensor, frames: Sequence[SearchFrame], states: Sequence[TargetState]) -> list[Located]:
        """Find B targets in crops [B, 3, Hx, Hx] of their frames, by their truths."""
        templates, memory = batched(states)
        with computing(self.device, self.precision):
            maps, memory = self.network(crops, templates, memory, heads=("box",))
        assert maps.boxes_cxcywh is not None
        regions = torch.stack([frame.region for frame in frames])
        truths_xywh = torch.from_numpy(np.stack([_truth(frame.image) for frame in frames]))
        truths_xyxy = xywh_to_xyxy(self._search_crop.to_crop(truths_xywh, regions)).float().to(self.device)
        cells_xyxy = cxcywh_to_xyxy(maps.boxes_cxcywh)
        ious = iou(cells_xyxy, truths_xyxy[:, None, None])  # [B, S, S]
        nearness = generalized_iou(cells_xyxy, truths_xyxy[:, None, None])
        overlaps = torch.where(ious.amax((1, 2), keepdim=True) > 0, ious, nearness)
        value, cell = overlaps.flatten(1).max(1)
        value, boxes_cxcywh = value[:, None], at_cells(maps.boxes_cxcywh, cell)
        return self._localizer.read(torch.cat([boxes_cxcywh, value, value], dim=1), overlaps, memory)


@dataclass(frozen=True)
class _FramesWithTruth(FrameSource):
    frames: FrameSource
    truths_xywh: NDArray[np.float64]  # [N, 4]

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        return self.frames.name(index)

    def encoded(self, index: int) -> bytes:
        return self.frames.encoded(index)

    def __getitem__(self, index: int) -> RGBImage:
        image = self.frames[index].view(ImageWithTruth)
        image.truth_xywh = self.truths_xywh[index]
        return image


def with_truth(sequence: AnnotatedSequence) -> AnnotatedSequence:
    """A sequence whose images carry the truth: where the target cannot be seen, that of the nearest frame.

    Args:
        sequence: its every box is annotated.
    """
    truths_xywh = sequence.boxes_xywh[nearest_visible(sequence.visible)]
    return replace(sequence, frames=_FramesWithTruth(sequence.frames, truths_xywh))


def _truth(image: RGBImage | None) -> NDArray[np.float64]:
    assert isinstance(image, ImageWithTruth)
    return image.truth_xywh
