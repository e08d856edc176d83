"""Zips as people hand them in: damaged, encrypted, compressed in an unknown way, from a Mac."""

import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from relo.data.sequences.datasets import find_benchmark
from relo.errors import UserError
from relo.evaluation.annotations import read_annotations
from relo.evaluation.archives import open_zip
from relo.evaluation.results import find_results, read_result

ROWS = "".join(f"{i}.5,{i * i % 97},30,40\n" for i in range(60))
NAMES = ("alpha-1", "Beta_2")


def zipped(path: Path, files: dict[str, str], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def archive(tmp_path) -> Path:
    return zipped(tmp_path / "mine.zip", {f"mine/{name}.txt": ROWS for name in NAMES})


def change_headers(path: Path, offset: int, value: int) -> None:
    """Set a field of 2 bytes in every entry; `offset` is the one in a local header, 2 less than in the directory."""
    content = bytearray(path.read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        place = content.find(signature)
        while place >= 0:
            struct.pack_into("<H", content, place + offset + shift, value)
            place = content.find(signature, place + 4)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lose_the_beginning(path: Path) -> None:
    path.write_bytes(path.read_bytes()[50:])


def flip_content(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[80] ^= 0x20
    path.write_bytes(content)


def zeros_inside(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes(60) + content[120:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def encrypt(path: Path) -> None:
    change_headers(path, 6, 1)


def compress_in_an_unknown_way(path: Path) -> None:
    change_headers(path, 8, 96)


def need_a_later_version(path: Path) -> None:
    change_headers(path, 4, 99)


FAULTS = [
    cut,
    lose_the_beginning,
    flip_content,
    zeros_inside,
    empty,
    encrypt,
    compress_in_an_unknown_way,
    need_a_later_version,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_zip_that_cannot_be_read_is_named(archive, fault):
    fault(archive)
    for read in (
        lambda: find_results([archive], NAMES, find_benchmark("plain")),
        lambda: read_annotations(archive, find_benchmark("plain")),
    ):
        with pytest.raises(UserError, match=r"The zip .*mine\.zip cannot be read \(.+\): copy it again, or extract it"):
            read()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_byte_may_be_wrong(tmp_path, compression):
    path = zipped(tmp_path / "mine.zip", {f"{name}.txt": ROWS for name in NAMES}, compression)
    intact = path.read_bytes()
    for place in range(0, len(intact), 7):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0xFF]) + intact[place + 1 :])
        try:
            (tracker,) = find_results([path], NAMES, find_benchmark("plain"))
        except UserError:
            continue
        for (file,) in tracker.files.values():
            assert len(read_result(file)) == 60


def test_what_a_mac_adds_is_passed_over(tmp_path):
    name = "GOT-10k_Test_000001"
    extra = {f"__MACOSX/mine/{name}/._{name}_001.txt": "\0\5\26\7", f"mine/{name}/._{name}_001.txt": "\0\5\26\7"}
    path = zipped(tmp_path / "mine.zip", {f"mine/{name}/{name}_001.txt": ROWS, **extra})
    (tracker,) = find_results([path], [name], find_benchmark("got10k"))
    (file,) = tracker.files[name]
    np.testing.assert_array_equal(read_result(file)[3], [3.5, 9, 30, 40])


@pytest.mark.parametrize("wrapper", ["", "results/"])
def test_each_folder_of_a_zip_is_a_tracker(tmp_path, wrapper):
    files = {f"{wrapper}{tracker}/{name}.txt": ROWS for tracker in "ab" for name in NAMES}
    path = zipped(tmp_path / "mine.zip", {**files, "__MACOSX/a/._alpha-1.txt": ""})
    trackers = find_results([path], NAMES, find_benchmark("plain"))
    assert [(tracker.tracker, set(tracker.files)) for tracker in trackers] == [("a", set(NAMES)), ("b", set(NAMES))]
    with pytest.raises(UserError, match=r"mine\.zip holds annotations in several folders \(a, b\)"):
        read_annotations(zipped(path, {f"{folder}/alpha-1.txt": ROWS for folder in "ab"}), find_benchmark("plain"))


@pytest.mark.parametrize("name", ["inner.zip", "INNER.ZIP", "alpha-1.mat"])
def test_a_zip_without_texts_says_what_it_holds(tmp_path, name):
    words = f"'alpha-1.txt', was expected, but there is {name!r}" + (": extract it" if name != "alpha-1.mat" else ".")
    zipped(tmp_path / "folder.zip", {name: ROWS})
    (tmp_path / "folder").mkdir()
    zipped(tmp_path / "folder" / name, {"alpha-1.txt": ROWS})
    for path in (tmp_path / "folder.zip", tmp_path / "folder"):
        with pytest.raises(UserError, match=re.escape(words)):
            find_results([path], ["alpha-1"], find_benchmark("plain"))


def test_an_enormous_text_is_not_unpacked(tmp_path):
    path = zipped(tmp_path / "mine.zip", {"alpha-1.txt": ROWS})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("Beta_2.txt", "w") as file:
        for _ in range(65):
            file.write(bytes(2**20))
    with pytest.raises(UserError, match=r"Beta_2\.txt in the zip .* unpacks to 65 MiB; .* at most 16 MiB"):
        open_zip(path, "no zip")


OUTSIDE = [
    "/alpha-1.txt",
    "//alpha-1.txt",
    "../alpha-1.txt",
    "a/../../alpha-1.txt",
    "..\\alpha-1.txt",
    "C:\\alpha-1.txt",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_that_leads_outside_is_refused(tmp_path, name):
    path = zipped(tmp_path / "mine.zip", {name: ROWS})
    with pytest.raises(UserError, match=r"mine\.zip holds .*alpha-1\.txt', an absolute path or one that leads out"):
        open_zip(path, "no zip")


def test_a_zip_of_many_trackers_or_with_all_images_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("relo.evaluation.archives._LARGEST_ZIP", 1000)
    monkeypatch.setattr("relo.evaluation.archives._MOST_FILES", 3)
    numbers = "\n".join(",".join(f"{value:.2f}" for value in row) for row in np.random.default_rng(0).random((500, 4)))
    for name, text in {"results.zip": numbers, "bomb.zip": "0,0,0,0\n" * 20_000}.items():
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", text)
            for number in range(9):
                archive.writestr(f"img/{number}.jpg", "")
    assert (open_zip(tmp_path / "results.zip", "no zip") / "a.txt").read_text() == numbers
    with pytest.raises(UserError, match=r"bomb\.zip holds more than"):
        open_zip(tmp_path / "bomb.zip", "no zip")
