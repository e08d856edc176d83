"""`relo submit`: the server's zip, or a list of what is missing."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from relo.commands.evaluate import submit
from relo.data.sequences.datasets import BENCHMARKS
from relo.errors import UserError

FRAMES = 5
BOXES = np.arange(FRAMES * 4, dtype=float).reshape(FRAMES, 4) + 10.123456


def frames(folder: Path, pattern: str, first: int) -> None:
    folder.mkdir(parents=True)
    encoded = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    for number in range(first, first + FRAMES):
        (folder / pattern.format(number)).write_bytes(encoded)


def write(path: Path, rows, fmt: str = "%.6f") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt=fmt, delimiter=",")


@pytest.fixture
def few(monkeypatch):
    """Test sets of two sequences."""
    for name in ("got10k", "trackingnet"):
        submission = replace(BENCHMARKS[name].submission, sequences=2)
        monkeypatch.setitem(BENCHMARKS, name, replace(BENCHMARKS[name], submission=submission))


@pytest.fixture
def got10k(tmp_path, few) -> Path:
    names = [f"GOT-10k_Test_{number:06d}" for number in (1, 2)]
    base = tmp_path / "got10k" / "test"
    for name in names:
        frames(base / name, "{:08d}.jpg", 1)
        write(base / name / "groundtruth.txt", [[10, 11, 12, 13]], "%g")
        write(tmp_path / "mine" / f"{name}.txt", BOXES)
        write(tmp_path / "mine" / f"{name}_time.txt", np.full(FRAMES, 0.025))
    (base / "list.txt").write_text("\n".join(names) + "\n")
    return tmp_path / "got10k"


@pytest.fixture
def trackingnet(tmp_path, few) -> Path:
    for name in ("-ab_0", "cd_1"):
        frames(tmp_path / "trackingnet" / "TEST" / "frames" / name, "{}.jpg", 0)
        write(tmp_path / "trackingnet" / "TEST" / "anno" / f"{name}.txt", [[10, 11, 12, 13]], "%g")
        write(tmp_path / "mine" / f"{name}.txt", BOXES)
    return tmp_path / "trackingnet"


def read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        return np.loadtxt(file, delimiter=",", ndmin=2)


def test_got10k(tmp_path, got10k):
    submit(tmp_path / "mine", benchmark="got10k", dataset=got10k, output=tmp_path / "out" / "mine.zip")
    with zipfile.ZipFile(tmp_path / "out" / "mine.zip") as archive:
        names = [f"GOT-10k_Test_{number:06d}" for number in (1, 2)]
        assert sorted(archive.namelist()) == sorted(f"{n}/{n}_{end}.txt" for n in names for end in ("001", "time"))
        boxes = read(archive, f"{names[0]}/{names[0]}_001.txt")
        assert boxes[0].tolist() == [10, 11, 12, 13]  # the given box
        np.testing.assert_allclose(boxes[1:], BOXES[1:], atol=1e-4)  # floats, not whole pixels
        np.testing.assert_allclose(read(archive, f"{names[0]}/{names[0]}_time.txt"), np.full((FRAMES, 1), 0.025))


def test_got10k_from_a_zip(tmp_path, got10k):
    archive = shutil.make_archive(str(tmp_path / "handed_in"), "zip", tmp_path / "mine")
    submit(Path(archive), benchmark="got10k", dataset=got10k, output=tmp_path / "mine.zip")
    with zipfile.ZipFile(tmp_path / "mine.zip") as submission:
        name = "GOT-10k_Test_000002"
        np.testing.assert_allclose(read(submission, f"{name}/{name}_001.txt")[1:], BOXES[1:], atol=1e-4)


def test_got10k_repetitions(tmp_path, got10k):
    for number in (1, 2):
        name = f"GOT-10k_Test_{number:06d}"
        for repetition in (1, 2, 3):
            write(tmp_path / "three" / name / f"{name}_{repetition:03d}.txt", BOXES + repetition)
        write(tmp_path / "three" / name / f"{name}_time.txt", np.array([[0.1, 0.2, 0.3]] * FRAMES))
    submit(tmp_path / "three", benchmark="got10k", dataset=got10k, output=tmp_path / "three.zip")
    with zipfile.ZipFile(tmp_path / "three.zip") as archive:
        name = "GOT-10k_Test_000002"
        np.testing.assert_allclose(read(archive, f"{name}/{name}_003.txt")[1:], BOXES[1:] + 3, atol=1e-4)
        np.testing.assert_allclose(read(archive, f"{name}/{name}_time.txt"), [[0.1, 0.2, 0.3]] * FRAMES)


def test_trackingnet(tmp_path, trackingnet):
    submit(tmp_path / "mine", benchmark="trackingnet", dataset=trackingnet, output=tmp_path / "mine.zip")
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        assert sorted(archive.namelist()) == ["-ab_0.txt", "cd_1.txt"]
        np.testing.assert_allclose(read(archive, "cd_1.txt")[1:], BOXES[1:], atol=5e-3)


def test_everything_missing_is_listed(tmp_path, got10k):
    first, second = (tmp_path / "mine" / f"GOT-10k_Test_{number:06d}.txt" for number in (1, 2))
    write(first, BOXES[:3])
    second.unlink()
    with pytest.raises(UserError) as error:
        submit(tmp_path / "mine", benchmark="got10k", dataset=got10k, output=tmp_path / "mine.zip")
    assert "GOT-10k_Test_000001 (3 rows for 5 frames)" in str(error.value)
    assert "GOT-10k_Test_000002 (no result file)" in str(error.value)
    assert not (tmp_path / "mine.zip").exists()


def test_missing_times(tmp_path, got10k):
    (tmp_path / "mine" / "GOT-10k_Test_000002_time.txt").unlink()
    with pytest.raises(UserError, match=r"GOT-10k_Test_000002 \(no times"):
        submit(tmp_path / "mine", benchmark="got10k", dataset=got10k, output=tmp_path / "mine.zip")


@pytest.mark.parametrize("wrong", ["nan", "1e999", "-1", ""])
def test_wrong_times(tmp_path, got10k, wrong):
    (tmp_path / "mine" / "GOT-10k_Test_000002_time.txt").write_text(f"0.1\n{wrong}\n0.1\n0.1\n0.1\n" if wrong else "")
    words = "number 2 is" if wrong else "has 0 times for 5 frames"
    with pytest.raises(UserError, match=rf"GOT-10k_Test_000002_time\.txt:? {words}"):
        submit(tmp_path / "mine", benchmark="got10k", dataset=got10k, output=tmp_path / "mine.zip")
    assert not (tmp_path / "mine.zip").exists()


@pytest.mark.parametrize("output", ["", ".", "..", "folder"])
def test_a_folder_is_no_zip(tmp_path, got10k, monkeypatch, output):
    (tmp_path / "here" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="is a folder; name the zip to write, such as"):
        submit(tmp_path / "mine", benchmark="got10k", dataset=got10k, output=Path(output))
    assert [path.name for path in tmp_path.rglob("*.partial")] == []


def test_two_trackers_in_a_zip(tmp_path, got10k):
    for tracker in ("a", "b"):
        shutil.copytree(tmp_path / "mine", tmp_path / "both" / tracker)
    archive = shutil.make_archive(str(tmp_path / "both"), "zip", tmp_path / "both")
    with pytest.raises(UserError, match="holds the results of several trackers"):
        submit(Path(archive), benchmark="got10k", dataset=got10k, output=tmp_path / "mine.zip")


def test_rows_without_a_box(tmp_path, trackingnet):
    rows = BOXES.copy()
    rows[3] = np.nan
    write(tmp_path / "mine" / "cd_1.txt", rows)
    with pytest.raises(UserError, match=r"cd_1 \(row 4 is no box"):
        submit(tmp_path / "mine", benchmark="trackingnet", dataset=trackingnet, output=tmp_path / "mine.zip")


def test_a_line_of_the_list_is_missing(tmp_path, got10k):
    (got10k / "test/list.txt").write_text("GOT-10k_Test_000002\n")
    with pytest.raises(UserError, match=r"has 2 sequences, and .* lacks GOT-10k_Test_000001; complete it"):
        submit(tmp_path / "mine", benchmark="got10k", dataset=got10k, output=tmp_path / "mine.zip")
    assert not (tmp_path / "mine.zip").exists()


def test_an_annotation_is_missing(tmp_path, trackingnet):
    (trackingnet / "TEST/anno/cd_1.txt").unlink()
    with pytest.raises(UserError, match=r"has 2 sequences, and .* 1: complete"):
        submit(tmp_path / "mine", benchmark="trackingnet", dataset=trackingnet, output=tmp_path / "mine.zip")


def test_the_official_test_sets():
    names = BENCHMARKS["got10k"].submission.official_names()
    assert (names[0], names[-1], len(names)) == ("GOT-10k_Test_000001", "GOT-10k_Test_000180", 180)
    assert BENCHMARKS["trackingnet"].submission.sequences == 511


@pytest.mark.parametrize("name", ["mine.zip", "mine/GOT-10k_Test_000001.txt", "got10k/test/list.txt"])
def test_what_is_read_is_not_written_over(tmp_path, got10k, name):
    shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "mine")
    before = (tmp_path / name).read_bytes()
    results = tmp_path / ("mine.zip" if name == "mine.zip" else "mine")
    with pytest.raises(UserError, match=f"{name} is a file of the (results|dataset) itself; write to another file"):
        submit(results, benchmark="got10k", dataset=got10k, output=tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
