"""The clip store: a split of a dataset in one LMDB folder, for fast random access to frames.

Records, by key (s is a sequence's 8-digit number in the manifest's order, f a frame's):

    manifest     JSON: format and version, dataset, split, packing options, names of sequences, broken ones, complete
    s/header     JSON: name, frames, class_name, sentence
    s/boxes      float64 [M, 4] x, y, w, h in image pixels, as annotated; M is the number of frames, or 1
    s/visible    uint8 [M]
    s/sizes      int32 [N, 2] width and height of the images
    s/geometry   float64 [N, 4], where frames were cut or scaled (see `relo.data.frame_geometry`)
    s/f          a frame's JPEG or PNG bytes
    all/visible  uint8, the flags of all sequences one after the other, and
    all/lengths  int64, how many each has: what a finished store has so that it opens at once, unless it is an old one

Arrays are raw and little-endian. Every value ends with the CRC-32 of what comes before it, 4 bytes. A sequence's header
is written in the same transaction as its other records: where it is, they are.
"""

from relo.data.store_environment import is_store
from relo.data.store_manifest import FORMAT, VERSION, Manifest, PackingOptions
from relo.data.store_reader import ClipStore, StoredFrames, is_complete
from relo.data.store_writer import ClipStoreWriter, PackedFrames, begun_store

__all__ = [
    "FORMAT",
    "VERSION",
    "ClipStore",
    "ClipStoreWriter",
    "Manifest",
    "PackedFrames",
    "PackingOptions",
    "StoredFrames",
    "begun_store",
    "is_complete",
    "is_store",
]
