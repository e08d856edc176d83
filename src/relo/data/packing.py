"""Packing a dataset into a clip store, and reading a store back to check it.

Several processes read, check and encode; one writes. Frames whose bytes are kept and not looked at are read by
the process that writes, as to send them from another would take longer than to read them.
"""

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from relo.console import make_console
from relo.data.clip_store import (
    ClipStore,
    ClipStoreWriter,
    Manifest,
    PackedFrames,
    PackingOptions,
    begun_store,
)
from relo.data.frame_packing import pack_frames
from relo.data.parallel import ahead, in_order
from relo.data.remarks import show
from relo.data.sequence_checks import examined, remarks_on_sizes
from relo.data.sequences.base import Sequence, SequenceReader
from relo.data.store_environment import NEW_COPY, require_sound_pages
from relo.errors import UserError, printable
from relo.progress import sequence_progress

Recheck = Literal["checksums", "images", "nothing"]


def pack(
    reader: SequenceReader,
    output: Path,
    *,
    split: str = "",
    options: PackingOptions | None = None,
    reader_options: Mapping[str, Any] | None = None,
    workers: int = 0,
    skip_broken: bool = False,
    decode: bool = True,
    recheck: Recheck = "checksums",
    console: Console | None = None,
) -> ClipStore:
    """Pack every sequence of a reader into the store `output`.

    JPEG and PNG bytes are kept as they are unless the options cut or scale a frame. What is done is kept when the work
    is stopped or killed, and the next run goes on from there; broken sequences are tried again. A store that is
    complete is rechecked, and sequences with bad records are packed again.

    Args:
        reader: the sequences.
        output: the store's folder.
        split: the split's name, for the manifest.
        options: how to pack; whole frames by default.
        reader_options: how the reader was opened, for the manifest.
        workers: processes that read and encode, each of which holds a sequence in memory; 0 does it in this one.
        decode: look for damage in frames whose bytes are kept, too; without it, headers say what sizes they have.
        recheck: what is looked at in a store that is complete: the checksums of all records; its images as well, as
            `verify` does; or nothing.
        skip_broken: leave broken sequences out and list them in the manifest, instead of stopping at the first.
        console: where to show progress, and remarks on sequences.

    Raises:
        UserError: a sequence is broken, or the output is a store of something else.
    """
    options = options or PackingOptions()
    console = console or make_console()
    manifest = Manifest(reader.dataset, split, options, tuple(reader.names), dict(reader_options or {}))
    broken: dict[str, str] = {}
    if recheck != "nothing":
        require_sound_pages(output)
    damaged = _damaged(begun_store(output, manifest), recheck, workers, console)
    if damaged:
        console.print(f"Sequences with bad records, packed again: {len(damaged)}.", highlight=False)
    with ClipStoreWriter(output, manifest, damaged) as writer:
        missing, total = writer.missing, len(manifest.names)
        pack_one = partial(_pack_one, reader, options, decode)
        if decode or options.changes_frames:
            results = in_order(pack_one, missing, min(workers, len(missing)))
        else:
            results = ahead(pack_one, missing)
        bar = sequence_progress(console, f"packing {output.name}", total, total - len(missing))
        with bar as count, closing(results):
            for index, result in zip(missing, results, strict=True):
                name = manifest.names[index]
                if not isinstance(result, UserError):
                    sequence, packed = result
                    writer.write(index, sequence, packed)
                    remarks = remarks_on_sizes(f"{sequence.dataset}/{sequence.name}", packed.image_sizes)
                    show((*sequence.remarks, *remarks), console)
                    count(len(packed.values), sum(map(len, packed.values)))
                    continue
                broken[name] = reason = str(result)
                if not skip_broken:
                    raise UserError(
                        f"{reader.dataset}/{name} is broken: {reason.rstrip('.')} (what is packed is kept; repair it "
                        "and run again, or leave such sequences out with --skip_broken true)."
                    )
                count(0, 0)
                left_out = Text.assemble(("left out", "yellow"), f" {printable(name)}: {reason}")
                console.print(left_out, soft_wrap=True)
        if len(broken) == len(manifest.names):
            first = next(iter(broken.values()))
            raise UserError(f"All {len(broken)} sequences of {reader.dataset} are broken; the first: {first}")
        writer.finish(broken)
    store = ClipStore(output)
    if damaged:
        require_sound_pages(output)
        if _damaged(store, recheck, workers, console):
            raise UserError(f"{output} is damaged beyond its records: {NEW_COPY}.")
    return store


def verify(path: Path, *, decode: bool = True, workers: int = 0, console: Console | None = None) -> list[str]:
    """Read back every record of a store, decode its images if so wanted, and show remarks on its sequences.

    Returns:
        What is wrong, one sentence a bad record.

    Raises:
        UserError: there is no store, its manifest cannot be read, or LMDB's own pages are damaged.
    """
    require_sound_pages(path)
    store = ClipStore(path, partial=True)
    console = console or make_console()
    problems: list[str] = []
    if not store.manifest.complete:
        missing = len(store.manifest.names) - len(store)
        problems.append(f"{missing} of {len(store.manifest.names)} sequences are missing: packing was not finished.")
    for result in examined(store, f"verifying {path.name}", "decoded" if decode else "read", workers, console):
        problems += result.problems
        show(result.remarks, console)
    return problems


def _damaged(store: ClipStore | None, recheck: Recheck, workers: int, console: Console) -> list[int]:
    """The numbers of the sequences of a complete store that have bad records, which are shown."""
    if store is None or not store.manifest.complete or recheck == "nothing":
        return []
    task = f"looking for damage in {store.path.name}"
    results = list(examined(store, task, "decoded" if recheck == "images" else "read", workers, console))
    numbers = store.manifest_numbers.tolist()
    bad = [number for number, found in zip(numbers, results, strict=True) if found.problems]
    if bad:
        show([problem for found in results for problem in found.problems], console)
    return bad


def _pack_one(
    reader: SequenceReader, options: PackingOptions, decode: bool, index: int
) -> tuple[Sequence, PackedFrames] | UserError:
    try:
        sequence = reader[index]
        return sequence, pack_frames(sequence, options, decode)
    except UserError as error:
        return error
