"""Damaged images that OpenCV decodes all the same, and odd ones that are intact."""

import zlib

import cv2
import numpy as np
import pytest

from exif import with_orientation
from relo.data.clip_store import PackingOptions
from relo.data.intact_frames import decode_intact, intact_size
from relo.data.packing import pack, verify
from relo.data.sequences.base import decode_frame
from relo.errors import UserError

END_OF_IMAGE = b"\xff\xd9"


def photo(width: int = 96, height: int = 72) -> np.ndarray:
    """Smooth colours with some noise."""
    rng = np.random.default_rng(0)
    colours = cv2.resize(rng.uniform(0, 255, (8, 8, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(colours + rng.normal(0, 5, colours.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(".jpg", image, settings)[1].tobytes()


def middle_of_scan(encoded: bytes) -> int:
    return (encoded.index(b"\xff\xda") + len(encoded)) // 2


def second_half_zeros(encoded: bytes) -> bytes:
    return encoded[: len(encoded) // 2].ljust(len(encoded), b"\0")


def second_half_zeros_but_the_end(encoded: bytes) -> bytes:
    return second_half_zeros(encoded)[:-2] + END_OF_IMAGE


def zeros_in_the_middle(encoded: bytes) -> bytes:
    start = middle_of_scan(encoded)
    return encoded[:start] + bytes(400) + encoded[start + 400 :]


def cut_and_closed(encoded: bytes) -> bytes:
    return encoded[: middle_of_scan(encoded)] + END_OF_IMAGE


def without_its_last_bytes(encoded: bytes) -> bytes:
    return encoded[:-6] + END_OF_IMAGE


def without_an_end(encoded: bytes) -> bytes:
    return encoded[:-2]


DAMAGES = [
    second_half_zeros,
    second_half_zeros_but_the_end,
    zeros_in_the_middle,
    cut_and_closed,
    without_its_last_bytes,
    without_an_end,
]
ENCODERS = {
    "baseline": (),
    "optimised": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "4:4:4": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "4:1:1": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "coarse": (cv2.IMWRITE_JPEG_QUALITY, 30),
}


@pytest.mark.parametrize("settings", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_jpeg_is_refused(damage, settings):
    encoded = jpeg(photo(192, 144), *settings)
    np.testing.assert_array_equal(decode_intact(encoded, "frame"), decode_frame(encoded, "frame"))
    with pytest.raises(UserError, match=r"^frame is (damaged|not a readable image) \(.+\); copy or extract it again\."):
        decode_intact(damage(encoded), "frame")


@pytest.mark.parametrize("quality", [75, 90, 95])
def test_zeros_are_found_wherever_they_are(quality):
    encoded = jpeg(photo(192, 144), cv2.IMWRITE_JPEG_QUALITY, quality)
    places = range(encoded.index(b"\xff\xda") + 14, len(encoded) - 400, 41)
    assert len(places) > 50
    for place in places:
        with pytest.raises(UserError):
            decode_intact(encoded[:place] + bytes(400) + encoded[place + 400 :], "frame")


def a_scan_per_component() -> bytes:
    """A sequential JPEG of three components that are not interleaved: the scans of three grey images."""
    grey = [jpeg(photo()[:, :, channel]) for channel in range(3)]
    (frame, scan), size = ((grey[0].index(b"\xff\xc0"), grey[0].index(b"\xff\xda")), photo().shape[:2])
    components = bytes(number for component in (1, 2, 3) for number in (component, 0x11, 0))
    header = b"\xff\xc0\0\x11\x08" + b"".join(side.to_bytes(2, "big") for side in size) + b"\x03" + components
    scans = [
        b"\xff\xda\0\x08\x01" + bytes((component, 0, 0, 63, 0)) + image[image.index(b"\xff\xda") + 10 : -2]
        for component, image in zip((1, 2, 3), grey, strict=True)
    ]
    return grey[0][:frame] + header + grey[0][frame + 13 : scan] + b"".join(scans) + END_OF_IMAGE


SEVERAL_SCANS = {
    "progressive": jpeg(photo(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "progressive, grey": jpeg(photo()[:, :, 0], cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "progressive, restarts": jpeg(photo(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "progressive, coarse": jpeg(photo(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 10),
    "progressive, flat": jpeg(np.full((72, 96, 3), 99, np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "one per component": a_scan_per_component(),
}


@pytest.mark.parametrize("encoded", SEVERAL_SCANS.values(), ids=SEVERAL_SCANS)
def test_a_jpeg_that_lacks_its_last_scans_is_refused(encoded):
    np.testing.assert_array_equal(decode_intact(encoded, "frame"), decode_frame(encoded, "frame"))
    scans = [place for place in range(len(encoded)) if encoded.startswith(b"\xff\xda", place)]
    assert len(scans) >= 3
    for scan in scans[1:]:
        with pytest.raises(UserError, match=r"^frame is damaged \(scans are missing\); copy or extract it again\."):
            decode_intact(encoded[:scan] + END_OF_IMAGE, "frame")


@pytest.mark.parametrize("options", [PackingOptions(), PackingOptions(cut=4.0, max_side=40)])
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damaged_jpeg_is_packed(reader, tmp_path, damage, options):
    frame = reader.root / "video 1" / "0005.jpg"
    frame.write_bytes(damage(jpeg(photo(*reader.size))))
    store = pack(reader, tmp_path / "s", options=options, skip_broken=True)
    assert store.names == ["video 0", "video 2"]
    assert str(frame) in store.manifest.broken["video 1"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_a_damaged_jpeg_of_a_store_packed_before(reader, tmp_path, monkeypatch, damage):
    (reader.root / "video 1" / "0005.jpg").write_bytes(damage(jpeg(photo(*reader.size))))
    with monkeypatch.context() as before:
        before.setattr("relo.data.frame_packing.intact_size", lambda encoded, name: reader.size)
        store = pack(reader, tmp_path / "s")
    (problem,) = verify(store.path)
    assert problem.startswith("Frame 5 of fake/video 1")


def test_tracking_and_training_still_see_what_is_left_of_a_damaged_frame(reader):
    frame = reader.root / "video 1" / "0005.jpg"
    frame.write_bytes(zeros_in_the_middle(jpeg(photo(*reader.size))))
    assert reader[1].frames[5].shape == (72, 96, 3)


# -------------------------------------------------------------------------------------------------------------- intact


def rare_subsampling() -> bytes:
    """A grey image of one block of 4x2 luma blocks and one of each chroma, as 4:1:0 has it."""
    flat = jpeg(np.full((16, 16, 3), 128, np.uint8))
    frame, scan = flat.index(b"\xff\xc0"), flat.index(b"\xff\xda")
    header = bytearray(flat[: scan + 14])
    header[frame + 5 : frame + 9] = (0, 16, 0, 32)
    header[frame + 11] = 0x42
    bits = 8 * "001010" + 2 * "0000"  # every block is flat
    return bytes(header) + int(bits, 2).to_bytes(len(bits) // 8, "big") + END_OF_IMAGE


def lossless(width: int, height: int, channels: str = "RGB") -> bytes:
    """A JPEG without loss (SOF3), whose pixels are all as predicted; libjpeg reads it, but does not scale it."""
    table = b"\xff\xc4\0\x14\0" + b"\x01" + bytes(15) + b"\0"  # one code: no difference
    sides = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    count, names = len(channels), channels.encode()
    frame = b"\xff\xc3\0" + bytes([8 + 3 * count, 8]) + sides + bytes([count])
    frame += b"".join(bytes([name, 0x11, 0]) for name in names)
    scan = b"\xff\xda\0" + bytes([6 + 2 * count, count]) + b"".join(bytes([name, 0]) for name in names) + b"\x01\0\0"
    return b"\xff\xd8" + frame + table + scan + bytes(count * width * height // 8) + END_OF_IMAGE


def os2_bmp() -> bytes:
    """A BMP with the header of 12 bytes, whose sides have 16 bits."""
    width, height = 64, 48
    header = b"".join(number.to_bytes(2, "little") for number in (12, 0, width, height, 1, 24))
    pixels = photo(width, height)[::-1, :, ::-1].tobytes()
    size = (26 + len(pixels)).to_bytes(4, "little")
    return b"BM" + size + bytes(4) + (26).to_bytes(4, "little") + header + pixels


def animated_png() -> bytes:
    """A PNG that is the first of two frames: as any viewer without animations shows it."""
    still = cv2.imencode(".png", photo())[1].tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    def frame(number: int) -> bytes:
        numbers = b"".join(value.to_bytes(4, "big") for value in (number, 96, 72, 0, 0))
        return chunk(b"fcTL", numbers + b"\0\x0a\0\x64\0\0")

    start, pixels, end = still[:33], still[33:-12], still[-12:]
    length = int.from_bytes(pixels[:4], "big")
    second = chunk(b"fdAT", (2).to_bytes(4, "big") + pixels[8 : 8 + length])
    animation = chunk(b"acTL", (2).to_bytes(4, "big") + bytes(4))
    return start + animation + frame(0) + pixels + frame(1) + second + end


INTACT = {
    "animated PNG": animated_png(),
    "lossless": lossless(256, 256),
    "lossless, large": lossless(1024, 1024),
    "lossless, small": lossless(16, 16),
    "BMP of OS/2": os2_bmp(),
    "zeros after the end": jpeg(photo()) + bytes(500),
    "another image after the end": jpeg(photo()) + jpeg(photo()),
    "fill bytes": jpeg(photo()).replace(b"\xff\xda", b"\xff\xff\xff\xda", 1),
    "zeros in the header": jpeg(photo())[:2] + b"\xff\xfe\x01\x02" + bytes(256) + jpeg(photo())[2:],
    "zeros that are flat blocks": jpeg(np.zeros((720, 1280, 3), np.uint8), cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "black, progressive": jpeg(np.zeros((720, 1280, 3), np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "one channel": jpeg(photo()[:, :, 0]),
    "one line": jpeg(photo(500, 1)),
    "finest quality": jpeg(photo(), cv2.IMWRITE_JPEG_QUALITY, 100),
    "turned by Exif": with_orientation(jpeg(photo()), 6),
    "several scans, zeros in a comment between": SEVERAL_SCANS["progressive"].replace(
        b"\xff\xda", b"\xff\xfe\x01\x02" + b"\xff\xda" + bytes(254) + b"\xff\xda"
    ),
    "rare subsampling": rare_subsampling(),
    "PNG": cv2.imencode(".png", photo())[1].tobytes(),
    "BMP": cv2.imencode(".bmp", photo())[1].tobytes(),
}


@pytest.mark.parametrize("encoded", INTACT.values(), ids=INTACT)
def test_an_odd_image_that_is_intact_is_taken_with_the_same_pixels(encoded):
    image = decode_intact(encoded, "frame")
    np.testing.assert_array_equal(image, decode_frame(encoded, "frame"))
    assert encoded is not INTACT["turned by Exif"] or image.shape == (96, 72, 3)
    assert intact_size(encoded, "frame") == image.shape[1::-1]


def test_a_damaged_animation_is_refused():
    """A second header behind a cut picture, on which OpenCV's reader of animations crashes."""
    encoded = bytes.fromhex(
        "89504e470d0a1a0a0000000d494844520000002800000018080200000007e62897000000086163544c00000004000000007ccd66d0"
        "0000000749444154789cadd0873bd40be0851e0000001a6663544c0000000100000028000000180000000000000000000100140000"
        "1d6337970000000d494844520000002800000018080200000007e62897"
    )
    with pytest.raises(UserError, match="frame is not a readable image"):
        decode_intact(encoded, "frame")


@pytest.mark.parametrize("side", [16, 256, 1024])
def test_a_grey_lossless_jpeg_which_opencv_does_not_read_is_refused(side):
    for read in (decode_intact, intact_size):
        with pytest.raises(UserError, match="frame is not a readable image"):
            read(lossless(side, side, "Y"), "frame")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif"])
def test_images_of_other_kinds_that_are_cut_off_are_refused(suffix):
    encoded = cv2.imencode(suffix, photo())[1].tobytes()
    for damaged in (encoded[: len(encoded) // 2], encoded[:-20]):
        with pytest.raises(UserError, match="not a readable image"):
            decode_intact(damaged, "frame")


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_png_with_wrong_bytes_is_refused(place):
    encoded = bytearray(cv2.imencode(".png", photo())[1].tobytes())
    encoded[int(place * len(encoded))] ^= 0x10
    with pytest.raises(UserError, match="not a readable image"):
        decode_intact(bytes(encoded), "frame")


def jpeg_that_announces(width: int, height: int, encoded: bytes) -> bytes:
    size = next(place for marker in (b"\xff\xc0", b"\xff\xc2") if (place := encoded.find(marker)) > 0) + 5
    return encoded[:size] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + encoded[size + 4 :]


def png_that_announces(width: int, height: int) -> bytes:
    encoded = cv2.imencode(".png", photo())[1].tobytes()
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + encoded[24:29]
    return encoded[:12] + header + zlib.crc32(header).to_bytes(4, "big") + encoded[33:]


@pytest.mark.parametrize(
    ("encoded", "announced"),
    [
        (jpeg_that_announces(12000, 12000, jpeg(photo())), "12000 x 12000 px, where at most 16777216"),
        (jpeg_that_announces(4100, 4100, jpeg(photo(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), "4100 x 4100 px"),
        (jpeg_that_announces(8000, 3000, with_orientation(jpeg(photo()), 6)), "8000 x 3000 px"),
        (jpeg_that_announces(12000, 12000, rare_subsampling()), "12000 x 12000 px"),
        (jpeg_that_announces(65500, 65500, jpeg(photo())), "65500 x 65500 px"),
        (jpeg_that_announces(12000, 12000, jpeg(photo())) + bytes(2**18), "12000 x 12000 px, where at most 134217728"),
        (png_that_announces(12000, 12000), "12000 x 12000 px"),
    ],
)
def test_a_header_that_announces_more_than_its_bytes_can_hold_is_refused_before_it_is_decoded(encoded, announced):
    what = rf"^frame is not a readable image \({len(encoded)} bytes that announce {announced}"
    with pytest.raises(UserError, match=what):
        decode_frame(encoded, "frame")


def test_a_size_beyond_opencvs_bound_is_no_traceback():
    with pytest.raises(UserError, match="not a readable image"):
        decode_frame(png_that_announces((1 << 20) + 1, 1), "frame")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_large_frame_without_content_is_taken(suffix):
    encoded = cv2.imencode(suffix, np.zeros((4100, 4100), np.uint8), (cv2.IMWRITE_JPEG_OPTIMIZE, 1))[1].tobytes()
    assert decode_frame(encoded, "frame").shape == (4100, 4100, 3)
