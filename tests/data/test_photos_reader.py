"""The reader of photographs with boxes or masks, on folders written here."""

import json
import pickle
import re

import cv2
import numpy as np
import pytest

from relo.commands.main import main
from relo.data import doctor
from relo.data.clip_store import ClipStore
from relo.data.image_splits import image_hash, split_of_hash
from relo.data.sequences import Photographs, open_reader
from relo.errors import UserError


def picture(path, size=(40, 30), grey=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), grey, np.uint8))


def mask(path, box_xywh=None, size=(40, 30), value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    if box_xywh is not None:
        x, y, w, h = box_xywh
        pixels[y : y + h, x : x + w] = value
    cv2.imwrite(str(path), pixels)


def describe(root, *lines):
    root.joinpath("boxes.jsonl").write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    )


@pytest.fixture
def photos(tmp_path):
    """Two photographs: the first with two boxes, one of which has a mask, too; the second with a mask alone."""
    root = tmp_path / "photos"
    picture(root / "images/cat_1.jpg")
    picture(root / "images/10.png")
    describe(root, {"image": "cat_1.jpg", "boxes_xywh": [[1.5, 2, 30, 20], [5, 5, 8, 9]], "labels": ["cat", None]}, "")
    mask(root / "masks/cat_1_0.png", (2, 2, 29, 20))
    mask(root / "masks/10_0.png", (3, 4, 10, 6), value=1)
    return root


def test_a_mask_without_a_photograph_leaves_the_others_of_use(photos):
    mask(photos / "masks/stray_0.png", (3, 4, 10, 6))
    for split in ("train", "val", "test"):
        reader = Photographs(photos, split)
        with pytest.raises(UserError, match=r"masks/stray_0\.png is of .*images/stray\.\*, which is not there"):
            reader[reader.names.index("stray_0")]


def test_a_label_may_hold_whatever_json_allows(photos):
    describe(photos, '{"image": "cat_1.jpg", "boxes_xywh": [[1, 2, 30, 20]], "labels": ["a\u2028cat"]}')
    assert next(iter(Photographs(photos).names[1:])) == "cat_1_0"


def test_things_are_sequences_of_one_frame(photos):
    reader = Photographs(photos)
    assert reader.names == ["10_0", "cat_1_0", "cat_1_1"]  # in natural order
    marked, cat, thing = reader
    assert marked.boxes_xywh.tolist() == [[3, 4, 10, 6]]
    assert cat.boxes_xywh.tolist() == [[1.5, 2, 30, 20]]  # as annotated, though it has a mask
    assert [s.class_name for s in (marked, cat, thing)] == [None, "cat", None]
    assert (len(cat), cat.visible.tolist(), cat.frames[0].shape) == (1, [True], (30, 40, 3))
    assert pickle.loads(pickle.dumps(reader)).names == reader.names
    assert reader.unused == []


def test_boxes_alone_and_masks_alone_will_do(photos):
    (photos / "boxes.jsonl").unlink()
    assert [s.boxes_xywh[0].tolist() for s in Photographs(photos)] == [[3, 4, 10, 6], [2, 2, 29, 20]]
    for path in photos.glob("masks/*"):
        path.unlink()
    (photos / "masks").rmdir()
    describe(photos, {"image": "cat_1.jpg", "boxes_xywh": [[0, 0, 40, 30]]})
    reader = Photographs(photos)
    assert reader.names == ["cat_1_0"]
    (sentence,) = reader.unused
    assert sentence == f"{photos / 'images'} holds 1 photographs without box or mask, such as 10.png: not read."


def test_a_mask_stands_for_a_box_that_is_not_given(photos):
    describe(photos, {"image": "cat_1.jpg", "boxes_xywh": [None], "labels": ["cat"]})
    mask(photos / "masks/cat_1_3.png", (0, 0, 5, 7))
    things = {thing.name: thing for thing in Photographs(photos)}
    assert things["cat_1_0"].boxes_xywh.tolist() == [[2, 2, 29, 20]]
    assert things["cat_1_0"].class_name == "cat"
    assert things["cat_1_3"].boxes_xywh.tolist() == [[0, 0, 5, 7]]


def test_what_is_too_small_is_not_visible(photos):
    describe(
        photos,
        {"image": "cat_1.jpg", "boxes_xywh": [[1, 1, 20, 4], [1, 1, 20, 3.9], [1, 1, 0, 5], [-9, 0, 50, 30]]},
    )
    assert [s.visible.tolist() for s in Photographs(photos)][1:] == [[True], [False], [False], [True]]
    assert [s.visible.tolist() for s in Photographs(photos, min_side=8)][1:] == [[False], [False], [False], [True]]


def test_splits_share_no_photograph_and_stay_when_photographs_are_added(photos):
    def add(numbers):
        for i in numbers:
            picture(photos / f"images/{i}.jpg", grey=i)
        describe(photos, *({"image": f"{i}.jpg", "boxes_xywh": [[1, 1, 9, 9], [2, 2, 9, 9]]} for i in numbers))

    (photos / "masks/10_0.png").unlink()
    (photos / "masks/cat_1_0.png").unlink()
    (photos / "images/10.png").unlink()
    add(range(40))
    before = {split: set(Photographs(photos, split).names) for split in ("train", "val", "test")}
    add(range(200))
    splits = {split: Photographs(photos, split) for split in ("train", "val", "test")}
    assert all(before[split] <= set(splits[split].names) for split in splits)
    in_splits = {split: {thing.frames.names[0] for thing in reader} for split, reader in splits.items()}
    assert sum(map(len, in_splits.values())) == len(set.union(*in_splits.values())) == 200
    assert 140 < len(in_splits["train"]) < 180
    assert len(Photographs(photos)) == 400


def test_a_photograph_keeps_its_split_under_another_name_and_in_composites(photos):
    encoded = (photos / "images/cat_1.jpg").read_bytes()
    split = split_of_hash(image_hash(encoded))
    describe(photos, {"image": "cat_1.jpg", "boxes_xywh": [[1, 1, 9, 9]]})
    assert "cat_1_0" in Photographs(photos, split).names
    (photos / "images/dog.jpg").write_bytes(encoded)
    describe(photos, {"image": "dog.jpg", "boxes_xywh": [[1, 1, 9, 9]]})
    assert "dog_0" in Photographs(photos, split).names


def test_a_split_without_photographs(photos):
    taken = {split_of_hash(image_hash(path.read_bytes())) for path in (photos / "images").iterdir()}
    empty = next(split for split in ("train", "val", "test") if split not in taken)
    message = rf"None of the 3 things in .* is in a photograph of split '{empty}'; mark more"
    with pytest.raises(UserError, match=message):
        len(Photographs(photos, empty))
    with pytest.raises(UserError, match="has no split 'dev'; there is all, train, val, test"):
        Photographs(photos, "dev")


BOX = {"image": "cat_1.jpg", "boxes_xywh": [[1, 1, 9, 9]]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "cat_1.jpg", "boxes', "Unterminated string"),
        ("[" * 100_000, "recursion"),
        ("5", 'an object with "image"'),
        ({"boxes_xywh": []}, 'an object with "image"'),
        (BOX | {"image": 5}, 'an object with "image"'),
        (BOX | {"image": "../cat_1.jpg"}, r"'\.\./cat_1\.jpg' is not the name of an image"),
        (BOX | {"image": "cat_1.txt"}, r"'cat_1\.txt' is not the name of an image"),
        (BOX | {"image": ""}, "'' is not the name of an image"),
        ({"image": "10.png"}, '"boxes_xywh" must be a list'),
        (BOX | {"boxes_xywh": [1, 1, 9, 9]}, "box 1 is not four numbers"),
        (BOX | {"boxes_xywh": [[1, 1, 9]]}, r"box \[1, 1, 9\] is not four numbers"),
        (BOX | {"boxes_xywh": [["a", 1, 9, 9]]}, 'box \\["a", 1, 9, 9\\] is not four numbers'),
        (BOX | {"boxes_xywh": [[[1, 2], 1, 9, 9]]}, r"box \[\[1, 2\], 1, 9, 9\] is not four numbers"),
        (BOX | {"boxes_xywh": [[float("nan"), 1, 9, 9]]}, r"box \[NaN, 1, 9, 9\] is not four numbers"),
        (BOX | {"boxes_xywh": [[True, 1, 9, 9]]}, r"box \[true, 1, 9, 9\] is not four numbers"),
        ('{"image": "cat_1.jpg", "image": "10.png", "boxes_xywh": []}', "two values named 'image'"),
        (BOX | {"boxes_xywh": [[10**400, 1, 9, 9]]}, "is not four numbers"),
        (BOX | {"labels": ["a", "b"]}, '"labels" must be a list of 1 words'),
        (BOX | {"labels": "a"}, '"labels" must be a list of 1 words'),
        (BOX | {"labels": [7]}, '"labels" must be words'),
        ({"image": "10.png", "boxes_xywh": []}, r"10\.png is on line 1 already"),
        (
            {"image": "10.jpg", "boxes_xywh": []},
            r"the things of 10\.jpg have the same names as those of 10\.png; rename",
        ),
        (BOX | {"boxes_xywh": [[1, 1, 9, 9], None]}, "null stands for a box, and there is no mask"),
    ],
)
def test_a_broken_line_is_named(photos, line, message):
    describe(photos, {"image": "10.png", "boxes_xywh": []}, line)
    with pytest.raises(UserError, match=re.escape(f"{photos / 'boxes.jsonl'}, line 2: ") + f".*{message}"):
        len(Photographs(photos))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "images/cat_1.jpg").unlink(), r"boxes\.jsonl, line 1 is of .*cat_1\.jpg, which is not"),
        (lambda root: (root / "images/10.png").unlink(), r"The mask .*10_0\.png is of .*10\.\*, which is not there"),
        (lambda root: (root / "images/10.png").write_bytes(b"no image"), r"10\.png is not a readable image"),
        (lambda root: (root / "masks/10_0.png").write_bytes(b"no mask"), r"10_0\.png is not a readable image"),
        (lambda root: mask(root / "masks/10_0.png", (1, 1, 9, 9), size=(30, 40)), r"10_0\.png is 30x40 px, its photog"),
        (lambda root: mask(root / "masks/10_0.png"), r"The mask .*10_0\.png is black all over"),
        (lambda root: mask(root / "masks/10.png", (1, 1, 9, 9)), r"10\.png is not named <image>_<k>\.png"),
        (lambda root: mask(root / "masks/10_00.png", (1, 1, 9, 9)), r"holds 10_0\.png and 10_00\.png, two masks"),
        (lambda root: picture(root / "images/10.jpg"), r"holds 10\.jpg and 10\.png, whose masks have the same names"),
        (lambda root: describe(root, BOX | {"boxes_xywh": [[35, 1, 12, 9]]}), r"line 1: box .* has its centre outside"),
        (lambda root: describe(root, BOX | {"boxes_xywh": [[1, -9, 9, 9]]}), r"line 1: box .* has its centre outside"),
    ],
)
def test_broken_photographs_and_masks(photos, change, message):
    change(photos)
    with pytest.raises(UserError, match=message):
        list(Photographs(photos))


def test_broken_roots(photos, tmp_path):
    with pytest.raises(UserError, match=r"There is no folder .*images; put the photographs there"):
        Photographs(photos / "masks")
    (tmp_path / "empty/images").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds neither boxes\.jsonl nor a folder masks"):
        Photographs(tmp_path / "empty")
    describe(tmp_path / "empty")
    with pytest.raises(UserError, match=r"empty marks no thing"):
        len(Photographs(tmp_path / "empty"))


def test_photographs_are_packed_and_recognised(photos, tmp_path, capsys):
    (photos / "images/10.png").unlink()
    packing = ["data", "pack", "photos", str(photos), str(tmp_path / "store"), "--workers=0"]
    with pytest.raises(SystemExit, match="2"):
        main(packing)
    assert re.search(r"photos/10_0 is broken: The mask \S+ is of \S+", capsys.readouterr().err.replace("\n", " "))
    main([*packing, "--skip_broken=true"])
    store = ClipStore(tmp_path / "store")
    assert store.names == ["cat_1_0", "cat_1_1"]
    assert store[0].boxes_xywh.tolist() == [[1.5, 2, 30, 20]]
    assert doctor.recognise(photos) == "photos"
    (finding,) = doctor.look_at(photos, "photos")
    assert (finding.what, finding.sequences, len(finding.problems)) == ("photos all", 3, 1)
    assert open_reader("photos", photos, "all", min_side=9)[1].visible.tolist() == [True]
