"""How processes of ours end: with the one that started them, and with a reason."""

import os
import subprocess
import sys
import time

import pytest

from relo.processes import exit_reason

# The first starts the second, which has one of its own by multiprocessing, and tells its numbers.
FIRST = """
import os, subprocess, sys
from relo.processes import PARENT
subprocess.run([sys.executable, "-c", sys.argv[1]], env={**os.environ, PARENT: str(os.getpid())})
"""
SECOND = """
import multiprocessing, os, time
from relo.processes import PARENT, end_with_parent
end_with_parent()
third = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
third.start()
print(os.getpid(), third.pid, PARENT in os.environ, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at /proc")
def test_a_process_and_those_it_has_started_end_with_its_killed_parent():
    first = subprocess.Popen(
        [sys.executable, "-c", FIRST, SECOND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    *numbers, is_passed_on = first.stdout.readline().split()
    assert all(map(is_running, numbers))
    assert is_passed_on == "False"
    first.kill()
    deadline = time.monotonic() + 20
    while any(map(is_running, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, numbers))
    assert f"process {first.pid} has ended" in first.communicate()[1]


def is_running(number):
    try:
        with open(f"/proc/{number}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (3, "ended with exit code 3"),
        (-9, "was killed by SIGKILL, possibly out of memory"),
        (-15, "was killed by SIGTERM"),
        (-60, "was killed by signal 60"),
    ],
)
def test_an_exit_code_is_a_reason(code, reason):
    assert exit_reason(code) == reason
