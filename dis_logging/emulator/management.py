"""Streams: to create, list, describe and delete (API reference, Stream Management)."""

from __future__ import annotations

import json

from dis_logging.client import wire
from dis_logging.emulator.call import Call, count_field, partition_number
from dis_logging.emulator.messages import RefusalError, Response
from dis_logging.emulator.store import StreamDescription, StreamExistsError
from dis_logging.emulator.stream import StreamSettings

# API reference, Querying Details of a Stream: limit_partitions.
_DEFAULT_PARTITION_LIMIT = 100
_MAX_PARTITION_LIMIT = 1000

# API reference, Querying the Stream List: limit.
_DEFAULT_STREAM_LIMIT = 10
_MAX_STREAM_LIMIT = 100

# API reference, Creating a Stream: how many partitions of a type an account may have, unless it asks for more.
_QUOTAS = {"COMMON": 50, "ADVANCED": 10}
_DATA_TYPES = ("BLOB", "JSON", "CSV")


def create_stream(call: Call) -> Response:
    """Adds a stream, which runs at once; DIS takes some seconds."""
    fields = call.fields()
    name = wire.text_field(fields, "stream_name")
    if not wire.is_stream_name(name):
        raise RefusalError("DIS.4300", "Request error. Invalid stream_name.")
    settings = StreamSettings(
        wire.text_field(fields, "stream_type") or "COMMON",
        wire.text_field(fields, "data_type") or "BLOB",
        count_field(fields, "data_duration", 24, 72, default=24),
    )
    if settings.stream_type not in _QUOTAS or settings.data_type not in _DATA_TYPES:
        raise RefusalError("DIS.4200", "Invalid request. Invalid stream_type or data_type.")
    partitions = count_field(fields, "partition_count", 1, wire.MAX_HASH_KEY)
    streams = call.store.streams()
    if any(stream.name == name for stream in streams):
        raise RefusalError("DIS.4307")
    used = sum(each.partition_count for each in streams if each.settings.stream_type == settings.stream_type)
    if used + partitions > _QUOTAS[settings.stream_type]:
        raise RefusalError("DIS.4308")
    try:
        call.store.create_stream(name, partitions, call.now, settings)
    except StreamExistsError:  # by a request at the same time
        raise RefusalError("DIS.4307") from None
    return Response.empty(201)


def delete_stream(call: Call) -> Response:
    """Removes a stream with its records."""
    call.store.delete_stream(call.arguments["stream_name"])
    return Response.empty(204)


def list_streams(call: Call) -> Response:
    """Answers with the streams by name, page by page. That they come in alphabetical order is assumed."""
    streams = sorted(call.store.streams(), key=lambda stream: stream.name)
    limit = call.query_count("limit", _DEFAULT_STREAM_LIMIT, _MAX_STREAM_LIMIT)
    after = [stream for stream in streams if stream.name > call.query("start_stream_name")]
    shown = after[:limit]
    document = {
        "total_number": len(streams),
        "stream_names": [stream.name for stream in shown],
        "has_more_streams": len(after) > limit,
        "stream_info_list": [{**_summary(stream), "partition_count": stream.partition_count} for stream in shown],
    }
    return Response(200, json.dumps(document).encode())


def describe_stream(call: Call) -> Response:
    """Answers with a stream and its partitions, page by page."""
    stream = call.store.describe(call.arguments["stream_name"], call.query("stream_id"))
    after = call.query("start_partitionId")
    start = partition_number(after) + 1 if after else 0
    limit = call.query_count("limit_partitions", _DEFAULT_PARTITION_LIMIT, _MAX_PARTITION_LIMIT)
    document = {
        **_summary(stream),
        "stream_id": stream.stream_id,
        "last_modified_time": stream.created,
        "writable_partition_count": stream.partition_count,
        "readable_partition_count": stream.partition_count,
        "partitions": [
            {
                "status": "ACTIVE",
                "partition_id": wire.partition_id(index),
                "hash_range": _hash_range(index, stream.partition_count),
                # The upper end is the next number, not the last one (assumed; only a sample exists).
                "sequence_number_range": f"[{stream.first_sequence_numbers[index]} : {stream.next_sequence_numbers[index]}]",
            }
            for index in range(start, min(stream.partition_count, start + limit))
        ],
        "has_more_partitions": start + limit < stream.partition_count,
    }
    return Response(200, json.dumps(document).encode())


def _summary(stream: StreamDescription) -> dict[str, object]:
    """Returns what both lists and descriptions say of a stream."""
    return {
        "stream_name": stream.name,
        "create_time": stream.created,
        "retention_period": stream.settings.retention_period,
        "status": "RUNNING",
        "stream_type": stream.settings.stream_type,
        "data_type": stream.settings.data_type,
        "auto_scale_enabled": False,
        "tags": [],
    }


def _hash_range(index: int, count: int) -> str:
    """Returns the hash keys that `wire.partition_index` gives to partition *index*, both ends included."""
    width = wire.MAX_HASH_KEY // count
    first = index * width + 1 if index else 0
    last = wire.MAX_HASH_KEY if index == count - 1 else (index + 1) * width
    return f"[{first} : {last}]"
