"""`relo` in processes of their own that start at once: they are forked from one that has imported everything."""

import multiprocessing
import os
import random
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

from relo.commands.main import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["relo.commands.fit", "relo.commands.test", "relo.commands.data", "lightning.pytorch"])


def start(arguments: list[str], cwd: Path) -> BaseProcess:
    """Begin a command, in a session of its own; what it prints is added to `output.log` beside its folder."""
    process = _CONTEXT.Process(target=_run, args=(arguments, str(cwd), str(_log(cwd))))
    process.start()
    return process


def finish(arguments: list[str], cwd: Path, seconds: float = 300) -> None:
    """Run a command to its end, which must be a good one."""
    process = start(arguments, cwd)
    process.join(seconds)
    if process.exitcode is None:
        kill(process)
        raise AssertionError(f"{arguments} did not end in {seconds} s: {printed(cwd)}")
    assert process.exitcode == 0, printed(cwd)


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


def _log(cwd: Path) -> Path:
    return cwd.with_name(f"{cwd.name}.log")


def _run(arguments: list[str], cwd: str, log: str) -> None:
    os.setsid()
    os.chdir(cwd)
    with open(log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    main(arguments)
