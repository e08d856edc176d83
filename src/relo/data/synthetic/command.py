"""`relo data synthesize`: whole splits of synthetic sequences, several processes at a time."""

import json
import os
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal

from relo.console import make_console
from relo.data.parallel import default_workers, in_order
from relo.data.remarks import show
from relo.data.sequences.datasets import find_dataset
from relo.data.synthetic.image_sources import find_sources
from relo.data.synthetic.layouts import LAYOUTS, LayoutWriter
from relo.data.synthetic.material import Material
from relo.data.synthetic.photographic import PhotographicMaterial
from relo.data.synthetic.procedural import ProceduralMaterial
from relo.data.synthetic.scene import Scene, check_size
from relo.data.synthetic.settings import (
    CHANGED,
    DISTRACTORS,
    EASY,
    HARD,
    OCCLUDED,
    PhotographicSettings,
    SceneSettings,
    photographic,
)
from relo.errors import UserError
from relo.files import reason, require_kept, write_text
from relo.inputs import read_bounded
from relo.progress import sequence_progress
from relo.settings import check_whole

_ALL = ("lasot", "got10k", "trackingnet")
_MOST_SEQUENCES = 1_000_000
_LARGEST_SEED = 10**12
_NOTE = "synthetic_{}.json"  # of a split, in the root

Difficulty = Literal["easy", "default", "distractors", "occluded", "changed", "hard"]

DIFFICULTIES: dict[Difficulty, SceneSettings] = {
    "easy": EASY,
    "default": SceneSettings(),
    "distractors": DISTRACTORS,
    "occluded": OCCLUDED,
    "changed": CHANGED,
    "hard": HARD,
}


def synthesize(
    output: Path,
    *,
    layout: str = "lasot",
    split: Literal["train", "val", "test"] = "train",
    sequences: int = 100,
    frames: int = 60,
    width: int = 320,
    height: int = 240,
    seed: int = 0,
    difficulty: Difficulty = "default",
    workers: int | None = None,
    photographs: list[Path] | None = None,
    cutouts: list[Path] | None = None,
) -> None:
    """Render synthetic sequences with exact boxes and write them as a dataset of the layout.

    Things and backgrounds are procedural textures; with --photographs and --cutouts, they are pictures of real things.
    The same arguments give the same bytes, whatever the number of processes. Splits share no texture, no photograph and
    no cut-out. What was written stays when the run is stopped; running it again adds what is missing.

    Args:
        output: The dataset's root; with layout `all`, the folder that gets one root per layout.
        layout: The dataset whose layout to write ({layouts}); `all` stands for LaSOT, GOT-10k and TrackingNet.
        split: The split to write; most benchmarks have `test` alone.
        sequences: The number of sequences of each layout.
        frames: The number of frames of a sequence.
        width: The frames' width in pixels.
        height: The frames' height in pixels.
        seed: The seed of everything random.
        difficulty: How much targets hide, move, change and meet their like; distractors, occluded and changed are hard
            in one of these alone.
        workers: The number of processes; by default, one per core. 0 renders in this one.
        photographs: Folders of photographs, for backgrounds and for the surfaces of things. A tenth of them is for val,
            a tenth for test, by what is in the files.
        cutouts: Folders of cut-outs, for targets and other things: images with an alpha channel, or with masks
            (masks/x.png or masks/x_0.png for images/x.jpg, or x_mask.png beside x.jpg). Shared out as photographs are.

    Raises:
        UserError: there is no such layout or it has no such split, a setting is out of range, the folder cannot be
            written, holds other files, or synthetic sequences of other settings, or loses some meanwhile, or the images
            are broken, of no use, or too few.
    """
    check_numbers(sequences=sequences, frames=frames, width=width, height=height, seed=seed)
    roots = {name: output / name for name in _ALL} if layout == "all" else {_layout_called(layout): output}
    writers = [LayoutWriter(name, root, split) for name, root in roots.items()]
    for writer in writers:
        writer.require_frames(frames)
    settings = DIFFICULTIES[difficulty]
    plan = partial(Scene, frames=frames, width=width, height=height, seed=seed, split=split)
    note = {"frames": frames, "width": width, "height": height, "seed": seed, "settings": asdict(settings)}
    console = make_console()
    material_of: Callable[[SceneSettings], Material] = ProceduralMaterial
    if photographs or cutouts:
        if not (photographs and cutouts):
            raise UserError("Scenes of photographs need both: give folders with --photographs and with --cutouts.")
        with console.status("looking through the images"):
            sources = find_sources(photographs, cutouts, split, default_workers(workers))
        show(sources.remarks, console)
        settings, of_photographs = photographic(settings), PhotographicSettings()
        material_of = partial(PhotographicMaterial, sources, of_photographs)
        note |= {"settings": asdict(settings), "photographic": asdict(of_photographs), "images": sources.digest}
    for writer in writers:
        _claim(writer, note)
    jobs = [
        (writer, name)
        for writer in writers
        for name in writer.sequence_names(sequences)
        if not writer.is_complete(name)
    ]
    write = partial(_write, partial(plan, settings=settings), partial(material_of, settings))
    written = in_order(write, jobs, min(default_workers(workers), len(jobs)))
    total = sequences * len(writers)
    with sequence_progress(console, "synthesizing", total, total - len(jobs)) as count, closing(written):
        for _ in written:
            count(frames, 0)
    for writer in writers:
        names = writer.sequence_names(sequences)
        require_kept(writer.root, [_note_of(writer), *map(writer.sequence_folder, names)])
        writer.finish(names)
        console.print(f"{writer.root}: {sequences} {split} sequences of {frames} frames.")


def check_numbers(*, sequences: int, frames: int, width: int, height: int, seed: int) -> None:
    """Refuse numbers that cannot be synthesized, before anything is written.

    Raises:
        UserError: one is out of range.
    """
    check_whole("The synthesis", 1, _MOST_SEQUENCES, sequences=sequences)
    check_whole("The synthesis", 0, _LARGEST_SEED, seed=seed)
    check_size(frames, width, height)


def _layout_called(name: str) -> str:
    with suppress(UserError):
        if (found := find_dataset(name).name) in LAYOUTS:
            return found
    raise UserError(f"There is no layout {name!r}; known are all, {', '.join(LAYOUTS)}.")


def _write(plan: Callable[..., Scene], material: Callable[[], Material], job: tuple[LayoutWriter, str]) -> None:
    writer, name = job
    writer.write(name, plan(name, material=material()))


def _note_of(writer: LayoutWriter) -> Path:
    return writer.root / _NOTE.format(writer.split)


def _claim(writer: LayoutWriter, settings: dict[str, object]) -> None:
    """Note the settings in the root, or refuse to write into one of other settings, or one that we have not made."""
    note = _note_of(writer)
    text = json.dumps(settings, indent=2) + "\n"
    # Before the note is looked for: the same command, run beside this one, notes first and then writes.
    is_used = writer.root.is_dir() and any(not name.startswith(".") for name in os.listdir(writer.root))
    is_begun = writer.root.is_dir() and any(writer.is_complete(name) for name in writer.sequence_names(1))
    try:
        found = read_bounded(note) if note.exists() else None
    except OSError as error:
        raise UserError(f"{note} cannot be read ({reason(error)}).") from error
    if found is not None:
        if found != text.encode():
            raise UserError(f"{note} describes sequences made with other settings; choose another folder.")
        return
    is_ours = any(writer.root.glob(_NOTE.format("*")))  # of another split
    if is_begun or (is_used and not is_ours):
        raise UserError(f"{writer.root} already holds files that are not synthetic; choose another folder.")
    write_text(note, text)
