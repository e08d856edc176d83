"""`relo` in processes of their own that start at once: they are forked from one that has imported everything."""

import multiprocessing
import os
import random
import resource
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

from relo.commands.main import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["relo.commands.fit", "relo.commands.test", "relo.commands.data", "lightning.pytorch"])


def start(arguments: list[str], cwd: Path, limit: int | None = None) -> BaseProcess:
    """Begin a command, in a session of its own; what it prints is added to a file beside its folder."""
    process = _CONTEXT.Process(target=_run, args=(arguments, str(cwd), str(_log(cwd)), limit))
    process.start()
    return process


def ending(arguments: list[str], cwd: Path, limit: int | None = None, seconds: float = 300) -> tuple[int, str]:
    """Run a command to its end: its exit code, and what it printed.

    Args:
        arguments: the command.
        cwd: where to run it.
        limit: no file may be larger than this many bytes.
        seconds: for how long it may work.
    """
    _log(cwd).unlink(missing_ok=True)
    process = start(arguments, cwd, limit)
    process.join(seconds)
    if process.exitcode is None:
        kill(process)
        raise AssertionError(f"{arguments} did not end in {seconds} s: {printed(cwd)}")
    return process.exitcode, printed(cwd)


def finish(arguments: list[str], cwd: Path, seconds: float = 300) -> None:
    """Run a command to its end, which must be a good one."""
    code, said = ending(arguments, cwd, seconds=seconds)
    assert code == 0, said


def kill(process: BaseProcess, generator: random.Random | None = None) -> None:
    """SIGKILL for the process and those that it started, or, at random, for it alone."""
    assert process.pid is not None
    alone = generator is not None and generator.random() < 0.5
    try:
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        process.kill()
    process.join()


def printed(cwd: Path) -> str:
    """The end of what the commands in a folder have printed."""
    return _log(cwd).read_text(errors="replace")[-4000:]


def peak_memory(cwd: Path) -> int:
    """The bytes that the last command in a folder has held at most."""
    return int(_log(cwd).with_suffix(".peak").read_text())


def _log(cwd: Path) -> Path:
    return cwd.with_name(f"{cwd.name}.log")


def _run(arguments: list[str], cwd: str, log: str, limit: int | None) -> None:
    os.setsid()
    os.chdir(cwd)
    with open(log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        main(arguments)
    finally:
        if limit is None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            Path(log).with_suffix(".peak").write_text(str(peak))
