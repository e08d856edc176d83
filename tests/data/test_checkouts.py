"""Photo sets out of small checkouts in the form that their repositories have."""

import importlib.util
import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from relo.data.sequences import open_reader
from relo.errors import UserError

SCRIPT = Path(__file__).parents[2] / "data_prep" / "checkouts.py"


@pytest.fixture
def checkouts(monkeypatch):
    specification = importlib.util.spec_from_file_location("checkouts", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "checkouts", module)
    specification.loader.exec_module(module)
    return module


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def mask(width, height, x, y, w, h, value=255):
    marked = np.zeros((height, width), np.uint8)
    marked[y : y + h, x : x + w] = value
    return marked


def save_mat(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, values)


def voc(path, *things):
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for name, x1, y1, x2, y2 in things
    ]
    path.write_text(f"<annotation>{''.join(parts)}</annotation>")


def ecssd(root):
    save(root / "data/images/1.jpg", noise(120, 80))
    marked = mask(120, 80, 10, 20, 30, 40)
    marked[2, 100] = 255  # a speck
    save(root / "data/ground_truth_mask/1.png", marked)
    return {"1_0": [10, 20, 30, 40]}


def human_segmentation(root):
    save(root / "Training_Images/1.jpg", noise(1280, 640))
    save(root / "Ground_Truth/1.png", mask(1280, 640, 100, 200, 300, 400))
    return {"1_0": [50, 100, 150, 200]}  # photographs are scaled to 640 px


def bsds500(root):
    save(root / "BSDS500/data/images/train/1.jpg", noise(120, 80))
    agreed, own = mask(120, 80, 10, 20, 30, 40, 1), mask(120, 80, 60, 20, 30, 40, 2)
    annotators = np.empty((1, 2), object)
    # The second one numbers regions otherwise, and does not see the first one's second region.
    for index, segmentation in enumerate((agreed + own + 1, 7 - 3 * agreed)):
        annotators[0, index] = {"Segmentation": segmentation.astype(np.uint16)}
    save_mat(root / "BSDS500/data/groundTruth/train/1.mat", groundTruth=annotators)
    return {"1_0": [10, 20, 30, 40]}


def clothing_coparsing(root):
    for name in ("0001", "0002"):
        save(root / f"photos/{name}.jpg", noise(60, 80))
    save_mat(root / "annotations/pixel-level/0001.mat", groundtruth=mask(60, 80, 10, 20, 30, 40, 41))
    return {"0001_0": [10, 20, 30, 40]}


def camvid(root):
    classes = np.maximum(mask(120, 80, 10, 20, 30, 40, 8), mask(120, 80, 60, 20, 30, 40, 1))  # a car, a building
    save(root / "CamVid/val/1.png", noise(120, 80))
    save(root / "CamVid/valannot/1.png", classes)
    return {"1_0": [10, 20, 30, 40]}


def vedai_aerial(root):
    folder = root / "tensorflow-yolo/data"
    save(folder / "images_jpg/00000000.jpg", noise(200, 200))
    lines = ["00000000_co.png,200,200,vehicle,10,20,40,60", "00000000_co.png,200,200,vehicle,100,20,105,24"]
    (folder / "annotation1024.csv").write_text("\n".join(["filename,width,height,class,xmin,ymin,xmax,ymax", *lines]))
    return {"00000000_0": [10, 20, 30, 40]}


def aerial_cars(root):
    for name in ("DJI-1.JPG", "harlem-1.jpg"):
        save(root / name, noise(200, 100))
        (root / name).with_suffix(".txt").write_text("0 0.125 0.4 0.15 0.4\n")
    save(root / "DJI-2.jpg", noise(200, 100))
    (root / "DJI-2.txt").write_text("")
    (root / "train.txt").write_text("DJI-1.JPG\n")
    return {"DJI-1_0": [10, 20, 30, 40]}


def animals(annotations):
    def make(root):
        save(root / "images/a-1.jpg", noise(120, 80))
        voc(root / annotations / "a-1.xml", ("animal", 10, 20, 40, 60), ("animal", 50, 20, 70, 60))
        return {"a-1_0": [10, 20, 30, 40], "a-1_1": [50, 20, 20, 40]}

    return make


def grocery_store(root):
    save(root / "dataset/val/Fruit/Apple/1.jpg", noise(60, 80))
    save(root / "dataset/iconic-images-and-descriptions/Fruit/1.jpg", noise(60, 80))
    return {"dataset_val_Fruit_Apple_1.jpg"}


def caltech101(root):
    save(root / "101_ObjectCategories/ant/image_0001.jpg", noise(60, 80))
    return {"101_ObjectCategories_ant_image_0001.jpg"}


def imagenet_sample(root):
    save(root / "n1_cat.jpg", noise(60, 80))
    (root / "n1_cat.jpg").rename(root / "n1_cat.JPEG")
    return {"n1_cat.jpg"}


def davis16_val(root):
    names = []
    for index in range(3):
        save(root / f"JPEGImages/480p/dog/{index:05d}.jpg", noise(120, 80))
        save(root / f"Annotations/480p/dog/{index:05d}.png", mask(120, 80, 10, 20, 30, 40 if index < 2 else 0))
        names.append(f"/JPEGImages/480p/dog/{index:05d}.jpg /Annotations/480p/dog/{index:05d}.png")
    (root / "ImageSets/480p").mkdir(parents=True)
    (root / "ImageSets/480p/val.txt").write_text("\n".join(names))
    return {"dog": ([10, 20, 30, 40], 3)}


def w_tracking(root):
    for camera in (1, 2, 3):
        for index in range(60):
            save(root / f"ProcessedSeq/video{camera}/{index + 1:04d}.jpg", noise(40, 40))
        rows = ["10 20 30 40" if camera == 2 and (index < 25 or 30 < index < 40) else "0 0 0 0" for index in range(60)]
        (root / "annotations/Person1/boundingbox").mkdir(parents=True, exist_ok=True)
        (root / f"annotations/Person1/boundingbox/gt_cam{camera}.txt").write_text("\n".join(rows))
    return {"2_0000": ([10, 20, 30, 40], 25)}


def fod_a(root):
    for index in range(70):
        save(root / f"JPEGImages/{index:06d}.jpg", noise(100, 80))
        thing = ("Bolt", 10, 20, 40, 60) if index < 25 else ("Bolt", 60, 20, 90, 60)
        things = [thing, ("Nut", 1, 1, 9, 9)] if index == 50 else [("Nut", *thing[1:])] if index > 60 else [thing]
        voc(root / f"Annotations/{index:06d}.xml", *things)
    return {"000000_Bolt": ([10, 20, 30, 40], 25), "000025_Bolt": ([60, 20, 30, 40], 25)}


def svanstrom(root):
    """64 frames with a drone, which another one joins in the last two; a small bird; a video that is held back."""
    folder = root / "Data/Video_V"
    folder.mkdir(parents=True)
    for name, width in (("V_DRONE_001", 40), ("V_BIRD_001", 20), ("V_HELICOPTER_028", 40)):
        video = cv2.VideoWriter(str(folder / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (64, 48))
        assert video.isOpened()
        for index in range(64):
            video.write(np.full((48, 64, 3), 3 * index, np.uint8))
        video.release()
        cells = np.empty((64, 4), object)
        for frame in range(64):
            drones = [[5 + 0.25 * frame, 7, width, 36]] * (1 if frame < 62 else 2)
            cells[frame] = [np.empty((0, 0)), np.empty((0, 0)), np.array(drones), np.empty((0, 0))]
        save_ground_truth(folder / f"{name}_LABELS.mat", cells)
    return {"V_DRONE_001_000": ([4, 6, 40, 36], 21)}


def save_ground_truth(path, cells):
    """An object of MATLAB's, as scipy reads one: a matrix of bytes without a name, which are matrices themselves."""
    inner = io.BytesIO()
    scipy.io.savemat(inner, {"cells": cells.reshape(1, -1)})
    content = np.frombuffer(inner.getvalue()[128:], np.uint8)
    scipy.io.savemat(path, {"x": content[None]})
    named = path.read_bytes()
    assert named.count(b"\1\0\1\0x\0\0\0") == 1
    path.write_bytes(named.replace(b"\1\0\1\0x\0\0\0", b"\1\0\0\0\0\0\0\0"))


MADE = {
    **{make.__name__: make for make in (ecssd, human_segmentation, bsds500, clothing_coparsing, camvid, vedai_aerial)},
    **{make.__name__: make for make in (aerial_cars, davis16_val, w_tracking, fod_a, svanstrom)},
    "raccoon": animals("annotations"),
    "kangaroo": animals("annots"),
}


BACKGROUNDS = {make.__name__: make for make in (grocery_store, caltech101, imagenet_sample)}


def test_every_set_is_tried(checkouts):
    assert set(MADE) | set(BACKGROUNDS) == set(checkouts.CONVERTERS)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_checkout_becomes_backgrounds(name, checkouts, tmp_path):
    expected = BACKGROUNDS[name](tmp_path / "checkout")
    checkouts.convert(name, tmp_path / "checkout", tmp_path / "sets" / name)
    assert {path.name for path in (tmp_path / "sets" / name).rglob("*.*")} == expected


@pytest.mark.parametrize("name", MADE)
def test_a_checkout_becomes_a_set(name, checkouts, tmp_path):
    expected = MADE[name](tmp_path / "checkout")
    for _ in range(2):  # the second time it is there
        checkouts.convert(name, tmp_path / "checkout", tmp_path / "sets" / name)
    is_video = name in ("davis16_val", "w_tracking", "fod_a", "svanstrom")
    reader = open_reader("plain" if is_video else "photos", tmp_path / "sets" / name, "all")
    assert sorted(reader.names) == sorted(expected)
    for index, found in enumerate(reader.names):
        box_xywh, frames = expected[found] if is_video else (expected[found], 1)
        sequence = reader[index]
        assert len(sequence) == frames
        assert sequence.frames[0].shape[2] == 3
        np.testing.assert_allclose(sequence.boxes_xywh[0], box_xywh, atol=1)
    if name == "davis16_val":
        assert list(reader[0].visible) == [True, True, False]
    if name == "svanstrom":  # every third frame, its own box to each
        np.testing.assert_allclose([frame.mean() for frame in reader[0].frames], 9 * np.arange(21), atol=4)
        np.testing.assert_allclose(reader[0].boxes_xywh[:, 0], 4 + 0.75 * np.arange(21))


@pytest.mark.parametrize("name", [*MADE, *BACKGROUNDS])
def test_what_is_no_checkout_is_one_sentence_and_leaves_nothing(name, checkouts, tmp_path):
    (tmp_path / "checkout").mkdir()
    with pytest.raises(UserError, match=rf"checkout .*set {name} .*; clone it again\.$"):
        checkouts.convert(name, tmp_path / "checkout", tmp_path / "sets" / name)
    assert not (tmp_path / "sets" / name).exists()


def test_a_damaged_annotation_leaves_nothing(checkouts, tmp_path):
    animals("annotations")(tmp_path / "raccoon_dataset")
    (tmp_path / "raccoon_dataset/annotations/a-1.xml").write_text("<annotation><object>")
    with pytest.raises(UserError, match="no checkout that the set raccoon can be made of"):
        checkouts.convert("raccoon", tmp_path / "raccoon_dataset", tmp_path / "sets/raccoon")
    assert not (tmp_path / "sets/raccoon").exists()


def test_labels_of_another_video_are_refused(checkouts, tmp_path):
    svanstrom(tmp_path)
    labels = tmp_path / "Data/Video_V/V_DRONE_001_LABELS.mat"
    save_ground_truth(labels, np.array([[np.ones((1, 4))] + 3 * [np.empty((0, 0))]] * 30, object))
    with pytest.raises(UserError, match=r"V_DRONE_001.mp4 has 64 frames, and labels for 30"):
        checkouts.convert("svanstrom", tmp_path, tmp_path / "sets/svanstrom")


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0"])
def test_a_damaged_matlab_file_leaves_nothing(content, checkouts, tmp_path):
    folder = tmp_path / "clothing-co-parsing/annotations/pixel-level"
    folder.mkdir(parents=True)
    (folder / "0001.mat").write_bytes(content)
    with pytest.raises(UserError, match="no checkout that the set clothing_coparsing can be made of"):
        checkouts.convert("clothing_coparsing", folder.parents[1], tmp_path / "sets/clothing_coparsing")


def test_a_damaged_image_is_named_and_left_out(checkouts, tmp_path, capsys):
    root = tmp_path / "raccoon_dataset"
    animals("annotations")(root)
    whole = (root / "images/a-1.jpg").read_bytes()
    (root / "images/b.jpg").write_bytes(whole[: len(whole) // 2])
    voc(root / "annotations/b.xml", ("animal", 10, 20, 40, 60))
    checkouts.convert("raccoon", root, tmp_path / "sets/raccoon")
    assert "b.jpg is not a readable image" in capsys.readouterr().out
    assert open_reader("photos", tmp_path / "sets/raccoon", "all").names == ["a-1_0", "a-1_1"]
