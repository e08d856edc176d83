import errno
import json
import os
import shutil

import cv2
import numpy as np
import pytest
from pictures import disc, make_sources, texture, write_cut_outs, write_photographs

from relo.data.synthetic.image_sources import SPLITS, find_sources, read_cut_out, read_photograph, read_with_part
from relo.errors import UserError


def cut_outs_in(folder, tmp_path, split="train"):
    """The cut-outs of a folder, among enough others that every split has some."""
    photographs = write_photographs(tmp_path / "photographs", 4)
    found = [find_sources([photographs], [folder, write_cut_outs(tmp_path / "more", 4)], name) for name in SPLITS]
    return [item for sources in found for item in sources.cut_outs if folder in item.path.parents]


def test_splits_share_no_file_and_leave_none_out(tmp_path):
    photographs, things = write_photographs(tmp_path / "photographs", 40), write_cut_outs(tmp_path / "things", 40)
    found = {split: find_sources([photographs], [things], split) for split in SPLITS}
    for sort in ("photographs", "cut_outs"):
        names = [item.path.name for sources in found.values() for item in getattr(sources, sort)]
        assert len(names) == len(set(names)) == 40
        assert len(getattr(found["train"], sort)) > 25


@pytest.mark.parametrize("kind", ["photographs", "things"])
def test_a_folder_that_may_not_be_read_is_not_left_out_in_silence(tmp_path, monkeypatch, kind):
    photographs, things = write_photographs(tmp_path / "photographs", 12), write_cut_outs(tmp_path / "things", 12)
    closed = tmp_path / kind / "closed"
    shutil.copytree(tmp_path / kind, closed)
    scandir = os.scandir

    def refusing(folder):  # permissions do not stop root
        if os.fspath(folder) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(closed))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=rf"The folder {closed} cannot be read \(Permission denied\): its images"):
        find_sources([photographs], [things], "train")


def test_content_decides_not_path(tmp_path):
    photographs, things = write_photographs(tmp_path / "photographs", 40), write_cut_outs(tmp_path / "things", 40)
    (tmp_path / "elsewhere").mkdir()
    copies = tmp_path / "elsewhere" / "things"
    copies.mkdir()
    for number, path in enumerate(sorted(things.iterdir(), reverse=True)):
        shutil.copy(path, copies / f"renamed{number}.png")
    for split in SPLITS:
        first = find_sources([photographs], [things], split)
        again = find_sources([photographs, photographs], [copies, things], split)
        assert [item.digest for item in again.cut_outs] == [item.digest for item in first.cut_outs]
        assert again.photographs == first.photographs
        assert again.digest == first.digest


def test_an_image_is_in_one_split_as_photograph_and_as_cut_out(tmp_path):
    folder = tmp_path / "set"
    (folder / "masks").mkdir(parents=True)
    write_photographs(folder / "images", 30)
    for path in (folder / "images").iterdir():
        cv2.imwrite(str(folder / "masks" / f"{path.stem}_0.png"), disc(90, 120))
    for split in SPLITS:
        sources = find_sources([folder], [folder], split)
        assert {item.digest for item in sources.photographs} == {item.digest for item in sources.cut_outs}


def test_more_images_leave_others_in_their_split(tmp_path):
    things = write_cut_outs(tmp_path / "things")
    few = find_sources([write_photographs(tmp_path / "photographs", 60)], [things], "train")
    many = find_sources([write_photographs(tmp_path / "photographs", 40, first=60)], [things], "train")
    assert set(few.photographs) < set(many.photographs)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/x.jpg", "masks/x.png"),
        ("images/x.jpg", "masks/x_0.png"),
        ("x.jpg", "x.png"),
        ("x.jpg", "x_mask.png"),
        ("x.png", "x-mask.png"),
        ("x.jpg", "masks/x.png"),
        ("deep/images/birds/x.jpg", "deep/masks/birds/x.png"),
        ("DUTS-TR-Image/x.jpg", "DUTS-TR-Mask/x.png"),
        ("images/x.jpg", "ground_truth_mask/x.png"),
        ("images/x_1.jpg", "masks/x_1.png"),
    ],
)
def test_masks_are_found(tmp_path, image, mask):
    folder = tmp_path / "set"
    for name, content in ((image, texture(1, 60, 50)), (mask, disc(60, 50))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), content)
    (found,) = cut_outs_in(folder, tmp_path)
    assert (found.path, found.mask) == (folder / image, folder / mask)
    height, width, channels = read_cut_out(found).shape
    assert abs(height - 41) <= 2
    assert abs(width - 41) <= 2
    assert channels == 4


def test_masks_are_no_photographs(tmp_path):
    folder = write_photographs(tmp_path / "set" / "images", 6).parent
    (folder / "masks").mkdir()
    for path in (folder / "images").iterdir():
        cv2.imwrite(str(folder / "masks" / f"{path.stem}_0.png"), disc(90, 120))
    shutil.copy(folder / "masks" / "p0_0.png", folder / "images" / "p0.png")
    things = write_cut_outs(tmp_path / "things", 3)
    found = [item.path for split in SPLITS for item in find_sources([folder], [things], split).photographs]
    assert sorted(found) == sorted((folder / "images").glob("*.jpg"))


def test_kinds_are_labels_or_folders(tmp_path):
    folder = tmp_path / "set"
    (folder / "masks").mkdir(parents=True)
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "x.jpg"), texture(1, 60, 50))
    for number in range(3):
        cv2.imwrite(str(folder / "masks" / f"x_{number}.png"), disc(60, 50, 0.2 + 0.1 * number))
    labelled = {"image": "x.jpg", "boxes_xywh": [[1, 1, 9, 9]] * 3, "labels": ["wheel", "cart", None]}
    without = {"image": "y.png", "boxes_xywh": [[1, 1, 9, 9]], "labels": None}
    (folder / "boxes.jsonl").write_text(json.dumps(labelled) + "\n" + json.dumps(without) + "\n")
    cv2.imwrite(str(folder / "images" / "y.png"), np.dstack([texture(2, 60, 50), disc(60, 50)]))
    kinds = {(item.path.name, item.mask and item.mask.name): item.kind for item in cut_outs_in(folder, tmp_path)}
    of_x = {("x.jpg", f"x_{number}.png"): kind for number, kind in enumerate(("wheel", "cart", "set"))}
    assert kinds == of_x | {("y.png", None): "set"}


def test_a_mask_inside_another_is_a_part_of_it(tmp_path):
    folder = tmp_path / "set"
    for name, content in (
        ("images/x.jpg", texture(1, 60, 50)), ("masks/x_0.png", disc(60, 50)), ("masks/x_1.png", disc(60, 50, 0.2)),
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), content)
    whole, part = sorted(cut_outs_in(folder, tmp_path), key=lambda item: item.mask.name)
    image, mask = read_with_part(whole, part)
    assert image.shape[:2] == mask.shape
    assert 0.2 < (mask >= 128).sum() / (image[..., 3] >= 128).sum() < 0.3
    assert read_with_part(part, whole) is None


def test_specks_are_cleared_and_alpha_of_other_formats_counts(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    alpha = disc(100, 90, 0.3)
    alpha[2:4, 2:4] = 255
    cv2.imwrite(str(folder / "a.webp"), np.dstack([texture(1, 100, 90), alpha]), [cv2.IMWRITE_WEBP_QUALITY, 101])
    deep = np.dstack([texture(2, 100, 90), alpha]).astype(np.uint16) * 257
    cv2.imwrite(str(folder / "b.png"), deep)
    cv2.imwrite(str(folder / "c.png"), np.dstack([texture(3, 100, 90), alpha]))
    (folder / "d.jpg").parent.joinpath("masks").mkdir()
    cv2.imwrite(str(folder / "d.jpg"), texture(4, 100, 90))
    cv2.imwrite(str(folder / "masks" / "d.png"), (alpha >= 128).astype(np.uint8))  # ones and zeros
    found = cut_outs_in(folder, tmp_path)
    assert len(found) == 4
    for item in found:
        image = read_cut_out(item)
        assert image.dtype == np.uint8
        assert max(image.shape[:2]) < 60
        assert image[..., 3].max() == 255


def test_large_photographs_are_decoded_smaller(tmp_path):
    sources = make_sources(tmp_path)
    large = tmp_path / "large.jpg"
    cv2.imwrite(str(large), cv2.resize(texture(1, 90, 120), (2400, 1800)))
    photograph = sources.photographs[0]
    assert read_photograph(photograph).shape == (90, 120, 3)
    assert read_photograph(type(photograph)(large, "")).shape == (900, 1200, 3)


# ---------------------------------------------------------------------------------------------------------- bad input


def broken_png(path):
    cv2.imwrite(str(path), np.dstack([texture(1, 60, 50), disc(60, 50)]))
    path.write_bytes(path.read_bytes()[:-400])


def empty(folder):
    pass


def only_text(folder):
    (folder / "notes.txt").write_text("no image")


def tiny(folder):
    cv2.imwrite(str(folder / "tiny.png"), texture(1, 20, 20))


def opaque(folder):
    write_photographs(folder, 3)


def opaque_alpha(folder):
    cv2.imwrite(str(folder / "x.png"), np.dstack([texture(1, 60, 50), np.full((60, 50), 255, np.uint8)]))


def empty_mask(folder):
    cv2.imwrite(str(folder / "x.jpg"), texture(1, 60, 50))
    cv2.imwrite(str(folder / "x_mask.png"), np.zeros((60, 50), np.uint8))


@pytest.mark.parametrize("fill", [empty, only_text, tiny])
def test_a_folder_without_photographs_is_named(tmp_path, fill):
    folder = tmp_path / "wrong"
    folder.mkdir()
    fill(folder)
    with pytest.raises(UserError, match=r"wrong has no usable photograph: .*; give a folder of photographs"):
        find_sources([write_photographs(tmp_path / "good"), folder], [write_cut_outs(tmp_path / "things")], "train")


@pytest.mark.parametrize("fill", [empty, only_text, tiny, opaque, opaque_alpha, empty_mask])
def test_a_folder_without_cut_outs_is_named(tmp_path, fill):
    folder = tmp_path / "wrong"
    folder.mkdir()
    fill(folder)
    with pytest.raises(UserError, match=r"wrong has no usable cut-out: .*; give images with an alpha channel or masks"):
        find_sources([write_photographs(tmp_path / "good")], [write_cut_outs(tmp_path / "things"), folder], "train")


def test_images_of_no_use_among_others_are_counted(tmp_path):
    things = write_photographs(write_cut_outs(tmp_path / "things"), 2)
    sources = find_sources([write_photographs(tmp_path / "photographs")], [things], "train")
    assert len(sources.remarks) == 1
    assert "2 of 14 cut-outs are left out" in sources.remarks[0]


@pytest.mark.parametrize("name", ["photographs/broken.png", "things/broken.png", "things/masks/c1000.png"])
def test_a_broken_png_is_named(tmp_path, name):
    photographs, things = write_photographs(tmp_path / "photographs"), write_cut_outs(tmp_path / "things")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    broken_png(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is not a readable image"):
        find_sources([photographs], [things], "train")


def test_a_damaged_jpeg_is_named(tmp_path):
    photographs, things = write_photographs(tmp_path / "photographs"), write_cut_outs(tmp_path / "things")
    path = photographs / "p3.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match=r"p3\.jpg is (damaged|not a readable image)"):
        find_sources([photographs], [things], "train")


def test_a_mask_of_another_size_is_named(tmp_path):
    photographs, things = write_photographs(tmp_path / "photographs"), write_cut_outs(tmp_path / "things")
    cv2.imwrite(str(things / "c1000_mask.png"), disc(30, 30))
    with pytest.raises(UserError, match=r"c1000_mask\.png is a mask of 30 x 30 px, but .*c1000\.png has 50 x 60"):
        find_sources([photographs], [things], "train")


@pytest.mark.parametrize(("photographs", "cut_outs", "sort"), [(2, 9, "photographs"), (9, 1, "cut-outs")])
def test_too_few_images_for_three_splits(tmp_path, photographs, cut_outs, sort):
    folders = (
        [write_photographs(tmp_path / "photographs", photographs)],
        [write_cut_outs(tmp_path / "things", cut_outs)],
    )
    with pytest.raises(UserError, match=rf"too few {sort} to keep train, val and test apart: [12] different ones"):
        find_sources(*folders, "train")


def test_copies_do_not_make_enough(tmp_path):
    things = write_cut_outs(tmp_path / "things", 2)
    for path in list(things.iterdir()):
        shutil.copy(path, things / f"copy_of_{path.name}")
    with pytest.raises(UserError, match="too few cut-outs"):
        find_sources([write_photographs(tmp_path / "photographs")], [things], "train")


def test_three_of_each_are_enough(tmp_path):
    folders = [write_photographs(tmp_path / "photographs", 3)], [write_cut_outs(tmp_path / "things", 3)]
    found = [find_sources(*folders, split) for split in SPLITS]
    assert [(len(sources.photographs), len(sources.cut_outs)) for sources in found] == [(1, 1)] * 3


@pytest.mark.parametrize(
    "line", ["[1]", "{", '{"labels": ["a"]}', '{"image": "x.jpg", "labels": 3}', '{"image": "x.jpg", "labels": [3]}']
)
def test_a_wrong_line_of_labels_is_named(tmp_path, line):
    things = write_cut_outs(tmp_path / "things")
    (things / "boxes.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"boxes\.jsonl, line 1, is no JSON object"):
        find_sources([write_photographs(tmp_path / "photographs")], [things], "train")


def test_labels_of_one_image_in_two_lines_are_named(tmp_path):
    things = write_cut_outs(tmp_path / "things")
    (things / "boxes.jsonl").write_text('{"image": "x.jpg", "labels": ["a"]}\n{"image": "x.jpg", "labels": ["b"]}\n')
    with pytest.raises(UserError, match=r"boxes\.jsonl, line 2: 'x\.jpg' has labels before; put all in one line"):
        find_sources([write_photographs(tmp_path / "photographs")], [things], "train")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    os.mkfifo(photographs / "pipe.jpg")
    assert find_sources([photographs], [write_cut_outs(tmp_path / "things")], "train").photographs


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        find_sources([tmp_path / "nowhere"], [tmp_path], "train")
