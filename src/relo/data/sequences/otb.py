"""OTB-100 (Wu et al., TPAMI 2015) and DTB70 (Li and Yeung, AAAI 2017), which shares its layout.

Layout: `<folder>/img/0001.jpg` on (Board: five digits) and `<folder>/groundtruth_rect.txt` (x,y,w,h counted from 1),
delimited by commas, tabs or spaces from sequence to sequence.

OTB's own table says which frames count: David starts at image 300 and BlurCar1, 3 and 4 at 247, 3 and 18, where their
annotations start, too; Football1, Freeman3, Freeman4 and Diving end before their images do. Tiger1 is scored from image
6, but its annotation starts at image 1 (copies of 349 rows exist as well). Jogging and Skating2 hold two targets, each
a sequence; of Human4's two annotations the first is empty.
"""

from collections.abc import Iterable
from pathlib import Path

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import FolderReader, require_all, require_folder, require_split, subfolders
from relo.data.sequences.frame_files import frames_folder, numbered_frames
from relo.data.sequences.parsing import check_count, is_given, positive_size, read_boxes
from relo.data.sequences.tables import frame_range, read_table


class OTB100(FolderReader):
    """The 100 sequences of OTB-100, all for testing; boxes as annotated, counted from 1.

    A table `sequences.csv` in the root (sequence, folder, annotation, first, last) stands in for the benchmark's own.

    Args:
        root: the folder that holds the sequences' folders.
        split: `test`.
        partial: read the sequences that are there, instead of refusing a root that lacks some.

    Raises:
        UserError: there is no such root or split, or sequences are missing.
    """

    dataset = "otb100"
    listed = True
    unused_because = "the table of OTB-100's sequences does not name it"

    def __init__(self, root: str | Path, split: str = "test", *, partial: bool = False) -> None:
        folder = require_folder(root, "OTB-100")
        require_split(split, ("test",), "OTB-100")
        self._rows = read_table("otb100.csv", folder / "sequences.csv")
        folders = set(subfolders(folder))
        present = [name for name, row in self._rows.items() if row["folder"] in folders]
        super().__init__(folder, require_all(folder, self._rows, present, split, partial))

    def sequence_folders(self) -> Iterable[Path]:
        """Those that the table names."""
        return (self.root / row["folder"] for row in self._rows.values())

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `Jogging-2`."""
        row = self._rows[name]
        folder = self.root / row["folder"]
        first, last = frame_range(row)
        frames = numbered_frames(folder / "img", first, last)
        annotation = folder / row["annotation"]
        boxes_xywh = read_boxes(annotation)
        if last is not None and len(boxes_xywh) == last:  # annotated from image 1 on
            boxes_xywh = boxes_xywh[first - 1 :]
        check_count(annotation, len(boxes_xywh), len(frames), frames_folder(frames))
        return Sequence(
            name=name, dataset=self.dataset, frames=frames, boxes_xywh=boxes_xywh, visible=positive_size(boxes_xywh)
        )


class DTB70(FolderReader):
    """The 70 drone sequences of DTB70, all for testing; boxes as annotated.

    Args:
        root: the folder that holds the sequences' folders.
        split: `test`.

    Raises:
        UserError: there is no such root or split, or no sequence in it.
    """

    dataset = "dtb70"
    unused_because = "its folder img is missing, or it does not lie right under the root"

    def __init__(self, root: str | Path, split: str = "test") -> None:
        folder = require_folder(root, "DTB70")
        require_split(split, ("test",), "DTB70")
        parts = ("img", "groundtruth_rect.txt")
        names = [name for name in subfolders(folder) if any(is_given(folder / name / part) for part in parts)]
        super().__init__(folder, names)

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `Animal1`."""
        frames = numbered_frames(self.root / name / "img", first=1)
        annotation = self.root / name / "groundtruth_rect.txt"
        boxes_xywh = read_boxes(annotation)
        check_count(annotation, len(boxes_xywh), len(frames), frames_folder(frames))
        return Sequence(
            name=name, dataset=self.dataset, frames=frames, boxes_xywh=boxes_xywh, visible=positive_size(boxes_xywh)
        )
