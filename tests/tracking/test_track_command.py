import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import relo.models.checkpoints.weights
from relo.commands.main import main
from relo.commands.track import track
from relo.commands.track_report import Tracked, report
from relo.data.sequences.parsing import read_boxes
from relo.errors import UserError
from relo.models.checkpoints.weights import save_network
from relo.models.network import LocalizationNetwork
from relo.models.presence import ConvPresence
from relo.tracking.boxes_file import read_values
from relo.tracking.sources import open_frames
from relo.tracking.tracker import Tracker
from relo.tracking.video_writer import VideoWriter

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
    track(source, box=[BOX], model=model, save=[boxes], render=video, truth=truth, device="cpu")
    boxes_xywh = read_boxes(boxes)
    assert boxes_xywh.shape == (FRAMES, 4)
    assert boxes_xywh[0].tolist() == [40, 30, 30.5, 40]
    assert len(list(open_frames(video))) == FRAMES
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Tracked {FRAMES} frames" in printed
    assert "Success AUC" in printed


def test_without_a_model_it_tracks_with_the_one_that_comes_with_the_package(model, source, tmp_path, monkeypatch):
    monkeypatch.setattr(relo.models.checkpoints.weights, "SHIPPED_FOLDER", Path(model))
    for name, words in {"given": ["--model", model], "named": ["--model", "relo-small"], "none": []}.items():
        main(["track", source, "--box", BOX, "--save", str(tmp_path / f"{name}.txt"), "--device", "cpu", *words])
    given, *others = (read_boxes(tmp_path / f"{name}.txt") for name in ("given", "named", "none"))
    assert all(np.array_equal(boxes_xywh, given) for boxes_xywh in others)


def test_score_of_truth_is_perfect(model, source, tmp_path, capsys):
    boxes = tmp_path / "boxes.txt"
    track(source, box=[BOX], model=model, save=[boxes], device="cpu")
    # Frames without a truth box do not count; the file is for the whole source, whatever part is tracked.
    lines = boxes.read_text().splitlines()
    truth = tmp_path / "truth.txt"
    truth.write_text("\n".join([*lines[:4], "NaN,NaN,NaN,NaN", "0,0,0,0"]))
    track(source, box=[BOX], model=model, truth=truth, device="cpu")
    assert "AUC 0.952 over the 4 frames" in " ".join(capsys.readouterr().out.split())
    x, y, w, h = lines[2].split(",")
    track(source, box=[f"{x},{y},{w},{h}"], model=model, truth=truth, start=2, limit=1, device="cpu")
    assert "AUC 0.952 over the 1 frames" in " ".join(capsys.readouterr().out.split())


def test_video_gives_the_boxes_of_its_frames(model, source, tmp_path):
    track(
        source, box=[BOX], model=model, render=tmp_path / "video.avi", save=[tmp_path / "a.txt"], limit=3, device="cpu"
    )
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
        track(source, box=[BOX], model=model, save=[boxes], render=video, device="cpu")
    assert len(read_boxes(boxes)) == 3
    assert len(list(open_frames(video))) == 3
    assert "Stopped after 3 frames" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("box", "said"),
    [
        *((text, "is not a box; give x,y,w,h") for text in ("1,2,3", "a,b,c,d", "", "30,,20,20,20", "x" * 300)),
        ("500,500,20,20", "lies outside the image"),
        ("10,10,0,5", "has no area"),
        ("-10000,-10000,30000,30000", "is more than 2 times as large as the image"),
    ],
)
def test_bad_box_touches_no_file(model, source, tmp_path, box, said):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("kept")
    with pytest.raises(UserError, match=said):
        track(source, box=[box], model=model, save=[boxes], render=tmp_path / "video.mp4", device="cpu")
    assert boxes.read_text() == "kept"
    assert not (tmp_path / "video.mp4").exists()


@pytest.mark.parametrize("text", ["40,30,30.5,40", "\ufeff40\t30\t30.5\t40\r\n", "\ufeff40;30;30.5;40\n\n"])
def test_first_box_and_truth_from_files_however_they_were_saved(model, source, tmp_path, capsys, text):
    one, truth = tmp_path / "one.txt", tmp_path / "truth.txt"
    one.write_bytes(text.encode())
    truth.write_bytes(b"".join([text.rstrip().encode(), b"\r\n" + b"40 30 30.5 40\r\n" * (FRAMES - 1)]))
    for box, start in ((one, 0), (truth, 0), (one, 3), (truth, 3)):
        track(source, box=[str(box)], model=model, truth=truth, save=[tmp_path / "a.txt"], start=start, device="cpu")
        assert read_boxes(tmp_path / "a.txt")[0].tolist() == [40, 30, 30.5, 40]
        printed = " ".join(capsys.readouterr().out.split())
        assert f"over the {FRAMES - start} frames" in printed
        assert "belong" not in printed


def test_first_box_is_that_of_the_first_tracked_frame(model, source, tmp_path):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("10,10,20,20\n11,11,20,20\n12,12,20,20\n")
    track(source, box=[str(boxes)], model=model, save=[tmp_path / "a.txt"], start=2, limit=1, device="cpu")
    assert read_boxes(tmp_path / "a.txt").tolist() == [[12, 12, 20, 20]]
    with pytest.raises(UserError, match=r"boxes\.txt has 3 boxes, none of frame 3"):
        track(source, box=[str(boxes)], model=model, start=3, device="cpu")
    for text, message in (("", "0 boxes"), ("10,10,20,20\n\n1,2,3,4", "line 2"), ("1,2,3,4,5,6,7,8", "4 numbers")):
        boxes.write_text(text)
        with pytest.raises(UserError, match=rf"boxes\.txt.*{message}"):
            track(source, box=[str(boxes)], model=model, device="cpu")


@pytest.mark.parametrize(
    ("rows", "start", "limit", "remark"),
    [
        (FRAMES, 0, None, None),
        (FRAMES, 2, None, None),
        (FRAMES, 0, 3, None),
        (3, 0, 3, None),
        (3, 0, None, f"3 boxes for {FRAMES} frames"),
        (1, 2, 2, "1 boxes for 4 frames"),
        (9, 0, None, f"9 boxes for {FRAMES} frames"),
        (9, 1, 20, f"9 boxes for {FRAMES} frames"),
    ],
)
def test_truth_of_another_length_is_remarked_on(model, source, tmp_path, capsys, rows, start, limit, remark):
    truth = tmp_path / "truth[a].txt"
    truth.write_text("40,30,30.5,40\n" * rows)
    track(source, box=[BOX], model=model, truth=truth, start=start, limit=limit, device="cpu")
    printed = capsys.readouterr().out
    assert ("may not belong together" in printed) == (remark is not None)
    assert f"{truth} holds {remark}" in printed if remark else "Success AUC" in printed


def test_cut_video_says_so_at_the_end(model, tmp_path, capsys):
    whole, cut = tmp_path / "whole.avi", tmp_path / "cut.avi"
    random = np.random.default_rng(0)
    with VideoWriter(whole) as video:
        for _ in range(20):
            video.write(random.integers(0, 255, (120, 160, 3), np.uint8))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    remark = "The video announces 20 frames and ends after"
    track(str(cut), box=[BOX], model=model, save=[tmp_path / "a.txt"], device="cpu")
    found = len(read_boxes(tmp_path / "a.txt"))
    assert f"{remark} {found}: it may be cut off or damaged." in " ".join(capsys.readouterr().out.split())
    for video, limit in ((cut, 4), (whole, None)):
        track(str(video), box=[BOX], model=model, limit=limit, device="cpu")
        assert remark not in " ".join(capsys.readouterr().out.split())


def test_a_file_that_is_too_large_to_hold_boxes_is_not_read(model, source, tmp_path):
    path = tmp_path / "boxes.txt"
    path.write_text(f"{BOX}\n")
    os.truncate(path, 2**25)
    with pytest.raises(UserError, match=r"boxes\.txt has 32 MiB; at most 16 MiB"):
        track(source, box=[str(path)], model=model, device="cpu")


@pytest.fixture
def presence_model(network, tmp_path):
    """A model that is sure of nothing."""
    head = ConvPresence(16, (16, 8))
    head.calibrate(1.0, -20.0)
    parts = (network.encoder, network.propagator, network.policy, network.box, network.critic, network.prior)
    save_network(LocalizationNetwork(*parts, head), tmp_path / "presence")
    return str(tmp_path / "presence")


def test_a_lost_target_is_told(presence_model, source, tmp_path, capsys):
    rule, boxes, presence = tmp_path / "rule.yaml", tmp_path / "boxes.txt", tmp_path / "out" / "presence.txt"
    rule.write_text("lost_after: 3")
    outputs = {"save": [boxes], "presence": presence, "render": tmp_path / "video.mp4"}
    track(source, box=[BOX], model=presence_model, rule=rule, device="cpu", **outputs)
    printed = " ".join(capsys.readouterr().out.split())
    assert "The target was lost on 3 frames: 3 to 5." in printed
    assert f"Written: {presence}" in printed
    boxes_xywh = read_boxes(boxes)
    assert boxes_xywh.shape == (FRAMES, 4)
    assert (boxes_xywh[:, 2:] == boxes_xywh[0, 2:]).all()
    assert (boxes_xywh[3:] == boxes_xywh[0]).all()
    numbers = read_values(presence, FRAMES)
    assert numbers[0] == 1
    assert (numbers[1:] < 0.01).all()


def test_a_rule_file_leaves_the_rest_of_the_models_own_rule(source, tmp_path, capsys):
    """The package's network has a presence head for its own localization alone."""
    (tmp_path / "rule.yaml").write_text("lost_after: 1\nsure_presence: 1.0\nfound_presence: 1.0")
    track(source, box=[BOX], rule=tmp_path / "rule.yaml", device="cpu")
    assert "The target was lost on 5 frames: 1 to 5." in " ".join(capsys.readouterr().out.split())


def test_presence_of_a_target_that_is_never_lost(presence_model, model, source, tmp_path, capsys):
    """Without `lost_after` in the rule, presence is written and changes no box."""
    for name, told in (("with", {"presence": tmp_path / "presence.txt"}), ("without", {})):
        weights = presence_model if told else model
        track(source, box=[BOX], model=weights, save=[tmp_path / f"{name}.txt"], device="cpu", **told)
    assert (tmp_path / "with.txt").read_text() == (tmp_path / "without.txt").read_text()
    assert len(read_values(tmp_path / "presence.txt", FRAMES)) == FRAMES
    assert "lost" not in capsys.readouterr().out


def test_presence_that_the_model_does_not_tell_is_refused(model, presence_model, source, tmp_path):
    boxes, presence = tmp_path / "boxes.txt", tmp_path / "presence.txt"
    for weights, localization in ((model, None), (presence_model, "prior")):
        with pytest.raises(UserError, match=r"presence\.txt cannot be written.*no presence head"):
            track(
                source,
                box=[BOX],
                model=weights,
                localization=localization,
                save=[boxes],
                presence=presence,
                device="cpu",
            )
    assert not boxes.exists()
    assert not presence.exists()


@pytest.mark.parametrize(
    ("frames", "words"), [([3], "3"), ([3, 4], "3 to 4"), ([1, 3, 4, 5, 9], "1, 3 to 5, 9"), ([0, 2], "0, 2")]
)
def test_frames_on_which_a_target_was_lost(frames, words):
    tracked = Tracked(1, keeps_boxes=False, is_whole=True)
    for index in range(10):
        target = SimpleNamespace(status="lost" if index in frames else "tracked")
        tracked.add(SimpleNamespace(index=index, targets=[target]))
    source = SimpleNamespace(name="a.mp4", remarks=[])
    assert f"The target was lost on {len(frames)} frames: {words}." in report(tracked, source, [])


def test_a_target_that_is_lost_for_days_takes_no_memory():
    tracked = Tracked(1, keeps_boxes=False)
    for index in range(100_000):
        tracked.add(SimpleNamespace(index=index, targets=[SimpleNamespace(status="lost")]))
    assert tracked.lost == {0: [(0, 99_999)]}


def test_files_are_printed_by_their_names(model, source, tmp_path, capsys):
    named = Path(source).rename(tmp_path / "clip_10:100:3 [v2]")
    track(str(named), box=[BOX], model=model, save=[tmp_path / "a:x:b [v2].txt"], device="cpu")
    printed = capsys.readouterr().out
    assert "clip_10:100:3 [v2]." in printed
    assert "a:x:b [v2].txt\n" in printed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_full_disk_is_named(model, source):
    with pytest.raises(UserError, match="/dev/full cannot be written"):
        track(source, box=[BOX], model=model, save=[Path("/dev/full")], device="cpu")


def test_other_mistakes_are_named(model, source, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        track(str(tmp_path / "nowhere"), box=[BOX], model=model)
    with pytest.raises(UserError, match="missing"):
        track(source, box=[BOX], model=str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"truth\.txt"):
        track(source, box=[BOX], model=model, truth=tmp_path / "truth.txt")
    with pytest.raises(UserError, match=r"video\.gif"):
        track(source, box=[BOX], model=model, render=tmp_path / "video.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        track(source, box=[BOX], model=model, save=[tmp_path / "file" / "boxes.txt"], device="cpu")
    with pytest.raises(UserError, match="cannot be written"):
        track(source, box=[BOX], model=model, save=[tmp_path], device="cpu")
    with pytest.raises(UserError, match="cannot be written"):
        track(source, box=[BOX], model=model, render=tmp_path / "file" / "video.mp4", device="cpu")
    with pytest.raises(UserError, match="no device 'xyz' here"):
        track(source, box=[BOX], model=model, device="xyz")


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
    track(
        str(root / "img"), box=[box], model=model, truth=root / truth, save=[tmp_path / "a.txt"], limit=20, device="cpu"
    )
    assert len(read_boxes(tmp_path / "a.txt")) == 20
    assert "over the 20 frames" in " ".join(capsys.readouterr().out.split())
