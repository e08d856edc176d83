"""Datasets as lists of `Sequence`: what is known of each stands in `datasets`, the contract of readers in `base`."""

from functools import partial

from relo.data.sequences.base import FrameSource, ImageFiles, Sequence, SequenceReader, decode_frame
from relo.data.sequences.coco import COCO
from relo.data.sequences.datasets import DATASETS, find_dataset
from relo.data.sequences.photos import Photographs
from relo.data.sequences.reader import FolderReader, open_reader

__all__ = [
    "COCO",
    "DATASETS",
    "DTB70",
    "NFS",
    "OTB100",
    "TNL2K",
    "UAV123",
    "FolderReader",
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
    "find_dataset",
    "open_reader",
]

DTB70 = partial(open_reader, "dtb70")
GOT10k = partial(open_reader, "got10k")
LaSOT = partial(open_reader, "lasot")
LaSOTExtension = partial(open_reader, "lasot_extension")
NFS = partial(open_reader, "nfs")
OTB100 = partial(open_reader, "otb100")
PlainFolder = partial(open_reader, "plain")
TNL2K = partial(open_reader, "tnl2k")
TrackingNet = partial(open_reader, "trackingnet")
UAV123 = partial(open_reader, "uav123")
VastTrack = partial(open_reader, "vasttrack")
