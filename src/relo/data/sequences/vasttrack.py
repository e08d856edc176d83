"""VastTrack (Peng et al., NeurIPS 2024).

Layout: `<class>/<class>-<n>/` with `Groundtruth.txt` (x,y,w,h; some copies write it small), `nlp.txt` (missing for one
sequence) and `imgs/00001.jpg` on. Class names hold spaces and dashes, so a name is split at its last dash. An absent
target has a row of zeros.
"""

from collections.abc import Iterable
from pathlib import Path

from relo.data.sequences.base import Sequence
from relo.data.sequences.folders import (
    FolderReader,
    class_sequences,
    require_all,
    require_folder,
    require_split,
)
from relo.data.sequences.frame_files import frames_folder, numbered_frames
from relo.data.sequences.parsing import check_count, is_given, positive_size, read_boxes, read_names, read_sentence
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
    listed = True
    unused_because = "no list of VastTrack's sequences names it, or another folder of this name is read"

    def __init__(
        self, root: str | Path, split: str = "train", *, list_file: Path | None = None, partial: bool = False
    ) -> None:
        folder = require_folder(root, "VastTrack")
        require_split(split, _LISTS, "VastTrack")
        self._folders = class_sequences(folder)
        self._list_file = list_file
        own_list = list_file or folder / _LISTS[split]
        test_list = folder / _LISTS["test"]
        if is_given(own_list):
            names = require_all(folder, read_names(own_list), self._folders, split, partial)
        elif list_file is None and split == "train" and is_given(test_list):
            held_out = set(read_names(test_list))
            names = [name for name in self._folders if name not in held_out]
        else:
            raise UserError(
                f"There is no list {own_list} of VastTrack's {split} sequences; copy the official one there."
            )
        super().__init__(folder, names)

    def sequence_folders(self) -> Iterable[Path]:
        """Those that the lists name; all that are found, where a list is missing."""
        lists = [self.root / file for file in _LISTS.values()]
        if self._list_file is not None or not all(map(is_given, lists)):
            return self._folders.values()
        return [self._folders[name] for file in lists for name in read_names(file) if name in self._folders]

    def read(self, name: str) -> Sequence:
        """The sequence called `name`, such as `Crossbody Backpack-31`."""
        folder = self._folders[name]
        frames = numbered_frames(folder / "imgs", first=1)
        annotation = folder / "Groundtruth.txt"
        if not is_given(annotation):
            annotation = folder / "groundtruth.txt"
        boxes_xywh = read_boxes(annotation)
        check_count(annotation, len(boxes_xywh), len(frames), frames_folder(frames))
        sentence, remarks = read_sentence(folder / "nlp.txt")
        return Sequence(
            name=name,
            dataset=self.dataset,
            frames=frames,
            boxes_xywh=boxes_xywh,
            visible=positive_size(boxes_xywh),
            class_name=name.rpartition("-")[0],
            sentence=sentence,
            remarks=remarks,
        )
