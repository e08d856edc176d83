"""Files that are written whole, and YAML that says what is wrong with it."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from relo.errors import UserError
from relo.files import atomic_write, machine, read_yaml, write_text


def test_a_file_is_written_whole_into_folders_that_are_made(tmp_path):
    write_text(tmp_path / "new" / "file.txt", "old")
    write_text(tmp_path / "new" / "file.txt", "new")
    assert (tmp_path / "new" / "file.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.txt"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_was_there_stays_and_nothing_is_left_when_writing_fails(tmp_path, is_folder):
    path = tmp_path / "kept"
    path.write_text("before")

    def write():
        with atomic_write(path) as partial:
            if is_folder:
                partial.mkdir()
            (partial / "file" if is_folder else partial).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    (tmp_path / f".file.txt.{killed.pid}@{machine()}").mkdir()
    old = tmp_path / f".file.txt.{killed.pid}@elsewhere"
    old.write_text("half")
    os.utime(old, (0, 0))
    ours = f"{killed.pid}@{machine()}"
    kept = [f".file.txt.{os.getppid()}@{machine()}", f".other.txt.{ours}", f".file.txt.{killed.pid}@another"]
    kept += [f".file.txt.{os.getpid()}@{socket.gethostname()}-1"]  # of a container of the same name
    kept += [".file.txt.bak", f".file.txt.{killed.pid}"]  # of a person
    for name in kept:  # of those that are at work, here or elsewhere, and of other files
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "file.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "file.txt"])


@pytest.mark.parametrize("name", ["n" * 255, "\u5c71" * 85])
@pytest.mark.parametrize("dead", [2**31 - 2, 9])  # of more digits than any process of Linux has, and of few
def test_the_longest_names_are_written(tmp_path, monkeypatch, name, dead):
    def write():
        with atomic_write(tmp_path / name) as partial:
            partial.write_text("text")
            assert partial.parent == tmp_path
            return partial.name

    left = write().replace(f".{os.getpid()}@", f".{dead}@")
    (tmp_path / left).write_text("half")
    monkeypatch.setattr("relo.files._is_alive", lambda process: process != dead)
    write()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_of_many_files_is_not_looked_through_at_each_write(tmp_path, monkeypatch):
    for number in range(1000):
        (tmp_path / f"{number}.txt").touch()
    looked = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: looked.append(folder) or scan(folder))
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    (tmp_path / f".new_39.txt.{killed.pid}@{machine()}").write_text("half")
    for number in range(40):
        write_text(tmp_path / f"new_{number}.txt", "whole")
    assert 1 <= len(looked) < 5
    assert not list(tmp_path.glob(".*"))


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "file"
    write_text(target, "old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_text(pipe, "through")
    reader.join(10)
    assert read == ["through"]
    assert pipe.is_fifo()


def test_a_folder_is_written_whole(tmp_path):
    with atomic_write(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "file").write_text("inside")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "file").read_text() == "inside"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: [1", r"is no YAML in line 1: .*\."),
        (b"a: 2001-13-45", r"is no YAML: month must be in 1\.\.12\."),
        (b"a: 1\nb: {c: 1, c: 2}", r"is ambiguous in line 2: 'c' is given twice; keep one of them\."),
        (b"a: 010", r"is ambiguous in line 1: 010 stands for the number 8; write 8, or '010' for a text\."),
        (b"- 1:30", r"is ambiguous in line 1: 1:30 stands for the number 90; write 90, or '1:30' for a text\."),
        (b"a: 1:30.5", r"is ambiguous in line 1: 1:30\.5 stands for the number 90\.5; "),
        (b"\xff\xfe\xff", r"cannot be read \(it is no text\)\."),
        (None, r"cannot be read \(No such file or directory\)\."),
    ],
)
def test_what_is_wrong_with_yaml_is_one_sentence(tmp_path, content, problem):
    path = tmp_path / "rule.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^The rule {path} {problem}"):
        read_yaml(path, "The rule")


def test_yaml_is_read(tmp_path):
    write_text(tmp_path / "a.yaml", "a: [1, b]\n")
    assert read_yaml(tmp_path / "a.yaml", "The file") == {"a": [1, "b"]}
    write_text(tmp_path / "a.yaml", "a: &a {t: 00:12:00:00, u: '010', w: [a, a]}\nb: {<<: *a, t: 1, v: {t: 0}}\n")
    found = {"t": "00:12:00:00", "u": "010", "w": ["a", "a"]}
    assert read_yaml(tmp_path / "a.yaml", "The file") == {"a": found, "b": {**found, "t": 1, "v": {"t": 0}}}


@pytest.mark.parametrize("name", [".", "..", "/", "folder", "folder/.."])
def test_a_folder_is_not_taken_for_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    with pytest.raises(UserError, match=r"cannot be written \(.*irectory"):
        write_text(Path(name), "text")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "kept"]


@pytest.mark.parametrize(
    "number",
    [
        "0x" + "f" * 260,
        "-0x" + "f_" * 4000,
        "0b" + "1" * 1000,
        "9" * 301,
        f'!!int "0x{"f" * 260}"',
        "!!int '1" + ":1" * 200 + "'",
    ],
)
def test_numbers_beyond_floats_are_refused(tmp_path, number):
    write_text(tmp_path / "a.yaml", f"? {number}\n: 1\n")
    with pytest.raises(UserError, match="is no YAML: it holds a number of over 300 digits"):
        read_yaml(tmp_path / "a.yaml", "The file")


@pytest.mark.parametrize("number", ["0x" + "f" * 249, "0b" + "1" * 996, "9" * 300])
def test_the_largest_numbers_are_read(tmp_path, number):
    write_text(tmp_path / "a.yaml", f"- {number}\n- '{'9' * 400}'\n- {'a' * 400}\n")
    assert float(read_yaml(tmp_path / "a.yaml", "The file")[0]) < float("inf")
