"""Writers: a synthetic sequence on disk as each dataset lays it out, with the oddities that its reader must know."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic.scene import Scene, SceneAnnotation
from relo.errors import UserError

_JPEG_QUALITY = 85


class LayoutWriter(ABC):
    """Writes sequences under `root` as one split of a dataset.

    A sequence is there wholly or not at all: its folder gets its name when everything in it is written, last of all.
    """

    splits: tuple[str, ...]

    def __init__(self, root: Path, split: str) -> None:
        if split not in self.splits:
            raise UserError(f"{type(self).__name__} writes split {' or '.join(self.splits)}, not {split!r}.")
        self.root = root
        self.split = split

    @abstractmethod
    def sequence_names(self, count: int) -> list[str]:
        """The names of the first `count` sequences of the split."""

    @abstractmethod
    def sequence_folder(self, name: str) -> Path:
        """The folder that is there when, and only when, the sequence is complete."""

    @abstractmethod
    def frame_path(self, index: int) -> str:
        """The path of frame `index` (0-based) inside the sequence's folder."""

    @abstractmethod
    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """The text of every file beside the frames, by path; relative paths are inside the sequence's folder."""

    def finish(self, names: list[str]) -> None:  # noqa: B027 (most layouts have nothing to add)
        """Write what belongs to the whole split, once all its sequences are there."""

    def is_complete(self, name: str) -> bool:
        """Whether the sequence was written before."""
        return self.sequence_folder(name).is_dir()

    def write(self, name: str, scene: Scene, on_frame: Callable[[], None] = lambda: None) -> None:
        """Render and write one sequence; `on_frame` is called after each frame.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        folder = self.sequence_folder(name)
        partial = folder.with_name(f".{folder.name}.partial")
        try:
            if partial.exists():
                shutil.rmtree(partial)
            (partial / self.frame_path(0)).parent.mkdir(parents=True)
            visible_ratio = []
            for index, (image, ratio) in enumerate(scene.render()):
                (partial / self.frame_path(index)).write_bytes(_encode(image))
                visible_ratio.append(ratio)
                on_frame()
            annotation = scene.annotate(np.array(visible_ratio))
            for path, text in self.annotation_files(name, annotation).items():
                target = partial / path  # an absolute path stands for itself
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
            partial.rename(folder)
        except OSError as error:
            raise UserError(f"Sequence {folder} cannot be written ({error.strerror}).") from error


class LaSOTWriter(LayoutWriter):
    """LaSOT: a folder a class, flags in one comma-separated line, list files that lack their last newline.

    Half of the absent frames keep a box, as there; numbers have two decimals, where LaSOT has whole ones.
    """

    splits = ("train", "test")
    _classes = ("badge", "lantern", "marble", "tile")

    def sequence_names(self, count: int) -> list[str]:
        """Train sequences have odd numbers, test sequences even ones."""
        classes, first = self._classes, 1 if self.split == "train" else 2
        return [f"{classes[i % len(classes)]}-{2 * (i // len(classes)) + first}" for i in range(count)]

    def sequence_folder(self, name: str) -> Path:
        """`<class>/<class>-<n>`."""
        return self.root / name.rpartition("-")[0] / name

    def frame_path(self, index: int) -> str:
        """`img/`, from 1, eight digits."""
        return f"img/{index + 1:08d}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes, the two absence flags and a sentence."""
        outside = np.asarray((annotation.boxes_xywh[:, 2:] <= 0).any(1))
        absent = np.logical_not(annotation.visible)
        unboxed = absent & (np.arange(len(absent)) % 2 == 1)
        boxes_xywh = np.where(unboxed[:, None], 0.0, annotation.boxes_xywh)
        return {
            Path("groundtruth.txt"): _rows(boxes_xywh, ",", "%.2f"),
            Path("full_occlusion.txt"): _flag_line(absent & np.logical_not(outside)),
            Path("out_of_view.txt"): _flag_line(outside),
            Path("nlp.txt"): f"{name.rpartition('-')[0]} moving among other things\n",
        }

    def finish(self, names: list[str]) -> None:
        """The split's list, which stands in for the official one."""
        (self.root / f"{self.split}ing_set.txt").write_text("\n".join(names))


class GOT10kWriter(LayoutWriter):
    """GOT-10k: labels one a line, absent boxes coded as -1 or as zeros, test with its first box only."""

    splits = ("train", "val", "test")

    def sequence_names(self, count: int) -> list[str]:
        """`GOT-10k_Train_000001` and on."""
        return [f"GOT-10k_{self.split.capitalize()}_{i + 1:06d}" for i in range(count)]

    def sequence_folder(self, name: str) -> Path:
        """`<split>/<name>`."""
        return self.root / self.split / name

    def frame_path(self, index: int) -> str:
        """From 1, eight digits."""
        return f"{index + 1:08d}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes and, but for test, labels of absence, cover and border, and facts about the sequence."""
        if self.split == "test":
            return {Path("groundtruth.txt"): _rows(annotation.boxes_xywh[:1], ",", "%.4f")}
        absent = np.logical_not(annotation.visible)
        boxes_xywh = annotation.boxes_xywh.copy()
        boxes_xywh[absent] = 0
        boxes_xywh[absent & (np.arange(len(absent)) % 2 == 1)] = -1
        return {
            Path("groundtruth.txt"): _rows(boxes_xywh, ",", "%.4f"),
            Path("absence.label"): _flag_column(absent),
            Path("cover.label"): _flag_column(_cover(annotation)),
            Path("cut_by_image.label"): _flag_column(annotation.cut_by_image),
            Path("meta_info.ini"): (
                f"[METAINFO]\nurl: \nbegin: 00:00:00\nend: 00:00:{len(absent) // 10:02d}\nanno_fps: 10Hz\n"
                "object_class: badge\nmotion_class: sliding\nmajor_class: object\nroot_class: artifact\n"
                f"motion_adverb: smoothly\nresolution: {annotation.image_size}\n"
            ),
        }

    def finish(self, names: list[str]) -> None:
        """`list.txt`."""
        (self.root / self.split / "list.txt").write_text("".join(f"{name}\n" for name in names))


class TrackingNetWriter(LayoutWriter):
    """TrackingNet: frames from 0 without padding, names that start with a dash, test with its first box only."""

    splits = ("train", "test")
    _folders = 12

    def sequence_names(self, count: int) -> list[str]:
        """Like video identifiers; every fifth starts with a dash."""
        return [f"{'-' if i % 5 == 0 else 'v'}{self.split[:2]}{i:06d}_0" for i in range(count)]

    def _folder(self, name: str) -> Path:
        number = int(name.rpartition("_")[0][-6:])
        return self.root / ("TEST" if self.split == "test" else f"TRAIN_{number % self._folders}")

    def sequence_folder(self, name: str) -> Path:
        """`TRAIN_<k>/frames/<name>` or `TEST/frames/<name>`."""
        return self._folder(name) / "frames" / name

    def frame_path(self, index: int) -> str:
        """From 0, not padded."""
        return f"{index}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """`anno/<name>.txt`; hidden targets keep their box, as there are no flags."""
        boxes_xywh = annotation.boxes_xywh[:1] if self.split == "test" else annotation.boxes_xywh
        path = (self._folder(name) / "anno" / f"{name}.txt").absolute()
        return {path: _rows(boxes_xywh, ",", "%.2f")}

    def finish(self, names: list[str]) -> None:
        """All twelve training folders, even where few sequences leave some empty."""
        if self.split == "train":
            for number in range(self._folders):
                (self.root / f"TRAIN_{number}" / "anno").mkdir(parents=True, exist_ok=True)


WRITERS: dict[str, type[LayoutWriter]] = {
    "lasot": LaSOTWriter,
    "got10k": GOT10kWriter,
    "trackingnet": TrackingNetWriter,
}


def _encode(image: NDArray[np.uint8]) -> bytes:
    """RGB uint8 [H, W, 3] as JPEG."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()


def _rows(boxes_xywh: NDArray[np.float64], delimiter: str, number: str) -> str:
    """One line a box [N, 4]."""
    row = delimiter.join([number] * 4)
    return "".join(f"{row % tuple(box)}\n" for box in boxes_xywh.tolist())


def _flag_line(flags: NDArray[np.bool_]) -> str:
    """Flags [N] in one line."""
    return ",".join(str(int(flag)) for flag in flags)


def _flag_column(flags: NDArray[np.bool_] | NDArray[np.int64]) -> str:
    """Flags or levels [N], one a line."""
    return "".join(f"{int(flag)}\n" for flag in flags)


def _cover(annotation: SceneAnnotation) -> NDArray[np.int64]:
    """GOT-10k's levels [N] of what can be seen: 0 for nothing, 8 for all, seven steps of 15 % between."""
    levels = np.minimum(np.ceil(annotation.visible_ratio / 0.15), 7)
    levels[annotation.visible_ratio >= 1] = 8
    return np.where(annotation.visible, levels, 0).astype(np.int64)
