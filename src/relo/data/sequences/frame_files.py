"""The frames of a sequence that are image files in one folder: which files they are, and in which order."""

import os
import re
from collections.abc import Callable, Iterable
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

from relo.data.sequences.base import ImageFiles
from relo.errors import UserError

_KINDS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""The ends of images' names, in small letters -> their kind."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image; hidden files, such as macOS's `._00000001.jpg`, do not."""
    return not name.startswith(".") and _suffix(name) in _KINDS


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link that leads to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def image_names(folder: Path, wanted: Callable[[str], bool] | None = None) -> list[str]:
    """The names of the images in a folder that are frames, in natural order: `2.jpg` comes before `10.jpg`.

    Args:
        folder: the folder; what lies in its own folders is not looked at.
        wanted: which of the images' names count; all by default.

    Raises:
        UserError: there is no such folder or no image in it, an image is a link to nothing, or it cannot be told which
            images are the frames: there are several kinds of images, two names of one number, or copies of a frame.
    """
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            images = [entry for entry in visible if is_image_name(entry.name) and not is_folder(entry)]
        images = [entry for entry in images if wanted is None or wanted(entry.name)]
    except OSError as error:
        raise UserError(f"The frames' folder {folder} cannot be read ({error.strerror}).") from error
    if not images:
        below = sorted(entry.name for entry in visible if is_folder(entry))
        hint = f"; did you mean one of its folders ({', '.join(below[:5])})?" if below else "."
        raise UserError(f"The folder {folder} holds no images{hint}")
    broken = sorted(entry.path for entry in images if entry.is_symlink() and not os.path.exists(entry.path))
    if broken:
        raise UserError(f"{broken[0]} is a link to a file that is not there; copy or extract the frames again.")
    return _in_natural_order(folder, sorted(entry.name for entry in images))


def named_frames(folder: Path, ignored: Iterable[str] = ()) -> ImageFiles:
    """All images of a folder in the natural order of their names, but for those `ignored`.

    Raises:
        UserError: see `image_names`.
    """
    ignored = set(ignored)
    return ImageFiles(folder, tuple(image_names(folder, lambda name: name not in ignored)))


def numbered_frames(folder: Path, first: int, last: int | None = None) -> ImageFiles:
    """The images number `first` to `last` (by default, to the highest), whatever the padding of their names.

    Raises:
        UserError: see `image_names`; or images are not named by number, or a frame of the range is missing.
    """
    names = image_names(folder)
    stems = list(map(_stem, names))
    if not stems[0].isdecimal():  # then none is
        raise UserError(f"{folder / names[0]} is not named by its number, as the frames of this dataset are.")
    by_number = dict(zip(map(int, stems), names, strict=True))
    whole = last is None
    last = max(first, *by_number) if last is None else last
    frames = tuple(name for number, name in by_number.items() if first <= number <= last)
    missing = last - first + 1 - len(frames)
    if missing:
        gap = next(number for number in count(first) if number not in by_number)
        stray = f", or move {names[-1]} elsewhere if it is no frame" if whole and missing > len(frames) else ""
        raise UserError(
            f"{folder} lacks {missing} of the frames {first} to {last} (the first is number {gap}); "
            f"copy or extract the sequence again{stray}."
        )
    return ImageFiles(folder, frames)


def frames_folder(frames: ImageFiles) -> str:
    """How to speak of a sequence's frames where their number is wrong."""
    return f"frames in {frames.folder}"


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sorting key by which numbers in a text count as numbers, whatever their padding, and case does not count."""
    parts = re.findall(r"\d+|\D+", text.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _in_natural_order(folder: Path, names: list[str]) -> list[str]:
    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault(_KINDS[_suffix(name)], name)
    if len(kinds) > 1:
        raise UserError(
            f"{folder} holds images of several kinds, such as {' and '.join(kinds.values())}; "
            "keep there only the kind that the frames are of."
        )
    stems = list(map(_stem, names))
    _refuse_copies(folder, dict(zip(stems, names, strict=True)))
    keys: list[Any] = list(map(int if stems[0].isdecimal() else natural_key, stems))  # one number: all are
    keyed = sorted(zip(keys, names, strict=True))
    for (key, name), (next_key, twin) in pairwise(keyed):
        if key == next_key:
            raise UserError(f"{folder} holds {name} and {twin}, two names of one frame; keep one of them.")
    return [name for _, name in keyed]


def _refuse_copies(folder: Path, name_of: dict[str, str]) -> None:
    """Refuse `3.orig.jpg` where `3.jpg` is, `Copy of a3.jpg` where `a3.jpg` is, and any other name among numbers."""
    others = [stem for stem in name_of if not stem.isdecimal()]
    if 0 < len(others) < len(name_of):
        number = next(stem for stem in name_of if stem.isdecimal())
        raise UserError(
            f"{folder} holds {name_of[others[0]]} among images named by number alone, such as {name_of[number]}; "
            "keep only the frames there."
        )
    if len(set(map(len, others))) == 1:  # none can hold another
        return
    for stem in others:
        beginnings = (stem[: match.end()] for match in re.finditer(r"\d(?=\D)", stem))
        ends = (stem[match.end() :] for match in re.finditer(r"[\W_](?=.*\d$)", stem))
        original = next((part for part in chain(beginnings, ends) if part in name_of), None)
        if original is not None:
            raise UserError(
                f"{folder} holds {name_of[stem]}, which seems to be a copy of {name_of[original]}; "
                "keep only the frames there."
            )


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()
