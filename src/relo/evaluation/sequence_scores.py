"""Scores of tracked sequences whose truth is at hand: success AUC, which boxes are right, how well presence says so."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import BinaryAUROC, BinaryCalibrationError

from relo.data.sequence_checks import require_every_box
from relo.evaluation.result_folder import SequenceResult
from relo.geometry import iou_xywh
from relo.learning.presence import RIGHT_IOU
from relo.metrics.functional import success_auc

BINS = 15
"""Bins of the expected calibration error (Guo et al., ICML 2017)."""


def _overlaps(result: SequenceResult) -> Tensor:
    """The IoU [N] of each box with the truth."""
    require_every_box(result.sequence)
    assert len(result.boxes_xywh) == len(result.sequence)  # one box would be held against each of many
    return iou_xywh(torch.from_numpy(result.boxes_xywh), torch.from_numpy(result.sequence.boxes_xywh))


def sequence_auc(result: SequenceResult) -> float:
    """The success AUC over the frames on which the target can be seen; NaN where it never can.

    Raises:
        UserError: not every frame has a box.
    """
    overlaps, visible = _overlaps(result), torch.from_numpy(result.sequence.visible)
    return float(success_auc(overlaps, mask=visible)) if visible.any() else float("nan")


def right_boxes(result: SequenceResult) -> NDArray[np.bool_]:
    """Whether each box [N] is right: its IoU with the truth exceeds 0.5, and the target can be seen.

    Raises:
        UserError: not every frame has a box.
    """
    return np.asarray((_overlaps(result) > RIGHT_IOU).numpy() & result.sequence.visible)


def presence_outcomes(results: Iterable[SequenceResult]) -> tuple[Tensor, Tensor]:
    """Presence [F] and whether the box was right [F], of all frames of all sequences but the given ones."""
    presence, is_right = [torch.empty(0)], [torch.empty(0, dtype=torch.bool)]
    for result in results:
        assert result.presence is not None
        presence.append(torch.from_numpy(result.presence[1:]).float())
        is_right.append(torch.from_numpy(right_boxes(result)[1:]))
    return torch.cat(presence), torch.cat(is_right)


def presence_scores(presence: Tensor, is_right: Tensor) -> dict[str, float]:
    """How good probabilities [F] are at predicting which boxes are right [F].

    Returns:
        `auroc`, the area under the receiver operating characteristic, and `calibration_error`, the expected calibration
        error over 15 bins of equal width.
    """
    labels = is_right.long()
    return {
        "auroc": float(BinaryAUROC(sync_on_compute=False)(presence, labels)),
        "calibration_error": float(BinaryCalibrationError(n_bins=BINS, sync_on_compute=False)(presence, labels)),
    }
