"""What happened, counted: counters that every thread may raise, a snapshot to read, and a bell to wait on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from dis_logging.pipeline.entry import Entry, Epoch

_REMEMBERED_EPOCHS = 100


@dataclass(frozen=True, slots=True)
class HandlerStats:
    """
    A snapshot of a handler's counters since its creation, or since the fork that made this process.

    ``emitted == delivered + failed + dropped + buffered`` holds in every snapshot.

    Args:
        emitted: records that passed the handler's level and filters.
        delivered: records that DIS acknowledged.
        failed: records handed to the fallback.
        dropped: records given up by the drop policy that the user chose.
        buffered: records waiting, in flight, or on their way to the fallback.
        requests: PutRecords attempts made, those that found no connection included.
        retried: records attempted again, each time counted.
    """

    emitted: int
    delivered: int
    failed: int
    dropped: int
    buffered: int
    requests: int
    retried: int


class Ledger:
    """
    The counters behind `HandlerStats`, and who waits for them to change.

    Every counter is changed by a plain ``+=`` on an attribute of this slotted object, from any thread and without a
    lock: since CPython 3.10 neither a thread switch nor a signal handler can come between the load and the store, because
    the interpreter looks for them only at calls and backward jumps. A lock in their place would make threads
    queue behind each other and could deadlock a signal handler that logs. Free-threaded builds give no such guarantee
    and are not supported.
    """

    __slots__ = (
        "_bells",
        "bytes_in",
        "bytes_out",
        "bytes_taken",
        "delivered",
        "dropped",
        "entries_in",
        "entries_out",
        "entries_taken",
        "epoch",
        "epochs",
        "failed",
        "passed_by",
        "requests",
        "retried",
    )

    def __init__(self) -> None:
        self.entries_in = 0  # accepted into the buffer
        self.entries_taken = 0  # left the queue: claimed, parked or dropped
        self.entries_out = 0  # settled, so their room is free again
        self.bytes_in = 0
        self.bytes_taken = 0
        self.bytes_out = 0
        self.passed_by = 0  # emitted, but never in the buffer: overflow, oversize
        self.delivered = 0
        self.failed = 0
        self.dropped = 0
        self.requests = 0
        self.retried = 0
        self.epoch = Epoch()
        self.epochs: list[Epoch] = [self.epoch]
        self._bells: list[Bell] = []

    def snapshot(self) -> HandlerStats:
        """Returns the counters at one moment; callable from any thread."""
        # One statement after the other without a call between them, so that no other thread comes between.
        delivered = self.delivered
        failed = self.failed
        dropped = self.dropped
        emitted = self.entries_in + self.passed_by
        buffered = emitted - delivered - failed - dropped
        return HandlerStats(emitted, delivered, failed, dropped, buffered, self.requests, self.retried)

    # -- verdicts ---------------------------------------------------------------------------------------------------

    def settle_delivered(self, entries: Iterable[Entry]) -> None:
        """Counts entries of the buffer as acknowledged."""
        count = size = 0
        for entry in entries:
            entry.epoch.settled += 1
            size += len(entry.data)
            count += 1
        self.delivered += count
        self._free(count, size)

    def settle_failed(self, entry: Entry, *, buffered: bool) -> None:
        """Counts one entry as handed to the fallback; *buffered* says whether it took up room."""
        size = len(entry.data) if buffered else 0
        entry.epoch.settled += 1
        self.failed += 1
        self._free(int(buffered), size)

    def settle_dropped(self, entry: Entry, *, buffered: bool) -> None:
        """Counts one entry as given up by a drop policy."""
        size = len(entry.data) if buffered else 0
        entry.epoch.settled += 1
        self.dropped += 1
        self._free(int(buffered), size)

    def _free(self, count: int, size: int) -> None:
        self.entries_out += count
        self.bytes_out += size
        for bell in tuple(self._bells):
            bell.ring()

    # -- waiting ----------------------------------------------------------------------------------------------------

    def next_epoch(self) -> list[Epoch]:
        """Starts a new epoch and returns those before it, of which most are settled."""
        epoch = Epoch()
        self.epochs.append(epoch)  # before an entry can belong to it, so that no flush of another thread misses it
        past = self.epochs[:-1]
        self.epoch = epoch
        # A thread on its way to the buffer may hold an epoch that is not the current one any more, so settled epochs
        # are not forgotten at once.
        for old in past[:-_REMEMBERED_EPOCHS]:
            if old.accepted == old.settled:
                with suppress(ValueError):  # another thread was faster
                    self.epochs.remove(old)
        return past

    @contextmanager
    def bell(self) -> Iterator[Bell]:
        """Gives a bell that rings at every verdict while the context lasts."""
        bell = Bell()
        self._bells.append(bell)
        try:
            yield bell
        finally:
            self._bells.remove(bell)


class Bell:
    """
    Wakes one waiting thread; may be rung from anywhere, signal handlers and destructors included.

    Built on `queue.SimpleQueue`, which is re-entrant; `threading.Event` and conditions are not.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Wakes the waiting thread, or spares the next one its wait."""
        if self._queue.empty():  # one ring is enough to wake, and nobody may be there to take them away
            self._queue.put(None)

    def wait(self, timeout: float | None) -> None:
        """Waits until somebody rings, at most *timeout* seconds (None: without limit)."""
        try:
            self._queue.get(timeout=None if timeout is None else max(0.0, timeout))
            while True:
                self._queue.get_nowait()  # many rings are one
        except Empty:
            pass
