"""From request to response: authentication, routing and limits of the emulated service. No sockets, no threads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import NamedTuple, Protocol

from dis_logging.client import wire
from dis_logging.client.models import PutRecordsResult, PutRecordsResultEntry
from dis_logging.emulator.access import Access
from dis_logging.emulator.messages import (
    Head,
    ReceivedEntry,
    RefusalError,
    Request,
    Response,
    message_of,
    refusal,
    status_of,
)
from dis_logging.emulator.store import Store, StoredRecord, StreamDescription, UnknownStreamError

# API reference, Querying Details of a Stream: limit_partitions.
_DEFAULT_PARTITION_LIMIT = 100
_MAX_PARTITION_LIMIT = 1000

# The base path before /v2 is free: a historic endpoint has /dis-gw there.
_PATH = re.compile(r".*?/v2/(?P<project>[^/]+)/(?P<resource>.+?)/?")


class Operation(Enum):
    """What a request asks for, by its method and path."""

    PUT_RECORDS = "PutRecords"
    DESCRIBE_STREAM = "DescribeStream"


class EntryRule(Protocol):
    """Decides which entries of a batch are refused instead of stored."""

    def refuse(self, index: int, entry: ReceivedEntry) -> PutRecordsResultEntry | None:
        """Returns the result of a refused entry, None for one that may be stored."""
        ...


class App:
    """
    The emulated service.

    Args:
        store: where entries go.
        access: who may send them.
        clock: the service's time, aware.
    """

    def __init__(self, store: Store, access: Access, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._access = access
        self.clock = clock

    def operation(self, head: Head) -> Operation | None:
        """Returns what a request of this *head* asks for, None when there is no such thing."""
        route = _route(head)
        return None if route is None else route.operation

    def respond(self, request: Request, rules: Sequence[EntryRule] = ()) -> Response:
        """Returns the answer to *request*, after storing the entries that no rule refuses."""
        if request.head.content_length > wire.MAX_BODY_BYTES:
            return refusal(413, "DIS.4200", "Request entity too large.", gateway=True)
        route = _route(request.head)
        if route is None:
            # What the API gateway in front of DIS says (API Gateway, Error Codes).
            text = "The API does not exist or has not been published in the environment"
            return refusal(404, "APIGW.0101", text, gateway=True)
        try:
            self._access.verify(request, self.clock())
            if route.project_id != self._access.project_id:
                raise RefusalError("DIS.4117")
            return route.handler(self, Call(request, route.arguments, rules))
        except (RefusalError, wire.MalformedRequestError) as error:
            return refusal(status_of(error.code), error.code, str(error))
        except UnknownStreamError:
            return refusal(status_of("DIS.4301"), "DIS.4301", message_of("DIS.4301"))

    def put_records(self, call: Call) -> Response:
        """Answers PutRecords (API reference, Uploading Data)."""
        batch = call.request.batch
        _check_stream(batch.stream_name, batch.stream_id)
        _check_limits(batch.entries)
        results = [_first_refusal(call.rules, index, entry) for index, entry in enumerate(batch.entries)]
        wanted = [entry for entry, refused in zip(batch.entries, results, strict=True) if refused is None]
        stored = iter(self._store.append(batch.stream_name, batch.stream_id, wanted, self._now()))
        records = tuple(
            _result(entry, next(stored)) if refused is None else refused
            for entry, refused in zip(batch.entries, results, strict=True)
        )
        codes = tuple(record.error_code for record in records if record.error_code)
        body = wire.encode_put_records_result(PutRecordsResult(len(codes), records))
        return Response(200, body, entry_codes=codes)

    def describe_stream(self, call: Call) -> Response:
        """Answers describe stream (API reference, Querying Details of a Stream)."""
        query = dict(call.request.head.query)
        stream = self._store.describe(call.arguments["stream_name"], query.get("stream_id", ""))
        start = _partition_after(query.get("start_partitionId", ""))
        limit = _partition_limit(query.get("limit_partitions", ""))
        return Response(200, json.dumps(_description(stream, start, limit)).encode())

    def _now(self) -> int:
        return int(self.clock().timestamp() * 1000)


class Call(NamedTuple):
    """An authenticated request on its way to its handler; *arguments* are the variable parts of its path."""

    request: Request
    arguments: Mapping[str, str]
    rules: Sequence[EntryRule]


class _Route(NamedTuple):
    operation: Operation
    project_id: str
    arguments: Mapping[str, str]
    handler: Callable[[App, Call], Response]


# Method, resource below /v2/{project_id}/, operation, handler.
_ROUTES: tuple[tuple[str, re.Pattern[str], Operation, Callable[[App, Call], Response]], ...] = (
    ("POST", re.compile(r"records"), Operation.PUT_RECORDS, App.put_records),
    ("GET", re.compile(r"streams/(?P<stream_name>[^/]+)"), Operation.DESCRIBE_STREAM, App.describe_stream),
)


def _route(head: Head) -> _Route | None:
    path = _PATH.fullmatch(head.path)
    if path is None:
        return None
    for method, resource, operation, handler in _ROUTES:
        match = resource.fullmatch(path["resource"])
        if match is not None and method == head.method:
            return _Route(operation, path["project"], match.groupdict(), handler)
    return None


# -- PutRecords -----------------------------------------------------------------------------------------------------


def _check_stream(name: str, stream_id: str) -> None:
    if not (name or stream_id) or (name and not wire.STREAM_NAME.fullmatch(name)):
        raise RefusalError("DIS.4300", "Request error. Invalid stream_name.")


def _check_limits(entries: Sequence[ReceivedEntry]) -> None:
    if len(entries) > wire.MAX_REQUEST_RECORDS:
        raise RefusalError("DIS.4200", "Invalid request. Too many records.")
    for entry in entries:
        if not 0 < len(entry.data) <= wire.MAX_RECORD_BYTES:
            raise RefusalError("DIS.4200", "Invalid request. A record must have 1 byte to 1 MB of data.")


def _first_refusal(rules: Iterable[EntryRule], index: int, entry: ReceivedEntry) -> PutRecordsResultEntry | None:
    return next(filter(None, (rule.refuse(index, entry) for rule in rules)), None)


def _result(entry: ReceivedEntry, stored: StoredRecord | None) -> PutRecordsResultEntry:
    if stored is not None:
        return PutRecordsResultEntry(stored.partition_id, stored.sequence_number)
    code = "DIS.4201" if wire.partition_number(entry.partition_id or "") is None else "DIS.4302"
    return PutRecordsResultEntry(error_code=code, error_message=message_of(code))


# -- describe stream (API reference, Querying Details of a Stream) --------------------------------------------------


def _partition_after(value: str) -> int:
    """Returns the first partition to show after the one that *value* names, the very first for an empty one."""
    if not value:
        return 0
    number = wire.partition_number(value)
    if number is None:
        raise RefusalError("DIS.4201")
    return number + 1


def _partition_limit(value: str) -> int:
    if not value:
        return _DEFAULT_PARTITION_LIMIT
    limit = int(value) if re.fullmatch(r"[0-9]{1,4}", value) else 0
    if not 1 <= limit <= _MAX_PARTITION_LIMIT:
        raise RefusalError("DIS.4200", "Invalid request. limit_partitions must be 1 to 1000.")
    return limit


def _description(stream: StreamDescription, start: int, limit: int) -> dict[str, object]:
    count = len(stream.next_sequence_numbers)
    shown = range(start, min(count, start + limit))
    return {
        "stream_id": stream.stream_id,
        "stream_name": stream.name,
        "create_time": stream.created,
        "last_modified_time": stream.created,
        "retention_period": 24,
        "status": "RUNNING",
        "stream_type": "COMMON",
        "data_type": "BLOB",
        "writable_partition_count": count,
        "readable_partition_count": count,
        "partitions": [
            {
                "status": "ACTIVE",
                "partition_id": wire.partition_id(index),
                "hash_range": _hash_range(index, count),
                # The upper end is the next number, not the last one (assumed; only a sample exists).
                "sequence_number_range": f"[0 : {stream.next_sequence_numbers[index]}]",
            }
            for index in shown
        ],
        "has_more_partitions": start + limit < count,
        "auto_scale_enabled": False,
        "tags": [],
    }


def _hash_range(index: int, count: int) -> str:
    """Returns the hash keys that `wire.partition_index` gives to partition *index*, both ends included."""
    width = wire.MAX_HASH_KEY // count
    first = index * width + 1 if index else 0
    last = wire.MAX_HASH_KEY if index == count - 1 else (index + 1) * width
    return f"[{first} : {last}]"
