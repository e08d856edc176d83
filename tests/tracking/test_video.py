import cv2
import numpy as np
import pytest

from relo.errors import UserError
from relo.tracking.video import VideoWriter, fit_into, open_frames


def flat(level, height=48, width=64):
    return np.full((height, width, 3), level, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Frames 0.png .. 11.png, whose level is ten times their number."""
    path = tmp_path / "frames"
    path.mkdir()
    for index in range(12):
        cv2.imwrite(str(path / f"{index}.png"), flat(10 * index))
    (path / "notes.txt").write_text("not a frame")
    return path


def levels(frames):
    return [int(image[0, 0, 0]) for image in frames]


def test_folder_is_in_natural_order(folder):
    frames = open_frames(folder)
    assert frames.count == 12
    assert levels(frames) == [10 * index for index in range(12)]


def test_start_and_limit(folder):
    frames = open_frames(folder, start=9, limit=2)
    assert frames.count == 2
    assert levels(frames) == [90, 100]


def test_pattern(folder):
    assert levels(open_frames(f"{folder}/1*.png")) == [10, 100, 110]


def test_images_are_rgb_and_grey_ones_have_three_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((8, 8, 3), (255, 0, 0), np.uint8))  # OpenCV writes BGR: blue
    cv2.imwrite(str(tmp_path / "2.png"), np.full((8, 8), 7, np.uint8))
    blue, grey = open_frames(tmp_path)
    assert blue[0, 0].tolist() == [0, 0, 255]
    assert grey.shape == (8, 8, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_video_round_trip(tmp_path, suffix):
    path = tmp_path / "made" / f"video{suffix}"
    with VideoWriter(path, frames_per_second=10) as video:
        for level in (0, 60, 120, 180, 240):
            video.write(flat(level, height=49, width=63))
    frames = open_frames(path, start=1, limit=3)
    assert frames.frames_per_second == pytest.approx(10)
    read = list(frames)
    assert read[0].shape == (50, 64, 3)
    np.testing.assert_allclose(levels(read), [60, 120, 180], atol=8)


def test_video_count_and_colors(tmp_path):
    path = tmp_path / "video.avi"
    with VideoWriter(path) as video:
        for _ in range(6):
            video.write(np.full((32, 32, 3), (250, 20, 20), np.uint8))
    frames = open_frames(path, start=2)
    assert frames.count == 4
    red, green, blue = next(iter(frames))[16, 16].tolist()
    assert red > 200
    assert max(green, blue) < 60


def test_video_takes_frames_of_changing_size(tmp_path):
    path = tmp_path / "video.avi"
    with VideoWriter(path) as video:
        video.write(flat(200))
        video.write(flat(200, height=100, width=64))
    first, second = open_frames(path)
    assert first.shape == second.shape
    assert second[40, 60].max() < 40  # a black bar beside the narrower frame


def test_fit_into_keeps_the_shape():
    fitted = fit_into(flat(255, height=10, width=40), 20, 20)
    assert fitted[:5].min() == 255
    assert fitted[5:].max() == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "does not exist"),
        ("*.jpg", "No file matches"),
        ("empty", "holds no images.*frames"),
        ("text.mp4", "cannot be opened as a video"),
        ("frames/3.png", "single image"),
    ],
)
def test_bad_source_is_named(folder, source, message):
    root = folder.parent
    (root / "empty" / "frames").mkdir(parents=True)
    (root / "text.mp4").write_text("this is no video")
    with pytest.raises(UserError, match=message) as error:
        open_frames(root / source)
    assert source in str(error.value)


def test_missing_camera_is_named():
    with pytest.raises(UserError, match="Camera 97"):
        open_frames("97")


def test_start_behind_the_end(folder, tmp_path):
    with pytest.raises(UserError, match="12 frames"):
        open_frames(folder, start=12)
    with VideoWriter(tmp_path / "video.avi") as video:
        video.write(flat(0))
    with pytest.raises(UserError, match="frame 5"):
        open_frames(tmp_path / "video.avi", start=5)
    with pytest.raises(UserError, match="start at 0"):
        open_frames(folder, start=-1)


def test_broken_frame_is_named(folder):
    (folder / "4.png").write_bytes(b"half")
    with pytest.raises(UserError, match=r"4\.png"):
        list(open_frames(folder))


def test_unknown_video_format_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"video\.gif"):
        VideoWriter(tmp_path / "video.gif")


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), VideoWriter(tmp_path / "file" / "video.avi") as video:
        video.write(flat(0))
