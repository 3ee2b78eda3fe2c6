"""What happened, counted: counters that every thread may raise, a snapshot to read, and a bell to wait on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from queue import Empty, SimpleQueue

from dis_logging.frozen import Frozen, set_field
from dis_logging.pipeline.entry import DATA, EPOCH, Entry

_REMEMBERED_EPOCHS = 100
_data_of = itemgetter(DATA)
_epoch_of = itemgetter(EPOCH)


class Epoch:
    """
    The entries accepted between two calls of flush, counted in and out.

    A flush is over when the epochs up to its own have as many settled entries as accepted ones. Its counters are only
    ever changed by a plain ``+=``, see `Ledger`.
    """

    __slots__ = ("accepted", "settled")

    def __init__(self) -> None:
        self.accepted = 0
        self.settled = 0

    @property
    def is_settled(self) -> bool:
        """Whether every entry has its verdict."""
        # More may be settled than accepted once an epoch was forgotten while a thread was on its way to it.
        return self.settled >= self.accepted


@dataclass(init=False, repr=False, eq=False)
class HandlerStats(Frozen):
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

    __slots__ = ("emitted", "delivered", "failed", "dropped", "buffered", "requests", "retried")  # noqa: RUF023 - their order

    emitted: int
    delivered: int
    failed: int
    dropped: int
    buffered: int
    requests: int
    retried: int

    def __init__(
        self, emitted: int, delivered: int, failed: int, dropped: int, buffered: int, requests: int, retried: int
    ) -> None:
        set_field(self, "emitted", emitted)
        set_field(self, "delivered", delivered)
        set_field(self, "failed", failed)
        set_field(self, "dropped", dropped)
        set_field(self, "buffered", buffered)
        set_field(self, "requests", requests)
        set_field(self, "retried", retried)


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
        #: The number of the epoch that new entries belong to.
        self.epoch = 0
        self.epochs: dict[int, Epoch] = {0: Epoch()}
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

    def accept(self, entry: Entry) -> None:
        """Counts *entry* in, before anything becomes of it: each of its verdicts is one of those below."""
        number = entry[EPOCH]
        epoch = self.epoch_numbered(number)
        epoch.accepted += 1
        # Another thread may have forgotten the epoch just before, when it had nothing to wait for.
        self._keep(number, epoch)

    def settle_delivered(self, entries: Collection[Entry]) -> None:
        """Counts entries of the buffer as acknowledged."""
        for number, settled in Counter(map(_epoch_of, entries)).items():
            epoch = self.epoch_numbered(number)
            epoch.settled += settled
        count = len(entries)
        self.delivered += count
        self._free(count, sum(map(len, map(_data_of, entries))))

    def settle_failed(self, entry: Entry, *, buffered: bool) -> None:
        """Counts one entry as handed to the fallback; *buffered* says whether it took up room."""
        size = len(entry[DATA]) if buffered else 0
        self.epoch_numbered(entry[EPOCH]).settled += 1
        self.failed += 1
        self._free(int(buffered), size)

    def settle_dropped(self, entry: Entry, *, buffered: bool) -> None:
        """Counts one entry as given up by a drop policy."""
        size = len(entry[DATA]) if buffered else 0
        self.epoch_numbered(entry[EPOCH]).settled += 1
        self.dropped += 1
        self._free(int(buffered), size)

    def _free(self, count: int, size: int) -> None:
        self.entries_out += count
        self.bytes_out += size
        for bell in tuple(self._bells):
            bell.ring()

    # -- waiting ----------------------------------------------------------------------------------------------------

    def epoch_numbered(self, number: int) -> Epoch:
        """Returns the epoch of that *number*, a new one if it has been forgotten."""
        epoch = self.epochs.get(number)
        return self.epochs.setdefault(number, Epoch()) if epoch is None else epoch

    def next_epoch(self) -> list[Epoch]:
        """Starts a new epoch and returns those before it, of which most are settled."""
        # By the numbers first: to copy the items makes tuples, for which the garbage collector may run a destructor that logs.
        past = [(number, epoch) for number in list(self.epochs) if (epoch := self.epochs.get(number)) is not None]
        number = max([self.epoch, *(number for number, _ in past)]) + 1
        # Before an entry can belong to it, so that no flush of another thread misses it. Two threads that flush at once may
        # share one: each waits for what came before.
        self.epochs.setdefault(number, Epoch())
        if self.epoch < number:  # another thread may be further
            self.epoch = number
        # A thread on its way to the buffer may hold an epoch that is not the current one any more, so settled epochs
        # are not forgotten at once.
        for old, epoch in past[:-_REMEMBERED_EPOCHS]:
            if epoch.is_settled and self.epochs.pop(old, None) is not None and not epoch.is_settled:
                self._keep(old, epoch)  # an entry came at this very moment
        return [epoch for _, epoch in past]

    def _keep(self, number: int, epoch: Epoch) -> None:
        """Makes sure that a flush finds *epoch*, and what is yet to be settled in it."""
        kept = self.epochs.setdefault(number, epoch)
        if kept is not epoch:
            kept.accepted += epoch.accepted - epoch.settled
            epoch.accepted = epoch.settled

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

    def wait(self, timeout: float | None) -> bool:
        """Waits until somebody rings, at most *timeout* seconds (None: without limit); returns whether anybody did."""
        try:
            self._queue.get(timeout=None if timeout is None else max(0.0, timeout))
        except Empty:
            return False
        with suppress(Empty):
            while True:
                self._queue.get_nowait()  # many rings are one
        return True
