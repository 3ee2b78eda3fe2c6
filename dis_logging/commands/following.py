"""
Follows a stream: all its partitions read side by side and merged by time, through expired cursors, throttling and outages.

Knows no command line; what it has to say besides records it says to a function.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import NamedTuple

from dis_logging.bell import Bell
from dis_logging.client import wire
from dis_logging.client.client import DISClient
from dis_logging.client.read_models import CursorType, GetRecordsResultEntry
from dis_logging.errors import DeliveryError, ServiceError
from dis_logging.pipeline.retry import Reaction, RetryPolicy, RetryState, reaction_to_error

# How long a partition that has nothing new is left alone.
_POLL_INTERVAL = 1.0
# How often to look for partitions that came with scaling.
_LOOK_INTERVAL = 60.0
# Requests at the same time: enough for the latency of many partitions to overlap.
_MOST_WORKERS = 8
# How long the others wait for a partition whose answer hangs.
_PATIENCE = 1.0
# A cursor that is refused so often in a row, though it is new, will be refused for ever.
_MOST_RENEWALS = 5

_INVALID_CURSOR = ("DIS.4217", "DIS.4225")
_RECORD_GONE = ("DIS.4224", "DIS.4226")
_PARTITION_GONE = ("DIS.4302", "DIS.4319")


class Start(NamedTuple):
    """Where to begin; *timestamp* is in milliseconds since the epoch, for ``AT_TIMESTAMP``."""

    cursor_type: CursorType
    timestamp: int | None = None


FROM_NOW = Start(CursorType.LATEST)
FROM_BEGINNING = Start(CursorType.TRIM_HORIZON)


class Arrival(NamedTuple):
    """One record, and the partition that it was in."""

    partition_id: str
    record: GetRecordsResultEntry


class Follower:
    """
    Reads one stream. For one thread, which may be interrupted (Ctrl-C) at any time.

    Args:
        client: asks.
        stream_name: which stream.
        start: where to begin in each partition.
        notify: gets one line for each thing that a user should know, such as records that expired unread.
        clock: seconds that only grow; paces polls and retries.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        client: DISClient,
        stream_name: str,
        start: Start,
        notify: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._stream_name = stream_name
        self._start = start
        self._notify = notify
        self._clock = clock
        self._sleep = sleep
        self._readers: dict[str, _PartitionReader] = {}
        self._look_again_at = 0.0
        self._workers = _Workers()

    def begin(self) -> int:
        """
        Takes its place in every partition, so that nothing which comes from now on is missed; returns how many there are.

        Raises:
            DeliveryError: the stream cannot be read.
        """
        for partition in self._client.list_partitions(self._stream_name):
            if partition.is_readable:
                self._add(partition.partition_id, self._start)
        self._look_again_at = self._clock() + _LOOK_INTERVAL
        self._fetch(patience=None)
        return len(self._readers)

    def read(self, *, follow: bool) -> Iterator[Arrival]:
        """
        Yields the records in the order of their time; those of one partition always in its own order.

        Args:
            follow: whether to wait for more when everything is read; otherwise that is the end.

        Raises:
            DeliveryError: the stream cannot be read any more, and trying again would not help.
        """
        while True:
            yield from self._merged()
            if len(self._idle()) == len(self._readers):
                if all(reader.finished for reader in self._readers.values()):
                    return
                if not follow and all(reader.caught_up or reader.finished for reader in self._readers.values()):
                    return
            self._wait()
            if follow and self._clock() >= self._look_again_at:
                self._look_for_partitions()
            self._fetch(_PATIENCE)

    def _add(self, partition_id: str, start: Start) -> None:
        self._readers[partition_id] = _PartitionReader(
            self._client, self._stream_name, partition_id, start, self._notify, self._clock
        )

    def _look_for_partitions(self) -> None:
        self._look_again_at = self._clock() + _LOOK_INTERVAL
        try:
            for partition in self._client.list_partitions(self._stream_name):
                if partition.is_readable and partition.partition_id not in self._readers:
                    self._notify(f"a new partition: {partition.partition_id}")
                    self._add(partition.partition_id, FROM_BEGINNING)
        except DeliveryError as error:
            if reaction_to_error(error) is not Reaction.RETRY:
                raise

    def _idle(self) -> list[_PartitionReader]:
        """Returns the readers that no worker is at, the only ones to be looked at."""
        return [reader for reader in self._readers.values() if not reader.is_busy]

    def _fetch(self, patience: float | None) -> None:
        """Asks in every partition where it is time, and waits for the answers, but *patience* seconds at most."""
        now = self._clock()
        for reader in self._idle():
            if reader.is_due(now):
                self._workers.fetch(reader)
        deadline = None if patience is None else time.monotonic() + patience
        while self._workers.are_busy:
            if not self._workers.collect(None if deadline is None else deadline - time.monotonic()):
                return

    def _wait(self) -> None:
        """Waits until it is time to ask in some partition, or an answer comes that is late."""
        idle = self._idle()
        dues = [reader.due_at for reader in idle if not reader.finished]
        pause = min(dues, default=self._clock() + _PATIENCE) - self._clock()
        if pause <= 0:
            return
        if len(idle) < len(self._readers):
            self._workers.collect(pause)
        else:
            self._sleep(pause)

    def _merged(self) -> Iterator[Arrival]:
        """Yields what waits, the oldest first, until a partition has to be asked what it has next."""
        idle = self._idle()
        if any(reader.must_be_asked for reader in idle):
            return
        queue = [(*reader.place, reader) for reader in idle if reader.waiting]
        heapq.heapify(queue)
        while queue:
            *_, reader = heapq.heappop(queue)
            yield Arrival(reader.partition_id, reader.waiting.popleft())
            if reader.waiting:
                heapq.heappush(queue, (*reader.place, reader))
            elif reader.must_be_asked:
                return


class _PartitionReader:
    """
    How far one partition has been read.

    `fetch` runs in a worker; everything else in the thread that follows, and only while the reader is not busy.
    """

    def __init__(
        self,
        client: DISClient,
        stream_name: str,
        partition_id: str,
        start: Start,
        notify: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.partition_id = partition_id
        self.is_busy = False  # set and cleared by the thread that follows
        self.waiting: deque[GetRecordsResultEntry] = deque()
        self.caught_up = False
        self.finished = False
        self.due_at = 0.0
        self._client = client
        self._stream_name = stream_name
        self._start = start
        self._began_at = int(time.time() * 1000)
        self._notify = notify
        self._clock = clock
        self._cursor = ""
        self._last_number = ""
        self._latest_time = 0
        self._renewals = 0
        self._is_late = False
        self._retries: RetryState | None = None

    @property
    def place(self) -> tuple[int, int]:
        """The time of the record that waits first, and the number of the partition, which tells equals apart."""
        timestamp = self.waiting[0].timestamp
        return timestamp if timestamp is not None else 0, wire.partition_number(self.partition_id) or 0

    @property
    def must_be_asked(self) -> bool:
        """Whether there may be an older record than those that wait in other partitions; one that is late is not waited for."""
        return not (self.waiting or self.caught_up or self.finished or self._is_late)

    def is_due(self, now: float) -> bool:
        """Returns whether it is time to ask."""
        return not self.finished and not self.waiting and now >= self.due_at

    def fetch(self) -> None:
        """
        Asks once.

        Raises:
            DeliveryError: and asking again would not help.
        """
        self.caught_up = False
        try:
            if not self._cursor:
                self._cursor = self._get_cursor()
            result = self._client.get_records(self._cursor)
        except DeliveryError as error:
            self._recover(error)
            return
        self._renewals = 0
        self._retries = None
        self._is_late = False
        self._cursor = result.next_partition_cursor
        if result.records:
            self.waiting.extend(result.records)
            self._last_number = result.records[-1].sequence_number
        self.finished = not self._cursor
        self.caught_up = not result.records
        self.due_at = self._clock() + _POLL_INTERVAL if self.caught_up else 0.0

    def _get_cursor(self) -> str:
        """Returns a cursor behind the last record that was read; at the start before there is one."""
        if self._last_number:
            return self._client.get_cursor(
                self._stream_name,
                self.partition_id,
                CursorType.AFTER_SEQUENCE_NUMBER,
                starting_sequence_number=self._last_number,
            )
        start = self._start
        return self._client.get_cursor(
            self._stream_name, self.partition_id, start.cursor_type, timestamp=start.timestamp
        )

    def _recover(self, error: DeliveryError) -> None:
        """Prepares the next `fetch` after one that failed, or raises *error*."""
        code = error.code if isinstance(error, ServiceError) else ""
        if code in _PARTITION_GONE:
            self.finished = True
            self._notify(f"{self.partition_id} is gone: {error}")
        elif code in _INVALID_CURSOR:
            self._renew(error)
        elif code in _RECORD_GONE or (code == "DIS.4300" and "timestamp is expired" in str(error)):
            # What the cursor was to begin with has passed the retention period (DIS.4224, 4226; 4300: Java SDK).
            self._renew(error)
            self._notify(f"{self.partition_id}: the records to begin with have expired; going on with the oldest left")
            self._start, self._last_number = FROM_BEGINNING, ""
        elif reaction_to_error(error) is Reaction.RETRY:
            self._try_later(error)
        else:
            raise error

    def _renew(self, error: DeliveryError) -> None:
        self._renewals += 1
        if self._renewals > _MOST_RENEWALS:
            raise error
        if self._cursor and not self._last_number and self._start == FROM_NOW:
            # LATEST once more would skip what came since; the time of the first cursor does not.
            self._start = Start(CursorType.AT_TIMESTAMP, self._began_at)
        self._cursor = ""
        self.due_at = 0.0

    def _try_later(self, error: DeliveryError) -> None:
        if self._retries is None:
            self._notify(f"{self.partition_id}: trying again: {error}")
            # Without end: whoever follows a stream ends that himself.
            policy = RetryPolicy(backoff_initial=0.25, backoff_max=30.0, delivery_timeout=float("inf"))
            self._retries = policy.begin()
        self._is_late = True
        self.due_at = self._clock() + (self._retries.next_wait(error) or 0.0)


class _Workers:
    """
    Lets readers fetch side by side in daemon threads, which do not hold up the end of the process when DIS hangs.

    For one thread, which may be interrupted while it waits; what was asked by then goes on unheard.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[_PartitionReader] = SimpleQueue()
        self._ends: deque[tuple[_PartitionReader, Exception | None]] = deque()
        self._bell = Bell()  # rings at each end
        self._count = 0
        self._busy = 0

    @property
    def are_busy(self) -> bool:
        """Whether a reader is not done yet."""
        return self._busy > 0

    def fetch(self, reader: _PartitionReader) -> None:
        """Makes *reader* busy with a `fetch`."""
        reader.is_busy = True
        self._busy += 1
        if self._count < min(self._busy, _MOST_WORKERS):
            threading.Thread(target=self._work, name="dis_logging-follower", daemon=True).start()
            self._count += 1
        self._tasks.put(reader)

    def collect(self, timeout: float | None) -> bool:
        """
        Waits until a busy reader is done, at most *timeout* seconds, and returns whether one is.

        Raises:
            DeliveryError: what its `fetch` raised.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ends:  # what it rang for may have been collected before
            if not self._bell.wait(None if deadline is None else deadline - time.monotonic()):
                return False
        reader, error = self._ends.popleft()
        reader.is_busy = False
        self._busy -= 1
        if error is not None:
            raise error
        return True

    def _work(self) -> None:
        while True:
            reader = self._tasks.get()
            failure = None
            try:
                reader.fetch()
            except Exception as error:
                failure = error
            self._ends.append((reader, failure))
            self._bell.ring()
