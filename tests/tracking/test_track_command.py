import cv2
import numpy as np
import pytest

from relo.errors import UserError
from relo.tracking.boxes_file import read_boxes
from relo.tracking.command import track
from relo.tracking.tracker import Tracker
from relo.tracking.video import open_frames
from relo.weights import save_network

FRAMES = 6
BOX = "40,30,30.5,40"


@pytest.fixture
def model(network, tmp_path):
    save_network(network, tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"{index}.jpg"), random.integers(0, 255, (120, 160, 3), np.uint8))
    return str(folder)


def test_writes_boxes_and_video_and_prints_the_score(model, source, tmp_path, capsys):
    truth = tmp_path / "truth.txt"
    truth.write_text("40,30,30.5,40\n" * FRAMES)
    boxes, video = tmp_path / "out" / "boxes.txt", tmp_path / "out" / "video.mp4"
    track(source, box=BOX, model=model, save=boxes, render=video, truth=truth, device="cpu")
    boxes_xywh = read_boxes(boxes)
    assert boxes_xywh.shape == (FRAMES, 4)
    assert boxes_xywh[0].tolist() == [40, 30, 30.5, 40]
    assert len(list(open_frames(video))) == FRAMES
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Tracked {FRAMES} frames" in printed
    assert "Success AUC" in printed


def test_score_of_truth_is_perfect(model, source, tmp_path, capsys):
    boxes = tmp_path / "boxes.txt"
    track(source, box=BOX, model=model, save=boxes, device="cpu")
    # Frames without a truth box do not count; the file is for the whole source, whatever part is tracked.
    lines = boxes.read_text().splitlines()
    truth = tmp_path / "truth.txt"
    truth.write_text("\n".join([*lines[:4], "NaN,NaN,NaN,NaN", "0,0,0,0"]))
    track(source, box=BOX, model=model, truth=truth, device="cpu")
    assert "AUC 0.952 over the 4 frames" in " ".join(capsys.readouterr().out.split())
    x, y, w, h = lines[2].split(",")
    track(source, box=f"{x},{y},{w},{h}", model=model, truth=truth, start=2, limit=1, device="cpu")
    assert "AUC 0.952 over the 1 frames" in " ".join(capsys.readouterr().out.split())


def test_video_gives_the_boxes_of_its_frames(model, source, tmp_path):
    track(source, box=BOX, model=model, render=tmp_path / "video.avi", save=tmp_path / "a.txt", limit=3, device="cpu")
    assert len(read_boxes(tmp_path / "a.txt")) == len(list(open_frames(tmp_path / "video.avi"))) == 3


def test_interrupted_work_is_kept(model, source, tmp_path, monkeypatch, capsys):
    step = Tracker.step

    def interrupted_step(self, images, states, keep_response=False):
        if states[0].frame_index == 2:
            raise KeyboardInterrupt
        return step(self, images, states, keep_response)

    monkeypatch.setattr(Tracker, "step", interrupted_step)
    boxes, video = tmp_path / "boxes.txt", tmp_path / "video.mp4"
    with pytest.raises(KeyboardInterrupt):
        track(source, box=BOX, model=model, save=boxes, render=video, device="cpu")
    assert len(read_boxes(boxes)) == 3
    assert len(list(open_frames(video))) == 3
    assert "Stopped after 3 frames" in " ".join(capsys.readouterr().out.split())


def test_broken_frame_keeps_the_boxes_before_it(model, source, tmp_path):
    (tmp_path / "frames" / "3.jpg").write_bytes(b"half")
    with pytest.raises(UserError, match=r"3\.jpg"):
        track(source, box=BOX, model=model, save=tmp_path / "boxes.txt", device="cpu")
    assert len(read_boxes(tmp_path / "boxes.txt")) == 3


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "", "500,500,20,20", "10,10,0,5"])
def test_bad_box_touches_no_file(model, source, tmp_path, box):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("kept")
    with pytest.raises(UserError, match="box"):
        track(source, box=box, model=model, save=boxes, render=tmp_path / "video.mp4", device="cpu")
    assert boxes.read_text() == "kept"
    assert not (tmp_path / "video.mp4").exists()


def test_other_mistakes_are_named(model, source, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        track(str(tmp_path / "nowhere"), box=BOX, model=model)
    with pytest.raises(UserError, match="missing"):
        track(source, box=BOX, model=str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"truth\.txt"):
        track(source, box=BOX, model=model, truth=tmp_path / "truth.txt")
    with pytest.raises(UserError, match=r"video\.gif"):
        track(source, box=BOX, model=model, render=tmp_path / "video.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        track(source, box=BOX, model=model, save=tmp_path / "file" / "boxes.txt", device="cpu")


@pytest.mark.parametrize(
    ("folder", "truth", "box"),
    [
        ("david", "groundtruth_rect.txt", "129,80,64,78"),
        ("otb_Crossing", "groundtruth.txt", "205,151,17,50"),
        ("vot_bag", "groundtruth_aabb_xywh.txt", "292.23,128.36,145.96,132.47"),
    ],
)
def test_real_video_runs_end_to_end(shared, model, tmp_path, capsys, folder, truth, box):
    root = shared / "sequences" / folder
    if not root.is_dir():
        pytest.skip(f"no sequence {folder}")
    track(str(root / "img"), box=box, model=model, truth=root / truth, save=tmp_path / "a.txt", limit=20, device="cpu")
    assert len(read_boxes(tmp_path / "a.txt")) == 20
    assert "over the 20 frames" in " ".join(capsys.readouterr().out.split())
