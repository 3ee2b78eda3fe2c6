"""What a handler tells of itself: counters, a callback on every verdict, and warnings that never feed it."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from dis_logging import ConfigurationError, DISHandler, Outcome, Verdict
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Refuse, RefuseEntries
from tests.conftest import STREAM, RememberingHandler


def log(handler: DISHandler, text: str, level: int = logging.INFO) -> None:
    handler.handle(logging.LogRecord("web", level, __file__, 1, text, None, None))


class Verdicts:
    """Remembers every verdict."""

    def __init__(self) -> None:
        self.seen: list[Verdict] = []

    def __call__(self, verdict: Verdict) -> None:
        self.seen.append(verdict)

    @property
    def outcomes(self) -> Counter[tuple[str, str]]:
        return Counter((verdict.outcome.value, verdict.code) for verdict in self.seen)


def test_counters_tell_reasons_bytes_and_latency(dis: DISEmulator, fallback: RememberingHandler) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, backoff_initial=0.01)
    dis.play(RefuseEntries("DIS.4302", where=[0]), Refuse(503))

    for texts in (("refused", "four"), ("later",)):
        for text in texts:
            log(handler, text)
        assert handler.flush(20)

    stats = handler.stats()
    assert stats.failures == {"DIS.4302": 1}
    assert (stats.delivered_bytes, stats.buffered_bytes, stats.oldest_buffered) == (9, 0, 0.0)
    assert (stats.requests, stats.retried) == (3, 1)
    assert 0.0 < stats.latency.p50 <= stats.latency.p95 <= stats.latency.p99 <= stats.latency.max < 20
    handler.close()


def test_the_age_of_the_oldest_waiting_record_is_told(dis: DISEmulator) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=1000)
    record = logging.LogRecord("web", logging.INFO, __file__, 1, "text", None, None)
    record.created -= 100
    handler.handle(record)
    log(handler, "newer")

    assert 100 <= handler.stats().oldest_buffered < 160
    assert handler.stats().buffered_bytes == 9
    handler.close()
    assert handler.stats().oldest_buffered == 0.0


def test_every_verdict_is_told_once(dis: DISEmulator, fallback: RememberingHandler) -> None:
    verdicts = Verdicts()
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, on_verdict=verdicts)
    with dis.rule(RefuseEntries("DIS.4302", where=lambda entry: entry.data.startswith(b"bad"))):
        for number in range(10):
            log(handler, f"bad {number}" if number % 2 else f"good {number}")
        assert handler.flush(20)
    log(handler, "x" * (2**20 + 1))
    handler.close()
    log(handler, "late")

    assert verdicts.outcomes == {
        ("delivered", ""): 5,
        ("failed", "DIS.4302"): 5,
        ("failed", "too_large"): 1,
        ("failed", "closed"): 1,
    }
    first = next(verdict for verdict in verdicts.seen if verdict.outcome is Outcome.DELIVERED)
    assert (first.name, first.levelno, first.partition_key, first.size) == ("web", logging.INFO, "web", 6)


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
def test_drops_are_told(dis: DISEmulator, policy: str) -> None:
    verdicts = Verdicts()
    handler = DISHandler(
        **dis.handler_options(STREAM), flush_interval=1000, max_buffer_records=10, overflow=policy, on_verdict=verdicts
    )
    with dis.rule(Refuse(503)):
        for number in range(25):
            log(handler, f"text {number}")
    handler.close()

    stats = handler.stats()
    assert stats.dropped >= 5
    assert verdicts.outcomes["dropped", ""] == stats.dropped
    assert len(verdicts.seen) == stats.emitted == 25


def test_a_callback_that_raises_is_reported_once_and_costs_nothing(
    dis: DISEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(verdict: Verdict) -> None:
        raise LookupError("no such metric")

    handler = DISHandler(**dis.handler_options(STREAM), on_verdict=fail)
    for number in range(5):
        log(handler, f"text {number}")
    handler.close()

    assert dis.record_count(STREAM) == handler.stats().delivered == 5
    assert [record.getMessage() for record in caplog.records if record.name == "dis_logging"] == [
        "dis_logging: on_verdict raised, and is not called any more"
    ]


def test_a_callback_that_ends_its_thread_costs_no_verdict(dis: DISEmulator, fallback: RememberingHandler) -> None:
    def leave(verdict: Verdict) -> None:
        raise SystemExit(1)

    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, flush_interval=60, on_verdict=leave)
    dis.play(RefuseEntries("DIS.4302", where=[3]))
    for number in range(30):
        log(handler, f"text {number}")
    log(handler, "severe", logging.ERROR)
    assert handler.flush(20)
    handler.close()

    stats = handler.stats()
    assert (stats.delivered, stats.failed) == (dis.record_count(STREAM), len(fallback.records)) == (30, 1)
    assert all(request.entry_count for request in dis.requests)


def test_a_callback_that_blocks_keeps_nobody_else_from_the_verdicts(dis: DISEmulator) -> None:
    entered, released = threading.Event(), threading.Event()

    def block(verdict: Verdict) -> None:
        entered.set()
        released.wait(60)

    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=0, on_verdict=block)
    log(handler, "text")
    assert entered.wait(20)
    closing = threading.Thread(target=handler.close)
    closing.start()
    closing.join(20)

    try:
        assert not closing.is_alive()
        assert handler.stats().delivered == 1
    finally:
        released.set()
        closing.join()


def test_a_callback_that_logs_feeds_nothing_without_end(dis: DISEmulator) -> None:
    logger = logging.getLogger("dis_logging.test")
    handler = DISHandler(**dis.handler_options(STREAM), on_verdict=lambda verdict: logger.error("%s", verdict))
    logger.addHandler(handler)
    log(handler, "one")
    assert handler.flush(20)
    logger.removeHandler(handler)
    handler.close()

    assert handler.stats().emitted == 1


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="on_verdict must be a callable, not 'print'"):
        DISHandler(STREAM, region="r", project_id="p", ak="a", sk="s", on_verdict="print")  # type: ignore[arg-type]


class Warnings(logging.Handler):
    """Waits for what is said on the logger ``dis_logging``."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.came.set()


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    handler = Warnings()
    logging.getLogger("dis_logging").addHandler(handler)
    yield handler
    logging.getLogger("dis_logging").removeHandler(handler)


@pytest.mark.usefixtures("restored_logging")
def test_trouble_is_said_on_our_logger_and_never_shipped(
    dis: DISEmulator, fallback: RememberingHandler, warnings: Warnings
) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, flush_interval=0.01)
    logging.getLogger().addHandler(handler)
    dis.play(RefuseEntries("DIS.4302"))
    logging.getLogger("web").error("refused")

    assert warnings.came.wait(20)
    (message,) = warnings.messages
    assert message.startswith(f"records for the DIS stream {STREAM} are not delivered: 1 given up")
    assert message.endswith(f"DIS.4302, {vars(fallback.records[0])['dis_error_message']}")
    logging.getLogger().removeHandler(handler)
    handler.close()
    assert handler.stats().emitted == 1
    assert dis.record_count(STREAM) == 0
