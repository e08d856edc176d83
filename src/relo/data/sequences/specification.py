"""The form in which everything known of a dataset is written down; `datasets` holds one of each."""

import unicodedata
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
    """The boxes of an annotation with one x, y, w, h per line, which says nothing of the target's absence."""
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

    `{name}` in a path is the sequence, `{run}` the number of the repetition. The test set has so many
    `sequences`, which `numbered` names by their number from 1, where they have one.
    """

    boxes: str
    number: str
    sequences: int
    times: str | None = None
    numbered: str = ""

    def official_names(self) -> list[str]:
        """The names of the test set's sequences; none where they do not follow from their numbers."""
        return [self.numbered.format(number) for number in range(1, self.sequences + 1)] if self.numbered else []


@dataclass(frozen=True)
class Dataset:
    """Everything known of one dataset.

    Paths are templates relative to the folder that sequences lie in: `{name}` stands for the sequence, and other fields
    for the columns of its row in the table.

    Attributes:
        name: its name on the command line, in configs and in files.
        title: its name in reports and messages.
        aliases: other names of it.
        parts: names of parts of it, which are scored as the whole, but not read.
        variant_of: the dataset of which this is another form, with its sequences and scores.
        variants: an option of the reader, and the form that each value of it stands for.

        splits: the splits that it comes in, first the one that is read by default.
        other_splits: splits that overlap with these.
        marks: patterns in a root, any of which shows that it is this dataset.
        traces: by split, the pattern that shows that the split is meant to be there, where each has a folder.
        listing: the sequences of a split and where they lie: a function of this, the root, the split and options.
        shown_by: files and folders, any of which shows that a folder is a sequence.
        nested: how many folders may lie around those of the sequences.
        lists: by split, the file in the root that names its sequences.
        official: the names of a split's sequences, where there is no such file.
        table: the packaged table of sequences and their ranges of frames.
        own_table: the file in the root that stands in for the table.
        every: n, where only each n-th of the frames that the table counts is there.
        reader: what reads it, where sequences are no folders of frames.

        frames: folders of a sequence's frames, of which the first that is there counts.
        first_frame: the number of the first frame; None where frames are taken in the order of their names.
        ignored_images: images in that folder that are no frames.

        boxes: files of a sequence's boxes, of which the first that is there counts.
        read: how such a file is read: boxes_xywh [N, 4], and which frames it marks as lost [N], if it does.
        fit: how boxes and frames are cut to those that belong together, with remarks; they are counted if not given.
        first_box_only: the splits of which only the first frame's box is public.
        counted_from_image_1: some files start at image 1, before the first frame that counts.
        boxes_may_be_longer: in scoring, boxes beyond the last frame are left out, where the frames are there.
        zero_based: pixels are counted from 0, not from 1.
        absent: files of flags, 1 for a frame without the target; one called `cover.label` has 0 for such a frame.
        absent_if_there: these files may be missing.
        sentence: the file that describes the target in words.
        facts: what else is known of a sequence.

        rule: the name of the scoring rule, where there is one.
        scored_in: folders in the root, of which the first that holds annotations is scored.
        scored_absent: those of the files of flags that count in scoring, if not all do.
        image_size: the width and height of a sequence's images, where the rule needs them; None where nothing says so.
        flags_may_be_longer: in scoring, flags beyond the last box are left out, as the benchmark's toolkit does.
        names_start: how the names of all sequences start.
        prefixes: what some toolkits write before the names of sequences in result files.
        result_names: names in result files that differ from the sequence's in yet other ways, and the sequence's.

        submission: what its server wants.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    variant_of: str | None = None
    variants: tuple[str, Mapping[object, str]] = ("", {})

    # Listing.
    splits: tuple[str, ...] = ("test",)
    other_splits: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    traces: Mapping[str, str] = field(default_factory=dict)
    listing: Callable[..., Listing] | None = None
    shown_by: tuple[str, ...] = ()
    nested: int = 0
    lists: Mapping[str, str] = field(default_factory=dict)
    official: Callable[[str], list[str]] | None = None
    table: str | None = None
    own_table: str = "sequences.csv"
    every: int = 1
    reader: Callable[..., SequenceReader] | None = None

    # Frames.
    frames: tuple[str, ...] = ("{name}/img",)
    first_frame: int | None = 1
    ignored_images: tuple[str, ...] = ()

    # Boxes, and what else is annotated.
    boxes: tuple[str, ...] = ("{name}/groundtruth.txt",)
    read: Callable[[Path], tuple[Boxes, Flags | None]] = rows_of_boxes
    fit: Callable[[Path, Boxes, ImageFiles], tuple[Boxes, ImageFiles, tuple[str, ...]]] | None = None
    first_box_only: tuple[str, ...] = ()
    counted_from_image_1: bool = False
    boxes_may_be_longer: bool = False
    zero_based: bool = True
    absent: tuple[str, ...] = ()
    absent_if_there: bool = False
    sentence: str = ""
    facts: Callable[[Place], Facts] = no_facts

    # Scoring.
    rule: str = ""
    scored_in: tuple[str, ...] = ("",)
    scored_absent: tuple[str, ...] = ()
    image_size: Callable[[Place], tuple[int, int] | None] | None = None
    flags_may_be_longer: bool = False
    names_start: str = ""
    prefixes: tuple[str, ...] = ()
    result_names: Mapping[str, str] = field(default_factory=dict)

    # Submission.
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
    """A name without its case, and with every run of separators as one underscore: `Jogging(2)` is `jogging_2`.

    Letters and numbers of any script stay, with their accents; a name without any stays as it is.
    """
    folded = unicodedata.normalize("NFC", name).casefold()
    kept = (sign if sign.isalnum() or unicodedata.category(sign)[0] == "M" else " " for sign in folded)
    return "_".join("".join(kept).split()) or name
