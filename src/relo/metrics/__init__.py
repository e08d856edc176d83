"""The success curve and the other scores: pure formulas in `functional`, torchmetrics on top of them in `scores`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relo.metrics.scores import AverageOverlap, NormalizedPrecision, Precision, SuccessAUC, SuccessRate

__all__ = ["AverageOverlap", "NormalizedPrecision", "Precision", "SuccessAUC", "SuccessRate"]


def __getattr__(name: str) -> Any:
    """Load the metrics at first use: torchmetrics takes longer to import than torch, and the formulas need none."""
    if name in __all__:
        return getattr(import_module("relo.metrics.scores"), name)
    raise AttributeError(f"module 'relo.metrics' has no attribute {name!r}")
