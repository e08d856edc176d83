"""What `make data` and `make demo` run: pack the datasets whose roots are given, or make synthetic ones and pack these.

Every step may be stopped at any time, and goes on when the command is run again. docs/data.md names the stores.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser

from relo.commands.main import main as relo
from relo.data.clip_store import is_complete
from relo.data.recipe_stores import RECIPE_STORES
from relo.data.sequences import open_reader
from relo.errors import UserError

_LAYOUT_SHARES = {"lasot": 0.5, "got10k": 0.25, "trackingnet": 0.25}
"""How the synthetic training sequences are split over the layouts."""


@dataclass(frozen=True)
class Packing:
    """One store to make: which split of which dataset, and how."""

    dataset: str
    root: Path
    split: str
    store: str
    options: tuple[str, ...] = ()


def make_data(
    output: Path = Path("data"),
    lasot: Path | None = None,
    got10k: Path | None = None,
    coco: Path | None = None,
    trackingnet: Path | None = None,
    vasttrack: Path | None = None,
    demo: bool = False,
    train_sequences: int = 320,
    test_sequences: int = 120,
    frames: int = 60,
    seed: int = 0,
    cut: float | None = None,
    max_side: int | None = None,
    skip_broken: bool = False,
    workers: int = 2,
) -> None:
    """Pack the given datasets; without any, make and pack synthetic ones. Every store is read back once.

    Args:
        output: The folder of the stores.
        lasot: LaSOT's root.
        got10k: GOT-10k's root.
        coco: COCO's root (2017).
        trackingnet: TrackingNet's root.
        vasttrack: VastTrack's root.
        demo: Make the two synthetic stores of the demo, in one layout.
        train_sequences: Synthetic sequences to train on, over all layouts.
        test_sequences: Synthetic sequences that are held out.
        frames: Frames of a synthetic sequence.
        seed: The seed of the synthetic sequences.
        cut: Keep the target's surroundings only in training stores: a square of this many times sqrt(w h).
        max_side: Scale frames of training stores down to this many pixels on the longer side.
        skip_broken: Leave broken sequences out instead of stopping at the first.
        workers: Processes to use.
    """
    smaller = tuple(f"--{name}={value}" for name, value in (("cut", cut), ("max_side", max_side)) if value is not None)
    roots = {"lasot": lasot, "got10k": got10k, "coco": coco, "trackingnet": trackingnet, "vasttrack": vasttrack}
    jobs = list(_real(roots, smaller))
    if not jobs:
        settings = (f"--frames={frames}", f"--seed={seed}", f"--workers={workers}")
        layouts = {"lasot": 1.0} if demo else _LAYOUT_SHARES
        jobs = list(_synthetic(output / "synthetic", layouts, train_sequences, test_sequences, settings, smaller))
        if demo:
            jobs = [Packing(job.dataset, job.root, job.split, f"synthetic_{job.split}", job.options) for job in jobs]
    for job in jobs:
        store = str(output / job.store)
        skip = f"--skip_broken={str(skip_broken).lower()}"
        options = (f"--split={job.split}", *job.options, skip, f"--workers={workers}")
        was_there = is_complete(Path(store))
        relo(["data", "pack", job.dataset, str(job.root), store, *options])
        if not was_there:  # a store that was is read through by packing again
            relo(["data", "verify", store, "--decode=false", f"--workers={workers}"])


def _real(roots: Mapping[str, Path | None], smaller: tuple[str, ...]) -> Iterator[Packing]:
    """The recipes' stores of the given roots; only those to train on may be made `smaller`."""
    for store, (dataset, split) in RECIPE_STORES.items():
        root = roots[dataset]
        if root is not None:
            split = _got10k_train_split(root) if split == "vot-train" else split
            yield Packing(dataset, root, split, store, () if split == "val" else smaller)


def _synthetic(
    folder: Path,
    layouts: dict[str, float],
    train_sequences: int,
    test_sequences: int,
    settings: tuple[str, ...],
    smaller: tuple[str, ...],
) -> Iterator[Packing]:
    """Make the sequences under `folder`, one root a layout; those held out are in LaSOT's layout."""
    counts = [(layout, "train", round(share * train_sequences)) for layout, share in layouts.items()]
    for layout, split, count in [*counts, ("lasot", "test", test_sequences)]:
        root = folder / layout
        chosen = (f"--layout={layout}", f"--split={split}", f"--sequences={count}")
        relo(["data", "synthesize", str(root), *chosen, *settings])
        yield Packing(layout, root, split, f"synthetic_{layout}_{split}", smaller if split == "train" else ())


def _got10k_train_split(root: Path) -> str:
    """The paper's list, which leaves out the videos of VOT; all of train where the root is not the official one."""
    try:
        open_reader("got10k", root, "vot-train")
    except UserError as error:
        print(f"GOT-10k: packing the whole of train. {error}", file=sys.stderr)
        return "train"
    return "vot-train"


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_function_arguments(make_data, as_group=False, skip={"demo"})
    parser.add_argument("--demo", action="store_true", help="Make the two synthetic stores of the demo, in one layout.")
    make_data(**parser.parse_args().as_dict())
