"""JPEGs whose Exif says how a camera was held."""


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with Exif; orientation 6 is that of a picture to be turned a quarter to the right."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + bytes(6)
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
