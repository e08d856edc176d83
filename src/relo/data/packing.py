"""Packing a dataset into a clip store, and reading a store back to check it.

Several processes read, check and encode; one writes.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from relo.data.clip_store import (
    NEW_COPY,
    ClipStore,
    ClipStoreWriter,
    Manifest,
    PackedFrames,
    PackingOptions,
    begun_store,
)
from relo.data.frame_geometry import WHOLE_IMAGE, nearest_visible, surroundings
from relo.data.intact_frames import decode_intact
from relo.data.parallel import in_order
from relo.data.remarks import show
from relo.data.sequence_checks import Examination, check_annotation, examine, misfits, remarks_on_sizes
from relo.data.sequences.base import Sequence, SequenceReader
from relo.errors import UserError, printable
from relo.progress import sequence_progress


def pack(
    reader: SequenceReader,
    output: Path,
    *,
    split: str = "",
    options: PackingOptions | None = None,
    reader_options: Mapping[str, Any] | None = None,
    workers: int = 0,
    skip_broken: bool = False,
    console: Console | None = None,
) -> ClipStore:
    """Pack every sequence of a reader into the store `output`.

    Frames are decoded, so that a damaged image is found here. JPEG and PNG bytes are kept as they are unless the
    options cut or scale a frame. What is done is kept when the work is stopped or killed, and the next run goes on from
    there; broken sequences are tried again. A store that is complete is read through as by `verify`, and sequences with
    bad records are packed again.

    Args:
        reader: the sequences.
        output: the store's folder.
        split: the split's name, for the manifest.
        options: how to pack; whole frames by default.
        reader_options: how the reader was opened, for the manifest.
        workers: processes that read and encode, each of which holds a sequence in memory; 0 does it in this one.
        skip_broken: leave broken sequences out and list them in the manifest, instead of stopping at the first.
        console: where to show progress, and remarks on sequences.

    Raises:
        UserError: a sequence is broken, or the output is a store of something else.
    """
    options = options or PackingOptions()
    console = console or Console()
    manifest = Manifest(reader.dataset, split, options, tuple(reader.names), dict(reader_options or {}))
    broken: dict[str, str] = {}
    damaged = _damaged(begun_store(output, manifest), workers, console)
    if damaged:
        console.print(f"Sequences with bad records, packed again: {len(damaged)}.", highlight=False)
    with ClipStoreWriter(output, manifest, damaged) as writer:
        missing, total = writer.missing, len(manifest.names)
        results = in_order(partial(_pack_one, reader, options), missing, min(workers, len(missing)))
        bar = sequence_progress(console, f"packing {output.name}", total, total - len(missing))
        with bar as count, closing(results):
            for index, result in zip(missing, results, strict=True):
                name = manifest.names[index]
                if not isinstance(result, UserError):
                    sequence, packed = result
                    writer.write(index, sequence, packed)
                    remarks = remarks_on_sizes(f"{sequence.dataset}/{sequence.name}", packed.image_sizes)
                    show((*sequence.remarks, *remarks), console)
                    count(len(packed.encoded), sum(map(len, packed.encoded)))
                    continue
                broken[name] = reason = str(result)
                if not skip_broken:
                    raise UserError(
                        f"{reader.dataset}/{name} is broken: {reason.rstrip('.')} (what is packed is kept; repair it "
                        "and run again, or leave such sequences out with --skip_broken true)."
                    )
                count(0, 0)
                left_out = f"[yellow]left out[/] {escape(printable(name))}: {escape(reason)}"
                console.print(left_out, highlight=False, soft_wrap=True)
        if len(broken) == len(manifest.names):
            raise UserError(f"All {len(broken)} sequences of {reader.dataset} are broken; the first: {broken[name]}")
        writer.finish(broken)
    store = ClipStore(output)
    if damaged and _damaged(store, workers, console):
        raise UserError(f"{output} is damaged beyond its records: {NEW_COPY}.")
    return store


def verify(path: Path, *, workers: int = 0, console: Console | None = None) -> list[str]:
    """Read back and decode every record of a store, and show remarks on its sequences.

    Returns:
        What is wrong, one sentence a bad record.

    Raises:
        UserError: there is no store, or its manifest cannot be read.
    """
    store = ClipStore(path, partial=True)
    console = console or Console()
    problems: list[str] = []
    if not store.manifest.complete:
        missing = len(store.manifest.names) - len(store)
        problems.append(f"{missing} of {len(store.manifest.names)} sequences are missing: packing was not finished.")
    for result in _examined(store, f"verifying {path.name}", workers, console):
        problems += result.problems
        show(result.remarks, console)
    return problems


def _damaged(store: ClipStore | None, workers: int, console: Console) -> list[int]:
    """The numbers of the sequences of a complete store that have bad records, which are shown."""
    if store is None or not store.manifest.complete:
        return []
    examined = list(_examined(store, f"looking for damage in {store.path.name}", workers, console))
    bad = [number for number, found in zip(store.manifest_numbers, examined, strict=True) if found.problems]
    if bad:
        store.check_index()
        show([problem for found in examined for problem in found.problems], console)
    return bad


def _examined(store: ClipStore, task: str, workers: int, console: Console) -> Iterator[Examination]:
    """What is wrong with each sequence of a store, its records read back and decoded."""
    results = in_order(partial(examine, store), range(len(store)), min(workers, len(store)))
    with sequence_progress(console, task, len(store)) as count, closing(results):
        for result in results:
            count(result.frames, 0)
            yield result


def _pack_one(reader: SequenceReader, options: PackingOptions, index: int) -> tuple[Sequence, PackedFrames] | UserError:
    try:
        sequence = reader[index]
        return sequence, pack_frames(sequence, options)
    except UserError as error:
        return error


def pack_frames(sequence: Sequence, options: PackingOptions) -> PackedFrames:
    """Read, check and encode the frames of one sequence.

    Raises:
        UserError: a frame or an annotation is broken, or they do not fit each other.
    """
    count = len(sequence)
    check_annotation(sequence)
    if options.cut is not None and len(sequence.boxes_xywh) != count:
        raise UserError(f"{sequence.name} has its first box only, so its frames cannot be cut around the target.")
    around = nearest_visible(sequence.visible)
    geometry = np.tile(WHOLE_IMAGE, (count, 1))
    sizes = np.empty((count, 2), np.int32)
    frames = []
    for i in range(count):
        encoded = sequence.frames.encoded(i)
        image = decode_intact(encoded, sequence.frames.name(i))
        sizes[i] = image.shape[1], image.shape[0]
        box_xywh = None if options.cut is None else sequence.boxes_xywh[around[i]]
        changed, geometry[i] = _cut_and_scale(image, box_xywh, options)
        if changed is not image or not encoded.startswith((b"\xff\xd8", b"\x89PNG")):
            bgr = cv2.cvtColor(changed, cv2.COLOR_RGB2BGR)
            encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, options.quality])[1].tobytes()
        frames.append(encoded)
    if problems := misfits(sequence, sizes):
        raise UserError(problems[0])
    return PackedFrames(frames, sizes, geometry)


def _cut_and_scale(
    image: NDArray[np.uint8], box_xywh: NDArray[np.float64] | None, options: PackingOptions
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """The part of an image [H, W, 3] to keep (the image itself if nothing changes) and its geometry."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = 0, 0, width, height
    if options.cut is not None and box_xywh is not None and np.isfinite(box_xywh).all():
        x1, y1, x2, y2 = surroundings(box_xywh, options.cut, width, height)
    part = image if (x2 - x1, y2 - y1) == (width, height) else image[y1:y2, x1:x2]
    height, width = part.shape[:2]
    scale = 1.0 if options.max_side is None else min(1.0, options.max_side / max(height, width))
    if scale == 1.0:
        return part, (x1, y1, 1.0, 1.0)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    return resized, (x1, y1, size[0] / width, size[1] / height)
