"""UAV123 (Mueller et al., ECCV 2016) at 30 and at 10 frames a second.

Layout: `data_seq/UAV123/<folder>/000001.jpg` on and `anno/UAV123/<sequence>.txt` (x,y,w,h); `UAV123_10fps` for the
slower one. The 123 sequences lie in 91 folders: those called `car1_1`, `car1_2`, `car1_3` are ranges of the folder
`car1`, and adjacent ones share a frame. A row of NaN says that the target is hidden or out of view.
"""

from collections.abc import Iterable
from pathlib import Path

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import (
    FolderReader,
    require_all,
    require_folder,
    require_split,
    subfolders,
    unused_annotations,
)
from relo.data.sequences.frame_files import frames_folder, numbered_frames
from relo.data.sequences.parsing import check_count, is_given, positive_size, read_boxes
from relo.data.sequences.tables import frame_range, read_table
from relo.errors import UserError

_EVERY = {30: 1, 10: 3}  # the 10 fps frames are every third of the 30 fps ones, from the first on


class UAV123(FolderReader):
    """The 123 sequences of UAV123, all for testing.

    A table `anno/<UAV123 or UAV123_10fps>/ranges.csv` (sequence, folder, first, last) stands in for the benchmark's
    own.

    Args:
        root: the folder that holds `data_seq` and `anno`.
        split: `test`.
        fps: 30, or 10 for UAV123@10fps.
        partial: read the sequences that are there, instead of refusing a root that lacks some.

    Raises:
        UserError: there is no such root, split or rate, or sequences are missing.
    """

    dataset = "uav123"
    listed = True
    unused_because = "the table of UAV123's ranges does not name it"

    def __init__(self, root: str | Path, split: str = "test", *, fps: int = 30, partial: bool = False) -> None:
        folder = require_folder(root, "UAV123")
        require_split(split, ("test",), "UAV123")
        if fps not in _EVERY:
            raise UserError(f"UAV123 comes at 30 or 10 frames a second, not {fps}.")
        variant = "UAV123" if fps == 30 else "UAV123_10fps"
        self.dataset = variant.lower()
        images = require_folder(folder / "data_seq" / variant, variant)
        self._annotations = folder / "anno" / variant
        own_table = self._annotations / "ranges.csv"
        self._rows = read_table("uav123.csv", own_table)
        self._every = 1 if is_given(own_table) else _EVERY[fps]
        folders = set(subfolders(images))
        present = [name for name, row in self._rows.items() if row["folder"] in folders]
        super().__init__(images, require_all(images, self._rows, present, split, partial))

    @property
    def unused(self) -> list[str]:
        """Folders and annotations that the table does not name."""
        return super().unused + unused_annotations(self._annotations, {f"{name}.txt" for name in self._rows})

    def sequence_folders(self) -> Iterable[Path]:
        """Those that the table names."""
        return (self.root / row["folder"] for row in self._rows.values())

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `person12_2`."""
        row = self._rows[name]
        first, last = frame_range(row, self._every)
        frames = numbered_frames(self.root / row["folder"], first, last)
        annotation = self._annotations / f"{name}.txt"
        boxes_xywh = read_boxes(annotation)
        check_count(annotation, len(boxes_xywh), len(frames), frames_folder(frames))
        return Sequence(
            name=name, dataset=self.dataset, frames=frames, boxes_xywh=boxes_xywh, visible=positive_size(boxes_xywh)
        )
