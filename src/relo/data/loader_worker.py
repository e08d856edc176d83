"""How a worker process of a loader starts.

Apart from the data module, so that a spawned worker, which unpickles this function, imports no Lightning.
"""

import multiprocessing
import signal
from typing import Literal

import cv2

from relo.processes import end_worker_with_parent

StartMethod = Literal["fork", "spawn", "forkserver"]

_PRELOADED = ("relo.data.clip_dataset", "relo.data.loader_worker")


def start_worker(worker: int) -> None:
    """One thread for each process of a loader, as the cores belong to the training step; the trainer handles Ctrl-C."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_worker_with_parent()  # the loader's own watch asks for the parent, which may be the fork server


def start_method(chosen: StartMethod | None, ranks: int) -> StartMethod | None:
    """How to start workers: as chosen; else the platform's way (None), but from one of several ranks by a fork server.

    A rank has threads of its process group, which call Python: a worker that is forked while one of them enters may
    wait for a lock of the interpreter for ever (before Python 3.12, whose fork takes that lock first).
    """
    if chosen is None and ranks > 1 and multiprocessing.get_start_method() == "fork":
        return "forkserver"
    return chosen


def share_imports() -> None:
    """Let workers that a fork server starts share torch's memory: the server imports it before it forks them."""
    multiprocessing.set_forkserver_preload([*_PRELOADED])
