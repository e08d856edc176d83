"""How a worker process of a loader starts.

Apart from the data module, so that a spawned worker, which unpickles this function, imports no Lightning.
"""

import signal

import cv2


def start_worker(worker: int) -> None:
    """One thread for each process of a loader, as the cores belong to the training step; the trainer handles Ctrl-C."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
