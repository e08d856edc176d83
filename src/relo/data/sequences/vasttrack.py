"""VastTrack (Peng et al., NeurIPS 2024).

Layout: `<class>/<class>-<n>/` with `Groundtruth.txt` (x,y,w,h; some copies write it small), `nlp.txt` (missing for one
sequence) and `imgs/00001.jpg` on. Class names hold spaces and dashes, so a name is split at its last dash. An absent
target has a row of zeros.
"""

from pathlib import Path

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import (
    FolderReader,
    frames_folder,
    numbered_frames,
    require_all,
    require_folder,
    require_split,
    subfolders,
)
from relo.data.sequences.parsing import check_count, positive_size, read_boxes, read_names, read_text
from relo.errors import UserError

_LISTS = {"train": "vasttrack_train_list.txt", "test": "vasttrack_test_list.txt"}


class VastTrack(FolderReader):
    """A split of VastTrack: about 47,000 sequences of `train` or 3,500 of `test`.

    Args:
        root: the folder that holds the classes' folders.
        split: `train` or `test`.
        list_file: the split's names, one a line; by default `vasttrack_train_list.txt` or `vasttrack_test_list.txt` in
            the root. Without a list, `train` is every sequence that the list of `test` does not name.
        partial: read the sequences that are there, instead of refusing a root that lacks some.

    Raises:
        UserError: there is no such root, split or list, or sequences are missing.
    """

    dataset = "vasttrack"

    def __init__(
        self, root: str | Path, split: str = "train", *, list_file: Path | None = None, partial: bool = False
    ) -> None:
        folder = require_folder(root, "VastTrack")
        require_split(split, _LISTS, "VastTrack")
        present = [name for label in subfolders(folder) for name in subfolders(folder / label)]
        own_list = list_file or folder / _LISTS[split]
        test_list = folder / _LISTS["test"]
        if own_list.exists():
            names = require_all(folder, read_names(own_list), present, split, partial)
        elif list_file is None and split == "train" and test_list.exists():
            held_out = set(read_names(test_list))
            names = [name for name in present if name not in held_out]
        else:
            raise UserError(
                f"There is no list {own_list} of VastTrack's {split} sequences; copy the official one there."
            )
        super().__init__(folder, names)

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `Crossbody Backpack-31`."""
        label = name.rpartition("-")[0]
        folder = self.root / label / name
        frames = numbered_frames(folder / "imgs", first=1)
        annotation = folder / "Groundtruth.txt"
        if not annotation.exists():
            annotation = folder / "groundtruth.txt"
        boxes_xywh = read_boxes(annotation)
        check_count(annotation, len(boxes_xywh), len(frames), frames_folder(frames))
        sentence = folder / "nlp.txt"
        return Sequence(
            name=name,
            dataset=self.dataset,
            frames=frames,
            boxes_xywh=boxes_xywh,
            visible=positive_size(boxes_xywh),
            class_name=label,
            sentence=read_text(sentence).strip() if sentence.exists() else None,
        )
