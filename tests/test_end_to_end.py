"""Records logged by an application arrive in the stream: all of them, once, in order, in few requests."""

import logging
import threading
from collections import defaultdict
from typing import Any

import pytest

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang, Refuse, RefuseEntries
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance


def texts_by_key(dis: DISEmulator) -> dict[str | None, list[str]]:
    """Returns what the stream holds for each partition key, in order of arrival."""
    texts: defaultdict[str | None, list[str]] = defaultdict(list)
    for record in dis.records(STREAM):
        texts[record.partition_key].append(record.text)
    return dict(texts)


def test_a_burst_arrives_in_order_in_few_requests_over_one_connection(
    dis: DISEmulator, logger: logging.Logger, fallback: RememberingHandler
) -> None:
    texts = [f"record {number:04d}" for number in range(5000)]
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback)
    logger.addHandler(handler)

    for text in texts:
        logger.info(text)

    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert [record.text for record in dis.records(STREAM)] == texts
    assert stats.delivered == 5000
    assert stats.requests == len(dis.requests) <= 16
    assert {request.connection for request in dis.requests} == {1}


def test_many_loggers_share_one_request_each_with_its_own_key(dis: DISEmulator, fallback: RememberingHandler) -> None:
    names = [f"app.module{number}" for number in range(100)]
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, flush_interval=60)

    for name in names:
        handler.handle(logging.LogRecord(name, logging.INFO, __file__, 1, f"from {name}", None, None))

    assert_accounts_balance(handler, dis, fallback, [f"from {name}" for name in names])
    (request,) = dis.requests
    assert [entry.partition_key for entry in request.entries] == names


def test_records_of_one_key_share_a_partition(dis: DISEmulator) -> None:
    handler = DISHandler(**dis.handler_options(STREAM))

    for number in range(60):
        handler.handle(logging.LogRecord(f"key{number % 6}", logging.INFO, __file__, 1, f"{number}", None, None))
    handler.close()

    partitions = defaultdict(set)
    for record in dis.records(STREAM):
        partitions[record.partition_key].add(record.partition_id)
    assert len(partitions) == 6
    assert {len(ids) for ids in partitions.values()} == {1}
    assert len(set.union(*partitions.values())) > 1


def test_sixteen_threads_each_keep_their_order(dis: DISEmulator, fallback: RememberingHandler) -> None:
    threads, each = 16, 200
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, flush_interval=0.01, max_batch_records=50)
    start = threading.Barrier(threads)

    def log(thread: int) -> None:
        start.wait()
        for number in range(each):
            handler.handle(logging.LogRecord(f"t{thread}", logging.INFO, __file__, 1, f"{thread}-{number}", None, None))

    running = [threading.Thread(target=log, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()

    expected = {f"t{thread}": [f"{thread}-{number}" for number in range(each)] for thread in range(threads)}
    assert_accounts_balance(handler, dis, fallback, [text for texts in expected.values() for text in texts])
    assert texts_by_key(dis) == expected


def test_a_batch_obeys_both_limits(dis: DISEmulator, fallback: RememberingHandler) -> None:
    texts = [f"{number:03d}" + "x" * (97 if number % 2 else 7) for number in range(100)]
    handler = DISHandler(
        **dis.handler_options(STREAM), fallback=fallback, flush_interval=60, max_batch_records=30, max_batch_bytes=1000
    )

    for text in texts:
        handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, text, None, None))

    assert_accounts_balance(handler, dis, fallback, texts)
    for request in dis.requests:
        assert request.entry_count <= 30
        assert sum(len(entry.data) for entry in request.entries) <= 1000


def test_records_go_on_to_dis_when_it_is_back(dis: DISEmulator, fallback: RememberingHandler) -> None:
    texts = [f"record {number}" for number in range(50)]
    handler = DISHandler(
        **dis.handler_options(STREAM), fallback=fallback, flush_interval=0.01, backoff_initial=0.01, backoff_max=0.1
    )

    dis.stop()
    for text in texts:
        handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, text, None, None))
    while handler.stats().requests < 3:
        handler.flush(0.05)
    dis.start()

    assert handler.flush(20)
    assert assert_accounts_balance(handler, dis, fallback, texts).failed == 0
    assert [record.text for record in dis.records(STREAM)] == texts


def test_two_handlers_of_one_process_do_not_disturb_each_other(
    dis: DISEmulator, logger: logging.Logger, fallback: RememberingHandler
) -> None:
    dis.create_stream("audit", 1)
    busy = DISHandler(**dis.handler_options(STREAM), fallback=fallback, flush_interval=0.01)
    other = DISHandler(**dis.handler_options("audit"), flush_interval=0.01)
    logger.addHandler(busy)
    logger.addHandler(other)

    with dis.rule(Hang(), where=lambda request: request.stream_name == STREAM):
        logger.info("both get it")
        assert other.flush(10)
        logger.removeHandler(other)
        other.close()

    assert [record.text for record in dis.records("audit")] == ["both get it"]
    assert busy.stats().buffered == 1
    dis.drop_connections()
    assert_accounts_balance(busy, dis, fallback, ["both get it"])


def test_flush_from_several_threads_waits_for_all(dis: DISEmulator, fallback: RememberingHandler) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, flush_interval=60, backoff_initial=0.01)
    dis.play(Refuse(503), Refuse(500, "DIS.5000"))
    results: list[tuple[bool, bool]] = []

    def log_and_flush(thread: int) -> None:
        for number in range(5):
            text = f"{thread}-{number}"
            handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, text, None, None))
            flushed = handler.flush(30)
            results.append((flushed, any(record.text == text for record in dis.records(STREAM))))

    threads = [threading.Thread(target=log_and_flush, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [(True, True)] * 20
    assert_accounts_balance(handler, dis, fallback, [f"{t}-{n}" for t in range(4) for n in range(5)])


@pytest.mark.parametrize("level", ["WARNING", logging.WARNING])
def test_the_handlers_level_counts(dis: DISEmulator, logger: logging.Logger, level: str | int) -> None:
    handler = DISHandler(**dis.handler_options(STREAM))
    handler.setLevel(level)
    logger.addHandler(handler)

    logger.info("too low")
    logger.warning("high enough")
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == ["high enough"]
    assert handler.stats().emitted == 1


def test_a_buffer_smaller_than_a_batch_is_sent_before_it_is_full(
    dis: DISEmulator, logger: logging.Logger, fallback: RememberingHandler
) -> None:
    options: dict[str, Any] = {"flush_interval": 3600, "max_buffer_records": 10, "fallback": fallback}
    handler = DISHandler(**dis.handler_options(STREAM), **options)
    logger.addHandler(handler)
    for number in range(30):
        logger.info("record %d", number)
        assert dis.wait_for(lambda _: handler.stats().buffered < 5)

    assert_accounts_balance(handler, dis, fallback, [f"record {number}" for number in range(30)])
    assert not fallback.records


def test_another_handlers_fallback_may_close_a_handler(dis: DISEmulator, logger: logging.Logger) -> None:
    healthy = DISHandler(**dis.handler_options(STREAM), flush_interval=3600)
    logger.addHandler(healthy)
    for number in range(20):
        logger.info("record %d", number)
    closed = threading.Event()

    class Closing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            healthy.close()
            closed.set()

    failing = DISHandler(**dis.handler_options(STREAM), fallback=Closing(), flush_interval=0)
    with dis.rule(RefuseEntries("DIS.4302", where=lambda entry: b"poison" in entry.data)):
        failing.handle(logging.makeLogRecord({"name": "other", "levelno": logging.INFO, "msg": "poison"}))
        assert closed.wait(20)
    failing.close()

    assert healthy.stats().buffered == 0
    assert healthy.stats().delivered == 20


def test_a_service_that_wants_peace_for_long_holds_up_no_verdict(
    dis: DISEmulator, logger: logging.Logger, fallback: RememberingHandler
) -> None:
    """One key waits for its retry while the service refuses everything for longer than *delivery_timeout*."""
    options: dict[str, Any] = {"flush_interval": 0, "delivery_timeout": 1.5, "backoff_initial": 1, "backoff_max": 1}
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, **options)
    logger.addHandler(handler)
    dis.play(RefuseEntries("DIS.4303"), Refuse(503, headers={"Retry-After": "600"}))
    logger.info("throttled")
    assert dis.wait_for(lambda dis: len(dis.requests) == 1)
    logger.getChild("other").info("refused")

    assert dis.wait_for(lambda _: handler.stats().buffered == 0, timeout=30)
    assert_accounts_balance(handler, dis, fallback, ["throttled", "refused"])
