"""The reader of datasets whose sequences are folders of frames, as their specifications say; and how to open any."""

from inspect import signature
from pathlib import Path
from typing import Any

from relo.data.sequences.annotation import absent_frames, annotated_boxes, remarks_on_reach
from relo.data.sequences.base import Sequence, SequenceReader
from relo.data.sequences.datasets import find_dataset
from relo.data.sequences.frame_files import named_frames, numbered_frames
from relo.data.sequences.listings import require_folder, require_split, unread
from relo.data.sequences.parsing import check_count, positive_size, read_optional_text
from relo.data.sequences.specification import Dataset
from relo.errors import UserError, excerpt
from relo.settings import check_arguments


class FolderReader(SequenceReader):
    """A split of a dataset whose sequences are folders of frames.

    Attributes:
        root: the dataset's folder.
    """

    def __init__(
        self, dataset: Dataset, root: str | Path, split: str | None = None, *, zero_based: bool = False, **options: Any
    ) -> None:
        """List the sequences.

        Args:
            dataset: the dataset's specification.
            root: its folder.
            split: a split of it; the first by default.
            zero_based: subtract 1 from x and y of boxes that count pixels from 1; they stay as annotated otherwise, as
                in the benchmark's own scoring and in the released RELO.
            options: those of the dataset's listing.

        Raises:
            UserError: there is no such root or split, or sequences or lists are missing.
        """
        assert dataset.listing is not None
        self.root = require_folder(root, dataset.title)
        self.dataset = dataset.variant_of or dataset.name
        self._split = split or dataset.splits[0]
        require_split(self._split, (*dataset.splits, *dataset.other_splits), dataset.title)
        self._specification = dataset
        self._zero_based = zero_based
        self._listing = dataset.listing(dataset, self.root, self._split, **options)
        self.listed = self._listing.is_list
        self._names = list(self._listing.places)
        if not self._names:
            hint = next((f"; {sentence}" for sentence in self.unused), ".")
            raise UserError(f"{self._listing.searched} holds no sequence of this split of {self.dataset}{hint}")

    @property
    def names(self) -> list[str]:
        """The sequences' names, in order."""
        return self._names

    @property
    def unused(self) -> list[str]:
        """What under the root looks like a sequence, or cannot be looked at, and is not read."""
        return unread(self._specification, self.root, self._listing)

    def __getitem__(self, index: int) -> Sequence:
        """The sequence number `index` (0-based)."""
        return self.read(self._names[index])

    def read(self, name: str) -> Sequence:
        """The sequence called `name`.

        Raises:
            UserError: a file is missing or broken, or does not fit the frames.
        """
        dataset, place = self._specification, self._listing.places[name]
        folder = place.path(*dataset.frames)
        if place.first is None:
            frames = named_frames(folder, dataset.ignored_images)
        else:
            frames = numbered_frames(folder, place.first, place.last)
        annotation = place.path(*dataset.boxes)
        boxes_xywh, lost = annotated_boxes(dataset, annotation, place.fields)
        remarks: tuple[str, ...] = ()
        counted = f"frames in {frames.folder}"
        first_box_only = self._split in dataset.first_box_only
        if first_box_only:
            check_count(annotation, len(boxes_xywh), 1, "first frame")
        elif dataset.fit is not None:
            boxes_xywh, frames, remarks = dataset.fit(annotation, boxes_xywh, frames)
        else:
            check_count(annotation, len(boxes_xywh), len(frames), counted)
        visible = positive_size(boxes_xywh)
        if lost is not None:
            visible &= ~lost[: len(boxes_xywh)]
        flags = [] if first_box_only else [place.path(file) for file in dataset.absent]
        counted = counted if len(boxes_xywh) == len(frames) else f"boxes in {annotation}"
        absent = absent_frames(flags, len(boxes_xywh), counted, may_be_missing=dataset.absent_if_there)
        if absent is not None:
            visible &= ~absent
        if self._zero_based:
            boxes_xywh[:, :2] -= 1
        facts = dataset.facts(place)
        sentence, left_out = read_optional_text(place.path(dataset.sentence)) if dataset.sentence else ("", ())
        return Sequence(
            name=name,
            dataset=self.dataset,
            frames=frames,
            boxes_xywh=boxes_xywh,
            visible=visible,
            class_name=facts.class_name,
            sentence=sentence.strip() or None,
            attributes=facts.attributes,
            remarks=(*remarks, *remarks_on_reach(boxes_xywh, annotation), *left_out, *facts.remarks),
        )


def open_reader(dataset: str, root: str | Path, split: str | None = None, **options: Any) -> SequenceReader:
    """Open a split of a dataset, by name.

    Args:
        dataset: its name, or an alias (see `datasets`).
        root: its folder.
        split: a split of it; by default, the first that its specification names.
        options: further arguments of its listing or reader, such as `partial` or `skip_defective`.

    Raises:
        UserError: the dataset, split or option is unknown, or the root is missing or broken.
    """
    specification = find_dataset(dataset)
    option, variants = specification.variants
    if option in options:
        variant = options.pop(option)
        chosen = next((name for key, name in variants.items() if type(key) is type(variant) and key == variant), None)
        if chosen is None:
            known = ", ".join(map(str, variants))
            raise UserError(f"{specification.title} has no {option} {excerpt(variant)}; there is {known}.")
        specification = find_dataset(chosen)
    build = specification.reader or specification.listing
    assert build is not None
    known_options = [name for name in signature(build).parameters if name not in ("dataset", "root", "split")]
    if not specification.zero_based:
        known_options.insert(0, "zero_based")
    for name in options:
        if name not in known_options:
            there_is = ", ".join(["split", *known_options, *([option] if option else [])])
            raise UserError(f"{specification.title} has no option {excerpt(name)}; there is {there_is}.")
    if isinstance(options.get("list_file"), str):  # as JSON and YAML have paths
        options["list_file"] = Path(options["list_file"])
    called = f"The reader of {specification.title}"
    check_arguments(build, options, called)
    check_arguments(FolderReader, options, called)
    if specification.reader is not None:
        return specification.reader(root, split or specification.splits[0], **options)
    return FolderReader(specification, root, split, **options)
