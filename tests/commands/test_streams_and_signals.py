"""Commands whose output cannot be written or is not read to its end, and commands that are stopped."""

import os
import signal
import subprocess
import sys
import time

import pytest

from refusals import refused
from training_runs import environment

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
SLOW = "import sys; sys.argv = ['relo', 'data', 'doctor', *['.'] * 5000]"


def relo(*arguments, **streams):
    command = [sys.executable, "-m", "relo", *arguments]
    return subprocess.run(command, text=True, env=environment(), timeout=60, check=False, **streams)


@ON_LINUX
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_a_full_disk_under_the_output_is_told(arguments):
    with open("/dev/full", "w") as full:
        ended = relo(*arguments, stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 2
    assert ended.stderr == "relo: error: What is to be printed cannot be written (the disk is full).\n"


@ON_LINUX
def test_a_mistake_that_cannot_be_told_is_one():
    with open("/dev/full", "w") as full:
        assert relo("nope", stdout=subprocess.PIPE, stderr=full).returncode == 2


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_output_that_nobody_reads_ends_a_command_in_silence(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        ended = relo(*arguments, stdout=pipe, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that is worked in")
@pytest.mark.parametrize("arguments", ["--help", "track a.mp4 --box 1,2,3,4"])
def test_a_working_folder_that_was_removed_is_told(tmp_path, arguments):
    script = f'cd "{tmp_path}" && rmdir "{tmp_path}" && exec "{sys.executable}" -m relo {arguments}'
    ended = subprocess.run(["sh", "-c", script], env=environment(), text=True, capture_output=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("relo: error: The working folder cannot be used (No such file or directory)")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("columns", ["0", "00", "-1", "²", "9" * 5000, "x", ""])
def test_a_width_that_is_none_leaves_the_sentence(columns):
    command = [sys.executable, "-m", "relo", "nope"]
    ended = subprocess.run(
        command, env=environment() | {"COLUMNS": columns, "LINES": columns}, text=True, capture_output=True, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("relo: error: There is no command 'relo nope'")


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5])
def test_ctrl_c_again_and_again_stops_a_command(seconds, tmp_path):
    command = [sys.executable, "-c", f"from relo.__main__ import main; print('begun', flush=True); {SLOW}; main()"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=tmp_path
    )
    process.stdout.readline()
    time.sleep(seconds)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_thread_that_cannot_be_started_is_told(tmp_path, monkeypatch, capsys):
    def start(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    assert "No thread could be started: raise the limit" in refused(capsys, "track", tmp_path, "--box", "1,1,9,9")
