"""Ground truth for scoring as people have it: copies of a dataset differ in the names and places of its files."""

import pytest

from relo.data.sequences.datasets import find_benchmark, find_dataset
from relo.data.sequences.tables import rows_before
from relo.errors import UserError
from relo.evaluation.annotations import read_annotations

BOXES = "1,2,3,4\n5,6,7,8\n9,9,3,3\n"
FOLDERS = {  # of one sequence, below the root
    "lasot": "c/c-1",
    "lasot_extension": "c/c-1",
    "vasttrack": "c/c-1",
    "tnl2k": "s1",
    "dtb70": "s1",
    "plain": "s1",
    "got10k": "val/GOT-10k_Val_000001",
}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(root, benchmark):
    ((name, truth),) = read_annotations(root, find_benchmark(benchmark)).items()
    return name, truth.boxes_xywh.tolist(), None if truth.absent is None else truth.absent.tolist()


@pytest.mark.parametrize("file", ["groundtruth.txt", "Groundtruth.txt", "groundtruth_rect.txt"])
@pytest.mark.parametrize("benchmark", FOLDERS)
def test_boxes_and_flags_in_a_sequences_folder(tmp_path, benchmark, file):
    folder = tmp_path / FOLDERS[benchmark]
    write(folder / file, BOXES)
    name, boxes_xywh, absent = read(tmp_path, benchmark)
    assert (name, boxes_xywh[1], absent) == (folder.name, [5, 6, 7, 8], None)
    write(folder / "absent.txt", "0\n1\n0\n")
    assert read(tmp_path, benchmark)[2] == [False, True, False]
    write(folder / "full_occlusion.txt", "0,0,1")
    write(folder / "out_of_view.txt", "0,0,0")
    assert read(tmp_path, benchmark)[2] == [False, True, True]
    (folder / "out_of_view.txt").unlink()
    with pytest.raises(UserError, match=r"out_of_view\.txt"):
        read(tmp_path, benchmark)


@pytest.mark.parametrize(
    ("benchmark", "place", "name"),
    [
        ("uav123", "anno/UAV123/bike1.TXT", "bike1"),
        ("uav123", "UAV123/anno/UAV123/bike1.txt", "bike1"),
        ("trackingnet", "TEST/anno/abc.TXT", "abc"),
        ("nfs", "anno/nfs_airboard_1.txt", "airboard_1"),
        ("nfs", "anno/airboard_1.txt", "airboard_1"),
        ("tnl2k", "cover_1.txt", "cover_1"),  # no relation of GOT-10k's cover.label, where 0 is absent
    ],
)
def test_boxes_and_flags_side_by_side(tmp_path, benchmark, place, name):
    file = tmp_path / place
    write(file, BOXES)
    assert read(tmp_path, benchmark) == (name, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 3, 3]], None)
    write(file.parent / "absent" / file.name, "0\n0\n1\n")
    assert read(tmp_path, benchmark)[2] == [False, False, True]


@pytest.mark.parametrize(
    ("meta", "size"),
    [
        ("[METAINFO]\nresolution: (1920,  1080)\n", (1920, 1080)),
        ("resolution = (1920,1080)\n", (1920, 1080)),
        ("[METAINFO]\nurl: a\nurl: b\nresolution: (640, 480)\n", (640, 480)),
        ("[METAINFO]\nurl: a\n", None),
    ],
)
def test_scoring_takes_the_image_size_of_got10k_from_whatever_notes_it(tmp_path, meta, size):
    folder = tmp_path / FOLDERS["got10k"]
    write(folder / "groundtruth.txt", BOXES)
    write(folder / "cover.label", "8\n0\n8\n")
    write(folder / "meta_info.ini", meta)
    (truth,) = read_annotations(tmp_path, find_benchmark("got10k")).values()
    assert truth.image_size == size
    assert truth.absent.tolist() == [False, True, False]


def test_an_empty_list_of_the_test_set_is_one_sentence(tmp_path):
    write(tmp_path / "c/c-1/groundtruth.txt", BOXES)
    write(tmp_path / "testing_set.txt", "")
    with pytest.raises(UserError, match=r"testing_set\.txt names no sequence"):
        read_annotations(tmp_path, find_benchmark("lasot"))


@pytest.mark.parametrize("last", ["354", "0354"])
def test_rows_before_the_frames_that_count_are_found_by_their_number(last):
    otb, row = find_dataset("otb100"), {"first": "006", "last": last}
    assert [rows_before(otb, row, rows) for rows in (354, 349)] == [5, 0]
    assert rows_before(otb, {"first": "1", "last": ""}, 354) == 0
