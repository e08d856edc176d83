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
    """Everything known of one dataset. Paths are templates: `{name}` stands for the sequence.

    Attributes:
        name: its name in every command, config and file.
        title: its name in reports and messages.
        aliases: other names, which are accepted everywhere; case and separators do not count.
        parts: names of parts of it, by which it is scored but not read.
        variant_of: the dataset that this is another form of, with the same sequences, results and scores.
        variants: a reader's option, and the dataset that each value of it stands for.
        splits: the splits that it comes in, the one to read by default first.
        other_splits: further ones, which overlap with those.
        traces: what shows that a split is meant to be there, where each has a folder of its own.
        marks: what in a folder shows that it is this dataset; the first dataset in `datasets` that fits counts.
        reader: the reader, where sequences are no folders of frames.
        listing: which sequences a split has, and where: a function of the dataset, its root, the split and options.
        shown_by: parts of a folder of which any shows that it is a sequence.
        lists: the file in the root that names a split's sequences, by split.
        official: the official names of a split, where no such file has to be there.
        table: the packaged table of sequences and ranges of frames.
        own_table: the file in the root that stands in for it.
        every: n, where only each n-th of the frames that it counts is there.
        frames: the folder of the frames, first choice first.
        first_frame: the number of the first; None where images are taken in the order of their names.
        ignored_images: images among them that are no frames.
        boxes: the annotation, first choice first.
        read: its boxes_xywh [N, 4] and the frames that it marks as absent [N].
        first_box_only: the splits of which only the first frame's box is public.
        fit: holds boxes against frames: both as far as they belong together, and remarks.
        counted_from_image_1: some annotations start at image 1, before the first frame that counts.
        zero_based: whether boxes count pixels from 0, not from 1.
        absent: files of flags, 1 for frames without the target; a file called `cover` has 0 for them.
        absent_if_there: these files may be missing.
        scored_absent: those that count in scoring, if not all do.
        sentence: the file that describes the target in words.
        facts: what else is known of a sequence.
        rule: the rule that scores it; empty for what is no benchmark.
        scored_in: the folders in the root of which the first that is there holds what is scored.
        nested: how many folders may lie around the sequences' own.
        names_start: what all sequences' names start with.
        prefixes: what some toolkits put before a sequence's name in result files.
        result_names: spellings of sequences in result files that follow no rule.
        flags_may_be_longer: flags beyond the last box are ignored, as its toolkit does.
        submission: what its server wants.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    variant_of: str | None = None
    variants: tuple[str, Mapping[object, str]] = ("", {})
    splits: tuple[str, ...] = ("test",)
    other_splits: tuple[str, ...] = ()
    traces: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    reader: Callable[..., SequenceReader] | None = None
    listing: Callable[..., Listing] | None = None
    shown_by: tuple[str, ...] = ()
    lists: Mapping[str, str] = field(default_factory=dict)
    official: Callable[[str], list[str]] | None = None
    table: str | None = None
    own_table: str = "sequences.csv"
    every: int = 1
    frames: tuple[str, ...] = ("{name}/img",)
    first_frame: int | None = 1
    ignored_images: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ("{name}/groundtruth.txt",)
    read: Callable[[Path], tuple[Boxes, Flags | None]] = rows_of_boxes
    first_box_only: tuple[str, ...] = ()
    fit: Callable[[Path, Boxes, ImageFiles], tuple[Boxes, ImageFiles, tuple[str, ...]]] | None = None
    counted_from_image_1: bool = False
    zero_based: bool = True
    absent: tuple[str, ...] = ()
    absent_if_there: bool = False
    scored_absent: tuple[str, ...] = ()
    sentence: str = ""
    facts: Callable[[Place], Facts] = no_facts
    rule: str = ""
    scored_in: tuple[str, ...] = ("",)
    nested: int = 0
    names_start: str = ""
    prefixes: tuple[str, ...] = ()
    result_names: Mapping[str, str] = field(default_factory=dict)
    flags_may_be_longer: bool = False
    submission: Submission | None = None

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
