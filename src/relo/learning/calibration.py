"""Calibration: log-odds become probabilities that are as often right as they say."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from relo.errors import UserError


def fit_calibration(log_odds: Tensor, is_right: Tensor) -> tuple[float, float]:
    """Temperature and bias by logistic regression: sigmoid(log_odds / temperature + bias) fits what was right.

    Labels are drawn a little to the middle, as Platt (1999) has it, so that log-odds which part right from wrong
    without an error give a finite temperature.

    Args:
        log_odds: [N].
        is_right: [N] bool.

    Raises:
        UserError: all are right, or all wrong, or the log-odds are no greater where they are right.
    """
    positives, negatives = int(is_right.sum()), int((~is_right).sum())
    if not positives or not negatives:
        raise UserError(
            f"Presence cannot be calibrated on {positives} right and {negatives} wrong boxes; both are needed."
        )
    inputs = torch.stack([log_odds.double(), torch.ones_like(log_odds, dtype=torch.float64)], dim=1)  # [N, 2]
    labels = torch.where(is_right, (positives + 1) / (positives + 2), 1 / (negatives + 2)).double()
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    with torch.enable_grad(), torch.inference_mode(False):
        inputs, labels = inputs.clone(), labels.clone()
        optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = binary_cross_entropy_with_logits(inputs @ weights, labels)
            value.backward()
            return value

        optimizer.step(loss)
    slope, bias = weights.detach().tolist()
    if not slope > 0:
        raise UserError(
            "Presence is no greater where boxes are right than where they are wrong: train the head longer."
        )
    return 1 / slope, bias
