"""The synthetic sequences of a study: rendered once, and never mistaken for those of other settings."""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from relo.data.packing import pack
from relo.data.sequences import open_reader
from relo.data.synthetic.command import synthesize
from relo.errors import UserError
from relo.studies.steps import SETS, rendered
from relo.studies.study import Rendering, Study
from relo.tracking.boxes_file import write_whole


def missing_sequences(study: Study, output: Path) -> list[str]:
    """What has not been rendered, by its place in the study: `data.<name>`, `tests.<name>`, `validation.<name>`.

    Raises:
        UserError: something has been rendered with other settings.
    """
    return [place for place, (settings, folder) in _places(study, output).items() if not _is_there(settings, folder)]


def render(study: Study, output: Path, missing: Collection[str], workers: int, console: Console) -> None:
    """Render what is missing; clip stores are packed, too."""
    for place, (settings, folder) in _places(study, output).items():
        if place not in missing:
            continue
        if place.partition(".")[0] in SETS:
            synthesize(folder, layout="lasot", split="test", workers=workers, **asdict(settings))
        else:
            root = output / "rendered" / folder.name
            synthesize(root, layout="lasot", split="train", workers=workers, **asdict(settings))
            pack(open_reader("lasot", root, "train"), folder, split="train", workers=workers, console=console)
        write_whole(_note(folder), json.dumps(asdict(settings)) + "\n")


def _places(study: Study, output: Path) -> dict[str, tuple[Rendering, Path]]:
    """What is to be rendered, and its folder."""
    stores = {f"data.{name}": (settings, output / "data" / name) for name, settings in study.data.items()}
    sets = {
        f"{kind}.{name}": (settings, rendered(output, kind, name))
        for kind, entries in zip(SETS, (study.tests, study.validation), strict=True)
        for name, settings in entries.items()
        if isinstance(settings, Rendering)
    }
    return stores | sets


def _is_there(settings: Rendering, folder: Path) -> bool:
    try:
        found = json.loads(_note(folder).read_text())
    except FileNotFoundError:
        return False
    except ValueError:
        found = None
    if found != asdict(settings):
        raise UserError(
            f"{folder} was rendered with other settings than the study has now: choose another --output, or delete "
            f"this folder, {_note(folder)} and what was trained on it."
        )
    return True


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")
