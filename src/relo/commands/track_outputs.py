"""What `relo track` may write to."""

import os
from collections.abc import Iterable, Mapping, Sequence
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


def check_outputs(inputs: Mapping[str, Iterable[str | Path | None]], outputs: Sequence[Path]) -> None:
    """Refuse to write two things to one file, or onto one that is read.

    Args:
        inputs: by what they are called in the sentence; None and texts that name no file are passed over.
        outputs: what is written.

    Raises:
        UserError: an output names an input, or another output.
    """
    for i, path in enumerate(outputs):
        if path.is_file():
            for name, files in inputs.items():
                if any(file and os.path.isfile(file) and path.samefile(file) for file in files):
                    raise UserError(f"{path} is {name} itself; write to another file.")
        is_device = path.exists() and not path.is_file()
        if not is_device and os.path.realpath(path) in map(os.path.realpath, outputs[:i]):
            raise UserError(f"{path} would be written twice; give each output a name of its own.")


def check_presence_name(path: Path) -> None:
    """Refuse a name for the file of presence that is no text file's.

    Raises:
        UserError: it has another ending.
    """
    if path.suffix.lower() not in PRESENCE_ENDINGS:
        raise UserError(f"Cannot write presence as {path.name}; end the name in .txt or .csv.")
