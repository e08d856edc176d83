"""The pool behind rendering, packing and verifying: order, bounded memory, and no process left behind."""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from relo.data.parallel import ahead, in_order
from relo.errors import UserError


def slow_for_early_jobs(job):
    time.sleep(0.05 if job < 2 else 0)
    return job * job


def refuse_three(job):
    if job == 3:
        raise UserError("Job 3 is broken.")
    return job


def fail_to_read(job):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def kill_itself(job):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    assert list(in_order(slow_for_early_jobs, range(12), workers)) == [job * job for job in range(12)]


def test_jobs_are_taken_as_results_are_fetched():
    taken = []

    def jobs():
        for job in range(100):
            taken.append(job)
            yield job

    with closing(in_order(slow_for_early_jobs, jobs(), 1)) as results:
        for _ in range(5):
            next(results)
        assert len(taken) == 5 + 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_job_ends_the_work_after_the_results_before_it(workers):
    results = in_order(refuse_three, range(9), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"Job 3 is broken\."):
        next(results)


STOPPED = """
from relo.data.parallel import in_order
import time
if __name__ == "__main__":
    try:
        print("begun", flush=True)
        for result in in_order(time.sleep, [0.01] * 5000, 2):
            pass
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("seconds", [0.1, 0.4, 1.0])  # workers are started, and import
def test_ctrl_c_again_and_again_stops_the_pool_in_silence(seconds, tmp_path):
    (tmp_path / "stopped.py").write_text(STOPPED)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "stopped.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    time.sleep(seconds)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("stopped\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count files otherwise")
def test_processes_that_cannot_be_started_are_one_sentence(tmp_path):
    limited = STOPPED.replace("import time", "import resource, time").replace(
        "    try:", "    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\n    try:"
    )
    (tmp_path / "few.py").write_text(limited)
    ended = subprocess.run([sys.executable, tmp_path / "few.py"], capture_output=True, text=True, timeout=60)
    assert "UserError: No process could be started (Too many open files): run again with fewer" in ended.stderr


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EPERM])
def test_locks_that_find_no_place_are_one_sentence(monkeypatch, number):
    def refuse(*_, **__):  # as where there is no usable /dev/shm
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    with pytest.raises(UserError, match=r"No process could be started \(.*\): run with --workers 0"):
        list(in_order(refuse_three, range(3), 1))
    assert list(in_order(refuse_three, range(3), 0)) == [0, 1, 2]


def test_a_jobs_own_error_is_not_taken_for_that_of_a_process():
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        list(in_order(fail_to_read, range(3), 1))


def test_a_killed_worker_is_one_sentence():
    with pytest.raises(UserError, match="A worker process was killed"):
        list(in_order(kill_itself, range(3), 1))


TELL_AND_WAIT = """
import os, sys, time
from relo.data.parallel import in_order

def work(job):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    list(in_order(work, range(2), 2))
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(TELL_AND_WAIT)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(is_running, workers))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def test_reading_ahead_keeps_the_order_and_is_not_far_ahead():
    begun = []
    results = ahead(lambda job: begun.append(job) or -job, range(50))
    assert next(results) == 0
    assert max(begun) < 8
    assert list(results) == [-job for job in range(1, 50)]
