"""The success AUC of one tracked sequence."""

import torch

from relo.evaluation.result_folder import SequenceResult
from relo.metrics import SuccessAUC


def sequence_auc(result: SequenceResult) -> float:
    """The success AUC over the frames on which the target can be seen; NaN where it never can."""
    sequence = result.sequence
    metric = SuccessAUC(sync_on_compute=False)  # of one sequence, whatever other processes have
    metric.update(*(torch.from_numpy(value) for value in (result.boxes_xywh, sequence.boxes_xywh, sequence.visible)))
    return float(metric.compute())
