"""Presence on tracked sequences: how well it tells boxes that are right from those that are not."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import BinaryAUROC, BinaryCalibrationError

from relo.evaluation.result_folder import SequenceResult
from relo.geometry import iou_xywh
from relo.learning.presence import RIGHT_IOU

BINS = 15
"""Bins of the expected calibration error (Guo et al., ICML 2017)."""


def right_boxes(result: SequenceResult) -> NDArray[np.bool_]:
    """Whether each box [N] is right: its IoU with the truth exceeds 0.5, and the target can be seen."""
    found, truth = (torch.from_numpy(boxes) for boxes in (result.boxes_xywh, result.sequence.boxes_xywh))
    return np.asarray((iou_xywh(found, truth) > RIGHT_IOU).numpy() & result.sequence.visible)


def presence_outcomes(results: Iterable[SequenceResult]) -> tuple[Tensor, Tensor]:
    """Presence [F] and whether the box was right [F], of all frames of all sequences but the given ones."""
    presence, is_right = [torch.empty(0)], [torch.empty(0, dtype=torch.bool)]
    for result in results:
        assert result.presence is not None
        presence.append(torch.from_numpy(result.presence[1:]).float())
        is_right.append(torch.from_numpy(right_boxes(result)[1:]))
    return torch.cat(presence), torch.cat(is_right)


def presence_scores(presence: Tensor, is_right: Tensor) -> dict[str, float]:
    """How good probabilities [F] are at telling which boxes are right [F].

    Returns:
        `auroc`, the area under the receiver operating characteristic, and `calibration_error`, the expected calibration
        error over 15 bins of equal width.
    """
    labels = is_right.long()
    return {
        "auroc": float(BinaryAUROC(sync_on_compute=False)(presence, labels)),
        "calibration_error": float(BinaryCalibrationError(n_bins=BINS, sync_on_compute=False)(presence, labels)),
    }
