"""The synthetic sequences of a study: rendered once, and never mistaken for those of other settings."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import Console

from relo.data.packing import pack
from relo.data.sequence_checks import require_every_box
from relo.data.sequences import SequenceReader, open_reader
from relo.data.synthetic.command import check_numbers, synthesize
from relo.errors import UserError
from relo.files import write_text
from relo.inputs import read_bounded
from relo.studies.study import Recorded, Rendering, Study


def check_sequences(study: Study, output: Path) -> None:
    """Refuse sequences that cannot be rendered or, where they are recorded, be read and scored.

    Raises:
        UserError: a number is out of range; a dataset has no such name, folder or split; not every frame has a box, or
            no target can be seen. The place is named.
    """
    kinds: tuple[Literal["tests", "validation"], ...] = ("tests", "validation")
    for kind in kinds:
        for name, settings in getattr(study, kind).items():
            if isinstance(settings, Recorded):
                with _named(study, f"{kind}.{name}"):
                    _check_recorded(open_set(study, output, kind, name))
    for place, rendering, _ in _renderings(study, output):
        with _named(study, place):
            check_numbers(**{name: value for name, value in asdict(rendering).items() if name != "difficulty"})


def _check_recorded(reader: SequenceReader) -> None:
    is_seen = False
    for sequence in reader:
        require_every_box(sequence)
        is_seen |= bool(sequence.visible.any())
    if not is_seen:
        raise UserError("the target can be seen in no sequence, so there is nothing to score; name other sequences.")


@contextmanager
def _named(study: Study, place: str) -> Iterator[None]:
    """Let errors say which place of a study they are about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{study.path}, {place}: {error}") from error


def missing_sequences(study: Study, output: Path) -> list[str]:
    """What has not been rendered, by its place in the study: `data.<name>`, `tests.<name>`, `validation.<name>`.

    Raises:
        UserError: something has been rendered with other settings.
    """
    missing = []
    for place, settings, folder in _renderings(study, output):
        try:
            found = json.loads(read_bounded(_note(folder)))
        except FileNotFoundError:
            missing.append(place)
            continue
        except (OSError, ValueError, RecursionError):
            found = None
        if found != asdict(settings):
            raise UserError(
                f"{folder} was rendered with other settings than the study has now: choose another --output, or delete "
                f"this folder, {_note(folder)} and what was trained on it."
            )
    return missing


def render(study: Study, output: Path, missing: Collection[str], workers: int, console: Console) -> None:
    """Render what is missing; what is trained on is packed into clip stores, too."""
    for place, settings, folder in _renderings(study, output):
        if place not in missing:
            continue
        if place.startswith("data."):
            root = output / "rendered" / folder.name
            synthesize(root, layout="lasot", split="train", workers=workers, **asdict(settings))
            pack(open_reader("lasot", root, "train"), folder, split="train", workers=workers, console=console)
        else:
            synthesize(folder, layout="lasot", split="test", workers=workers, **asdict(settings))
        write_text(_note(folder), json.dumps(asdict(settings)) + "\n")


def open_set(study: Study, output: Path, kind: Literal["tests", "validation"], name: str) -> SequenceReader:
    """The reader of a set to evaluate on.

    Raises:
        UserError: it is not there, or broken.
    """
    settings = (study.tests if kind == "tests" else study.validation)[name]
    if isinstance(settings, Rendering):
        return open_reader("lasot", output / kind / name, "test")
    # The results' folder may not be there yet, so that the system could not go up from it.
    return open_reader(settings.dataset, (output / settings.path).resolve(), settings.split)


def _renderings(study: Study, output: Path) -> Iterator[tuple[str, Rendering, Path]]:
    """The place in the study, the settings and the folder of everything that is rendered."""
    for kind, sets in (("data", study.data), ("tests", study.tests), ("validation", study.validation)):
        for name, settings in sets.items():
            if isinstance(settings, Rendering):
                yield f"{kind}.{name}", settings, output / kind / name


def _note(folder: Path) -> Path:
    """The file beside a folder that says how it was rendered."""
    return folder.with_name(f"{folder.name}.json")
