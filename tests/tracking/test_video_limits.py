"""Videos of frames that nobody has memory for, and what is not refused beside them."""

import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_video_reader import FRAMES, encode, picture

from relo.errors import UserError
from relo.tracking import video_limits
from relo.tracking.sources import open_frames


def peak_kilobytes():
    """The most memory that this process had."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])


def gif(width, height):
    """A few bytes that announce a picture of any size."""
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    frame = b"!\xf9\4\0\x0a\0\0\0," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0"
    return header + 12 * frame + b";"


def png(width, height):
    """A picture whose header has other sides than were compressed."""
    encoded = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    encoded[16:24] = struct.pack(">II", width, height)
    encoded[29:33] = struct.pack(">I", zlib.crc32(encoded[12:29]))
    return bytes(encoded)


@pytest.mark.parametrize("content", [gif(16000, 16000), png(16000, 16000)], ids=["gif", "png"])
def test_frames_larger_than_8k_are_refused_before_memory_is_taken(tmp_path, capfd, content):
    (tmp_path / "a.gif").write_bytes(content)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_kilobytes()
    with pytest.raises(UserError, match=r"a\.gif has frames of 16000 x 16000 px; at most 8192 x 4320 px"):
        open_frames(tmp_path / "a.gif")
    assert peak_kilobytes() - before < 200_000
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mpg", "mpeg1video", "yuv420p"),
        ("a.flv", "flv", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
        ("a.mxf", "mpeg2video", "yuv420p"),
        ("a.y4m", "wrapped_avframe", "yuv420p"),
        ("a.h264", "libx264", "yuv420p"),
        ("a.mjpeg", "mjpeg", "yuvj420p"),
        ("a.apng", "apng", "rgb24"),
    ],
)
def test_other_containers_are_no_lists(tmp_path, name, codec, pix_fmt):
    assert len(list(open_frames(encode(tmp_path / name, codec, pix_fmt=pix_fmt)))) == FRAMES


def test_a_small_gif_is_read(tmp_path):
    (tmp_path / "a.gif").write_bytes(gif(64, 48))
    assert {image.shape for image in open_frames(tmp_path / "a.gif")} == {(48, 64, 3)}


def test_frames_that_become_too_large_end_the_video(tmp_path, monkeypatch):
    monkeypatch.setattr(video_limits, "MOST_WIDTH", 64)
    monkeypatch.setattr(video_limits, "MOST_HEIGHT", 48)
    small = encode(tmp_path / "small.ts", "libx264")
    large = encode(tmp_path / "large.ts", "libx264", [picture(index, 96, 80) for index in range(6)])
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    images = []
    with pytest.raises(UserError, match=r"both\.ts has frames of 80 x 96 px; at most 64 x 48 px"):
        images.extend(open_frames(both))
    assert {image.shape for image in images} == {(48, 64, 3)}
    with pytest.raises(UserError, match=r"large\.ts has frames of 80 x 96 px"):
        open_frames(large)


def test_damage_where_the_size_is_looked_for(tmp_path):
    path = encode(tmp_path / "a.flv", "libx264")
    data = bytearray(path.read_bytes())
    tag = 13 + 11 + int.from_bytes(data[14:17], "big") + 4  # behind the header and the metadata
    assert data[tag] == 9  # video
    data[tag] = 0
    data[data.index(b"videocodecid") + 4] = 0xE4
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.flv cannot be read as a video"):
        open_frames(path)
