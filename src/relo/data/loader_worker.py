"""How a worker process of a loader starts.

Apart from the data module, so that a spawned worker, which unpickles this function, imports no Lightning.
"""

import multiprocessing
import signal

import cv2

_PRELOADED = ("relo.data.clip_dataset", "relo.data.loader_worker")


def start_worker(worker: int) -> None:
    """One thread for each process of a loader, as the cores belong to the training step; the trainer handles Ctrl-C."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def share_imports() -> None:
    """Let workers that a fork server starts share torch's memory: the server imports it before it forks them."""
    multiprocessing.set_forkserver_preload([*_PRELOADED])
