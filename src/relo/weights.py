"""Networks with weights: of model folders, checkpoints and the public release."""

from relo.models.checkpoints.weights import import_released, load_network

__all__ = ["import_released", "load_network"]
