"""How long `relo evaluate` takes over results as large as LaSOT's test set: 280 sequences, 685,360 frames.

    python benchmarks/scoring.py [--rounds 5]

Truths and results are random boxes in text files, as trackers write them. The time is this process's processor time on
one thread, reading included, imports left out; a machine at rest needs well under 6 s.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tables import parser_of

from relo.commands.evaluate import evaluate


def write_boxes(folder: Path, lengths: dict[str, int], generator: np.random.Generator) -> None:
    """A file of random boxes xywh for every sequence."""
    folder.mkdir(parents=True)
    for name, frames in lengths.items():
        boxes_xywh = generator.uniform(1, 500, (frames, 4))
        np.savetxt(folder / f"{name}.txt", boxes_xywh, fmt="%.2f", delimiter=",")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the times and their median."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=280)
    parser.add_argument("--frames", type=int, default=685_360, help="of all sequences together")
    options = parser.parse_args(arguments)
    generator = np.random.default_rng(0)
    shares = np.diff(np.linspace(0, options.frames, options.sequences + 1).round()).astype(int)
    lengths = {f"target-{i + 1}": int(frames) for i, frames in enumerate(shares)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_boxes(folder / "truth", lengths, generator)
        (folder / "truth" / "absent").mkdir()
        for sequence, frames in lengths.items():
            (folder / "truth" / "absent" / f"{sequence}.txt").write_text("0\n" * frames)
        write_boxes(folder / "results" / "random", lengths, generator)
        seconds = []
        for _ in range(options.rounds):
            start = time.process_time()
            evaluate([folder / "results" / "random"], benchmark="plain", annotations=folder / "truth", rule="lasot")
            seconds.append(time.process_time() - start)
    each = " ".join(f"{second:.2f}" for second in seconds)
    print(f"{options.frames:,} frames scored in {each} s; median {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
