import json
import os

import numpy as np
import pytest
import torch

from full_disk import file_limit
from relo.data.sequences.parsing import read_boxes
from relo.errors import UserError
from relo.tracking.frame_result import FrameResult
from relo.tracking.outputs import LineFile, open_output, output_paths
from relo.tracking.sources import Frames
from relo.tracking.state import TargetState

IMAGE = np.zeros((120, 160, 3), np.uint8)
FRAMES = Frames('videos/a "cat".mp4', (), 3, 29.97)


def target(box_xywh, score=0.5, presence=None, status="tracking"):
    box_xywh = torch.tensor(box_xywh, dtype=torch.float64)
    return TargetState(None, None, None, None, box_xywh, score, 0, presence=presence, status=status)


def results(start=0):
    """Three frames of two targets; the second is lost in the last."""
    return [
        FrameResult(start, 0.0, IMAGE, [target([1, 2, 3.5, 4], 1.0), target([5, 6, 7, 8], 1.0)]),
        FrameResult(start + 1, 0.04, IMAGE, [target([1.12345, 2, 3, 4], 0.25), target([50, 60, 7, 8], 0.1, 0.75)]),
        FrameResult(start + 2, 0.08, IMAGE, [target([2, 2, 3, 4]), target([50, 60, 7, 8], 0.2, 0.1, "lost")]),
    ]


def write(path, given=None, targets=2):
    with open_output(path, FRAMES, targets) as write_result:
        for result in results() if given is None else given:
            write_result(result)


def test_text_repeats_the_box_of_a_lost_target_in_a_file_for_each(tmp_path):
    write(tmp_path / "new" / "a.b.TXT")
    assert (tmp_path / "new" / "a.b_1.TXT").read_text().splitlines()[1] == "1.1235,2.0000,3.0000,4.0000"
    boxes_xywh = read_boxes(tmp_path / "new" / "a.b_2.TXT")
    assert boxes_xywh.tolist() == [[5, 6, 7, 8], [50, 60, 7, 8], [50, 60, 7, 8]]
    assert sorted((tmp_path / "new").iterdir()) == output_paths(tmp_path / "new" / "a.b.TXT", 2)


@pytest.mark.parametrize("name", ["boxes.txt", "boxes"])
def test_text_of_one_target_is_one_file(tmp_path, name):
    write(tmp_path / name, [FrameResult(0, 0.0, IMAGE, [target([1, 2, 3, 4])])], 1)
    assert (tmp_path / name).read_text() == "1.0000,2.0000,3.0000,4.0000\n"


def test_json_lines_say_everything(tmp_path):
    write(tmp_path / "a.jsonl")
    first, second, third = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    known = {"id": 1, "box_xywh": [1, 2, 3.5, 4], "score": 1, "presence": None, "status": "tracking"}
    assert first == {"frame": 0, "seconds": 0, "targets": [known, known | {"id": 2, "box_xywh": [5, 6, 7, 8]}]}
    assert second["seconds"] == 0.04
    assert second["targets"][0]["box_xywh"][0] == 1.1235
    lost = {"id": 2, "box_xywh": [50, 60, 7, 8], "score": 0.2, "presence": 0.1, "status": "lost"}
    assert third["targets"][1] == lost


def test_mot_challenge_counts_from_one_and_leaves_lost_targets_out(tmp_path):
    write(tmp_path / "a.csv", results(start=9))
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "10,1,2.0000,3.0000,3.5000,4.0000,1.000000,-1,-1,-1",
        "10,2,6.0000,7.0000,7.0000,8.0000,1.000000,-1,-1,-1",
        "11,1,2.1235,3.0000,3.0000,4.0000,0.250000,-1,-1,-1",
        "11,2,51.0000,61.0000,7.0000,8.0000,0.750000,-1,-1,-1",
        "12,1,3.0000,3.0000,3.0000,4.0000,0.500000,-1,-1,-1",
    ]


def test_coco_names_the_images_of_a_folder(tmp_path):
    frames = Frames("images", (), 3, 25.0, start=9, files=("b.png", "c.png", "d.png"))
    with open_output(tmp_path / "a.json", frames, 2) as write_result:
        for result in results(start=9):
            write_result(result)
    images = json.loads((tmp_path / "a.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["b.png", "c.png", "d.png"]


def test_coco_video(tmp_path):
    write(tmp_path / "a.json", results(start=9))
    coco = json.loads((tmp_path / "a.json").read_text())
    assert coco["videos"] == [{"id": 1, "name": 'a "cat".mp4', "fps": 29.97, "width": 160, "height": 120}]
    assert coco["categories"] == [{"id": 1, "name": "target"}]
    assert [track["id"] for track in coco["tracks"]] == [1, 2]
    assert [image["id"] for image in coco["images"]] == [10, 11, 12]
    sizes = {"width": 160, "height": 120}
    place = {"video_id": 1, "frame_id": 10, "frame_index": 10, "file_name": "00000010.jpg"}
    assert coco["images"][1] == {"id": 11, **place, **sizes}
    assert [(box["image_id"], box["instance_id"]) for box in coco["annotations"]] == [
        (10, 1), (10, 2), (11, 1), (11, 2), (12, 1),
    ]  # fmt: skip
    assert coco["annotations"][3] == {
        "id": 4,
        "image_id": 11,
        "video_id": 1,
        "category_id": 1,
        "instance_id": 2,
        "track_id": 2,
        "bbox": [50, 60, 7, 8],
        "area": 56,
        "iscrowd": 0,
        "score": 0.75,
    }


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, UserError])
def test_work_that_stops_halfway_is_kept(tmp_path, name, kind):
    def stop_halfway():
        with open_output(tmp_path / name, FRAMES, 1) as write_result:
            write_result(FrameResult(0, 0.0, IMAGE, [target([1, 2, 3, 4])]))
            if name != "a.json":
                assert (tmp_path / name).read_text().endswith("\n")  # on the disk when it was found
            raise kind

    with pytest.raises(kind):
        stop_halfway()
    (path,) = tmp_path.iterdir()
    whole = path.read_text()
    path.unlink()
    write(path, [FrameResult(0, 0.0, IMAGE, [target([1, 2, 3, 4])])], 1)
    assert path.read_text() == whole


def test_no_frame_at_all_is_still_coco(tmp_path):
    write(tmp_path / "a.json", [])
    coco = json.loads((tmp_path / "a.json").read_text())
    assert coco["images"] == coco["annotations"] == []


@pytest.mark.parametrize("name", ["a.xml", "a.TXT.gz"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name}; end the name in \.txt, \.jsonl, \.csv or \.json\."):
        open_output(tmp_path / name, FRAMES, 1)


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv", ".json"])
def test_a_place_that_cannot_be_written_is_named_at_the_start(tmp_path, ending):
    (tmp_path / "file").write_text("kept")
    (tmp_path / f"folder{ending}").mkdir()
    for path in (tmp_path / "file" / f"a{ending}", tmp_path / f"folder{ending}"):
        with pytest.raises(UserError, match=f"{path} cannot be written"):
            write(path, [], 1)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv", ".json"])
def test_a_full_device_is_named(tmp_path, ending):
    (tmp_path / f"a{ending}").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot be written .the disk is full"):
        write(tmp_path / f"a{ending}", results() * 2000, 2 if ending != ".txt" else 1)


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv", ".json"])
def test_a_disk_that_fills_up_keeps_whole_lines(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_text("earlier\n")
    with pytest.raises(UserError, match=r"cannot be written .the file would be larger"), file_limit(1000):
        write(path, results() * 20)
    if ending == ".json":
        assert path.read_text() == "earlier\n"
        assert list(tmp_path.iterdir()) == [path]
    for written in output_paths(path, 2) if ending != ".json" else ():
        assert 500 < written.stat().st_size <= 1000
        assert written.read_text().endswith("\n")


def test_a_pipe_that_nothing_reads_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("relo.files._READER_COMES", 0.1)
    os.mkfifo(tmp_path / "boxes.txt")
    with pytest.raises(UserError, match="is a pipe that nothing reads"):
        LineFile(tmp_path / "boxes.txt")
