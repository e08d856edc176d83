"""What `relo track` may write to."""

from pathlib import Path

from relo.errors import UserError
from relo.models.checkpoints.weights import CONFIG_FILE, RULE_FILE, WEIGHTS_FILE, resolve
from relo.models.graph_metadata import FILES

PRESENCE_ENDINGS = (".txt", ".csv", "")
"""Of the file of presence; a device's name has none."""


def model_files(model: str) -> list[Path]:
    """The file that a model is, and those that its folder has where it is one.

    Raises:
        UserError: there is no such model.
    """
    path = resolve(model)
    folder = path if path.is_dir() else path.parent
    names = (WEIGHTS_FILE, CONFIG_FILE, RULE_FILE, *FILES.values())
    return [path, *(folder / name for name in names)]


def check_presence_name(path: Path) -> None:
    """Refuse a name for the file of presence that is no text file's.

    Raises:
        UserError: it has another ending.
    """
    if path.suffix.lower() not in PRESENCE_ENDINGS:
        raise UserError(f"Cannot write presence as {path.name}; end the name in .txt or .csv.")
