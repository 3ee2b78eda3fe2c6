"""PutRecords (API reference, Uploading Data): checks a batch, has it stored and says what became of each entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dis_logging.client import wire
from dis_logging.client.models import PutRecordsResult, PutRecordsResultEntry
from dis_logging.emulator.call import Call, EntryRule
from dis_logging.emulator.messages import ReceivedEntry, RefusalError, Response, message_of
from dis_logging.emulator.store import Rejection
from dis_logging.emulator.stream import StoredRecord

_TIMESTAMPS = range(-(2**63), 2**63)  # int64 in record.proto of the SDKs


def put_records(call: Call) -> Response:
    """Stores a batch, but for the entries that a rule refuses."""
    batch = call.request.batch
    _check_stream(batch.stream_name, batch.stream_id)
    _check_entries(batch.entries)
    results = [_first_refusal(call.rules, index, entry) for index, entry in enumerate(batch.entries)]
    wanted = [entry for entry, refused in zip(batch.entries, results, strict=True) if refused is None]
    placed = iter(call.store.append(batch.stream_name, batch.stream_id, wanted, call.now))
    records = tuple(
        _result(entry, next(placed)) if refused is None else refused
        for entry, refused in zip(batch.entries, results, strict=True)
    )
    codes = tuple(record.error_code for record in records if record.error_code)
    messages = call.request.messages
    body = messages.encode_put_records_result(PutRecordsResult(len(codes), records))
    return Response.in_format(messages, body, entry_codes=codes)


def _check_stream(name: str, stream_id: str) -> None:
    if not (name or stream_id) or (name and not wire.is_stream_name(name)):
        raise RefusalError("DIS.4300", "Request error. Invalid stream_name.")


def _check_entries(entries: Sequence[ReceivedEntry]) -> None:
    if len(entries) > wire.MAX_REQUEST_RECORDS:
        raise RefusalError("DIS.4200", "Invalid request. Too many records.")
    for entry in entries:
        if not 0 < len(entry.data) <= wire.MAX_RECORD_BYTES:
            raise RefusalError("DIS.4200", "Invalid request. A record must have 1 byte to 1 MB of data.")
        if entry.timestamp is not None and entry.timestamp not in _TIMESTAMPS:
            raise RefusalError("DIS.4300", "Request error. Invalid timestamp.")


def _first_refusal(rules: Iterable[EntryRule], index: int, entry: ReceivedEntry) -> PutRecordsResultEntry | None:
    return next(filter(None, (rule.refuse(index, entry) for rule in rules)), None)


def _result(entry: ReceivedEntry, placed: StoredRecord | Rejection) -> PutRecordsResultEntry:
    if isinstance(placed, StoredRecord):
        return PutRecordsResultEntry(placed.partition_id, placed.sequence_number)
    if placed is Rejection.RATE_EXCEEDED:
        code = "DIS.4303"
    else:
        code = "DIS.4201" if wire.partition_number(entry.partition_id or "") is None else "DIS.4302"
    return PutRecordsResultEntry(error_code=code, error_message=message_of(code))
