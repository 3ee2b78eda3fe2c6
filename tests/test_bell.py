"""Waiting that ends: when somebody rings, or when the time is up."""

import itertools
import signal
import threading
import time

from dis_logging.bell import Bell
from tests.interrupts import interrupt_after


def test_a_ring_before_the_wait_is_not_lost() -> None:
    bell = Bell()
    bell.ring()

    started = time.monotonic()
    bell.wait(30)

    assert time.monotonic() - started < 10


def test_many_rings_are_one() -> None:
    bell = Bell()
    for _ in range(10):
        bell.ring()
    bell.wait(30)

    started = time.monotonic()
    bell.wait(0.05)

    assert time.monotonic() - started >= 0.05


def test_a_negative_wait_returns_at_once() -> None:
    Bell().wait(-1)


def test_a_signal_handler_that_outlasts_the_wait_does_not_make_it_endless() -> None:
    """As it makes that of ``SimpleQueue.get``, which takes the time that is less than none for no limit."""
    bell = Bell()
    until = time.monotonic() + 0.1
    calls = itertools.count()

    def handle(*_: object) -> None:
        if next(calls):
            raise TimeoutError("it waits for ever")
        while time.monotonic() < until + 0.05:
            pass

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 10)
    try:
        assert not bell.wait(until - time.monotonic())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_a_signal_handler_raises_upon_a_ring_is_not_swallowed() -> None:
    """Even what looks like the error of a lock that another thread has just released."""

    class AlarmError(RuntimeError):
        pass

    raised: list[int] = []

    def ring() -> None:
        try:
            Bell().ring()
        except AlarmError:
            raised.append(place)

    for place in itertools.count():
        if not interrupt_after(place, AlarmError, ring):
            break
    assert place > 3
    assert raised == list(range(place))


def test_one_ring_wakes_one_of_two_and_the_other_ends_in_time() -> None:
    bell = Bell()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(bell.wait(0.2)), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()

    bell.ring()
    for thread in threads:
        thread.join(20)

    assert sorted(woken) == [False, True]
