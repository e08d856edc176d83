"""`relo data`: make synthetic sequences, pack datasets into clip stores, check stores, look at folders."""

from pathlib import Path
from typing import Any

from rich.table import Column, Table

from relo.commands.help_texts import fill_help
from relo.console import make_console
from relo.data import doctor as examination
from relo.data import packing
from relo.data.clip_store import PackingOptions
from relo.data.parallel import default_workers
from relo.data.remarks import show
from relo.data.sequences import open_reader
from relo.data.sequences.datasets import DATASETS, find_dataset
from relo.data.store_parts import Part, open_store, store_folders
from relo.data.synthetic.command import synthesize
from relo.data.synthetic.layouts import LAYOUTS
from relo.errors import UserError, excerpt

__all__ = ["doctor", "pack", "synthesize", "verify"]

fill_help(layouts=LAYOUTS)(synthesize)  # defined in data, where studies use it too


@fill_help(datasets=DATASETS)
def pack(
    dataset: str,
    root: Path,
    output: Path,
    *,
    split: str | None = None,
    cut: float | None = None,
    max_side: int | None = None,
    quality: int = 90,
    workers: int | None = None,
    skip_broken: bool = False,
    decode: bool = True,
    recheck: packing.Recheck = "checksums",
    part: str | None = None,
    reader: dict[str, Any] | None = None,
) -> None:
    """Pack a split of a dataset into a clip store (LMDB).

    May be stopped or killed at any time: the same command goes on from there. A store that is complete is read through
    (see --recheck), and what is damaged is packed again. JPEG and PNG bytes are kept as they are, unless
    frames are cut or scaled. An evaluation needs whole images.

    Args:
        dataset: The dataset's name: {datasets}.
        root: The dataset's folder.
        output: The folder of the store.
        split: The split to pack; by default the first of the dataset's, which is the one to train on if there is one.
        cut: For training only: keep the target's surroundings, a square of this many times sqrt(w h). What a crop shows
            beyond is black: at 12 that is the rim of one search crop in 25, at 8 of one in 4.
        max_side: Scale frames down to this many pixels on the longer side.
        quality: JPEG quality of frames that are cut or scaled.
        workers: Processes that read and encode, each with one sequence in memory; by default, one per core.
        skip_broken: Leave broken sequences out, and say which, instead of stopping at the first.
        decode: Look for damage in frames whose bytes are kept, too. Without it packing is about as fast as a copy, and
            `relo data verify` finds the damage.
        recheck: What to look at in a store that is complete: the checksums of its records, its images too (which finds
            what was packed without --decode), or nothing.
        part: Pack one of several equal parts only, such as 3/8, into a folder in OUTPUT: for several machines, or
            disks. Once all parts are there, OUTPUT is used as one store is.
        reader: Settings of the dataset's reader, such as {"partial": true} to take what is there of LaSOT.

    Raises:
        UserError: the dataset is missing or broken, or the output holds something else.
    """
    console = make_console()
    options = PackingOptions(cut, max_side, quality)
    if strange := [name for name in reader or {} if not isinstance(name, str)]:
        raise UserError(
            f"--reader has {excerpt(strange[0])} in place of a setting's name, such as partial; correct it."
        )
    if reserved := {"dataset", "root", "split"} & (reader or {}).keys():
        raise UserError(f"--reader cannot set {min(reserved)}, which the command line has by itself.")
    split = split or find_dataset(dataset).splits[0]
    sequences = open_reader(dataset, root, split, **(reader or {}))
    show(sequences.unused, console)
    if part is not None:
        chosen = Part.of(part)
        sequences, output = chosen.reader(sequences), output / chosen.folder
    store = packing.pack(
        sequences,
        output,
        split=split,
        options=options,
        reader_options=reader,
        workers=default_workers(workers),
        skip_broken=skip_broken,
        decode=decode,
        recheck=recheck,
        console=console,
    )
    broken = len(store.manifest.broken)
    console.print(
        f"{output}: {len(store)} sequences of {dataset} {split}, {_size(output)}"
        + (f"; {broken} broken ones were left out" if broken else ""),
        highlight=False,
    )


def verify(store: Path, *, decode: bool = True, workers: int | None = None) -> None:
    """Read back and decode every record of a clip store, and name the bad ones.

    What the decoder only warns of is bad, too.

    Args:
        store: The store's folder.
        decode: Decode images; without it, checksums show what has changed since they were packed.
        workers: Processes that read; by default, one per core.

    Raises:
        UserError: a record is bad, or there is no store.
    """
    console = make_console()
    problems = [
        problem
        for path in store_folders(store)
        for problem in packing.verify(path, decode=decode, workers=default_workers(workers), console=console)
    ]
    show(problems, console)
    if problems:
        raise UserError(f"{store} has {len(problems)} bad records; the first: {problems[0]}")
    console.print(f"{store}: every record of {len(open_store(store))} sequences is good.", highlight=False)


@fill_help(datasets=DATASETS)
def doctor(
    paths: list[Path],
    *,
    dataset: str | None = None,
    split: str | None = None,
    frames: bool = False,
    workers: int | None = None,
) -> None:
    """Look at datasets' folders and clip stores, and say what is missing.

    Annotations are read and frames counted; whether frames are intact is seen with --frames true only.

    Args:
        paths: The folders.
        dataset: The dataset's name ({datasets}); by default, a folder's layout shows it.
        split: The split to look at; by default all that are there.
        frames: Decode every frame as well, and name those that are damaged or whose size does not fit their box.
        workers: Processes that read; by default, one per core.

    Raises:
        UserError: something is missing or broken.
    """
    console = make_console()
    table = Table(Column("", overflow="fold"), "", "sequences", "frames", "problems")
    # A folder that none of a dataset's splits reads is found with each of them: keys of a dict stand there once.
    problems: dict[str, None] = {}
    remarks: dict[str, None] = {}
    for path in paths:
        try:
            kind = dataset or examination.recognise(path)
            findings = examination.look_at(path, kind, split, default_workers(workers), frames)
        except UserError as error:
            findings = [examination.Finding("-", 0, 0, [str(error)])]
        for found in findings:
            counts = (found.sequences, found.frames, len(found.problems))
            table.add_row(str(path), found.what, *(f"{count:,}" for count in counts))
            problems.update(dict.fromkeys(found.problems))
            remarks.update(dict.fromkeys(found.remarks))
    console.print(table)
    show(list(problems), console)
    if remarks:
        console.print("Remarks:")
        show(list(remarks), console)
    if problems:
        raise UserError(f"Problems found: {len(problems)}, the first: {next(iter(problems))}")
    console.print("Nothing is missing" + (", and every frame is intact." if frames else "."))


def _size(folder: Path) -> str:
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.0f} MB"
