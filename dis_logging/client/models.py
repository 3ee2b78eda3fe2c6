"""The shapes of what is put, named as Huawei's own SDKs name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dis_logging.frozen import Frozen, set_field


@dataclass(init=False, repr=False, eq=False)
class PutRecordsRequestEntry(Frozen):
    """
    One record to upload.

    The service picks the partition by the first of these that is set: *partition_id*, *explicit_hash_key*, the hash of
    *partition_key*, and else spreads records evenly (API reference, Uploading Data).

    Args:
        data: the payload before base64, 1 byte to 1 MiB; a `str` is sent as UTF-8.
        partition_key: text that DIS hashes to pick a partition; consumers get it back.
        explicit_hash_key: a decimal integer from 0 to 9223372036854775807 in a string; replaces that hash.
        partition_id: ``"shardId-0000000000"`` or ``"0"``; consumers get no partition key then.
        timestamp: creation time in milliseconds since the epoch; known to the Java SDK only, not to the API reference.
    """

    __slots__ = ("data", "partition_key", "explicit_hash_key", "partition_id", "timestamp")  # noqa: RUF023 - their order
    _hidden = frozenset({"data"})

    data: bytes | str
    partition_key: str | None
    explicit_hash_key: str | None
    partition_id: str | None
    timestamp: int | None

    def __init__(
        self,
        data: bytes | str,
        partition_key: str | None = None,
        explicit_hash_key: str | None = None,
        partition_id: str | None = None,
        timestamp: int | None = None,
    ) -> None:
        set_field(self, "data", data)
        set_field(self, "partition_key", partition_key)
        set_field(self, "explicit_hash_key", explicit_hash_key)
        set_field(self, "partition_id", partition_id)
        set_field(self, "timestamp", timestamp)


@dataclass(init=False, repr=False, eq=False)
class PutRecordsResultEntry(Frozen):
    """
    What became of one record.

    Args:
        partition_id: where it was stored, ``"shardId-0000000000"``; empty when it was refused.
        sequence_number: its decimal number within the partition; empty when it was refused.
        error_code: DIS's code, such as ``"DIS.4303"``; empty when the record was stored.
        error_message: DIS's text, cleaned of control characters; empty when the record was stored.
    """

    __slots__ = ("partition_id", "sequence_number", "error_code", "error_message")  # noqa: RUF023 - their order

    partition_id: str
    sequence_number: str
    error_code: str
    error_message: str

    def __init__(
        self, partition_id: str = "", sequence_number: str = "", error_code: str = "", error_message: str = ""
    ) -> None:
        set_field(self, "partition_id", partition_id)
        set_field(self, "sequence_number", sequence_number)
        set_field(self, "error_code", error_code)
        set_field(self, "error_message", error_message)

    def __str__(self) -> str:
        return (
            f"PutRecordsResultEntry [shardId={self.partition_id}, sequenceNumber={self.sequence_number}, "
            f"errorCode={self.error_code}, errorMessage={self.error_message}]"
        )


class Refusals(dict[int, PutRecordsResultEntry]):
    """
    The refused entries of one request, by their index in it; empty when all were stored.

    Attributes:
        partition_ids: where each entry of the request was stored, ``""`` for a refused one; empty when none was refused,
            since it is read only to find out which partition is too busy.
    """

    partition_ids: Sequence[str] = ()


@dataclass(init=False, repr=False, eq=False)
class PutRecordsResult(Frozen):
    """
    The answer to one PutRecords request.

    Args:
        failed_record_count: how many of *records* carry an error code, counted here; the service's own total is not
            trusted.
        records: one entry for each record of the request, in the request's order.
    """

    __slots__ = ("failed_record_count", "records")

    failed_record_count: int
    records: tuple[PutRecordsResultEntry, ...]

    def __init__(self, failed_record_count: int, records: tuple[PutRecordsResultEntry, ...]) -> None:
        set_field(self, "failed_record_count", failed_record_count)
        set_field(self, "records", records)
