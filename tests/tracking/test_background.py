import _thread
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relo.tracking.background
from relo.tracking.background import read_ahead, written_behind


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


class Source:
    """Counts its items, and notes when it is closed."""

    def __init__(self):
        self.given, self.is_closed = 0, False

    def __iter__(self):
        try:
            while True:
                time.sleep(0)
                self.given += 1
                yield self.given - 1
        finally:
            self.is_closed = True


@settings(max_examples=60)
@given(
    count=st.integers(0, 30),
    depth=st.integers(1, 6),
    fails_at=st.none() | st.integers(0, 30),
    stops_at=st.none() | st.integers(0, 30),
)
def test_gives_what_the_items_give(count, depth, fails_at, stops_at):
    """Each item in order, then the error, unless the reader stops before; nothing goes on afterwards."""
    events = []

    def items():
        try:
            for index in range(count):
                if index == fails_at:
                    raise LookupError(index)
                yield index
        finally:
            events.append("closed")

    expected = list(range(count if fails_at is None else min(count, fails_at)))
    is_failing = fails_at is not None and fails_at < count
    found, failed_at, ahead = [], None, read_ahead(items(), depth)
    try:
        for item in ahead:
            if stops_at == item:
                ahead.close()
                break
            found.append(item)
    except LookupError as error:
        failed_at = error.args[0]
    if stops_at in expected:
        assert found == expected[:stops_at]
        assert failed_at is None
    else:
        assert found == expected
        assert failed_at == (fails_at if is_failing else None)
    assert events == ["closed"]
    assert not threads()


def test_reads_ahead_by_the_depth_and_no_further():
    source = Source()
    ahead = read_ahead(source, depth=3)
    assert source.given == 0
    assert next(ahead) == 0
    until(lambda: source.given == 5)  # one given, three waiting, one in the thread's hands
    time.sleep(0.05)
    assert source.given == 5
    ahead.close()
    assert source.is_closed


def test_the_newest_are_kept_where_old_ones_are_dropped():
    source = Source()
    ahead = read_ahead(source, depth=1, drop_oldest=True)
    assert next(ahead) >= 0
    seen = source.given
    until(lambda: source.given > seen + 50)
    assert next(ahead) >= seen + 49
    ahead.close()
    assert source.is_closed
    assert list(read_ahead(range(0), 1, drop_oldest=True)) == []


def test_an_abandoned_reader_ends_its_thread():
    source = Source()
    for item in read_ahead(source, depth=2):
        if item == 3:
            break
    until(lambda: source.is_closed and not threads())


def test_interrupting_the_reader_stops_the_thread():
    source = Source()

    def interrupted():
        for item in read_ahead(source, depth=2):
            if item == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    until(lambda: source.is_closed)


def test_a_wait_for_an_item_can_be_interrupted():
    """Ctrl-C while the source gives nothing: the reader is interrupted at once."""
    may_end = threading.Event()

    def silent():
        yield 0
        may_end.wait(10)

    ahead = read_ahead(silent(), depth=1)
    next(ahead)
    timer = threading.Timer(0.1, lambda: (_thread.interrupt_main(), may_end.set()))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(ahead)
    assert time.monotonic() - started < 2


def test_a_source_that_hangs_is_left_behind_and_closes_later(monkeypatch):
    monkeypatch.setattr(relo.tracking.background, "_FAREWELL", 0.1)
    may_go_on, is_closed = threading.Event(), threading.Event()

    def hanging():
        try:
            yield 0
            may_go_on.wait(10)
            yield 1
        finally:
            is_closed.set()

    ahead = read_ahead(hanging(), depth=1)
    next(ahead)
    started = time.monotonic()
    ahead.close()
    assert time.monotonic() - started < 1
    assert not is_closed.is_set()
    may_go_on.set()
    assert is_closed.wait(5)


def test_what_cannot_be_iterated_is_an_error():
    with pytest.raises(TypeError):
        next(read_ahead(3, depth=1))
    with pytest.raises(ValueError, match="depth is 0"):
        read_ahead([], depth=0)


def until(is_true, seconds=5.0):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_everything_is_written_in_order_by_one_thread():
    written, threads = [], set()

    def write(item):
        threads.add(threading.current_thread())
        written.append(item)

    with written_behind(write, 2) as put:
        for item in range(100):
            put(item)
    assert written == list(range(100))
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_no_more_than_the_depth_wait():
    go_on, begun = threading.Event(), []

    def write(item):
        begun.append(item)
        go_on.wait(10)

    put_so_far = []
    with written_behind(write, 2) as put:

        def put_all():
            for item in range(10):
                put(item)
                put_so_far.append(item)

        feeder = threading.Thread(target=put_all)
        feeder.start()
        feeder.join(0.1)
        assert len(put_so_far) <= 3  # one is being written, two wait
        assert begun == [0]
        go_on.set()
        feeder.join()
    assert begun == list(range(10))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_what_is_queued_is_written_when_the_block_fails(kind):
    written = []

    def write(item):
        time.sleep(0.01)
        written.append(item)

    def fail():
        with written_behind(write, 10) as put:
            for item in range(5):
                put(item)
            raise kind

    with pytest.raises(kind):
        fail()
    assert written == list(range(5))


def test_a_failure_comes_out_at_the_next_item_and_never_blocks():
    tried = []

    def write(item):
        tried.append(item)
        if item == 3:
            raise OSError("full")

    def put_many():
        with written_behind(write, 1) as put:
            for item in range(1000):
                put(item)
                time.sleep(0.001)

    with pytest.raises(OSError, match="full"):
        put_many()
    assert tried == [0, 1, 2, 3]


def test_a_failure_comes_out_at_the_end():
    def write(item):
        raise OSError("full")

    with pytest.raises(OSError, match="full"), written_behind(write, 5) as put:
        put(1)


def test_the_block_s_own_error_goes_first():
    def write(item):
        raise OSError("full")

    def fail():
        with written_behind(write, 5) as put:
            put(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()


def test_a_second_interruption_gives_up_what_waits(monkeypatch):
    written, join, interruptions = [], threading.Thread.join, [KeyboardInterrupt()]

    def write(item):
        time.sleep(0.05)
        written.append(item)

    def interrupted_join(thread):
        if interruptions:
            raise interruptions.pop()
        join(thread)

    def put_ten():
        with written_behind(write, 10) as put:
            for item in range(10):
                put(item)
            monkeypatch.setattr(threading.Thread, "join", interrupted_join)

    with pytest.raises(KeyboardInterrupt):
        put_ten()
    assert len(written) < 3
    assert not any(thread.name == "writer" for thread in threading.enumerate())
