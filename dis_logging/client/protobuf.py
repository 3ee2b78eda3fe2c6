"""
The PutRecords and GetRecords messages in protobuf, both ways: what `wire` is for JSON. Needs the extra ``protobuf``.

Not in the API reference: names, numbers and types of the fields are those of record.proto in Huawei's SDKs (Java SDK
1.3.21, DIS Python SDK 2.0.4, Go SDK 1.0.1), with proto2 presence. Where they differ about what is required, every field is
optional here, as in the Java SDK; DIS must take what all of them send. No I/O, no clock, no threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from dis_logging.client import wire
from dis_logging.client.models import (
    PutRecordsRequestEntry,
    PutRecordsResult,
    PutRecordsResultEntry,
    Refusals,
)
from dis_logging.client.read_models import GetRecordsResult, GetRecordsResultEntry
from dis_logging.errors import ProtocolError

CONTENT_TYPE = "application/x-protobuf; charset=utf-8"

_PACKAGE = "dis_logging"
_TEXT = FieldDescriptorProto.TYPE_STRING
_BYTES = FieldDescriptorProto.TYPE_BYTES
_INT32 = FieldDescriptorProto.TYPE_INT32
_INT64 = FieldDescriptorProto.TYPE_INT64


class _Field(NamedTuple):
    """A field; its type is a scalar one, or the name of a message."""

    name: str
    number: int
    type: FieldDescriptorProto.Type.ValueType | str
    many: bool = False


_SCHEMA = {
    "PutRecordsRequest": (
        _Field("streamName", 1, _TEXT),
        _Field("records", 2, "PutRecordsRequestEntry", many=True),
        _Field("streamId", 30, _TEXT),
    ),
    # The same on the wire, with the records left encoded: they can be counted before each takes up memory.
    "PutRecordsRequestEnvelope": (
        _Field("streamName", 1, _TEXT),
        _Field("records", 2, _BYTES, many=True),
        _Field("streamId", 30, _TEXT),
    ),
    "PutRecordsRequestEntry": (
        _Field("data", 3, _BYTES),
        _Field("explicitHashKey", 4, _TEXT),
        _Field("partitionKey", 5, _TEXT),
        _Field("partitionId", 6, _TEXT),
        # extendedInfo, 7, belongs to a stream type that is gone; what is not named here is skipped.
        _Field("timestamp", 29, _INT64),
    ),
    "PutRecordsResult": (
        _Field("failedRecordCount", 21, _INT32),
        _Field("records", 22, "PutRecordsResultEntry", many=True),
    ),
    "PutRecordsResultEntry": (
        _Field("shardId", 23, _TEXT),
        _Field("sequenceNumber", 24, _TEXT),
        _Field("errorCode", 25, _TEXT),
        _Field("errorMessage", 26, _TEXT),
    ),
    "GetRecordsResult": (
        _Field("nextShardIterator", 14, _TEXT),
        _Field("records", 16, "Record", many=True),
    ),
    "Record": (
        _Field("partitionKey", 17, _TEXT),
        _Field("sequenceNumber", 18, _TEXT),
        _Field("data", 19, _BYTES),
        _Field("timestamp", 27, _INT64),
        _Field("timestampType", 28, _TEXT),
    ),
}


def _make_pool() -> DescriptorPool:
    """
    Returns a pool of our own with the messages.

    The default pool is one for the whole process, and a record.proto of Huawei's SDKs may be in it.
    """
    file = FileDescriptorProto(name=f"{_PACKAGE}/record.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field in fields:
            label = FieldDescriptorProto.LABEL_REPEATED if field.many else FieldDescriptorProto.LABEL_OPTIONAL
            added = message.field.add(name=field.name, number=field.number, label=label)
            if isinstance(field.type, str):
                added.type = FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{field.type}"
            else:
                added.type = field.type
    pool = DescriptorPool()
    pool.Add(file)
    return pool


_pool = _make_pool()


def _message_class(name: str) -> Any:
    # Any: the classes are made at run time, so no checker knows their fields.
    return GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


PutRecordsRequestMessage = _message_class("PutRecordsRequest")
_PutRecordsRequestEnvelope = _message_class("PutRecordsRequestEnvelope")
_PutRecordsRequestEntryMessage = _message_class("PutRecordsRequestEntry")
PutRecordsResultMessage = _message_class("PutRecordsResult")
GetRecordsResultMessage = _message_class("GetRecordsResult")


# -- requests -------------------------------------------------------------------------------------------------------


def encode_put_records(stream_name: str, entries: Sequence[wire.WireEntry], stream_id: str = "") -> bytes:
    """Returns the protobuf body of a PutRecords request; optional fields that are not set are left out."""
    request = PutRecordsRequestMessage(streamName=stream_name)
    add = request.records.add
    for entry in entries:
        message = add()
        message.data = entry[0]
        if entry[1]:
            message.partitionKey = wire.valid_text(entry[1])
        if entry[2] is not None:
            _add_routing(message, entry[2])
    if stream_id:
        request.streamId = stream_id
    body: bytes = request.SerializeToString()
    return body


def _add_routing(message: Any, routing: wire.Routing) -> None:
    if routing.explicit_hash_key:
        message.explicitHashKey = routing.explicit_hash_key
    if routing.partition_id:
        message.partitionId = routing.partition_id
    if routing.timestamp is not None:
        message.timestamp = routing.timestamp


def decode_put_records(body: bytes) -> wire.PutRecordsRequest:
    """
    Returns the request in a protobuf body.

    Raises:
        MalformedRequestError: with DIS.4300 for a body that cannot be read, DIS.4202 for one without records, DIS.4200
            for one with too many.
    """
    try:
        envelope = _PutRecordsRequestEnvelope.FromString(body)
        if not envelope.records:
            raise wire.MalformedRequestError("DIS.4202", "Empty request.")
        if len(envelope.records) > wire.MAX_REQUEST_RECORDS:
            raise wire.MalformedRequestError("DIS.4200", "Invalid request. Too many records.")
        entries = tuple(map(_decode_request_entry, envelope.records))
    except (DecodeError, UnicodeError):
        raise wire.MalformedRequestError("DIS.4300", "Request error.") from None
    return wire.PutRecordsRequest(_text(envelope.streamName), _text(envelope.streamId), entries)


def _decode_request_entry(encoded: bytes) -> PutRecordsRequestEntry:
    message = _PutRecordsRequestEntryMessage.FromString(encoded)
    return PutRecordsRequestEntry(
        data=message.data,
        partition_key=_text(message.partitionKey) or None,
        explicit_hash_key=_text(message.explicitHashKey) or None,
        partition_id=_text(message.partitionId) or None,
        timestamp=message.timestamp if message.HasField("timestamp") else None,
    )


def _text(value: str | bytes) -> str:
    # The C implementation of the library gives a string of a proto2 message as bytes when it is not UTF-8.
    if not isinstance(value, str):
        raise wire.MalformedRequestError("DIS.4300", "Request error. A string must be UTF-8.")
    return value


# -- results --------------------------------------------------------------------------------------------------------


def encode_put_records_result(result: PutRecordsResult) -> bytes:
    """Returns the protobuf body of a PutRecords answer; a field that is empty is left out."""
    message = PutRecordsResultMessage(failedRecordCount=result.failed_record_count)
    for entry in result.records:
        message.records.add(
            shardId=entry.partition_id or None,
            sequenceNumber=entry.sequence_number or None,
            errorCode=entry.error_code or None,
            errorMessage=entry.error_message or None,
        )
    body: bytes = message.SerializeToString()
    return body


def decode_put_records_result(body: bytes, expected: int) -> PutRecordsResult:
    """
    Returns the result in the protobuf body of a 200 answer to a request of *expected* records.

    Raises:
        ProtocolError: when the body is not a complete result for exactly that many records.
    """
    entries = tuple(_decode_result_entry(record) for record in _result_records(body, expected))
    return PutRecordsResult(sum(1 for entry in entries if entry.error_code), entries)


def decode_refusals(body: bytes, expected: int) -> Refusals:
    """
    Returns only the refused records of an answer; every entry is checked all the same.

    Raises:
        ProtocolError: as `decode_put_records_result` does.
    """
    records = _result_records(body, expected)
    if all(map(_is_stored, records)):  # without building what nobody reads
        return Refusals()
    return wire.refusals_among([_decode_result_entry(record) for record in records])


def _is_stored(record: Any) -> bool:
    number = record.sequenceNumber
    has_place = number and type(number) is str and type(record.shardId) is str
    return bool(has_place and not record.errorCode and not record.errorMessage)


def _result_records(body: bytes, expected: int) -> Sequence[Any]:
    try:
        records: Sequence[Any] = PutRecordsResultMessage.FromString(body).records
    except (DecodeError, UnicodeError):
        raise ProtocolError("DIS answered 200, but the body is not a protobuf result", status=200) from None
    wire.check_result_count(len(records), expected)
    return records


def _decode_result_entry(record: Any) -> PutRecordsResultEntry:
    return wire.decode_result_entry(
        {
            "partition_id": record.shardId,
            "sequence_number": record.sequenceNumber,
            "error_code": record.errorCode,
            "error_message": record.errorMessage,
        }
    )


def encode_get_records_result(records: Iterable[wire.WireRecord], next_partition_cursor: str) -> bytes:
    """Returns the protobuf body of a GetRecords answer."""
    message = GetRecordsResultMessage(nextShardIterator=next_partition_cursor)
    for record in records:
        message.records.add(
            partitionKey=record.partition_key,
            sequenceNumber=record.sequence_number,
            data=record.data,
            timestamp=record.timestamp,
            timestampType=wire.TIMESTAMP_TYPE,
        )
    body: bytes = message.SerializeToString()
    return body


def decode_get_records_result(body: bytes) -> GetRecordsResult:
    """
    Returns what the protobuf body of a GetRecords answer holds.

    Raises:
        ProtocolError: when the body is not a complete result.
    """
    try:
        message = GetRecordsResultMessage.FromString(body)
    except (DecodeError, UnicodeError):
        raise ProtocolError("DIS answered 200, but the body is not a protobuf result", status=200) from None
    entries = tuple(map(_decode_record, message.records))
    return GetRecordsResult(entries, _answered_text(message.nextShardIterator))


def _decode_record(record: Any) -> GetRecordsResultEntry:
    number = _answered_text(record.sequenceNumber)
    if not number:
        raise ProtocolError("DIS answered 200, but a record has no sequence number", status=200)
    timestamp = record.timestamp if record.HasField("timestamp") else None
    return GetRecordsResultEntry(record.data, number, _answered_text(record.partitionKey) or None, timestamp)


def _answered_text(value: str | bytes) -> str:
    if not isinstance(value, str):  # see `_text`
        raise ProtocolError("DIS answered 200, but a string is not UTF-8", status=200)
    return value
