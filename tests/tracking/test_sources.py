import cv2
import numpy as np
import pytest

from relo.errors import UserError
from relo.tracking.sources import open_frames
from relo.tracking.video_writer import VideoWriter


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


def test_images_keep_their_names_and_numbers(folder):
    frames = open_frames(folder, start=9)
    assert (frames.start, frames.files) == (9, ["9.png", "10.png", "11.png"])
    assert open_frames(folder.parent / "*" / "1.png").files == ["1.png"]
    (folder.parent / "more").mkdir()
    cv2.imwrite(str(folder.parent / "more" / "1.png"), flat(0))
    assert open_frames(folder.parent / "*" / "1.png").files == ["frames/1.png", "more/1.png"]


def test_pattern(folder):
    assert levels(open_frames(f"{folder}/1*.png")) == [10, 100, 110]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_images_are_rgb_whatever_their_channels_and_depth(tmp_path, suffix, depth):
    full = np.iinfo(depth).max
    cv2.imwrite(str(tmp_path / f"1{suffix}"), np.full((8, 8, 3), (full, 0, 0), depth))  # OpenCV writes BGR: blue
    cv2.imwrite(str(tmp_path / f"2{suffix}"), np.full((8, 8), full // 255 * 7, depth))
    cv2.imwrite(str(tmp_path / f"3{suffix}"), np.full((8, 8, 4), (full, 0, 0, full // 2), depth))
    blue, grey, translucent = open_frames(tmp_path)
    assert blue[0, 0].tolist() == translucent[0, 0].tolist() == [0, 0, 255]
    assert grey[0, 0].tolist() == [7, 7, 7]
    assert {image.shape for image in (blue, grey, translucent)} == {(8, 8, 3)}
    assert {image.dtype for image in (blue, grey, translucent)} == {np.dtype(np.uint8)}


def test_image_of_floats_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "1.tif"), np.full((8, 8, 3), 0.5, np.float32))
    with pytest.raises(UserError, match=r"1\.tif"):
        list(open_frames(tmp_path))


@pytest.mark.parametrize(("suffix", "share"), [(".avi", 0.45), (".avi", 0.9), (".webm", 0.7)])
def test_a_video_that_is_cut_off_says_so_at_its_end(tmp_path, suffix, share):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    random = np.random.default_rng(0)
    with VideoWriter(whole) as video:
        for _ in range(20):
            video.write(random.integers(0, 255, (48, 64, 3), np.uint8))
    content = whole.read_bytes()
    cut.write_bytes(content[: round(share * len(content))])
    for source, start, limit in ((whole, 0, None), (cut, 0, 4), (cut, 2, 4)):
        frames = open_frames(source, start, limit)
        assert len(list(frames)) == (limit or 20)
        assert frames.remarks == []
    for start, limit in ((0, None), (3, None), (0, 20)):
        frames = open_frames(cut, start, limit)
        assert frames.count == 20 - start
        end = start + len(list(frames))
        assert 4 < end < 19
        assert frames.remarks == [f"The video announces 20 frames and ends after {end}: it may be cut off or damaged."]
    with pytest.raises(UserError, match="ends before frame 19"):
        open_frames(cut, start=19)


@pytest.mark.parametrize("suffix", [".avi", ".webm"])
@pytest.mark.parametrize("filling", [b"", b"\0"], ids=["removed", "zeros"])
@pytest.mark.parametrize("place", [0.2, 0.5])
def test_a_video_that_is_damaged_in_its_middle_says_so(tmp_path, suffix, filling, place):
    whole, damaged = tmp_path / f"whole{suffix}", tmp_path / f"damaged{suffix}"
    random = np.random.default_rng(0)
    with VideoWriter(whole, frames_per_second=5) as video:
        for _ in range(40):
            video.write(random.integers(0, 255, (48, 64, 3), np.uint8))
    content = whole.read_bytes()
    start, length = round(place * len(content)), len(content) // 6
    damaged.write_bytes(content[:start] + filling * length + content[start + length :])
    frames = open_frames(damaged)
    count = len(list(frames))
    assert 8 < count < 38
    (remark,) = frames.remarks
    assert remark.startswith("The video has no frames between" if suffix == ".webm" else "The video announces 40")
    assert remark.endswith("damaged.")
    frames = open_frames(damaged, start=3, limit=count - 4)
    assert len(list(frames)) == count - 4
    assert len(frames.remarks) == (suffix == ".webm")  # a hole among the frames that were read; others may follow


def test_frames_of_another_size_are_named(folder):
    for name in ("4", "9"):
        cv2.imwrite(str(folder / f"{name}.png"), flat(0, height=1, width=500))
    sentence = f"{folder} has {{}} frames of another size than 64x48 px; the first, frame {{}}, is 500x1 px."
    for start, limit, remarks in (
        (0, None, [sentence.format("2 of 12", 4)]),
        (5, None, [sentence.format("1 of 7", 9)]),
        (5, 3, []),
    ):
        frames = open_frames(folder, start, limit)
        assert len(list(frames)) == frames.count
        assert frames.remarks == remarks


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "does not exist"),
        ("*.jpg", "No file matches"),
        ("empty", "holds no images.*frames"),
        ("text.mp4", "cannot be opened as a video"),
        ("frames/3.png", "single image"),
        ("x" * 300, "does not exist"),
        ("/dev/zero", "is a pipe or a device; give a folder"),
    ],
)
def test_bad_source_is_named(folder, source, message):
    root = folder.parent
    (root / "empty" / "frames").mkdir(parents=True)
    (root / "text.mp4").write_text("this is no video")
    with pytest.raises(UserError, match=message) as error:
        open_frames(root / source)
    assert source in str(error.value)


@pytest.mark.parametrize("number", ["97", "999999999", "99999999999999999999", "9" * 5000])
def test_missing_camera_is_named(number):
    with pytest.raises(UserError, match=f"(?i)camera {number[:80]}"):
        open_frames(number)


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
