"""Streams, partitions and sequence numbers: what the emulator has stored. Knows no HTTP; safe to use from any thread."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from dis_logging.client import wire
from dis_logging.emulator.consumers import Consumers
from dis_logging.emulator.messages import ReceivedEntry
from dis_logging.emulator.stream import Partition, Stream, StreamSettings
from dis_logging.emulator.stream import StoredRecord as StoredRecord
from dis_logging.emulator.throttle import RATES, Bucket

if TYPE_CHECKING:
    from dis_logging.emulator.records_file import RecordsFile

DEFAULT_RETENTION = 100_000

# Whoever makes and deletes streams in a loop must not fill the memory.
_MAX_DELETED_STREAMS = 100

# Records with their places in the order of arrival over all streams.
Arrivals = deque[tuple[int, "StoredRecord"]]


class UnknownStreamError(LookupError):
    """There is no stream of that name or id."""


class UnknownPartitionError(LookupError):
    """The stream has no partition of that number."""


class StreamExistsError(ValueError):
    """There is a stream of that name already."""


class ExpiredRecordError(LookupError):
    """The record to begin with has given way to newer ones."""


class Rejection(Enum):
    """Why an entry was not stored."""

    NO_PARTITION = "it names a partition that does not exist"
    RATE_EXCEEDED = "its partition takes no more at the moment"


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """A stream at one moment; *first* and *next* sequence numbers have one for each partition, in their order."""

    name: str
    stream_id: str
    created: int
    settings: StreamSettings
    first_sequence_numbers: tuple[int, ...]
    next_sequence_numbers: tuple[int, ...]

    @property
    def partition_count(self) -> int:
        """How many partitions the stream has."""
        return len(self.next_sequence_numbers)


class PartitionDescription(NamedTuple):
    """
    A partition at one moment.

    Args:
        stream_id: of its stream.
        number: its own.
        first: number of the oldest record that is still there.
        next: number that the next record will get.
        expired_until: milliseconds since the epoch; records up to then have given way to newer ones. 0 when none has.
        retention_period: hours, as the stream was created.
    """

    stream_id: str
    number: int
    first: int
    next: int
    expired_until: int
    retention_period: int


class Store:
    """
    All streams of an emulator. Every method may be called from any thread.

    Args:
        on_change: called after every change, with no lock held.
        retention: how many records each partition keeps, 1 or more; older ones give way.
        throttle_clock: makes partitions take no more than DIS does; returns seconds, never running backwards.
        new_stream_partitions: how many a stream gets that the first batch for it creates; None: a batch creates none.
        file: where everything is kept as well, None for nowhere. It is written before memory changes.

    Attributes:
        consumers: the apps that read, and how far they are.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        retention: int = DEFAULT_RETENTION,
        throttle_clock: Callable[[], float] | None = None,
        new_stream_partitions: int | None = None,
        file: RecordsFile | None = None,
    ) -> None:
        self._on_change = on_change
        self._retention = retention
        self._throttle_clock = throttle_clock
        self._new_stream_partitions = new_stream_partitions
        self._file = file
        self.consumers = Consumers(file)
        self._lock = threading.Lock()  # guards all below, and every stream in it
        self._streams: dict[str, Stream] = {}
        # What deleted streams held, by their names: what was stored must stay accountable.
        self._past: deque[tuple[str, list[Arrivals]]] = deque(maxlen=_MAX_DELETED_STREAMS)
        self._arrivals = 0

    def open(self) -> None:
        """Opens the file, if there is one, and continues with what is in it."""
        if self._file is None:
            return
        self._file.open()
        with self._lock:
            self._streams = {stream.name: stream for stream in self._file.streams(self._new_partition)}
            partitions = chain.from_iterable(stream.partitions for stream in self._streams.values())
            newest = max((partition.records[-1][0] for partition in partitions if partition.records), default=-1)
            self._arrivals = max(self._arrivals, newest + 1)
        self.consumers.load()

    def close(self) -> None:
        """Closes the file, if there is one; changes open it again for a moment."""
        if self._file is not None:
            self._file.close()

    def create_stream(self, name: str, partitions: int, now: int, settings: StreamSettings | None = None) -> None:
        """
        Adds an empty stream.

        Raises:
            ValueError: when the name is none that DIS allows, or there would be no partition.
            StreamExistsError: when the name is taken.
        """
        if not wire.is_stream_name(name):
            raise ValueError(f"stream name {name!r} is not 1 to 64 letters, digits, '_' or '-'")
        if partitions < 1:
            raise ValueError(f"stream {name!r} needs at least 1 partition, not {partitions!r}")
        settings = settings or StreamSettings()
        # Shaped like the ids in the API reference's examples: 20 letters and digits.
        stream_id = uuid.uuid4().hex[:20]
        with self._lock:
            if name in self._streams:
                raise StreamExistsError(f"stream {name!r} exists already")
            stream = Stream(name, stream_id, now, settings, [self._new_partition(settings) for _ in range(partitions)])
            if self._file is not None:
                self._file.add_stream(stream)
            self._streams[name] = stream
        self._on_change()

    def delete_stream(self, name: str) -> None:
        """
        Removes a stream and the checkpoints on it; `records` still tells what it held.

        Raises:
            UnknownStreamError: when there is none of that name.
        """
        with self._lock:
            stream = self._find(name, "")
            if self._file is not None:
                self._file.delete_stream(stream.stream_id)
            del self._streams[stream.name]
            self._past.append((stream.name, [partition.records for partition in stream.partitions]))
        self.consumers.forget_stream(stream.stream_id)
        self._on_change()

    def clear(self) -> None:
        """Removes all streams, and what `records` tells of them."""
        for name in self.stream_names():
            self.delete_stream(name)
        with self._lock:
            self._past.clear()

    def append(
        self, name: str, stream_id: str, entries: Sequence[ReceivedEntry], now: int
    ) -> list[StoredRecord | Rejection]:
        """
        Stores a batch in one step and returns what became of each entry, in order.

        Raises:
            UnknownStreamError: when neither *name* nor *stream_id* is known; nothing is stored.
        """
        if self._new_stream_partitions is not None and name and not stream_id and name not in self.stream_names():
            with suppress(StreamExistsError):  # another batch may have come first
                self.create_stream(name, self._new_stream_partitions, now)
        with self._lock:
            stream = self._find(name, stream_id)
            outcome = self._place(stream, entries, now)
            placed = [
                (index, arrival, record)
                for arrival, (index, record) in enumerate(outcome, self._arrivals)
                if isinstance(record, StoredRecord)
            ]
            if self._file is not None and placed:
                self._file.append(stream.stream_id, placed, self._retention)
            self._arrivals += len(outcome)
            for index, arrival, record in placed:
                stream.partitions[index].append(arrival, record)
        self._on_change()
        return [record for _, record in outcome]

    def describe(self, name: str, stream_id: str = "") -> StreamDescription:
        """
        Returns the stream called *name*, else the one with the id *stream_id*.

        Raises:
            UnknownStreamError: when there is neither.
        """
        with self._lock:
            return _description(self._find(name, stream_id))

    def streams(self) -> tuple[StreamDescription, ...]:
        """Returns all streams, in order of creation."""
        with self._lock:
            return tuple(map(_description, self._streams.values()))

    def partition(self, name: str, stream_id: str, number: int) -> PartitionDescription:
        """
        Returns a partition of the stream called *name*, else of the one with the id *stream_id*.

        Raises:
            UnknownStreamError: when there is neither.
            UnknownPartitionError: when the stream has no such partition.
        """
        with self._lock:
            stream = self._find(name, stream_id)
            partition = _partition(stream, number)
            expired_until = partition.records[0][1].timestamp - 1 if partition.first else 0
            return PartitionDescription(
                stream.stream_id,
                number,
                partition.first,
                partition.next,
                expired_until,
                stream.settings.retention_period,
            )

    def number_since(self, stream_id: str, partition: int, timestamp: int) -> int:
        """
        Returns the number of the first record of a partition that is not older than *timestamp*, the next if there is none.

        Raises:
            UnknownStreamError: when there is no stream of that id.
            UnknownPartitionError: when it has no such partition.
        """
        with self._lock:
            return _partition(self._find("", stream_id), partition).since(timestamp)

    def read(self, stream_id: str, partition: int, number: int, limit: int, max_bytes: int) -> list[StoredRecord]:
        """
        Returns records of a partition from *number* on, none when that is the next one.

        Args:
            stream_id: of the stream.
            partition: its number.
            number: of the first record to return.
            limit: how many to return at most.
            max_bytes: how many bytes of data to return at most.

        Raises:
            UnknownStreamError: when there is no stream of that id.
            UnknownPartitionError: when it has no such partition.
            ExpiredRecordError: when the record *number* is not there any more, or cannot be there next.
        """
        with self._lock:
            found = _partition(self._find("", stream_id), partition)
            if not found.first <= number <= found.next:
                raise ExpiredRecordError(f"record {number} is not among those from {found.first} to {found.next}")
            return found.read(number, limit, max_bytes)

    def stream_names(self) -> tuple[str, ...]:
        """Returns the names of all streams, in order of creation."""
        with self._lock:
            return tuple(self._streams)

    def records(self, name: str) -> tuple[StoredRecord, ...]:
        """
        Returns all that is kept under a stream name, in order of arrival, also of deleted streams of that name.

        Raises:
            UnknownStreamError: when there never was such a stream.
        """
        with self._lock:
            arrivals = sorted(chain.from_iterable(self._kept(name)))
        return tuple(record for _, record in arrivals)

    def record_count(self, name: str) -> int:
        """Returns how many `records` there are, without copying them."""
        with self._lock:
            return sum(map(len, self._kept(name)))

    def _kept(self, name: str) -> list[Arrivals]:
        """Returns the parts that make up `records`, each in order of arrival."""
        parts = [part for past, parts in self._past if past == name for part in parts]
        stream = self._streams.get(name)
        if stream is not None:
            parts += (partition.records for partition in stream.partitions)
        if not parts:
            raise UnknownStreamError(f"there never was a stream {name!r}")
        return parts

    def _place(
        self, stream: Stream, entries: Iterable[ReceivedEntry], now: int
    ) -> list[tuple[int, StoredRecord | Rejection]]:
        """Returns for each entry its partition and the record that it is to become, which is not stored yet."""
        moment = self._throttle_clock() if self._throttle_clock else 0.0
        numbers = [partition.next for partition in stream.partitions]
        outcome: list[tuple[int, StoredRecord | Rejection]] = []
        for entry in entries:
            index = stream.choose(entry)
            if index is None:
                outcome.append((-1, Rejection.NO_PARTITION))
                continue
            bucket = stream.partitions[index].bucket
            if bucket is not None and not bucket.take(len(entry.data), moment):
                outcome.append((index, Rejection.RATE_EXCEEDED))
                continue
            timestamp = now if entry.timestamp is None else entry.timestamp
            number, numbers[index] = numbers[index], numbers[index] + 1
            record = StoredRecord(entry.data, entry.partition_key, wire.partition_id(index), str(number), timestamp)
            outcome.append((index, record))
        return outcome

    def _new_partition(self, settings: StreamSettings) -> Partition:
        clock = self._throttle_clock
        bucket = None if clock is None else Bucket(RATES[settings.stream_type], clock())
        return Partition(self._retention, bucket)

    def _find(self, name: str, stream_id: str) -> Stream:
        stream = self._streams.get(name)
        if stream is None and stream_id:
            stream = next((each for each in self._streams.values() if each.stream_id == stream_id), None)
        if stream is None:
            raise UnknownStreamError(
                f"there is no stream {name!r}" + (f" or with id {stream_id!r}" if stream_id else "")
            )
        return stream


def _description(stream: Stream) -> StreamDescription:
    return StreamDescription(
        stream.name,
        stream.stream_id,
        stream.created,
        stream.settings,
        tuple(partition.first for partition in stream.partitions),
        tuple(partition.next for partition in stream.partitions),
    )


def _partition(stream: Stream, number: int) -> Partition:
    if number >= len(stream.partitions):
        raise UnknownPartitionError(f"stream {stream.name!r} has no partition {number}")
    return stream.partitions[number]
