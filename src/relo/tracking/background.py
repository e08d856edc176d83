"""Work that goes on in a thread while the tracker computes."""

import threading
from collections import deque
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_GLANCE = 0.2  # seconds; Windows does not notice Ctrl-C during a wait, so that long ones are cut into short ones
_FAREWELL = 2.0  # seconds that a thread gets to end; it is a daemon, and may hang in a read from the network


def read_ahead(items: Iterable[Item], depth: int = 8, *, drop_oldest: bool = False) -> Generator[Item, None, None]:
    """Give the items in order while a thread reads the next ones.

    An exception of the items is raised after the last item before it. Closing the generator ends the thread, which
    closes the items' iterator; where that hangs in a read, it is left behind after 2 seconds.

    Args:
        items: iterated once, in the thread, from the moment the first item is asked for.
        depth: this many items may wait at most; one more is in the thread's hands.
        drop_oldest: where `depth` items wait, drop the oldest for a new one; otherwise the thread waits.
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}; at least one item must be able to wait.")
    return _read_ahead(items, depth, drop_oldest)


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
