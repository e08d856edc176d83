"""The user's cache folder, for what can be made again."""

import os
import sys
from pathlib import Path

from relo.errors import UserError


def cache_folder() -> Path:
    """`$RELO_CACHE`, or `relo` in the folder that the platform has for caches; it may not exist yet.

    Raises:
        UserError: nothing says where the user's home is.
    """
    own = os.environ.get("RELO_CACHE")
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(own).expanduser() if own else Path(caches).expanduser() / "relo"
    except RuntimeError as error:
        raise UserError(
            f"There is no cache folder {own or caches} (nothing says where that home is): set RELO_CACHE to a folder."
        ) from error
