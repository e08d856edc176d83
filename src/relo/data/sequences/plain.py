"""Anyone's own data, in plain folders.

    <root>/<sequence>/groundtruth.txt       or groundtruth_rect.txt: x,y,w,h in pixels from 0, one line a frame
                      img/<anything>.jpg    or the images beside the annotation; of one kind: jpg, png, bmp, webp or tif
                      absent.txt            optional: 1 for each frame in which the target cannot be seen, else 0

Numbers may be delimited by commas, tabs or spaces. Images are taken in the natural order of their names, which differ
in their numbers alone: `2.jpg` comes before `10.jpg`. A frame without a box is written as `0,0,0,0` or
`nan,nan,nan,nan`. The annotation may be the first frame's box alone.
"""

from pathlib import Path

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import FolderReader, require_folder, require_split, subfolders
from relo.data.sequences.frame_files import frames_folder, named_frames
from relo.data.sequences.parsing import check_count, is_given, positive_size, read_boxes, read_flags
from relo.errors import UserError

_ANNOTATIONS = ("groundtruth.txt", "groundtruth_rect.txt")


class PlainFolder(FolderReader):
    """All sequences of a folder in the plain layout (see the module).

    Args:
        root: the folder that holds the sequences' folders.
        split: `all`; there is no other.

    Raises:
        UserError: there is no such root, or no folder in it has an annotation.
    """

    dataset = "plain"
    unused_because = "its groundtruth.txt is missing, or it does not lie right under the root"

    def __init__(self, root: str | Path, split: str = "all") -> None:
        folder = require_folder(root, "the sequences")
        require_split(split, ("all",), "A plain folder")
        super().__init__(folder, [name for name in subfolders(folder) if _annotation(folder / name)])

    def read(self, name: str) -> Sequence:
        """The sequence in the folder `name`."""
        folder = self.root / name
        frames = named_frames(folder / "img" if is_given(folder / "img") else folder)
        annotation = _annotation(folder)
        if annotation is None:
            raise UserError(f"{folder} holds no {' or '.join(_ANNOTATIONS)}.")
        boxes_xywh = read_boxes(annotation)
        if len(boxes_xywh) != 1:
            check_count(annotation, len(boxes_xywh), len(frames), frames_folder(frames))
        visible = positive_size(boxes_xywh)
        absent = folder / "absent.txt"
        if is_given(absent):
            flags = read_flags(absent)
            check_count(absent, len(flags), len(boxes_xywh), f"boxes in {annotation}")
            visible &= ~flags
        return Sequence(name=name, dataset=self.dataset, frames=frames, boxes_xywh=boxes_xywh, visible=visible)


def _annotation(folder: Path) -> Path | None:
    return next((folder / file for file in _ANNOTATIONS if is_given(folder / file)), None)
