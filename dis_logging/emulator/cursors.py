"""Reading: cursors (API reference, Obtaining Data Cursors) and get-records (Downloading Data)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import NamedTuple

from dis_logging.client import wire
from dis_logging.client.read_models import CursorType
from dis_logging.emulator.call import Call, decimal, partition_number
from dis_logging.emulator.messages import RefusalError, Response, message_of
from dis_logging.emulator.store import PartitionDescription

# API reference, Obtaining Data Cursors.
_MAX_CURSOR_LENGTH = 512
_CURSOR_LIFETIME = 5 * 60 * 1000

# DIS Python SDK, getRecords: 1 to 10000, 1000 by default.
_DEFAULT_LIMIT = 1000
_MAX_LIMIT = 10_000
# Assumed: what a COMMON and an ADVANCED partition give in a second (FAQ, "What is a partition?").
_DEFAULT_FETCH_BYTES = 2 * 1024 * 1024
_MAX_FETCH_BYTES = 10 * 1024 * 1024


class Cursor(NamedTuple):
    """
    A place in a partition, which clients must take as opaque.

    Args:
        stream_id: not the name, so that a stream that was deleted and made anew is another one.
        partition: number of the partition.
        number: sequence number of the next record to read.
        issued: milliseconds since the epoch.
    """

    stream_id: str
    partition: int
    number: int
    issued: int

    def encode(self) -> str:
        """Returns the text that clients get: base64 of a JSON object, as in the samples of the API reference."""
        return base64.b64encode(json.dumps(self._asdict()).encode()).decode()

    @classmethod
    def decode(cls, text: str) -> Cursor | None:
        """Returns the cursor that was encoded as *text*, None when there was none."""
        if len(text) > _MAX_CURSOR_LENGTH:
            return None
        try:
            cursor = cls(**json.loads(base64.b64decode(text, validate=True)))
        except (binascii.Error, TypeError, ValueError, RecursionError):
            return None
        places = (cursor.partition, cursor.number, cursor.issued)
        if not isinstance(cursor.stream_id, str) or not all(type(place) is int and place >= 0 for place in places):
            return None
        return cursor


def show_cursor(call: Call) -> Response:
    """Answers with a cursor."""
    partition = call.store.partition(
        call.query("stream-name"), call.query("stream-id"), partition_number(call.query("partition-id"))
    )
    cursor = Cursor(partition.stream_id, partition.number, _beginning(call, partition), call.now)
    return Response(200, json.dumps({"partition_cursor": cursor.encode()}).encode())


def get_records(call: Call) -> Response:
    """Answers with the records from a cursor on, and with the cursor to go on with."""
    cursor = Cursor.decode(call.query("partition-cursor"))
    if cursor is None:
        raise RefusalError("DIS.4217")
    if call.now - cursor.issued > _CURSOR_LIFETIME:
        raise RefusalError("DIS.4225")
    limit = call.query_count("limit", _DEFAULT_LIMIT, _MAX_LIMIT)
    max_bytes = call.query_count("max_fetch_bytes", _DEFAULT_FETCH_BYTES, wire.MAX_HASH_KEY)
    records = call.store.read(
        cursor.stream_id, cursor.partition, cursor.number, limit, min(max_bytes, _MAX_FETCH_BYTES)
    )
    following = cursor._replace(number=cursor.number + len(records), issued=call.now)
    messages = call.request.messages
    return Response.in_format(messages, messages.encode_get_records_result(records, following.encode()))


def _beginning(call: Call, partition: PartitionDescription) -> int:
    try:
        kind = CursorType(call.query("cursor-type") or CursorType.AT_SEQUENCE_NUMBER.value)
    except ValueError:
        raise RefusalError("DIS.4215") from None
    if kind is CursorType.TRIM_HORIZON:
        return partition.first
    if kind is CursorType.LATEST:
        return partition.next
    if kind is CursorType.AT_TIMESTAMP:
        return _at_timestamp(call, partition)
    number = decimal(call.query("starting-sequence-number"))
    if number is None:
        raise RefusalError("DIS.4216")
    after = kind is CursorType.AFTER_SEQUENCE_NUMBER
    check_in_range(number, partition, last=partition.next - after)
    return number + after


def check_in_range(number: int, partition: PartitionDescription, last: int) -> None:
    """
    Returns when *number* is neither expired nor beyond *last*.

    Raises:
        RefusalError: when it is, in the words that the Java SDK's DISSequenceNumberOutOfRangeException takes apart.
    """
    if not partition.first <= number <= last:
        bounds = f"[{number}][ should be within ][{partition.first}][ ][{partition.next}]"
        raise RefusalError("DIS.4224", f"{message_of('DIS.4224')} {bounds}")


def _at_timestamp(call: Call, partition: PartitionDescription) -> int:
    timestamp = decimal(call.query("timestamp"))
    if timestamp is None:
        raise RefusalError("DIS.4300", "Request error. Invalid timestamp.")
    # Assumed to be the age limit of the stream; here older records may also have given way to newer ones.
    bound = max(call.now - partition.retention_period * 3_600_000, partition.expired_until)
    if timestamp <= bound:
        # The words that the Java SDK's DISTimestampOutOfRangeException takes apart.
        expired = f"[timestamp is expired, timestamp should be larger than {bound}]"
        raise RefusalError("DIS.4300", f"{message_of('DIS.4300')} {expired}")
    return call.store.number_since(partition.stream_id, partition.number, timestamp)
