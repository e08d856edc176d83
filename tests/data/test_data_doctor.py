"""`relo data doctor` through the command line: what it finds in folders that people really have."""

import shutil

import pytest

from relo.cli import main
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
