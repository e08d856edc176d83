"""Long work on many sequences: several processes, and few jobs in flight."""

import errno
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import cv2

from relo.errors import UserError
from relo.processes import end_worker_with_parent
from relo.settings import check_whole

_READERS = 2
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)  # files, processes or memory
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
        UserError: a worker was killed, or could not be started.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    # Spawned, not forked: the caller may hold threads (torch, OpenCV) that a fork would break.
    context = multiprocessing.get_context("spawn")
    with _named_failures():
        pool = ProcessPoolExecutor(workers, context, _start_worker, (function,))
        resource_tracker.ensure_running()  # its start would let Ctrl-C through
        try:
            yield from _results(pool, _do, jobs, workers + 2)
        finally:
            with _interrupts_wait():  # a second Ctrl-C, too: what is in work takes seconds
                pool.shutdown(cancel_futures=True)


@contextmanager
def _named_failures() -> Iterator[None]:
    """Say what ended a pool of processes, or kept it from its beginning."""
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError("A worker process was killed, possibly out of memory: run again with fewer workers.") from error
    except OSError as error:
        if error.__cause__ is not None and error.errno not in _NO_MORE:  # a job's, with the worker's traceback
            raise
        for process in multiprocessing.active_children():  # those that a pool has begun with, it does not end
            process.kill()
        raise not_started(error, "run again with fewer workers", "run with --workers 0") from error


def not_started(error: OSError, fewer: str, none: str) -> UserError:
    """What to raise where a process was not started: what helps where there are too many, and where there can be none.

    None can be where their locks find no place, as where there is no shared memory.
    """
    remedy = fewer if error.errno in _NO_MORE else none
    return UserError(f"No process could be started ({error.strerror or error}): {remedy}.")


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C wait for the end; processes that are started here never see it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ahead(function: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Generator[_Result, None, None]:
    """The results of the jobs, in their order, made by threads that are a few jobs ahead: for reading files."""
    with ThreadPoolExecutor(_READERS) as pool:
        yield from _results(pool, function, jobs, _READERS + 1)


def _results(
    pool: Executor, function: Callable[[_Job], _Result], jobs: Iterable[_Job], most: int
) -> Generator[_Result, None, None]:
    """The results of the jobs, in their order; at most so many jobs are in work or wait to be fetched."""
    in_flight: deque[Future[_Result]] = deque()
    try:
        for job in jobs:
            with _interrupts_wait():  # a process may be started
                in_flight.append(pool.submit(function, job))
            if len(in_flight) >= most:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()
    finally:
        for future in in_flight:
            future.cancel()


def default_workers(workers: int | None) -> int:
    """The given number of processes, or one per core.

    Raises:
        UserError: a number out of its range.
    """
    if workers is not None:
        check_whole("This command", 0, 1024, workers=workers)
    return (os.cpu_count() or 1) if workers is None else workers


_function: Callable[[Any], Any]  # of a worker


def _start_worker(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_worker_with_parent()


def _do(job: Any) -> Any:
    return _function(job)
