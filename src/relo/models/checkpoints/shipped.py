"""The network that comes with the package: a model folder, and the name by which commands know it."""

from pathlib import Path

SHIPPED = "relo-small"

FOLDER = Path(__file__).parents[1] / "shipped"
