"""The bounded buffer: what fits, who gives way, when the sender is woken."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dis_logging.bell import Bell
from dis_logging.pipeline.buffer import Buffer, OverflowPolicy
from dis_logging.pipeline.entry import CREATED, Entry
from dis_logging.pipeline.stats import HandlerStats, Ledger
from tests.conftest import park, settle_delivered, take
from tests.interrupts import interrupt_after


class Rig:
    """A buffer with its ledger, and what it told its neighbours."""

    def __init__(self, policy: str = "fallback", ledger: Ledger | None = None, **options: Any) -> None:
        self.ledger = ledger or Ledger()
        self.wakes = 0
        self.woken = threading.Event()
        self.overflowed: list[float] = []
        defaults = {"max_records": 5, "max_bytes": 100, "block_timeout": 0.05, "flush_level": 40}
        self.buffer = Buffer(
            self.ledger,
            policy=OverflowPolicy(policy),
            wake=self._count_wake,
            overflow=self._take_overflow,
            **{**defaults, **options},
        )
        self.buffer.wake_never()

    def _take_overflow(self, entry: Entry) -> None:
        self.ledger.passed_by += 1  # as the fallback does
        self.ledger.accept(entry)
        self.overflowed.append(entry[CREATED])

    def _count_wake(self, _key: str | None = None) -> None:
        self.wakes += 1
        self.woken.set()

    def put(self, *numbers: float, key: str = "a", size: int = 1, level: int = 20, **options: Any) -> None:
        for number in numbers:
            self.buffer.put(make_entry(number, self.ledger.epoch, key, size, level), **options)

    def deliver(self, count: int = 1) -> None:
        """Takes the oldest entries and settles them, as the sender does."""
        settle_delivered(self.ledger, [take(self.buffer) for _ in range(count)])

    def take_all(self) -> list[Entry]:
        entries: list[Entry] = []
        self.buffer.take_all(entries)
        return entries

    @property
    def waiting(self) -> list[float]:
        return [entry[CREATED] for entry in self.buffer.queue]

    @property
    def stats(self) -> HandlerStats:
        return self.ledger.snapshot()


def make_entry(number: float, epoch: int, key: str = "a", size: int = 1, level: int = 20, name: str = "web") -> Entry:
    return b"x" * size, key, None, epoch, name, level, number, "path", 1, None, None, ()


def test_entries_leave_in_the_order_they_came() -> None:
    rig = Rig()

    rig.put(1, 2, 3)

    assert [take(rig.buffer)[CREATED] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(IndexError):
        take(rig.buffer)


def test_what_is_in_flight_takes_room_until_its_verdict() -> None:
    rig = Rig(max_records=2)
    rig.put(1, 2)
    first = take(rig.buffer)

    rig.put(3)
    settle_delivered(rig.ledger, [first])
    rig.put(4)

    assert rig.overflowed == [3]
    assert rig.waiting == [2, 4]


def test_bytes_are_bounded_too() -> None:
    rig = Rig(max_bytes=10)

    rig.put(1, 2, size=5)
    rig.put(3, size=1)

    assert rig.waiting == [1, 2]
    assert rig.overflowed == [3]


def test_take_all_empties_it_parked_entries_first() -> None:
    rig = Rig()
    rig.put(1, 2, key="a")
    for _ in range(2):
        park(rig.buffer, take(rig.buffer))
    rig.put(3, key="b")

    assert [entry[CREATED] for entry in rig.take_all()] == [1, 2, 3]
    assert rig.take_all() == []
    assert rig.buffer.waiting() == (0, 0)


# -- overflow policies ----------------------------------------------------------------------------------------------


def test_fallback_hands_over_the_newest() -> None:
    rig = Rig("fallback")

    rig.put(*range(8))

    assert rig.waiting == [0, 1, 2, 3, 4]
    assert rig.overflowed == [5, 6, 7]
    assert (rig.stats.emitted, rig.stats.buffered, rig.stats.dropped) == (8, 8, 0)  # the fallback settles the others


def test_drop_newest_drops_and_counts_the_newest() -> None:
    rig = Rig("drop_newest")

    rig.put(*range(8))

    assert rig.waiting == [0, 1, 2, 3, 4]
    assert (rig.stats.emitted, rig.stats.buffered, rig.stats.dropped) == (8, 5, 3)
    assert rig.overflowed == []


def test_drop_oldest_drops_and_counts_the_oldest() -> None:
    rig = Rig("drop_oldest")

    rig.put(*range(8))

    assert rig.waiting == [3, 4, 5, 6, 7]
    assert (rig.stats.emitted, rig.stats.buffered, rig.stats.dropped) == (8, 5, 3)
    assert (rig.ledger.entries_taken, rig.ledger.bytes_taken) == (3, 3)


def test_drop_oldest_frees_what_a_long_key_takes() -> None:
    rig = Rig("drop_oldest", max_bytes=300)

    rig.put(*range(8), key="k" * 99)

    assert rig.waiting == [5, 6, 7]
    assert rig.ledger.key_bytes == 297


def test_drop_oldest_wakes_who_waits_for_a_verdict() -> None:
    rig = Rig("drop_oldest")
    rig.put(*range(5))

    with rig.ledger.bell() as bell:
        rig.put(5)
        assert bell.wait(0)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "fallback"])
def test_what_a_sender_makes_room_for_at_once_costs_no_record(policy: str) -> None:
    rig = Rig(policy, max_records=2)
    rig.buffer._wake = lambda: rig.deliver(len(rig.buffer.queue))

    rig.put(1, 2, 3)

    assert rig.waiting == [3]
    assert (rig.stats.delivered, rig.stats.dropped, rig.overflowed) == (2, 0, [])


def test_drop_oldest_drops_as_many_as_a_large_entry_needs() -> None:
    rig = Rig("drop_oldest", max_bytes=10)
    rig.put(1, 2, 3, 4, 5, size=2)

    rig.put(6, size=5)

    assert rig.waiting == [4, 5, 6]
    assert rig.stats.dropped == 3


def test_drop_oldest_drops_the_newest_when_all_others_are_in_flight() -> None:
    rig = Rig("drop_oldest", max_records=2)
    rig.put(1, 2)
    for _ in range(2):
        take(rig.buffer)

    rig.put(3)

    assert rig.waiting == []
    assert (rig.stats.buffered, rig.stats.dropped) == (2, 1)


def test_drop_oldest_drops_nothing_for_an_entry_that_never_fits() -> None:
    rig = Rig("drop_oldest", max_bytes=10)
    rig.put(1, 2)

    rig.put(3, size=11)

    assert rig.waiting == [1, 2]
    assert rig.stats.dropped == 1


def test_drop_oldest_takes_parked_entries_first_and_the_oldest_of_all_their_keys() -> None:
    rig = Rig("drop_oldest", max_records=6)
    for number in range(4):
        rig.put(number, key="ab"[number % 2])
    for _ in range(4):
        park(rig.buffer, take(rig.buffer))
    rig.put(4, 5, key="c")

    rig.put(6, 7, key="c")
    assert [[entry[CREATED] for entry in parked] for parked in rig.buffer.parked.values()] == [[2], [3]]
    rig.put(8, 9, 10, key="c")
    assert rig.waiting == [5, 6, 7, 8, 9, 10]
    assert rig.stats.dropped == 5


def test_block_waits_for_room() -> None:
    rig = Rig("block", max_records=2, block_timeout=30)
    rig.put(1, 2)
    thread = threading.Thread(target=rig.put, args=(3,))

    thread.start()
    rig.deliver()
    thread.join(20)

    assert not thread.is_alive()
    assert rig.waiting == [2, 3]
    assert rig.overflowed == []


class LedgerWhereTwoMeet(Ledger):
    """The first two who have waited for a verdict go on together, each having seen the room that it left."""

    def __init__(self) -> None:
        super().__init__()
        self._meeting = threading.Barrier(2)
        self._expected = 2

    @contextmanager
    def bell(self) -> Iterator[Bell]:
        """As before, with the meeting at its end."""
        with super().bell() as bell:
            yield bell
        self._expected -= 1
        if self._expected >= 0:
            self._meeting.wait(20)

    @property
    def waiting(self) -> int:
        """How many wait for a verdict."""
        return len(self._bells)


def test_one_free_place_admits_one_of_the_callers_that_wait_for_it() -> None:
    ledger = LedgerWhereTwoMeet()
    rig = Rig("block", ledger=ledger, max_records=1, block_timeout=30)
    rig.put(0)
    threads = [threading.Thread(target=rig.put, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    while ledger.waiting < 2:
        time.sleep(0)

    rig.deliver()
    while not rig.buffer.queue or (len(rig.buffer.queue) == 1 and not ledger.waiting):
        time.sleep(0)
    fullest = rig.stats.buffered
    while rig.stats.delivered < 3:
        if rig.buffer.queue:
            rig.deliver()
    for thread in threads:
        thread.join(20)

    assert fullest == 1


def test_block_gives_up_after_its_timeout() -> None:
    rig = Rig("block", max_records=1, block_timeout=0.1)
    rig.put(1)

    started = time.monotonic()
    rig.put(2)
    waited = time.monotonic() - started

    assert 0.1 <= waited < 1.1
    assert rig.overflowed == [2]
    assert rig.wakes == 1  # the sender is told that somebody waits


@pytest.mark.parametrize(("size", "may_block"), [(1, False), (1000, True)])
def test_block_does_not_wait_in_vain(size: int, may_block: bool) -> None:
    rig = Rig("block", max_records=1, block_timeout=1000)
    rig.put(1)

    rig.put(2, size=size, may_block=may_block)

    assert rig.overflowed == [2]


def test_a_flush_waits_for_an_entry_that_was_blocked_while_other_flushes_passed() -> None:
    """An entry belongs to the flushes after its acceptance, however long ago it was made."""
    rig = Rig("block", max_records=1, block_timeout=30)
    rig.put(1)
    rig.ledger.next_epoch()
    blocked = threading.Thread(target=rig.put, args=(2,))
    blocked.start()
    assert rig.woken.wait(20)  # it waits for room
    rig.ledger.next_epoch()
    rig.ledger.next_epoch()
    rig.deliver()
    blocked.join(20)

    waited_for = rig.ledger.next_epoch()

    assert sum(epoch.accepted - epoch.settled for epoch in waited_for) == 1


def test_long_keys_count_towards_the_bytes_and_names_of_loggers_do_not() -> None:
    rig = Rig(max_records=10, max_bytes=1000)
    rig.put(1, 2, 3, key="k" * 400)
    assert rig.overflowed == [3]

    rig.deliver()
    rig.put(4, key="\N{SNOWMAN}" * 100)  # which may take four bytes each
    rig.put(5, key="k" * 200)
    assert rig.overflowed == [3, 5]

    rig.deliver(2)
    rig.put(6, 7, 8, key="k" * 64)
    name = "n" * 900
    rig.buffer.put(make_entry(9, rig.ledger.epoch, key=name, name=name))
    assert rig.overflowed == [3, 5]

    rig.deliver(4)
    assert rig.ledger.key_bytes == 0


@pytest.mark.parametrize("policy", ["fallback", "drop_newest", "drop_oldest"])
def test_eight_threads_never_exceed_the_bound_and_every_entry_is_counted(policy: str) -> None:
    rig = Rig(policy, max_records=100, max_bytes=10**6)

    threads = [threading.Thread(target=rig.put, args=range(n * 1000, n * 1000 + 1000)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    stats = rig.stats
    assert stats.emitted == 8000
    assert len(rig.buffer.queue) == 100
    assert len(rig.overflowed) == (7900 if policy == "fallback" else 0)
    assert stats.dropped == (0 if policy == "fallback" else 7900)
    assert stats.buffered == (8000 if policy == "fallback" else 100)


def test_dropping_while_the_sender_takes_loses_count_of_nothing() -> None:
    rig = Rig("drop_oldest", max_records=20, max_bytes=10**6)
    taken: list[Entry] = []
    done = threading.Event()

    def send() -> None:
        while not done.is_set() or rig.buffer.queue:
            try:
                entry = take(rig.buffer)
            except IndexError:
                continue
            taken.append(entry)
            settle_delivered(rig.ledger, [entry])

    sender = threading.Thread(target=send)
    sender.start()
    threads = [threading.Thread(target=rig.put, args=range(2000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    sender.join()

    stats = rig.stats
    assert stats.emitted == 8000 == stats.delivered + stats.dropped
    assert stats.delivered == len(taken)
    assert rig.buffer.waiting() == (0, 0)


def test_emptying_it_loses_nothing_when_another_thread_drops_the_last_parked_entry() -> None:
    class Contended(deque[Entry]):
        def __bool__(self) -> bool:
            return True  # somebody takes the last entry right after the look

    rig = Rig()
    rig.put(1, 2, key="a")
    rig.buffer.parked["a"] = Contended([take(rig.buffer)])

    assert [entry[CREATED] for entry in rig.take_all()] == [1, 2]


# -- waking the sender ----------------------------------------------------------------------------------------------


def test_the_sender_is_woken_for_a_full_batch_and_not_for_each_entry() -> None:
    rig = Rig()
    rig.buffer.wake_at(3, 1000)

    rig.put(1, 2)
    assert rig.wakes == 0
    rig.put(3)
    assert rig.wakes == 1


def test_the_sender_is_woken_for_enough_bytes() -> None:
    rig = Rig()
    rig.buffer.wake_at(1000, 10)

    rig.put(1, size=9)
    assert rig.wakes == 0
    rig.put(2, size=1)
    assert rig.wakes == 1


def test_what_was_taken_before_does_not_count_towards_the_next_wake() -> None:
    rig = Rig()
    rig.put(1, 2)
    rig.deliver(2)
    rig.buffer.wake_at(2, 1000)

    rig.put(3)
    assert rig.wakes == 0
    rig.put(4)
    assert rig.wakes == 1


def test_a_severe_entry_wakes_once() -> None:
    rig = Rig()

    rig.put(1, level=39)
    assert (rig.wakes, rig.buffer.urgent) == (0, False)
    rig.put(2, 3, level=40)

    assert (rig.wakes, rig.buffer.urgent) == (1, True)


def test_every_entry_wakes_a_sender_that_is_gone() -> None:
    rig = Rig()
    rig.buffer.wake_always()

    rig.put(1, 2, 3)

    assert rig.wakes == 3


@pytest.mark.parametrize("level", [20, 40])
def test_an_entry_that_is_there_has_woken_the_sender_even_if_its_call_was_interrupted(level: int) -> None:
    for place in itertools.count():
        rig = Rig()
        rig.buffer.wake_at(1, 1)

        was_interrupted = interrupt_after(place, KeyboardInterrupt, lambda: rig.put(1, level=level))  # noqa: B023 - at once

        assert bool(rig.wakes) == bool(rig.buffer.queue)
        if not was_interrupted:
            break

    assert place > 2
