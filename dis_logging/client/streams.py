"""
Describe-stream and cursors on the wire: the questions as query parameters, the answers in JSON. No I/O, no clock.

DIS has these two in JSON only; what is read with a cursor comes in either format and is the business of `wire` and
`protobuf`. Nothing here was tried against the live service.
"""

from __future__ import annotations

from collections.abc import Mapping

from dis_logging.client import wire
from dis_logging.client.read_models import CursorType, PartitionDescription, StreamDescription
from dis_logging.errors import ProtocolError
from dis_logging.escaping import escape

_TEXT_LIMIT = 200


def describe_query(start_partition_id: str, limit: int, stream_id: str) -> dict[str, str]:
    """
    Returns the parameters of describe-stream (API reference, Querying Details of a Stream).

    DIS spells ``start_partitionId`` in two ways at once, and means the partition *after* it. ``stream_id`` is what the
    Java SDK and the DIS Python SDK send for a stream of another account.
    """
    query = {"start_partitionId": start_partition_id, "limit_partitions": str(limit), "stream_id": stream_id}
    return {name: value for name, value in query.items() if value}


def cursor_query(
    stream_name: str,
    partition_id: str,
    cursor_type: CursorType,
    starting_sequence_number: str,
    timestamp: int | None,
    stream_id: str,
) -> dict[str, str]:
    """
    Returns the parameters of a cursor (API reference, Obtaining Data Cursors).

    Their names have hyphens, unlike those of any other request; ``timestamp`` is in milliseconds.
    """
    query = {
        "stream-name": stream_name,
        "stream-id": stream_id,
        "partition-id": partition_id,
        "cursor-type": cursor_type.value,
        "starting-sequence-number": starting_sequence_number,
        "timestamp": "" if timestamp is None else str(timestamp),
    }
    return {name: value for name, value in query.items() if value}


def records_query(partition_cursor: str, limit: int, max_fetch_bytes: int) -> dict[str, str]:
    """
    Returns the parameters of get-records (API reference, Downloading Data).

    The first name has a hyphen and ``max_fetch_bytes`` has underscores. If it is smaller than the next record, no record
    is ever returned.
    """
    return {"partition-cursor": partition_cursor, "limit": str(limit), "max_fetch_bytes": str(max_fetch_bytes)}


def decode_cursor(body: bytes) -> str:
    """
    Returns the cursor in a 200 answer.

    Raises:
        ProtocolError: when there is none.
    """
    document = wire.load_object(body)
    cursor = None if document is None else document.get("partition_cursor")
    if not isinstance(cursor, str) or not cursor:
        raise ProtocolError("DIS answered 200, but the body has no partition_cursor", status=200)
    return cursor


def decode_description(body: bytes) -> StreamDescription:
    """
    Returns the stream, and the page of its partitions, in a 200 answer.

    Raises:
        ProtocolError: when the body is no description of a stream.
    """
    document = wire.load_object(body)
    partitions = None if document is None else document.get("partitions")
    if document is None or not isinstance(partitions, list):
        raise ProtocolError("DIS answered 200, but the body has no list of partitions", status=200)
    return StreamDescription(
        stream_name=_text(document, "stream_name"),
        stream_id=_text(document, "stream_id"),
        status=_text(document, "status"),
        stream_type=_text(document, "stream_type"),
        retention_period=wire.optional_number(document, "retention_period"),
        writable_partition_count=wire.optional_number(document, "writable_partition_count"),
        partitions=tuple(map(_decode_partition, partitions)),
        has_more_partitions=document.get("has_more_partitions") in (True, "true"),
    )


def _decode_partition(partition: object) -> PartitionDescription:
    identifier = partition.get("partition_id") if isinstance(partition, dict) else None
    if not isinstance(partition, dict) or not isinstance(identifier, str) or not wire.is_partition_id(identifier):
        raise ProtocolError("DIS answered 200, but a partition has no partition_id", status=200)
    parents = partition.get("parent_partitions")
    # The API reference shows a string; the type of several is not documented.
    parents = parents if isinstance(parents, list) else [parents]
    return PartitionDescription(
        identifier,
        _text(partition, "status"),
        _text(partition, "hash_range"),
        _text(partition, "sequence_number_range"),
        tuple(escape(parent, _TEXT_LIMIT) for parent in parents if isinstance(parent, str) and parent),
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    return escape(wire.optional_text(fields, name), _TEXT_LIMIT)
