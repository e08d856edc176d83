"""The user's cache folder, for what can be made again."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`$RELO_CACHE`, or `relo` in the folder that the platform has for caches; it may not exist yet.

    Raises:
        RuntimeError: nothing says where the user's home is.
    """
    if own := os.environ.get("RELO_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "relo"
