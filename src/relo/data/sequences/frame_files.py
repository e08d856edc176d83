"""The frames of a sequence that are image files in one folder: which files they are, and in which order."""

import os
import re
from collections.abc import Callable, Iterable
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

from relo.data.sequences.base import ImageFiles
from relo.errors import UserError

IMAGE_KINDS = {
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
    return not name.startswith(".") and _suffix(name) in IMAGE_KINDS


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
        UserError: there is no such folder or no image in it, an image is a link to nothing, or it is not clear which
            images are the frames: there are several kinds of images, two names of one number, or names unlike others.
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
    other = next((name for name in names if not stem(name).isdecimal()), None)
    if other is not None:
        raise UserError(f"{folder / other} is not named by its number, as the frames of this dataset are.")
    by_number = dict(zip(map(int, map(stem, names)), names, strict=True))
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


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """A sorting key by which numbers in a text count as numbers, whatever their padding, and case does not count."""
    parts = re.findall(r"\d+|\D+", text.casefold())
    return [_number_key(part) if part.isdecimal() else (True, 0, part) for part in parts]


def _number_key(digits: str) -> tuple[bool, int, str]:
    """A key that sorts as the number does; Python makes no numbers of thousands of digits."""
    significant = (digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)).lstrip("0")
    return False, len(significant), significant


def _in_natural_order(folder: Path, names: list[str]) -> list[str]:
    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault(IMAGE_KINDS[_suffix(name)], name)
    if len(kinds) > 1:
        raise UserError(
            f"{folder} holds images of several kinds, such as {' and '.join(kinds.values())}; "
            "keep there only the kind that the frames are of."
        )
    stems = [stem(name) for name in names]
    numbers = all(map(str.isdecimal, stems))
    if not numbers:
        _refuse_strays(folder, names)
    keys: list[Any] = list(map(int if numbers else natural_key, stems))
    keyed = sorted(zip(keys, names, strict=True))
    for (key, name), (next_key, twin) in pairwise(keyed):
        if key == next_key:
            raise UserError(f"{folder} holds {name} and {twin}, two names of one frame; keep one of them.")
    return [name for _, name in keyed]


def _refuse_strays(folder: Path, names: list[str]) -> None:
    """Refuse images that are not named like the others: copies, masks, thumbnails, covers, or a second view.

    Names of one video's frames differ in their numbers alone. Names without any number are all alike, and names of
    which no two are alike are taken as they are.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        pattern = re.sub(r"\d+", "0", stem(name).casefold())
        alike.setdefault(pattern if "0" in pattern else "", []).append(name)
    frames = alike[max(alike, key=lambda pattern: (len(alike[pattern]), pattern != ""))]
    if len(frames) == 1 and len(names) > 2:
        return
    example = min(frames, key=natural_key)
    others = chain.from_iterable(group for group in alike.values() if group is not frames)
    strays = sorted(name for name in others if not _comes_before(name, example))
    if strays:
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        raise UserError(
            f"{folder} holds {strays[0]}{more} among images named like {example}; keep only the frames there."
        )


def _comes_before(name: str, first: str) -> bool:
    """Whether a name without number is the one before the `first` of others: `a.png` before `a-1.png`, `a (2).png`."""
    return re.fullmatch(re.escape(stem(name).casefold()) + r"[\W_]+[12]\W*", stem(first).casefold()) is not None


def stem(name: str) -> str:
    """A file's name without its end."""
    return name.rpartition(".")[0]


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()
