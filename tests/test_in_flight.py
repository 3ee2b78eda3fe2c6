"""Several requests at once: when they overlap, when they must not, and which threads there are."""

import logging
import random
import signal
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from dis_logging import DISHandler, Verdict
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Behave, Exchange, Fault, Hang, Refuse, RefuseEntries, Reset
from dis_logging.emulator.journal import ReceivedRequest
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance, no_thread

LOGGERS = 20


class Hold:
    """Keeps its requests waiting until `release`, which answers them in the way of *fault*."""

    def __init__(self, fault: Fault | None = None) -> None:
        self._fault = fault or Behave()
        self._released = threading.Event()

    def play(self, exchange: Exchange) -> None:
        """Waits, then serves the request."""
        while not self._released.is_set():
            exchange.hold(0.005)
        self._fault.play(exchange)

    def release(self) -> None:
        """Lets all of them go, and those that come."""
        self._released.set()


class Watch:
    """Serves requests with random faults and notes which keys were in two of them at once, and how many overlapped."""

    def __init__(self, seed: int, *faults: Fault) -> None:
        self._random = random.Random(seed)
        self._faults = faults
        self._lock = threading.Lock()
        self._here: dict[int, set[str | None]] = {}  # keys of the requests being served, by thread
        self.doubled: set[str | None] = set()
        self.most = 0

    def arrives(self, request: ReceivedRequest) -> bool:
        """Notes a request; the rule's *where*."""
        keys = {entry.partition_key for entry in request.entries}
        with self._lock:
            self.doubled |= {key for others in self._here.values() for key in keys & others}
            self._here[threading.get_ident()] = keys
            self.most = max(self.most, len(self._here))
        return True

    def play(self, exchange: Exchange) -> None:
        """Serves the request; it counts as over before the client may know."""
        with self._lock:
            fault = self._random.choice(self._faults)
        fault.play(_Leaving(exchange, self._leave))

    def _leave(self) -> None:
        with self._lock:
            self._here.pop(threading.get_ident(), None)


class _Leaving:
    """An exchange that tells when it is over."""

    def __init__(self, exchange: Exchange, leave: Callable[[], None]) -> None:
        self._exchange = exchange
        self._leave = leave

    def __getattr__(self, name: str) -> Any:
        if name in ("send", "reset"):
            self._leave()
        return getattr(self._exchange, name)


def log(handler: DISHandler, text: str, name: str = "web", level: int = logging.INFO) -> None:
    handler.handle(logging.LogRecord(name, level, __file__, 1, text, None, None))


def log_all(handler: DISHandler, texts: Sequence[str]) -> None:
    for text in texts:
        log(handler, text)


def log_batches(handler: DISHandler, count: int = LOGGERS, size: int = 5) -> list[str]:
    """Logs so many batches, each of a logger of its own, and returns the texts."""
    texts = [f"logger-{batch} {number}" for batch in range(count) for number in range(size)]
    for text in texts:
        log(handler, text, text.partition(" ")[0])
    return texts


def unanswered(dis: DISEmulator) -> int:
    return sum(request.status is None for request in dis.requests)


def test_an_interrupted_callback_leaves_alone_what_another_thread_sends_by_then(
    dis: DISEmulator, fallback: RememberingHandler
) -> None:
    """The callback hears of one entry while the other, which DIS refused for the moment, goes again."""
    hold = Hold()
    dis.play(RefuseEntries("DIS.4303", where=[1]), hold)

    def leave(verdict: Verdict) -> None:
        if verdict.name == "busy" and dis.record_count(STREAM) == 1:
            assert dis.wait_for(lambda dis: unanswered(dis) == 1)
            raise SystemExit(1)

    handler = DISHandler(
        **dis.handler_options(STREAM),
        fallback=fallback,
        flush_interval=60,
        backoff_initial=0.001,
        backoff_max=0.001,
        on_verdict=leave,
    )
    for text in ("one", "two"):
        log(handler, text, "busy")
    flushing = threading.Thread(target=handler.flush, args=(20,))
    flushing.start()
    assert dis.wait_for(lambda dis: unanswered(dis) == 1)
    log(handler, "three", "other", logging.ERROR)
    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 2)

    assert len(dis.requests) == 3  # two of the busy logger, one of the other
    hold.release()
    flushing.join(20)
    assert_accounts_balance(handler, dis, fallback, ["one", "two", "three"])
    assert [record.text for record in dis.records(STREAM)].count("two") == 1


def further_senders(handler: DISHandler) -> int:
    return sum(sender.is_alive for sender in handler._pipeline._senders[1:])


@pytest.fixture
def make(dis: DISEmulator, fallback: RememberingHandler) -> Iterator[Callable[..., DISHandler]]:
    """Returns a function that makes a handler with small batches, four of them in flight; it is closed after the test."""
    handlers: list[DISHandler] = []

    def make(**options: Any) -> DISHandler:
        own = {
            "max_batch_records": 5,
            "flush_interval": 0.02,
            "backoff_initial": 0.001,
            "backoff_max": 0.01,
            "shutdown_timeout": 20,
            "fallback": fallback,
        }
        handlers.append(DISHandler(**{**dis.handler_options(STREAM), **own, **options}))
        return handlers[-1]

    yield make
    for handler in handlers:
        handler.close()


def earn_trust(handler: DISHandler) -> str:
    """Has one request answered, after which several may be sent at once; returns its text."""
    log(handler, "first 0", "first")
    assert handler.flush()
    return "first 0"


@contextmanager
def holding(
    dis: DISEmulator, fault: Fault | None = None, where: Callable[[ReceivedRequest], bool] | None = None
) -> Iterator[Hold]:
    """Holds all requests while the context lasts."""
    hold = Hold(fault)
    with dis.rule(hold, where):
        try:
            yield hold
        finally:
            hold.release()


def is_of_web(request: ReceivedRequest) -> bool:
    return request.entries[0].partition_key == "web"


def has_arrived(text: str) -> Callable[[DISEmulator], bool]:
    return lambda dis: text in [record.text for record in dis.records(STREAM)]


@contextmanager
def holding_backlog_around_other(dis: DISEmulator, handler: DISHandler, count: int) -> Iterator[None]:
    """Holds web's second request while *other*'s one record waits between twice *count* of web."""
    with holding(dis) as first:
        log_all(handler, [f"text {number}" for number in range(5)])
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        log_all(handler, [f"before {number}" for number in range(count)])
        log(handler, "other", "other")
        log_all(handler, [f"after {number}" for number in range(count)])
        with holding(dis, where=is_of_web):
            first.release()
            yield


# -- overlap --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_in_flight", [1, 2, 4, "8"])
def test_so_many_requests_are_under_way_at_once(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, max_in_flight: int | str
) -> None:
    handler = make(max_in_flight=max_in_flight)
    first = earn_trust(handler)
    most = int(max_in_flight)

    with dis.rule(watch := Watch(0, Hold()), watch.arrives):
        texts = log_batches(handler)
        assert dis.wait_for(lambda dis: unanswered(dis) == most)
        watch._faults[0].release()  # type: ignore[attr-defined] # the only one
        assert handler.flush()

    assert watch.most == most
    assert not watch.doubled
    assert_accounts_balance(handler, dis, fallback, [first, *texts])


@pytest.mark.parametrize("seed", range(4))
def test_a_key_is_never_in_two_requests_and_order_holds_whatever_happens(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, seed: int
) -> None:
    faults: list[Fault] = [
        Behave(),
        Hang(0.002),
        Hang(0.01),
        RefuseEntries("DIS.5250", where=[0, 3]),
        Reset("before"),
        Refuse(503),
    ]
    handler = make(max_in_flight=4, backoff_max=0.002, max_batch_records=4)
    source = random.Random(seed)
    numbers: Counter[str] = Counter()
    texts = []

    with dis.rule(watch := Watch(seed, *faults), watch.arrives):
        for _ in range(400):
            name = f"logger-{min(source.randrange(12), source.randrange(12))}"
            texts.append(f"{name} {numbers[name]}")
            log(handler, texts[-1], name, source.choice([logging.INFO, logging.INFO, logging.ERROR]))
            numbers[name] += 1
            if source.random() < 0.02:
                handler.flush(0.01)
        assert handler.flush(20)

    assert watch.most > 1
    assert not watch.doubled
    assert_nothing_overtakes(dis)
    assert assert_accounts_balance(handler, dis, fallback, texts).failed == 0


def assert_nothing_overtakes(dis: DISEmulator) -> None:
    """A record of a logger is sent for the first time only when all that went in earlier requests has its verdict."""
    newest: defaultdict[str | None, int] = defaultdict(lambda: -1)  # of the requests before the latest with new records
    latest: defaultdict[str | None, int] = defaultdict(lambda: -1)
    for request in dis.requests:
        by_key: defaultdict[str | None, list[int]] = defaultdict(list)
        for entry in request.entries:
            by_key[entry.partition_key].append(int(entry.text.rpartition(" ")[2]))
        for key, numbers in by_key.items():
            assert numbers == sorted(numbers)
            if numbers[-1] > latest[key]:
                newest[key], latest[key] = latest[key], numbers[-1]
            assert numbers[0] > newest[key]


def test_a_severe_record_need_not_wait_for_a_request_that_hangs(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(flush_interval=60)
    earn_trust(handler)

    with holding(dis, where=lambda request: request.entries[0].text == "slow"):
        for text in ["slow"] * 5:
            log(handler, text, "slow")
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        log(handler, "severe", "other", logging.ERROR)

        assert dis.wait_for(has_arrived("severe"))


@pytest.mark.parametrize("comes", ["at once", "late"])
def test_a_few_records_need_not_wait_for_a_request_that_hangs(
    dis: DISEmulator, make: Callable[..., DISHandler], comes: str
) -> None:
    handler = make(flush_interval=0.2, max_batch_records=100)
    assert earn_trust(handler)

    with holding(dis, where=lambda request: request.entries[0].text == "slow"):
        log(handler, "slow", "slow")
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        if comes == "late":  # when a sender has already looked, and gone to sleep
            log(handler, "before", "before")
            assert dis.wait_for(has_arrived("before"))
        log(handler, "other", "other")

        assert dis.wait_for(has_arrived("other"))
        assert unanswered(dis) == 1


def test_a_refused_record_need_not_wait_for_a_request_that_hangs(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    """Its retry is not due yet when the next request begins."""
    handler = make(flush_interval=0.2, max_batch_records=100, backoff_initial=1, backoff_max=1)
    assert earn_trust(handler)
    dis.play(RefuseEntries("DIS.4303", where=[0]))

    with holding(dis, where=lambda request: request.entries[0].text == "slow"):
        log(handler, "refused", "refused", logging.ERROR)
        assert dis.wait_for(lambda dis: len(dis.requests) >= 2 and not handler._pipeline._delivery.is_sending)
        log(handler, "slow", "slow", logging.ERROR)
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)

        assert dis.wait_for(has_arrived("refused"))
        assert unanswered(dis) == 1


def test_a_request_that_hangs_keeps_nothing_from_the_fallback_while_no_others_are_sent(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(flush_interval=0.2, max_batch_records=100)
    earn_trust(handler)

    with holding(dis, where=lambda request: request.entries[0].text == "slow"):
        log(handler, "slow", "slow", logging.ERROR)
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        dis.play(Refuse(403, "DIS.4117"))
        log(handler, "refused", "refused", logging.ERROR)
        assert dis.wait_for(lambda dis: "refused" in fallback.texts)
        log(handler, "late", "late")

        assert dis.wait_for(lambda dis: "late" in fallback.texts)
        assert unanswered(dis) == 1


def test_records_that_must_wait_for_a_request_that_is_slow_wake_nobody(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(flush_interval=0.1, max_batch_records=100)
    earn_trust(handler)
    dis.play(Hang(0.5))

    log(handler, "slow", level=logging.ERROR)
    assert dis.wait_for(lambda dis: unanswered(dis) == 1)
    log(handler, "next")

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 3)
    assert further_senders(handler) == 0  # one that had been started would still be there


def test_many_threads_that_flush_get_everything_delivered(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(flush_interval=60, max_batch_records=500)
    texts = [f"thread-{thread} {number}" for thread in range(8) for number in range(20)]
    flushed: list[bool] = []

    def work(thread: int) -> None:
        for text in texts[thread * 20 : (thread + 1) * 20]:
            log(handler, text, f"thread-{thread}")
            if text.endswith(("4", "9")):
                flushed.append(handler.flush(20))

    with dis.rule(watch := Watch(0, Hang(0.005)), watch.arrives):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert flushed == [True] * 32
    assert not watch.doubled
    assert watch.most <= 4
    assert_nothing_overtakes(dis)
    assert_accounts_balance(handler, dis, fallback, texts)


# -- trouble costs one request --------------------------------------------------------------------------------------


def test_keys_that_are_refused_for_good_cost_one_request(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_in_flight=4, flush_interval=60)

    with dis.rule(Refuse(441, "DIS.4107")):
        texts = log_batches(handler)
        assert handler.flush()

    assert len(dis.requests) == 1
    assert sorted(fallback.texts) == sorted(texts)


def test_after_trouble_there_is_one_request_at_a_time_until_the_service_has_answered(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_in_flight=4)
    first = earn_trust(handler)
    with holding(dis, Refuse(503)) as trouble:
        texts = log_batches(handler)
        assert dis.wait_for(lambda dis: unanswered(dis) == 4)

        with dis.rule(watch := Watch(0, Refuse(503)), watch.arrives):
            trouble.release()
            assert dis.wait_for(lambda dis: dis.refused["http_503"] >= 8)
    with dis.rule(later := Watch(0, Hang(0.01)), later.arrives):
        assert handler.flush()

    assert watch.most == 1
    assert later.most > 1
    assert_accounts_balance(handler, dis, fallback, [first, *texts])


@pytest.mark.parametrize(
    "refusal", [Refuse(441, "DIS.4107"), RefuseEntries("DIS.4301")], ids=["request", "all of its entries"]
)
def test_an_answer_to_an_earlier_request_does_not_close_the_circuit(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, refusal: Fault
) -> None:
    handler = make(max_in_flight=4, flush_interval=60)
    earn_trust(handler)
    with holding(dis, where=lambda request: request.entries[0].partition_key == "early"):
        for number in range(5):
            log(handler, f"early {number}", "early")
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        dis.play(refusal)
        for number in range(5):
            log(handler, f"refused {number}", "refused")
        assert dis.wait_for(lambda _: len(fallback.records) == 5)
    assert dis.wait_for(lambda _: handler.stats().delivered == 6)

    log(handler, "later", "later")
    assert handler.flush()

    assert "circuit open" in repr(handler)
    assert fallback.texts[-1] == "later"
    assert len(dis.requests) == 3


# -- threads --------------------------------------------------------------------------------------------------------


def test_without_a_backlog_there_is_one_thread(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    handler = make(max_batch_records=500, flush_interval=0.001)

    for number in range(30):
        log(handler, f"text {number}")
        assert handler.flush()

    assert further_senders(handler) == 0  # one that had been started would still be there


def test_what_must_wait_for_a_request_starts_no_further_thread(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_in_flight=4, flush_interval=60)
    texts = [earn_trust(handler), *(f"text {number}" for number in range(50))]
    with holding(dis):
        log_all(handler, texts[1:6])
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        log_all(handler, texts[6:])
        assert not handler._pipeline._buffer.parked  # nobody has looked at them in vain
        assert further_senders(handler) == 0
    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 51)

    assert_accounts_balance(handler, dis, fallback, texts)


def test_what_must_wait_for_a_request_starts_no_further_thread_when_it_fills_the_buffer(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(max_in_flight=4, max_buffer_records=40, overflow="drop_oldest")
    earn_trust(handler)
    with holding(dis):
        log_all(handler, [f"text {number}" for number in range(5)])
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        log_all(handler, [f"more {number}" for number in range(60)])
        assert handler.stats().dropped
        assert not handler._pipeline._buffer.parked
        assert further_senders(handler) == 0
    assert dis.wait_for(lambda dis: handler.stats().buffered == 0)


def test_what_must_wait_for_a_retry_is_set_aside_once(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    """Else each further record would wake the sender."""
    handler = make(max_in_flight=4, backoff_initial=60, backoff_max=60, shutdown_timeout=0.1)
    earn_trust(handler)
    dis.play(RefuseEntries("DIS.4303"))
    log_all(handler, [f"text {number}" for number in range(5)])
    assert dis.wait_for(lambda _: handler.stats().requests == 2 and not handler._pipeline._delivery.is_sending)

    log_all(handler, [f"more {number}" for number in range(20)])

    assert dis.wait_for(lambda _: not handler._pipeline._buffer.queue)


def test_one_that_need_not_wait_among_many_that_must_is_sent_meanwhile(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(max_in_flight=4, flush_interval=60)
    earn_trust(handler)
    with holding(dis, where=is_of_web):
        log_all(handler, [f"text {number}" for number in range(5)])
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)

        log(handler, "other", "other")
        log_all(handler, [f"more {number}" for number in range(4)])

        assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 2)
        assert [record.text for record in dis.records(STREAM)] == ["first 0", "other"]


def test_one_that_need_not_wait_in_the_middle_of_a_backlog_is_sent_meanwhile(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    """It came before several requests might be sent at once."""
    handler = make(max_in_flight=4, flush_interval=60)
    with holding_backlog_around_other(dis, handler, 20):
        assert dis.wait_for(has_arrived("other"))
        assert dis.record_count(STREAM) == 6


def test_one_that_need_not_wait_deep_in_a_backlog_is_found_while_the_answer_is_slow(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(max_in_flight=4)
    with holding_backlog_around_other(dis, handler, 700):
        assert dis.wait_for(has_arrived("other"))


def test_one_that_need_not_wait_waits_for_company_no_longer_behind_a_slow_answer(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(max_in_flight=4, flush_interval=2)
    earn_trust(handler)
    with holding(dis, where=is_of_web):
        log_all(handler, [f"text {number}" for number in range(5)])
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)

        log(handler, "other", "other")

        assert dis.wait_for(has_arrived("other"), timeout=3.5)


def test_loggers_that_take_turns_go_in_several_requests_all_the_same(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    """The first request has a record of each, so that all wait for it; what has come by then is sorted by logger."""
    handler = make(max_in_flight=4, flush_interval=60)
    earn_trust(handler)
    with holding(dis) as first:
        for number in range(5):
            log(handler, f"{number}", f"logger-{number}")
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        for number in range(100):
            log(handler, f"more {number}", f"logger-{number % 5}")
        with holding(dis):
            first.release()

            assert dis.wait_for(lambda dis: unanswered(dis) == 4)


def test_a_severe_record_is_sent_while_that_of_another_logger_must_wait(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(max_in_flight=4, flush_interval=60)
    earn_trust(handler)
    with holding(dis, where=is_of_web):
        log(handler, "text", level=logging.ERROR)
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        log(handler, "more", level=logging.ERROR)

        log(handler, "other", "other", logging.ERROR)

        assert dis.wait_for(has_arrived("other"))


def test_an_alarm_that_is_put_off_while_the_request_ends_wakes_the_sender_in_time(
    dis: DISEmulator, make: Callable[..., DISHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender has set its own by then, and nobody would look again."""
    handler = make(max_in_flight=4)
    earn_trust(handler)
    buffer, worker = handler._pipeline._buffer, handler._pipeline._worker
    put_off = buffer.wake_after
    with holding(dis) as hold:
        log_all(handler, [f"text {number}" for number in range(5)])
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)

        def put_off_too_late(entries: int, size: int) -> bool:
            hold.release()
            assert dis.wait_for(lambda _: handler.stats().buffered == 0 and worker._is_waiting)
            return put_off(entries, size)

        monkeypatch.setattr(buffer, "wake_after", put_off_too_late)
        log_all(handler, [f"more {number}" for number in range(5)])
        monkeypatch.undo()
    log(handler, "last")

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 12)


class Interrupted(deque[Any]):
    """A queue that calls *then* after the next entry was put there, before the thread that put it goes on."""

    def __init__(self, handler: DISHandler, then: Callable[[], object]) -> None:
        super().__init__()
        self._then = [then]
        handler._pipeline._buffer.queue = self

    def append(self, entry: Any) -> None:
        super().append(entry)
        if self._then:
            self._then.pop()()


def test_a_severe_record_is_sent_though_many_that_must_wait_come_right_after_it(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(max_in_flight=4, flush_interval=60)
    earn_trust(handler)
    with holding(dis, where=is_of_web):
        log_all(handler, [f"text {number}" for number in range(5)])
        assert dis.wait_for(lambda dis: unanswered(dis) == 1)
        Interrupted(handler, lambda: log_all(handler, [f"more {number}" for number in range(100)]))

        log(handler, "other", "other", logging.ERROR)

        assert dis.wait_for(has_arrived("other"))


def test_a_record_that_only_a_further_sender_has_seen_yet_is_sent_in_time(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    """It puts the alarm off, since that record is there by then, and has no work for itself."""
    handler = make(max_in_flight=2)
    earn_trust(handler)
    worker, further = handler._pipeline._senders
    assert dis.wait_for(lambda _: worker._is_waiting)

    def let_it_look() -> None:
        further.wake()
        assert dis.wait_for(lambda _: further._is_waiting and not further._rung)

    Interrupted(handler, let_it_look)
    log(handler, "text")

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 2)


def test_further_threads_end_when_the_backlog_is_gone(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    handler = make(max_in_flight=4)
    earn_trust(handler)
    with holding(dis):
        log_batches(handler)
        assert dis.wait_for(lambda dis: unanswered(dis) == 4)
        assert further_senders(handler) == 3
    assert handler.flush()

    assert dis.wait_for(lambda _: further_senders(handler) == 0)
    assert handler._pipeline._worker.is_alive


def test_a_backlog_after_a_rest_gets_its_threads_again(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_in_flight=3)
    texts = [earn_trust(handler)]
    for turn in range(2):
        with holding(dis):
            for text in (new := [f"turn-{turn}-{batch} {number}" for batch in range(9) for number in range(5)]):
                log(handler, text, text.partition(" ")[0])
            texts += new
            assert dis.wait_for(lambda dis: unanswered(dis) == 3)
        assert handler.flush()
        assert dis.wait_for(lambda _: further_senders(handler) == 0)

    assert_accounts_balance(handler, dis, fallback, texts)


def test_close_is_bounded_while_several_requests_hang_and_leaves_no_thread(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_in_flight=4, shutdown_timeout=0.3)
    earn_trust(handler)
    worker, *further = handler._pipeline._senders
    with holding(dis), holding(dis, where=lambda request: request.entries[0].partition_key == "logger-0") as of_worker:
        texts = log_batches(handler)
        assert dis.wait_for(lambda dis: unanswered(dis) == 4)
        started = time.monotonic()

        handler.close()

        assert time.monotonic() - started < 0.3 + 0.5 + 1.0  # what a busy machine may add
        assert sorted(fallback.texts) == sorted(texts)
        assert set(fallback.codes) == {"closed"}
        in_flight = [record for record in fallback.records if vars(record)["dis_outcome_unknown"]]
        assert len(in_flight) == 20
        assert {vars(record)["dis_error_message"] for record in in_flight} == {
            "the handler was closed before DIS answered"
        }
        of_worker.release()
        assert dis.wait_for(lambda _: not worker.is_alive)
    assert dis.wait_for(lambda _: not any(sender.is_alive for sender in further))
    assert not worker.is_alive  # the others, ending, have not started it again


class Meanwhile:
    """Does *action* while a request waits for its answer."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action

    def play(self, exchange: Exchange) -> None:
        """Acts, then serves the request."""
        self._action()
        Behave().play(exchange)


def test_a_record_that_comes_while_close_delivers_takes_nothing_away_from_it(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_batch_records=10, flush_interval=60)
    late = [f"late {number}" for number in range(30)]
    reported: list[str] = []

    def log_when_it_takes_no_more() -> None:
        assert dis.wait_for(lambda _: "closed" in repr(handler))
        log(handler, "very late")
        reported.extend(fallback.texts)

    dis.play(Meanwhile(partial(log_all, handler, late)), Meanwhile(log_when_it_takes_no_more))
    log(handler, "first")
    handler.close()

    assert_accounts_balance(handler, dis, fallback, ["first", *late, "very late"])
    assert {*late} <= {record.text for record in dis.records(STREAM)}
    assert reported == ["very late"]  # by the thread that logged it, which cannot log faster than the fallback takes


def test_a_record_after_close_has_its_verdict_when_the_call_returns_even_while_a_thread_is_about_to_end(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_batch_records=1)
    earn_trust(handler)
    worker = handler._pipeline._worker
    looks, may_look, step = threading.Event(), threading.Event(), worker._step

    def look_late() -> float | None:
        looks.set()
        may_look.wait(20)
        return step()

    def let_it_look() -> None:
        may_look.set()
        assert dis.wait_for(lambda dis: unanswered(dis) == 1 or not worker.is_alive)

    worker._step = look_late
    worker.wake()
    assert looks.wait(20)
    handler.close()
    with holding(dis):
        Interrupted(handler, let_it_look)
        log(handler, "late")
        left = handler.stats().buffered

    assert left == 0
    assert fallback.texts == ["late"]


def test_a_signal_handler_that_closes_leaves_the_rest_to_the_close_it_interrupts(
    dis: DISEmulator, make: Callable[..., DISHandler]
) -> None:
    handler = make(max_batch_records=10, flush_interval=60)
    has_closed = threading.Event()

    def close(*_: object) -> None:
        handler.close()
        has_closed.set()

    def interrupt() -> None:
        assert dis.wait_for(lambda _: "closed" in repr(handler))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert has_closed.wait(20)

    before = signal.signal(signal.SIGUSR1, close)
    try:
        dis.play(Meanwhile(partial(log_all, handler, ["late"] * 30)), Meanwhile(interrupt))
        log(handler, "first")
        handler.close()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert dis.record_count(STREAM) == 31


def test_a_second_close_waits_for_what_the_first_gives_up(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    handler = make(flush_interval=60, shutdown_timeout=0.5)
    with dis.rule(Hang()):
        log(handler, "first")
        closing = threading.Thread(target=handler.close)
        closing.start()
        assert dis.wait_for(lambda _: "closed" in repr(handler))
        handler.close()
        left = handler.stats().buffered
        closing.join(20)

    assert left == 0


def test_close_in_a_second_thread_waits_for_the_first(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    handler = make(max_batch_records=10, flush_interval=60)
    has_begun = threading.Event()
    left: list[int] = []

    def close_too() -> None:
        has_begun.set()
        handler.close()
        left.append(handler.stats().buffered)

    second = threading.Thread(target=close_too)

    def close_meanwhile() -> None:
        assert dis.wait_for(lambda _: "closed" in repr(handler))
        second.start()
        assert has_begun.wait(20)

    dis.play(Meanwhile(partial(log_all, handler, ["late"] * 30)), Meanwhile(close_meanwhile))
    log(handler, "first")
    handler.close()
    second.join(20)

    assert left == [0]
    assert dis.record_count(STREAM) == 31


def test_a_thread_that_cannot_be_started_costs_nothing(
    dis: DISEmulator,
    make: Callable[..., DISHandler],
    fallback: RememberingHandler,
) -> None:
    handler = make(max_in_flight=4)
    first = earn_trust(handler)
    with dis.rule(Hang(0.005)), no_thread("dis_logging-sender-") as refused:
        texts = log_batches(handler)
        assert handler.flush()

    assert refused
    assert_accounts_balance(handler, dis, fallback, [first, *texts])
