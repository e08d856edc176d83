"""Which files of a folder are a sequence's frames, and in which order: the same for datasets and for `relo track`."""

import os
import re

import cv2
import numpy as np
import pytest

from relo.data.sequences.base import ImageFiles
from relo.data.sequences.frame_files import image_names, named_frames, numbered_frames
from relo.errors import UserError
from relo.tracking.sources import open_frames

RAW = [f"frame_{i:06d}_raw.jpg" for i in range(5)]
RAW_STRAYS = ["raw copy", "raw(1)", "raw.orig", "raw_mask", "thumb"]


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "names",
    [
        [f"{i}.jpg" for i in range(1, 13)],
        [f"frame{i}.jpg" for i in range(1, 13)],
        [f"{i:04d}.png" for i in range(8, 13)],
        ["clip2_9.png", "clip2_10.png", "clip10_1.png"],
        ["Frame1.jpg", "frame2.jpg", "Frame3.JPG", "frame10.jpeg"],
        ["٣.jpg", "١٠.jpg"],  # decimal digits of any script count  # noqa: RUF001
        ["x².webp", "x³.webp"],  # these are no decimal digits
        ["a.tif", "b.TIFF", "c.tif"],
        ["a1.jpg", "b1.jpg", "c2.jpg"],
        ["img.jpg", *(f"img ({i}).jpg" for i in range(1, 12))],
        [f"frame{i}_t{i / 30:.3f}.jpg" for i in range(8, 12)],
        [f"IMG_{i:04d}.JPG" for i in range(9998, 10002)],
        ["image.bmp", "image-1.bmp", "image-2.bmp", "image-10.bmp"],
        ["2023-01-31_12.00.5.jpg", "2023-01-31_12.00.12.jpg"],
    ],
)
def test_natural_order_wherever_frames_are_listed(tmp_path, names):
    folder = touch(tmp_path / "frames", *reversed(names), "notes.txt", ".hidden.jpg", "._" + names[0], "Thumbs.db")
    (folder / "0.jpg").mkdir()
    assert image_names(folder) == names
    assert named_frames(folder).names == tuple(names)
    for source in (folder, f"{folder}/*"):
        files = open_frames(source)
        assert files.count == len(names)


def test_tracking_takes_the_frames_in_this_order(tmp_path):
    for number in (1, 2, 9, 10):
        for folder in ("part2", "part10"):
            (tmp_path / folder).mkdir(exist_ok=True)
            level = number + (100 if folder == "part10" else 0)
            cv2.imwrite(str(tmp_path / folder / f"frame{number}.png"), np.full((4, 4, 3), level, np.uint8))
    touch(tmp_path / "part2", "._frame1.png", "notes.txt")
    levels = [[int(image[0, 0, 0]) for image in open_frames(tmp_path / source)] for source in ("part2", "*/*")]
    assert levels == [[1, 2, 9, 10], [1, 2, 9, 10, 101, 102, 109, 110]]
    assert [int(image[0, 0, 0]) for image in open_frames(tmp_path / "part2" / "*1*.png")] == [1, 10]


@pytest.mark.parametrize(
    ("names", "stray", "told"),
    [
        (
            ["00000001.jpg", "00000002.jpg"],
            "00000001.orig.jpg",
            "00000001.orig.jpg among images named like 0000",
        ),
        (["00000001.jpg", "00000002.jpg"], "00000001 (1).jpg", "among images named like"),
        (["00000001.jpg", "00000002.jpg"], "Copy of 1.jpg", "among images named like"),
        (["00000001.jpg", "00000002.jpg"], "overview.jpg", "overview.jpg among images named like 00000001.jpg"),
        (["1.jpg", "2.jpg"], "².jpg", "among images named like"),
        (["frame1.jpg", "frame2.jpg"], "frame2.orig.jpg", "frame2.orig.jpg among images named like frame1.jpg"),
        (["frame1.jpg", "frame2.jpg"], "frame2_mask.jpg", "among images named like frame1.jpg"),
        (["frame1.jpg", "frame2.jpg"], "Copy of frame2.jpg", "among images named like frame1.jpg"),
        *[(RAW, f"frame_000002_{end}.jpg", "among images named like frame_000000_raw.jpg") for end in RAW_STRAYS],
        *[(["frame1.jpg", "frame2.jpg"], stray, f"{stray} among") for stray in ("cover.jpg", "preview1.jpg")],
        (["frame1_t0.033.jpg", "frame2_t0.066.jpg"], "frame1_t0.033~.jpg", "frame1_t0.033~.jpg among"),
        (["IMG_0001.JPG", "IMG_0002.JPG"], "IMG_E0002.JPG", "IMG_E0002.JPG among images named like IMG_0001.JPG"),
        (["frame0.jpg", "frame1.jpg"], "frame.jpg", "frame.jpg among"),
        (["rgb1.png", "rgb2.png", "depth1.png"], "depth2.png", "rgb1.png and 1 more among images named like depth1"),
        (["a.jpg", "b.jpg", "c.jpg"], "c (1).jpg", "c (1).jpg among images named like a.jpg"),
        (["00000001.jpg", "00000002.jpg"], "00000001.png", "several kinds, such as 00000001.jpg and 00000001.png"),
        (["frame1.png", "frame2.png"], "frame1.webp", "several kinds"),
        (["1.jpg", "2.jpg"], "01.jpg", "01.jpg and 1.jpg, two names of one frame"),
        (["1.jpg", "2.jpg"], "1.jpeg", "1.jpeg and 1.jpg, two names of one frame"),
        (["1.jpg", "2.jpg"], "1.JPG", "1.JPG and 1.jpg, two names of one frame"),
        (["frame1.jpg", "frame2.jpg"], "frame01.jpg", "two names of one frame"),
        (["frame1.jpg", "frame2.jpg"], "Frame1.jpg", "two names of one frame"),
    ],
)
def test_what_may_be_no_frame_is_named(tmp_path, names, stray, told):
    folder = touch(tmp_path / "frames", *names, stray)
    for read in (
        named_frames,
        lambda path: numbered_frames(path, 1),
        open_frames,
        lambda path: open_frames(f"{path}/*"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            read(folder)


def test_one_kind_can_be_chosen_by_a_pattern(tmp_path):
    folder = touch(tmp_path, "1.jpg", "2.jpg", "1.png", "2.png", "3.png")
    assert open_frames(f"{folder}/*.png").count == 3


@pytest.mark.parametrize("target", ["nowhere.jpg", "3.jpg"])  # the second leads to itself
def test_a_link_to_nothing_is_a_missing_frame(tmp_path, target):
    folder = touch(tmp_path / "frames", "1.jpg", "2.jpg")
    (folder / "3.jpg").symlink_to(target)
    (folder / "folder").symlink_to("folder")
    for read in (
        named_frames,
        lambda path: numbered_frames(path, 1),
        open_frames,
        lambda path: open_frames(f"{path}/*"),
    ):
        with pytest.raises(UserError, match=r"3\.jpg is a link to a file that is not there"):
            read(folder)


def make_pipe(path):
    os.mkfifo(path)


def link_to_a_device(path):
    path.symlink_to(os.devnull)


@pytest.mark.parametrize("make", [link_to_a_device, make_pipe])
def test_what_is_no_regular_file_is_not_read(tmp_path, make):
    make(tmp_path / "00000002.jpg")
    with pytest.raises(UserError, match=r"^Frame .*00000002\.jpg is not a regular file; copy or extract it again\.$"):
        ImageFiles(tmp_path, ("00000001.jpg", "00000002.jpg")).encoded(1)


@pytest.mark.parametrize("stray", ["99999999999.jpg", "20240101123456.jpg", f"{10**200}.jpg"])
def test_gaps_are_counted_not_listed(tmp_path, stray):
    folder = touch(tmp_path, "1.jpg", "2.jpg", stray)
    number = int(stray[:-4])
    told = f"lacks {number - 3} of the frames 1 to {number} (the first is number 3)"
    with pytest.raises(UserError, match=re.escape(told) + f".*move {stray} elsewhere"):
        numbered_frames(folder, 1)
    with pytest.raises(UserError, match=rf"lacks 9{{16}}\d of the frames 1 to {10**17} "):
        numbered_frames(folder, 1, 10**17)


def test_numbered_frames_of_other_names(tmp_path):
    with pytest.raises(UserError, match=r"frame1\.jpg is not named by its number"):
        numbered_frames(touch(tmp_path / "a", "frame1.jpg", "frame2.jpg"), 1)
    with pytest.raises(UserError, match="lacks 1 of the frames 1 to 1"):
        numbered_frames(touch(tmp_path / "b", "0.jpg"), 1)
