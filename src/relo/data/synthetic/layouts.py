"""Synthetic sequences on disk as each dataset has them, with the oddities that its reader must know.

Where frames and annotations lie stands in the dataset's specification; here stands what is written there.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.sequences.datasets import DATASETS
from relo.data.sequences.specification import Boxes, Dataset, Place
from relo.data.synthetic.scene import Scene, SceneAnnotation
from relo.errors import UserError
from relo.files import atomic_write, reason, write_text

_JPEG_QUALITY = 85

Files = dict[str, str]  # the text of every file beside the frames, by its path as specifications give it


@dataclass(frozen=True)
class Layout:
    """What is written where a dataset's specification says.

    Attributes:
        names: the names of the first `count` sequences of a split.
        annotate: the files of a sequence.
        frame: the name of frame number `{}`.
        first: the number of the first frame.
        base: the folder in the root that a sequence's paths start from.
        finish: what belongs to the whole split, once all its sequences are there.
        splits: the splits that can be written, if not the dataset's.
        least_frames: of a sequence.
    """

    names: Callable[[str, int], list[str]]
    annotate: Callable[[Dataset, str, str, SceneAnnotation], Files]
    frame: str = "{:05d}.jpg"
    first: int = 1
    base: Callable[[str, str], str] = lambda split, name: ""
    finish: Callable[[Dataset, Path, str, list[str]], None] | None = None
    splits: tuple[str, ...] = ()
    least_frames: int = 1


class LayoutWriter:
    """Writes sequences under `root` as one split of a dataset.

    A sequence is there wholly or not at all: its folder gets its name when everything in it is written, last of all.
    """

    def __init__(self, layout: str, root: Path, split: str) -> None:
        """Nothing is written yet.

        Raises:
            UserError: the layout has no such split.
        """
        self._layout, self._dataset = layout, DATASETS[layout]
        splits = LAYOUTS[layout].splits or self._dataset.splits
        if split not in splits:
            raise UserError(f"Layout {layout} has split {' or '.join(splits)}, not {split!r}.")
        self.root = root
        self.split = split

    def require_frames(self, count: int) -> None:
        """Refuse sequences of `count` frames where the layout leaves out as many.

        Raises:
            UserError: the layout needs more.
        """
        least = LAYOUTS[self._layout].least_frames
        if count < least:
            raise UserError(f"Sequences in the layout {self._layout} have at least {least} frames, not {count}.")

    def sequence_names(self, count: int) -> list[str]:
        """The names of the first `count` sequences of the split."""
        return LAYOUTS[self._layout].names(self.split, count)

    def _place(self, name: str) -> Place:
        return Place(self.root / LAYOUTS[self._layout].base(self.split, name), {"name": name, "folder": name})

    def sequence_folder(self, name: str) -> Path:
        """The folder that is there when, and only when, the sequence is complete."""
        return self._place(name).path(self._dataset.folder)

    def is_complete(self, name: str) -> bool:
        """Whether the sequence was written before."""
        return self.sequence_folder(name).is_dir()

    def write(self, name: str, scene: Scene) -> None:
        """Render and write one sequence.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        layout, place, folder = LAYOUTS[self._layout], self._place(name), self.sequence_folder(name)
        with self._done_by_another(name), atomic_write(folder, synced=False) as partial:  # it can be rendered again
            frames = partial / place.path(self._dataset.frames[0]).relative_to(folder)
            frames.mkdir(parents=True)
            visible_ratio = []
            for index, (image, ratio) in enumerate(scene.render(), start=layout.first):
                (frames / layout.frame.format(index)).write_bytes(_encode(image))
                visible_ratio.append(ratio)
            annotation = scene.annotate(np.array(visible_ratio))
            for template, text in layout.annotate(self._dataset, self.split, name, annotation).items():
                path = place.path(template)
                if path.is_relative_to(folder):
                    inside = partial / path.relative_to(folder)
                    inside.parent.mkdir(parents=True, exist_ok=True)
                    inside.write_text(text)
                else:
                    write_text(path, text)

    @contextmanager
    def _done_by_another(self, name: str) -> Iterator[None]:
        """Let it pass that a sequence cannot be written where another process has written the same one meanwhile."""
        try:
            yield
        except UserError:
            if not self.is_complete(name):
                raise

    def finish(self, names: list[str]) -> None:
        """Write what belongs to the whole split, once all its sequences are there."""
        if (finish := LAYOUTS[self._layout].finish) is not None:
            finish(self._dataset, self.root, self.split, names)


def _encode(image: NDArray[np.uint8]) -> bytes:
    """RGB uint8 [H, W, 3] as JPEG."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()


def _rows(boxes_xywh: Boxes, delimiter: str = ",", number: str = "%.2f") -> str:
    row = delimiter.join([number] * 4)
    return "".join(f"{row % tuple(box)}\n" for box in boxes_xywh.tolist())


def _column(flags: Iterable[object]) -> str:
    return "".join(f"{int(flag)}\n" for flag in flags)  # type: ignore[call-overload]


def _table(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def _numbered(start: str) -> Callable[[str, int], list[str]]:
    return lambda split, count: [f"{start}{i + 1}" for i in range(count)]


def _of_classes(*classes: str) -> Callable[[str, int], list[str]]:
    """`<class>-<n>`: train sequences have odd numbers, test sequences even ones."""

    def names(split: str, count: int) -> list[str]:
        first = 1 if split == "train" else 2
        return [f"{classes[i % len(classes)]}-{2 * (i // len(classes)) + first}" for i in range(count)]

    return names


def _class_of(split: str, name: str) -> str:
    return name.rpartition("-")[0]


def _write_list(dataset: Dataset, root: Path, split: str, names: list[str]) -> None:
    """The split's list, which stands in for the official one; like it, without a last newline."""
    write_text(root / dataset.lists[split], "\n".join(names))


def _boxes_alone(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    """No flags: hidden targets keep their box. In some test sets, the first box only."""
    boxes_xywh = truth.boxes_xywh[:1] if split in dataset.first_box_only else truth.boxes_xywh
    return {dataset.boxes[0]: _rows(boxes_xywh, "\t" if dataset.name == "nfs_pytracking" else ",")}


def _lasot(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    """Half of the absent frames keep a box, as in LaSOT, whose numbers are whole; here they have decimals."""
    occlusion_file, out_of_view_file = dataset.absent
    outside = np.asarray((truth.boxes_xywh[:, 2:] <= 0).any(1))
    absent = ~truth.visible
    unboxed = absent & (np.arange(len(absent)) % 2 == 1)
    return {
        dataset.boxes[0]: _rows(np.where(unboxed[:, None], 0.0, truth.boxes_xywh)),
        occlusion_file: ",".join(str(int(flag)) for flag in absent & ~outside),
        out_of_view_file: ",".join(str(int(flag)) for flag in outside),
        dataset.sentence: f"{_class_of(split, name)} moving among other things\n",
    }


def _vasttrack(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    """Absent boxes as zeros, and a sentence for most."""
    files = {dataset.boxes[0]: _rows(np.where(truth.visible[:, None], truth.boxes_xywh, 0.0))}
    return files if name.startswith("Crossbody") else {**files, dataset.sentence: "a thing among things\n"}


def _got10k(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    """Absent boxes as -1 or as zeros; test has its first box only, and nothing beside it."""
    if split in dataset.first_box_only:
        return {dataset.boxes[0]: _rows(truth.boxes_xywh[:1], number="%.4f")}
    absence_file, cover_file = dataset.absent
    absent = ~truth.visible
    boxes_xywh = truth.boxes_xywh.copy()
    boxes_xywh[absent] = 0
    boxes_xywh[absent & (np.arange(len(absent)) % 2 == 1)] = -1
    # 0 for nothing to be seen, 8 for all, seven steps of 15 % between
    cover = np.minimum(np.ceil(truth.visible_ratio / 0.15), 7)
    cover[truth.visible_ratio >= 1] = 8
    return {
        dataset.boxes[0]: _rows(boxes_xywh, number="%.4f"),
        absence_file: _column(absent),
        cover_file: _column(np.where(truth.visible, cover, 0)),
        "{name}/cut_by_image.label": _column(truth.cut_by_image),
        "{name}/meta_info.ini": (
            f"[METAINFO]\nurl: \nbegin: 00:00:00\nend: 00:00:{len(absent) // 10:02d}\nanno_fps: 10Hz\n"
            "object_class: badge\nmotion_class: sliding\nmajor_class: object\nroot_class: artifact\n"
            f"motion_adverb: smoothly\nresolution: {truth.image_size}\n"
        ),
    }


def _got10k_list(dataset: Dataset, root: Path, split: str, names: list[str]) -> None:
    write_text(root / split / "list.txt", "".join(f"{name}\n" for name in names))


def _trackingnet_names(split: str, count: int) -> list[str]:
    """Like video identifiers; every fifth starts with a dash."""
    return [f"{'-' if i % 5 == 0 else 'v'}{split[:2]}{i:06d}_0" for i in range(count)]


def _trackingnet_part(split: str, name: str) -> str:
    return "TEST" if split == "test" else f"TRAIN_{int(name.rpartition('_')[0][-6:]) % 12}"


def _trackingnet_folders(dataset: Dataset, root: Path, split: str, names: list[str]) -> None:
    """All twelve training folders, even where few sequences leave some empty."""
    for number in range(12 if split == "train" else 0):
        (root / f"TRAIN_{number}" / "anno").mkdir(parents=True, exist_ok=True)


def _plain(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    return {dataset.boxes[0]: _rows(truth.boxes_xywh), dataset.absent[0]: _column(~truth.visible)}


def _tnl2k(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    """Absent boxes as zeros; every third sequence lacks the last box."""
    boxes_xywh = np.where(truth.visible[:, None], truth.boxes_xywh, 0.0)
    boxes_xywh = boxes_xywh[:-1] if int(name[5:]) % 3 == 0 else boxes_xywh
    return {dataset.boxes[0]: _rows(boxes_xywh), dataset.sentence: "the badge that moves"}


def _nfs(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    """A row for every 240 fps frame, which between two 30 fps frames repeats the first; at times a frame too many."""
    lines = []
    count = len(truth.visible)
    for row in range(8 * (count + 1 if name.endswith("2") else count) - 7):
        index = min(row // 8, count - 1)
        x, y, w, h = truth.boxes_xywh[index]
        lost = int(not truth.visible[index])
        lines.append(f'0 {x:.2f} {y:.2f} {x + w:.2f} {y + h:.2f} {row} {lost} 0 {int(row % 8 > 0)} "badge"\n')
    return {dataset.boxes[0]: "".join(lines)}


def _uav123(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    """NaN for absent targets; every second folder holds two sequences, which share a frame."""
    boxes_xywh = np.where(truth.visible[:, None], truth.boxes_xywh, np.nan)
    parts = {name: boxes_xywh}
    if int(name[5:]) % 2 == 0:
        seen = np.flatnonzero(truth.visible)
        shared = int(seen[np.abs(seen - len(boxes_xywh) // 2).argmin()])  # a sequence must start with its target
        parts = {f"{name}_1": boxes_xywh[: shared + 1], f"{name}_2": boxes_xywh[shared:]}
    return {dataset.boxes[0].format(name=part): _rows(part_xywh) for part, part_xywh in parts.items()}


@contextmanager
def _damaged(sequence: Path) -> Iterator[None]:
    """Say what to delete where a file of a sequence that was written before is missing."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be read ({reason(error)}); delete {sequence}, and run again to regenerate it."
        ) from error


def _uav123_table(dataset: Dataset, root: Path, split: str, names: list[str]) -> None:
    """The table of ranges, which stands in for the benchmark's own."""
    table = [("sequence", "folder", "first", "last")]
    for folder in names:
        last = 1
        for part in (folder,) if int(folder[5:]) % 2 == 1 else (f"{folder}_1", f"{folder}_2"):
            with _damaged(root / dataset.folder.format(folder=folder)):
                text = (root / dataset.boxes[0].format(name=part)).read_text()
            first, last = last, last - 1 + len(text.splitlines())
            table.append((part, folder, str(first), str(last)))
    _table(root / dataset.own_table, table)


def _otb100(dataset: Dataset, split: str, name: str, truth: SceneAnnotation) -> Files:
    """Any delimiter. Of every four sequences the first is whole; the second is annotated from image 6 on, as David is.

    The third is annotated from image 1 and scored from 6, as Tiger1; the fourth ends three images early, as Football1.
    """
    number = int(name[5:])
    boxes_xywh = truth.boxes_xywh[5 if number % 4 == 2 else 0 : -3 if number % 4 == 0 else None]
    return {"{name}/groundtruth_rect.txt": _rows(boxes_xywh, (",", "\t", " ")[number % 3])}


def _otb100_table(dataset: Dataset, root: Path, split: str, names: list[str]) -> None:
    """The table of frames that count, which stands in for the benchmark's own."""
    table = [("sequence", "folder", "annotation", "first", "last")]
    for name in names:
        with _damaged(root / name):
            images = len(list((root / name / "img").iterdir()))
        kind = int(name[5:]) % 4
        first, last = (6 if kind in (2, 3) else 1), (str(images - 3) if kind == 0 else str(images))
        table.append((name, name, "groundtruth_rect.txt", str(first), "" if kind == 1 else last))
    _table(root / dataset.own_table, table)


LAYOUTS = {
    "lasot": Layout(
        _of_classes("badge", "lantern", "marble", "tile"), _lasot, "{:08d}.jpg", base=_class_of, finish=_write_list
    ),
    "got10k": Layout(
        lambda split, count: [f"GOT-10k_{split.capitalize()}_{i + 1:06d}" for i in range(count)],
        _got10k,
        "{:08d}.jpg",
        base=lambda split, name: split,
        finish=_got10k_list,
    ),
    "trackingnet": Layout(
        _trackingnet_names, _boxes_alone, "{}.jpg", first=0, base=_trackingnet_part, finish=_trackingnet_folders
    ),
    "vasttrack": Layout(
        _of_classes("Crossbody Backpack", "T-shirt", "Kite"), _vasttrack, base=_class_of, finish=_write_list
    ),
    "lasot_extension": Layout(
        lambda split, count: [f"{('cone', 'lid')[i % 2]}-{i // 2 + 1}" for i in range(count)],
        _lasot,
        "{:08d}.jpg",
        base=_class_of,
    ),
    "tnl2k": Layout(_numbered("Badge"), _tnl2k, "frame_{:06d}_raw.jpg", first=0, splits=("train", "test")),
    "nfs": Layout(_numbered("badge_"), _nfs),
    "nfs_pytracking": Layout(_numbered("badge_"), _boxes_alone),
    "nfs_released": Layout(_numbered("badge_"), _boxes_alone),
    "uav123": Layout(_numbered("badge"), _uav123, "{:06d}.jpg", finish=_uav123_table),
    "uav123_10fps": Layout(_numbered("badge"), _uav123, "{:06d}.jpg", finish=_uav123_table),
    "otb100": Layout(_numbered("Badge"), _otb100, finish=_otb100_table, least_frames=6),
    "dtb70": Layout(_numbered("Badge"), _boxes_alone),
    "plain": Layout(_numbered("Badge"), _plain, splits=("train", "val", "test")),
}
"""The layouts that can be written, by the dataset's name."""
