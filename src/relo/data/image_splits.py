"""Which split an image belongs to: by the hash of its bytes, so that it stays there whatever is added or renamed."""

import hashlib

SPLITS = ("train", "val", "test")
_HELD_OUT = 0.1  # of the images, for val and for test each


def image_hash(encoded: bytes) -> str:
    """The SHA-256 of an image file's bytes, in hexadecimal."""
    return hashlib.sha256(encoded).hexdigest()


def split_of_hash(digest: str) -> str:
    """The split of the image with this hash: `val` and `test` get a tenth of the images each, `train` the rest."""
    place = int(digest[:12], 16) / 16**12
    return "val" if place < _HELD_OUT else "test" if place < 2 * _HELD_OUT else "train"
