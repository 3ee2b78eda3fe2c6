"""What happened, counted: counters that every thread may raise, a snapshot to read, and a bell to wait on."""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dis_logging.bell import Bell
from dis_logging.frozen import Frozen, set_field
from dis_logging.pipeline.entry import DATA, EPOCH, Entry, Outcome, Verdict, data_of, epoch_of, key_bytes, verdict_of
from dis_logging.pipeline.reentry import run_delivering

_logger = logging.getLogger("dis_logging")
_REMEMBERED_EPOCHS = 100
_REMEMBERED_LATENCIES = 500
# DIS has some forty codes; a service that makes up new ones must not fill the memory.
_MOST_CODES = 50


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


class Latency(NamedTuple):
    """
    How long requests took from their first byte to their answer, in seconds; all 0.0 while there was none.

    Args:
        p50, p95, p99: so many percent of the requests took no longer.
        max: the slowest.
    """

    p50: float
    p95: float
    p99: float
    max: float


NO_LATENCY = Latency(0.0, 0.0, 0.0, 0.0)


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
        delivered_bytes: payload bytes of the delivered records, before base64.
        buffered_bytes: payload bytes of the buffered records.
        oldest_buffered: age of the oldest record that waits, seconds by the wall clock; 0.0 when none does. Records in
            flight are left out.
        failures: how many records failed for each code, see `FailureReason`; codes beyond the first 50 count as ``other``.
        latency: of the last 500 requests that were answered.
    """

    __slots__ = (  # noqa: RUF023 - their order
        "emitted",
        "delivered",
        "failed",
        "dropped",
        "buffered",
        "requests",
        "retried",
        "delivered_bytes",
        "buffered_bytes",
        "oldest_buffered",
        "failures",
        "latency",
    )

    emitted: int
    delivered: int
    failed: int
    dropped: int
    buffered: int
    requests: int
    retried: int
    delivered_bytes: int
    buffered_bytes: int
    oldest_buffered: float
    failures: Mapping[str, int]
    latency: Latency

    def __init__(
        self,
        emitted: int,
        delivered: int,
        failed: int,
        dropped: int,
        buffered: int,
        requests: int,
        retried: int,
        delivered_bytes: int = 0,
        buffered_bytes: int = 0,
        oldest_buffered: float = 0.0,
        failures: Mapping[str, int] | None = None,
        latency: Latency = NO_LATENCY,
    ) -> None:
        set_field(self, "emitted", emitted)
        set_field(self, "delivered", delivered)
        set_field(self, "failed", failed)
        set_field(self, "dropped", dropped)
        set_field(self, "buffered", buffered)
        set_field(self, "requests", requests)
        set_field(self, "retried", retried)
        set_field(self, "delivered_bytes", delivered_bytes)
        set_field(self, "buffered_bytes", buffered_bytes)
        set_field(self, "oldest_buffered", oldest_buffered)
        set_field(self, "failures", failures or {})
        set_field(self, "latency", latency)

    __hash__ = None  # type: ignore[assignment] # it holds a dictionary, and grows old at once


class Acknowledged:
    """
    Entries that DIS took, on their way through the counters.

    Knows which steps are done, so that each can be repeated when Ctrl-C has come in between.
    """

    __slots__ = ("entries", "epochs", "is_counted", "untold")

    def __init__(self, entries: Collection[Entry]) -> None:
        self.entries = entries
        self.is_counted = False
        self.untold = iter(entries)  # the callback has not heard of these
        self.epochs: list[tuple[Epoch, int]] | None = None  # with how many of them are yet to be settled there


if TYPE_CHECKING:

    class Settleable(Protocol):
        """What is counted once, even if two threads are about to."""

        settled: bool


class Ledger:
    """
    The counters behind `HandlerStats`, and who waits for them to change.

    Every counter is changed by a plain ``+=`` on an attribute of this slotted object, from any thread and without a
    lock: since CPython 3.10 neither a thread switch nor a signal handler can come between the load and the store, because
    the interpreter looks for them only at calls and backward jumps. For the same reason Ctrl-C leaves either
    all or none of the changes of a verdict, which follow each other without a call. A lock in their place would make threads
    queue behind each other and could deadlock a signal handler that logs. Free-threaded builds give no such guarantee
    and are not supported.
    """

    __slots__ = (
        "_bells",
        "_latencies",
        "_on_verdict",
        "bytes_in",
        "bytes_out",
        "bytes_taken",
        "delivered",
        "delivered_bytes",
        "dropped",
        "entries_in",
        "entries_out",
        "entries_taken",
        "epoch",
        "epochs",
        "failed",
        "failures",
        "key_bytes",
        "last_failure",
        "passed_by",
        "requests",
        "retried",
        "sending",
    )

    def __init__(self, on_verdict: Callable[[Verdict], object] | None = None) -> None:
        self._on_verdict = on_verdict
        self.entries_in = 0  # accepted into the buffer
        self.entries_taken = 0  # left the queue: claimed, parked or dropped
        self.entries_out = 0  # settled, so their room is free again
        self.bytes_in = 0
        self.bytes_taken = 0
        self.bytes_out = 0
        self.key_bytes = 0  # of long keys, not settled yet
        self.passed_by = 0  # emitted, but never in the buffer: overflow, oversize
        self.delivered = 0
        self.failed = 0
        self.dropped = 0
        self.requests = 0
        self.retried = 0
        self.sending = 0  # requests under way
        self.delivered_bytes = 0
        self.failures: dict[str, _Tally] = {}  # by code
        self.last_failure = ("", "")  # its code and its message
        self._latencies: deque[float] = deque(maxlen=_REMEMBERED_LATENCIES)
        #: The number of the epoch that new entries belong to.
        self.epoch = 0
        self.epochs: dict[int, Epoch] = {0: Epoch()}
        self._bells: list[Bell] = []

    def snapshot(self, oldest_buffered: float = 0.0) -> HandlerStats:
        """Returns the counters at one moment; callable from any thread."""
        # One statement after the other without a call between them, so that no other thread comes between.
        delivered = self.delivered
        failed = self.failed
        dropped = self.dropped
        emitted = self.entries_in + self.passed_by
        buffered = emitted - delivered - failed - dropped
        buffered_bytes = self.bytes_in - self.bytes_out
        return HandlerStats(
            emitted,
            delivered,
            failed,
            dropped,
            buffered,
            self.requests,
            self.retried,
            self.delivered_bytes,
            max(0, buffered_bytes),
            oldest_buffered if buffered else 0.0,
            {code: tally.count for code, tally in list(self.failures.items())},
            _latency_of(sorted(self._latencies)),
        )

    # -- verdicts ---------------------------------------------------------------------------------------------------

    def accept(self, entry: Entry) -> None:
        """Counts *entry* in, before anything becomes of it: each of its verdicts is one of those below."""
        number = entry[EPOCH]
        epoch = self.epoch_numbered(number)
        epoch.accepted += 1
        self.keep(number, epoch)

    def count_delivered(self, acknowledged: Acknowledged) -> None:
        """Counts entries as acknowledged, unless they are; a flush still waits for `conclude_delivered`."""
        entries = acknowledged.entries
        count, size = len(entries), sum(map(len, map(data_of, entries)))
        freed = sum(map(key_bytes, entries)) if self.key_bytes else 0
        if not acknowledged.is_counted:
            self.delivered += count
            self.delivered_bytes += size
            self.key_bytes -= freed
            self.entries_out += count
            self.bytes_out += size
            acknowledged.is_counted = True
        self._ring()

    def conclude_delivered(self, acknowledged: Acknowledged) -> None:
        """
        Tells the callback of counted entries, then those who flush; no lock may be held, as the callback may block.

        Called again after an interrupt it goes on where it was.
        """
        if self._on_verdict is not None:
            for entry in acknowledged.untold:
                self._tell(entry, Outcome.DELIVERED)
        if acknowledged.epochs is None:
            numbers = set(map(epoch_of, acknowledged.entries))
            # There is nearly always one, and to make a set takes half as long as to count.
            counts = (
                Counter(map(epoch_of, acknowledged.entries))
                if len(numbers) > 1
                else dict.fromkeys(numbers, len(acknowledged.entries))
            )
            acknowledged.epochs = [(self.epoch_numbered(number), settled) for number, settled in counts.items()]
        # After the counters: whoever flushed finds them complete.
        while acknowledged.epochs:
            epoch, settled = acknowledged.epochs[-1]
            epoch.settled += settled
            del acknowledged.epochs[-1]
        self._ring()

    def settle_failed(
        self, entry: Entry, *, buffered: bool, code: str, message: str = "", pending: Settleable | None = None
    ) -> bool:
        """
        Counts one entry as handed to the fallback; returns False if *pending* says that this was done before.

        Args:
            buffered: whether it took up room.
            code, message: why.
            pending: is settled by this.
        """
        size = len(entry[DATA]) if buffered else 0
        freed = key_bytes(entry) if buffered and self.key_bytes else 0
        tally, epoch = self._tally_of(code), self.epoch_numbered(entry[EPOCH])
        if pending is not None:
            if pending.settled:
                return False
            pending.settled = True
        self.last_failure = (code, message)
        tally.count += 1
        self.failed += 1
        epoch.settled += 1
        self.key_bytes -= freed
        self.entries_out += buffered
        self.bytes_out += size
        self._ring()
        if self._on_verdict is not None:
            self._tell(entry, Outcome.FAILED, code)
        return True

    def settle_dropped(self, entry: Entry, *, buffered: bool, pending: Settleable | None = None) -> bool:
        """Counts one entry as given up by a drop policy; *pending*, and what is returned, as for `settle_failed`."""
        size = len(entry[DATA]) if buffered else 0
        freed = key_bytes(entry) if buffered and self.key_bytes else 0
        epoch = self.epoch_numbered(entry[EPOCH])
        if pending is not None:
            if pending.settled:
                return False
            pending.settled = True
        self.dropped += 1
        epoch.settled += 1
        self.key_bytes -= freed
        self.entries_out += buffered
        self.bytes_out += size
        self._ring()
        if self._on_verdict is not None:
            self._tell(entry, Outcome.DROPPED)
        return True

    def drop_oldest(self, waiting: deque[Entry], is_queued: bool) -> bool:
        """
        Takes the oldest entry of *waiting* and counts it as given up by a drop policy; returns False if there is none.

        Args:
            is_queued: whether it is in the buffer's queue, and has yet to be counted as taken.
        """
        while True:
            try:
                entry = waiting[0]
            except IndexError:
                return False
            size = len(entry[DATA])
            taken = size if is_queued else 0
            freed = key_bytes(entry) if self.key_bytes else 0
            epoch = self.epochs.get(entry[EPOCH]) or self.epoch_numbered(entry[EPOCH])
            if waiting and waiting[0] is entry:  # or another thread has taken it; from here on nobody comes in between
                del waiting[0]
                self.dropped += 1
                epoch.settled += 1
                self.key_bytes -= freed
                self.entries_taken += is_queued
                self.bytes_taken += taken
                self.entries_out += 1
                self.bytes_out += size
                break
        if self._bells:
            self._ring()
        if self._on_verdict is not None:
            self._tell(entry, Outcome.DROPPED)
        return True

    def drop_newest(self, entry: Entry) -> None:
        """Counts one entry as emitted, and as given up at once by a drop policy: no flush waits for it."""
        self.passed_by += 1
        self.dropped += 1
        self._ring()
        if self._on_verdict is not None:
            self._tell(entry, Outcome.DROPPED)

    def count_answer(self, seconds: float) -> None:
        """Counts a request that was answered after so many *seconds*."""
        self._latencies.append(seconds)

    def _tally_of(self, code: str) -> _Tally:
        if code not in self.failures and len(self.failures) >= _MOST_CODES:
            code = "other"
        return self.failures.get(code) or self.failures.setdefault(code, _Tally())

    def _tell(self, entry: Entry, outcome: Outcome, code: str = "") -> None:
        on_verdict = self._on_verdict
        if on_verdict is None:
            return
        try:
            run_delivering(lambda: on_verdict(verdict_of(entry, outcome, code)))
        except Exception:
            # Not again for each record: a callback that fails once is likely to fail always.
            self._on_verdict = None
            _logger.exception("dis_logging: on_verdict raised, and is not called any more")

    def _ring(self) -> None:
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
                self.keep(old, epoch)  # an entry came at this very moment
        return [epoch for _, epoch in past]

    def keep(self, number: int, epoch: Epoch) -> None:
        """
        Makes sure that a flush finds *epoch*, and what is yet to be settled in it.

        For a thread that has just counted an entry in there: another may have forgotten the epoch before, when it had
        nothing to wait for.
        """
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


def _latency_of(seconds: Sequence[float]) -> Latency:
    if not seconds:
        return NO_LATENCY
    last = len(seconds) - 1
    p50, p95, p99 = (seconds[math.ceil(last * share)] for share in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, seconds[last])


class _Tally:
    """A counter that is only ever changed by a plain ``+=``, see `Ledger`."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0
