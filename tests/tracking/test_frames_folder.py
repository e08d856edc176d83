from pathlib import Path

import numpy as np
import pytest

from relo.errors import UserError
from relo.tracking.frames_folder import FramesFolder, open_render
from relo.tracking.sources import open_frames
from relo.tracking.video_writer import VideoWriter


def flat(level):
    return np.full((48, 64, 3), (level, 100, 20), np.uint8)


def test_frames_come_back(tmp_path):
    with open_render(tmp_path / "new" / "frames") as folder:
        folder.write(flat(200))
        folder.write(flat(50), 1.5)
    assert sorted(path.name for path in folder.path.iterdir()) == ["00000000.jpg", "00000001.jpg"]
    first, second = open_frames(folder.path)
    np.testing.assert_allclose(first[20, 20].astype(int), (200, 100, 20), atol=3)
    np.testing.assert_allclose(second[20, 20].astype(int), (50, 100, 20), atol=3)


def test_the_name_says_whether_it_is_a_folder_or_a_video(tmp_path):
    (tmp_path / "there.is").mkdir()
    for name in (f"{tmp_path}/folder", f"{tmp_path}/folder.mp4/", tmp_path / "folder", tmp_path / "there.is"):
        assert isinstance(open_render(name), FramesFolder)
    video = open_render(tmp_path / "video.MP4", 12)
    assert isinstance(video, VideoWriter)
    assert video.frames_per_second == 12
    with pytest.raises(UserError, match=r"video\.gif"):
        open_render(tmp_path / "video.gif")


@pytest.mark.parametrize("name", ["1.png", "notes.txt"])
def test_files_that_are_there_are_left_alone(tmp_path, name):
    (tmp_path / ".hidden").touch()
    assert isinstance(open_render(tmp_path), FramesFolder)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{tmp_path} holds files already"):
        open_render(tmp_path)


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match=r"file.*Not a directory"):
        open_render(tmp_path / "file")
    with open_render(tmp_path / "file" / "frames") as folder, pytest.raises(UserError, match="cannot be written"):
        folder.write(flat(0))


def test_a_frame_that_is_too_large_for_an_image_is_named(tmp_path):
    with open_render(tmp_path / "frames") as folder:
        folder.write(flat(0))
        with pytest.raises(UserError, match=r"00000001\.jpg.*70000 x 2 px is too large.*; 1 frames before it"):
            folder.write(np.zeros((2, 70_000, 3), np.uint8))
    assert [path.name for path in folder.path.iterdir()] == ["00000000.jpg"]


def test_a_full_disk_leaves_whole_frames(tmp_path, monkeypatch):
    with open_render(tmp_path / "frames") as folder:
        folder.write(flat(0))
        write_bytes = Path.write_bytes

        def full(path, data):
            write_bytes(path, data[:100])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match=r"00000001\.jpg.*the disk is full.; 1 frames before it"):
            folder.write(flat(0))
    assert [path.name for path in folder.path.iterdir()] == ["00000000.jpg"]
