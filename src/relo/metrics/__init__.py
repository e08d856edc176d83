"""The success curve and the other scores: pure formulas in `functional`, torchmetrics on top of them in `scores`."""

from relo.metrics.scores import AverageOverlap, NormalizedPrecision, Precision, SuccessAUC, SuccessRate

__all__ = ["AverageOverlap", "NormalizedPrecision", "Precision", "SuccessAUC", "SuccessRate"]
