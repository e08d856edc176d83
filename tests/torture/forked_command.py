"""A `relo` command in a forked process with bounded time and memory, and what it ended with."""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from relo.commands.main import main

LONGEST = 20.0
"""Seconds after which a command hangs. The processes of several people may share the machine: CPU seconds count."""

LARGEST = 600 * 2**20
"""Bytes of resident memory that no command on small inputs takes, beyond those that it was forked with."""

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (negative: the signal), or why it was killed."""

    code: int
    killed: str
    out: str
    err: str


def run_forked(arguments: Sequence[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> Outcome:
    """Run `relo` with `folder` as the working directory, in a process that `prepare` has changed."""
    inherited = _resident(os.getpid())  # of other tests that ran in this process, too
    process = os.fork()
    if process == 0:
        _run_in_child(arguments, folder, prepare)
    killed = ""
    started = time.monotonic()
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            break
        killed = killed or _excess(process, started, inherited)
        if killed:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    _end_group(process)
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, killed, _read(folder / ".out"), _read(folder / ".err"))


def _resident(process: int) -> int:
    """Bytes of memory; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _excess(process: int, started: float, inherited: int) -> str:
    """What a process takes too much of, if anything."""
    if _resident(process) > inherited + LARGEST:
        return f"over {LARGEST >> 20} MiB"
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return ""
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return f"over {LONGEST:g} s" if seconds > LONGEST or time.monotonic() - started > 3 * LONGEST else ""


def _end_group(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _read(path: Path) -> str:
    return path.read_text(errors="backslashreplace")


def _run_in_child(arguments: Sequence[str], folder: Path, prepare: Callable[[], None]) -> None:
    """Never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in ((0, os.devnull), (1, ".out"), (2, ".err")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags, 0o600), number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        prepare()
        _obey_permissions()
        sys.argv = ["relo"]
        main(list(arguments))
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _obey_permissions() -> None:
    """Give up root's right to read and write any file, where this process has it (Linux)."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return
    library = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    words = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    library.capget(header, words)
    words[0] &= ~(1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH)
    library.capset(header, words)
