"""Packing a dataset into a clip store, and reading a store back to check it.

Several processes read, check and encode; one writes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from relo.data.clip_store import ClipStore, ClipStoreWriter, Manifest, PackedSequence, PackingOptions
from relo.data.frame_geometry import nearest_visible, surroundings
from relo.data.sequences.base import Sequence, SequenceReader, decode_frame
from relo.errors import UserError

_Item = TypeVar("_Item", bound="_Report")


@dataclass(frozen=True)
class _Report:
    """What a worker found of sequence number `index`."""

    index: int
    frames: int


@dataclass(frozen=True)
class _Packed(_Report):
    """A sequence, or why it cannot be packed."""

    sequence: PackedSequence | None
    reason: str = ""


@dataclass(frozen=True)
class _Verified(_Report):
    """The bad records of a sequence."""

    problems: list[str]


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

    Frames are decoded once, so that a broken image is found here. JPEG and PNG bytes are kept as they are unless the
    options cut or scale a frame. What is done is kept when the work is stopped or killed, and the next run goes on from
    there; broken sequences are tried again.

    Args:
        reader: the sequences.
        output: the store's folder.
        split: the split's name, for the manifest.
        options: how to pack; whole frames by default.
        reader_options: how the reader was opened, for the manifest.
        workers: processes that read and encode, each of which holds a sequence in memory; 0 does it in this one.
        skip_broken: leave broken sequences out and list them in the manifest, instead of stopping at the first.
        console: where to show progress.

    Raises:
        UserError: a sequence is broken, or the output is a store of something else.
    """
    options = options or PackingOptions()
    console = console or Console()
    manifest = Manifest(reader.dataset, split, options, tuple(reader.names), dict(reader_options or {}))
    broken: dict[str, str] = {}
    with ClipStoreWriter(output, manifest) as writer:
        results = _in_processes(_Encoding(reader, options), writer.missing, workers)
        for result in _with_progress(results, f"packing {output.name}", len(manifest.names), writer.missing, console):
            name = manifest.names[result.index]
            if result.sequence is not None:
                writer.write(result.index, result.sequence)
            elif skip_broken:
                broken[name] = result.reason
                console.print(f"[yellow]left out[/] {name}: {result.reason}", highlight=False, soft_wrap=True)
            else:
                raise UserError(
                    f"{reader.dataset}/{name} is broken: {result.reason.rstrip('.')} (what is packed is kept; "
                    "mend it and run again, or leave such sequences out with --skip_broken true)."
                )
        if len(broken) == len(manifest.names):
            raise UserError(f"All {len(broken)} sequences of {reader.dataset} are broken; the first: {broken[name]}")
        writer.finish(broken)
    return ClipStore(output)


def verify(path: Path, *, workers: int = 0, console: Console | None = None) -> list[str]:
    """Read back and decode every record of a store.

    Returns:
        What is wrong, one sentence a bad record.

    Raises:
        UserError: there is no store, or its manifest cannot be read.
    """
    store = ClipStore(path, partial=True)
    problems = []
    if not store.manifest.complete:
        missing = len(store.manifest.names) - len(store)
        problems.append(f"{missing} of {len(store.manifest.names)} sequences are missing: packing was not finished.")
    numbers = list(range(len(store)))
    results = _in_processes(_Checking(store), numbers, workers)
    for result in _with_progress(results, f"verifying {path.name}", len(numbers), numbers, console or Console()):
        problems += result.problems
    return problems


class _Encoding(Dataset[_Packed]):
    """Item i is sequence i, packed."""

    def __init__(self, reader: SequenceReader, options: PackingOptions) -> None:
        self.reader = reader
        self.options = options

    def __getitem__(self, index: int) -> _Packed:
        try:
            packed = pack_sequence(self.reader[index], self.options)
        except UserError as error:
            return _Packed(index, 0, None, str(error))
        return _Packed(index, len(packed.frames), packed)


class _Checking(Dataset[_Verified]):
    """Item i is what is wrong with sequence i of a store."""

    def __init__(self, store: ClipStore) -> None:
        self.store = store

    def __getitem__(self, index: int) -> _Verified:
        try:
            sequence = self.store[index]
        except UserError as error:
            return _Verified(index, 0, [str(error)])
        return _Verified(index, len(sequence), sequence_problems(sequence))


def pack_sequence(sequence: Sequence, options: PackingOptions) -> PackedSequence:
    """Read, check and encode one sequence.

    Raises:
        UserError: a frame or an annotation is broken.
    """
    count = len(sequence)
    _check_annotation(sequence)
    if options.cut is not None and len(sequence.boxes_xywh) != count:
        raise UserError(f"{sequence.name} has its first box only, so its frames cannot be cut around the target.")
    around = nearest_visible(sequence.visible)
    geometry = np.tile(np.array([0.0, 0.0, 1.0, 1.0]), (count, 1))
    sizes = np.empty((count, 2), np.int32)
    frames = []
    for i in range(count):
        encoded = sequence.frames.encoded(i)
        image = decode_frame(encoded, sequence.frames.name(i))
        sizes[i] = image.shape[1], image.shape[0]
        box_xywh = None if options.cut is None else sequence.boxes_xywh[around[i]]
        changed, geometry[i] = _cut_and_scale(image, box_xywh, options)
        frames.append(encoded if changed is image and _is_portable(encoded) else _encode(changed, options.quality))
    return PackedSequence(
        name=sequence.name,
        class_name=sequence.class_name,
        sentence=sequence.sentence,
        boxes_xywh=sequence.boxes_xywh,
        visible=sequence.visible,
        image_sizes=sizes,
        geometry=geometry if options.changes_frames else None,
        frames=frames,
    )


def sequence_problems(sequence: Sequence) -> list[str]:
    """What is wrong with the annotation and the frames of a sequence, one sentence each."""
    problems = []
    try:
        _check_annotation(sequence)
    except UserError as error:
        problems.append(str(error))
    for i in range(len(sequence)):
        try:
            sequence.frames[i]
        except UserError as error:
            problems.append(str(error))
    return problems


def _check_annotation(sequence: Sequence) -> None:
    name, boxes_xywh, visible = f"{sequence.dataset}/{sequence.name}", sequence.boxes_xywh, sequence.visible
    if not len(sequence):
        raise UserError(f"{name} has no frames.")
    if len(boxes_xywh) not in (1, len(sequence)) or len(visible) != len(boxes_xywh):
        raise UserError(
            f"{name} has {len(sequence)} frames, {len(boxes_xywh)} boxes and {len(visible)} visibility flags."
        )
    good = np.isfinite(boxes_xywh).all(1) & (boxes_xywh[:, 2:] > 0).all(1)
    if (visible & ~good).any():
        frame = int(np.flatnonzero(visible & ~good)[0])
        raise UserError(f"{name} has box {boxes_xywh[frame].tolist()} on frame {frame}, where the target is visible.")


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


def _is_portable(encoded: bytes) -> bool:
    """Whether the bytes are JPEG or PNG."""
    return encoded.startswith((b"\xff\xd8", b"\x89PNG"))


def _encode(image: NDArray[np.uint8], quality: int) -> bytes:
    """RGB uint8 [H, W, 3] as JPEG."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def _in_processes(items: Dataset[_Item], numbers: list[int], workers: int) -> Iterable[_Item]:
    """The items of these numbers, in order, made by several processes (which end with this one, however it ends)."""
    workers = min(workers, len(numbers))
    return DataLoader(
        items,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=1 if workers else None,
        worker_init_fn=_start_worker,
        # Spawned: the caller may hold threads that a fork would break.
        multiprocessing_context="spawn" if workers else None,
    )


def _as_it_is(item: _Item) -> _Item:
    return item


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)


def _with_progress(
    results: Iterable[_Item], described: str, total: int, numbers: list[int], console: Console
) -> Iterator[_Item]:
    """Pass results on, showing a bar with the rate and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sequences, {task.fields[rate]} frames/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(described, total=total, completed=total - len(numbers), rate="-")
        frames = 0
        for result in results:
            yield result
            frames += result.frames
            elapsed = progress.tasks[0].elapsed or 0
            progress.update(task, advance=1, rate=f"{frames / elapsed:,.0f}" if elapsed else "-")
