"""What DIS itself can do to a batch, end to end: each record's fate by the emulator's ledger, the fallback and the counters."""

import copy
import itertools
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dis_logging import DISHandler
from dis_logging.client.models import PutRecordsResultEntry
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import (
    Behave,
    Exchange,
    Fault,
    Hang,
    Mangle,
    Refuse,
    RefuseEntries,
    Reply,
    Reset,
    Truncate,
    times,
)
from dis_logging.emulator.messages import ReceivedEntry
from dis_logging.pipeline import delivery, retry
from dis_logging.pipeline.pipeline import Pipeline
from dis_logging.pipeline.retry import RetryPolicy
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance

FAST: dict[str, Any] = {
    "flush_interval": 0.01,
    "backoff_initial": 0.001,
    "backoff_max": 0.01,
    "delivery_timeout": 30,
    "shutdown_timeout": 20,
}
# Hypothesis makes many examples against one emulator, each on a stream of its own.
EXAMPLES = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# The code is that of the last attempt, which may begin just before the deadline and be cut short by it.
LAST_ATTEMPT_CUT_SHORT = {"timeout", "network"}
_numbers = itertools.count()


def log(handler: DISHandler, text: str, name: str = "web", level: int = logging.INFO) -> None:
    handler.handle(logging.LogRecord(name, level, __file__, 1, text, None, None))


def make_handler(dis: DISEmulator, fallback: logging.Handler, **options: Any) -> DISHandler:
    return DISHandler(**{**dis.handler_options(STREAM), **FAST, "fallback": fallback, **options})


@pytest.fixture
def make(dis: DISEmulator, fallback: RememberingHandler) -> Iterator[Callable[..., DISHandler]]:
    """Returns a function that makes a fast handler; it is closed at the latest after the test."""
    handlers: list[DISHandler] = []

    def make(policy: Mapping[str, float] | None = None, **options: Any) -> DISHandler:
        handlers.append(make_handler(dis, fallback, **options))
        if policy:
            set_policy(handlers[-1], policy)
        return handlers[-1]

    yield make
    for handler in handlers:
        handler.close()


def set_policy(handler: DISHandler, changes: Mapping[str, float]) -> None:
    """Gives a handler that has not started yet the waits between probes that no option offers."""
    old = handler._pipeline
    options = copy.copy(old._options)
    options.policy = RetryPolicy(**{"backoff_initial": 0.001, "backoff_max": 0.01, "delivery_timeout": 30.0, **changes})
    handler._pipeline = Pipeline(options, old._sender, old._fallback._lookup)


# -- order ----------------------------------------------------------------------------------------------------------


def assert_nothing_overtakes(dis: DISEmulator, stream: str) -> None:
    """
    A record goes out for the first time only when every older one of its logger has its verdict.

    Texts end in their number within their logger. A number that is sent for the first time must not be followed by an
    older one, neither in its own request nor in a later one, unless both first went in the same request.
    """
    newest: dict[str | None, int] = defaultdict(lambda: -1)  # of those sent before the latest first sending
    latest: dict[str | None, int] = defaultdict(lambda: -1)
    for request in dis.requests:
        if request.stream_name != stream:
            continue
        by_key: defaultdict[str | None, list[int]] = defaultdict(list)
        for entry in request.entries:
            by_key[entry.partition_key].append(int(entry.text.rpartition(" ")[2]))
        for key, numbers in by_key.items():
            assert numbers == sorted(numbers)
            assert numbers[0] > newest[key], f"{key}: {numbers} after {latest[key]}"
            if numbers[-1] > latest[key]:
                newest[key], latest[key] = latest[key], numbers[-1]
                assert numbers[0] > newest[key], f"{key}: {numbers} mixes new and old"


def assert_first_arrivals_in_order(dis: DISEmulator, stream: str) -> None:
    """Each logger's records arrived for the first time in the order they were logged."""
    arrived: defaultdict[str | None, list[int]] = defaultdict(list)
    seen = set()
    for record in dis.records(stream):
        if record.text not in seen:
            seen.add(record.text)
            arrived[record.partition_key].append(int(record.text.rpartition(" ")[2]))
    for numbers in arrived.values():
        assert numbers == sorted(numbers)


# -- every mix of partial failures ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdicts(RefuseEntries):
    """Refuses each text as its own script says: one code for each time it comes, an empty one meaning stored."""

    scripts: Mapping[str, deque[str]] = field(default_factory=dict)

    def refuse(self, index: int, entry: ReceivedEntry) -> PutRecordsResultEntry | None:
        script = self.scripts.get(entry.text)
        code = script.popleft() if script else ""
        return PutRecordsResultEntry(error_code=code, error_message="scripted") if code else None


RETRIABLE = ("DIS.4303", "DIS.4305", "DIS.5000", "DIS.5250", "DIS.5999")
PERMANENT = ("DIS.4200", "DIS.4201", "DIS.4302", "DIS.4319", "DIS.4999", "SOMETHING.1")
scripts_of_a_record = st.builds(
    lambda again, last: [*again, last],
    st.lists(st.sampled_from(RETRIABLE), max_size=4),
    st.sampled_from(("", "", *PERMANENT)),
)


@given(
    scripts=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), scripts_of_a_record), min_size=1, max_size=25),
    max_batch_records=st.integers(1, 12),
    pauses=st.sets(st.integers(0, 24), max_size=3),
)
@EXAMPLES
def test_each_record_gets_its_own_verdict_whatever_the_mix(
    dis: DISEmulator,
    scripts: Sequence[tuple[str, list[str]]],
    max_batch_records: int,
    pauses: set[int],
) -> None:
    stream = f"mix-{next(_numbers)}"
    dis.create_stream(stream, 2)
    fallback = RememberingHandler()
    numbers: Counter[str] = Counter()
    expected: dict[str, list[str]] = {}
    with dis.rule(rule := Verdicts(scripts={}), where=lambda request: request.stream_name == stream):
        handler = make_handler(dis, fallback, stream_name=stream, max_batch_records=max_batch_records)
        for index, (name, script) in enumerate(scripts):
            text = f"{stream} {name} {numbers[name]}"
            numbers[name] += 1
            expected[text] = script
            rule.scripts[text] = deque(script)  # type: ignore[index]
            log(handler, text, name)
            if index in pauses:
                handler.flush(0.001)
        assert handler.flush(20)
        assert_accounts_balance(handler, dis, fallback, list(expected), stream=stream)

    sent = Counter(entry.text for request in dis.requests if request.stream_name == stream for entry in request.entries)
    assert sent == {text: len(script) for text, script in expected.items()}
    assert Counter(record.text for record in dis.records(stream)) == Counter(
        text for text, script in expected.items() if not script[-1]
    )
    outcomes = {record.getMessage(): vars(record) for record in fallback.records}
    assert {text: (fields["dis_error_code"], fields["dis_attempts"]) for text, fields in outcomes.items()} == {
        text: (script[-1], len(script)) for text, script in expected.items() if script[-1]
    }
    assert not any(fields["dis_outcome_unknown"] for fields in outcomes.values())
    assert_nothing_overtakes(dis, stream)


HARMLESS: tuple[Fault, ...] = (
    Behave(),
    Refuse(400, "DIS.4303"),
    Refuse(429),
    Refuse(408),
    Refuse(413),
    Refuse(400, "DIS.4200"),
    Reset("before"),
    Reset("body"),
)
UNKNOWN: tuple[Fault, ...] = (
    Refuse(500, "DIS.5000"),
    Refuse(503),
    Reset("after"),
    Truncate(5),
    Reply(status=502, body=b"<html>", store=True),
    Reply(status=202, store=True),
    Reply(raw=b"nonsense\r\n\r\n", store=True),
    Mangle(lambda result: {**result, "records": result["records"][1:]}),
)


@given(
    faults=st.lists(st.sampled_from(HARMLESS + UNKNOWN), max_size=10),
    names=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=20),
    max_batch_records=st.integers(1, 8),
)
@EXAMPLES
def test_records_survive_any_mix_of_faults_of_whole_requests(
    dis: DISEmulator, faults: list[Fault], names: list[str], max_batch_records: int
) -> None:
    stream = f"faults-{next(_numbers)}"
    dis.create_stream(stream, 2)
    fallback = RememberingHandler()
    texts: list[str] = []
    numbers: Counter[str] = Counter()
    dis.play(*faults)
    handler = make_handler(dis, fallback, stream_name=stream, max_batch_records=max_batch_records)
    for name in names:
        texts.append(f"{stream} {name} {numbers[name]}")
        numbers[name] += 1
        log(handler, texts[-1], name)
    assert handler.flush(20)

    while dis.unplayed:  # what is left would hit the next example
        log(handler, f"{stream} rest {numbers['rest']}", "rest")
        texts.append(f"{stream} rest {numbers['rest']}")
        numbers["rest"] += 1
        assert handler.flush(20)
    assert_accounts_balance(handler, dis, fallback, texts, stream=stream)
    stored = Counter(record.text for record in dis.records(stream))
    unknown = [fault for fault in faults if fault in UNKNOWN]
    assert all(copies <= 1 + len(unknown) for copies in stored.values())
    assert set(fallback.codes) <= {"http_413", "DIS.4200"}  # one that met these alone
    assert_nothing_overtakes(dis, stream)
    assert_first_arrivals_in_order(dis, stream)


def test_a_throttled_logger_does_not_hold_up_the_others(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(backoff_initial=0.01, backoff_max=0.05)
    calm, throttled = [f"calm {n}" for n in range(30)], [f"throttled {n}" for n in range(30)]

    with dis.rule(RefuseEntries("DIS.4303", where=lambda entry: entry.partition_key == "throttled")):
        for one, other in zip(throttled, calm, strict=True):
            log(handler, one, "throttled")
            log(handler, other, "calm")
        assert dis.wait_for(lambda _: handler.stats().delivered == 30)
        assert {record.partition_key for record in dis.records(STREAM)} == {"calm"}

    assert handler.flush(20)
    assert assert_accounts_balance(handler, dis, fallback, [*calm, *throttled]).failed == 0
    assert_nothing_overtakes(dis, STREAM)
    assert_first_arrivals_in_order(dis, STREAM)


def test_acknowledged_records_are_never_sent_again(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(flush_interval=60)
    texts = [f"text {number}" for number in range(10)]
    dis.play(RefuseEntries("DIS.4303", where=[2, 5]), Refuse(429), RefuseEntries("DIS.5000", where=[1]))

    for text in texts:
        log(handler, text)
    assert handler.flush(20)

    assert [[entry.text for entry in request.entries] for request in dis.requests] == [
        texts,
        ["text 2", "text 5"],
        ["text 2", "text 5"],
        ["text 5"],
    ]
    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert (stats.delivered, stats.requests, stats.retried) == (10, 4, 5)


# -- answers that lie -----------------------------------------------------------------------------------------------


def _counting(count: object) -> Mangle:
    return Mangle(lambda result: {**result, "failed_record_count": count})


@pytest.mark.parametrize("count", [0, 1, 3, -1, "0", "many", None, [], 1e99])
def test_the_failed_record_count_is_not_trusted(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, count: object
) -> None:
    handler = make(flush_interval=60)
    dis.play(_counting(count))

    with dis.rule(RefuseEntries("DIS.4302", where=lambda entry: entry.text == "bad")):
        for text in ("one", "bad", "two"):
            log(handler, text)
        assert handler.flush(20)

    assert_accounts_balance(handler, dis, fallback, ["one", "bad", "two"])
    assert fallback.texts == ["bad"]
    assert len(dis.requests) == 1


def _each(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """Returns a change of each result in an answer."""
    return lambda result: {**result, "records": [change(record) for record in result["records"]]}


def _first(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """Returns a change of the first result in an answer."""
    return lambda result: {**result, "records": [change(result["records"][0]), *result["records"][1:]]}


SENSELESS: dict[str, Callable[[dict[str, Any]], object]] = {
    "too short": lambda result: {**result, "records": result["records"][:-1]},
    "too long": lambda result: {**result, "records": [*result["records"], result["records"][0]]},
    "empty": lambda result: {**result, "records": []},
    "no list": lambda result: {"failed_record_count": 0},
    "null list": lambda result: {**result, "records": None},
    "an object as list": lambda result: {**result, "records": {"0": {}}},
    "a list": lambda result: result["records"],
    "null": lambda result: None,
    "one null": _first(lambda record: None),
    "all null": _each(lambda record: None),
    "one text": _first(lambda record: "ok"),
    "neither number nor error": _first(lambda record: {}),
    "empty texts": _first(lambda record: dict.fromkeys(record, "")),
    "nulls in it": _first(lambda record: dict.fromkeys(record)),
    "a number as error": _first(lambda record: {**record, "error_code": 4303}),
    "a list as number": _first(lambda record: {**record, "sequence_number": []}),
}


@pytest.mark.parametrize("change", SENSELESS.values(), ids=SENSELESS.keys())
def test_an_answer_that_makes_no_sense_acknowledges_nothing(
    dis: DISEmulator,
    make: Callable[..., DISHandler],
    fallback: RememberingHandler,
    change: Callable[[dict[str, Any]], object],
) -> None:
    handler = make(flush_interval=60)
    dis.play(Mangle(change))
    texts = ["one", "two", "three"]

    for text in texts:
        log(handler, text)
    assert handler.flush(20)

    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert (stats.delivered, stats.requests, stats.retried) == (3, 2, 3)
    assert [record.text for record in dis.records(STREAM)] == texts * 2


def test_senseless_answers_for_good_end_in_the_fallback_as_unknown(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(delivery_timeout=0.3)

    with dis.rule(Mangle(SENSELESS["too short"])):
        log(handler, "perhaps")
        assert handler.flush(20)

    assert assert_accounts_balance(handler, dis, fallback, ["perhaps"]).failed == 1
    assert set(fallback.codes) <= {"http_200", *LAST_ATTEMPT_CUT_SHORT}
    assert vars(fallback.records[0])["dis_outcome_unknown"] is True
    assert vars(fallback.records[0])["dis_attempts"] > 1


def test_an_error_counts_even_beside_a_sequence_number(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(flush_interval=60)
    dis.play(Mangle(_first(lambda record: {**record, "error_code": "DIS.4303", "error_message": "busy"})))

    log(handler, "refused with a number")
    log(handler, "stored")
    assert handler.flush(20)

    assert [request.entry_count for request in dis.requests] == [2, 1]
    assert assert_accounts_balance(handler, dis, fallback, ["refused with a number", "stored"]).delivered == 2


@pytest.mark.parametrize(
    "change",
    [
        _each(lambda record: {**record, "error_code": None, "error_message": None}),
        _each(lambda record: {**record, "error_code": "", "error_message": ""}),
        _each(lambda record: {**record, "new_field": {"nested": [1]}}),
        _each(lambda record: {**record, "sequence_number": int(record["sequence_number"])}),
        _each(lambda record: {"sequence_number": record["sequence_number"]}),
        lambda result: {"records": result["records"]},
    ],
)
def test_unusual_but_clear_acknowledgements_count(
    dis: DISEmulator, make: Callable[..., DISHandler], change: Callable[[dict[str, Any]], object]
) -> None:
    handler = make(flush_interval=60)
    dis.play(Mangle(change))

    log(handler, "one")
    log(handler, "two")
    assert handler.flush(20)

    assert (handler.stats().delivered, handler.stats().requests) == (2, 1)


def test_only_what_is_acknowledged_counts_as_delivered(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(request_timeout=1.0, delivery_timeout=1.1)

    with dis.rule(Hang(store=True)):
        log(handler, "stored, but who knows")
        assert handler.flush(20)

    stats = assert_accounts_balance(handler, dis, fallback, ["stored, but who knows"])
    assert (stats.delivered, stats.failed) == (0, 1)
    assert dis.record_count(STREAM) >= 1
    assert set(fallback.codes) <= LAST_ATTEMPT_CUT_SHORT
    assert vars(fallback.records[0])["dis_outcome_unknown"] is True


# -- throttling -----------------------------------------------------------------------------------------------------

THROTTLES: dict[str, Fault] = {
    "400 with DIS.4303": Refuse(400, "DIS.4303"),
    "429 with DIS.4303": Refuse(429, "DIS.4303"),
    "429 of the gateway": Refuse(429, "APIGW.0308", gateway=True),
    "429 alone": Refuse(429, headers={"Retry-After": "0"}),
    "per record": RefuseEntries("DIS.4303"),
    "too many stream requests": Refuse(400, "DIS.4305"),
}


@pytest.mark.parametrize("fault", THROTTLES.values(), ids=THROTTLES.keys())
def test_throttling_costs_time_and_nothing_else(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, fault: Fault
) -> None:
    """Five minutes, scaled: some two dozen refusals in a row."""
    handler = make(max_batch_records=10)
    texts = [f"text {number}" for number in range(40)]
    dis.play(*times(25, fault))

    for text in texts:
        log(handler, text)
    assert handler.flush(30)

    assert assert_accounts_balance(handler, dis, fallback, texts).delivered == 40
    assert [record.text for record in dis.records(STREAM)] == texts
    assert not dis.unplayed


@pytest.mark.parametrize("fault", [Refuse(400, "DIS.4303"), RefuseEntries("DIS.4303")])
def test_the_backoff_grows_while_a_service_throttles(
    dis: DISEmulator, make: Callable[..., DISHandler], fault: Fault
) -> None:
    """A client that asks again at once would send hundreds of requests in this second."""
    handler = make(backoff_initial=0.02, backoff_max=10, delivery_timeout=1)

    with dis.rule(fault):
        for number in range(20):
            log(handler, f"text {number}")
        assert handler.flush(30)

    assert handler.stats().failed == 20
    assert len(dis.requests) < 25


@dataclass(frozen=True)
class Timed:
    """Notes when a request came, then plays another fault."""

    fault: Fault
    moments: list[float] = field(default_factory=list)

    def play(self, exchange: Exchange) -> None:
        self.moments.append(time.monotonic())
        self.fault.play(exchange)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_and_holds_for_everybody(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, status: int
) -> None:
    handler = make()
    moments: list[float] = []
    dis.play(Timed(Refuse(status, headers={"Retry-After": "1"}), moments), *times(2, Timed(Behave(), moments)))

    log(handler, "one", "a")
    assert dis.wait_for(lambda _: len(moments) == 1)
    log(handler, "two", "b", logging.CRITICAL)
    assert handler.flush(20)

    assert moments[1] - moments[0] >= 0.95  # less its way over loopback
    assert assert_accounts_balance(handler, dis, fallback, ["one", "two"]).delivered == 2


def test_a_retry_after_beyond_the_delivery_timeout_is_not_waited_for(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(delivery_timeout=5)
    dis.play(Refuse(429, "DIS.4303", headers={"Retry-After": "3000"}))

    log(handler, "one")

    assert handler.flush(4)
    assert fallback.codes == ["DIS.4303"]
    assert len(dis.requests) == 1


ENDLESS = {
    "a trillion seconds": "1000000000000",
    "four hundred digits": "9" * 400,
    "a date of the year 9999": "Fri, 31 Dec 9999 23:59:59 GMT",
}
NO_RETRY_AFTERS = [
    "-5",
    "-0",
    "nan",
    "inf",
    "1e9",
    "0x10",
    "soon",
    "",
    ", ,",
    "\xb2",
    "Fri, 99 Foo 9999",
    "Fri, 31 Dec 1899 0:0:0 GMT",
]


@pytest.fixture
def short_cap(monkeypatch: pytest.MonkeyPatch) -> float:
    """The longest Retry-After that is honoured: an hour otherwise."""
    for module in (retry, delivery):
        monkeypatch.setattr(module, "MAX_RETRY_AFTER", 0.4)
    return 0.4


@pytest.mark.parametrize("value", ENDLESS.values(), ids=ENDLESS)
def test_a_retry_after_without_end_stalls_a_batch_no_longer_than_the_cap(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, short_cap: float, value: str
) -> None:
    handler = make(delivery_timeout=100)
    moments: list[float] = []
    dis.play(*(Timed(fault, moments) for fault in (Refuse(503, headers={"Retry-After": value}), Behave())))

    log(handler, "one")
    assert handler.flush(20)

    assert moments[1] - moments[0] >= short_cap - 0.05  # less its way over loopback
    assert assert_accounts_balance(handler, dis, fallback, ["one"]).delivered == 1


@pytest.mark.parametrize("value", ENDLESS.values(), ids=ENDLESS)
def test_a_retry_after_without_end_stalls_the_next_batch_no_longer_than_the_cap(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, short_cap: float, value: str
) -> None:
    """The batch that met it has no time to wait for so long."""
    handler = make(delivery_timeout=short_cap / 2)
    moments: list[float] = []
    dis.play(*(Timed(fault, moments) for fault in (Refuse(503, headers={"Retry-After": value}), Behave())))

    log(handler, "one")
    assert handler.flush(20)
    log(handler, "two")

    assert dis.wait_for(lambda _: len(moments) == 2)
    assert fallback.codes == ["http_503"]
    assert moments[1] - moments[0] >= short_cap - 0.05
    assert_accounts_balance(handler, dis, fallback, ["one", "two"])


@pytest.mark.parametrize("value", NO_RETRY_AFTERS)
def test_a_retry_after_without_sense_stalls_nothing(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, value: str
) -> None:
    handler = make()
    dis.play(Refuse(503, headers={"Retry-After": value}))

    log(handler, "one")

    assert handler.flush(20)
    assert handler.stats().requests == 2
    assert assert_accounts_balance(handler, dis, fallback, ["one"]).delivered == 1


# -- errors that concern everything: the circuit --------------------------------------------------------------------


def log_batches(handler: DISHandler, count: int) -> list[str]:
    """Logs *count* batches of five and waits for their verdicts; returns the texts."""
    texts = [f"text {next(_numbers)}" for _ in range(5 * count)]
    for start in range(0, len(texts), 5):
        for text in texts[start : start + 5]:
            log(handler, text)
        assert handler.flush(20)
    return texts


def test_a_wrong_key_for_good_costs_three_requests_at_most(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(sk="not-the-key-of-the-emulator")

    texts = log_batches(handler, 20)

    assert assert_accounts_balance(handler, dis, fallback, texts).failed == 100
    assert len(dis.requests) <= 3
    assert set(fallback.codes) == set(dis.refused)
    assert fallback.codes[0].startswith("DIS.41")
    assert fallback.texts == texts


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (441, "DIS.4100"),
        (441, "DIS.4107"),
        (441, ""),
        (401, "APIGW.0301"),
        (403, "DIS.4116"),
        (403, ""),
        (404, ""),
        (400, "DIS.4117"),
        (400, "DIS.4205"),
        (400, "DIS.4301"),
        (410, "DIS.4301"),
        (400, "DIS.4309"),
        (302, ""),
    ],
)
def test_errors_that_every_request_would_meet_stop_the_sending(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, status: int, code: str
) -> None:
    handler = make()

    with dis.rule(Refuse(status, code, "no")):
        texts = log_batches(handler, 5)

    assert assert_accounts_balance(handler, dis, fallback, texts).failed == 25
    assert len(dis.requests) == 1
    assert set(fallback.codes) == {code if code.startswith("DIS.") else f"http_{status}"}
    assert [vars(record)["dis_attempts"] for record in fallback.records] == [1] * 5 + [0] * 20
    assert "no" in vars(fallback.records[-1])["dis_error_message"]


def assert_recovers(dis: DISEmulator, handler: DISHandler, fallback: RememberingHandler, texts: list[str]) -> None:
    """Logs until a probe gets through, then expects everything to arrive."""

    def probe(_: DISEmulator) -> bool:
        texts.extend(log_batches(handler, 1))
        return handler.stats().delivered > 0

    assert dis.wait_for(probe, 20)
    before = handler.stats()
    texts.extend(log_batches(handler, 5))
    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert stats.failed == before.failed
    assert stats.delivered == before.delivered + 25


def test_a_repaired_key_is_noticed_by_a_probe(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make({"probe_interval": 0.1}, sk="the-key-to-come")
    texts = log_batches(handler, 3)
    assert handler.stats().delivered == 0

    dis.sk = "the-key-to-come"

    assert_recovers(dis, handler, fallback, texts)


def test_a_stream_that_is_deleted_and_created_again(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make({"probe_interval": 0.1})
    dis.delete_stream(STREAM)
    texts = log_batches(handler, 3)
    assert set(fallback.codes) == {"DIS.4301"}

    dis.create_stream(STREAM, 2)

    assert_recovers(dis, handler, fallback, texts)


def test_one_probe_at_a_time_while_the_circuit_is_open(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make({"probe_interval": 3600.0})
    dis.play(Refuse(441, "DIS.4100"))
    texts = log_batches(handler, 1)
    handler._pipeline._delivery._circuit._probe_at = 0.0  # the hour is over
    dis.play(Refuse(503))  # the probe fails, for another reason

    texts += log_batches(handler, 10)

    assert assert_accounts_balance(handler, dis, fallback, texts).failed == 55
    assert len(dis.requests) == 2
    assert Counter(fallback.codes) == {"DIS.4100": 50, "http_503": 5}


def test_others_do_not_wait_for_a_probe(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make({"probe_interval": 3600.0})
    dis.play(Refuse(441, "DIS.4100"))
    texts = log_batches(handler, 1)
    handler._pipeline._delivery._circuit._probe_at = 0.0  # the hour is over

    with dis.rule(Hang()):
        log(handler, "probe")
        assert dis.wait_for(lambda dis: len(dis.requests) == 2)
        log(handler, "other", "another logger")
        assert not handler.flush(0.2)
        assert dis.wait_for(lambda _: "other" in fallback.texts)
        assert "probe" not in fallback.texts
    dis.drop_connections()

    assert_accounts_balance(handler, dis, fallback, [*texts, "probe", "other"])
    assert "probe" in fallback.texts


def test_a_blacklisted_address_is_left_in_peace_for_longer(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make({"probe_interval": 0.001, "blacklist_interval": 3600.0})

    with dis.rule(Refuse(400, "DIS.4309")):
        texts = log_batches(handler, 20)

    assert assert_accounts_balance(handler, dis, fallback, texts).failed == 100
    assert len(dis.requests) == 1
    assert set(fallback.codes) == {"DIS.4309"}


def test_the_repr_says_that_the_circuit_is_open(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    handler = make()
    dis.play(Refuse(403, "DIS.4116"))

    log_batches(handler, 1)

    assert "circuit open after DIS.4116" in repr(handler)


# -- refused whole: halving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code"), [(413, ""), (400, "DIS.4200"), (400, "DIS.4300"), (400, "DIS.4999")])
@pytest.mark.parametrize("offender", [0, 6, 15])
def test_a_request_refused_whole_is_halved_until_the_offender_stands_alone(
    dis: DISEmulator,
    make: Callable[..., DISHandler],
    fallback: RememberingHandler,
    status: int,
    code: str,
    offender: int,
) -> None:
    handler = make(flush_interval=60)
    texts = [f"text {number}" for number in range(16)]
    bad = texts[offender]

    with dis.rule(Refuse(status, code), where=lambda request: bad in [entry.text for entry in request.entries]):
        for text in texts:
            log(handler, text)
        assert handler.flush(20)

    assert_accounts_balance(handler, dis, fallback, texts)
    assert fallback.texts == [bad]
    assert fallback.codes == [code or f"http_{status}"]
    assert vars(fallback.records[0])["dis_attempts"] == 5
    assert vars(fallback.records[0])["dis_outcome_unknown"] is False
    assert [record.text for record in dis.records(STREAM)] == [text for text in texts if text != bad]
    assert len(dis.requests) == 9  # 1 + 2 for each of the four halvings


def test_a_request_that_is_only_too_large_is_halved_and_arrives(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(flush_interval=60)
    texts = [f"text {number:02d}" for number in range(30)]

    with dis.rule(Refuse(413), where=lambda request: request.entry_count > 4):
        for text in texts:
            log(handler, text)
        assert handler.flush(20)

    assert assert_accounts_balance(handler, dis, fallback, texts).delivered == 30
    assert [record.text for record in dis.records(STREAM)] == texts


def test_newer_records_of_a_logger_wait_until_its_halves_are_through(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(max_batch_records=8, backoff_initial=0.01, backoff_max=0.02)
    texts = [f"text {number}" for number in range(24)]
    dis.play(Refuse(413), Refuse(413), Refuse(400, "DIS.4303"), RefuseEntries("DIS.4303", where=[1]), Refuse(413))

    for text in texts:
        log(handler, text)
    assert handler.flush(20)

    assert_accounts_balance(handler, dis, fallback, texts)
    assert_nothing_overtakes(dis, STREAM)


def test_refusals_without_end_stop_the_sending(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    """DIS blacklists an address that fails too often, so halving must not go on for ever."""
    handler = make(flush_interval=60)
    texts = [f"first {number}" for number in range(200)]

    with dis.rule(Refuse(400, "DIS.4200")):
        for text in texts:
            log(handler, text)
        assert handler.flush(20)
        texts += log_batches(handler, 10)

    assert assert_accounts_balance(handler, dis, fallback, texts).failed == 250
    assert len(dis.requests) < 60


# -- verdicts in time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", PERMANENT)
def test_a_permanent_failure_goes_to_the_fallback_at_once(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, code: str
) -> None:
    handler = make()
    dis.play(RefuseEntries(code, "for good", where=[0]))

    log(handler, "bad")
    assert handler.flush(20)

    assert_accounts_balance(handler, dis, fallback, ["bad"])
    assert fallback.codes == [code]
    assert vars(fallback.records[0])["dis_error_message"] == "for good"
    assert len(dis.requests) == 1


@pytest.mark.parametrize(
    ("faults", "code", "unknown"),
    [
        ([Refuse(400, "DIS.4303"), RefuseEntries("DIS.4302")], "DIS.4302", False),
        ([Refuse(503), RefuseEntries("DIS.4302")], "DIS.4302", True),
        ([Reset("after"), RefuseEntries("DIS.4302")], "DIS.4302", True),
        ([Truncate(), Refuse(403, "DIS.4116")], "DIS.4116", True),
        ([Refuse(429), Refuse(403)], "http_403", False),
    ],
)
def test_the_fallback_learns_whether_any_attempt_may_have_stored_the_record(
    dis: DISEmulator,
    make: Callable[..., DISHandler],
    fallback: RememberingHandler,
    faults: list[Fault],
    code: str,
    unknown: bool,
) -> None:
    handler = make()
    dis.play(*faults)

    log(handler, "one")
    assert handler.flush(20)

    assert_accounts_balance(handler, dis, fallback, ["one"])
    assert fallback.codes == [code]
    assert vars(fallback.records[0])["dis_outcome_unknown"] is unknown
    assert vars(fallback.records[0])["dis_attempts"] == 2


FOR_EVER: dict[str, tuple[Fault, str]] = {
    "throttled": (Refuse(400, "DIS.4303"), "DIS.4303"),
    "throttled per record": (RefuseEntries("DIS.4303"), "DIS.4303"),
    "down": (Refuse(503), "http_503"),
    "silent": (Hang(), "timeout"),
    "hanging up": (Reset("after"), "network"),
}


@pytest.mark.parametrize(("fault", "code"), FOR_EVER.values(), ids=FOR_EVER.keys())
def test_a_verdict_comes_within_the_delivery_timeout(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, fault: Fault, code: str
) -> None:
    handler = make(delivery_timeout=0.5, request_timeout=0.2, backoff_initial=0.02, backoff_max=0.1)
    first: list[float] = []

    with dis.rule(Timed(fault, first)) if not isinstance(fault, RefuseEntries) else dis.rule(fault):
        started = time.monotonic()
        log(handler, "one", level=logging.CRITICAL)
        assert handler.flush(20)
        took = time.monotonic() - (first[0] if first else started)

    assert took < 0.5 + 1.0  # a busy machine may come late to look
    assert_accounts_balance(handler, dis, fallback, ["one"])
    assert set(fallback.codes) <= {code, *LAST_ATTEMPT_CUT_SHORT}
    assert vars(fallback.records[0])["dis_attempts"] > 1


def test_nobody_listening_is_a_network_failure(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(delivery_timeout=0.3)
    dis.stop()

    log(handler, "one")
    assert handler.flush(20)

    assert fallback.codes == ["network"]
    assert vars(fallback.records[0])["dis_outcome_unknown"] is False
    assert vars(fallback.records[0])["dis_attempts"] > 1


def test_the_next_batch_has_its_own_time(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make(delivery_timeout=0.3, backoff_initial=0.05, backoff_max=0.1)

    with dis.rule(Refuse(503)):
        log(handler, "too early")
        assert handler.flush(20)
    log(handler, "in time")
    assert handler.flush(20)

    assert_accounts_balance(handler, dis, fallback, ["too early", "in time"])
    assert fallback.texts == ["too early"]
