"""What a clip store says of itself: which sequences it holds, and how their frames were packed."""

import json
from collections.abc import Mapping
from collections.abc import Sequence as AnySequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from relo.data.store_tables import Names
from relo.errors import UserError, excerpt
from relo.settings import check_arguments, check_number, check_whole

FORMAT = "relo clip store"
VERSION = 1
_LARGEST_CUT, _LARGEST_SIDE = 1000, 65500  # times the target; pixels, of a JPEG


@dataclass(frozen=True)
class PackingOptions:
    """How frames are packed.

    Attributes:
        cut: side of the surroundings of the target that are kept, as a multiple of sqrt(w h); None keeps whole images.
        max_side: longest side of a packed frame in pixels; larger ones are scaled down. None keeps their size.
        quality: JPEG quality (1 to 100) of frames that are cut or scaled; the others keep their bytes.

    Raises:
        UserError: a value out of its range.
    """

    cut: float | None = None
    max_side: int | None = None
    quality: int = 90

    def __post_init__(self) -> None:
        if self.cut is not None:
            check_number("Packing", 1, _LARGEST_CUT, cut=self.cut)
        if self.max_side is not None:
            check_whole("Packing", 16, _LARGEST_SIDE, max_side=self.max_side)
        check_whole("Packing", 1, 100, quality=self.quality)

    @property
    def changes_frames(self) -> bool:
        """Whether frames may be cut or scaled, so that they have a geometry."""
        return self.cut is not None or self.max_side is not None


@dataclass(frozen=True)
class Manifest:
    """What a store says of itself.

    Attributes:
        dataset: the dataset's name.
        split: the split's name.
        options: how frames are packed.
        names: the sequences, in order.
        reader_options: how the dataset was read, where not by default.
        broken: sequences that were left out, by name with the reason.
        complete: whether packing was finished.
    """

    dataset: str
    split: str
    options: PackingOptions
    names: AnySequence[str]
    reader_options: Mapping[str, Any] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    complete: bool = False

    def encode(self) -> bytes:
        """The manifest as JSON."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self), "names": list(self.names)}).encode()

    @staticmethod
    def decode(encoded: bytes, path: Path) -> "Manifest":
        """The manifest in JSON bytes of the store at `path`.

        Raises:
            UserError: the bytes are no manifest, or one of another version.
        """
        try:
            content = json.loads(encoded)
            if content.pop("format") != FORMAT:
                raise ValueError
            version = content.pop("version")
            if version == VERSION:
                options = PackingOptions(**content.pop("options"))
                names = Names(content.pop("names"))
                check_arguments(Manifest, content, "The manifest")
                return Manifest(names=names, options=options, **content)
        except (UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{path} is an LMDB but no clip store; make one with `relo data pack`.") from None
        raise UserError(
            f"{path} is a clip store of version {excerpt(version)}, and this is relo for version {VERSION}: "
            "pack it again."
        )
