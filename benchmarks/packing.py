"""How near packing comes to what it cannot do without: the codec, and where bytes are kept, a copy of the files.

    python benchmarks/packing.py [--images FOLDER] [--sequences 8] [--frames 60] [--workers 0] [--folder FOLDER]

Rows are ways to pack the same images:

- cut, scaled: to 12 times the target and 512 px, beside simplejpeg that decodes each image and encodes as many pixels
  as the store keeps of it.
- decoded, kept: whole images whose bytes are kept and looked at for damage, beside simplejpeg that decodes them.
- kept: `--decode false`, beside `cp -r` of the files.
- kept, synced: the same until the bytes are on the disk, as `relo data pack` leaves them, beside `cp -r` and `sync`.

Rates are frames a second by the wall clock, and by the time that cores spent, in which other programs on the machine
do not count; ratios are packing's rates by the other's. Rounds of both alternate; rates and ratios are the medians of
the rounds. Files are in the page cache, and in the first three rows neither stores nor copies are synced to the disk,
whose own speed is not the question; the last waits for all that the machine has to write. With --workers processes
decode and encode for both, and what their start takes is left out of the first two rows; 0 is this process alone.

Images are JPEG files of FOLDER, or made here: 1280x720 px, of smooth shapes and noise that a photograph has.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import cv2
import lmdb
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from rich.table import Table
from tables import number_table, parser_of, print_table

from relo.data.clip_store import ClipStore, PackingOptions
from relo.data.packing import pack
from relo.data.parallel import in_order
from relo.data.sequences.base import ImageFiles, SequenceReader
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.errors import UserError

WIDTH, HEIGHT = 1280, 720
SMALLER = PackingOptions(cut=12.0, max_side=512)


class Images(SequenceReader):
    """Folders of images, each of which shows a target of a quarter of its height in its middle."""

    dataset = "made"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = {folder.name: sorted(file.name for file in folder.iterdir()) for folder in sorted(root.iterdir())}

    @property
    def names(self) -> list[str]:
        """The folders."""
        return list(self.files)

    def __getitem__(self, index: int) -> AnnotatedSequence:
        """The images of a folder."""
        name, files = list(self.files.items())[index]
        folder = self.root / name
        height, width = simplejpeg.decode_jpeg_header((folder / files[0]).read_bytes())[:2]
        box_xywh = [width / 2 - height / 8, height * 3 / 8, height / 4, height / 4]
        boxes_xywh, visible = np.tile(box_xywh, (len(files), 1)), np.ones(len(files), bool)
        return AnnotatedSequence(name, self.dataset, ImageFiles(folder, tuple(files)), boxes_xywh, visible)


def cost(work: Callable[[], object]) -> NDArray[np.float64]:
    """What work takes this process and those that it starts and waits for: seconds of a wall clock, and of cores."""
    before = _clocks()
    work()
    return _clocks() - before


def _clocks() -> NDArray[np.float64]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return np.array([time.perf_counter(), sum(times.ru_utime + times.ru_stime for times in used)])


def make_images(root: Path, sequences: int, frames: int, given: Path | None) -> None:
    """Folders of images: copies of given ones, or made."""
    files = [] if given is None else sorted(given.rglob("*.jpg"))
    if given is not None and not files:
        raise UserError(f"There is no image *.jpg in {given}.")
    rng = np.random.default_rng(0)
    for s in range(sequences):
        folder = root / f"{s:04d}"
        folder.mkdir(parents=True)
        shapes = cv2.resize(rng.uniform(0, 255, (18, 32, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for f in range(frames):
            target = folder / f"{f:06d}.jpg"
            if files:
                shutil.copyfile(files[(s * frames + f) % len(files)], target)
                continue
            image = np.roll(shapes, 4 * f, 1) + rng.normal(0, 6, shapes.shape)
            cv2.imwrite(str(target), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])


def codec(reader: Images, store: Path | None, index: int) -> None:
    """Decode the images of a sequence; with a store, encode as many pixels as it keeps of each."""
    sequence = reader[index]
    kept = ClipStore(store)[index].frames if store else None
    for i in range(len(sequence)):
        image = simplejpeg.decode_jpeg(sequence.frames.encoded(i))
        if kept is not None:
            height, width = simplejpeg.decode_jpeg_header(kept.encoded(i))[:2]
            part = np.ascontiguousarray(image[:height, :width])
            simplejpeg.encode_jpeg(part, SMALLER.quality, "RGB", "420", fastdct=False)


def run_all(function: Callable[[int], object], count: int, workers: int) -> None:
    """Call a function with the numbers of all sequences."""
    for _ in in_order(function, range(count), min(workers, count)):
        pass


def do_nothing(_: int) -> None:
    """The work of processes whose start is measured."""


def packed(
    reader: Images, store: Path, options: PackingOptions, decode: bool, workers: int, synced: bool = False
) -> None:
    """Pack into a new store."""
    opened = lmdb.open if synced else partial(lmdb.open, sync=False)
    with patch("lmdb.open", opened):
        pack(reader, store, options=options, decode=decode, workers=workers)


def copied(root: Path, copy: Path, synced: bool = False) -> None:
    """Copy the images' folders."""
    subprocess.run(["cp", "-r", str(root), str(copy)], check=True)
    if synced:
        os.sync()


def measure(reader: Images, folder: Path, workers: int, rounds: int) -> dict[str, NDArray[np.float64]]:
    """By the row's name, `cost` [rounds, 2, 2] of packing, and of the work that it is held against."""
    count = len(reader)
    store, scaled, copy = folder / "store", folder / "scaled", folder / "copy"
    whole = PackingOptions()
    packed(reader, scaled, SMALLER, True, workers)  # the codec looks at it for how large its images are

    def codec_alone(store: Path | None) -> None:
        run_all(partial(codec, reader, store), count, workers)

    rows: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "cut, scaled": (lambda: packed(reader, store, SMALLER, True, workers), lambda: codec_alone(scaled)),
        "decoded, kept": (lambda: packed(reader, store, whole, True, workers), lambda: codec_alone(None)),
        "kept": (lambda: packed(reader, store, whole, False, workers), lambda: copied(reader.root, copy)),
        "kept, synced": (
            lambda: packed(reader, store, whole, False, workers, synced=True),
            lambda: copied(reader.root, copy, synced=True),
        ),
    }
    costs: dict[str, list[NDArray[np.float64]]] = {name: [] for name in rows}
    for _ in range(rounds):
        start = cost(lambda: run_all(do_nothing, count, workers))
        for name, works in rows.items():
            both = np.stack([_cost(work, (store, copy), synced=name == "kept, synced") for work in works])
            costs[name].append(both if name.startswith("kept") else both - start)
    return {name: np.stack(of_rounds) for name, of_rounds in costs.items()}


def _cost(work: Callable[[], None], outputs: Sequence[Path], synced: bool) -> NDArray[np.float64]:
    """What work takes on a disk that waits for nothing else."""
    for output in outputs:
        shutil.rmtree(output, ignore_errors=True)
    if synced:
        os.sync()
    return cost(work)


def tabulate(options: argparse.Namespace) -> Table:
    """Make the images, and measure each way to pack them."""
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        root = Path(temporary) / "images"
        make_images(root, options.sequences, options.frames, options.images)
        reader = Images(root)
        size = sum(file.stat().st_size for file in root.rglob("*.jpg"))
        costs = measure(reader, Path(temporary), options.workers, options.rounds)
    frames = options.sequences * options.frames
    title = f"Packing {frames} frames, {size / frames / 1e3:.0f} kB each, beside the codec or a copy"
    table = number_table(title, "", "fps", "beside", "ratio", "a core", "beside", "ratio", "MB/s")
    for name, seconds in costs.items():
        rates = frames / np.median(seconds, axis=0)  # [2 (own, other), 2 (by the wall, by core)]
        ratios = np.median(seconds[:, 1] / seconds[:, 0], axis=0)
        cells = [
            f"{number:.{digits}f}"
            for by in (0, 1)
            for number, digits in ((rates[0, by], 0), (rates[1, by], 0), (ratios[by], 2))
        ]
        table.add_row(name, *cells, f"{size / frames * rates[0, 0] / 1e6:.0f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files to copy, instead of making images")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--frames", type=int, default=60, help="of each sequence")
    parser.add_argument("--workers", type=int, default=0, help="processes that read, decode and encode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the images, stores and copies are for the time being")
    print_table(parser, arguments, tabulate)


if __name__ == "__main__":
    main()
