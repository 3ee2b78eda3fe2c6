"""Streams, partitions and sequence numbers: what the emulator has stored. Knows no HTTP; safe to use from any thread."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dis_logging.client import wire
from dis_logging.emulator.messages import ReceivedEntry

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


class UnknownStreamError(LookupError):
    """There is no stream of that name or id."""


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """A stream at one moment; *next_sequence_numbers* has one number for each partition, in their order."""

    name: str
    stream_id: str
    created: int
    next_sequence_numbers: tuple[int, ...]


@dataclass(slots=True)
class _Stream:
    name: str
    stream_id: str
    created: int
    partitions: list[list[StoredRecord]]
    ledger: list[StoredRecord]
    turn: int = field(default=0)

    def place(self, entry: ReceivedEntry, now: int) -> StoredRecord | None:
        """Stores *entry* in the partition it belongs to, or returns None when it names one that does not exist."""
        index = self._choose(entry)
        if not 0 <= index < len(self.partitions):
            return None
        partition = self.partitions[index]
        timestamp = now if entry.timestamp is None else entry.timestamp
        stored = StoredRecord(entry.data, entry.partition_key, wire.partition_id(index), str(len(partition)), timestamp)
        partition.append(stored)
        self.ledger.append(stored)
        return stored

    def _choose(self, entry: ReceivedEntry) -> int:
        """
        Returns the index of the partition for *entry*, -1 for an unreadable partition id.

        The precedence is that of the API reference, "Uploading Data"; an explicit hash key out of range falls to the
        partition key as in the Java SDK. Without any key DIS spreads evenly: in turn here, which tests can predict.
        """
        if entry.partition_id:
            number = wire.partition_number(entry.partition_id)
            return -1 if number is None else number
        count = len(self.partitions)
        if entry.explicit_hash_key and _HASH_KEY.fullmatch(entry.explicit_hash_key):
            hash_key = int(entry.explicit_hash_key)
            if hash_key <= wire.MAX_HASH_KEY:
                return wire.partition_index(hash_key, count)
        if entry.partition_key:
            return wire.partition_index(wire.hash_partition_key(entry.partition_key), count)
        index = self.turn % count
        self.turn += 1
        return index


class Store:
    """
    All streams of an emulator. Every method may be called from any thread.

    Args:
        on_change: called after every change, with no lock held.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()  # guards the two below, and every stream in them
        self._streams: dict[str, _Stream] = {}
        # By stream name; apart from the streams, because what was stored must stay accountable when one is deleted.
        self._ledgers: dict[str, list[StoredRecord]] = {}

    def create_stream(self, name: str, partitions: int, now: int) -> None:
        """
        Adds an empty stream.

        Raises:
            ValueError: when the name is none that DIS allows or is taken, or there would be no partition.
        """
        if not wire.STREAM_NAME.fullmatch(name):
            raise ValueError(f"stream name {name!r} is not 1 to 64 letters, digits, '_' or '-'")
        if partitions < 1:
            raise ValueError(f"stream {name!r} needs at least 1 partition, not {partitions!r}")
        with self._lock:
            if name in self._streams:
                raise ValueError(f"stream {name!r} exists already")
            ledger = self._ledgers.setdefault(name, [])
            # Shaped like the ids in the API reference's examples: 20 letters and digits.
            stream_id = uuid.uuid4().hex[:20]
            self._streams[name] = _Stream(name, stream_id, now, [[] for _ in range(partitions)], ledger)
        self._on_change()

    def delete_stream(self, name: str) -> None:
        """
        Removes a stream; `records` still tells what it held.

        Raises:
            UnknownStreamError: when there is none of that name.
        """
        with self._lock:
            del self._streams[self._find(name, "").name]
        self._on_change()

    def append(
        self, name: str, stream_id: str, entries: Sequence[ReceivedEntry], now: int
    ) -> list[StoredRecord | None]:
        """
        Stores a batch in one step and returns what became of each entry, in order.

        An entry is None when the partition that it names does not exist.

        Raises:
            UnknownStreamError: when neither *name* nor *stream_id* is known; nothing is stored.
        """
        with self._lock:
            stream = self._find(name, stream_id)
            placed = [stream.place(entry, now) for entry in entries]
        self._on_change()
        return placed

    def describe(self, name: str, stream_id: str = "") -> StreamDescription:
        """
        Returns the stream called *name*, else the one with the id *stream_id*.

        Raises:
            UnknownStreamError: when there is neither.
        """
        with self._lock:
            stream = self._find(name, stream_id)
            numbers = tuple(len(partition) for partition in stream.partitions)
            return StreamDescription(stream.name, stream.stream_id, stream.created, numbers)

    def stream_names(self) -> tuple[str, ...]:
        """Returns the names of all streams, in order of creation."""
        with self._lock:
            return tuple(self._streams)

    def records(self, name: str) -> tuple[StoredRecord, ...]:
        """
        Returns all that was ever stored under a stream name, in order of arrival.

        Raises:
            UnknownStreamError: when there never was such a stream.
        """
        with self._lock:
            return tuple(self._ledger(name))

    def record_count(self, name: str) -> int:
        """Returns how many `records` there are, without copying them."""
        with self._lock:
            return len(self._ledger(name))

    def _ledger(self, name: str) -> list[StoredRecord]:
        ledger = self._ledgers.get(name)
        if ledger is None:
            raise UnknownStreamError(f"there never was a stream {name!r}")
        return ledger

    def _find(self, name: str, stream_id: str) -> _Stream:
        stream = self._streams.get(name)
        if stream is None and stream_id:
            stream = next((each for each in self._streams.values() if each.stream_id == stream_id), None)
        if stream is None:
            raise UnknownStreamError(
                f"there is no stream {name!r}" + (f" or with id {stream_id!r}" if stream_id else "")
            )
        return stream
