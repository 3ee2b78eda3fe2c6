"""A full buffer: who gives way, exact counters, the bound on every caller's wait."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang, RefuseEntries
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance

THREADS = 8
BUFFER = 80


def log(handler: DISHandler, text: str, name: str = "web") -> None:
    handler.handle(logging.LogRecord(name, logging.INFO, __file__, 1, text, None, None))


def log_from_threads(handler: DISHandler, each: int) -> tuple[list[str], float]:
    """Logs *each* records from each of eight threads; returns all texts and the longest call in seconds."""
    start = threading.Barrier(THREADS)
    worst: list[float] = []

    def run(thread: int) -> None:
        start.wait()
        longest = 0.0
        for number in range(each):
            before = time.monotonic()
            log(handler, f"{thread} {number}", f"t{thread}")
            longest = max(longest, time.monotonic() - before)
        worst.append(longest)

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
    for item in threads:
        item.start()
    for item in threads:
        item.join()
    return [f"{thread} {number}" for thread in range(THREADS) for number in range(each)], max(worst)


def numbers_by_thread(texts: list[str]) -> dict[str, list[int]]:
    """Returns the numbers that came from each thread, in the order of *texts*."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for text in texts:
        thread, _, number = text.partition(" ")
        numbers[thread].append(int(number))
    return dict(numbers)


@pytest.fixture
def make(dis: DISEmulator, fallback: RememberingHandler) -> Iterator[Callable[..., DISHandler]]:
    """Returns a function that makes a handler with a small buffer; it is closed at the latest after the test."""
    handlers: list[DISHandler] = []

    def make(**options: Any) -> DISHandler:
        defaults = {
            **dis.handler_options(STREAM),
            "max_buffer_records": BUFFER,
            "max_batch_records": 10,
            "flush_interval": 0.01,
            "backoff_initial": 0.01,
            "backoff_max": 0.05,
            "shutdown_timeout": 0.2,
            "fallback": fallback,
        }
        handlers.append(DISHandler(**{**defaults, **options}))
        return handlers[-1]

    yield make
    for handler in handlers:
        handler.close()


def test_by_default_what_does_not_fit_goes_to_the_fallback(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make()
    dis.stop()

    texts, _ = log_from_threads(handler, 10 * BUFFER // THREADS)

    assert dis.wait_for(lambda _: len(fallback.records) == 9 * BUFFER)
    assert dis.wait_for(lambda _: handler.stats().failed == 9 * BUFFER)
    stats = handler.stats()
    assert (stats.emitted, stats.failed, stats.buffered, stats.dropped) == (10 * BUFFER, 9 * BUFFER, BUFFER, 0)
    assert set(fallback.codes) == {"overflow"}
    assert "80 records" in vars(fallback.records[0])["dis_error_message"]
    assert_accounts_balance(handler, dis, fallback, texts)
    assert all(numbers == sorted(numbers) for numbers in numbers_by_thread(fallback.texts[: 9 * BUFFER]).values())


def test_drop_newest_keeps_what_came_first(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(overflow="drop_newest")
    dis.stop()

    texts, _ = log_from_threads(handler, 10 * BUFFER // THREADS)

    stats = handler.stats()
    assert (stats.emitted, stats.dropped, stats.buffered, stats.failed) == (10 * BUFFER, 9 * BUFFER, BUFFER, 0)
    assert assert_accounts_balance(handler, dis, fallback, texts).dropped == 9 * BUFFER
    for numbers in numbers_by_thread(fallback.texts).values():
        # Sorted, because closing hands over what waits before what was just being sent.
        assert sorted(numbers) == list(range(len(numbers)))


def test_drop_oldest_keeps_what_came_last(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(overflow="drop_oldest")
    each = 10 * BUFFER // THREADS
    dis.stop()

    texts, _ = log_from_threads(handler, each)

    stats = handler.stats()
    assert (stats.emitted, stats.dropped, stats.buffered, stats.failed) == (10 * BUFFER, 9 * BUFFER, BUFFER, 0)
    assert assert_accounts_balance(handler, dis, fallback, texts).dropped == 9 * BUFFER
    # What had been claimed for a request stays; of the rest the end of each thread's records is there.
    claimed = [text for text in fallback.texts if vars(_record(fallback, text))["dis_attempts"]]
    waited = [text for text in fallback.texts if text not in claimed]
    assert len(claimed) <= 10
    for numbers in numbers_by_thread(waited).values():
        assert numbers == list(range(each - len(numbers), each))


def _record(fallback: RememberingHandler, text: str) -> logging.LogRecord:
    return next(record for record in fallback.records if record.getMessage() == text)


def test_drop_oldest_drops_the_oldest_that_waits_and_spares_what_is_in_flight(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(overflow="drop_oldest", max_buffer_records=50, shutdown_timeout=20)
    texts = [f"{number:03d}" for number in range(150)]

    with dis.rule(Hang()):
        for text in texts[:10]:
            log(handler, text)
        assert dis.wait_for(lambda dis: dis.requests and dis.requests[0].entry_count)
        for text in texts[10:]:
            log(handler, text)
        assert handler.stats().dropped == 100
    dis.drop_connections()

    in_flight = dis.requests[0].entry_count
    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert (stats.delivered, stats.failed, stats.dropped) == (50, 0, 100)
    assert [record.text for record in dis.records(STREAM)] == texts[:in_flight] + texts[100 + in_flight :]


def test_drop_oldest_reaches_records_that_wait_behind_a_retry(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(overflow="drop_oldest", max_buffer_records=20, shutdown_timeout=20)
    texts = [f"{number:03d}" for number in range(100)]

    with dis.rule(RefuseEntries("DIS.4303")):
        log(handler, texts[0])
        assert dis.wait_for(lambda dis: dis.refused["DIS.4303"])
        for text in texts[1:]:
            log(handler, text)
        assert handler.stats().dropped == 80

    assert handler.flush(20)
    assert_accounts_balance(handler, dis, fallback, texts)
    assert [record.text for record in dis.records(STREAM)] == [texts[0], *texts[81:]]


def test_drop_oldest_takes_a_record_without_a_time_for_the_oldest(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(overflow="drop_oldest", max_buffer_records=6, shutdown_timeout=20)

    def log_at(text: str, name: str, created: object) -> None:
        handler.handle(logging.makeLogRecord({"name": name, "msg": text, "created": created}))

    with dis.rule(RefuseEntries("DIS.4303")):
        log_at("0", "a", 1.0)
        log_at("1", "b", 1.0)
        assert dis.wait_for(lambda dis: dis.refused["DIS.4303"] >= 2)
        texts = [str(number) for number in range(2, 20)]
        for number, text in enumerate(texts):
            log_at(text, "ab"[number % 2], (None, 5.0, 10**400)[number % 3])
        assert handler.stats().dropped == 14

    assert handler.flush(20)
    assert_accounts_balance(handler, dis, fallback, ["0", "1", *texts])


def test_block_makes_each_caller_wait_at_most_the_block_timeout(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(overflow="block", block_timeout=0.1, max_buffer_records=8)
    dis.stop()

    texts, worst = log_from_threads(handler, 10)

    assert 0.1 <= worst < 0.1 + 1.0  # a busy machine may come late to look
    assert dis.wait_for(lambda _: handler.stats().failed == 72)
    assert (handler.stats().buffered, handler.stats().dropped) == (8, 0)
    assert fallback.codes == ["overflow"] * 72
    assert_accounts_balance(handler, dis, fallback, texts)


def test_block_loses_nothing_while_the_service_is_only_slow(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(overflow="block", block_timeout=30, max_buffer_records=8, max_batch_records=4, shutdown_timeout=20)

    with dis.rule(Hang(0.002)):
        texts, _ = log_from_threads(handler, 20)

    assert assert_accounts_balance(handler, dis, fallback, texts).delivered == 160
    arrived = numbers_by_thread([record.text for record in dis.records(STREAM)])
    assert all(numbers == list(range(20)) for numbers in arrived.values())


def test_the_default_policy_makes_nobody_wait_for_a_hanging_service(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make()

    with dis.rule(Hang()):
        texts, worst = log_from_threads(handler, 10 * BUFFER // THREADS)
    assert worst < 5.0  # the request hangs for request_timeout, 10 s

    dis.stop()
    assert_accounts_balance(handler, dis, fallback, texts)


@pytest.mark.parametrize("policy", ["fallback", "drop_newest", "drop_oldest", "block"])
def test_the_bound_on_bytes_counts_too(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, policy: str
) -> None:
    handler = make(overflow=policy, max_buffer_bytes=1000, max_batch_records=1, block_timeout=0.01)
    dis.stop()
    texts = [f"{number}".ljust(300, ".") for number in range(10)]

    for text in texts:
        log(handler, text)

    assert dis.wait_for(lambda _: handler.stats().buffered == 3)
    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert stats.dropped == (7 if policy.startswith("drop") else 0)


@pytest.mark.parametrize("policy", ["fallback", "drop_newest", "drop_oldest", "block"])
def test_a_record_that_never_fits_makes_nobody_else_give_way(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, policy: str
) -> None:
    handler = make(overflow=policy, max_buffer_bytes=1000, block_timeout=30, flush_interval=60, shutdown_timeout=20)
    large = "x" * 1001

    log(handler, "small")
    log(handler, large)

    stats = assert_accounts_balance(handler, dis, fallback, ["small", large])
    assert stats.delivered == 1
    assert stats.dropped == policy.startswith("drop")
    assert [record.text for record in dis.records(STREAM)] == ["small"]


def test_room_is_free_again_after_delivery_and_after_the_fallback(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_buffer_records=10, shutdown_timeout=20)
    texts = [f"{number:03d}" for number in range(50)]

    with dis.rule(RefuseEntries("DIS.4302", where=lambda entry: entry.text.endswith("7"))):
        for start in range(0, 50, 10):
            for text in texts[start : start + 10]:
                log(handler, text)
            assert handler.flush(20)

    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert (stats.delivered, stats.failed) == (45, 5)
    assert set(fallback.codes) == {"DIS.4302"}


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_with_a_drop_policy_and_no_fallback_a_dead_service_fills_no_screen(
    policy: str, capfd: pytest.CaptureFixture[str], restored_logging: None
) -> None:
    handler = DISHandler(
        STREAM,
        endpoint="http://127.0.0.1:9",
        region="r",
        project_id="p",
        ak="a",
        sk="s",
        flush_interval=0.01,
        backoff_initial=0.01,
        delivery_timeout=0.1,
        max_buffer_records=100,
        overflow=policy,
    )
    logger = logging.getLogger("web")
    logger.addHandler(handler)
    for _ in range(4):
        for number in range(100):
            logger.warning("%190d\N{SNOWMAN}", number)
        assert handler.flush(20)
    handler.close()

    stats = handler.stats()
    first, last = capfd.readouterr().err.splitlines()
    assert first.startswith("dis_logging: not delivered: network (no connection to DIS: ")
    assert len(first) + len(last) < 1000
    assert last == f"dis_logging: not delivered: {stats.dropped} others since the last line here"
    assert (stats.emitted, stats.failed, stats.buffered) == (400, 1, 0)
