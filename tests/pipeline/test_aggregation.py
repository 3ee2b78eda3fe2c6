"""Several log records in one DIS record: what a consumer gets back, and each log record's verdict by the emulator's ledger."""

import ast
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dis_logging import DISHandler
from dis_logging.client.wire import MAX_RECORD_BYTES, Routing
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Refuse, RefuseEntries
from dis_logging.emulator.stream import StoredRecord
from dis_logging.pipeline import aggregation
from dis_logging.pipeline.aggregation import join, line_of, line_size
from dis_logging.pipeline.entry import CREATED, DATA, KEY, ROUTING, Entry
from tests.conftest import STREAM, RememberingHandler

MIB = 2**20
README = Path(__file__).parents[2] / "README.md"
ROUTINGS = (None, Routing("1", None), Routing("2", None), Routing(None, "0"))


def _split_of_the_readme() -> Callable[[bytes], list[str]]:
    """Returns the function `split` that the README gives to consumers."""
    (block,) = (text for text in README.read_text("utf-8").split("```python\n") if "def split(" in text)
    program = ast.parse(block.partition("```")[0])
    program.body = [node for node in program.body if isinstance(node, ast.Import | ast.FunctionDef)]
    names: dict[str, Any] = {}
    exec(compile(program, str(README), "exec"), names)
    return names["split"]  # type: ignore[no-any-return]


split = _split_of_the_readme()


def make_entry(text: str, key: str = "a", number: int = 0, routing: Routing | None = None, data: bytes = b"") -> Entry:
    return data or text.encode(), key, routing, 0, "app", 20, float(number), "path", 1, None, None, ()


# -- the format -----------------------------------------------------------------------------------------------------

awkward = st.text(st.sampled_from('a"\\\n\r\x00\x1f\x7f\x85\u2028é世🙂'), min_size=1, max_size=12)
texts = st.one_of(awkward, st.text(min_size=1))


@given(st.lists(texts, min_size=1), st.integers(1, 200))
@example(["\n", '"', '""', "\\n", '"\n', "\r\n", "a\u2028b", "null", "[1]"], 200)
def test_a_consumer_gets_back_what_was_logged(lines: list[str], max_bytes: int) -> None:
    records, _ = join([make_entry(line) for line in lines], max_bytes)

    assert [text for data, _, _ in records for text in split(data)] == lines


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1))
@example([b"\xff", b"\xff\n\x80", b'"\xed\xb3\xbf', "\u00e9\n".encode() + b"\xc3"])
def test_bytes_that_are_no_text_come_back_as_well(lines: list[bytes]) -> None:
    """A formatter may make them."""
    records, _ = join([make_entry("", number=number, data=data) for number, data in enumerate(lines)], 200)

    assert [text.encode(errors="surrogateescape") for data, _, _ in records for text in split(data)] == lines


@given(texts)
def test_a_text_takes_as_many_bytes_as_its_line(text: str) -> None:
    data = text.encode()
    line = line_of(data)

    assert line_size(data) == len(line)
    assert b"\n" not in line
    assert len(line) <= 6 * len(data) + 2


@pytest.mark.parametrize("text", ["plain", "  indented", "\\n", "'quoted'", 'a "word"', "a\rb", "\u2028", "tab\t"])
def test_a_text_that_cannot_be_mistaken_stays_as_it_is(text: str) -> None:
    assert line_of(text.encode()) == text.encode()


entries_of_all_kinds = st.lists(
    st.tuples(texts, st.sampled_from(["a", "b", ""]), st.sampled_from(ROUTINGS)), max_size=40
).map(lambda parts: [make_entry(*part[:2], number, part[2]) for number, part in enumerate(parts)])


@given(entries_of_all_kinds, st.integers(1, 60))
def test_records_are_bounded_keep_the_order_and_have_one_place_each(entries: list[Entry], max_bytes: int) -> None:
    records, groups = join(entries, max_bytes)

    assert sorted(index for group in groups for index in group) == list(range(len(entries)))
    by_key: defaultdict[str, list[float]] = defaultdict(list)
    for (data, key, routing), group in zip(records, groups, strict=True):
        members = [entries[index] for index in group]
        assert {(entry[KEY], entry[ROUTING]) for entry in members} == {(key, routing)}
        assert split(data) == [entry[DATA].decode() for entry in members]
        assert len(data) <= max_bytes or len(group) == 1
        by_key[key] += [entry[CREATED] for entry in members]
    for numbers in by_key.values():
        assert numbers == sorted(numbers)


@pytest.mark.parametrize(("max_bytes", "groups"), [(29, [[0, 1, 2], [3, 4]]), (28, [[0, 1], [2, 3], [4]])])
def test_a_record_is_filled_to_the_last_byte(max_bytes: int, groups: list[list[int]]) -> None:
    _, joined = join([make_entry("x" * 9) for _ in range(5)], max_bytes)

    assert [list(group) for group in joined] == groups


def test_a_long_text_has_a_record_for_itself() -> None:
    records, groups = join([make_entry("x" * size) for size in (5, 50, 5, 5)], 20)

    assert [list(group) for group in groups] == [[0], [1], [2, 3]]
    assert len(records[1][0]) == 50


def test_keys_that_take_turns_share_all_the_same() -> None:
    _, groups = join([make_entry("text", key) for key in "abab"], 100)

    assert groups == [[0, 2], [1, 3]]


def test_records_of_one_key_that_are_routed_apart_do_not_overtake_each_other() -> None:
    """Two explicit hash keys may lead to one partition."""
    one, other = ROUTINGS[1:3]
    _, groups = join([make_entry("text", "a", 0, routing) for routing in (one, one, other, one)], 100)

    assert groups == [[0, 1], [2], [3]]


# -- taken apart by the package itself, as `dis-logging tail` does --------------------------------------------------

PIECES = st.sampled_from(
    [b"a", b'"', b"\n", b"\\", b"\r", b"\t", b"{", "é".encode(), "\u2028".encode(), b"\xff", b"\xed\xb3\xbf"]
)
TEXTS = st.lists(st.lists(PIECES, min_size=1, max_size=8).map(b"".join), min_size=1, max_size=8)


@given(TEXTS, st.integers(1, 60))
def test_records_come_apart_as_they_were_joined(texts: list[bytes], max_bytes: int) -> None:
    records, _ = join([(text, *make_entry("")[1:]) for text in texts], max_bytes)

    assert [part for record in records for part in aggregation.split(record[0])] == texts


@pytest.mark.parametrize("line", [b'"not closed', b'"a" b', b'"\xff"', b'"\\ud800"'])
def test_what_only_looks_like_json_stands_for_itself(line: bytes) -> None:
    assert aggregation.split(line) == [line]


# -- end to end -----------------------------------------------------------------------------------------------------


@pytest.fixture
def make(dis: DISEmulator, fallback: RememberingHandler) -> Iterator[Callable[..., DISHandler]]:
    """Returns a function that makes a handler that aggregates; it is closed at the latest after the test."""
    handlers: list[DISHandler] = []

    def make(**options: Any) -> DISHandler:
        fast = {"flush_interval": 60, "backoff_initial": 0.001, "backoff_max": 0.01, "shutdown_timeout": 20}
        handlers.append(
            DISHandler(**{**dis.handler_options(STREAM), **fast, "fallback": fallback, "aggregate": "lines", **options})
        )
        return handlers[-1]

    yield make
    for handler in handlers:
        handler.close()


def log(handler: DISHandler, text: str, name: str = "web", level: int = logging.INFO) -> None:
    handler.handle(logging.LogRecord(name, level, __file__, 1, text, None, None))


def logged(dis: DISEmulator, stream: str = STREAM) -> list[str]:
    """Returns the log records in the stream, in order of arrival, as a consumer gets them."""
    return [text for record in dis.records(stream) for text in split(record.data)]


def assert_counters(handler: DISHandler, *, delivered: int, failed: int) -> None:
    handler.close()
    stats = handler.stats()
    assert (stats.emitted, stats.buffered, stats.dropped) == (delivered + failed, 0, 0)
    assert (stats.delivered, stats.failed) == (delivered, failed)


def test_records_of_a_logger_share_dis_records(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    handler = make(aggregate_bytes=1000)
    lines = [f"{number:099}" for number in range(95)]

    for line in lines:
        log(handler, line)
    assert handler.flush()

    assert [len(split(record.data)) for record in dis.records(STREAM)] == [10] * 9 + [5]
    assert logged(dis) == lines
    assert len(dis.requests) == 1
    assert_counters(handler, delivered=95, failed=0)


def test_without_the_option_every_record_has_its_own(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    handler = make(aggregate=None)

    log(handler, '"one"\ntwo')
    log(handler, "three")
    assert handler.flush()

    assert [record.text for record in dis.records(STREAM)] == ['"one"\ntwo', "three"]


def test_awkward_texts_come_back_as_they_were(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    handler = make()
    lines = ["plain", "two\nlines", '"quoted"', "\n", "\r\n", "trailing\n", "a\u2028b\x85c", "\x00", '"', "世界\n🙂"]

    for line in lines:
        log(handler, line)
    log(handler, "")  # stands for an empty line, with and without aggregation
    assert handler.flush()

    assert logged(dis) == [*lines, "\n"]
    assert dis.record_count(STREAM) == 1


def test_a_refused_dis_record_reports_every_record_in_it(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make()
    bad, good = ["bad 1", "bad\n2", '"bad" 3'], [f"good {number}" for number in range(3)]

    with dis.rule(RefuseEntries("DIS.4302", where=lambda entry: entry.partition_key == "bad")):
        for one, other in zip(bad, good, strict=True):
            log(handler, one, "bad")
            log(handler, other, "good")
        assert handler.flush()

    assert fallback.texts == bad  # the texts themselves, not the lines that stand for them
    assert fallback.codes == ["DIS.4302"] * 3
    assert {vars(record)["dis_attempts"] for record in fallback.records} == {1}
    assert {record.name for record in fallback.records} == {"bad"}
    assert logged(dis) == good
    assert len(dis.requests) == 1
    assert_counters(handler, delivered=3, failed=3)


def test_a_throttled_dis_record_goes_again_whole_and_alone(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make()
    dis.play(RefuseEntries("DIS.4303", where=lambda entry: entry.partition_key == "slow"))

    for number in range(5):
        log(handler, f"slow {number}", "slow")
        log(handler, f"fast {number}", "fast")
    assert handler.flush()

    assert [[split(entry.data) for entry in request.entries] for request in dis.requests] == [
        [[f"slow {number}" for number in range(5)], [f"fast {number}" for number in range(5)]],
        [[f"slow {number}" for number in range(5)]],
    ]
    assert handler.stats().retried == 5
    assert_counters(handler, delivered=10, failed=0)


@pytest.mark.parametrize("refusal", [Refuse(413), Refuse(400, "DIS.4200")], ids=["413", "DIS.4200"])
def test_a_refused_request_is_halved_until_the_offender_stands_alone(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, refusal: Refuse
) -> None:
    handler = make()
    lines = [f"text {number}" for number in range(16)]

    def has_offender(request: Any) -> bool:
        return any("text 11" in split(entry.data) for entry in request.entries)

    with dis.rule(refusal, where=has_offender):
        for line in lines:
            log(handler, line)
        assert handler.flush()

    assert fallback.texts == ["text 11"]
    assert logged(dis) == [line for line in lines if line != "text 11"]
    assert_counters(handler, delivered=15, failed=1)


@pytest.mark.parametrize(
    ("text", "line_bytes"),
    [
        ("x" * MIB, MIB),
        ("\n" + "x" * (MIB - 5), MIB - 1),
        ("\n" + "x" * (MIB - 4), MIB),
        ('"' + "x" * (MIB - 4), MIB),
        ("\n" + "x" * (MIB - 3), MIB + 1),
        ("x" * (MIB + 1), MIB + 1),
        ("\x01\n" * (MIB // 8 - 1), MIB - 6),
        ("\x01\n" * (MIB // 8), MIB + 2),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_the_limit_of_a_dis_record_holds_for_the_line(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, text: str, line_bytes: int
) -> None:
    handler = make()
    assert line_size(text.encode()) == line_bytes

    log(handler, "before")
    log(handler, text)
    log(handler, "after")
    assert handler.flush()

    fits = line_bytes <= MAX_RECORD_BYTES
    assert logged(dis) == (["before", text, "after"] if fits else ["before", "after"])
    assert fallback.codes == ([] if fits else ["too_large"])
    assert fallback.texts == ([] if fits else [text])
    assert not dis.refused
    assert_counters(handler, delivered=2 + fits, failed=1 - fits)


def test_the_fallback_gets_the_text_and_not_the_line(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler
) -> None:
    handler = make()
    lines = ["one\ntwo", '"three"']

    with dis.rule(Refuse(441, "DIS.4107")):
        for line in lines:
            log(handler, line)
        assert handler.flush()

    assert fallback.texts == lines
    assert_counters(handler, delivered=0, failed=2)


_streams = iter(range(10**6))


@given(
    steps=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), awkward, st.booleans()), min_size=1, max_size=30),
    aggregate_bytes=st.integers(1, 60),
    max_batch_records=st.integers(1, 5),
    faults=st.lists(
        st.sampled_from(
            [
                Refuse(503),
                Refuse(429),
                Refuse(413),
                RefuseEntries(where=[0]),
                RefuseEntries(where=[1, 2]),
                RefuseEntries(),
            ]
        ),
        max_size=6,
    ),
)
@settings(
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nothing_is_lost_or_doubled_and_each_key_keeps_its_order_whatever_happens(
    dis: DISEmulator,
    steps: list[tuple[str, str, bool]],
    aggregate_bytes: int,
    max_batch_records: int,
    faults: list[Any],
) -> None:
    stream = f"mix-{next(_streams)}"
    dis.create_stream(stream, 2)
    fallback = RememberingHandler()
    handler = DISHandler(
        **dis.handler_options(stream),
        flush_interval=60,
        backoff_initial=0.001,
        backoff_max=0.002,
        aggregate="lines",
        aggregate_bytes=aggregate_bytes,
        max_batch_records=max_batch_records,
        fallback=fallback,
    )
    emitted: defaultdict[str | None, list[str]] = defaultdict(list)
    dis.play(*faults)
    for number, (name, text, pause) in enumerate(steps):
        emitted[name].append(f"{text}{number}")
        log(handler, emitted[name][-1], name)
        if pause:
            handler.flush(0.001)
    assert handler.flush(20)
    while dis.unplayed:  # what is left would hit the next example
        emitted["rest"].append(f"rest {len(emitted['rest'])}")
        log(handler, emitted["rest"][-1], "rest")
        assert handler.flush(20)
    handler.close()

    stored: defaultdict[str | None, list[str]] = defaultdict(list)
    for record in dis.records(stream):
        stored[record.partition_key] += split(record.data)
    refused = Counter(fallback.texts)  # what met a 413 alone
    assert set(fallback.codes) <= {"http_413"}
    for key, lines in emitted.items():
        assert Counter(stored[key]) + Counter(text for text in refused.elements() if text in lines) == Counter(lines)
    assert_in_order(dis.records(stream), emitted, several=any(isinstance(fault, RefuseEntries) for fault in faults))
    stats = handler.stats()
    assert (stats.delivered, stats.failed) == (sum(map(len, stored.values())), len(fallback.records))


def assert_in_order(records: tuple[StoredRecord, ...], emitted: dict[str | None, list[str]], *, several: bool) -> None:
    """The log records of each DIS record are in order, and so are the DIS records of a key, unless some went again alone."""
    latest: dict[str | None, int] = {}
    for record in records:
        places = [emitted[record.partition_key].index(text) for text in split(record.data)]
        assert places == sorted(places)
        if not several:
            assert places[0] > latest.get(record.partition_key, -1)
            latest[record.partition_key] = places[-1]
