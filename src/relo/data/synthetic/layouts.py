"""Writers of the training sets' layouts, with the oddities that their readers must know."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relo.data.synthetic.layout_writer import LayoutWriter, flag_column, flag_line, rows
from relo.data.synthetic.scene import SceneAnnotation


class LaSOTWriter(LayoutWriter):
    """LaSOT: a folder a class, flags in one comma-separated line, list files that lack their last newline.

    Half of the absent frames keep a box, as there; numbers have two decimals, where LaSOT has whole ones.
    """

    dataset = "lasot"
    splits: tuple[str, ...] = ("train", "test")
    _classes: tuple[str, ...] = ("badge", "lantern", "marble", "tile")

    def sequence_names(self, count: int) -> list[str]:
        """Train sequences have odd numbers, test sequences even ones."""
        classes, first = self._classes, 1 if self.split == "train" else 2
        return [f"{classes[i % len(classes)]}-{2 * (i // len(classes)) + first}" for i in range(count)]

    def sequence_folder(self, name: str) -> Path:
        """`<class>/<class>-<n>`."""
        return self.root / name.rpartition("-")[0] / name

    def frame_path(self, name: str, index: int) -> str:
        """`img/`, from 1, eight digits."""
        return f"img/{index + 1:08d}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes, the two absence flags and a sentence."""
        outside = np.asarray((annotation.boxes_xywh[:, 2:] <= 0).any(1))
        absent = np.logical_not(annotation.visible)
        unboxed = absent & (np.arange(len(absent)) % 2 == 1)
        boxes_xywh = np.where(unboxed[:, None], 0.0, annotation.boxes_xywh)
        return {
            Path("groundtruth.txt"): rows(boxes_xywh, ",", "%.2f"),
            Path("full_occlusion.txt"): flag_line(absent & np.logical_not(outside)),
            Path("out_of_view.txt"): flag_line(outside),
            Path("nlp.txt"): f"{name.rpartition('-')[0]} moving among other things\n",
        }

    def finish(self, names: list[str]) -> None:
        """The split's list, which stands in for the official one."""
        (self.root / f"{self.split}ing_set.txt").write_text("\n".join(names))


class GOT10kWriter(LayoutWriter):
    """GOT-10k: labels one a line, absent boxes coded as -1 or as zeros, test with its first box only."""

    dataset = "got10k"
    splits = ("train", "val", "test")

    def sequence_names(self, count: int) -> list[str]:
        """`GOT-10k_Train_000001` and on."""
        return [f"GOT-10k_{self.split.capitalize()}_{i + 1:06d}" for i in range(count)]

    def sequence_folder(self, name: str) -> Path:
        """`<split>/<name>`."""
        return self.root / self.split / name

    def frame_path(self, name: str, index: int) -> str:
        """From 1, eight digits."""
        return f"{index + 1:08d}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes and, but for test, labels of absence, cover and border, and facts about the sequence."""
        if self.split == "test":
            return {Path("groundtruth.txt"): rows(annotation.boxes_xywh[:1], ",", "%.4f")}
        absent = np.logical_not(annotation.visible)
        boxes_xywh = annotation.boxes_xywh.copy()
        boxes_xywh[absent] = 0
        boxes_xywh[absent & (np.arange(len(absent)) % 2 == 1)] = -1
        return {
            Path("groundtruth.txt"): rows(boxes_xywh, ",", "%.4f"),
            Path("absence.label"): flag_column(absent),
            Path("cover.label"): flag_column(_cover(annotation)),
            Path("cut_by_image.label"): flag_column(annotation.cut_by_image),
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

    dataset = "trackingnet"
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

    def frame_path(self, name: str, index: int) -> str:
        """From 0, not padded."""
        return f"{index}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """`anno/<name>.txt`; hidden targets keep their box, as there are no flags."""
        boxes_xywh = annotation.boxes_xywh[:1] if self.split == "test" else annotation.boxes_xywh
        path = (self._folder(name) / "anno" / f"{name}.txt").absolute()
        return {path: rows(boxes_xywh, ",", "%.2f")}

    def finish(self, names: list[str]) -> None:
        """All twelve training folders, even where few sequences leave some empty."""
        if self.split == "train":
            for number in range(self._folders):
                (self.root / f"TRAIN_{number}" / "anno").mkdir(parents=True, exist_ok=True)


def _cover(annotation: SceneAnnotation) -> NDArray[np.int64]:
    """GOT-10k's levels [N] of what can be seen: 0 for nothing, 8 for all, seven steps of 15 % between."""
    levels = np.minimum(np.ceil(annotation.visible_ratio / 0.15), 7)
    levels[annotation.visible_ratio >= 1] = 8
    return np.where(annotation.visible, levels, 0).astype(np.int64)
