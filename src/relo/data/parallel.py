"""Long work on many sequences: several processes, few jobs in flight, and a bar with rate and time left."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from relo.errors import UserError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def in_order(function: Callable[[_Job], _Result], jobs: Iterable[_Job], workers: int) -> Generator[_Result, None, None]:
    """The results of the jobs, in their order, made by several processes.

    Never more than two jobs beyond the number of workers are in work or wait to be fetched, which bounds the memory.
    Workers leave Ctrl-C to this process, and end with it, however it ends.

    Args:
        function: what to do with a job; picklable, as are jobs and results. It is sent to each worker once.
        jobs: taken when there is room for them.
        workers: processes; 0 does the work in this one.

    Raises:
        UserError: a worker was killed.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    # Spawned, not forked: the caller may hold threads (torch, OpenCV) that a fork would break.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (function,)) as pool:
        in_flight: deque[Future[_Result]] = deque()
        try:
            for job in jobs:
                in_flight.append(pool.submit(_do, job))
                if len(in_flight) >= workers + 2:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process was killed, perhaps for want of memory: run again with fewer workers."
            ) from error
        finally:
            for future in in_flight:
                future.cancel()


class WorkProgress(Progress):
    """A bar over sequences with frames a second, megabytes a second where bytes are counted, and the time left."""

    def __init__(self, console: Console, described: str, total: int, done: int = 0) -> None:
        """Set the bar: of `total` sequences, `done` were done by an earlier run."""
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("sequences, {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.add_task(described, total=total, completed=done, rate="-")
        self._frames = self._bytes = 0

    def count(self, frames: int, size: int = 0) -> None:
        """One more sequence is done, of so many frames and bytes."""
        self._frames += frames
        self._bytes += size
        elapsed = self.tasks[0].elapsed
        rate = "-"
        if elapsed:
            rate = f"{self._frames / elapsed:,.0f} frames/s"
            if self._bytes:
                rate += f", {self._bytes / elapsed / 1e6:,.1f} MB/s"
        self.update(self._task, advance=1, rate=rate)


def default_workers(workers: int | None) -> int:
    """The given number of processes, or one a core."""
    return (os.cpu_count() or 1) if workers is None else workers


_function: Callable[[Any], Any]  # of a worker


def _start_worker(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(job: Any) -> Any:
    return _function(job)


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
