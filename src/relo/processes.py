"""How processes that we start end: with the one that started them, and with a reason."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

PARENT = "RELO_ENDS_WITH"
"""The variable that names the process with which a command of ours is to end, if that started it."""

POLL_SECONDS = 0.5

STOPPED = 128 + signal.SIGINT
"""The exit code after Ctrl-C."""

SAID_WHEN_STOPPED = "relo: stopped; what was finished is kept."


def exit_reason(code: int) -> str:
    """What to say of a process by its exit code, which is negative where a signal has ended it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", possibly out of memory" if name == "SIGKILL" else "")


def end_with_parent() -> None:
    """Watch the process that the environment names, in a thread, and end this one when that has ended, however it did.

    A process that is killed cannot stop those that it has started, and they may wait for it for ever.
    """
    parent = os.environ.pop(PARENT, None)  # those that this one starts have another parent
    if parent is not None:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True, name="end-with-parent").start()


def end_worker_with_parent() -> None:
    """In a process that `multiprocessing` has started, watch the one that asked for it, and end with it likewise.

    That one is not the parent of a worker that a fork server has forked: the server waits, in turn, for its workers.
    """
    threading.Thread(target=_join_parent, daemon=True, name="end-with-parent").start()


def exit_on_interrupt() -> None:
    """Until `raise_on_interrupt`, let Ctrl-C end this process at once, if it is not ignored.

    It is for the time of imports: libraries in C++ abort where an exception of Python's passes through them.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def raise_on_interrupt() -> None:
    """From now on, Ctrl-C raises KeyboardInterrupt: there is work to be ended well."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(*_: object) -> None:
    with suppress(OSError):
        os.write(2, f"{SAID_WHEN_STOPPED}\n".encode())
    os._exit(STOPPED)


def leave(code: int) -> None:
    """End this process and those that it has started by `multiprocessing` at once, from any thread."""
    import multiprocessing  # not when a command starts

    for child in multiprocessing.active_children():
        child.kill()
    sys.stderr.flush()
    os._exit(code)


def _join_parent() -> None:
    import multiprocessing  # not when a command starts

    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    sys.stderr.write(f"relo: process {parent} has ended, and this one, which it had started, ends with it.\n")
    leave(1)
