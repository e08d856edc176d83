"""Need for Speed at 30 frames a second (Kiani Galoogahi et al., ICCV 2017), in the three forms that go round.

- `original`: `<seq>/30/<seq>/00001.jpg` on and `<seq>/30/<seq>.txt` by VATIC, a row for each of the 240 fps frames:
number, corners x1
  y1 x2 y2, frame, lost, occluded, generated, "label". Every eighth row is a 30 fps frame.
- `pytracking`: `sequences/<seq>/00001.jpg` on and `anno/nfs_<seq>.txt` (x, y, w, h; tabs).
- `released`, as OSTrack and RELO read it: the original's images and `<seq>/30/<seq>_pytracking.txt` (x,y,w,h).

Frames and boxes may differ by one: the longer is cut.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relo.data.sequences.base import ImageFiles, Sequence
from relo.data.sequences.folders import FolderReader, require_folder, require_split, subfolders, unused_annotations
from relo.data.sequences.frame_files import frames_folder, numbered_frames
from relo.data.sequences.parsing import check_count, is_given, positive_size, read_boxes, read_text
from relo.errors import UserError

_FRAMES_PER_ANNOTATION = 8
_SOUND_FRAMES = {"pingpong_2": 263}  # what follows in the original annotation belongs to no image


class NFS(FolderReader):
    """The 100 sequences of NFS at 30 fps, all for testing.

    Args:
        root: the folder that holds the sequences (`original`, `released`), or `sequences` and `anno` (`pytracking`).
        split: `test`.
        variant: `original`, `pytracking` or `released` (see the module).

    Raises:
        UserError: there is no such root, split or variant, or no sequence in it.
    """

    dataset = "nfs"
    unused_because = "it does not lie in a folder `30`, as frames at 30 per second do"

    def __init__(self, root: str | Path, split: str = "test", *, variant: str = "original") -> None:
        folder = require_folder(root, "NFS")
        require_split(split, ("test",), "NFS")
        if variant not in ("original", "pytracking", "released"):
            raise UserError(f"NFS has no variant {variant!r}; there is original, pytracking, released.")
        self.variant = variant
        self._annotations = folder / "anno"  # of variant pytracking
        if variant == "pytracking":
            folder = require_folder(folder / "sequences", "NFS")
            names = subfolders(folder)
        else:
            names = [name for name in subfolders(folder) if is_given(folder / name / "30")]
        super().__init__(folder, names)

    @property
    def unused(self) -> list[str]:
        """Folders and, where they lie apart, annotations that are not read."""
        if self.variant != "pytracking":
            return super().unused
        return super().unused + unused_annotations(self._annotations, {f"nfs_{name}.txt" for name in self.names})

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `pingpong_2`."""
        lost: NDArray[np.bool_] | None = None
        if self.variant == "pytracking":
            images, annotation = self.root / name, self._annotations / f"nfs_{name}.txt"
            boxes_xywh = read_boxes(annotation)
        elif self.variant == "released":
            images, annotation = self.root / name / "30" / name, self.root / name / "30" / f"{name}_pytracking.txt"
            boxes_xywh = read_boxes(annotation)
        else:
            images, annotation = self.root / name / "30" / name, self.root / name / "30" / f"{name}.txt"
            boxes_xywh, lost = read_vatic(annotation)
        frames = numbered_frames(images, first=1)
        if abs(len(boxes_xywh) - len(frames)) > 1 and name not in _SOUND_FRAMES:
            check_count(annotation, len(boxes_xywh), len(frames), frames_folder(frames))
        length = min(len(boxes_xywh), len(frames))
        boxes_xywh = boxes_xywh[:length]
        visible = positive_size(boxes_xywh)
        if lost is not None:
            visible &= ~lost[:length]
        return Sequence(
            name=name,
            dataset=self.dataset,
            frames=ImageFiles(frames.folder, frames.names[:length]),
            boxes_xywh=boxes_xywh,
            visible=visible,
        )


def read_vatic(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The 30 fps rows of an original annotation: boxes_xywh [N, 4], and whether the target is lost [N].

    Raises:
        UserError: the file cannot be read, or a row is none of VATIC's; the message names the line.
    """
    numbers = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            numbers.append([float(cell) for cell in cells[1:7]])
        except ValueError:
            numbers.append([])
        if len(numbers[-1]) != 6:
            raise UserError(f"{path}, line {number}: no row of a VATIC annotation (number x1 y1 x2 y2 frame lost ...).")
    rows = np.array(numbers, np.float64).reshape(-1, 6)[::_FRAMES_PER_ANNOTATION]
    boxes_xywh = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1)
    sound = slice(_SOUND_FRAMES.get(path.stem))
    return boxes_xywh[sound], rows[sound, 5] == 1
