import json

import cv2
import numpy as np
import pytest

import relo
from relo.data.sequences import open_reader
from relo.evaluation.one_pass import run_one_pass
from relo.evaluation.sequence_scores import sequence_auc
from relo.models.checkpoints.weights import save_network
from small_networks import make_network

FRAMES = 5


@pytest.fixture
def opencv_trackers(script):
    return script("opencv_trackers")


@pytest.fixture
def sequences(tmp_path):
    """Two videos of a bright square that moves; on its last frame the first one has no truth."""
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (images := tmp_path / "sequences" / name / "img").mkdir(parents=True)
        for index in range(FRAMES):
            image = random.integers(0, 60, (90, 120, 3), np.uint8)
            image[20:50, 30 + 3 * index : 60 + 3 * index] = random.integers(150, 255, (30, 30, 3))
            cv2.imwrite(str(images / f"{index}.png"), image)
        rows = [f"{30 + 3 * index},20,30,30" for index in range(FRAMES)]
        rows[-1] = "nan,nan,nan,nan" if name == "a" else rows[-1]
        (images.parent / "groundtruth.txt").write_text("\n".join(rows))
    return tmp_path / "sequences"


def test_the_trackers_stand_side_by_side(opencv_trackers, sequences, tmp_path, capsys, monkeypatch):
    save_network(make_network(), tmp_path / "model")
    monkeypatch.delattr(cv2, "TrackerKCF_create", raising=False)
    trackers, output = ["relo", "KCF", "MIL", "NanoTrack"], tmp_path / "out"
    words = ["--model", str(tmp_path / "model"), "--output", str(output), "--trackers", *trackers]
    opencv_trackers.main([str(sequences), *words])
    printed = capsys.readouterr().out
    assert "KCF is left out: OpenCV" in printed
    assert "NanoTrack is left out: its two files are given with --nano" in printed
    scores = json.loads((output / "scores.json").read_text())["trackers"]
    assert scores.keys() == {"relo", "MIL"}
    tracker = relo.Tracker.from_pretrained(tmp_path / "model", device="cpu")
    expected = {
        result.name: 100 * sequence_auc(result)
        for result in run_one_pass(tracker, open_reader("plain", sequences, "all"))
    }
    assert scores["relo"]["sequences"] == pytest.approx(expected, abs=0.1)
    values = np.array(list(expected.values()))
    assert scores["relo"]["AUC"] == f"{values.mean():.1f} ± {values.std(ddof=1) / 2**0.5:.1f}"
    gained = values - list(scores["MIL"]["sequences"].values())
    assert scores["MIL"]["relo minus it"] == f"{gained.mean():+.1f} ± {gained.std(ddof=1) / 2**0.5:.1f}"
    assert all(float(scores[name][column]) > 0 for name in scores for column in ("ms", "ms of core", "ms, first frame"))
    lines = (output / "table.md").read_text().splitlines()
    assert [len(line.split("|")) for line in lines] == [len(lines[0].split("|"))] * 4
    for name in expected:
        assert cv2.imread(str(output / f"{name}.png")).shape == (240, 6 * 320, 3)


def test_a_tracker_that_says_it_lost_its_target_keeps_its_last_box(opencv_trackers, monkeypatch):
    class Lost:
        def init(self, image, box):
            assert box == (10, 20, 30, 41)
            self.answers = iter([(True, (11, 20, 30, 41)), (False, (0, 0, 0, 0))])

        def update(self, image):
            return next(self.answers)

    monkeypatch.setattr(cv2, "TrackerCSRT_create", Lost, raising=False)
    image = np.zeros((90, 120, 3), np.uint8)
    step = opencv_trackers.opencv_start("CSRT", None)(image, [10.2, 19.8, 30.0, 40.9])
    assert [step(image) for _ in range(2)] == [[11, 20, 30, 41]] * 2
