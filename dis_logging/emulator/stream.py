"""One stream: where its entries go, and what its partitions still hold. Not safe by itself: `Store` holds a lock around it."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from dis_logging.client import wire
from dis_logging.emulator.messages import ReceivedEntry
from dis_logging.emulator.throttle import Bucket

_HASH_KEY = re.compile(r"[0-9]{1,19}")


class StoredRecord(NamedTuple):
    """
    What a partition holds for one entry.

    Args:
        data: the payload.
        partition_key: as sent, None when the entry had none.
        partition_id: where it is, ``"shardId-0000000000"``.
        sequence_number: its decimal number within the partition, from ``"0"``.
        timestamp: milliseconds since the epoch, as sent, else those of its arrival.
    """

    data: bytes
    partition_key: str | None
    partition_id: str
    sequence_number: str
    timestamp: int

    @property
    def text(self) -> str:
        """The data as UTF-8, with replacement characters for what is not."""
        return self.data.decode("utf-8", "replace")


class StreamSettings(NamedTuple):
    """
    What a stream is created with; the emulator only shows it, except that the type decides the rates.

    Args:
        stream_type: ``"COMMON"`` or ``"ADVANCED"``.
        data_type: ``"BLOB"``, ``"JSON"`` or ``"CSV"``.
        retention_period: hours, 24 to 72.
    """

    stream_type: str = "COMMON"
    data_type: str = "BLOB"
    retention_period: int = 24


@dataclass(slots=True)
class Partition:
    """
    The records of one partition, the oldest forgotten when there are more than are to be kept.

    Args:
        retention: how many records to keep.
        bucket: limits the rate, None for no limit.
        first: number of the oldest record that is still there, or of the next one when there is none.
        records: what is there, each with its place in the order of arrival over all streams.
    """

    retention: int
    bucket: Bucket | None = None
    first: int = 0
    records: deque[tuple[int, StoredRecord]] = field(default_factory=deque)

    @property
    def next(self) -> int:
        """The number that the next record will get."""
        return self.first + len(self.records)

    def append(self, arrival: int, record: StoredRecord) -> None:
        """Adds a record, which must carry the number *next*."""
        self.records.append((arrival, record))
        if len(self.records) > self.retention:
            self.records.popleft()
            self.first += 1

    def since(self, timestamp: int) -> int:
        """Returns the number of the first record that is not older than *timestamp*, *next* when there is none."""
        later = (index for index, (_, record) in enumerate(self.records) if record.timestamp >= timestamp)
        return self.first + next(later, len(self.records))

    def read(self, number: int, limit: int, max_bytes: int) -> list[StoredRecord]:
        """Returns at most *limit* records from *number* on, of at most *max_bytes* together."""
        found: list[StoredRecord] = []
        for _, record in islice(self.records, number - self.first, number - self.first + limit):
            max_bytes -= len(record.data)
            if max_bytes < 0:
                break
            found.append(record)
        return found


@dataclass(slots=True)
class Stream:
    """A stream and its partitions; *created* is in milliseconds since the epoch."""

    name: str
    stream_id: str
    created: int
    settings: StreamSettings
    partitions: list[Partition]
    turn: int = 0

    def choose(self, entry: ReceivedEntry) -> int | None:
        """
        Returns the index of the partition for *entry*, None when it names one that does not exist.

        The precedence is that of the API reference, "Uploading Data"; an explicit hash key out of range falls to the
        partition key as in the Java SDK. Without any key DIS spreads evenly: in turn here, which tests can predict.
        """
        count = len(self.partitions)
        if entry.partition_id:
            number = wire.partition_number(entry.partition_id)
            return number if number is not None and number < count else None
        if entry.explicit_hash_key and _HASH_KEY.fullmatch(entry.explicit_hash_key):
            hash_key = int(entry.explicit_hash_key)
            if hash_key <= wire.MAX_HASH_KEY:
                return wire.partition_index(hash_key, count)
        if entry.partition_key:
            return wire.partition_index(wire.hash_partition_key(entry.partition_key), count)
        index = self.turn % count
        self.turn += 1
        return index
