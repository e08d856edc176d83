"""How well one-pass evaluation keeps a network busy: its frames per second with a network that costs nothing, as a
share of those that bare JPEG decoding gives on the same threads.

    python benchmarks/runner.py [--width 1280 --height 720] [--workers 16] [--batch_size 16] [--rounds 5]

Both are measured in turn on the same files, by the clock and by the processor's time; the last line has the medians of
the rounds' ratios. Another program on the same cores shows in the first; waiting shows only in the first.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import os
import statistics
import tempfile
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from tables import parser_of, seconds
from torch import Tensor, nn

from relo.data.sequences import ImageFiles
from relo.data.sequences import Sequence as AnnotatedSequence
from relo.evaluation.one_pass import run_one_pass
from relo.models.encoders.base import Templates
from relo.models.network import LocalizationMaps
from relo.tracking import crops
from relo.tracking.tracker import Tracker

GRAIN = 4


class FreeNetwork(nn.Module):
    """Sees the target in the middle of every search region, at no cost."""

    engine = "torch"
    prior = presence = None

    def __init__(self, search_size: int = 256, template_size: int = 128, map_size: int = 16) -> None:
        super().__init__()
        self.encoder = SimpleNamespace(search_size=search_size, template_size=template_size, map_size=map_size)
        self.device = nn.Parameter(torch.empty(0))
        self.logits = torch.zeros(1, map_size, map_size)
        self.boxes_cxcywh = torch.tensor([0.5, 0.5, 0.25, 0.25]).expand(1, map_size, map_size, 4)

    def encode_templates(self, images: Tensor, boxes_xywh: Tensor) -> Templates:
        """Nothing to know of a target."""
        return Templates(torch.zeros(len(images), 1, 1))

    def forward(
        self, images: Tensor, templates: Templates, memory: Tensor | None, heads: Collection[str]
    ) -> tuple[LocalizationMaps, None]:
        """The same maps for every frame, and no memory."""
        batch = len(images)
        return LocalizationMaps(self.logits.expand(batch, -1, -1), self.boxes_cxcywh.expand(batch, -1, -1, -1)), None


def make_sequences(folder: Path, count: int, frames: int, width: int, height: int) -> list[AnnotatedSequence]:
    """Sequences that share their files: smooth noise with a grain that makes them as large as the frames of LaSOT."""
    random = np.random.default_rng(0)
    smooth = cv2.resize(random.integers(0, 255, (height // 16, width // 16, 3), np.uint8), (width, height))
    names = tuple(f"{index:08d}.jpg" for index in range(frames))
    for name in names:
        image = cv2.add(smooth, random.integers(0, GRAIN, smooth.shape, np.uint8))
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    box_xywh = np.array([[0.4 * width, 0.4 * height, 0.1 * width, 0.2 * height]])
    return [
        AnnotatedSequence(f"noise-{number}", "noise", ImageFiles(folder, names), box_xywh, np.ones(1, bool))
        for number in range(count)
    ]


def decode(sequences: Sequence[AnnotatedSequence], workers: int) -> None:
    """Decoding alone, a sequence a job; the last images are kept a while, as in the runner."""

    def work(sequence: AnnotatedSequence) -> None:
        last: deque[object] = deque(maxlen=8)
        for index in range(len(sequence)):
            last.append(sequence.frames[index])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, sequences))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--sequences", type=int, default=48)
    parser.add_argument("--frames", type=int, default=60, help="frames of a sequence")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="decoding threads")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as `relo test` does beside a GPU
    cv2.setNumThreads(1)
    # Crops are normalised on the network's device, at the network's cost.
    crops.normalise_images = lambda images: images
    tracker = Tracker(FreeNetwork(), device="cpu")  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        sequences = make_sequences(Path(folder), options.sequences, options.frames, options.width, options.height)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / options.frames
        print(
            f"{options.width} x {options.height}, {size / 1e3:.0f} kB a frame, {options.workers} threads, "
            f"batches of {options.batch_size}"
        )
        count = options.sequences * options.frames
        shares = []
        for number in range(options.rounds):
            decoding = seconds(lambda: decode(sequences, options.workers))
            running = seconds(
                lambda: run_one_pass(tracker, sequences, batch_size=options.batch_size, workers=options.workers)
            )
            shares.append([one / other for one, other in zip(decoding, running, strict=True)])
            print(
                f"round {number + 1}: decoding {count / decoding[0]:.1f} frames/s, "
                f"{1e3 * decoding[1] / count:.2f} ms of a core each; runner {count / running[0]:.1f} frames/s, "
                f"{1e3 * running[1] / count:.2f} ms; ratio {shares[-1][0]:.3f}, of processor time {shares[-1][1]:.3f}",
                flush=True,
            )
    medians = [statistics.median(values) for values in zip(*shares, strict=True)]
    print(f"median ratio {medians[0]:.3f}, of processor time {medians[1]:.3f}")


if __name__ == "__main__":
    main()
