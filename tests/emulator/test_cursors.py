"""Cursors and get-records over the wire: where reading begins, how it goes on, what is refused."""

import base64
import json
from collections.abc import Callable

import pytest

from dis_logging.client import protobuf
from dis_logging.emulator.cursors import Cursor
from tests.emulator.service import NOW_MS, PROJECT, Service


def read_all(service: Service, cursor: str, **query: object) -> list[str]:
    """Reads on until nothing comes any more."""
    found: list[str] = []
    while True:
        texts, cursor = service.read(cursor, **query)
        if not texts:
            return found
        found += texts


# -- where reading begins -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "texts"),
    [
        ({"cursor_type": "TRIM_HORIZON"}, ["a", "b", "c"]),
        ({"cursor_type": "LATEST"}, []),
        ({"cursor_type": "AT_SEQUENCE_NUMBER", "starting_sequence_number": "1"}, ["b", "c"]),
        ({"cursor_type": "AT_SEQUENCE_NUMBER", "starting_sequence_number": "3"}, []),
        ({"starting_sequence_number": "2"}, ["c"]),
        ({"cursor_type": "AFTER_SEQUENCE_NUMBER", "starting_sequence_number": "0"}, ["b", "c"]),
        ({"cursor_type": "AFTER_SEQUENCE_NUMBER", "starting_sequence_number": "2"}, []),
        ({"cursor_type": "AT_TIMESTAMP", "timestamp": NOW_MS}, ["a", "b", "c"]),
        ({"cursor_type": "AT_TIMESTAMP", "timestamp": NOW_MS + 1}, ["b", "c"]),
        ({"cursor_type": "AT_TIMESTAMP", "timestamp": NOW_MS + 1000}, ["b", "c"]),
        ({"cursor_type": "AT_TIMESTAMP", "timestamp": NOW_MS + 2001}, []),
    ],
)
def test_reading_begins_where_the_cursor_says(service: Service, query: dict[str, object], texts: list[str]) -> None:
    for text in "abc":
        service.upload(text)
        service.wait(1)

    assert read_all(service, service.cursor(**query)) == texts


def test_cursor_at_the_latest_sees_what_comes_later(service: Service) -> None:
    service.upload("before")
    cursor = service.cursor(cursor_type="LATEST")

    service.upload("after")

    assert read_all(service, cursor) == ["after"]


def test_empty_partition_may_be_read_from_the_number_of_its_first_record(service: Service) -> None:
    cursor = service.cursor(starting_sequence_number="0")

    service.upload("a")

    assert read_all(service, cursor) == ["a"]


@pytest.mark.parametrize("identifier", ["2", "shardId-0000000002"])
def test_partition_may_be_named_in_both_forms(service: Service, identifier: str) -> None:
    service.upload("a", stream="app-logs", partition="2")

    cursor = service.cursor(stream_name="app-logs", partition_id=identifier, cursor_type="TRIM_HORIZON")

    assert read_all(service, cursor) == ["a"]


def test_stream_may_be_named_by_its_id(service: Service) -> None:
    service.upload("a")
    stream_id = service.store.describe("other").stream_id

    cursor = service.cursor(stream_name=None, stream_id=stream_id, cursor_type="TRIM_HORIZON")

    assert read_all(service, cursor) == ["a"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"cursor_type": "FIRST"}, "DIS.4215"),
        ({"cursor_type": "AT_SEQUENCE_NUMBER"}, "DIS.4216"),
        ({}, "DIS.4216"),
        ({"starting_sequence_number": "one"}, "DIS.4216"),
        ({"starting_sequence_number": "-1"}, "DIS.4216"),
        ({"starting_sequence_number": "9223372036854775808"}, "DIS.4216"),
        ({"starting_sequence_number": "3"}, "DIS.4224"),
        ({"starting_sequence_number": "9223372036854775807"}, "DIS.4224"),
        ({"cursor_type": "AFTER_SEQUENCE_NUMBER", "starting_sequence_number": "2"}, "DIS.4224"),
        ({"cursor_type": "AT_TIMESTAMP"}, "DIS.4300"),
        ({"cursor_type": "AT_TIMESTAMP", "timestamp": "now"}, "DIS.4300"),
        ({"stream_name": "nope", "cursor_type": "LATEST"}, "DIS.4301"),
        ({"stream_name": None, "stream_id": "nope", "cursor_type": "LATEST"}, "DIS.4301"),
        ({"stream_name": None, "cursor_type": "LATEST"}, "DIS.4301"),
        ({"partition_id": "1", "cursor_type": "LATEST"}, "DIS.4302"),
        ({"partition_id": "9999999999", "cursor_type": "LATEST"}, "DIS.4302"),
        ({"partition_id": "first", "cursor_type": "LATEST"}, "DIS.4201"),
        ({"partition_id": None, "cursor_type": "LATEST"}, "DIS.4201"),
    ],
)
def test_impossible_cursor_is_refused(service: Service, query: dict[str, object], code: str) -> None:
    service.upload("a", "b")

    assert service.cursor_refusal(**query)[0] == code


def test_refused_number_is_told_its_bounds_as_the_java_sdk_reads_them(service: Service) -> None:
    """DISSequenceNumberOutOfRangeException takes the three numbers from this very text."""
    service.upload("a", "b")

    _, message = service.cursor_refusal(starting_sequence_number="7")

    assert message == "Sequence_number out of range. [7][ should be within ][0][ ][2]"


@pytest.mark.parametrize(("age_ms", "expired"), [(24 * 3_600_000, True), (24 * 3_600_000 - 1, False)])
def test_timestamp_beyond_the_retention_period_is_expired(service: Service, age_ms: int, expired: bool) -> None:
    """DISTimestampOutOfRangeException takes the number from this very text."""
    query = {"cursor_type": "AT_TIMESTAMP", "timestamp": NOW_MS - age_ms}

    if not expired:
        assert service.cursor(**query)
        return
    assert service.cursor_refusal(**query) == (
        "DIS.4300",
        f"Request error. [timestamp is expired, timestamp should be larger than {NOW_MS - age_ms}]",
    )


# -- reading --------------------------------------------------------------------------------------------------------


def test_records_come_with_the_fields_of_the_api_reference(service: Service) -> None:
    service.upload("a", partition_key="web-1", timestamp=7)
    service.upload("b")

    _, answer = service.call("GET", "records", **{"partition-cursor": service.cursor(cursor_type="TRIM_HORIZON")})

    assert set(answer) == {"records", "next_partition_cursor"}
    assert answer["records"] == [
        {
            "partition_key": "web-1",
            "sequence_number": "0",
            "data": "YQ==",
            "timestamp": 7,
            "timestamp_type": "CreateTime",
        },
        {"sequence_number": "1", "data": "Yg==", "timestamp": NOW_MS, "timestamp_type": "CreateTime"},
    ]


def test_records_are_read_in_protobuf_by_who_asks_for_it(service: Service) -> None:
    service.upload("a", partition_key="web-1", timestamp=7)
    service.upload("b")
    cursor = service.cursor(cursor_type="TRIM_HORIZON")

    response = service.ask(
        "GET",
        f"/v2/{PROJECT}/records?partition-cursor={cursor}",
        headers={"content-type": "application/x-protobuf; charset=utf-8"},
    )

    result = protobuf.GetRecordsResultMessage.FromString(response.body)
    assert response.headers["Content-Type"] == "application/x-protobuf"
    assert [
        (each.partitionKey, each.sequenceNumber, each.data, each.timestamp, each.timestampType)
        for each in result.records
    ] == [("web-1", "0", b"a", 7, "CreateTime"), ("", "1", b"b", NOW_MS, "CreateTime")]
    assert not result.records[1].HasField("partitionKey")
    service.upload("c")
    assert service.read(result.nextShardIterator)[0] == ["c"]


def test_reading_goes_on_with_the_next_cursor(service: Service) -> None:
    service.upload(*"abcdefg")

    first, cursor = service.read(service.cursor(cursor_type="TRIM_HORIZON"), limit=3)
    second, cursor = service.read(cursor, limit=3)
    third, cursor = service.read(cursor, limit=3)

    assert [first, second, third] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert service.read(cursor)[0] == []


def test_same_cursor_may_be_read_twice(service: Service) -> None:
    service.upload("a", "b")
    cursor = service.cursor(cursor_type="TRIM_HORIZON")

    assert service.read(cursor)[0] == service.read(cursor)[0] == ["a", "b"]


@pytest.mark.parametrize(("max_bytes", "texts"), [(1, []), (2, ["aa"]), (5, ["aa", "bbb"]), (6, ["aa", "bbb"])])
def test_answer_holds_no_more_bytes_than_wanted(service: Service, max_bytes: int, texts: list[str]) -> None:
    """The API reference: smaller than the next record means that nothing is ever returned."""
    service.upload("aa", "bbb", "cccc")

    assert service.read(service.cursor(cursor_type="TRIM_HORIZON"), max_fetch_bytes=max_bytes)[0] == texts


def test_answer_has_1000_records_unless_told_otherwise(service: Service) -> None:
    service.upload(*["x"] * 1001)
    cursor = service.cursor(cursor_type="TRIM_HORIZON")

    assert len(service.read(cursor)[0]) == 1000
    assert len(service.read(cursor, limit=10_000)[0]) == 1001


@pytest.mark.parametrize(("wanted", "received"), [(None, 2), (2**40, 10)])
def test_answer_is_never_larger_than_reason(service: Service, wanted: int | None, received: int) -> None:
    for _ in range(4):
        service.upload(*["x" * 2**20] * 3)

    query = {} if wanted is None else {"max_fetch_bytes": wanted}

    assert len(service.read(service.cursor(cursor_type="TRIM_HORIZON"), **query)[0]) == received


def test_name_of_the_app_is_tolerated(service: Service) -> None:
    """The Java SDK sends it."""
    service.upload("a")

    assert service.read(service.cursor(cursor_type="TRIM_HORIZON"), app_name="reader")[0] == ["a"]


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 10_001}, {"limit": "all"}, {"max_fetch_bytes": 0}, {"max_fetch_bytes": "1MB"}]
)
def test_impossible_amount_is_refused(service: Service, query: dict[str, object]) -> None:
    cursor = service.cursor(cursor_type="LATEST")

    assert service.code("GET", "records", **{"partition-cursor": cursor, **query}) == "DIS.4200"


# -- the life of a cursor -------------------------------------------------------------------------------------------


def test_cursor_lives_for_five_minutes(service: Service) -> None:
    cursor = service.cursor(cursor_type="LATEST")

    service.wait(300)
    alive = service.code("GET", "records", **{"partition-cursor": cursor})
    service.wait(0.001)
    dead = service.code("GET", "records", **{"partition-cursor": cursor})

    assert (alive, dead) == ("", "DIS.4225")


def test_each_read_gives_a_cursor_that_lives_anew(service: Service) -> None:
    _, cursor = service.read(service.cursor(cursor_type="LATEST"))

    for _ in range(3):
        service.wait(299)
        _, cursor = service.read(cursor)


def test_cursor_is_as_short_as_dis_promises(service: Service) -> None:
    service.store.create_stream("x" * 64, 1000, NOW_MS)

    cursor = service.cursor(stream_name="x" * 64, partition_id="999", cursor_type="LATEST")

    assert 1 <= len(cursor) <= 512
    assert cursor.isascii()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "AAAA",
        "ÄÖÜ",
        base64.b64encode(b"[]").decode(),
        base64.b64encode(b"null").decode(),
        base64.b64encode(b"[" * 300).decode(),
        base64.b64encode(b'{"stream_id":"s"}').decode(),
        base64.b64encode(json.dumps({"stream_id": 1, "partition": 0, "number": 0, "issued": 0}).encode()).decode(),
        base64.b64encode(json.dumps({"stream_id": "s", "partition": -1, "number": 0, "issued": 0}).encode()).decode(),
        base64.b64encode(json.dumps({"stream_id": "s", "partition": 0, "number": 0.5, "issued": 0}).encode()).decode(),
        base64.b64encode(
            json.dumps({"stream_id": "s" * 400, "partition": 0, "number": 0, "issued": 0}).encode()
        ).decode(),
    ],
)
def test_what_is_no_cursor_is_refused(service: Service, cursor: str) -> None:
    assert service.code("GET", "records", **{"partition-cursor": cursor}) == "DIS.4217"


@pytest.mark.parametrize(
    "mangle", [lambda text: text[:8] + " " + text[8:], lambda text: text[:-1], lambda text: text + "!"]
)
def test_cursor_that_was_changed_on_the_way_is_refused(service: Service, mangle: Callable[[str], str]) -> None:
    """So that clients which do not encode it in a query find out."""
    cursor = mangle(service.cursor(cursor_type="LATEST"))

    assert service.code("GET", "records", **{"partition-cursor": cursor}) == "DIS.4217"


def test_missing_cursor_is_refused(service: Service) -> None:
    assert service.code("GET", "records") == "DIS.4217"


def test_cursor_of_a_deleted_stream_is_refused(service: Service) -> None:
    """Also when there is a stream of that name again."""
    cursor = service.cursor(cursor_type="LATEST")

    service.store.delete_stream("other")
    service.store.create_stream("other", 1, NOW_MS)

    assert service.code("GET", "records", **{"partition-cursor": cursor}) == "DIS.4301"


# -- retention ------------------------------------------------------------------------------------------------------


def test_reading_from_the_oldest_begins_with_the_oldest_that_is_left() -> None:
    service = Service(retention=2)
    service.upload("a", "b", "c")

    assert read_all(service, service.cursor(cursor_type="TRIM_HORIZON")) == ["b", "c"]


def test_number_of_an_expired_record_is_refused() -> None:
    service = Service(retention=2)
    service.upload("a", "b", "c")

    assert service.cursor_refusal(starting_sequence_number="0") == (
        "DIS.4224",
        "Sequence_number out of range. [0][ should be within ][1][ ][3]",
    )
    assert read_all(service, service.cursor(starting_sequence_number="1")) == ["b", "c"]


def test_cursor_whose_record_expires_is_refused() -> None:
    service = Service(retention=2)
    cursor = service.cursor(cursor_type="LATEST")

    service.upload("a", "b")
    still_there = service.read(cursor)[0]
    service.upload("c")

    assert still_there == ["a", "b"]
    assert service.code("GET", "records", **{"partition-cursor": cursor}) == "DIS.4226"


def test_cursor_beyond_the_next_record_is_refused(service: Service) -> None:
    """None is ever issued."""
    cursor = Cursor(service.store.describe("other").stream_id, 0, 10**30, NOW_MS).encode()

    assert service.code("GET", "records", **{"partition-cursor": cursor}) == "DIS.4226"


def test_timestamp_of_an_expired_record_is_refused() -> None:
    service = Service(retention=2)
    for text in "abc":
        service.upload(text)
        service.wait(1)

    code, message = service.cursor_refusal(cursor_type="AT_TIMESTAMP", timestamp=NOW_MS + 999)

    assert code == "DIS.4300"
    assert f"should be larger than {NOW_MS + 999}" in message
    assert read_all(service, service.cursor(cursor_type="AT_TIMESTAMP", timestamp=NOW_MS + 1000)) == ["b", "c"]


def test_description_tells_which_numbers_are_left() -> None:
    service = Service(retention=2)
    service.upload("a", "b", "c")

    _, described = service.call("GET", "streams/other")

    assert described["partitions"][0]["sequence_number_range"] == "[1 : 3]"
