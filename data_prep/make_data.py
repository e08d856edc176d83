"""What `make data` runs: pack the datasets whose roots are given; without any, make synthetic ones and pack these.

The stores, in the output folder:

    lasot_train, lasot_test, got10k_train (the list without VOT videos, where the root is complete), got10k_val,
    trackingnet_train        of the given roots
    synthetic_train, synthetic_test    where none is given; the sequences themselves are under synthetic/

Every step may be stopped, and goes on when the command is run again.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import auto_cli

from relo.cli import main as relo
from relo.data.sequences import open_reader
from relo.errors import UserError


@dataclass(frozen=True)
class Packing:
    """One store to make: which split of which dataset, and how."""

    dataset: str
    root: Path
    split: str
    store: str
    arguments: tuple[str, ...] = ()


def make_data(
    output: Path = Path("data"),
    lasot: Path | None = None,
    got10k: Path | None = None,
    trackingnet: Path | None = None,
    train_sequences: int = 400,
    test_sequences: int = 128,
    frames: int = 60,
    seed: int = 0,
    cut: float | None = None,
    max_side: int | None = None,
    skip_broken: bool = False,
    workers: int = 2,
) -> None:
    """Pack the given datasets; without any, make and pack synthetic ones.

    Args:
        output: The folder of the stores.
        lasot: LaSOT's root.
        got10k: GOT-10k's root.
        trackingnet: TrackingNet's root.
        train_sequences: Synthetic sequences to train on.
        test_sequences: Synthetic sequences that are held out.
        frames: Frames of a synthetic sequence.
        seed: The seed of the synthetic sequences.
        cut: Keep the target's surroundings only in training stores: a square of this many times sqrt(w h).
        max_side: Scale frames of training stores down to this many pixels on the longer side.
        skip_broken: Leave broken sequences out instead of stopping at the first.
        workers: Processes to use.
    """
    common = [f"--workers={workers}", f"--skip_broken={str(skip_broken).lower()}"]
    smaller = tuple(f"--{name}={value}" for name, value in (("cut", cut), ("max_side", max_side)) if value is not None)
    jobs: list[Packing] = []
    if lasot is not None:
        jobs += [
            Packing("lasot", lasot, "train", "lasot_train", smaller),
            Packing("lasot", lasot, "test", "lasot_test"),
        ]
    if got10k is not None:
        train_split = got10k_train_split(got10k)
        jobs += [Packing("got10k", got10k, train_split, "got10k_train", smaller)]
        jobs += [Packing("got10k", got10k, "val", "got10k_val")]
    if trackingnet is not None:
        jobs += [Packing("trackingnet", trackingnet, "train", "trackingnet_train", smaller)]
    if not jobs:
        root = output / "synthetic"
        for split, count in (("train", train_sequences), ("test", test_sequences)):
            settings = {"split": split, "sequences": count, "frames": frames, "seed": seed, "workers": workers}
            relo(["data", "synthesize", str(root), *(f"--{name}={value}" for name, value in settings.items())])
            jobs.append(Packing("lasot", root, split, f"synthetic_{split}", smaller if split == "train" else ()))
    for job in jobs:
        store = output / job.store
        relo(["data", "pack", job.dataset, str(job.root), str(store), f"--split={job.split}", *job.arguments, *common])
        relo(["data", "verify", str(store), f"--workers={workers}"])


def got10k_train_split(root: Path) -> str:
    """The paper's list, which leaves out the videos of VOT; all of train where it is not the official one."""
    try:
        open_reader("got10k", root, "vot-train")
    except UserError as error:
        print(f"GOT-10k: packing the whole of train. {error}", file=sys.stderr)
        return "train"
    return "vot-train"


if __name__ == "__main__":
    auto_cli(make_data)
