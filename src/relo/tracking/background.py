"""Work that goes on in a thread while the tracker computes."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import TypeVar, cast

Item = TypeVar("Item")

_GLANCE = 0.2  # seconds; Windows does not notice Ctrl-C during a wait, so that long ones are cut into short ones
_FAREWELL = 2.0  # seconds that a thread gets to end; it is a daemon, and may hang in a read from the network


def read_ahead(items: Iterable[Item], depth: int = 8, *, drop_oldest: bool = False) -> Generator[Item, None, None]:
    """Give the items in order while a thread reads the next ones.

    An exception of the items is raised after the last item before it. Closing the generator ends the thread, which
    closes the items' iterator; where that hangs in a read, it is left behind after 2 seconds.

    Args:
        items: iterated once, in the thread, from the moment the first item is asked for; from now on if `drop_oldest`.
        depth: this many items may wait at most; one more is in the thread's hands.
        drop_oldest: where `depth` items wait, drop the oldest for a new one; otherwise the thread waits.
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}; at least one item must be able to wait.")
    following = _read_ahead(items, depth, drop_oldest)
    if drop_oldest:
        next(following)
    return following


def _read_ahead(items: Iterable[Item], depth: int, drop_oldest: bool) -> Generator[Item, None, None]:
    waiting: deque[Item] = deque(maxlen=depth)
    failures: list[BaseException] = []
    changed = threading.Condition()
    is_done = is_stopped = False

    def read() -> None:
        nonlocal is_done
        try:
            iterator = iter(items)
            try:
                for item in iterator:
                    with changed:
                        changed.wait_for(lambda: is_stopped or drop_oldest or len(waiting) < depth)
                        if is_stopped:
                            break
                        waiting.append(item)
                        changed.notify_all()
            finally:
                if (close := getattr(iterator, "close", None)) is not None:
                    close()
        except BaseException as error:
            failures.append(error)
        with changed:
            is_done = True
            changed.notify_all()

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        if drop_oldest:
            yield cast(Item, None)  # to `read_ahead`: the thread has begun
        while True:
            with changed:
                while not waiting and not is_done:
                    changed.wait(_GLANCE)
                if not waiting:
                    break
                item = waiting.popleft()
                changed.notify_all()
            yield item
        if failures:
            raise failures.pop()
    finally:
        with changed:
            is_stopped = True
            changed.notify_all()
        thread.join(_FAREWELL)


@contextmanager
def written_behind(write: Callable[[Item], None], depth: int) -> Iterator[Callable[[Item], None]]:
    """Have items written, in order, by one thread; what is queued when the block ends, however it ends, is written.

    Args:
        write: takes an item; called by that thread alone.
        depth: how many items may wait; 1 or more.

    Yields:
        What to call with an item. It waits while `depth` items do.

    Raises:
        BaseException: what `write` raised, once, from the next call or at the end of the block; items after the
            one that failed are dropped. An error of the block itself goes first.
    """
    queue: Queue[Item | _End] = Queue(depth)
    failures: list[BaseException] = []

    def work() -> None:
        while not isinstance(item := queue.get(), _End):
            if not failures:  # after a failure, items are taken and dropped, so that nobody waits for room
                try:
                    write(item)
                except BaseException as error:  # the caller raises it
                    failures.append(error)

    def put(item: Item) -> None:
        if failures:
            raise failures[0]
        queue.put(item)

    def finish() -> None:
        queue.put(_End())
        thread.join()

    thread = threading.Thread(target=work, name="writer", daemon=True)
    thread.start()
    try:
        yield put
    finally:
        try:
            finish()
        except BaseException as error:  # stopped a second time: what waits is given up
            failures.append(error)
            finish()
            raise
    if failures:
        raise failures[0]


class _End:
    """Behind the last item."""
