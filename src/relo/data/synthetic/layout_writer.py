"""How a synthetic sequence gets on disk: what every layout shares."""

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

    dataset: str
    splits: tuple[str, ...]

    def __init__(self, root: Path, split: str) -> None:
        if split not in self.splits:
            raise UserError(f"Layout {self.dataset} has split {' or '.join(self.splits)}, not {split!r}.")
        self.root = root
        self.split = split

    @abstractmethod
    def sequence_names(self, count: int) -> list[str]:
        """The names of the first `count` sequences of the split."""

    @abstractmethod
    def sequence_folder(self, name: str) -> Path:
        """The folder that is there when, and only when, the sequence is complete."""

    @abstractmethod
    def frame_path(self, name: str, index: int) -> str:
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
            (partial / self.frame_path(name, 0)).parent.mkdir(parents=True)
            visible_ratio = []
            for index, (image, ratio) in enumerate(scene.render()):
                (partial / self.frame_path(name, index)).write_bytes(_encode(image))
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


def _encode(image: NDArray[np.uint8]) -> bytes:
    """RGB uint8 [H, W, 3] as JPEG."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()


def rows(boxes_xywh: NDArray[np.float64], delimiter: str, number: str) -> str:
    """One line a box [N, 4]."""
    row = delimiter.join([number] * 4)
    return "".join(f"{row % tuple(box)}\n" for box in boxes_xywh.tolist())


def flag_line(flags: NDArray[np.bool_]) -> str:
    """Flags [N] in one line."""
    return ",".join(str(int(flag)) for flag in flags)


def flag_column(flags: NDArray[np.bool_] | NDArray[np.int64]) -> str:
    """Flags or levels [N], one a line."""
    return "".join(f"{int(flag)}\n" for flag in flags)
