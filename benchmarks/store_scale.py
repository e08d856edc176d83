"""How a clip store's size weighs on loading: stores of many frames, opened, then read by one worker and by several.

    python benchmarks/store_scale.py [--frames 10000 100000 1000000] [--lengths 150 1] [--folder FOLDER]

Frames are small JPEG images of a page of LMDB each, as keys, tables and records of annotations are those of a real
store. Length is the frames of a sequence: 150 is about GOT-10k's; 1 is a dataset of stills, which has the longest
tables. A million frames take 4 GB. Stores stay in FOLDER, to be used again; without it they are removed.

- index: LMDB's pages that lead to the records, in MB.
- open: from the path to clips that can be drawn, in seconds.
- own: memory of a worker that it shares with no other process, in MB, after it has read its clips.
- together: memory of eight workers (or --workers), in MB; a page that processes share is divided among them.
- clips: per second, of one process: 2 templates and 2 search frames each.

Workers are forked, or started as --start says, on Linux, whose /proc says what memory is shared.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import argparse
import gc
import itertools
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import cv2
import lmdb
import numpy as np
from rich.table import Table
from tables import number_table, parser_of, print_table
from torch.utils.data import DataLoader

from relo.data.clip_batch import ClipBatch
from relo.data.clip_dataset import ClipDataset, StoreSource
from relo.data.clip_store import ClipStoreWriter, Manifest, PackedFrames, PackingOptions, is_store
from relo.data.frame_geometry import WHOLE_IMAGE
from relo.data.loader_worker import share_imports, start_worker
from relo.data.sampler import OrderSampler
from relo.data.sequences.base import ImageFiles
from relo.data.sequences.base import Sequence as AnnotatedSequence
from relo.data.store_environment import closed, open_environment
from relo.data.transforms import ClipTransform
from relo.geometry import CropRule

SIDE = 52  # of a frame, whose JPEG bytes then fill most of one page, and are kept apart from the keys as long ones are
SMAPS = ("Private_Clean", "Private_Dirty"), ("Pss",)


def make_store(path: Path, frames: int, length: int) -> None:
    """Pack a store of equal frames, without waiting for the disk."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    value = closed(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    packed = PackedFrames([value] * length, np.full((length, 2), SIDE, np.int32), np.tile(WHOLE_IMAGE, (length, 1)))
    boxes_xywh, visible = np.tile([20.0, 20.0, 10.0, 10.0], (length, 1)), np.ones(length, bool)
    names = tuple(f"sequence_{number:08d}" for number in range(frames // length))
    with (
        patch("lmdb.open", partial(lmdb.open, sync=False)),
        ClipStoreWriter(path, Manifest("made", "train", PackingOptions(), names)) as writer,
    ):
        for number, name in enumerate(names):
            sequence = AnnotatedSequence(name, "made", ImageFiles(path, ()), boxes_xywh, visible)
            writer.write(number, sequence, packed)
        writer.finish({})


def index_size(path: Path) -> int:
    """The bytes of the pages that lead to the records."""
    numbers = open_environment(os.path.realpath(path)).stat()
    return int(numbers["psize"] * (numbers["branch_pages"] + numbers["leaf_pages"]))


def open_clips(path: Path) -> ClipDataset:
    """All clips of a store."""
    transform = ClipTransform(CropRule(2.0, 64), CropRule(4.0, 128))
    return ClipDataset([StoreSource(str(path))], OrderSampler(), transform, clips_per_epoch=1 << 30)


def memory(process: int, kinds: Sequence[str]) -> int:
    """The bytes that a process has of these kinds."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(tuple(f"{kind}:" for kind in kinds)))


def worker_memory(clips: ClipDataset, workers: int, batches: int, start: str) -> tuple[int, int]:
    """The bytes of one of some workers' own, and of all together, once each has given so many batches of 8 clips."""
    loader = DataLoader(
        clips,
        batch_size=8,
        num_workers=workers,
        collate_fn=ClipBatch.stack,
        worker_init_fn=start_worker,
        multiprocessing_context=start,
    )
    stream = iter(loader)
    for _ in range(workers * batches):
        next(stream)
    processes = [worker.pid for worker in stream._workers]
    own, shares = ([memory(process, kinds) for process in processes] for kinds in SMAPS)
    return max(own), sum(shares)


def measure(path: Path, batches: int, workers: int, start_method: str) -> list[str]:
    """The cells of a store."""
    start = time.perf_counter()
    clips = open_clips(path)
    opened = time.perf_counter() - start
    count = 8 * batches
    start = time.perf_counter()
    for number in range(count):
        clips[number]
    rate = count / (time.perf_counter() - start)
    gc.collect()
    own, together = (
        worker_memory(clips, count, batches, start_method)[which] for which, count in enumerate((1, workers))
    )
    return [
        f"{index_size(path) / 1e6:.1f}",
        f"{opened:.2f}",
        f"{own / 1e6:.0f}",
        f"{together / 1e6:.0f}",
        f"{rate:.0f}",
    ]


def tabulate(options: argparse.Namespace) -> Table:
    """Make the stores that are not there, and measure each."""
    names = ("frames", "length", "index MB", "open s", "own MB", "together MB", "clips/s")
    table = number_table("Clip stores by size", *names)
    cv2.setNumThreads(0)
    if options.start == "forkserver":
        share_imports()
    warnings.filterwarnings("ignore", "This DataLoader will create")
    with tempfile.TemporaryDirectory() as temporary:
        for length, frames in itertools.product(options.lengths, sorted(options.frames)):
            path = (options.folder or Path(temporary)) / f"{frames}_by_{length}"
            if not is_store(path):
                make_store(path, frames, length)
            table.add_row(str(frames), str(length), *measure(path, options.batches, options.workers, options.start))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--frames", nargs="+", type=int, default=[10_000, 100_000, 1_000_000], help="of each store")
    parser.add_argument("--lengths", nargs="+", type=int, default=[150, 1], help="frames of each sequence")
    parser.add_argument("--batches", type=int, default=20, help="batches of 8 clips that every worker reads")
    parser.add_argument("--workers", type=int, default=8, help="whose memory together is measured")
    parser.add_argument("--start", choices=("fork", "forkserver", "spawn"), default="fork", help="of workers")
    parser.add_argument("--folder", type=Path, help="where the stores are, or are made")
    print_table(parser, arguments, tabulate)


if __name__ == "__main__":
    main()
