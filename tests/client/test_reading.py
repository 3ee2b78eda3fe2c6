"""`DISClient` as a consumer: streams described, cursors and records, in both body formats."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dis_logging import (
    CursorType,
    DISClient,
    GetRecordsResult,
    PartitionDescription,
    ProtocolError,
    PutRecordsRequestEntry,
    ServiceError,
)
from dis_logging.client import bodies, streams, wire
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.app import Operation
from dis_logging.emulator.faults import Hang, Reply
from tests.conftest import STREAM
from tests.raw_server import Peer, RawServer, answer, reply_with


class Clock:
    """The emulator's time, which a test moves on."""

    def __init__(self) -> None:
        self.now = datetime.now(timezone.utc)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def client(dis: DISEmulator) -> Iterator[DISClient]:
    with DISClient(**dis.client_options()) as client:
        yield client


def upload(client: DISClient, *texts: str, partition: str = "0") -> None:
    client.put_records(STREAM, [PutRecordsRequestEntry(text, partition_id=partition) for text in texts])


def texts(result: GetRecordsResult) -> list[str]:
    return [record.text for record in result.records]


# -- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_is_described(client: DISClient, dis: DISEmulator) -> None:
    described = client.describe_stream(STREAM)

    assert (described.stream_name, described.stream_id) == (STREAM, dis.stream_id(STREAM))
    assert (described.status, described.stream_type, described.retention_period) == ("RUNNING", "COMMON", 24)
    assert described.writable_partition_count == 3
    assert [partition.partition_id for partition in described.partitions] == [wire.partition_id(n) for n in range(3)]
    assert all(partition.is_readable for partition in described.partitions)
    assert not described.has_more_partitions


def test_all_pages_of_partitions_are_listed(client: DISClient, dis: DISEmulator) -> None:
    dis.create_stream("wide", 1001)

    listed = [partition.partition_id for partition in client.list_partitions("wide")]

    assert listed == [wire.partition_id(number) for number in range(1001)]
    assert [request.operation for request in dis.requests] == [Operation.DESCRIBE_STREAM] * 2


@pytest.mark.parametrize("page", [1, 2, 3])
def test_no_partition_is_listed_twice_or_left_out(client: DISClient, page: int) -> None:
    assert len(list(client.list_partitions(STREAM, page=page))) == 3


def test_pages_that_do_not_lead_on_end() -> None:
    """A service that ignores start_partitionId would be asked for ever."""
    document = {"partitions": [{"partition_id": "shardId-0000000000"}], "has_more_partitions": True}
    body = json.dumps(document).encode()
    again = answer(body=body)
    script = reply_with(again, reply_with(again, Peer.wait_until_closed))
    with RawServer(script) as server, DISClient(**raw_options(server)) as client:
        with pytest.raises(ProtocolError, match="does not lead on"):
            list(client.list_partitions(STREAM))
        assert len(server.heads) == 2


def test_a_missing_stream_is_told_by_its_code(client: DISClient) -> None:
    with pytest.raises(ServiceError) as caught:
        client.describe_stream("nowhere")

    assert caught.value.code == "DIS.4301"


def test_a_description_in_the_api_references_other_types_is_read() -> None:
    """An example of the API reference has times as strings; scaled partitions name their parents."""
    body = json.dumps(
        {
            "stream_name": "s",
            "retention_period": "24",
            "has_more_partitions": "true",
            "partitions": [
                {"partition_id": "shardId-0000000002", "status": "DELETED", "parent_partitions": "shardId-0000000000"},
                {"partition_id": "shardId-0000000003", "status": "EXPIRED", "parent_partitions": None},
            ],
        }
    ).encode()

    described = streams.decode_description(body)

    assert described.retention_period == 24
    assert described.has_more_partitions
    assert described.partitions == (
        PartitionDescription("shardId-0000000002", "DELETED", parent_partitions=("shardId-0000000000",)),
        PartitionDescription("shardId-0000000003", "EXPIRED"),
    )
    assert [partition.is_readable for partition in described.partitions] == [True, False]


@pytest.mark.parametrize(
    "document",
    [[], {}, {"partitions": {}}, {"partitions": [1]}, {"partitions": [{}]}, {"partitions": [{"partition_id": "x"}]}],
)
def test_what_is_no_description_is_a_protocol_error(document: object) -> None:
    with pytest.raises(ProtocolError):
        streams.decode_description(json.dumps(document).encode())


# -- parameters -----------------------------------------------------------------------------------------------------


def test_parameters_are_spelt_as_in_the_api_reference() -> None:
    """Mixed case, hyphens and underscores: as in "Querying Details of a Stream", "Obtaining Data Cursors", "Downloading Data"."""
    assert streams.describe_query("shardId-0000000099", 100, "id") == {
        "start_partitionId": "shardId-0000000099",
        "limit_partitions": "100",
        "stream_id": "id",
    }
    assert streams.cursor_query("s", "0", CursorType.AFTER_SEQUENCE_NUMBER, "7", None, "id") == {
        "stream-name": "s",
        "stream-id": "id",
        "partition-id": "0",
        "cursor-type": "AFTER_SEQUENCE_NUMBER",
        "starting-sequence-number": "7",
    }
    assert (
        streams.cursor_query("s", "0", CursorType.AT_TIMESTAMP, "", 1700000000000, "")["timestamp"] == "1700000000000"
    )
    assert streams.records_query("eyJ=", 10, 20) == {
        "partition-cursor": "eyJ=",
        "limit": "10",
        "max_fetch_bytes": "20",
    }


@pytest.mark.parametrize("signature", ["sdk-hmac-sha256", "access", "v11", "v11-core"])
def test_a_cursor_of_any_characters_is_signed_as_it_is_sent(dis: DISEmulator, signature: str) -> None:
    """The emulator refuses the cursor, but not the signature."""
    with DISClient(**dis.client_options(), signature=signature) as client, pytest.raises(ServiceError) as caught:
        client.get_records("a+b/c= d&e~%ü")

    assert caught.value.code == "DIS.4217"


# -- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body_format", ["json", "protobuf"])
def test_records_come_back_as_they_were_put(dis: DISEmulator, body_format: str) -> None:
    everything = bytes(range(256))
    with DISClient(**dis.client_options(), body_format=body_format) as client:
        client.put_records(STREAM, [PutRecordsRequestEntry(everything, "shop", timestamp=1700000000000)])
        stored = dis.records(STREAM)[0]
        cursor = client.get_cursor(STREAM, stored.partition_id, "TRIM_HORIZON")

        (record,) = client.get_records(cursor).records

    assert (record.data, record.partition_key, record.sequence_number) == (everything, "shop", "0")
    assert record.timestamp == stored.timestamp
    wanted = "application/x-protobuf; charset=utf-8" if body_format == "protobuf" else "application/json; charset=utf-8"
    assert dis.requests[-1].headers["content-type"] == wanted


@pytest.mark.parametrize("body_format", ["json", "protobuf"])
def test_a_record_without_a_key_has_none(dis: DISEmulator, body_format: str) -> None:
    with DISClient(**dis.client_options(), body_format=body_format) as client:
        upload(client, "x")
        (record,) = client.get_records(client.get_cursor(STREAM, "0", "TRIM_HORIZON")).records

    assert record.partition_key is None


def test_reading_goes_on_with_the_next_cursor(client: DISClient) -> None:
    upload(client, "a", "b", "c")
    first = client.get_records(client.get_cursor(STREAM, "0", CursorType.TRIM_HORIZON), limit=2)
    second = client.get_records(first.next_partition_cursor)
    third = client.get_records(second.next_partition_cursor)

    assert [texts(result) for result in (first, second, third)] == [["a", "b"], ["c"], []]


def test_reading_begins_at_after_or_behind_a_record(client: DISClient) -> None:
    upload(client, "a", "b")
    at = client.get_cursor(STREAM, "0", starting_sequence_number="1")
    after = client.get_cursor(STREAM, "0", "AFTER_SEQUENCE_NUMBER", starting_sequence_number="0")
    latest = client.get_cursor(STREAM, "0", "LATEST")

    assert [texts(client.get_records(cursor)) for cursor in (at, after, latest)] == [["b"], ["b"], []]


def test_an_old_cursor_is_refused_as_expired() -> None:
    clock = Clock()
    with DISEmulator({STREAM: 1}, clock=clock) as dis, DISClient(**dis.client_options()) as client:
        cursor = client.get_cursor(STREAM, "0", "LATEST")
        clock.now += timedelta(minutes=6)

        with pytest.raises(ServiceError) as caught:
            client.get_records(cursor)

    assert caught.value.code == "DIS.4225"


def test_more_is_read_than_an_upload_is_ever_answered(dis: DISEmulator, client: DISClient) -> None:
    """Ten thousand records of 200 bytes take more than 4 MiB of JSON."""
    dis.create_stream("long", 1)
    for _ in range(2):
        client.put_records("long", [PutRecordsRequestEntry(bytes(200), "k" * 100)] * 5000)

    result = client.get_records(client.get_cursor("long", "0", "TRIM_HORIZON"), limit=10_000)

    assert len(result.records) == 10_000


def test_the_stream_of_another_account_is_named_by_its_id(dis: DISEmulator) -> None:
    with DISClient(**dis.client_options(), stream_id=dis.stream_id(STREAM)) as client:
        assert client.describe_stream("their-name").stream_name == STREAM
        assert client.get_records(client.get_cursor("their-name", "0", "LATEST")).records == ()


def test_a_read_that_hangs_ends_in_time(dis: DISEmulator) -> None:
    dis.play(Hang(), operation=Operation.GET_RECORDS)
    with DISClient(**dis.client_options(), request_timeout=0.3) as client:
        cursor = client.get_cursor(STREAM, "0", "LATEST")
        with pytest.raises(Exception, match="did not answer in time"):
            client.get_records(cursor)


RECORD = {"data": base64.b64encode(b"x").decode(), "sequence_number": "0"}


def test_numbers_and_texts_may_change_places_in_an_answer() -> None:
    body = json.dumps({"records": [{**RECORD, "sequence_number": 7, "timestamp": "1527577402541"}]}).encode()

    result = wire.decode_get_records_result(body)

    assert (result.records[0].sequence_number, result.records[0].timestamp) == ("7", 1527577402541)
    assert result.next_partition_cursor == ""


def test_the_documented_answer_is_read() -> None:
    """The example of the API reference, "Downloading Data"."""
    body = (
        b'{"records":[{"partition_key":"0","sequence_number":"485","data":"aGVsbG8gd29ybGQ=",'
        b'"timestamp":1527577402541,"timestamp_type":"CreateTime"}],"next_partition_cursor":"eyJpdGVyR2VuVGltZSI6"}'
    )

    result = wire.decode_get_records_result(body)

    assert result.next_partition_cursor == "eyJpdGVyR2VuVGltZSI6"
    assert [(record.text, record.sequence_number, record.partition_key) for record in result.records] == [
        ("hello world", "485", "0")
    ]


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"records": None},
        {"records": [None]},
        {"records": [{"sequence_number": "0"}]},
        {"records": [{**RECORD, "data": "%"}]},
        {"records": [{**RECORD, "sequence_number": None}]},
        {"records": [{**RECORD, "partition_key": ["k"]}]},
        {"records": [{**RECORD, "timestamp": 1.5}]},
        {"records": [], "next_partition_cursor": True},
    ],
)
def test_what_is_no_result_is_a_protocol_error(document: object) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_get_records_result(json.dumps(document).encode())


@pytest.mark.parametrize("body", [b"\xff", b"\x82\x01\x01", b"\x82\x01\x02\x08\x01"])
def test_what_is_no_protobuf_result_is_a_protocol_error(body: bytes) -> None:
    protobuf = bodies.Bodies("protobuf", None).messages
    with pytest.raises(ProtocolError):
        protobuf.decode_get_records_result(body)


@pytest.mark.parametrize("document", [[], {}, {"partition_cursor": ""}, {"partition_cursor": 1}])
def test_an_answer_without_a_cursor_is_a_protocol_error(document: object) -> None:
    with pytest.raises(ProtocolError, match="no partition_cursor"):
        streams.decode_cursor(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"partition_id": "nine"}, "partition_id must look like"),
        ({"cursor_type": "OLDEST"}, "cursor_type must be one of"),
        ({"cursor_type": "AT_SEQUENCE_NUMBER"}, "starting_sequence_number is needed"),
        ({"starting_sequence_number": "1"}, "starting_sequence_number is of no use"),
        ({"cursor_type": "AT_TIMESTAMP"}, "timestamp is needed"),
        ({"timestamp": 1}, "timestamp is of no use"),
        ({"stream_name": "a b"}, "stream_name must be"),
    ],
)
def test_an_impossible_cursor_is_refused_before_anything_is_sent(
    client: DISClient, dis: DISEmulator, arguments: dict[str, Any], message: str
) -> None:
    whole: dict[str, Any] = {"stream_name": STREAM, "partition_id": "0", "cursor_type": "LATEST", **arguments}
    with pytest.raises(ValueError, match=message):
        client.get_cursor(**whole)

    assert dis.requests == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"partition_cursor": ""}, "partition_cursor must be"),
        ({"partition_cursor": "x" * 513}, "partition_cursor must be"),
        ({"limit": 0}, "limit must be from 1 to 10000"),
        ({"limit": 10_001}, "limit must be from 1 to 10000"),
        ({"max_fetch_bytes": 0}, "max_fetch_bytes must be from 1"),
    ],
)
def test_an_impossible_read_is_refused_before_anything_is_sent(
    client: DISClient, dis: DISEmulator, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        client.get_records(**{"partition_cursor": "x", **arguments})

    assert dis.requests == ()


def test_another_2xx_is_no_answer_to_a_read(client: DISClient, dis: DISEmulator) -> None:
    dis.play(Reply(status=202, body=b"{}"), operation=Operation.DESCRIBE_STREAM)

    with pytest.raises(ProtocolError, match="202"):
        client.describe_stream(STREAM)


def raw_options(server: RawServer) -> dict[str, Any]:
    return {"endpoint": server.endpoint, "region": "cn-north-4", "project_id": "p", "ak": "ak", "sk": "sk"}
