"""The rule of GOT-10k: overlaps of all frames pooled."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from relo import geometry
from relo.evaluation.scoring.base import Remark, ScoringRule, SequenceScore, SequenceTruth, count_invalid, refuse_rows
from relo.metrics import functional


class Got10kRule(ScoringRule):
    """AO and SR over the pooled frames of all sequences and repetitions.

    The first frame and frames in which the target is fully covered do not count; boxes are clipped to the image's
    resolution where it is known. The toolkit prints SR at 0.5; SR at 0.75 is the server's, by the same formula.

    Source: got-10k/toolkit, `experiments/got10k.py` and `utils/metrics.py` (Huang et al., PAMI 2021).
    """

    name = "got10k"
    source = "got-10k/toolkit, experiments/got10k.py (Huang et al., PAMI 2021)"
    scores = ("ao", "sr_0.5", "sr_0.75")
    repetitions = True

    @property
    def thresholds(self) -> Mapping[str, Tensor]:
        """The 101 overlaps of the toolkit's success curve."""
        return {"success": torch.arange(101, dtype=torch.float64) / 100}

    def score(self, truth: SequenceTruth, predictions_xywh: Sequence[Tensor]) -> SequenceScore:
        """Score one sequence; the contract is in `ScoringRule`."""
        counted = torch.ones(len(truth), dtype=torch.bool) if truth.absent is None else ~truth.absent
        remarks: tuple[Remark, ...] = ()
        overlaps = []
        for predicted_xywh in predictions_xywh:
            refuse_rows(truth, len(predicted_xywh), self.name)
            invalid = ~predicted_xywh.isfinite().all(-1)
            invalid[0] = False  # does not count
            remarks += count_invalid(truth, invalid, "misses")
            iou = geometry.iou_xywh(
                _bounded(predicted_xywh, truth.image_size), _bounded(truth.boxes_xywh, truth.image_size)
            )
            overlaps.append(iou[1:][counted[1:]])
        pooled = torch.cat(overlaps)
        rates = functional.success_rates(pooled, torch.tensor([0.5, 0.75]))
        values = {
            "ao": float(pooled.sum() / max(len(pooled), 1)),
            "sr_0.5": float(rates[0]),
            "sr_0.75": float(rates[1]),
        }
        curves = {"success": functional.success_rates(pooled, self.thresholds["success"])}
        return SequenceScore(truth.name, len(truth), float(len(pooled)), values, curves, remarks)


def _bounded(boxes_xywh: Tensor, image_size: tuple[int, int] | None) -> Tensor:
    """The toolkit's bound: the corner moves into the image with the size kept, then the size is cut at the far edge."""
    if image_size is None:
        return boxes_xywh
    bound = torch.tensor(image_size, dtype=boxes_xywh.dtype)
    corner = boxes_xywh[:, :2].clamp(min=0).minimum(bound)
    return torch.cat([corner, boxes_xywh[:, 2:].clamp(min=0).minimum(bound - corner)], dim=-1)
