import errno
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress

import av
import cv2
import numpy as np
import pytest

import relo.files
from full_disk import file_limit
from relo.errors import UserError
from relo.tracking import video_writer
from relo.tracking.video_writer import VideoWriter, fit_into

ENDINGS = [".mp4", ".mov", ".mkv", ".webm", ".avi"]
LIMITED = "the file would be larger than is allowed here"
COLORS = [(250, 20, 20), (20, 250, 20), (20, 20, 250), (200, 100, 50)]


def flat(level, height=48, width=64):
    return np.full((height, width, 3), level, np.uint8)


def noise(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def write_noise(video, count):
    for seed in range(count):
        video.write(noise(seed=seed))


def decoded(path):
    """The frames of a video, and their times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames]


def playable(path):
    """How many frames can be decoded before the file breaks off."""
    count = 0
    with av.open(str(path)) as container, suppress(av.InvalidDataError):
        for frame in container.decode(video=0):
            count += not frame.is_corrupt
    return count


def boxes_of(path):
    """The names of an MP4 file's outermost boxes."""
    data, names, place = path.read_bytes(), [], 0
    while place < len(data):
        names.append(data[place + 4 : place + 8].decode())
        place += int.from_bytes(data[place : place + 4], "big")
    return names


@pytest.mark.parametrize("ending", ENDINGS)
def test_frames_come_back(tmp_path, ending):
    path = tmp_path / "made" / f"a video: 50%03d{ending}"
    levels = [0, 60, 120, 180, 240]
    with VideoWriter(path, frames_per_second=10) as video:
        for level in levels:
            video.write(flat(level, height=49, width=63))
    images, seconds = decoded(path)
    assert [path.name for path in path.parent.iterdir()] == [path.name]
    assert images[0].shape == (50, 64, 3)
    np.testing.assert_allclose([image[0, 0, 0] for image in images], levels, atol=3)
    np.testing.assert_allclose(seconds, [0, 0.1, 0.2, 0.3, 0.4], atol=1e-3)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(10)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", [(48, 64), (720, 1280)])
def test_colors_are_those_that_were_written(tmp_path, ending, shape):
    """Also to readers that ignore the tags, and take every video for ITU 601, such as OpenCV."""
    image = np.concatenate([np.full((shape[0], shape[1] // 4, 3), color, np.uint8) for color in COLORS], axis=1)
    path = tmp_path / f"video{ending}"
    with VideoWriter(path) as video:
        video.write(image)
    (by_tags,), _ = decoded(path)
    _, without_tags = cv2.VideoCapture(str(path)).read()
    for read in (by_tags, cv2.cvtColor(without_tags, cv2.COLOR_BGR2RGB)):
        middles = read[shape[0] // 2, shape[1] // 8 :: shape[1] // 4]
        np.testing.assert_allclose(middles.astype(int), COLORS, atol=4)


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "h264"), (".webm", "vp9"), (".avi", "mjpeg")])
def test_what_browsers_need(tmp_path, ending, codec):
    path = tmp_path / f"video{ending}"
    with VideoWriter(path) as video:
        video.write(noise())
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.name.startswith(codec)
        assert context.pix_fmt in ("yuv420p", "yuvj420p")
    if ending == ".mp4":
        assert boxes_of(path) == ["ftyp", "moov", "free", "mdat"]  # the index first, and no fragments


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
def test_frames_keep_their_times(tmp_path, ending):
    path = tmp_path / f"video{ending}"
    given = [7.0, 7.04, 7.2, 7.2, 7.1, 8.0]  # a camera's clock may stand still, and go back
    with VideoWriter(path, 25) as video:
        for seconds in given:
            video.write(noise(), seconds)
        video.write(noise())
    _, seconds = decoded(path)
    np.testing.assert_allclose(seconds, [0, 0.04, 0.2, 0.201, 0.202, 1, 1.04], atol=6e-4)


def test_an_avi_keeps_times_to_a_frame(tmp_path):
    with VideoWriter(tmp_path / "video.avi", 25) as video:
        for seconds in (0, 0.05, 0.2):
            video.write(noise(), seconds)
    _, seconds = decoded(tmp_path / "video.avi")
    np.testing.assert_allclose(seconds, [0, 0.04, 0.2])


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".avi"])
def test_a_rate_of_hours_per_frame(tmp_path, ending):
    path = tmp_path / f"video{ending}"
    with VideoWriter(path, 1 / 4000) as video:
        for index in range(3):
            video.write(np.zeros((48, 64, 3), np.uint8), 4000.0 * index)
    _, seconds = decoded(path)
    np.testing.assert_allclose([seconds[0], seconds[-1]], [0, 8000], atol=1001)


def test_frames_of_changing_size(tmp_path):
    path = tmp_path / "video.avi"
    with VideoWriter(path) as video:
        video.write(flat(200))
        video.write(flat(200, height=100, width=64))
    (first, second), _ = decoded(path)
    assert first.shape == second.shape
    assert second[40, 60].max() < 40  # a black bar beside the narrower frame


def test_fit_into_keeps_the_shape():
    fitted = fit_into(flat(255, height=10, width=40), 20, 20)
    assert fitted[:5].min() == 255
    assert fitted[5:].max() == 0


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_work_that_stops_halfway_leaves_a_video(tmp_path, ending, kind):
    path = tmp_path / f"video{ending}"

    def stop_halfway():
        with VideoWriter(path) as video:
            write_noise(video, 7)
            raise kind

    with pytest.raises(kind):
        stop_halfway()
    assert len(decoded(path)[0]) == 7


def test_a_killed_process_leaves_the_fragments_before(tmp_path):
    path = tmp_path / "video.mp4"
    program = (
        "import os, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from relo.tracking.video_writer import VideoWriter\n"
        "video = VideoWriter(Path(sys.argv[1]), 5)\n"
        "for seed in range(60):\n"
        "    video.write(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert 30 <= len(decoded(path)[0]) < 60


def write_limited(path, limit, count):
    """Write frames to a disk that has room for so many bytes; the error."""
    with pytest.raises(UserError) as error, file_limit(limit), VideoWriter(path) as video:
        write_noise(video, count)
    return str(error.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_that_fills_up_keeps_the_frames_before(tmp_path, ending):
    path = tmp_path / f"video{ending}"
    sentence = rf"The video {path} cannot be written \({LIMITED}\); its first (\d+) frames can be played\."
    count = int(re.fullmatch(sentence, write_limited(path, 400_000, 200))[1])
    assert 40 < count <= playable(path) <= count + 1  # half a JPEG image is decoded, too


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("limit", "count"), [(0, 3), (100, 3), (1000, 3), (1000, 100)])
def test_a_full_disk_leaves_no_video_without_frames(tmp_path, ending, limit, count):
    path = tmp_path / f"video{ending}"
    assert write_limited(path, limit, count) == f"The video {path} cannot be written ({LIMITED})."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
@pytest.mark.parametrize("ending", ENDINGS)
def test_full_device_is_named(tmp_path, ending):
    path = tmp_path / f"video{ending}"
    path.symlink_to("/dev/full")
    with pytest.raises(UserError, match="the disk is full"), VideoWriter(path) as video:
        write_noise(video, 100)
    assert path.is_symlink()


def test_a_file_that_lacks_frames_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(video_writer, "_count_of_frames", lambda path: 2)
    with pytest.raises(UserError, match="holds 2 frames of 3"), VideoWriter(tmp_path / "video.mp4") as video:
        write_noise(video, 3)


def test_without_room_for_a_copy_the_index_stays_last(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(relo.files, "_sync", full)
    with VideoWriter(tmp_path / "video.mp4") as video:
        write_noise(video, 3)
    assert len(decoded(tmp_path / "video.mp4")[0]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_without_h264_another_codec_is_taken(tmp_path, monkeypatch):
    codec = av.Codec
    known = {"mpeg4"}

    def some_codec(name, mode):
        return codec(name if name in known else "none", mode)

    monkeypatch.setattr(video_writer.av, "Codec", some_codec)
    with VideoWriter(tmp_path / "video.mp4", 30000 / 1001) as video:
        write_noise(video, 3)
    assert len(decoded(tmp_path / "video.mp4")[0]) == 3
    with pytest.raises(UserError, match=r"Cannot write a \.webm file: this build of FFmpeg has no libvpx-vp9"):
        VideoWriter(tmp_path / "video.webm")


def test_unknown_ending_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"video\.gif; end the name in \.mp4, \.webm"):
        VideoWriter(tmp_path / "video.gif")


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder.mp4").mkdir()
    for path in (tmp_path / "file" / "video.avi", tmp_path / "folder.mp4", tmp_path / f"{'x' * 300}.mp4"):
        with VideoWriter(path) as video:
            for _ in range(2):  # and it stays refused
                with pytest.raises(UserError, match="cannot be written"):
                    video.write(flat(0))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".avi"])
def test_frames_that_no_encoder_takes(tmp_path, ending):
    path, refusal = tmp_path / f"video{ending}", r"cannot be written \(.*frames of 70000 x 2 px may be too large"
    with pytest.raises(UserError, match=refusal), VideoWriter(path) as video:
        video.write(flat(0, height=2, width=70_000))


def write_at(path, times):
    with VideoWriter(path) as video:
        for seconds in times:
            video.write(flat(0), seconds)


@pytest.mark.parametrize(
    ("ending", "far"), [(".mp4", 1e5), (".mov", 1e5), (".avi", 1e5), *((ending, 2.3e15) for ending in ENDINGS)]
)
def test_a_frame_that_comes_too_late_for_its_format_ends_the_video(tmp_path, ending, far):
    refusal = rf"a frame comes \S+ s after the one before, too long for \{ending}.*first 2 frames can be played"
    with pytest.raises(UserError, match=refusal):
        write_at(tmp_path / f"video{ending}", [0, 0.04, far, far + 0.04])
    assert decoded(tmp_path / f"video{ending}")[1] == pytest.approx([0, 0.04])


@pytest.mark.parametrize(("ending", "gap"), [(".mp4", 35_790), (".avi", 2399), (".mkv", 1e8), (".webm", 1e8)])
def test_long_gaps_that_a_format_holds(tmp_path, ending, gap):
    write_at(tmp_path / f"video{ending}", [0, gap, gap + 0.04])
    assert decoded(tmp_path / f"video{ending}")[1][-2:] == pytest.approx([gap, gap + 0.04])
