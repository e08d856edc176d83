"""What `make weights` runs first: render photographic sequences and pack them into the stores of `configs/weights`.

It may be stopped at any time, and goes on when the command is run again.
"""

from relo.commands.process import set_defaults

set_defaults()  # before torch loads

from pathlib import Path

from relo.commands.main import main as relo
from relo.commands.scripts import run_script
from relo.errors import UserError

COMPOSITES = {
    "composites": ("train", "default", 3000, 24, 0),
    "composites_hard": ("train", "hard", 1800, 24, 0),
    "composites_long_occluded": ("train", "occluded", 600, 60, 1),
    "composites_val": ("val", "default", 120, 40, 0),
    "composites_val_occluded": ("val", "occluded", 120, 60, 0),
    "composites_val_distractors": ("val", "distractors", 80, 40, 0),
    "composites_val_long_occluded": ("val", "occluded", 120, 150, 2),
    "composites_test": ("test", "default", 500, 24, 0),
    "composites_test_occluded": ("test", "occluded", 250, 60, 0),
    "composites_test_distractors": ("test", "distractors", 250, 24, 0),
    "composites_test_long_occluded": ("test", "occluded", 120, 150, 2),
}
"""Each store: the split, the difficulty, the number of sequences and of their frames, and the seed. Splits share no
image."""

PHOTOGRAPHS = ("bsds500", "ecssd", "imagenet_sample", "human_segmentation", "grocery_store")
CUT_OUTS = ("ecssd", "human_segmentation", "clothing_coparsing", "bsds500")
"""What of the photo sets is used beside the photographs and cut-outs of packages. No videos: neighbouring frames would
land in different splits."""


def make_composites(output: Path = Path("data"), photos: Path | None = None, workers: int = 2) -> None:
    """Render and pack the composites, of the packages' images and of the photo sets that are there.

    Args:
        output: The folder that holds `photographs` and `cutouts`, and gets the stores.
        photos: A folder of photo sets, as `make photographs` takes it; the packages' images alone if not given.
        workers: Processes to use.

    Raises:
        UserError: images are missing, or something cannot be rendered or packed.
    """
    folders = {"photographs": [output / "photographs"], "cutouts": [output / "cutouts"]}
    # `make photographs` leaves sets that are folders where they are, and unpacks those that are tars.
    places = [] if photos is None else [photos, output / "downloads" / "sets"]
    for kind, sets in (("photographs", PHOTOGRAPHS), ("cutouts", CUT_OUTS)):
        for name in sets:
            folders[kind] += [place / name for place in places if (place / name).is_dir()][:1]
    missing = [str(folder) for places in folders.values() for folder in places[:1] if not folder.is_dir()]
    if missing:
        raise UserError(f"There is no {' and no '.join(missing)}: run `make photographs` first.")
    sources = [word for kind, places in folders.items() for word in (f"--{kind}", *map(str, places))]
    for store, (split, difficulty, sequences, frames, seed) in COMPOSITES.items():
        root, layout = output / "rendered" / store, "lasot" if split == "test" else "got10k"
        size = [f"--sequences={sequences}", f"--frames={frames}", f"--difficulty={difficulty}"]
        common = [f"--split={split}", f"--workers={workers}"]
        relo(["data", "synthesize", str(root), f"--layout={layout}", f"--seed={seed}", *size, *common, *sources])
        relo(["data", "pack", layout, str(root), str(output / store), *common])


def main(arguments: list[str] | None = None) -> None:
    """Make the composites; a mistake is one sentence and exit code 2."""
    run_script(make_composites, __doc__, arguments)


if __name__ == "__main__":
    main()
