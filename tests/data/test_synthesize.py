import json
import shutil

import numpy as np
import pytest

from relo.data.sequences import GOT10k, LaSOT, TrackingNet, open_reader
from relo.data.synthetic import render_sequence
from relo.data.synthetic.command import synthesize
from relo.data.synthetic.layouts import LayoutWriter
from relo.data.synthetic.scene import Scene
from relo.data.synthetic.settings import HARD
from relo.errors import UserError
from relo.files import machine

SMALL = {"frames": 30, "width": 96, "height": 72, "difficulty": "hard"}


def rendered(name, split, frames=30):
    return render_sequence(name, frames=frames, width=96, height=72, split=split, settings=HARD)


def tree(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_same_bytes_whatever_the_number_of_processes(tmp_path):
    for workers in (0, 2):
        synthesize(tmp_path / str(workers), layout="lasot", sequences=3, workers=workers, **SMALL)
    assert tree(tmp_path / "0") == tree(tmp_path / "2")


def test_lasot_reads_back(tmp_path):
    synthesize(tmp_path, layout="lasot", split="train", sequences=6, workers=0, **SMALL)
    synthesize(tmp_path, layout="lasot", split="test", sequences=5, workers=0, **SMALL)
    train, test = LaSOT(tmp_path, "train"), LaSOT(tmp_path, "test")
    assert (len(train), len(test)) == (6, 5)
    assert not set(train.names) & set(test.names)
    absent_with_box = 0
    for reader, split in ((train, "train"), (test, "test")):
        for sequence in reader:
            truth = rendered(sequence.name, split)
            assert (sequence.visible == truth.visible).all()
            seen = truth.visible
            np.testing.assert_allclose(sequence.boxes_xywh[seen], truth.boxes_xywh[seen], atol=0.00501)
            absent_with_box += int((sequence.boxes_xywh[~seen, 2] > 0).sum())
            assert sequence.class_name == sequence.name.split("-")[0]
            assert sequence.frames[29].shape == (72, 96, 3)
            # JPEG keeps the picture, in RGB order
            assert np.abs(sequence.frames[0].astype(int) - truth.frames[0]).mean() < 12
    assert absent_with_box > 0


def test_got10k_reads_back(tmp_path):
    synthesize(tmp_path, layout="got10k", split="val", sequences=6, workers=0, **SMALL)
    reader = GOT10k(tmp_path, "val")
    assert reader.names[0] == "GOT-10k_Val_000001"
    codes = set()
    for sequence in reader:
        truth = rendered(sequence.name, "val")
        assert (sequence.visible == truth.visible).all()
        np.testing.assert_allclose(sequence.boxes_xywh[truth.visible], truth.boxes_xywh[truth.visible], atol=0.000051)
        codes |= set(sequence.boxes_xywh[~truth.visible, 2])
        cover = sequence.attributes["cover"]
        assert ((cover == 8) == (truth.visible_ratio >= 1)).all()
        assert ((cover == 0) == ~truth.visible).all()
        partly = (cover > 0) & (cover < 8)
        assert (np.abs(cover[partly] * 0.15 - 0.075 - truth.visible_ratio[partly]) <= 0.0751).all()
        assert sequence.attributes["resolution"] == (96, 72)
    assert codes == {0.0, -1.0}


def test_got10k_test_gives_the_first_box_only(tmp_path):
    synthesize(tmp_path, layout="got10k", split="test", sequences=1, workers=0, **SMALL)
    sequence = GOT10k(tmp_path, "test")[0]
    assert len(sequence) == 30
    assert sequence.boxes_xywh.shape == (1, 4)
    assert sequence.visible.tolist() == [True]


def test_trackingnet_reads_back(tmp_path):
    synthesize(tmp_path, layout="trackingnet", split="train", sequences=2, workers=0, **SMALL)
    synthesize(tmp_path, layout="trackingnet", split="test", sequences=1, workers=0, **SMALL)
    reader = TrackingNet(tmp_path, "train")
    assert sorted(reader.names) == ["-tr000000_0", "vtr000001_0"]
    for sequence in reader:
        truth = rendered(sequence.name, "train")
        np.testing.assert_allclose(sequence.boxes_xywh, truth.boxes_xywh, atol=0.00501)
        assert (sequence.visible == (truth.boxes_xywh[:, 2:].min(1) >= 0.005)).all()
        # Unpadded names: 10.jpg comes after 9.jpg, not after 1.jpg.
        assert [sequence.frames.names[i] for i in (0, 2, 10)] == ["0.jpg", "2.jpg", "10.jpg"]
    held_out = TrackingNet(tmp_path, "test")[0]
    assert (len(held_out), held_out.boxes_xywh.shape) == (30, (1, 4))


def test_stopped_run_is_completed(tmp_path):
    synthesize(tmp_path / "whole", layout="lasot", sequences=3, workers=0, **SMALL)
    stopped = tmp_path / "stopped"
    synthesize(stopped, layout="lasot", sequences=2, workers=0, **SMALL)
    # What a killed process leaves: a part of a sequence under its working name.
    leftover = stopped / "marble" / f".marble-1.999999999@{machine()}" / "img"
    leftover.mkdir(parents=True)
    (leftover / "00000001.jpg").write_bytes(b"half")
    synthesize(stopped, layout="lasot", sequences=3, workers=0, **SMALL)
    assert tree(stopped) == tree(tmp_path / "whole")


def test_sequences_that_are_removed_meanwhile_are_missed(tmp_path, monkeypatch):
    write = LayoutWriter.write

    def write_alone(writer, name, scene):
        shutil.rmtree(writer.root)
        write(writer, name, scene)

    monkeypatch.setattr(LayoutWriter, "write", write_alone)
    with pytest.raises(UserError, match=r"^3 of what was written in .*out are gone, such as synthetic_train\.json"):
        synthesize(tmp_path / "out", layout="got10k", sequences=3, workers=0, **SMALL)


def watched_scene(name, frames, after_frame):
    """A scene that calls `after_frame` when a frame has been taken."""

    class WatchedScene(Scene):
        def render(self):
            for frame in super().render():
                yield frame
                after_frame()

    return WatchedScene(name, frames=frames, width=96, height=72, seed=0, split="train")


def test_failure_in_the_middle_leaves_no_sequence(tmp_path):
    writer = LayoutWriter("lasot", tmp_path, "train")
    frames_done = iter(range(10))

    def stop():
        if next(frames_done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write("badge-1", watched_scene("badge-1", 5, stop))
    assert not writer.is_complete("badge-1")
    writer.write("badge-1", Scene("badge-1", frames=5, width=96, height=72, seed=0, split="train"))
    assert writer.is_complete("badge-1")
    assert len(list(writer.sequence_folder("badge-1").glob("img/*.jpg"))) == 5


def test_all_layouts_at_once(tmp_path):
    synthesize(tmp_path, layout="all", split="test", sequences=1, workers=0, **SMALL)
    assert {path.name for path in tmp_path.iterdir()} >= {"lasot", "got10k", "trackingnet"}
    assert len(LaSOT(tmp_path / "lasot", "test")) == len(TrackingNet(tmp_path / "trackingnet", "test")) == 1


def test_other_settings_are_not_mixed_in(tmp_path):
    synthesize(tmp_path, layout="lasot", sequences=1, workers=0, **SMALL)
    with pytest.raises(UserError, match="other settings"):
        synthesize(tmp_path, layout="lasot", sequences=1, workers=0, seed=1, **SMALL)
    assert json.loads((tmp_path / "synthetic_train.json").read_text())["seed"] == 0


def test_foreign_dataset_is_not_overwritten(tmp_path):
    (tmp_path / "badge" / "badge-1").mkdir(parents=True)
    with pytest.raises(UserError, match="not synthetic"):
        synthesize(tmp_path, layout="lasot", sequences=1, workers=0, **SMALL)


@pytest.mark.parametrize(
    ("layout", "split", "own"),
    [
        ("lasot", "train", "training_set.txt"),
        ("vasttrack", "test", "vasttrack_test_list.txt"),
        ("otb100", "test", "sequences.csv"),
        ("uav123", "test", "anno/UAV123/ranges.csv"),
        ("got10k", "train", "train/GOT-10k_Train_009335/groundtruth.txt"),
    ],
)
def test_a_dataset_of_other_sequences_keeps_its_lists(tmp_path, layout, split, own):
    root = tmp_path / "real"
    (root / own).parent.mkdir(parents=True)
    (root / own).write_text("dear to someone")
    with pytest.raises(UserError, match="real already holds files that are not synthetic"):
        synthesize(root, layout=layout, split=split, sequences=1, workers=0, **SMALL)
    assert tree(root) == {(root / own).relative_to(root): b"dear to someone"}


def test_splits_and_hidden_files_share_a_root(tmp_path):
    (tmp_path / ".hidden").touch()
    for split in ("train", "test"):
        synthesize(tmp_path, layout="lasot", split=split, sequences=1, workers=0, **SMALL)
    assert [len(LaSOT(tmp_path, split)) for split in ("train", "test")] == [1, 1]


@pytest.mark.parametrize("layout", ["lasot", "trackingnet"])
def test_a_sequence_that_another_process_has_written_meanwhile_is_done(tmp_path, layout):
    writer = LayoutWriter(layout, tmp_path / "out", "train")
    (name,) = writer.sequence_names(1)

    def write(after_frame=lambda: None):
        writer.write(name, watched_scene(name, 3, after_frame))

    write()
    once = tree(writer.root)
    shutil.rmtree(writer.root)
    folder, elsewhere = writer.sequence_folder(name), tmp_path / "elsewhere"

    def write_beside():  # under another name, as another process does
        if not writer.is_complete(name):
            shutil.copytree(next(folder.parent.glob(f".{name}.*")), elsewhere / "x", dirs_exist_ok=True)
            shutil.copytree(elsewhere / "x", folder)

    write(write_beside)
    assert writer.is_complete(name)
    assert {path for path in tree(writer.root) if path.name.startswith(".")} == set()
    shutil.rmtree(folder)
    write()
    assert tree(writer.root) == once


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"sequences": 0}, "sequences = 0"), ({"seed": -1}, "seed = -1"), ({"split": "val"}, "train or test"),
     ({"layout": "otb100", "split": "test", "frames": 5}, "at least 6 frames, not 5"),
     ({"frames": 1}, "frames = 1"), ({"frames": 10**9}, "100000"), ({"width": 10**9}, "4096")],
)  # fmt: skip
def test_wrong_settings_leave_nothing_behind(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        synthesize(tmp_path / "out", **{"layout": "lasot", "sequences": 1, "workers": 0, **SMALL, **wrong})
    assert not (tmp_path / "out").exists()


def test_the_fewest_frames_that_otbs_layout_has_can_be_read(tmp_path):
    synthesize(tmp_path, layout="otb100", split="test", sequences=4, workers=0, **{**SMALL, "frames": 6})
    assert [len(sequence) for sequence in open_reader("otb100", tmp_path)] == [6, 1, 1, 3]


def test_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        synthesize(tmp_path / "file", layout="lasot", sequences=1, workers=0, **SMALL)
