"""What a dataset reader gives: a list-like object of sequences whose frames are decoded when asked for."""

import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.image_headers import (
    START_OF_SCAN,
    announced_pixels,
    has_one_bit,
    is_known_kind,
    scans_of_jpeg,
    without_animation,
)
from relo.errors import UserError
from relo.inputs import read_bounded

# A damaged header can ask for gigabytes. Even a black frame takes a byte for 512 pixels as JPEG, for 1032 as PNG, and
# for 8256 as a PNG of 1 bit, as masks may be.
_HARMLESS_PIXELS, _PIXELS_PER_BYTE, _MOST_PIXELS = 1 << 24, 1 << 12, 1 << 27
_MOST_SCANS, _SCAN_MARK = 500, bytes([0xFF, START_OF_SCAN])  # of a JPEG; encoders write a dozen
_ONE_BIT_PIXELS_PER_BYTE = 1 << 14  # of a PNG of one bit

LARGEST_IMAGE = 1 << 29
"""Of an image file, in bytes; of 8 bits, the most pixels that are read take 403 MB if not compressed."""


def decode_frame(encoded: bytes, name: str, flags: int = cv2.IMREAD_COLOR_RGB) -> NDArray[np.uint8]:
    """Decode an image file's bytes to RGB uint8 [H, W, 3]; `name` says in the error which frame is broken.

    Other `flags` of `cv2.imdecode` give what they stand for.

    Raises:
        UserError: the bytes are not a readable image, or their header announces more pixels than are read: 134 million,
            and beyond 16 million no more than so many bytes can hold.
    """
    require_possible_size(encoded, name)
    buffer = np.frombuffer(without_animation(encoded), np.uint8)
    try:
        image = cv2.imdecode(buffer, flags) if buffer.size else None
    except cv2.error:  # of a size beyond OpenCV's bound, in a damaged header
        image = None
    if image is None:
        raise UserError(f"{name} is not a readable image ({len(encoded)} bytes); copy or extract it again.")
    return np.asarray(image)


def require_possible_size(encoded: bytes, name: str) -> None:
    """Refuse an image whose header announces more pixels than `decode_frame` reads, before memory or time is taken.

    Raises:
        UserError: the header announces too many, the image is spread over more scans than any encoder writes, or it is
            of a kind whose header is not read.
    """
    if not is_known_kind(encoded):
        raise UserError(
            f"{name} is not a readable image ({len(encoded)} bytes, neither JPEG, PNG, BMP, WebP nor TIFF); copy or "
            "extract it again."
        )
    width, height = announced_pixels(encoded) or (0, 0)
    per_byte = _ONE_BIT_PIXELS_PER_BYTE if has_one_bit(encoded) else _PIXELS_PER_BYTE
    most = min(max(_HARMLESS_PIXELS, per_byte * len(encoded)), _MOST_PIXELS)
    if width * height > most:
        size = f"{len(encoded)} bytes that announce {width} x {height} px, where at most {most} px are read"
        raise UserError(f"{name} is not a readable image ({size}); copy or extract it again.")
    # Their marks are counted in no time, but may be bytes of something else, such as a video behind the picture.
    if encoded.count(_SCAN_MARK) > _MOST_SCANS and (scans := scans_of_jpeg(encoded)) > _MOST_SCANS:
        raise UserError(f"{name} is not a readable image ({scans} scans, where at most {_MOST_SCANS} are read).")


class FrameSource(ABC):
    """The frames of one sequence, lazily; small to pickle."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of frames."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call frame `index` (0-based) in an error: its path, or store and key."""

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The file's bytes (JPEG or PNG) of frame `index`, not decoded."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as RGB uint8 [H, W, 3]."""
        return decode_frame(self.encoded(index), self.name(index))


@dataclass(frozen=True)
class ImageFiles(FrameSource):
    """Frames that are one image file each: `folder / names[i]`."""

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The path of frame `index`."""
        return str(self.folder / self.names[index])

    def encoded(self, index: int) -> bytes:
        """The bytes of the file of frame `index`."""
        path = self.folder / self.names[index]
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
                raise UserError(f"Frame {path} is not a regular file; copy or extract it again.")
            return read_bounded(path, LARGEST_IMAGE)
        except OSError as error:
            raise UserError(f"Frame {self.name(index)} cannot be read ({error.strerror}).") from error


@dataclass(frozen=True)
class Sequence:
    """One annotated video of one target.

    Attributes:
        name: the sequence's name in its dataset.
        dataset: the dataset's name, such as `lasot`.
        frames: the frames, decoded on demand.
        boxes_xywh: float64 [N, 4], image pixels, as annotated. N is the number of frames, or 1 where only the first box
            is public.
        visible: bool [N], the target can be seen, by the dataset's own rule.
        class_name: the target's class, where the dataset names it.
        sentence: the target's description in words, where the dataset has one.
        attributes: further facts by name, such as a benchmark's challenge attributes.
        remarks: what a person should know of this sequence though it can be used, one sentence each, such as an
            optional file that was left out.
    """

    name: str
    dataset: str
    frames: FrameSource
    boxes_xywh: NDArray[np.float64]
    visible: NDArray[np.bool_]
    class_name: str | None = None
    sentence: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)


class SequenceReader(ABC):
    """A split of a dataset as a list of sequences: `len(reader)`, `reader[i]`, iteration.

    How to add a dataset is said in `datasets`: most need no reader of their own.

    A reader is cheap to build (it lists names and checks that the root looks right), picklable, and reads annotations
    when a sequence is asked for.

    Raises (from the constructor and from `__getitem__`):
        UserError: the root or a file of it is missing or broken; the message names the file, and the line where there
            is one.

    Attributes:
        dataset: the dataset's name.
        listed: whether a list says which sequences there are: what else lies in the folder then lacks nothing.
    """

    dataset: str
    listed: bool = False

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The sequences' names, in order."""

    @property
    def unused(self) -> list[str]:
        """What lies in the folder, looks like a sequence or a part of one and is not read; one sentence each."""
        return []

    @abstractmethod
    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index` (0-based)."""

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sequence]:
        return (self[index] for index in range(len(self)))
