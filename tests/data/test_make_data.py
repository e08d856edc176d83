"""`make data` and `make demo`: the stores that they leave, and running them again."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from relo.data.clip_store import ClipStore
from relo.data.sequences import open_reader

SCRIPT = Path(__file__).parents[2] / "data_prep" / "make_data.py"


def make_data(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments), "--workers=0"]
    return subprocess.run(command, capture_output=True, text=True)


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    output = tmp_path_factory.mktemp("data")
    done = make_data("--output", output, "--train_sequences=8", "--test_sequences=3", "--frames=24")
    assert done.returncode == 0, done.stderr
    return output


def test_without_roots_all_three_layouts_are_made_and_packed(synthetic):
    sizes = {path.parent.name: len(ClipStore(path.parent)) for path in synthetic.glob("*/data.mdb")}
    assert sizes == {
        "synthetic_lasot_train": 4,
        "synthetic_got10k_train": 2,
        "synthetic_trackingnet_train": 2,
        "synthetic_lasot_test": 3,
    }
    for layout in ("lasot", "got10k", "trackingnet"):
        reader, store = (
            open_reader(layout, synthetic / "synthetic" / layout, "train"),
            ClipStore(synthetic / f"synthetic_{layout}_train"),
        )
        assert store.names == reader.names
        for packed, original in zip(store, reader, strict=True):
            assert packed.frames.encoded(5) == original.frames.encoded(5)
            assert (packed.visible == original.visible).all()


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """COCO's layout with two objects in one image."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    (root / "train2017").mkdir()
    cv2.imwrite(str(root / "train2017" / "1.jpg"), np.zeros((30, 40, 3), np.uint8))
    targets = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10 + i, 9], "iscrowd": 0} for i in (5, 6)]
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 1, "name": "cup"}]}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps({**content, "annotations": targets}))
    return root


def test_given_roots_are_packed_and_a_second_run_goes_on(synthetic, coco, tmp_path):
    roots = [f"--{name}={synthetic / 'synthetic' / name}" for name in ("lasot", "trackingnet")] + [f"--coco={coco}"]
    done = make_data("--output", tmp_path, *roots)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco_train", "lasot_train", "trackingnet_train"]
    assert len(ClipStore(tmp_path / "lasot_train")) == 4
    assert ClipStore(tmp_path / "coco_train").names == ["5", "6"]
    before = (tmp_path / "lasot_train" / "data.mdb").stat().st_size
    assert make_data("--output", tmp_path, *roots).returncode == 0
    assert (tmp_path / "lasot_train" / "data.mdb").stat().st_size == before


def test_the_demo_makes_two_stores_once(tmp_path):
    arguments = ("--output", tmp_path, "--demo", "--train_sequences=3", "--test_sequences=2", "--frames=24")
    assert make_data(*arguments).returncode == 0
    assert len(ClipStore(tmp_path / "synthetic_train")) == 3
    test = ClipStore(tmp_path / "synthetic_test")
    assert len(test) == 2
    assert not set(test.names) & set(ClipStore(tmp_path / "synthetic_train").names)
    made = times(tmp_path)
    assert len(made) == 5 * 24
    assert make_data(*arguments).returncode == 0
    assert times(tmp_path) == made


def test_a_missing_root_is_one_sentence(tmp_path):
    failed = make_data("--output", tmp_path, "--lasot", tmp_path / "nowhere")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert f"There is no folder {tmp_path / 'nowhere'}" in " ".join(failed.stderr.split())


def test_incomplete_got10k_is_packed_whole_and_says_so(synthetic, tmp_path):
    root = synthetic / "synthetic" / "got10k"
    failed = make_data("--output", tmp_path, "--got10k", root)  # has no val split
    assert "packing the whole of train" in failed.stderr
    assert len(ClipStore(tmp_path / "got10k_train")) == 2
    assert failed.returncode == 2
    assert "val/list.txt" in failed.stderr
