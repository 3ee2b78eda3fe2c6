"""The bytes are compared with what Huawei's own SDK produced (`tests/data/protobuf.json`)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dis_logging import ProtocolError, PutRecordsRequestEntry, PutRecordsResult, PutRecordsResultEntry
from dis_logging.client import protobuf, wire

VECTORS: dict[str, dict[str, Any]] = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parent.parent / "data" / "protobuf.json").read_text("utf-8"))["messages"]
}
CLASSES = {
    "PutRecordsRequest": protobuf.PutRecordsRequestMessage,
    "PutRecordsResult": protobuf.PutRecordsResultMessage,
    "GetRecordsResult": protobuf.GetRecordsResultMessage,
}
BY_NAME = (
    PutRecordsRequestEntry(b"hello", partition_key="web-1"),
    PutRecordsRequestEntry(b"\x00\xff", partition_id="shardId-0000000000"),
)
BY_ID = (PutRecordsRequestEntry("日志".encode(), "k", "4611686018427387904", timestamp=1704164645000),)
SUCCESS = PutRecordsResult(0, (PutRecordsResultEntry("shardId-0000000000", "76"),))
PARTIAL_FAILURE = PutRecordsResult(
    1,
    (
        PutRecordsResultEntry("shardId-0000000000", "77"),
        PutRecordsResultEntry(error_code="DIS.4303", error_message="Exceeded traffic control limit."),
    ),
)

key = st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
entry = st.builds(
    PutRecordsRequestEntry,
    data=st.binary(),
    partition_key=key,
    explicit_hash_key=key,
    partition_id=key,
    timestamp=st.none() | st.integers(-(2**63), 2**63 - 1),
)
word = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
result_entry = st.builds(PutRecordsResultEntry, word, word) | st.builds(
    PutRecordsResultEntry, error_code=word, error_message=word
)


def body_of(name: str) -> bytes:
    return bytes.fromhex(VECTORS[name]["hex"])


def build(message: Any, value: dict[str, Any]) -> Any:
    """Sets the fields of *message* to what a vector says."""
    for name, field in value.items():
        if name == "records":
            for record in field:
                build(message.records.add(), record)
        elif name.endswith("_hex"):
            setattr(message, name.removesuffix("_hex"), bytes.fromhex(field))
        else:
            setattr(message, name, field)
    return message


@pytest.mark.parametrize("name", VECTORS)
def test_every_message_of_the_sdk_is_made_byte_for_byte_and_read_back(name: str) -> None:
    vector = VECTORS[name]
    message_class = CLASSES[vector["type"]]

    message = build(message_class(), vector["value"])

    assert message.SerializeToString() == body_of(name)
    assert message_class.FromString(body_of(name)) == message


def test_a_request_is_encoded_as_the_java_sdk_does() -> None:
    body = protobuf.encode_put_records("dis-demo", [*map(wire.wire_entry, BY_NAME)])

    assert body == body_of("put-records-request-without-stream-id")


def test_a_request_with_all_fields_is_encoded_as_the_sdk_does() -> None:
    body = protobuf.encode_put_records("", [*map(wire.wire_entry, BY_ID)], "8QM3Nt9YTLOwtUVYJhO")

    assert body == body_of("put-records-request-by-stream-id-all-fields")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("put-records-request-by-stream-name", ("dis-demo", "", BY_NAME)),
        ("put-records-request-without-stream-id", ("dis-demo", "", BY_NAME)),
        ("put-records-request-by-stream-id-all-fields", ("", "8QM3Nt9YTLOwtUVYJhO", BY_ID)),
    ],
)
def test_a_request_of_the_sdk_is_decoded(name: str, expected: tuple[object, ...]) -> None:
    assert protobuf.decode_put_records(body_of(name)) == expected


@pytest.mark.parametrize(
    ("name", "result"),
    [("put-records-result-success", SUCCESS), ("put-records-result-partial-failure", PARTIAL_FAILURE)],
)
def test_a_result_is_encoded_and_decoded_as_the_sdk_does(name: str, result: PutRecordsResult) -> None:
    body = body_of(name)

    assert protobuf.encode_put_records_result(result) == body
    assert protobuf.decode_put_records_result(body, len(result.records)) == result


class Stored(NamedTuple):
    data: bytes
    partition_key: str | None
    sequence_number: str
    timestamp: int


def test_read_records_are_encoded_as_the_sdk_does() -> None:
    body = protobuf.encode_get_records_result([Stored(b"hello", "web-1", "77", 1704164645000)], "CUR2")

    assert body == body_of("get-records-result")


def test_a_stored_record_without_a_partition_key_is_encoded_without_one() -> None:
    body = protobuf.encode_get_records_result([Stored(b"hello", None, "77", 1704164645000)], "CUR2")

    assert not protobuf.GetRecordsResultMessage.FromString(body).records[0].HasField("partitionKey")


@given(st.text("abcAZ09_-", min_size=1), st.lists(entry, min_size=1), st.text("0aZ"))
def test_what_is_encoded_is_decoded_alike(stream: str, entries: list[PutRecordsRequestEntry], stream_id: str) -> None:
    body = protobuf.encode_put_records(stream, [*map(wire.wire_entry, entries)], stream_id)

    assert protobuf.decode_put_records(body) == (stream, stream_id, tuple(entries))


@given(st.lists(entry, min_size=1))
def test_a_request_says_the_same_in_protobuf_and_in_json(entries: list[PutRecordsRequestEntry]) -> None:
    in_protobuf = protobuf.decode_put_records(protobuf.encode_put_records("s", [*map(wire.wire_entry, entries)]))
    in_json = wire.decode_put_records(wire.encode_put_records("s", [*map(wire.wire_entry, entries)]))

    assert in_protobuf == in_json


def test_text_is_sent_as_utf8_and_a_surrogate_in_a_key_is_escaped() -> None:
    body = protobuf.encode_put_records("s", [("日志".encode(), "k\ud800", None)])

    assert protobuf.decode_put_records(body).entries == (PutRecordsRequestEntry("日志".encode(), "k\\ud800"),)


@given(st.lists(result_entry))
def test_a_result_says_the_same_in_protobuf_and_in_json(entries: list[PutRecordsResultEntry]) -> None:
    result = PutRecordsResult(sum(1 for entry in entries if entry.error_code), tuple(entries))
    body = protobuf.encode_put_records_result(result)

    decoded = protobuf.decode_put_records_result(body, len(entries))

    assert decoded == result
    assert decoded == wire.decode_put_records_result(wire.encode_put_records_result(result), len(entries))
    assert protobuf.decode_refusals(body, len(entries)) == {
        index: entry for index, entry in enumerate(entries) if entry.error_code
    }


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", "DIS.4202", id="nothing"),
        pytest.param(body_of("put-records-request-without-stream-id")[:-1], "DIS.4300", id="truncated"),
        pytest.param(b'{"stream_name":"s","records":[{"data":"YQ=="}]}', "DIS.4300", id="JSON"),
        pytest.param(b"\x12\x02\x1a\x05", "DIS.4300", id="record truncated"),
        pytest.param(b"\x12\x04\x2a\x02\xff\xfe", "DIS.4300", id="partition key not UTF-8"),
        pytest.param(b"\x0a\x02\xff\xfe\x12\x03\x1a\x01a", "DIS.4300", id="stream name not UTF-8"),
        pytest.param(b"\x12\xff\xff\xff\xff\x0f", "DIS.4300", id="endless record"),
        pytest.param(b"\x1b" * 5000, "DIS.4300", id="nested without end"),
        pytest.param(b"\x12\x00" * 10_001, "DIS.4200", id="too many records"),
    ],
)
def test_a_malformed_request_is_refused_with_a_code(body: bytes, code: str) -> None:
    with pytest.raises(wire.MalformedRequestError) as refused:
        protobuf.decode_put_records(body)

    assert refused.value.code == code


@given(st.binary())
@example(b"\x12\x05\x1a\x01a\x28\x01")
def test_random_bytes_are_a_request_or_refused(body: bytes) -> None:
    try:
        decoded = protobuf.decode_put_records(body)
    except wire.MalformedRequestError:
        return

    assert all(isinstance(entry.data, bytes) for entry in decoded.entries)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", 1, id="nothing"),
        pytest.param(body_of("put-records-result-success"), 2, id="too short"),
        pytest.param(body_of("put-records-result-partial-failure"), 1, id="too long"),
        pytest.param(body_of("put-records-result-success")[:-1], 1, id="truncated"),
        pytest.param(b"<html>no</html>", 1, id="HTML"),
        pytest.param(b"\xb2\x01\x00", 1, id="neither number nor error"),
        pytest.param(b"\xb2\x01\x05\xc2\x01\x02\xff\xfe", 1, id="number not UTF-8"),
        pytest.param(b"\xb2\x01\x09\xba\x01\x01\xff\xc2\x01\x02" + b"76", 1, id="partition not UTF-8"),
        pytest.param(b"\xb2\x01\x09\xc2\x01\x0276\xca\x01\x01\xff", 1, id="code not UTF-8"),
    ],
)
def test_an_answer_that_makes_no_sense_acknowledges_nothing(body: bytes, expected: int) -> None:
    with pytest.raises(ProtocolError):
        protobuf.decode_put_records_result(body, expected)
    with pytest.raises(ProtocolError):
        protobuf.decode_refusals(body, expected)


@given(
    st.binary() | st.lists(st.binary()).map(lambda parts: b"".join(b"\xb2\x01" + bytes([len(p)]) + p for p in parts))
)
@example(b"\xb2\x01\x09\xc2\x01\x0276\xd2\x01\x01\xff")
def test_both_ways_to_read_an_answer_agree_on_random_bytes(body: bytes) -> None:
    whole: object = None
    failures: object = None
    try:
        result = protobuf.decode_put_records_result(body, 1)
        whole = {index: entry for index, entry in enumerate(result.records) if entry.error_code}
    except ProtocolError:
        pass
    try:
        failures = protobuf.decode_refusals(body, 1)
    except ProtocolError:
        pass

    assert whole == failures


def test_unknown_fields_are_skipped() -> None:
    body = body_of("put-records-request-without-stream-id") + b"\xfa\x07\x03new"

    assert protobuf.decode_put_records(body).entries == BY_NAME


def test_the_total_of_an_answer_is_counted_and_not_believed() -> None:
    body = protobuf.encode_put_records_result(PutRecordsResult(0, PARTIAL_FAILURE.records))

    assert protobuf.decode_put_records_result(body, 2).failed_record_count == 1


NEIGHBOURS = """
import sys
from google.protobuf import descriptor_pool, descriptor_pb2

# The worst that record_pb2 of Huawei's SDKs could do when it is imported: our names, other fields, in the common pool.
for name in ("record.proto", "dis_logging/record.proto"):
    file = descriptor_pb2.FileDescriptorProto(name=name, package=name.partition("/record")[0].replace(".", "_"))
    for message in ("PutRecordsRequest", "PutRecordsResult", "GetRecordsResult"):
        file.message_type.add(name=message)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

from dis_logging.client import protobuf
from dis_logging.client.wire import Routing
from google.protobuf.internal import api_implementation

body = protobuf.encode_put_records("dis-demo", [
    (b"hello", "web-1", None), (b"\\0\\xff", "", Routing(partition_id="shardId-0000000000"))])
assert len(protobuf.decode_put_records(body).entries) == 2
for nonsense in (b"\\x12\\x04\\x2a\\x02\\xff\\xfe", b"\\x0a\\x02\\xff\\xfe\\x12\\x03\\x1a\\x01a", b"\\x12\\x05"):
    try:
        protobuf.decode_put_records(nonsense)
    except ValueError as error:
        assert error.code == "DIS.4300", error
    else:
        raise AssertionError(nonsense)
print(api_implementation.Type(), body.hex())
"""


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_it_works_beside_other_messages_of_its_names_in_either_implementation(implementation: str) -> None:
    """Huawei's older SDK needs the pure-Python implementation, for the whole process."""
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation}

    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", NEIGHBOURS], env=environment, capture_output=True, text=True, check=False
    )

    expected = VECTORS["put-records-request-without-stream-id"]["hex"]
    assert (ran.stdout.split(), ran.stderr) == ([implementation, expected], "")
