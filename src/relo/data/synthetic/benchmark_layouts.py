"""Writers of the evaluation benchmarks' layouts, with the oddities that their readers must know."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from relo.data.synthetic.layout_writer import LayoutWriter, rows
from relo.data.synthetic.layouts import LaSOTWriter
from relo.data.synthetic.scene import SceneAnnotation


class LaSOTExtensionWriter(LaSOTWriter):
    """LaSOT's extension: other classes, test only, no list."""

    dataset = "lasot_extension"
    splits = ("test",)
    _classes = ("cone", "lid")

    def sequence_names(self, count: int) -> list[str]:
        """`<class>-1` and on."""
        return [f"{self._classes[i % 2]}-{i // 2 + 1}" for i in range(count)]

    def finish(self, names: list[str]) -> None:
        """Nothing: the folders are the list."""


class _OneFolderEach(LayoutWriter):
    """Sequences in folders of their own names, right under the root."""

    splits: tuple[str, ...] = ("test",)

    def sequence_names(self, count: int) -> list[str]:
        """`Badge1` and on."""
        return [f"Badge{i + 1}" for i in range(count)]

    def sequence_folder(self, name: str) -> Path:
        """`<name>`."""
        return self.root / name

    def frame_path(self, name: str, index: int) -> str:
        """`img/`, from 1, five digits."""
        return f"img/{index + 1:05d}.jpg"


class PlainFolderWriter(_OneFolderEach):
    """The plain folders, with their optional flags."""

    dataset = "plain"
    splits = ("train", "val", "test")

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes, and which frames lack the target."""
        return {
            Path("groundtruth.txt"): rows(annotation.boxes_xywh, ",", "%.2f"),
            Path("absent.txt"): "".join(f"{int(not seen)}\n" for seen in annotation.visible),
        }


class DTB70Writer(_OneFolderEach):
    """DTB70: no flags; hidden targets keep their box."""

    dataset = "dtb70"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes."""
        return {Path("groundtruth_rect.txt"): rows(annotation.boxes_xywh, ",", "%.2f")}


class OTB100Writer(_OneFolderEach):
    """OTB-100: any delimiter, images before and after what is annotated or scored, and a table that tells of it.

    Of every four sequences the first is whole; the second is annotated from image 6 on, as David is from 300; the third
    is annotated from image 1 and scored from 6, as Tiger1; the fourth ends three images early, as Football1.
    """

    dataset = "otb100"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes, comma, tab or space between them."""
        number = int(name[5:])
        boxes_xywh = annotation.boxes_xywh[5 if number % 4 == 2 else 0 : -3 if number % 4 == 0 else None]
        return {Path("groundtruth_rect.txt"): rows(boxes_xywh, (",", "\t", " ")[number % 3], "%.2f")}

    def finish(self, names: list[str]) -> None:
        """The table, which stands in for the benchmark's own."""
        table = [("sequence", "folder", "annotation", "first", "last")]
        for name in names:
            images = len(list((self.root / name / "img").iterdir()))
            kind = int(name[5:]) % 4
            first, last = (6 if kind in (2, 3) else 1), (str(images - 3) if kind == 0 else str(images))
            table.append((name, name, "groundtruth_rect.txt", str(first), "" if kind == 1 else last))
        (self.root / "sequences.csv").write_text(_csv(table))


class TNL2KWriter(_OneFolderEach):
    """TNL2K: images named differently from sequence to sequence, absent boxes as zeros, at times a row too few."""

    dataset = "tnl2k"
    splits = ("train", "test")

    def frame_path(self, name: str, index: int) -> str:
        """`imgs/`, with a name that is no number."""
        return f"imgs/frame_{index:06d}_raw.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes and a sentence; every third sequence lacks the last box."""
        boxes_xywh = np.where(annotation.visible[:, None], annotation.boxes_xywh, 0.0)
        boxes_xywh = boxes_xywh[:-1] if int(name[5:]) % 3 == 0 else boxes_xywh
        return {
            Path("groundtruth.txt"): rows(boxes_xywh, ",", "%.2f"),
            Path("language.txt"): "the badge that moves",
        }


class VastTrackWriter(LayoutWriter):
    """VastTrack: class names with spaces and dashes, absent boxes as zeros, a capital in `Groundtruth.txt`."""

    dataset = "vasttrack"
    splits = ("train", "test")
    _classes = ("Crossbody Backpack", "T-shirt", "Kite")

    def sequence_names(self, count: int) -> list[str]:
        """Train sequences have odd numbers, test sequences even ones."""
        classes, first = self._classes, 1 if self.split == "train" else 2
        return [f"{classes[i % len(classes)]}-{2 * (i // len(classes)) + first}" for i in range(count)]

    def sequence_folder(self, name: str) -> Path:
        """`<class>/<class>-<n>`."""
        return self.root / name.rpartition("-")[0] / name

    def frame_path(self, name: str, index: int) -> str:
        """`imgs/`, from 1, five digits."""
        return f"imgs/{index + 1:05d}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes, and a sentence for most."""
        boxes_xywh = np.where(annotation.visible[:, None], annotation.boxes_xywh, 0.0)
        files = {Path("Groundtruth.txt"): rows(boxes_xywh, ",", "%.2f")}
        if not name.startswith("Crossbody"):
            files[Path("nlp.txt")] = "a thing among things\n"
        return files

    def finish(self, names: list[str]) -> None:
        """The split's list, without a last newline."""
        (self.root / f"vasttrack_{self.split}_list.txt").write_text("\n".join(names))


class NFSWriter(LayoutWriter):
    """NFS as released by its authors: corners, at eight rows a frame, at times one frame too many."""

    dataset = "nfs"
    splits = ("test",)

    def sequence_names(self, count: int) -> list[str]:
        """`badge_1` and on."""
        return [f"badge_{i + 1}" for i in range(count)]

    def sequence_folder(self, name: str) -> Path:
        """`<name>`."""
        return self.root / name

    def frame_path(self, name: str, index: int) -> str:
        """`30/<name>/`, from 1, five digits."""
        return f"30/{name}/{index + 1:05d}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """A row for every 240 fps frame, which between two 30 fps frames repeats the first."""
        lines = []
        count = len(annotation.visible)
        for row in range(8 * (count + 1 if name.endswith("2") else count) - 7):
            index = min(row // 8, count - 1)
            x, y, w, h = annotation.boxes_xywh[index]
            lost = int(not annotation.visible[index])
            lines.append(f'0 {x:.2f} {y:.2f} {x + w:.2f} {y + h:.2f} {row} {lost} 0 {int(row % 8 > 0)} "badge"\n')
        return {Path(f"30/{name}.txt"): "".join(lines)}


class NFSReleasedWriter(NFSWriter):
    """NFS as OSTrack and RELO read it: the authors' folders, and boxes of their own."""

    dataset = "nfs_released"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """Boxes; hidden targets keep theirs."""
        return {Path(f"30/{name}_pytracking.txt"): rows(annotation.boxes_xywh, ",", "%.2f")}


class NFSPytrackingWriter(NFSWriter):
    """NFS as pytracking reads it: images and boxes apart, tabs."""

    dataset = "nfs_pytracking"

    def sequence_folder(self, name: str) -> Path:
        """`sequences/<name>`."""
        return self.root / "sequences" / name

    def frame_path(self, name: str, index: int) -> str:
        """From 1, five digits."""
        return f"{index + 1:05d}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """`anno/nfs_<name>.txt`; hidden targets keep their box."""
        path = (self.root / "anno" / f"nfs_{name}.txt").absolute()
        return {path: rows(annotation.boxes_xywh, "\t", "%.2f")}


class UAV123Writer(LayoutWriter):
    """UAV123: images and boxes apart, NaN for absent targets, and folders of two sequences which share a frame."""

    dataset = "uav123"
    splits = ("test",)
    _variant = "UAV123"

    def sequence_names(self, count: int) -> list[str]:
        """The folders `badge1` and on; every second holds two sequences."""
        return [f"badge{i + 1}" for i in range(count)]

    def sequence_folder(self, name: str) -> Path:
        """`data_seq/<variant>/<name>`."""
        return self.root / "data_seq" / self._variant / name

    def frame_path(self, name: str, index: int) -> str:
        """From 1, six digits."""
        return f"{index + 1:06d}.jpg"

    def annotation_files(self, name: str, annotation: SceneAnnotation) -> dict[Path, str]:
        """`anno/<variant>/<sequence>.txt` for each sequence of the folder."""
        boxes_xywh = np.where(annotation.visible[:, None], annotation.boxes_xywh, np.nan)
        parts = {name: boxes_xywh}
        if int(name[5:]) % 2 == 0:
            seen = np.flatnonzero(annotation.visible)
            shared = int(seen[np.abs(seen - len(boxes_xywh) // 2).argmin()])  # a sequence must start with its target
            parts = {f"{name}_1": boxes_xywh[: shared + 1], f"{name}_2": boxes_xywh[shared:]}
        return {
            (self._annotations / f"{part}.txt").absolute(): rows(part_xywh, ",", "%.2f")
            for part, part_xywh in parts.items()
        }

    @property
    def _annotations(self) -> Path:
        return self.root / "anno" / self._variant

    def finish(self, names: list[str]) -> None:
        """The table of ranges, which stands in for the benchmark's own."""
        table = [("sequence", "folder", "first", "last")]
        for folder in names:
            last = 1
            for part in (folder,) if int(folder[5:]) % 2 == 1 else (f"{folder}_1", f"{folder}_2"):
                first, last = last, last - 1 + len((self._annotations / f"{part}.txt").read_text().splitlines())
                table.append((part, folder, str(first), str(last)))
        (self._annotations / "ranges.csv").write_text(_csv(table))


class UAV123At10FpsWriter(UAV123Writer):
    """UAV123@10fps."""

    dataset = "uav123_10fps"
    _variant = "UAV123_10fps"


def _csv(table: Iterable[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()
