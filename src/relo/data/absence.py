"""Search frames that do not show the target: what a presence head learns from that the target is gone."""

from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from relo.errors import UserError
from relo.geometry import cxcywh_to_xywh, xywh_to_cxcywh

Kind = Literal["hidden", "outside", "foreign"]

_TRIALS = 20


@dataclass(frozen=True)
class Absence:
    """How often a search frame does not show the target; with all at 0, clips are what they are without this.

    Attributes:
        hidden: probability of a frame on which the target is hidden, where the sequence has one.
        outside: probability of a search region elsewhere in the frame, which the target's box does not touch.
        foreign: probability of a frame of another sequence, about the target there.

    Raises:
        UserError: probabilities below 0, or that sum to more than 1.
    """

    hidden: float = 0.0
    outside: float = 0.0
    foreign: float = 0.0

    def __post_init__(self) -> None:
        if not (all(share >= 0 for share in astuple(self)) and sum(astuple(self)) <= 1):
            raise UserError(
                f"data.absence has hidden {self.hidden}, outside {self.outside} and foreign {self.foreign}; they are "
                "probabilities that sum to 1 at most."
            )

    @property
    def is_asked_for(self) -> bool:
        """Whether any frame may lack the target."""
        return any(astuple(self))

    def draw(self, frames: int, rng: np.random.Generator) -> list[Kind | None]:
        """What each of the search frames lacks its target by; None shows it, if its sequence does."""
        kinds: tuple[Kind | None, ...] = ("hidden", "outside", "foreign", None)
        bounds = np.cumsum(astuple(self))
        return [kinds[place] for place in np.searchsorted(bounds, rng.random(frames), side="right")]


def elsewhere(
    region_xywh: Tensor, box_xywh: Tensor, factor: float, width: int, height: int, rng: np.random.Generator
) -> Tensor:
    """A box [4] of the size of `region_xywh` whose search region does not touch the target's box [4].

    It is centred in the image, of so many pixels, wherever it can be; where the target leaves no such place, its search
    region lies beside the target and reaches out of the image.

    Args:
        region_xywh: the box around which the region would be cut.
        box_xywh: the target's.
        factor: side of a search region as a multiple of sqrt(w h).
        width: of the image.
        height: of the image.
        rng: what places are drawn from.
    """
    center, size = xywh_to_cxcywh(box_xywh)[:2], region_xywh[2:]
    # A region is snapped to whole pixels, which may move its edges by one.
    reach = (factor * size.prod().sqrt() + box_xywh[2:]) / 2 + 1
    extent = torch.tensor([width, height], dtype=center.dtype)
    for _ in range(_TRIALS):
        place = torch.from_numpy(rng.random(2)) * extent
        if ((place - center).abs() >= reach).any():
            break
    else:
        axis = int(torch.argmax(torch.maximum(center, extent - center) - reach))
        place = center.clone()
        place[axis] += reach[axis] if center[axis] < extent[axis] / 2 else -reach[axis]
    return cxcywh_to_xywh(torch.cat([place, size]))
