"""RELO: track one target in a video with a localization policy trained by reward."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relo import opencv
    from relo.tracking.tracker import Tracker

__all__ = ["Tracker", "__version__", "opencv"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load `relo.Tracker` and `relo.opencv` at first use, so that `import relo` stays light."""
    if name == "Tracker":
        return import_module("relo.tracking.tracker").Tracker
    if name == "opencv":
        return import_module("relo.opencv")
    raise AttributeError(f"module 'relo' has no attribute {name!r}")
