"""
The shapes of what is read and described, named as Huawei's own SDKs name them.

Apart from those of what is put, as most programs only log: nothing of this is imported before it is asked for.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class CursorType(str, Enum):
    """
    Where in a partition reading begins (API reference, Obtaining Data Cursors).

    `AT_SEQUENCE_NUMBER`: with that record. `AFTER_SEQUENCE_NUMBER`: with the one that follows it. `TRIM_HORIZON`: with the
    oldest that is left. `LATEST`: with the first that comes after the cursor was made. `AT_TIMESTAMP`: with the first that
    is not older than a time.
    """

    AT_SEQUENCE_NUMBER = "AT_SEQUENCE_NUMBER"
    AFTER_SEQUENCE_NUMBER = "AFTER_SEQUENCE_NUMBER"
    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"


class GetRecordsResultEntry(NamedTuple):
    """
    One record as consumers get it.

    Args:
        data: the payload, base64 undone.
        sequence_number: its decimal number within the partition.
        partition_key: None when the producer chose the partition by its id.
        timestamp: when it was made, in milliseconds since the epoch; None when the answer does not say.
    """

    data: bytes
    sequence_number: str
    partition_key: str | None = None
    timestamp: int | None = None

    @property
    def text(self) -> str:
        """The payload as text; what is not UTF-8 is shown as backslash escapes."""
        return self.data.decode("utf-8", "backslashreplace")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(sequence_number={self.sequence_number!r}, partition_key={self.partition_key!r}, "
            f"timestamp={self.timestamp!r})"
        )


class GetRecordsResult(NamedTuple):
    """
    The answer to one GetRecords request.

    Args:
        records: in the order of the partition; none when there is nothing new yet.
        next_partition_cursor: what to read next with, for five minutes; empty when there will never be more (assumed of
            a partition that was given up and is read to its end).
    """

    records: tuple[GetRecordsResultEntry, ...]
    next_partition_cursor: str


class PartitionDescription(NamedTuple):
    """
    One partition of a stream.

    Args:
        partition_id: ``"shardId-0000000000"``.
        status: ``"CREATING"``, ``"ACTIVE"``, ``"DELETED"`` (after scaling down: to be read, not to be written) or
            ``"EXPIRED"`` (nothing is left to be read).
        hash_range: which hash keys it owns, as DIS writes it: ``"[0 : 9223372036854775807]"``.
        sequence_number_range: which records it holds, as DIS writes it: ``"[289911 : 289927]"``.
        parent_partitions: the ids of those that it came from when the stream was scaled.
    """

    partition_id: str
    status: str = ""
    hash_range: str = ""
    sequence_number_range: str = ""
    parent_partitions: tuple[str, ...] = ()

    @property
    def is_readable(self) -> bool:
        """Whether consumers may read it."""
        return self.status in ("ACTIVE", "DELETED")


class StreamDescription(NamedTuple):
    """
    A stream, and one page of its partitions.

    Args:
        stream_name: its name.
        stream_id: its id, which another account needs.
        status: ``"CREATING"``, ``"RUNNING"``, ``"TERMINATING"``, ``"TERMINATED"`` or ``"FROZEN"``.
        stream_type: ``"COMMON"`` or ``"ADVANCED"``, which differ in their rates.
        retention_period: how long records are kept, in hours; None when the answer does not say.
        writable_partition_count: how many partitions are ACTIVE, those of other pages included; None likewise.
        partitions: those of this page, in the order of DIS.
        has_more_partitions: whether there is another page.
    """

    stream_name: str
    stream_id: str = ""
    status: str = ""
    stream_type: str = ""
    retention_period: int | None = None
    writable_partition_count: int | None = None
    partitions: tuple[PartitionDescription, ...] = ()
    has_more_partitions: bool = False
