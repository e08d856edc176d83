"""`relo data doctor` through the command line: what it finds in folders that people really have."""

import shutil

import cv2
import numpy as np
import pytest

from relo.commands.main import main
from relo.data.packing import pack
from relo.data.sequences import open_reader
from relo.data.synthetic.command import synthesize

SMALL = {"frames": 20, "width": 64, "height": 64, "workers": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    synthesize(folder, layout="all", split="train", sequences=3, **SMALL)
    pack(open_reader("lasot", folder / "lasot", "train"), folder / "store", split="train")
    return folder


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


def doctor(capsys, *paths):
    """Exit code and what was printed."""
    code = 0
    try:
        main(["data", "doctor", *map(str, paths), "--workers=0"])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_whole_roots_and_stores_pass_together(data, capsys):
    code, text = doctor(capsys, *(data / name for name in ("lasot", "got10k", "trackingnet", "store")))
    assert code == 0
    assert "Nothing is missing." in text
    assert text.count("60") == 4  # frames


@pytest.mark.parametrize(
    ("broken", "dataset", "told"),
    [
        ("TRAIN_1/frames/vtr000001_0/19.jpg", "trackingnet", "20 rows for 19 frames"),
        ("TRAIN_1/frames/vtr000001_0/7.jpg", "trackingnet", "lacks 1 of the frames"),
        ("TRAIN_7", "trackingnet", "TRAIN_7/anno"),
        ("train/list.txt", "got10k", "list.txt cannot be read"),
        ("train/GOT-10k_Train_000002/absence.label", "got10k", "absence.label cannot be read"),
        ("lantern/lantern-1", "lasot", "lacks 1 of the 3 sequences of split train (first lantern-1)"),
        ("marble/marble-1/out_of_view.txt", "lasot", "out_of_view.txt cannot be read"),
    ],
)
def test_each_gap_is_named_once(data, capsys, broken, dataset, told):
    path = data / dataset / broken
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, text = doctor(capsys, data / dataset)
    assert code == 2
    assert told in text
    assert "Problems found: 1" in text


@pytest.mark.parametrize("kind", ["lasot", "trackingnet", "store"])
def test_frames_are_decoded_on_demand(data, capsys, kind):
    folder = data / kind
    if kind == "store":
        file, frame = folder / "data.mdb", next((data / "lasot").rglob("00000007.jpg")).read_bytes()
    else:
        file = next(folder.rglob("*7.jpg"))
        frame = file.read_bytes()
    code, text = doctor(capsys, folder, "--frames=true")
    assert (code, "Nothing is missing, and every frame is intact." in text) == (0, True)
    file.write_bytes(file.read_bytes().replace(frame[-300:-2], bytes(298)))
    assert doctor(capsys, folder)[0] == 0
    code, text = doctor(capsys, folder, "--frames=true")
    assert code == 2
    assert "Problems found: 1" in text
    assert "Frame 6 of" in text if kind == "store" else f"{file} is damaged" in text


def test_frames_of_another_size_are_remarked_on(data, capsys):
    first, second = sorted((data / "lasot" / "marble").rglob("*.jpg"))[:2]
    first.write_bytes(cv2.imencode(".jpg", np.zeros((80, 90, 3), np.uint8))[1].tobytes())
    code, text = doctor(capsys, data / "lasot", "--frames=true")
    assert code == 0
    assert "1 of 20 frames of another size than 64x64 px; the first, frame 0, is 90x80 px." in text
    second.write_bytes(cv2.imencode(".jpg", np.zeros((1, 500, 3), np.uint8))[1].tobytes())
    code, text = doctor(capsys, data / "lasot", "--frames=true")
    assert code == 2
    assert f"{second} is 500x1 px, not 64x64 px as most" in text


def test_several_gaps_are_all_listed(data, capsys):
    (data / "trackingnet/TRAIN_0/frames/-tr000000_0/3.jpg").unlink()
    (data / "trackingnet/TRAIN_2/anno/vtr000002_0.txt").write_text("1,2,3\n")
    code, text = doctor(capsys, data / "trackingnet", data / "nowhere")
    assert code == 2
    assert "Problems found: 3" in text
    for told in ("-tr000000_0 lacks 1", "vtr000002_0.txt, line 1: 4 numbers expected", "There is no folder"):
        assert told in text


def test_a_folder_above_or_an_archive_is_explained(data, tmp_path, capsys):
    assert "Did you mean" in doctor(capsys, data)[1]
    (tmp_path / "zipped").mkdir()
    (tmp_path / "zipped" / "LaSOT.zip").touch()
    code, text = doctor(capsys, tmp_path / "zipped")
    assert code == 2
    assert "extract it first" in text


def grow(root, *paths):
    """Empty files, and annotations of two rows."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("1,2,3,4\n1,2,3,4\n" if path.endswith(".txt") else "")


GOOD = {
    "plain": ["cat/img/1.jpg", "cat/img/2.jpg", "cat/groundtruth.txt"],
    "tnl2k": ["cat/imgs/1.jpg", "cat/imgs/2.jpg", "cat/groundtruth.txt"],
    "dtb70": ["cat/img/1.jpg", "cat/img/2.jpg", "cat/groundtruth_rect.txt"],
    "nfs_released": ["cat/30/cat/1.jpg", "cat/30/cat/2.jpg", "cat/30/cat_pytracking.txt"],
    "nfs_pytracking": ["sequences/cat/1.jpg", "sequences/cat/2.jpg", "anno/nfs_cat.txt"],
    "trackingnet": ["TEST/frames/cat_0/0.jpg", "TEST/frames/cat_0/1.jpg", "TEST/anno/cat_0.txt"],
}


@pytest.mark.parametrize(
    ("dataset", "lone", "told"),
    [
        ("plain", "dog/img/1.jpg", "dog/img looks like a sequence and is not read: its groundtruth.txt is missing"),
        ("plain", "dog/1.png", "dog looks like a sequence and is not read"),
        ("plain", "group/dog/groundtruth.txt", "group/dog looks like a sequence and is not read"),
        ("plain", "dog/groundtruth.txt", "dog holds no images"),
        ("tnl2k", "dog/imgs/a.jpg", "dog/imgs looks like a sequence and is not read: its groundtruth.txt is missing"),
        ("tnl2k", "dog/groundtruth.txt", "dog/imgs cannot be read"),
        ("dtb70", "dog/img/1.jpg", "dog/groundtruth_rect.txt cannot be read"),
        ("dtb70", "dog/groundtruth_rect.txt", "dog/img cannot be read"),
        ("nfs_released", "dog/30/dog/1.jpg", "dog/30/dog_pytracking.txt cannot be read"),
        ("nfs_released", "dog/240/dog/1.jpg", "dog/240/dog looks like a sequence and is not read"),
        ("nfs_released", "dog/30/dog_pytracking.txt", "dog/30/dog cannot be read"),
        ("nfs_pytracking", "sequences/dog/1.jpg", "anno/nfs_dog.txt cannot be read"),
        ("nfs_pytracking", "anno/nfs_dog.txt", "anno/nfs_dog.txt is the annotation of no sequence that is read"),
        (
            "trackingnet",
            "TEST/frames/dog_0/0.jpg",
            "TEST/frames/dog_0 looks like a sequence and is not read: anno holds",
        ),
        ("trackingnet", "TEST/anno/dog_0.txt", "TEST/frames/dog_0 cannot be read"),
    ],
)
def test_one_half_of_a_sequence_is_missed(tmp_path, capsys, dataset, lone, told):
    """Frames without annotation, or an annotation without frames."""
    grow(tmp_path, *GOOD[dataset])
    if dataset == "trackingnet":
        (tmp_path / "TEST/anno/cat_0.txt").write_text("1,2,3,4\n")
    name = ["--dataset", dataset]
    (tmp_path / "empty").mkdir()
    assert doctor(capsys, tmp_path, *name)[0] == 0
    grow(tmp_path, lone)
    code, text = doctor(capsys, tmp_path, *name)
    assert code == 2
    assert told in text
    assert "Problems found: 1" in text
    assert "Nothing is missing" not in text


@pytest.mark.parametrize(
    ("root", "more"),
    [
        ("got10k", "train/GOT-10k_Train_000099/00000001.jpg"),
        ("lasot", "badge/badge-99/groundtruth.txt"),
        ("lasot", "previews/1.png"),
    ],
)
def test_what_no_list_names_is_remarked_on_once(data, capsys, root, more):
    grow(data / root, more)
    code, text = doctor(capsys, data / root)
    assert code == 0
    assert text.count(f"{(data / root / more).parent} looks like a sequence and is not read: ") == 1


def test_a_sentence_left_out_is_remarked_on(data, capsys):
    (data / "lasot/marble/marble-1/nlp.txt").write_bytes("une bille é".encode("cp1252"))
    code, text = doctor(capsys, data / "lasot")
    assert code == 0
    assert "marble-1/nlp.txt is left out: it is not UTF-8 text" in text


@pytest.mark.parametrize("dataset", ["plain", "tnl2k", "nfs_released", "nfs_pytracking", "trackingnet"])
def test_other_layouts_are_recognised(tmp_path, capsys, dataset):
    grow(tmp_path, *GOOD[dataset])
    code, text = doctor(capsys, tmp_path)
    assert dataset in text
    assert code == (2 if dataset == "trackingnet" else 0)  # its test set has one row an annotation


def test_lasot_without_the_classes_folders(data, capsys):
    for label in ("badge", "lantern", "marble"):
        shutil.move(data / "lasot" / label / f"{label}-1", data / "lasot")
        (data / "lasot" / label).rmdir()
    (data / "lasot/training_set.txt").write_text("badge-1\nlantern-1\nmarble-1")
    code, text = doctor(capsys, data / "lasot")
    assert code == 0
    assert "lasot train" in text


@pytest.mark.parametrize("number", ["99999999999", "20240101123456"])
def test_a_stray_image_of_a_large_number_ends_soon(data, capsys, number):
    (data / f"lasot/badge/badge-1/img/{number}.jpg").touch()
    code, text = doctor(capsys, data / "lasot")
    assert code == 2
    assert f"of the frames 1 to {number} (the first is number 21)" in text


def test_packing_names_what_it_does_not_read(tmp_path, capsys):
    synthesize(tmp_path / "plain", layout="plain", split="train", sequences=2, **SMALL)
    (tmp_path / "plain/Badge2/groundtruth.txt").unlink()
    arguments = ["plain", str(tmp_path / "plain"), str(tmp_path / "store"), "--split", "all", "--workers", "0"]
    main(["data", "pack", *arguments])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Badge2/img looks like a sequence and is not read: its groundtruth.txt is missing" in printed
    assert "store: 1 sequences of plain" in printed
