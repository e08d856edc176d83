"""One reader a dataset, each a list of `Sequence`; the contract is in `base`.

A reader is imported when it is first asked for, by its name here or through `open_reader`.
"""

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relo.data.sequences.base import FrameSource, ImageFiles, Sequence, SequenceReader, decode_frame
from relo.errors import UserError

if TYPE_CHECKING:
    from relo.data.sequences.coco import COCO
    from relo.data.sequences.got10k import GOT10k
    from relo.data.sequences.lasot import LaSOT, LaSOTExtension
    from relo.data.sequences.nfs import NFS
    from relo.data.sequences.otb import DTB70, OTB100
    from relo.data.sequences.photos import Photographs
    from relo.data.sequences.plain import PlainFolder
    from relo.data.sequences.tnl2k import TNL2K
    from relo.data.sequences.trackingnet import TrackingNet
    from relo.data.sequences.uav123 import UAV123
    from relo.data.sequences.vasttrack import VastTrack

__all__ = [
    "COCO",
    "DATASETS",
    "DTB70",
    "NFS",
    "OTB100",
    "TNL2K",
    "UAV123",
    "FrameSource",
    "GOT10k",
    "ImageFiles",
    "LaSOT",
    "LaSOTExtension",
    "Photographs",
    "PlainFolder",
    "Sequence",
    "SequenceReader",
    "TrackingNet",
    "VastTrack",
    "decode_frame",
    "default_split",
    "open_reader",
]

_MODULES = {
    "COCO": "coco",
    "DTB70": "otb",
    "GOT10k": "got10k",
    "LaSOT": "lasot",
    "LaSOTExtension": "lasot",
    "NFS": "nfs",
    "OTB100": "otb",
    "Photographs": "photos",
    "PlainFolder": "plain",
    "TNL2K": "tnl2k",
    "TrackingNet": "trackingnet",
    "UAV123": "uav123",
    "VastTrack": "vasttrack",
}

DATASETS: dict[str, tuple[str, dict[str, Any]]] = {
    "lasot": ("LaSOT", {}),
    "lasot_extension": ("LaSOTExtension", {}),
    "got10k": ("GOT10k", {}),
    "trackingnet": ("TrackingNet", {}),
    "coco": ("COCO", {}),
    "vasttrack": ("VastTrack", {}),
    "tnl2k": ("TNL2K", {}),
    "nfs": ("NFS", {}),
    "nfs_pytracking": ("NFS", {"variant": "pytracking"}),
    "nfs_released": ("NFS", {"variant": "released"}),
    "uav123": ("UAV123", {}),
    "uav123_10fps": ("UAV123", {"fps": 10}),
    "otb100": ("OTB100", {}),
    "dtb70": ("DTB70", {}),
    "plain": ("PlainFolder", {}),
    "photos": ("Photographs", {}),
}
"""The name of every dataset -> its reader's class and the arguments that make the variant."""


def __getattr__(name: str) -> Any:
    """Import a reader's class at first use."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_reader(dataset: str, root: str | Path, split: str | None = None, **options: Any) -> SequenceReader:
    """Open a split of a dataset, by name.

    Args:
        dataset: one of `DATASETS`.
        root: the dataset's folder.
        split: a split of it; by default, the first that its reader names.
        options: further arguments of the reader, such as `partial` or `skip_defective`.

    Raises:
        UserError: the dataset, split or option is unknown, or the root is missing or broken.
    """
    reader_class, variant = _find(dataset)
    arguments = variant | options | ({} if split is None else {"split": split})
    known = signature(reader_class).parameters
    for name in arguments:
        if name not in known:
            raise UserError(f"{reader_class.__name__} has no option {name!r}; there is {', '.join(list(known)[1:])}.")
    reader: SequenceReader = reader_class(root, **arguments)
    return reader


def default_split(dataset: str) -> str:
    """The split that a dataset's reader reads by default.

    Raises:
        UserError: the dataset is unknown.
    """
    reader_class, _ = _find(dataset)
    split: str = signature(reader_class).parameters["split"].default
    return split


def _find(dataset: str) -> tuple[Any, dict[str, Any]]:
    """The reader's class of a dataset, and the arguments that make the variant."""
    if dataset not in DATASETS:
        raise UserError(f"There is no dataset {dataset!r}; known are {', '.join(DATASETS)}.")
    class_name, variant = DATASETS[dataset]
    return __getattr__(class_name), variant
