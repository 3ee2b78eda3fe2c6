"""
The wire format: against Huawei's own hashes and documented bodies, and against whatever a broken service may send.

That the client and the emulator agree proves nothing about DIS, so the expected bytes are literals.
"""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dis_logging.client import wire
from dis_logging.client.models import PutRecordsRequestEntry, PutRecordsResult, PutRecordsResultEntry
from dis_logging.errors import ProtocolError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "partition_hash.json").read_text("utf-8"))

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ENTRIES = st.builds(
    PutRecordsRequestEntry,
    data=st.binary(min_size=1, max_size=50),
    partition_key=st.none() | TEXTS.filter(bool),
    explicit_hash_key=st.none() | st.integers(0, wire.MAX_HASH_KEY).map(str),
    partition_id=st.none() | st.integers(0, 99).map(wire.partition_id),
    timestamp=st.none() | st.integers(0, 2**53),
)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
RESULTS = st.builds(PutRecordsResultEntry, partition_id=PRINTABLE, sequence_number=PRINTABLE) | st.builds(
    PutRecordsResultEntry, error_code=PRINTABLE, error_message=PRINTABLE
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
# Mostly what an answer looks like, with anything at all where a string belongs, or nothing.
RESULT_OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        name: st.text(max_size=5) | JSON for name in ("partition_id", "sequence_number", "error_code", "error_message")
    },
)
ANSWERS = JSON | st.fixed_dictionaries(
    {"records": st.lists(RESULT_OBJECTS | JSON, max_size=4) | JSON}, optional={"failed_record_count": JSON}
)


def answer(*records: object, **more: object) -> bytes:
    return json.dumps({"records": records, **more}).encode()


STORED = {"partition_id": "shardId-0000000000", "sequence_number": "76"}
REFUSED = {"error_code": "DIS.4303", "error_message": "Exceeded traffic control limit."}


# -- requests -------------------------------------------------------------------------------------------------------


def test_request_says_what_the_documented_example_says() -> None:
    entry = PutRecordsRequestEntry(b"hello world", "web-1")

    body = wire.encode_put_records("dis-demo", [wire.wire_entry(entry)])

    assert json.loads(body) == {
        "stream_name": "dis-demo",
        "records": [{"data": "aGVsbG8gd29ybGQ=", "partition_key": "web-1"}],
    }


def test_request_has_only_the_fields_that_are_set() -> None:
    entries = [PutRecordsRequestEntry("ü", "", "", ""), PutRecordsRequestEntry(b"\xff", "k", "7", "0", 1)]

    body = wire.encode_put_records("s", [*map(wire.wire_entry, entries)], "stream-1")

    assert json.loads(body) == {
        "stream_name": "s",
        "stream_id": "stream-1",
        "records": [
            {"data": "w7w="},
            {"data": "/w==", "partition_key": "k", "explicit_hash_key": "7", "partition_id": "0", "timestamp": 1},
        ],
    }


def test_lone_surrogates_in_a_key_are_escaped_as_in_the_data() -> None:
    body = wire.encode_put_records("s", [(b"x", "a\ud800", None)])

    assert json.loads(body)["records"][0]["partition_key"] == "a\\ud800"


@given(st.lists(ENTRIES, min_size=1, max_size=8), st.sampled_from(["", "id-1"]))
def test_decoding_an_encoded_request_gives_it_back(entries: list[PutRecordsRequestEntry], stream_id: str) -> None:
    decoded = wire.decode_put_records(wire.encode_put_records("app-logs", [*map(wire.wire_entry, entries)], stream_id))

    assert decoded == ("app-logs", stream_id, tuple(entries))


@given(st.lists(ENTRIES, max_size=8))
def test_the_estimated_size_is_never_too_small(entries: list[PutRecordsRequestEntry]) -> None:
    encodable = [wire.wire_entry(entry) for entry in entries]

    body = wire.encode_put_records("", encodable)

    estimate = sum(
        len(data) * 4 // 3 + wire.KEY_CHARACTER_BYTES * len(key) + wire.ENTRY_MARGIN for data, key, *_ in encodable
    )
    assert len(body) <= estimate + len(wire.encode_put_records("", []))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "DIS.4300"),
        (b"{", "DIS.4300"),
        (b"[]", "DIS.4300"),
        (b"\xff\xfe", "DIS.4300"),
        (b"[" * 100_000, "DIS.4300"),
        (b"{}", "DIS.4202"),
        (b'{"records": []}', "DIS.4202"),
        (b'{"records": {}}', "DIS.4300"),
        (b'{"records": [1]}', "DIS.4300"),
        (b'{"records": [{"data": 1}]}', "DIS.4300"),
        (b'{"records": [{"data": "not base64!"}]}', "DIS.4300"),
        (b'{"records": [{"data": "eA==", "partition_key": 1}]}', "DIS.4300"),
        (b'{"stream_name": 1, "records": [{"data": "eA=="}]}', "DIS.4300"),
    ],
)
def test_malformed_requests_are_refused_with_their_code(body: bytes, code: str) -> None:
    with pytest.raises(wire.MalformedRequestError) as raised:
        wire.decode_put_records(body)

    assert raised.value.code == code


# -- results --------------------------------------------------------------------------------------------------------


def test_results_keep_the_order_of_the_request() -> None:
    result = wire.decode_put_records_result(answer(STORED, REFUSED), 2)

    assert result.records == (
        PutRecordsResultEntry("shardId-0000000000", "76"),
        PutRecordsResultEntry(error_code="DIS.4303", error_message="Exceeded traffic control limit."),
    )


@pytest.mark.parametrize("claimed", [0, 7, -1, "1", None, [], 10**30])
def test_failures_are_counted_here_whatever_the_answer_claims(claimed: object) -> None:
    body = answer(STORED, REFUSED, failed_record_count=claimed)

    assert wire.decode_put_records_result(body, 2).failed_record_count == 1
    assert wire.decode_refusals(body, 2).keys() == {1}


def test_null_and_empty_error_fields_mean_stored() -> None:
    body = answer(
        {**STORED, "error_code": None, "error_message": None},
        {**STORED, "error_code": "", "error_message": ""},
        {**STORED, "something": ["new"]},
        {"sequence_number": 5},
        {"partition_id": "shardId-0000000000"},
    )

    assert wire.decode_refusals(body, 5) == {}
    assert wire.decode_put_records_result(body, 5).records[3].sequence_number == "5"


def test_an_entry_with_both_a_number_and_an_error_was_refused() -> None:
    body = answer({**STORED, **REFUSED})

    assert wire.decode_put_records_result(body, 1).failed_record_count == 1
    assert wire.decode_refusals(body, 1)[0].error_code == "DIS.4303"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(answer(STORED)[:-1], id="truncated"),
        pytest.param(answer(STORED) + b"}", id="trailing"),
        pytest.param(b'{"records": "\xff"}', id="no UTF-8"),
        pytest.param(b"[" * 100_000, id="nested lists"),
        pytest.param(b'{"records":' * 100_000, id="nested objects"),
        pytest.param(b'{"records": [' + b"9" * 100_000 + b"]}", id="endless number"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no list of records"),
        pytest.param(b'{"records": {}}', id="records is an object"),
        pytest.param(b'{"records": "ab"}', id="records is a string"),
        pytest.param(answer(), id="too short"),
        pytest.param(answer(STORED, STORED), id="too long"),
        pytest.param(answer(None), id="null result"),
        pytest.param(answer("ok"), id="result is a string"),
        pytest.param(answer({}), id="says nothing"),
        pytest.param(answer({"sequence_number": "", "partition_id": None}), id="says nothing in many words"),
        pytest.param(answer({"error_message": "odd"}), id="a message without a code"),
        pytest.param(answer({**STORED, "error_code": 4303}), id="code is a number"),
        pytest.param(answer({**STORED, "error_code": False}), id="code is a boolean"),
        pytest.param(answer({**STORED, "error_message": []}), id="message is a list"),
        pytest.param(answer({**STORED, "partition_id": 1}), id="partition is a number"),
        pytest.param(answer({**STORED, "sequence_number": {}}), id="number is an object"),
        pytest.param(answer({**STORED, "sequence_number": True}), id="number is a boolean"),
    ],
)
def test_an_answer_that_makes_no_sense_acknowledges_nothing(body: bytes) -> None:
    with pytest.raises(ProtocolError) as raised:
        wire.decode_refusals(body, 1)
    with pytest.raises(ProtocolError):
        wire.decode_put_records_result(body, 1)

    assert raised.value.status == 200


@st.composite
def bodies_of_stored(draw: st.DrawFn) -> tuple[bytes, int]:
    """Bodies of answers without a refusal as JSON libraries write them, and the number of their results."""
    prefix = draw(st.sampled_from(["shardId-000000000", "", "a1-"]))
    results = draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**9)), min_size=1, max_size=5))
    records = [{"partition_id": f"{prefix}{at}", "sequence_number": f"{number}"} for at, number in results]
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (",", ": ")]))
    body = json.dumps({"failed_record_count": 0, "records": records}, separators=separators).encode()
    return body + draw(st.sampled_from([b"", b"\n"])), len(results)


@given(bodies_of_stored(), st.data())
def test_an_answer_that_is_damaged_anywhere_is_read_as_json_reads_it(
    body_and_count: tuple[bytes, int], data: st.DataObject
) -> None:
    body, count = body_and_count
    assert wire.decode_refusals(body, count) == {}

    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 25)))
    body = body[:start] + data.draw(st.sampled_from([b"", b"5", b'"', b'"}', b"-", b" "])) + body[end:]
    for expected in range(count + 2):
        try:
            refused = wire.decode_refusals(body, expected)
        except ProtocolError:
            with pytest.raises(ProtocolError):
                wire.decode_put_records_result(body, expected)
        else:
            assert wire.decode_put_records_result(body, expected).failed_record_count == len(refused)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"sequence_number": "77"', b'"sequence_number": 5"77"'),
        (b'"77"}', b'"77"5}'),
        (b', {"part', b', 5{"part'),
        (b"]}", b"5]}"),
        (b'76"}', b'76"5}'),
        (b', "seq', b'5, "seq'),
    ],
)
def test_what_is_no_json_acknowledges_nothing_however_little_is_wrong(before: bytes, after: bytes) -> None:
    body = json.dumps({"failed_record_count": 0, "records": [STORED, {**STORED, "sequence_number": "77"}]}).encode()
    assert before in body
    assert wire.decode_refusals(body, 2) == {}

    with pytest.raises(ProtocolError):
        wire.decode_refusals(body.replace(before, after), 2)


def test_a_result_of_digits_only_that_says_nothing_acknowledges_nothing() -> None:
    records = [{"partition_id": "0", "sequence_number": "76"}, {"partition_id": "", "sequence_number": ""}]
    body = json.dumps({"failed_record_count": 0, "records": records}).encode()

    with pytest.raises(ProtocolError):
        wire.decode_refusals(body, 2)


def test_texts_of_a_result_are_cleaned_and_bounded() -> None:
    body = answer({"error_code": "DIS.4303\x1b[2J", "error_message": "a\nb\u202e" + "x" * 10_000})

    (entry,) = wire.decode_put_records_result(body, 1).records

    assert entry.error_code == "DIS.4303\\x1b[2J"
    assert entry.error_message.startswith("a\\nb\\u202exxx")
    assert len(entry.error_message) < 400


@given(st.lists(RESULTS, max_size=8))
def test_decoding_an_encoded_result_gives_it_back(entries: list[PutRecordsResultEntry]) -> None:
    result = PutRecordsResult(sum(1 for entry in entries if entry.error_code), tuple(entries))

    body = wire.encode_put_records_result(result)

    assert wire.decode_put_records_result(body, len(entries)) == result
    assert wire.decode_refusals(body, len(entries)) == {
        index: entry for index, entry in enumerate(entries) if entry.error_code
    }


@given(st.binary(max_size=200), st.integers(0, 4))
def test_random_bytes_raise_nothing_but_a_protocol_error(body: bytes, expected: int) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_refusals(body, expected)


@given(ANSWERS, st.integers(0, 4))
def test_no_entry_is_acknowledged_that_has_an_error_or_says_nothing(document: Any, expected: int) -> None:
    body = json.dumps(document).encode()
    try:
        failures = wire.decode_refusals(body, expected)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            wire.decode_put_records_result(body, expected)
        return

    result = wire.decode_put_records_result(body, expected)
    assert len(document["records"]) == expected
    assert {index for index, entry in enumerate(result.records) if entry.error_code} == failures.keys()
    assert result.failed_record_count == len(failures)
    for index, entry in enumerate(document["records"]):
        has_error = bool(entry.get("error_code"))
        says_where = bool(
            entry.get("sequence_number") or entry.get("partition_id") or entry.get("sequence_number") == 0
        )
        assert has_error == (index in failures)
        assert has_error or says_where


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "message", "request_id"),
    [
        ({"errorCode": "DIS.4301", "message": "gone"}, "DIS.4301", "gone", ""),
        ({"error_code": "APIGW.0301", "error_msg": "no", "request_id": "r1"}, "APIGW.0301", "no", "r1"),
        ({"errorCode": "DIS.4100", "errorMsg": "no", "RequestId": "r2", "HostId": "h"}, "DIS.4100", "no", "r2"),
        ({"code": "IAM.1", "message": "no", "requestId": "r3"}, "IAM.1", "no", "r3"),
        ({"error": {"code": 401, "message": "no", "title": "Unauthorized"}}, "401", "no", ""),
        ({"a": {"b": {"error_code": "DIS.1", "errorMessage": "deep"}}}, "DIS.1", "deep", ""),
        ({"error_code": "DIS.2", "error_message": "no", "encoded_authorization_message": "x"}, "DIS.2", "no", ""),
        ({"errorCode": None, "error_code": "", "code": "DIS.3"}, "DIS.3", "", ""),
        ({"errorCode": ["DIS.4301"], "message": {"text": "x"}}, "", "", ""),
        ({}, "", "", ""),
    ],
)
def test_every_known_form_of_an_error_body_is_read(
    body: dict[str, Any], code: str, message: str, request_id: str
) -> None:
    error = wire.decode_error(400, json.dumps(body).encode())

    assert (error.status, error.code, error.message, error.request_id) == (400, code, message, request_id)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", ""),
        (b"  no healthy upstream\n", "no healthy upstream"),
        (b"<html>\r\n<b>502</b>", "<html>\\r\\n<b>502</b>"),
        (b"\xff\x00", "\ufffd\\x00"),
        (b'["DIS.4301"]', '["DIS.4301"]'),
    ],
)
def test_an_error_body_that_is_no_object_is_shown_as_text(body: bytes, message: str) -> None:
    error = wire.decode_error(502, body)

    assert (error.code, error.message) == ("", message)


def test_the_request_id_of_the_header_wins() -> None:
    error = wire.decode_error(400, b'{"errorCode": "DIS.4300", "request_id": "of the body"}', "of the header", 3.0)

    assert (error.request_id, error.retry_after) == ("of the header", 3.0)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_error_body_gives_short_texts_on_one_line(body: bytes) -> None:
    error = wire.decode_error(500, body, "id\n")

    for text in (error.code, error.message, error.request_id, str(error)):
        assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)
    assert len(error.message) <= 300 * len("\\u2028")


def test_an_error_body_longer_than_any_screen_is_cut() -> None:
    error = wire.decode_error(500, b"x" * 1_000_000)

    assert len(error.message) == 300


@pytest.mark.parametrize("gateway", [False, True])
def test_the_emulators_error_bodies_are_read_back(gateway: bool) -> None:
    body = wire.encode_error("DIS.4301", "gone", gateway=gateway)

    error = wire.decode_error(400, body)

    assert (error.code, error.message) == ("DIS.4301", "gone")


# -- partitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["partition_keys"], ids=lambda vector: ascii(vector["partition_key"])[:30])
def test_partition_keys_hash_as_in_the_java_sdk(vector: dict[str, Any]) -> None:
    hashed = wire.hash_partition_key(vector["partition_key"])

    assert str(hashed) == vector["hash"]
    for count, index in vector["partition_index"].items():
        assert wire.partition_index(hashed, int(count)) == index


@pytest.mark.parametrize("vector", VECTORS["explicit_hash_keys"], ids=lambda vector: vector["explicit_hash_key"])
def test_explicit_hash_keys_pick_the_clamped_partition_of_the_java_sdk(vector: dict[str, Any]) -> None:
    for count, index in vector["partition_index_clamped"].items():
        assert wire.partition_index(int(vector["hash"]), int(count)) == index


@given(st.integers(0, wire.MAX_HASH_KEY), st.integers(1, 1000))
def test_every_hash_falls_into_a_partition_that_exists(hash_key: int, partitions: int) -> None:
    assert 0 <= wire.partition_index(hash_key, partitions) < partitions


@pytest.mark.parametrize("vector", VECTORS["shard_id_parsing"], ids=lambda vector: vector["in"])
def test_partition_ids_of_both_forms_are_read(vector: dict[str, Any]) -> None:
    assert wire.partition_number(vector["in"]) == vector["out"]


@given(st.integers(0, 10**10 - 1))
def test_a_partition_number_survives_its_id(number: int) -> None:
    assert wire.partition_number(wire.partition_id(number)) == number


@pytest.mark.parametrize("identifier", ["", "shardId-", "shardId--1", "-1", "1.0", "0x1", "1\n", "shardid-0", "٣"])
def test_what_is_no_partition_id_has_no_number(identifier: str) -> None:
    assert wire.partition_number(identifier) is None
