"""The background thread: starts on demand, sleeps, and survives whatever its work raises."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dis_logging import DISHandler
from dis_logging.bell import Bell
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import RefuseEntries
from dis_logging.pipeline.worker import Worker
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance, no_thread
from tests.interrupts import interrupt_after


class Work:
    """A step that counts, and does what the test says."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.done = threading.Semaphore(0)
        self.wait: float | None = None
        self.errors: list[BaseException] = []

    def __call__(self) -> float | None:
        self.threads.append(threading.current_thread())
        self.done.release()
        if self.errors:
            raise self.errors.pop(0)
        return self.wait

    def is_done(self, times: int = 1) -> bool:
        """Waits until the step has run so many more times."""
        return all(self.done.acquire(timeout=20) for _ in range(times))


@pytest.fixture
def work() -> Work:
    """A step that does nothing and waits to be woken."""
    return Work()


@pytest.fixture
def worker(work: Work) -> Iterator[Worker]:
    """A worker that runs *work*, not started; it ends with the test."""
    worker = Worker("test-worker", work)
    yield worker
    thread = worker._thread
    worker.stop()
    if thread is not None:
        thread.join(20)
        assert not thread.is_alive()


def end_of(worker: Worker) -> None:
    """Stops the worker and waits for its thread to end."""
    thread = worker._thread
    assert thread is not None
    worker.stop()
    thread.join(20)


def test_no_thread_runs_before_it_is_woken(worker: Worker, work: Work) -> None:
    assert not worker.is_alive
    assert work.threads == []


def test_waking_starts_one_named_daemon_thread(worker: Worker, work: Work) -> None:
    worker.wake()
    assert work.is_done()
    worker.wake()
    assert work.is_done()

    assert worker.is_alive
    assert len(set(work.threads)) == 1
    assert (work.threads[0].name, work.threads[0].daemon) == ("test-worker", True)
    assert not worker.is_current_thread


def test_many_threads_that_wake_start_only_one(worker: Worker, work: Work) -> None:
    start = threading.Barrier(8)

    def wake() -> None:
        start.wait()
        worker.wake()

    threads = [threading.Thread(target=wake) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert work.is_done()

    assert sum(thread.name == "test-worker" for thread in threading.enumerate()) == 1


def test_a_wait_ends_by_itself(worker: Worker, work: Work) -> None:
    work.wait = 0.01

    worker.wake()

    assert work.is_done(5)


def test_a_step_that_returns_zero_is_called_again_at_once(worker: Worker, work: Work) -> None:
    work.wait = 0

    worker.wake()

    assert work.is_done(50)


def test_a_wake_during_the_step_is_not_lost() -> None:
    inside, go_on, again = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        if inside.is_set():
            again.set()
        inside.set()
        go_on.wait(20)

    worker = Worker("test-worker", step)
    worker.wake()
    assert inside.wait(20)
    worker.wake()
    go_on.set()

    assert again.wait(20)
    end_of(worker)


def test_one_that_is_stopped_still_does_what_it_was_woken_for(worker: Worker, work: Work) -> None:
    wakes: list[Callable[[], None]] = [worker.wake]

    def stop_and_go_on() -> float | None:
        worker.stop()
        for wake in wakes:
            wake()
        wakes.clear()
        return work()

    worker._step = stop_and_go_on
    worker.wake()
    assert work.is_done(2)
    work.threads[0].join(20)

    assert not worker.is_alive
    assert len(set(work.threads)) == 1


def test_one_that_is_stopped_before_it_gets_going_still_does_what_it_was_woken_for(
    worker: Worker, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedAtOnce(threading.Thread):
        def run(self) -> None:
            worker.stop()
            super().run()

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", StoppedAtOnce)
        worker.wake()
    assert work.is_done()
    work.threads[0].join(20)

    assert not worker.is_alive


def test_whoever_wakes_one_that_was_stopped_gets_the_work_done_and_leaves_no_thread(worker: Worker, work: Work) -> None:
    worker.stop()

    worker.wake()

    assert work.is_done()
    work.threads[0].join(20)
    assert not worker.is_alive


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), MemoryError(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]
)
def test_a_step_that_raises_is_reported_and_called_again(
    worker: Worker, work: Work, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    work.wait = 0.01
    work.errors = [error]

    worker.wake()

    assert work.is_done(3)
    assert len(set(work.threads)) == 1
    (record,) = [record for record in caplog.records if record.name == "dis_logging"]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_dead_thread_is_replaced(worker: Worker, work: Work) -> None:
    worker.wake()
    assert work.is_done()
    end_of(worker)
    assert not worker.is_alive

    worker.wake()

    assert work.is_done()
    assert len(set(work.threads)) == 2


def test_a_thread_that_cannot_be_started_is_tried_again_at_the_next_wake(worker: Worker, work: Work) -> None:
    with no_thread("test-worker"):
        for _ in range(3):
            worker.wake()
            assert not worker.is_alive
    worker.wake()

    assert work.is_done()


def test_an_interrupt_anywhere_keeps_no_thread_from_starting(work: Work) -> None:
    """The one that was interrupted, or the next wake, has the work done."""
    for place in itertools.count():
        worker = Worker("test-worker", work)

        was_interrupted = interrupt_after(place, KeyboardInterrupt, worker.wake)

        worker.wake()
        assert work.is_done()
        assert worker.is_alive
        end_of(worker)
        if not was_interrupted:
            assert place > 3
            break


def test_an_interrupt_anywhere_leaves_no_idle_thread_deaf(worker: Worker, work: Work) -> None:
    worker.wake()
    assert work.is_done()
    for place in itertools.count():
        while not worker._is_waiting or work.done.acquire(blocking=False):  # idle, and nothing done is left to be seen
            pass

        was_interrupted = interrupt_after(place, KeyboardInterrupt, worker.wake)

        worker.wake()
        assert work.is_done()
        if not was_interrupted:
            assert place > 3
            break


def test_a_fork_leaves_a_fresh_unstarted_one(worker: Worker, work: Work) -> None:
    worker.wake()
    assert work.is_done()
    thread = worker._thread
    end_of(worker)

    worker.reset_after_fork()

    assert not worker.is_alive
    worker.wake()
    assert work.is_done()
    assert worker._thread is not thread


# -- one that ends when it is idle ----------------------------------------------------------------------------------


def test_an_idle_thread_ends_and_the_next_wake_starts_another(work: Work) -> None:
    worker = Worker("test-worker", work, max_idle=0.01)
    worker.wake()
    assert work.is_done()
    work.threads[0].join(20)
    assert not worker.is_alive
    assert worker.is_free

    worker.wake()

    assert work.is_done()
    work.threads[1].join(20)
    assert len(set(work.threads)) == 2


def test_a_thread_that_is_asked_to_wait_does_not_end(work: Work) -> None:
    worker = Worker("test-worker", work, max_idle=0.001)
    work.wait = 0.01

    worker.wake()

    assert work.is_done(5)
    assert len(set(work.threads)) == 1
    end_of(worker)


@pytest.mark.parametrize("starter", ["goes on", "is held up"])
def test_a_wake_in_the_moment_of_its_end_is_not_lost(monkeypatch: pytest.MonkeyPatch, starter: str) -> None:
    """Even if whoever started the thread is still about it when the thread ends."""
    too_late, again = threading.Event(), threading.Event()
    start = threading.Thread.start

    def start_and_be_held_up(thread: threading.Thread) -> None:
        start(thread)
        if not too_late.is_set():
            thread.join(20)

    if starter == "is held up":
        monkeypatch.setattr(threading.Thread, "start", start_and_be_held_up)

    def step() -> None:
        if too_late.is_set():
            again.set()

    worker = Worker("test-worker", step, max_idle=0.01)
    wait = Bell.wait

    def wait_and_be_woken_too_late(bell: Bell, timeout: float | None) -> bool:
        was_rung = wait(bell, timeout)
        if not was_rung and not too_late.is_set():
            too_late.set()
            worker.wake()
        return was_rung

    monkeypatch.setattr(Bell, "wait", wait_and_be_woken_too_late)

    worker.wake()

    assert again.wait(20)


def test_one_that_has_been_woken_is_not_free_any_more() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def step() -> None:
        inside.set()
        go_on.wait(20)

    worker = Worker("test-worker", step)
    assert worker.is_free
    worker.wake()
    assert inside.wait(20)
    assert not worker.is_free
    go_on.set()
    end_of(worker)


# -- the same through the handler -----------------------------------------------------------------------------------


@pytest.fixture
def handler(dis: DISEmulator, fallback: RememberingHandler) -> Iterator[DISHandler]:
    """A handler that talks to the emulator."""
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=0.01, fallback=fallback)
    yield handler
    handler.close()


def log(handler: DISHandler, text: str) -> None:
    handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, text, None, None))


def test_records_survive_three_failed_starts(
    dis: DISEmulator, handler: DISHandler, fallback: RememberingHandler
) -> None:
    with no_thread(times=3):
        for number in range(4):
            log(handler, f"text {number}")

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 4)
    assert_accounts_balance(handler, dis, fallback, [f"text {number}" for number in range(4)])


def test_a_thread_that_wakes_the_sender_as_another_closes_leaves_no_thread(
    handler: DISHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = handler._pipeline._worker
    wake = worker.wake

    def close_and_wake() -> None:
        monkeypatch.undo()
        handler.close()
        wake()

    monkeypatch.setattr(worker, "wake", close_and_wake)
    log(handler, "text")

    thread = worker._thread
    if thread is not None:
        thread.join(20)
        assert not thread.is_alive()
    assert handler.stats().buffered == 0


@pytest.mark.parametrize("finish", [lambda handler: handler.flush(20), lambda handler: handler.close()])
def test_flush_and_close_deliver_without_any_thread(
    dis: DISEmulator,
    handler: DISHandler,
    fallback: RememberingHandler,
    finish: Callable[[DISHandler], object],
) -> None:
    with no_thread(), dis.rule(RefuseEntries("DIS.4302", where=lambda entry: entry.text == "bad")):
        for text in ("one", "bad", "two"):
            log(handler, text)
        finish(handler)

    assert fallback.texts == ["bad"]
    assert assert_accounts_balance(handler, dis, fallback, ["one", "bad", "two"]).delivered == 2


@pytest.mark.parametrize("error", [RuntimeError("unforeseen"), SystemExit(1)])
def test_records_survive_an_error_that_nobody_foresaw(
    dis: DISEmulator,
    handler: DISHandler,
    fallback: RememberingHandler,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    delivery = handler._pipeline._delivery
    send_due, failures = delivery.send_due, [error] * 3

    def fail_first() -> Any:
        if failures:
            raise failures.pop()
        return send_due()

    monkeypatch.setattr(delivery, "send_due", fail_first)

    log(handler, "text")

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 1)
    assert_accounts_balance(handler, dis, fallback, ["text"])


def test_a_defect_while_sending_ends_in_the_fallback_in_time(
    dis: DISEmulator, fallback: RememberingHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = DISHandler(
        **dis.handler_options(STREAM),
        flush_interval=0.01,
        fallback=fallback,
        backoff_initial=0.01,
        delivery_timeout=0.2,
    )

    def fail(*_: Any) -> Any:
        raise RuntimeError("canary")

    monkeypatch.setattr(handler._pipeline._sender, "send", fail)

    log(handler, "text")

    assert handler.flush(10)
    assert assert_accounts_balance(handler, dis, fallback, ["text"]).failed == 1
    assert vars(fallback.records[0])["dis_outcome_unknown"] is True
    assert "RuntimeError" in vars(fallback.records[0])["dis_error_message"]


@pytest.mark.parametrize("error", [RuntimeError("unforeseen"), SystemExit(1)])
def test_a_batch_survives_an_error_that_nobody_foresaw_while_sending(
    dis: DISEmulator,
    handler: DISHandler,
    fallback: RememberingHandler,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    sender = handler._pipeline._sender
    send, failures = sender.send, [error] * 2

    def fail_first(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return send(*arguments)

    monkeypatch.setattr(sender, "send", fail_first)

    log(handler, "text")

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 1)
    assert_accounts_balance(handler, dis, fallback, ["text"])
