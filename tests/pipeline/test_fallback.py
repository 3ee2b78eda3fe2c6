"""Handing failures over: what the whole handler cannot show, because it takes two threads at a certain moment."""

import io
import logging
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import pytest

from dis_logging.pipeline import fallback as module
from dis_logging.pipeline.entry import Entry, Failure
from dis_logging.pipeline.fallback import Fallback
from dis_logging.pipeline.stats import Ledger
from tests.conftest import RememberingHandler, no_thread


class Blocking(RememberingHandler):
    """A handler that blocks until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        self.released.wait(60)
        super().emit(record)


class Rig:
    """A fallback with its ledger."""

    def __init__(self, handler: logging.Handler | None) -> None:
        self.ledger = Ledger()
        self.fallback = Fallback(lambda: handler, "app-logs", self.ledger)

    def put(self, text: str, *, buffered: bool = True) -> None:
        entry = self.make_entry(text)
        if buffered:
            self.accept(entry)
            self.fallback.put_all([_failure_of(entry)])
        else:
            self.fallback.put(_failure_of(entry)._replace(buffered=False))

    def make_entry(self, text: str) -> Entry:
        return (text.encode(), "key", None, self.ledger.epoch, "web", 20, 0.0, "path", 1, None, None, ())

    def accept(self, entry: Entry) -> None:
        self.ledger.accept(entry)
        self.ledger.entries_in += 1


def _failure_of(entry: Entry) -> Failure:
    return Failure(entry, "overflow", "full", 0, outcome_unknown=False, buffered=True)


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    """A handler that blocks, at the longest until the test ends."""
    handler = Blocking()
    yield handler
    handler.released.set()


def test_drain_waits_for_a_failure_between_the_queue_and_the_handler(fallback: RememberingHandler) -> None:
    rig = Rig(fallback)
    taken, go_on = threading.Event(), threading.Event()

    class SlowQueue(deque[Any]):
        def popleft(self) -> Any:
            item = super().popleft()
            taken.set()
            go_on.wait(60)
            return item

    rig.fallback._queue = SlowQueue()
    rig.put("text")
    assert taken.wait(20)
    releaser = threading.Timer(0.1, go_on.set)
    releaser.start()

    rig.fallback.drain(time.monotonic() + 20)

    assert fallback.texts == ["text"]
    assert rig.ledger.snapshot().buffered == 0
    releaser.join()
    rig.fallback.stop()


class BlockingOnce(Blocking):
    """A handler without a lock that blocks at its first record."""

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)  # that of Python 3.13.0 cannot do without a lock
        return True

    def emit(self, record: logging.LogRecord) -> None:
        if self.entered.is_set():
            RememberingHandler.emit(self, record)
        else:
            super().emit(record)


def test_two_threads_that_close_show_each_failure_once(blocking: Blocking, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes while the first is showing."""
    rig = Rig(blocking)
    for number in range(40):
        rig.put(f"record {number}")
    assert blocking.entered.wait(20)
    deadline = time.monotonic() + 0.5
    second = threading.Thread(target=rig.fallback.drain, args=(deadline,))
    lines: list[str] = []

    class Stderr(io.StringIO):
        def write(self, text: str) -> int:
            lines.append(text)
            if len(lines) == 20:
                second.start()
            if len(lines) == 30:
                second.join(20)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Stderr())

    rig.fallback.drain(deadline)

    # On a busy machine the time may be up before the last are shown.
    shown = Counter(line.rpartition(": ")[2].strip() for line in lines if "there was no time to show" not in line)
    assert len(shown) >= 20
    assert set(shown.values()) == {1}
    assert rig.ledger.snapshot().failed == 40


def test_one_thread_at_a_time_hands_over() -> None:
    """A thread that flushes hands over while none can be started; then one starts after all."""
    handler = BlockingOnce()
    rig = Rig(handler)
    with no_thread():
        rig.put("one")
        rig.put("two")
    flushing = threading.Thread(target=rig.fallback.hand_over_all)
    flushing.start()
    assert handler.entered.wait(20)

    rig.put("three")
    while not rig.fallback._worker.is_free:  # its thread has looked for something to do
        time.sleep(0)
    handler.released.set()
    flushing.join(20)
    rig.fallback.drain(time.monotonic() + 20)

    assert handler.texts == ["one", "two", "three"]
    rig.fallback.stop()


def test_what_comes_at_the_end_of_a_turn_is_handed_over() -> None:
    """The thread finds the turn taken by another, which has just seen that nothing waits."""
    handler = RememberingHandler()
    rig = Rig(handler)

    def put_another() -> None:
        if not rig.fallback.has_thread:
            rig.put("two")
            while not rig.fallback._worker.is_free:
                time.sleep(0)

    rig.fallback = Fallback(lambda: handler, "app-logs", rig.ledger, handed_over=put_another)
    with no_thread():
        rig.put("one")

    rig.fallback.hand_over_all()
    rig.fallback.drain(time.monotonic() + 20)

    assert handler.texts == ["one", "two"]
    rig.fallback.stop()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_a_handler_that_raises_more_than_an_exception_loses_nothing(
    capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise error

    rig = Rig(Raising())

    rig.put("one")
    rig.put("two")
    rig.fallback.drain(time.monotonic() + 20)

    lines = [line for line in capsys.readouterr().err.splitlines() if "not delivered" in line]
    assert [line.rpartition(": ")[2] for line in lines] == ["one", "two"]
    assert all(f"the fallback raised {type(error).__name__}" in line for line in lines)
    assert rig.ledger.snapshot().failed == 2
    rig.fallback.stop()


def test_an_emitting_thread_that_hands_over_by_itself_meets_no_exception(capsys: pytest.CaptureFixture[str]) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise LookupError

    rig = Rig(Raising())

    entry = rig.make_entry("text")
    rig.accept(entry)

    rig.fallback.hand_over_now([entry], _failure_of)

    assert "the fallback raised LookupError: web INFO: text" in capsys.readouterr().err
    assert rig.ledger.snapshot().failed == 1


def test_what_waits_for_a_handler_that_blocks_is_bounded(
    blocking: Blocking, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_OVERFLOW_RECORDS", 3)
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    rig = Rig(blocking)
    rig.put("handed over", buffered=False)
    assert blocking.entered.wait(20)

    for number in range(4):
        rig.put(f"text {number}", buffered=False)

    assert [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()] == ["text 2", "text 3"]
    assert rig.ledger.snapshot().failed == 2
    blocking.released.set()
    rig.fallback.drain(time.monotonic() + 20)
    assert blocking.texts == ["handed over", "text 0", "text 1"]
    rig.put("room again", buffered=False)
    rig.fallback.drain(time.monotonic() + 20)
    assert blocking.texts[-1] == "room again"
    rig.fallback.stop()


def test_a_failure_given_up_by_drain_counts_once_even_if_the_handler_takes_it_later(
    blocking: Blocking, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(blocking)
    rig.put("text")
    assert blocking.entered.wait(20)

    rig.fallback.drain(time.monotonic() + 0.01)
    assert rig.ledger.snapshot().failed == 1
    thread = rig.fallback._worker._thread
    rig.fallback.stop()
    blocking.released.set()
    assert thread is not None
    thread.join(20)

    assert blocking.texts == ["text"]
    assert rig.ledger.snapshot().failed == 1
    assert "the fallback did not take it in time" in capsys.readouterr().err
