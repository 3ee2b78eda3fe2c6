"""
The DIS v2 wire format, both ways: limits, error codes, JSON bodies, partition hashing. No I/O, no clock, no threads.

The client encodes requests and decodes answers; the emulator does the reverse with the other half.
Facts come from the DIS API reference ("Uploading Data", "Error Codes"), the product's FAQ and user guide, and Huawei's
SDKs; each is named where it is used. Nothing here was tried against the live service.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from json.encoder import encode_basestring_ascii
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dis_logging.client.models import (
    PutRecordsRequestEntry,
    PutRecordsResult,
    PutRecordsResultEntry,
    Refusals,
)
from dis_logging.errors import ProtocolError, ServiceError
from dis_logging.escaping import escape

if TYPE_CHECKING:
    from dis_logging.client.read_models import GetRecordsResult, GetRecordsResultEntry

# Basic Concepts (dis_07_0007): 1 MB for one record, before base64. No source says whether that is 10**6 or 2**20;
# every official client's constants use 2**20.
MAX_RECORD_BYTES = 1024 * 1024
# User guide, Precautions (dis_01_0006): 5 MB for one request. Whether raw or encoded is not stated; holding the encoded
# body to it satisfies both readings.
MAX_BODY_BYTES = 5 * 1024 * 1024
# The hard maximum of Huawei's own agent; the API reference gives no number.
MAX_REQUEST_RECORDS = 10_000
# FAQ, "What is a partition?": what one of a common stream takes in a second, whichever is reached first; bytes before base64.
COMMON_RATE_RECORDS = 1000
COMMON_RATE_BYTES = 1024 * 1024
# API reference, Querying Details of a Stream: limit_partitions is 1 to 1000.
MAX_PARTITIONS = 1000
# DIS Python SDK, getRecords: what it asks for; the Java SDK marks the parameter as no longer effective.
DEFAULT_FETCH_RECORDS = 1000
MAX_FETCH_RECORDS = 10_000
# API reference, Obtaining Data Cursors: a cursor has 1 to 512 characters.
MAX_CURSOR_LENGTH = 512
# API reference, Creating a Stream (the page Uploading Data says 60). Patterns are compiled when they are first used, so that
# the package is imported quickly.
_STREAM_NAME = r"[A-Za-z0-9_-]{1,64}"
# API reference, Uploading Data: explicit_hash_key and sequence numbers.
MAX_HASH_KEY = 9223372036854775807
# API reference, Uploading Data: "shardId-0000000000" or "0".
_PARTITION_ID = r"(?:shardId-)?0*(?P<number>[0-9]{1,10})"

CONTENT_TYPE = "application/json; charset=utf-8"

_MESSAGE_LIMIT = 300


class Routing(NamedTuple):
    """What places a record besides its partition key; a field that is None or empty is not set."""

    explicit_hash_key: str | None = None
    partition_id: str | None = None
    timestamp: int | None = None


_NOWHERE_ELSE = Routing()

if TYPE_CHECKING:
    from typing_extensions import Unpack

    #: An entry to be encoded: any tuple that begins with its data, its partition key (empty: none) and its routing.
    #: By position, because it is done for every log record.
    WireEntry = tuple[bytes, str, Routing | None, Unpack[tuple[Any, ...]]]

_key_of = itemgetter(1)
_routing_of = itemgetter(2)


# -- requests -------------------------------------------------------------------------------------------------------


def wire_entry(entry: PutRecordsRequestEntry) -> WireEntry:
    """Returns *entry* as it is encoded."""
    data = entry.data.encode() if isinstance(entry.data, str) else entry.data
    routing = Routing(entry.explicit_hash_key, entry.partition_id, entry.timestamp)
    return data, entry.partition_key or "", routing if any(field is not None for field in routing) else None


def encode_put_records(stream_name: str, entries: Sequence[WireEntry], stream_id: str = "") -> bytes:
    """
    Returns the JSON body of a PutRecords request.

    Optional fields that are not set are left out (API reference, Uploading Data: null and "" mean "not set").
    """
    head: dict[str, str] = {"stream_name": stream_name}
    if stream_id:
        head["stream_id"] = stream_id
    to_base64, tails = binascii.b2a_base64, _Tails()
    opening = json.dumps(head)[:-1].encode() + b',"records":['
    data = [to_base64(entry[0], newline=False) for entry in entries]
    if not data:
        return opening + b"]}"
    pieces = [b""] * (2 * len(data))
    pieces[0::2] = data
    if any(map(_routing_of, entries)):
        pieces[1::2] = [tails[entry[1] if entry[2] is None else entry[1:3]] for entry in entries]
    else:
        pieces[1::2] = map(tails.__getitem__, map(_key_of, entries))
    pieces[-1] = pieces[-1].removesuffix(_BETWEEN)
    return b"".join((opening, b'{"data":"', *pieces, b"]}"))


_BETWEEN = b',{"data":"'


class _Tails(dict[Any, bytes]):
    """What stands between two data, by the key of the first, or its key and routing: made once in each request."""

    def __missing__(self, place: str | tuple[str, Routing]) -> bytes:
        key, routing = (place, _NOWHERE_ELSE) if isinstance(place, str) else place
        tail = self[place] = _encode_tail(key, routing)
        return tail


def _encode_tail(partition_key: str, routing: Routing) -> bytes:
    if routing == _NOWHERE_ELSE:
        # Thousands of loggers make thousands of these in each request; the encoder's own function is the quickest.
        name = (
            b',"partition_key":' + encode_basestring_ascii(valid_text(partition_key)).encode() if partition_key else b""
        )
        return b'"' + name + b"}" + _BETWEEN
    fields: dict[str, str | int] = {}
    if partition_key:
        fields["partition_key"] = valid_text(partition_key)
    if routing.explicit_hash_key:
        fields["explicit_hash_key"] = routing.explicit_hash_key
    if routing.partition_id:
        fields["partition_id"] = routing.partition_id
    if routing.timestamp is not None:
        fields["timestamp"] = routing.timestamp
    return b'"' + (b"," + json.dumps(fields)[1:].encode() if fields else b"}") + _BETWEEN


def valid_text(text: str) -> str:
    """Returns *text* without lone surrogates, which have no UTF-8 form for DIS to hash: they become escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


#: What a record adds to a JSON body at most: 4/3 of its data, this for each character of its key (escaped, beyond the
#: Basic Multilingual Plane), and this for what encloses them, its routing included.
KEY_CHARACTER_BYTES = 12
ENTRY_MARGIN = 150


class MalformedRequestError(ValueError):
    """A request body that DIS would refuse; *code* is the DIS code that the emulator answers with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PutRecordsRequest(NamedTuple):
    """A decoded PutRecords request; the entries' data are bytes."""

    stream_name: str
    stream_id: str
    entries: tuple[PutRecordsRequestEntry, ...]


def decode_put_records(body: bytes) -> PutRecordsRequest:
    """
    Returns the request in a JSON body.

    Raises:
        MalformedRequestError: with DIS.4300 for a body that cannot be read, DIS.4202 for one without records.
    """
    document = load_object(body)
    if document is None:
        raise MalformedRequestError("DIS.4300", "Request error.")
    records = document.get("records")
    if records is None or records == []:
        raise MalformedRequestError("DIS.4202", "Empty request.")
    if not isinstance(records, list):
        raise MalformedRequestError("DIS.4300", "Request error. records must be a list.")
    entries = tuple(_decode_request_entry(record) for record in records)
    return PutRecordsRequest(text_field(document, "stream_name"), text_field(document, "stream_id"), entries)


def _decode_request_entry(record: object) -> PutRecordsRequestEntry:
    if not isinstance(record, dict):
        raise MalformedRequestError("DIS.4300", "Request error. A record must be an object.")
    data = record.get("data")
    if not isinstance(data, str):
        raise MalformedRequestError("DIS.4300", "Request error. data must be a string.")
    try:
        payload = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedRequestError("DIS.4300", "Request error. data must be base64.") from None
    timestamp = record.get("timestamp")
    return PutRecordsRequestEntry(
        data=payload,
        partition_key=text_field(record, "partition_key") or None,
        explicit_hash_key=text_field(record, "explicit_hash_key") or None,
        partition_id=text_field(record, "partition_id") or None,
        timestamp=timestamp if isinstance(timestamp, int) else None,
    )


def text_field(fields: Mapping[str, object], name: str) -> str:
    """
    Returns a string of a JSON request, empty when it is null or left out.

    Raises:
        MalformedRequestError: when it is something else.
    """
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        # The Java SDK's request model carries the service's own deserialisers, which take strings only.
        raise MalformedRequestError("DIS.4300", f"Request error. {name} must be a string.")
    # A lone surrogate is valid JSON but no text; Java, in which DIS is written, encodes it as a question mark.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


# -- results --------------------------------------------------------------------------------------------------------


def encode_put_records_result(result: PutRecordsResult) -> bytes:
    """Returns the JSON body of a PutRecords answer; error fields are left out of stored records."""
    records = [
        {"error_code": entry.error_code, "error_message": entry.error_message}
        if entry.error_code
        else {"partition_id": entry.partition_id, "sequence_number": entry.sequence_number}
        for entry in result.records
    ]
    return json.dumps({"failed_record_count": result.failed_record_count, "records": records}).encode()


def decode_put_records_result(body: bytes, expected: int) -> PutRecordsResult:
    """
    Returns the result in the JSON body of a 200 answer to a request of *expected* records.

    Raises:
        ProtocolError: when the body is not a complete result for exactly that many records.
    """
    entries = tuple(decode_result_entry(record) for record in _result_records(body, expected))
    return PutRecordsResult(sum(1 for entry in entries if entry.error_code), entries)


def decode_refusals(body: bytes, expected: int) -> Refusals:
    """
    Returns only the refused records of an answer; every entry is checked all the same.

    Raises:
        ProtocolError: as `decode_put_records_result` does.
    """
    count = _count_stored(body)
    if count:  # the short way for what nearly every answer is
        check_result_count(count, expected)
        return Refusals()
    return refusals_among([decode_result_entry(record) for record in _result_records(body, expected)])


# How an answer without any refusal begins, in the forms that JSON libraries write, with nothing in it that would have to be
# unescaped.
_FIRST_STORED = (
    rb'[ \t\r\n]*\{"failed_record_count": ?0, ?"records": ?\[(?P<opening>\{"partition_id": ?")(?P<partition>[\w-]+)'
    rb'(?P<middle>", ?"sequence_number": ?")\d+"\}(?P<comma>, ?)?'
)
_END_STORED = b'"}]}'
_DIGITS = b"0123456789"


@cache  # compiled with the first answer, so that importing the package does not wait for it
def _first_stored() -> re.Pattern[bytes]:
    return re.compile(_FIRST_STORED)


def _count_stored(body: bytes) -> int:
    """
    Returns how many results an answer has if all say that a record is stored, in the form of the first; else 0.

    Looks at all of them together, which takes a third of the time of building their objects, and little memory.
    """
    first, body = _first_stored().match(body), body.rstrip(b" \t\r\n")
    if first is None or not body.endswith(_END_STORED):
        return 0
    middle, between = first["middle"], b'"}' + (first["comma"] or b",") + first["opening"]
    count = body.count(middle)
    # Without the digits all of them must look alike, and what stands between partitions and numbers must hold none.
    name = first["partition"].translate(None, _DIGITS)
    alike = (name + middle + between) * (count - 1) + name + middle + _END_STORED
    if body[first.start("partition") :].translate(None, _DIGITS) != alike or body.count(between) != count - 1:
        return 0
    says_nothing = not name and middle + b'"' in body
    return 0 if says_nothing else count


def refusals_among(entries: Sequence[PutRecordsResultEntry]) -> Refusals:
    """Returns those of all *entries* of an answer that were refused."""
    refusals = Refusals((index, entry) for index, entry in enumerate(entries) if entry.error_code)
    if refusals:
        refusals.partition_ids = [entry.partition_id for entry in entries]
    return refusals


def _result_records(body: bytes, expected: int) -> list[Any]:
    document = load_object(body)
    if document is None:
        raise ProtocolError("DIS answered 200, but the body is not a JSON object", status=200)
    records = document.get("records")
    if not isinstance(records, list):
        raise ProtocolError("DIS answered 200, but the body has no list of records", status=200)
    check_result_count(len(records), expected)
    return records


def check_result_count(count: int, expected: int) -> None:
    """Raises `ProtocolError` unless an answer has as many results as its request had records."""
    if count != expected:
        raise ProtocolError(f"DIS answered 200 with {count} results for {expected} records", status=200)


def decode_result_entry(record: object) -> PutRecordsResultEntry:
    """
    Returns one result of an answer, its texts cleaned; a field that is None or "" is not set.

    Raises:
        ProtocolError: when it is no mapping of strings, or says nothing.
    """
    if not isinstance(record, dict):
        raise ProtocolError("DIS answered 200, but a result is not an object", status=200)
    fields = {}
    for name in ("partition_id", "sequence_number", "error_code", "error_message"):
        value = record.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and name == "sequence_number":
            value = str(value)
        if not (value is None or isinstance(value, str)):
            raise ProtocolError(f"DIS answered 200, but {name} of a result is not a string", status=200)
        fields[name] = escape(value, _MESSAGE_LIMIT) if value else ""
    entry = PutRecordsResultEntry(**fields)
    # An entry that says neither where it was stored nor why it was not says nothing; taking it for an
    # acknowledgement could lose the record.
    if not (entry.error_code or entry.sequence_number or entry.partition_id):
        raise ProtocolError("DIS answered 200, but a result carries neither a sequence number nor an error", status=200)
    return entry


if TYPE_CHECKING:

    class WireRecord(Protocol):
        """What a stored record must offer to be encoded in a GetRecords answer; a partition key of None is left out."""

        @property
        def data(self) -> bytes: ...
        @property
        def partition_key(self) -> str | None: ...
        @property
        def sequence_number(self) -> str: ...
        @property
        def timestamp(self) -> int: ...


# API reference, Downloading Data: the only value of timestamp_type.
TIMESTAMP_TYPE = "CreateTime"


def encode_get_records_result(records: Iterable[WireRecord], next_partition_cursor: str) -> bytes:
    """Returns the JSON body of a GetRecords answer (API reference, Downloading Data)."""
    encoded = [_encode_record(record) for record in records]
    return json.dumps({"records": encoded, "next_partition_cursor": next_partition_cursor}).encode()


def _encode_record(record: WireRecord) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        "sequence_number": record.sequence_number,
        "data": base64.b64encode(record.data).decode(),
        "timestamp": record.timestamp,
        "timestamp_type": TIMESTAMP_TYPE,
    }
    return fields if record.partition_key is None else {"partition_key": record.partition_key, **fields}


def decode_get_records_result(body: bytes) -> GetRecordsResult:
    """
    Returns what a GetRecords answer holds (API reference, Downloading Data).

    Raises:
        ProtocolError: when the body is not a complete result.
    """
    from dis_logging.client.read_models import GetRecordsResult  # see there

    document = load_object(body)
    records = None if document is None else document.get("records")
    if document is None or not isinstance(records, list):
        raise ProtocolError("DIS answered 200, but the body has no list of records", status=200)
    entries = tuple(map(_decode_record, records))
    return GetRecordsResult(entries, optional_text(document, "next_partition_cursor"))


def _decode_record(record: object) -> GetRecordsResultEntry:
    from dis_logging.client.read_models import GetRecordsResultEntry

    if not isinstance(record, dict) or not isinstance(record.get("data"), str):
        raise ProtocolError("DIS answered 200, but a record has no data", status=200)
    try:
        data = base64.b64decode(record["data"], validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("DIS answered 200, but the data of a record is not base64", status=200) from None
    number = optional_text(record, "sequence_number")
    if not number:
        raise ProtocolError("DIS answered 200, but a record has no sequence number", status=200)
    # No source says that a partition key can be empty; DIS treats one in a request as none.
    key = optional_text(record, "partition_key") or None
    return GetRecordsResultEntry(data, number, key, optional_number(record, "timestamp"))


def optional_text(fields: Mapping[str, object], name: str) -> str:
    """
    Returns a string of an answer, empty when it is null or left out; a number counts as its text.

    Raises:
        ProtocolError: when it is something else.
    """
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ProtocolError(f"DIS answered 200, but {name} is not a string", status=200)
    return str(value)


def optional_number(fields: Mapping[str, object], name: str) -> int | None:
    """
    Returns a whole number of an answer, None when it is null or left out; an example of the API reference has a string.

    Raises:
        ProtocolError: when it is something else.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError(f"DIS answered 200, but {name} is not a whole number", status=200)
    return value


# -- errors ---------------------------------------------------------------------------------------------------------

_CODE_NAMES = ("errorCode", "error_code", "code")
_MESSAGE_NAMES = ("message", "errorMsg", "error_msg", "errorMessage", "error_message")
_REQUEST_ID_NAMES = ("request_id", "RequestId", "requestId")


def decode_error(status: int, body: bytes, request_id: str = "", retry_after: float | None = None) -> ServiceError:
    """
    Returns what a refusal says, whichever of the known forms its body has.

    DIS's own SDKs expect ``errorCode`` and ``message``, the API reference and the gateway ``error_code`` and
    ``error_msg``; huaweicloudsdkcore also looks into nested objects. Anything else is shown as text.
    """
    document = load_object(body)
    if document is None:
        text = body[: 4 * _MESSAGE_LIMIT].decode("utf-8", "replace").strip()
        return ServiceError(status, "", escape(text, _MESSAGE_LIMIT), escape(request_id, _MESSAGE_LIMIT), retry_after)
    return ServiceError(
        status,
        escape(_find(document, _CODE_NAMES), 64),
        escape(_find(document, _MESSAGE_NAMES), _MESSAGE_LIMIT),
        escape(request_id or _find(document, _REQUEST_ID_NAMES), _MESSAGE_LIMIT),
        retry_after,
    )


def encode_error(code: str, message: str, *, gateway: bool = False, request_id: str = "") -> bytes:
    """Returns the body of a refusal in DIS's own form, or in the API gateway's."""
    if gateway:
        return json.dumps({"error_code": code, "error_msg": message, "request_id": request_id}).encode()
    return json.dumps({"errorCode": code, "message": message}).encode()


def _find(document: Mapping[str, object], names: Sequence[str], depth: int = 4) -> str:
    for name in names:
        value = document.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    nested = (value for value in document.values() if isinstance(value, dict))
    return next(filter(None, (_find(value, names, depth - 1) for value in nested)), "") if depth else ""


def load_object(body: bytes) -> dict[str, Any] | None:
    """Returns the JSON object in *body*, None when there is something else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # not JSON or not UTF-8, an endless number, nested without end
        return None
    return document if isinstance(document, dict) else None


# -- partitions -----------------------------------------------------------------------------------------------------


def hash_partition_key(partition_key: str) -> int:
    """Returns the place of *partition_key* in 0..`MAX_HASH_KEY` (Java SDK PartitionKeyUtils)."""
    digest = hashlib.md5(partition_key.encode("utf-8", "backslashreplace"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") & MAX_HASH_KEY


def partition_index(hash_key: int, partitions: int) -> int:
    """
    Returns which of *partitions* ACTIVE partitions of a stream that was never scaled owns *hash_key*.

    The formula of the Java SDK, which yields *partitions* itself at the very top of the range; clamped here.
    """
    width = MAX_HASH_KEY // partitions
    index = hash_key // width
    if index > 0 and hash_key % width == 0:
        index -= 1
    return min(index, partitions - 1)


def is_hash_key(text: str) -> bool:
    """Returns whether *text* is an explicit hash key: a decimal number from 0 to `MAX_HASH_KEY`."""
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_HASH_KEY


def is_stream_name(text: str) -> bool:
    """Returns whether *text* may be the name of a stream."""
    return re.fullmatch(_STREAM_NAME, text) is not None


def is_partition_id(text: str) -> bool:
    """Returns whether *text* is a partition id of either form."""
    return re.fullmatch(_PARTITION_ID, text) is not None


def partition_id(number: int) -> str:
    """Returns the id of partition *number*: ``shardId-`` and ten digits."""
    return f"shardId-{number:010d}"


def partition_number(identifier: str) -> int | None:
    """Returns the number in a partition id of either form, or None when it is neither."""
    match = re.fullmatch(_PARTITION_ID, identifier)
    return int(match["number"]) if match else None
