"""The success curve and the other scores: pure formulas in `functional`, torchmetrics on top."""

from relo.metrics.overlap import AverageOverlap
from relo.metrics.precision import NormalizedPrecision, Precision
from relo.metrics.success import SuccessAUC, SuccessRate

__all__ = ["AverageOverlap", "NormalizedPrecision", "Precision", "SuccessAUC", "SuccessRate"]
