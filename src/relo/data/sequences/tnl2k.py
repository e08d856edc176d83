"""TNL2K (Wang et al., CVPR 2021).

Layout: `<sequence>/groundtruth.txt` (x,y,w,h), `language.txt` and `imgs/`, whose images are named differently from
sequence to sequence: they are taken in the natural order of their names. An absent target has a row of zeros; boxes
may reach far out of the image. Train and test are downloaded apart, each to a root of its own.

Twelve training videos need the authors' `revised_annotations.zip`, after which one row fewer than images can remain:
the last image is then left out, with a remark. The test image `test_015_Sord_video_Q01_done/imgs/00000492.png` is
damaged in the download; its replacement is in the authors' repository.
"""

from pathlib import Path

from relo.data.sequences.base import ImageFiles, Sequence
from relo.data.sequences.folders import FolderReader, require_folder, require_split, subfolders
from relo.data.sequences.frame_files import named_frames
from relo.data.sequences.parsing import is_given, positive_size, read_boxes, read_sentence
from relo.errors import UserError


class TNL2K(FolderReader):
    """The sequences under the root of one split of TNL2K (700 of test, 1,300 of train).

    Args:
        root: the folder that holds the split's sequences.
        split: `train` or `test`.

    Raises:
        UserError: there is no such root or split, or no sequence in it.
    """

    dataset = "tnl2k"
    unused_because = "its groundtruth.txt is missing, or it does not lie right under the root"

    def __init__(self, root: str | Path, split: str = "test") -> None:
        folder = require_folder(root, "TNL2K")
        require_split(split, ("train", "test"), "TNL2K")
        super().__init__(folder, [name for name in subfolders(folder) if is_given(folder / name / "groundtruth.txt")])

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `test_015_Sord_video_Q01_done`."""
        folder = self.root / name
        frames = named_frames(folder / "imgs", ignored=("firstFrame_bbox.jpg",))
        boxes_xywh = read_boxes(folder / "groundtruth.txt")
        left_out: tuple[str, ...] = ()
        if len(boxes_xywh) == len(frames) - 1:
            left_out = (f"{frames.name(-1)} is left out: {folder / 'groundtruth.txt'} has a row fewer than images.",)
            frames = ImageFiles(frames.folder, frames.names[:-1])
        if len(boxes_xywh) != len(frames):
            raise UserError(
                f"{folder / 'groundtruth.txt'} has {len(boxes_xywh)} rows for {len(frames)} frames in {frames.folder}; "
                "extract it again, or take it from the authors' revised_annotations.zip."
            )
        sentence, remarks = read_sentence(folder / "language.txt")
        return Sequence(
            name=name,
            dataset=self.dataset,
            frames=frames,
            boxes_xywh=boxes_xywh,
            visible=positive_size(boxes_xywh),
            sentence=sentence,
            remarks=(*left_out, *remarks),
        )
