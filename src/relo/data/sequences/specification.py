"""The form in which everything known of a dataset is written down; `datasets` holds one of each."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relo.data.sequences.base import ImageFiles, SequenceReader
from relo.data.sequences.parsing import is_given, read_boxes

Boxes = NDArray[np.float64]  # [N, 4]
Flags = NDArray[np.bool_]  # [N]


@dataclass(frozen=True)
class Place:
    """Where one sequence lies: the folder that its paths start from, what fills them in, and which frames count.

    Frames are numbered, from `first` on; they are taken in the order of their names where that is None.
    """

    base: Path
    fields: Mapping[str, str]
    first: int | None = 1
    last: int | None = None

    def path(self, *templates: str) -> Path:
        """The first of some paths that is there; the last if none is."""
        paths = [self.base / template.format(**self.fields) for template in templates]
        return next(filter(is_given, paths[:-1]), paths[-1])


@dataclass(frozen=True)
class Listing:
    """The sequences of one split.

    Attributes:
        places: where each lies, by name in order.
        searched: the folder to look through for what is not read.
        known: where all lie that are read, in this split or another.
        unread_because: why what looks like a sequence there may be none that is read.
        is_list: whether a list says which sequences there are: what else lies in the folder then lacks nothing.
        skipped: folders that are not looked through.
    """

    places: Mapping[str, Place]
    searched: Path
    known: Mapping[str, Place]
    unread_because: str
    is_list: bool = False
    skipped: tuple[Path, ...] = ()


def rows_of_boxes(file: Path) -> tuple[Boxes, Flags | None]:
    """The boxes of an annotation with one x, y, w, h a line, which says nothing of the target's absence."""
    return read_boxes(file), None


@dataclass(frozen=True)
class Facts:
    """What is known of a sequence beside boxes and flags; see `Sequence`."""

    class_name: str | None = None
    attributes: Mapping[str, object] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def no_facts(place: Place) -> Facts:
    """Nothing is known but boxes and flags."""
    return Facts()


def class_in_name(place: Place) -> Facts:
    """Sequences are called `<class>-<n>`; classes may have spaces and dashes."""
    return Facts(place.fields["name"].rpartition("-")[0])


@dataclass(frozen=True)
class Submission:
    """What a server wants: the paths in its zip, numbers as it takes them, and seconds per frame if `times` is given.

    `{name}` in a path is the sequence, `{run}` the number of the repetition.
    """

    boxes: str
    number: str
    times: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Everything known of one dataset. Paths are templates: `{name}` stands for the sequence."""

    # What it is called, on the command line, in configs and files, and in reports and messages. Case and separators of
    # aliases do not count; parts are scored by its name, but not read. Another form of a dataset has its sequences and
    # scores; `variants` are an option of the reader, and the form that each value of it stands for.
    name: str
    title: str
    aliases: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    variant_of: str | None = None
    variants: tuple[str, Mapping[object, str]] = ("", {})

    # The splits that it comes in, the one to read by default first, and those that overlap with them.
    splits: tuple[str, ...] = ("test",)
    other_splits: tuple[str, ...] = ()

    # What in a folder shows that it is this dataset; and which split is meant to be there, where each has a folder.
    marks: tuple[str, ...] = ()
    traces: Mapping[str, str] = field(default_factory=dict)

    # Which sequences a split has, and where: a function of this, the root, the split and options; and what it looks at.
    listing: Callable[..., Listing] | None = None
    shown_by: tuple[str, ...] = ()  # what shows that a folder is a sequence
    nested: int = 0  # how many folders may lie around the sequences'
    lists: Mapping[str, str] = field(default_factory=dict)  # the files in the root that name the splits' sequences
    official: Callable[[str], list[str]] | None = None  # the names of a split, where there is no such file
    table: str | None = None  # the packaged table of sequences and ranges of frames
    own_table: str = "sequences.csv"  # the file in the root that stands in for it
    every: int = 1  # n, where only each n-th of the frames that the table counts is there
    reader: Callable[..., SequenceReader] | None = None  # where sequences are no folders of frames

    # Frames: their folder, first choice first, and the number of the first; None for those in the order of their names.
    frames: tuple[str, ...] = ("{name}/img",)
    first_frame: int | None = 1
    ignored_images: tuple[str, ...] = ()

    # Boxes: their file, first choice first; how it is read, to boxes_xywh [N, 4] and the frames marked as lost [N]; and
    # how boxes are held against frames, to both as far as they belong together and remarks, if not simply counted.
    boxes: tuple[str, ...] = ("{name}/groundtruth.txt",)
    read: Callable[[Path], tuple[Boxes, Flags | None]] = rows_of_boxes
    fit: Callable[[Path, Boxes, ImageFiles], tuple[Boxes, ImageFiles, tuple[str, ...]]] | None = None
    first_box_only: tuple[str, ...] = ()  # the splits of which only the first frame's box is public
    counted_from_image_1: bool = False  # some files start at image 1, before the first frame that counts
    zero_based: bool = True  # pixels are counted from 0, not from 1

    # Files of flags, 1 for frames without the target (a file called `cover` has 0 for them), and those of them that
    # count in scoring, if not all do.
    absent: tuple[str, ...] = ()
    absent_if_there: bool = False  # they may be missing
    scored_absent: tuple[str, ...] = ()
    flags_may_be_longer: bool = False  # flags beyond the last box are ignored in scoring, as its toolkit does

    # What else is known of a sequence: its description in words, and further facts.
    sentence: str = ""
    facts: Callable[[Place], Facts] = no_facts

    # Scoring: the rule, where there is one; the folders in the root, of which the first that holds annotations counts;
    # how sequences' names start; and how they are written in result files, by some toolkits or for no reason.
    rule: str = ""
    scored_in: tuple[str, ...] = ("",)
    names_start: str = ""
    prefixes: tuple[str, ...] = ()
    result_names: Mapping[str, str] = field(default_factory=dict)
    submission: Submission | None = None  # what its server wants

    @property
    def folder(self) -> str:
        """A sequence's own folder: the path of its frames, up to the first part that differs between sequences."""
        parts = self.frames[0].split("/")
        shared = next(number for number, part in enumerate(parts) if "{" in part)
        return "/".join(parts[: shared + 1])

    @property
    def test_split(self) -> str:
        """The split to test on: `test`, or the first of a dataset without one."""
        return "test" if "test" in (*self.splits, *self.other_splits) else self.splits[0]

    def place(self, base: Path, name: str) -> Place:
        """A sequence whose paths start from `base`, and whose frames all count."""
        return Place(base, {"name": name}, self.first_frame)


def canonical_name(name: str) -> str:
    """A name without its case, and with every run of separators as one underscore: `Jogging(2)` is `jogging_2`."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
