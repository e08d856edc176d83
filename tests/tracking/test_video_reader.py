"""Videos of all kinds, each encoded here: what comes out is what players show."""

import os
import struct
import threading
from fractions import Fraction
from itertools import islice

import av
import cv2
import numpy as np
import pytest

import relo.tracking.video_reader
from exif import with_orientation
from relo.errors import UserError
from relo.tracking.sources import open_frames
from relo.tracking.timed_frame import Clock

RATE = 25
FRAMES = 12


def picture(index, height=48, width=64):
    """A smooth picture that moves by index; from reddish on the left to greenish on the right."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([200 - x * 150 // width, 60 + x * 130 // width, 40 + y * 160 // height], 2).astype(np.uint8)
    image[16:34, 4 + 3 * index : 20 + 3 * index] = 230, 230, 40
    return image


PICTURES = [picture(index) for index in range(FRAMES)]


def encode(path, codec, images=PICTURES, pix_fmt="yuv420p", stamps=None, rate=RATE, prepare=None, **options):
    """Write images [H, W, 3], or frames of PyAV, as a video; stamps are in milliseconds."""
    if codec == "libx265":
        options["x265-params"] = "log-level=none:pools=1"
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"threads": "1", **options})
        stream.pix_fmt = pix_fmt
        stream.height, stream.width = frame_of(images[0]).height, frame_of(images[0]).width
        if prepare:
            prepare(container, stream)
        for index, image in enumerate(images):
            frame = frame_of(image)
            frame.pts = index if stamps is None else stamps[index]
            frame.time_base = Fraction(1, rate) if stamps is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frame_of(image):
    return av.VideoFrame.from_ndarray(image, "rgb24") if isinstance(image, np.ndarray) else image


def read(path, **options):
    frames = open_frames(path, **options)
    return list(frames), frames


def distance(images, others):
    """The average difference of levels."""
    return np.mean([np.abs(a.astype(int) - b.astype(int)).mean() for a, b in zip(images, others, strict=True)])


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", {"crf": "10", "bf": "2"}),
        ("a.mp4", "libx264", "yuv420p10le", {"crf": "10"}),
        ("a.mp4", "libx264", "yuv422p", {"crf": "10"}),
        ("a.mp4", "libx264", "yuv444p", {"crf": "10"}),
        ("a.mkv", "libx264", "yuv420p", {"crf": "10"}),
        ("a.mov", "libx264", "gray", {"crf": "10"}),
        ("a.ts", "libx264", "yuv420p", {"crf": "10", "bf": "2"}),
        ("a.mp4", "libx265", "yuv420p", {"crf": "10"}),
        ("a.mkv", "libx265", "yuv420p10le", {"crf": "10"}),
        ("a.webm", "libvpx-vp9", "yuv420p", {"crf": "10", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
        ("a.webm", "libvpx-vp9", "yuva420p", {"crf": "10", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
        ("a.webm", "libvpx", "yuv420p", {"crf": "4", "b": "1M"}),
        ("a.avi", "mjpeg", "yuvj420p", {"qmin": "1", "qmax": "1"}),
        ("a.mov", "mjpeg", "yuvj422p", {"qmin": "1", "qmax": "1"}),
        ("a.mov", "qtrle", "argb", {}),
        ("a.mov", "png", "rgba", {}),
        ("a.mov", "prores_ks", "yuva444p10le", {}),
        ("a.mkv", "ffv1", "gray16le", {}),
        ("a.mkv", "ffv1", "bgr0", {}),
    ],
)
def test_every_codec_and_pixel_format(tmp_path, capfd, name, codec, pix_fmt, options):
    pictures = PICTURES
    if pix_fmt.startswith("gray"):
        pictures = [cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for image in PICTURES]
    path = encode(tmp_path / name, codec, pictures, pix_fmt, **options)
    images, frames = read(path)
    assert len(images) == frames.count == FRAMES
    assert frames.frames_per_second == pytest.approx(RATE)
    assert frames.seconds == pytest.approx(np.arange(FRAMES) / RATE, abs=1e-3)
    assert {image.shape for image in images} == {(48, 64, 3)}
    assert {image.dtype for image in images} == {np.dtype(np.uint8)}
    assert all(image.flags.c_contiguous and image.flags.writeable for image in images)
    assert frames.remarks == []
    assert distance(images, pictures) < 5
    assert distance(images, pictures) < distance(images, pictures[1:] + pictures[:1]) / 1.2  # the right frames
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("size", [(47, 63), (49, 64), (48, 33), (2, 2)])
@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("a.mkv", "ffv1", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p")])
def test_odd_sizes(tmp_path, size, name, codec, pix_fmt):
    pictures = [np.full((*size, 3), (190, 90, 60), np.uint8)] * 3
    images, _ = read(encode(tmp_path / name, codec, pictures, pix_fmt))
    assert {image.shape for image in images} == {(*size, 3)}
    assert distance(images, pictures) < 3
    assert np.abs(images[0].astype(int) - pictures[0]).max() < 8  # up to the last row and column


@pytest.mark.parametrize("matrix", [5, 1], ids=["bt601", "bt709"])
@pytest.mark.parametrize("color_range", [1, 2], ids=["limited", "full"])
def test_colours_follow_matrix_and_range(tmp_path, matrix, color_range):
    def converted(image):
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
            format="yuv420p", dst_colorspace=matrix, dst_color_range=color_range
        )
        frame.colorspace, frame.color_range = matrix, color_range
        return frame

    def prepare(container, stream):
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, color_range

    path = encode(tmp_path / "a.mp4", "libx264", [converted(image) for image in PICTURES], prepare=prepare, crf="5")
    images, _ = read(path)
    assert distance(images, PICTURES) < 3
    assert images[0][1, 1] == pytest.approx(PICTURES[0][1, 1], abs=6)


@pytest.mark.parametrize("matrix", [8, 14], ids=["YCgCo", "ICtCp"])
def test_an_unusual_matrix_is_no_error(tmp_path, matrix):
    frames = [frame_of(image).reformat(format="yuv420p") for image in PICTURES]
    for frame in frames:
        frame.colorspace = matrix

    def prepare(container, stream):
        stream.codec_context.colorspace = matrix

    assert len(read(encode(tmp_path / "a.mp4", "libx264", frames, prepare=prepare))[0]) == FRAMES


@pytest.mark.parametrize("pix_fmt", ["rgb4", "bgr4"])
def test_pixels_that_cannot_be_converted(tmp_path, pix_fmt):
    path = encode(tmp_path / "a.nut", "rawvideo", [av.VideoFrame(64, 48, pix_fmt)] * 2, pix_fmt)
    with pytest.raises(UserError, match=rf"a\.nut has frames of pixel format {pix_fmt}, which cannot be converted"):
        read(path)


def test_colours_are_those_of_opencv(tmp_path):
    path = encode(tmp_path / "a.mp4", "libx264")
    capture = cv2.VideoCapture(str(path))
    others = [capture.read()[1][:, :, ::-1] for _ in range(FRAMES)]
    capture.release()
    assert distance(read(path)[0], others) < 2


QUARTER = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((0, QUARTER, -QUARTER, 0), lambda image: np.rot90(image, -1)),  # a phone held upright
        ((0, -QUARTER, QUARTER, 0), np.rot90),
        ((-QUARTER, 0, 0, -QUARTER), lambda image: np.rot90(image, 2)),
        ((-QUARTER, 0, 0, QUARTER), np.fliplr),  # a mirrored front camera
        ((0, QUARTER, QUARTER, 0), lambda image: image.swapaxes(0, 1)),
        ((QUARTER, 0, 0, QUARTER), lambda image: image),
    ],
)
def test_a_turned_phone_video_is_shown_upright(tmp_path, matrix, turned):
    path = encode(tmp_path / "a.mp4", "libx264")
    before = read(path)[0]
    a, b, c, d = matrix
    patch(path, b"tkhd", 44, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    images, frames = read(path)
    assert all(np.array_equal(image, turned(other)) for image, other in zip(images, before, strict=True))
    assert images[0].flags.c_contiguous
    assert frames.remarks == []


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_motion_jpeg_of_a_camera_that_notes_its_orientation_by_exif(tmp_path, orientation, quarters):
    frames = [cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes() for image in PICTURES]
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(with_orientation(frame, orientation) for frame in frames))
    others = [np.rot90(image, quarters) for image in PICTURES]
    assert distance(read(path)[0], others) < 5


def patch(path, box, offset, content):
    """Overwrite bytes of an MP4 file, counted from the name of a box."""
    data = bytearray(path.read_bytes())
    place = data.index(box) + offset
    data[place : place + len(content)] = content
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_varying_rate(tmp_path, name):
    stamps = [0, 33, 66, 166, 200, 233, 333, 433, 466, 500, 600, 633]
    images, frames = read(encode(tmp_path / name, "libx264", stamps=stamps, bf="2", rate=30), start=1, limit=9)
    assert frames.seconds == pytest.approx([stamp / 1000 for stamp in stamps[1:10]], abs=2e-3)
    assert distance(images, PICTURES[1:10]) < 6
    assert frames.remarks == []
    assert 10 < frames.frames_per_second < 31


def test_what_an_edit_list_cuts_away_is_not_given(tmp_path):
    path = encode(tmp_path / "a.mp4", "libx264", bf="2", g="100")
    whole = read(path)[0]
    unit = Fraction(read_time_base(path))
    start = round((4 / Fraction(RATE) + 2 / Fraction(RATE)) / unit)  # four frames, and the delay of B-frames
    patch(path, b"elst", 16, struct.pack(">i", start))
    images, frames = read(path)
    assert len(images) == FRAMES - 4
    assert distance(images, whole[4:]) == 0
    assert frames.seconds == pytest.approx(np.arange(FRAMES - 4) / RATE)
    assert frames.remarks == []


def read_time_base(path):
    with av.open(str(path)) as container:
        return container.streams.video[0].time_base


def test_sound_and_cover_are_not_the_video(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000)
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        attach_cover(container)
        for index in range(FRAMES):
            noise = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp")
            noise.sample_rate, noise.pts = 48000, 1024 * index
            container.mux(sound.encode(noise))
        for image in PICTURES:
            container.mux(stream.encode(frame_of(image)))
        container.mux(stream.encode())
        container.mux(sound.encode())
    images, frames = read(path)
    assert len(images) == frames.count == FRAMES
    assert distance(images, PICTURES) < 6


def attach_cover(container):
    container.add_attachment(
        "cover.jpg", "image/jpeg", cv2.imencode(".jpg", np.zeros((200, 300, 3), np.uint8))[1].tobytes()
    )


def test_music_with_a_cover_is_no_video(tmp_path):
    path = tmp_path / "song.mka"
    with av.open(str(path), "w", format="matroska") as container:
        sound = container.add_stream("aac", rate=48000)
        attach_cover(container)
        for index in range(3):
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp")
            silence.sample_rate, silence.pts = 48000, 1024 * index
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(UserError, match=r"song\.mka holds no video"):
        open_frames(path)


def test_a_size_that_changes_midway_is_named(tmp_path):
    parts = [encode(tmp_path / "a.ts", "libx264"), tmp_path / "b.ts"]
    encode(parts[1], "libx264", [picture(index, 96, 80) for index in range(6)])
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    images, frames = read(path)
    assert [image.shape for image in images] == [(48, 64, 3)] * FRAMES + [(96, 80, 3)] * 6
    assert (np.diff(frames.seconds) > 0).all()
    (remark,) = [remark for remark in frames.remarks if "size" in remark]
    assert f"both.ts has 6 of 18 frames of another size than 64x48 px; the first, frame {FRAMES}, is 80x96 px" in remark


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_h264_that_is_damaged(tmp_path, capfd, name, damage):
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(40)]
    path = encode(tmp_path / name, "libx264", pictures, bf="2", g="10", movflags="faststart")
    if name == "a.mp4":
        path = remuxed_for_streaming(path)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) * 6 // 10])
    else:
        start, length = len(content) // 2, len(content) // 6
        path.write_bytes(content[:start] + bytes(length) + content[start + length :])
    images, frames = read(path)
    assert 8 < len(images) <= 40
    assert len(frames.remarks) == (len(images) < 38)
    if damage == "cut":
        assert frames.remarks == [
            f"The video announces 40 frames and ends after {len(images)}: it may be cut off or damaged."
        ]
    assert "".join(capfd.readouterr()) == ""


def remuxed_for_streaming(path):
    """The same video with its index in front."""
    target = path.with_name(f"streaming-{path.name}")
    with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target


def test_names_that_ffmpeg_takes_for_more_than_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.mp4", "a%02d.mp4", "-.mp4", "ü ñ.mp4"):
        encode(tmp_path / name, "libx264", PICTURES[:2])
        assert len(read(name)[0]) == 2


def test_title_in_an_old_encoding(tmp_path):
    path = encode(
        tmp_path / "a.mkv", "libx264", prepare=lambda container, stream: container.metadata.update(title="xxxx")
    )
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"ca\xf1\xe9"))
    assert len(read(path)[0]) == FRAMES


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.txt", "1,2,3,4\n"),
        ("a.nfo", "a text"),
        ("a.srt", "1\n00:00:00,000 --> 00:00:02,000\nHello\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nhttp://127.0.0.1:1/a.ts\n"),
        ("a.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nwhole.ts\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "ffconcat version 1.0\nfile whole.ts\n"),
        ("b.mp4", ""),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, monkeypatch, capfd, name, content):
    monkeypatch.setattr(relo.tracking.video_reader, "PATIENCE", 1.0)
    encode(tmp_path / "whole.ts", "libx264")
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} (holds no video|cannot be opened as a video)"):
        open_frames(tmp_path / name)
    assert "".join(capfd.readouterr()) == ""


def test_a_video_is_closed_when_its_iterator_is(tmp_path):
    path = encode(tmp_path / "a.mp4", "libx264")
    frames = iter(open_frames(path))
    assert len(list(islice(frames, 2))) == 2
    assert str(path) in open_files()
    frames.close()
    assert str(path) not in open_files()
    open_frames(path)
    assert str(path) not in open_files()
    assert threading.active_count() < 20


def open_files():
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):
        pytest.skip("needs Linux's list of open files")
    links = (os.path.join(folder, name) for name in os.listdir(folder))
    return {os.readlink(link) for link in links if os.path.lexists(link)}


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        ([5.0, 5.5, 7.0], [0.0, 0.5, 2.0]),
        ([None, None, None], [0.0, 0.1, 0.2]),
        ([None, 3.0, 3.5, None], [0.0, 0.1, 0.6, 0.7]),
        ([0.0, 1.0, 1.0, 0.9, 2.0], [0.0, 1.0, 1.001, 1.002, 2.0]),  # equal, and out of order
        ([90.0, 91.0, 2.0, 3.0], [0.0, 1.0, 1.1, 2.1]),  # a second recording begins
    ],
)
def test_seconds_grow_whatever_the_stamps(stamps, seconds):
    clock = Clock(0.1)
    assert [clock.seconds(stamp) for stamp in stamps] == pytest.approx(seconds)
