"""Files of what was tracked, in the formats of other tools; the name's ending says which.

    .txt    x,y,w,h of each frame in a line, as `read_boxes` reads it; of several targets, a file each
    .jsonl  an object for each frame, in a line: everything that is known of each target
    .csv    MOTChallenge's results: frame,id,left,top,width,height,confidence,-1,-1,-1
    .json   COCO video: what annotation tools import

Boxes have four decimals, in pixels from the image's corner; in MOTChallenge's form, whose first pixel is 1, a corner is
larger by 1. Targets are numbered from 1, frames by their place in the source: from 0, in MOTChallenge's form from 1.

A lost target's box is where it was last believed. Text repeats it and JSON lines say `"status": "lost"`; MOTChallenge's
form and COCO leave it out: there, each box is one that was seen. Confidence is the presence where the network says so,
else the score.
"""

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from relo.errors import UserError
from relo.files import atomic_write, reader_of, unwritable
from relo.tracking.boxes_file import box_line
from relo.tracking.frame_result import FrameResult
from relo.tracking.sources import Frames
from relo.tracking.state import TargetState

Write = Callable[[FrameResult], None]


def open_output(path: Path, frames: Frames, targets: int) -> AbstractContextManager[Write]:
    """What writes the results of a source's frames to a file; see this module for the formats.

    A frame's lines reach the disk when it is written; COCO's file is written when the block ends, however it ends. A
    name without an ending, such as a device's, is taken for text.

    Args:
        path: folders above it are made; a file is replaced.
        frames: the source.
        targets: their number.

    Raises:
        UserError: no format has this ending; or, from the context, the file cannot be written: the lines before are
            complete.
    """
    ending = path.suffix.lower()
    if ending in (".txt", ""):
        return _text(output_paths(path, targets))
    if ending == ".jsonl":
        return line_output(path, _json_line)
    if ending == ".csv":
        return line_output(path, _mot_lines)
    if ending == ".json":
        return _coco(path, frames, targets)
    raise UserError(f"Cannot write boxes as {path.name}; end the name in .txt, .jsonl, .csv or .json.")


def output_paths(path: Path, targets: int) -> list[Path]:
    """The files that `open_output` writes: of text of several targets `name_1.txt`, `name_2.txt`, ..., else the one."""
    if targets == 1 or path.suffix.lower() not in (".txt", ""):
        return [path]
    return [path.with_name(f"{path.stem}_{number}{path.suffix}") for number in range(1, targets + 1)]


class LineFile:
    """A text file of which every line that was written is complete and on the disk; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open a file anew; folders above it are made.

        Raises:
            UserError: it cannot be written.
        """
        self.path = path
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with reader_of(path):
                self._file = path.open("wb", buffering=0)
        self._size = 0

    def write(self, lines: str) -> None:
        """Append lines, with their ends.

        Raises:
            UserError: they cannot be written, and are left out as a whole.
        """
        rest = memoryview(lines.encode())
        try:
            with _writing(self.path):
                while rest:
                    rest = rest[self._file.write(rest) :]
        except BaseException:
            with suppress(OSError):  # a pipe has no size
                self._file.truncate(self._size)
            raise
        self._size += len(lines.encode())

    def __enter__(self) -> "LineFile":
        return self

    def __exit__(self, *error: object) -> None:
        with _writing(self.path):
            self._file.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def _text(paths: Sequence[Path]) -> Iterator[Write]:
    with ExitStack() as stack:
        files = [stack.enter_context(LineFile(path)) for path in paths]

        def write(result: FrameResult) -> None:
            for file, target in zip(files, result.targets, strict=True):
                file.write(f"{box_line(target.box_xywh.tolist())}\n")

        yield write


@contextmanager
def line_output(path: Path, lines_of: Callable[[FrameResult], str]) -> Iterator[Write]:
    """What writes a frame's lines, with their ends, to a file; they reach the disk when they are written."""
    with LineFile(path) as file:
        yield lambda result: file.write(lines_of(result))


def _json_line(result: FrameResult) -> str:
    targets = [
        {
            "id": number,
            "box_xywh": [round(value, 4) for value in target.box_xywh.tolist()],
            "score": round(target.score, 6),
            "presence": None if target.presence is None else round(target.presence, 6),
            "status": target.status,
        }
        for number, target in enumerate(result.targets, 1)
    ]
    return json.dumps({"frame": result.index, "seconds": round(result.seconds, 6), "targets": targets}) + "\n"


def _mot_lines(result: FrameResult) -> str:
    return "".join(
        f"{result.index + 1},{number},{box_line([x + 1, y + 1, w, h])},{_confidence(target):.6f},-1,-1,-1\n"
        for number, target in _seen(result)
        for x, y, w, h in [target.box_xywh.tolist()]
    )


def _seen(result: FrameResult) -> Iterator[tuple[int, TargetState]]:
    """The targets that are not lost, with their numbers."""
    return ((number, target) for number, target in enumerate(result.targets, 1) if target.status != "lost")


def _confidence(target: TargetState) -> float:
    return target.score if target.presence is None else target.presence


@contextmanager
def _coco(path: Path, frames: Frames, targets: int) -> Iterator[Write]:
    # Numbers, not objects: hours of video take a few megabytes.
    images, annotations = array("q"), array("d")
    interruption: BaseException | None = None

    def write(result: FrameResult) -> None:
        images.extend([result.index, result.image.shape[1], result.image.shape[0]])
        for number, target in _seen(result):
            annotations.extend([result.index, number, *target.box_xywh.tolist(), _confidence(target)])

    with atomic_write(path) as partial, partial.open("w") as file:
        try:
            yield write
        except BaseException as error:  # what was found until then is kept
            interruption = error
        file.writelines(_coco_parts(frames, targets, images, annotations))
    if interruption is not None:
        raise interruption


def _coco_parts(frames: Frames, targets: int, images: "array[int]", annotations: "array[float]") -> Iterator[str]:
    """The text of a COCO video file, in parts: MMTracking's CocoVID with the names that TAO has for the same.

    Args:
        frames: the source.
        targets: their number.
        images: index, width and height of each frame.
        annotations: frame's index, target's number, x, y, w, h and confidence of each box.
    """
    sizes = np.array(images).reshape(-1, 3)
    boxes = np.array(annotations).reshape(-1, 7)
    name = os.path.basename(os.path.normpath(frames.name))
    video = {"id": 1, "name": name, "fps": frames.frames_per_second}
    if len(sizes):
        video |= {"width": int(sizes[0, 1]), "height": int(sizes[0, 2])}
    yield f'{{"info": {json.dumps({"description": f"Tracked by relo in {name}"})},\n"licenses": [],\n'
    yield f'"videos": [{json.dumps(video)}],\n"categories": [{json.dumps({"id": 1, "name": "target"})}],\n'
    tracks = [{"id": number, "video_id": 1, "category_id": 1} for number in range(1, targets + 1)]
    yield from _json_list("tracks", tracks)
    yield ",\n"
    yield from _json_list(
        "images",
        (
            {
                "id": index + 1,
                "video_id": 1,
                "frame_id": index,
                "frame_index": index,
                "file_name": frames.files[index - frames.start] if frames.files else f"{index:08d}.jpg",
                "width": width,
                "height": height,
            }
            for index, width, height in map(np.ndarray.tolist, sizes)
        ),
    )
    yield ",\n"
    yield from _json_list(
        "annotations",
        (
            {
                "id": place,
                "image_id": int(index) + 1,
                "video_id": 1,
                "category_id": 1,
                "instance_id": int(number),
                "track_id": int(number),
                "bbox": [round(value, 4) for value in box_xywh],
                "area": round(box_xywh[2] * box_xywh[3], 4),
                "iscrowd": 0,
                "score": round(score, 6),
            }
            for place, (index, number, *box_xywh, score) in enumerate(map(np.ndarray.tolist, boxes), 1)
        ),
    )
    yield "}\n"


def _json_list(name: str, entries: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """A list as a JSON object's member, an entry a line."""
    yield f'"{name}": ['
    for place, entry in enumerate(entries):
        yield f"{',' if place else ''}\n{json.dumps(entry)}"
    yield "\n]"
