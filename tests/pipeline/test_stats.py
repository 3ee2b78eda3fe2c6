"""The counters, what flush waits for, and who is woken."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dis_logging.pipeline.entry import Entry
from dis_logging.pipeline.stats import Epoch, HandlerStats, Ledger
from tests.conftest import make_buffer, settle_delivered, take


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Makes the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def make_entry(epoch: int) -> Entry:
    return b"text", "key", None, epoch, "web", 20, 0.0, "path", 1, None, None, ()


def is_balanced(stats: HandlerStats) -> bool:
    return (
        stats.emitted == stats.delivered + stats.failed + stats.dropped + stats.buffered
        and min(stats.delivered, stats.failed, stats.dropped, stats.buffered) >= 0
    )


@pytest.mark.parametrize("outcome", ["delivered", "failed", "dropped"])
def test_a_flush_that_is_over_finds_the_counters_complete(outcome: str) -> None:
    """Whoever waits may look at any moment, also between two counters of one verdict."""
    ledger = Ledger()
    seen: list[int] = []

    class Watched(Epoch):
        def __setattr__(self, name: str, value: int) -> None:
            super().__setattr__(name, value)
            if name == "settled" and value:
                seen.append(getattr(ledger, outcome))

    ledger.epochs[0] = Watched()
    buffer = make_buffer(ledger)
    buffer.put(make_entry(0))
    entry = take(buffer)
    if outcome == "delivered":
        settle_delivered(ledger, [entry])
    elif outcome == "failed":
        ledger.settle_failed(entry, buffered=True, code="closed")
    else:
        ledger.settle_dropped(entry, buffered=True)

    assert seen == [1]


def test_each_verdict_is_counted_once_and_frees_its_room() -> None:
    ledger = Ledger()
    buffer = make_buffer(ledger)
    for _ in range(6):
        buffer.put(make_entry(ledger.epoch))
    entries = [take(buffer) for _ in range(6)]

    settle_delivered(ledger, entries[:3])
    ledger.settle_failed(entries[3], buffered=True, code="DIS.4302")
    ledger.settle_dropped(entries[4], buffered=True)

    assert ledger.snapshot() == HandlerStats(6, 3, 1, 1, 1, 0, 0, 12, 4, 0.0, {"DIS.4302": 1})
    assert (ledger.entries_in - ledger.entries_out, ledger.bytes_in - ledger.bytes_out) == (1, 4)


def test_what_never_was_in_the_buffer_frees_no_room() -> None:
    ledger = Ledger()
    entry = make_entry(ledger.epoch)
    for _ in range(2):
        ledger.passed_by += 1
        ledger.accept(entry)
    ledger.settle_failed(entry, buffered=False, code="overflow")
    ledger.settle_dropped(entry, buffered=False)

    assert ledger.snapshot() == HandlerStats(2, 0, 1, 1, 0, 0, 0, failures={"overflow": 1})
    assert (ledger.entries_out, ledger.bytes_out) == (0, 0)


@pytest.mark.usefixtures("eager_switching")
def test_every_snapshot_is_balanced_while_threads_count() -> None:
    ledger = Ledger()
    buffer = make_buffer(ledger)
    finished = threading.Event()
    unbalanced: list[HandlerStats] = []

    def emit_and_settle(thread: int) -> None:
        for number in range(1500):
            buffer.put(make_entry(ledger.epoch))
            entry = take(buffer)
            if number % 3 == 0:
                settle_delivered(ledger, [entry])
            elif number % 3 == 1:
                ledger.settle_failed(entry, buffered=True, code="network")
            else:
                ledger.settle_dropped(entry, buffered=True)

    def read() -> None:
        while not finished.is_set():
            stats = ledger.snapshot()
            if not is_balanced(stats):
                unbalanced.append(stats)

    reader = threading.Thread(target=read)
    reader.start()
    threads = [threading.Thread(target=emit_and_settle, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finished.set()
    reader.join()

    assert unbalanced == []
    assert ledger.snapshot() == HandlerStats(6000, 2000, 2000, 2000, 0, 0, 0, 8000, failures={"network": 2000})
    assert (ledger.entries_in, ledger.entries_taken, ledger.entries_out) == (6000, 6000, 6000)
    assert (ledger.bytes_in, ledger.bytes_taken, ledger.bytes_out) == (24000, 24000, 24000)


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("verdict", ["delivered", "failed", "dropped"])
def test_no_verdict_is_lost_when_threads_count_together(verdict: str) -> None:
    ledger = Ledger()

    def settle() -> None:
        entry = make_entry(0)
        for _ in range(10_000):
            if verdict == "delivered":
                settle_delivered(ledger, (entry,))
            elif verdict == "failed":
                ledger.settle_failed(entry, buffered=True, code="network")
            else:
                ledger.settle_dropped(entry, buffered=True)

    threads = [threading.Thread(target=settle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert getattr(ledger, verdict) == ledger.entries_out == 40_000
    assert ledger.bytes_out == 160_000


# -- epochs ---------------------------------------------------------------------------------------------------------


def unsettled(epochs: list[Epoch]) -> int:
    return sum(epoch.accepted - epoch.settled for epoch in epochs)


def test_a_flush_waits_for_what_was_accepted_before_it_and_for_nothing_later() -> None:
    ledger = Ledger()
    buffer = make_buffer(ledger)
    buffer.put(make_entry(ledger.epoch))
    first = ledger.next_epoch()
    buffer.put(make_entry(ledger.epoch))

    assert unsettled(first) == 1
    settle_delivered(ledger, [take(buffer)])
    assert unsettled(first) == 0
    assert unsettled(ledger.next_epoch()) == 1


def test_later_flushes_wait_for_older_entries_too() -> None:
    ledger = Ledger()
    buffer = make_buffer(ledger)
    buffer.put(make_entry(ledger.epoch))

    flushes = [ledger.next_epoch() for _ in range(3)]

    assert [unsettled(epochs) for epochs in flushes] == [1, 1, 1]
    settle_delivered(ledger, [take(buffer)])
    assert [unsettled(epochs) for epochs in flushes] == [0, 0, 0]


def test_settled_epochs_are_forgotten() -> None:
    ledger = Ledger()

    for _ in range(2000):
        ledger.next_epoch()

    assert len(ledger.epochs) < 1000


@pytest.mark.usefixtures("eager_switching")
def test_flushes_from_several_threads_lose_sight_of_nothing() -> None:
    ledger = Ledger()
    buffer = make_buffer(ledger)
    start = threading.Barrier(5)

    def flush() -> None:
        start.wait()
        for _ in range(30):  # together fewer than are remembered for an entry on its way
            ledger.next_epoch()

    def emit() -> None:
        start.wait()
        for _ in range(2000):
            buffer.put(make_entry(ledger.epoch))

    threads = [threading.Thread(target=flush) for _ in range(3)] + [threading.Thread(target=emit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert unsettled(ledger.next_epoch()) == 4000


def test_codes_without_end_take_no_room_without_end() -> None:
    ledger = Ledger()
    for number in range(200):
        ledger.settle_failed(make_entry(0), buffered=False, code=f"DIS.{number}")

    failures = ledger.snapshot().failures
    assert sum(failures.values()) == 200
    assert len(failures) == 51
    assert failures["other"] == 150


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], (0.0, 0.0, 0.0, 0.0)),
        ([0.5], (0.5, 0.5, 0.5, 0.5)),
        ([number / 100 for number in range(100, -1, -1)], (0.5, 0.95, 0.99, 1.0)),
        ([9.0] * 100 + [1.0] * 500, (1.0, 1.0, 1.0, 1.0)),  # only the latest count
    ],
)
def test_latency_is_told_in_percentiles(seconds: list[float], expected: tuple[float, ...]) -> None:
    ledger = Ledger()
    for value in seconds:
        ledger.count_answer(value)

    assert ledger.snapshot().latency == expected


# -- the bells of those who wait ----------------------------------------------------------------------------------


def test_each_waiting_thread_has_a_bell_of_its_own_that_every_verdict_rings() -> None:
    ledger = Ledger()
    buffer = make_buffer(ledger)
    buffer.put(make_entry(ledger.epoch))
    with ExitStack() as stack:
        bells = [stack.enter_context(ledger.bell()) for _ in range(3)]
        threads = [threading.Thread(target=bell.wait, args=(30,)) for bell in bells]
        for thread in threads:
            thread.start()

        settle_delivered(ledger, [take(buffer)])
        for thread in threads:
            thread.join(20)

        assert not any(thread.is_alive() for thread in threads)
    settle_delivered(ledger, [])  # rings for nobody
