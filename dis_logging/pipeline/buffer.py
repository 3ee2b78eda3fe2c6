"""A FIFO bounded by count and bytes, and what happens when it is full."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import Enum
from itertools import islice, repeat
from typing import TypeVar

from dis_logging.greenlets import can_wait
from dis_logging.pipeline.entry import DATA, EPOCH, KEY, LEVEL, NAME, Entry, created_of, data_of, key_bytes, key_of
from dis_logging.pipeline.stats import Ledger

_Item = TypeVar("_Item")

_NEVER = 2**62
# An emitting thread that drops the oldest entry must not look through thousands of keys for it.
_PARKED_KEYS_TO_COMPARE = 64
_SAMPLE = 32


class OverflowPolicy(str, Enum):
    """
    Who gives way when the buffer is full; the values are those of the option *overflow*.

    `FALLBACK`: the new record goes to the fallback. `DROP_NEWEST`: the new record is dropped and counted.
    `DROP_OLDEST`: the oldest waiting record is dropped and counted; where none waits (all are in flight), the new one.
    `BLOCK`: the caller waits for room, at most *block_timeout* seconds, then as `FALLBACK`.
    """

    FALLBACK = "fallback"
    DROP_NEWEST = "drop_newest"
    DROP_OLDEST = "drop_oldest"
    BLOCK = "block"

    @property
    def drops(self) -> bool:
        """Whether the user has chosen to lose records rather than to hear of each."""
        return self in (OverflowPolicy.DROP_NEWEST, OverflowPolicy.DROP_OLDEST)


class Taken:
    """How many entries, and payload bytes, have left the queue that the ledger has not counted yet."""

    __slots__ = ("entries", "size")

    def __init__(self, entries: int = 0, size: int = 0) -> None:
        self.entries = entries
        self.size = size


def taken_from(source: deque[_Item]) -> Iterator[_Item]:
    """Yields the items of *source* as it takes them; at the end it raises IndexError. Compares none of them, as `iter` would."""
    return map(deque.popleft, repeat(source))


class Buffer:
    """
    Entries that wait for their batch.

    `put` may be called from any thread, from signal handlers and from destructors: it takes no lock and, unless the policy
    is `BLOCK`, waits for nobody. `queue` and `parked` are emptied by whoever holds the delivery's lock; only dropping the
    oldest entry takes from them without it.

    Args:
        ledger: counts what comes and goes; room is what it says has not left yet.
        max_records, max_bytes: what may wait, in flight included; bytes are payload bytes, and those of long keys.
        policy: what to do when a further entry does not fit.
        block_timeout: seconds one caller waits at most under `BLOCK`.
        flush_level: an entry this severe wakes the sender.
        wake: called when there is reason to send, with the key of the entry if it is a single one's severity.
        overflow: called with an entry that goes to the fallback for want of room, and is to be counted as emitted.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        max_records: int,
        max_bytes: int,
        policy: OverflowPolicy,
        block_timeout: float,
        flush_level: int,
        wake: Callable[..., None],
        overflow: Callable[[Entry], None],
    ) -> None:
        self._ledger = ledger
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._policy = policy
        self._drops_oldest = policy is OverflowPolicy.DROP_OLDEST
        self._block_timeout = block_timeout
        self._flush_level = flush_level
        self._wake = wake
        self._overflow = overflow
        self.queue: deque[Entry] = deque()
        # Entries of keys that must wait for an earlier batch, or their turn; each list in order, all older than the queue's.
        self.parked: dict[str, deque[Entry]] = {}
        self.ready: deque[str] = deque()  # parked keys that need not wait any longer
        self.urgent = False
        # The sender is woken when the ledger's counters reach these; they change with what it is waiting for.
        self._wake_entries = 0
        self._wake_bytes = 0
        self._wake_always = False
        # Somebody will look at the queue, and need not be woken for a severe entry.
        self._is_told = False
        # There is room below these counters for certain: what `_fits` last found, and never too much.
        self._room_entries = 0
        self._room_bytes = 0

    def put(self, entry: Entry, may_block: bool = True) -> None:
        """Accepts *entry*, or does with it what the overflow policy says."""
        ledger = self._ledger
        size = len(entry[DATA])
        needed = size if entry[KEY] is entry[NAME] else size + key_bytes(entry)
        if (
            (ledger.entries_in >= self._room_entries or ledger.bytes_in + needed > self._room_bytes)
            and not self._fits(needed)
            and not self._make_room(entry, needed, may_block)
        ):
            return
        try:
            ledger.epochs[entry[EPOCH]].accepted += 1
        except KeyError:  # a hundred flushes while the record was formatted
            ledger.accept(entry)
        ledger.entries_in += 1
        ledger.bytes_in += size
        if needed != size:
            ledger.key_bytes += needed - size
            self._room_bytes -= needed - size
        try:
            self.queue.append(entry)
            if entry[LEVEL] >= self._flush_level and not (self.urgent and self._is_told):
                self.urgent = self._is_told = True
                self._wake(entry[KEY])
            # Looked at after the entry is there: a sender that has just found the queue empty has set these before.
            elif ledger.entries_in >= self._wake_entries or ledger.bytes_in >= self._wake_bytes:
                self._wake()
        except BaseException:  # Ctrl-C; without a further record nobody else would come
            self._wake()
            raise

    # -- the sender's side ------------------------------------------------------------------------------------------

    def wake_at(self, entries: int, size: int) -> None:
        """Asks to be woken once so many entries, or payload bytes, are in the queue."""
        self._is_told = False
        if not self._wake_always:
            self._wake_entries = self._ledger.entries_taken + entries
            self._wake_bytes = self._ledger.bytes_taken + size

    def wake_after(self, entries: int, size: int) -> bool:
        """
        Asks to be woken once so many more entries, or payload bytes, have come, if a request is under way.

        Returns whether one is: whoever makes it will look again and say what it waits for.
        """
        ledger = self._ledger
        if self._wake_always:
            return False
        self._is_told = False
        self._wake_entries = ledger.entries_in + entries
        self._wake_bytes = ledger.bytes_in + size
        # Only now, and without a call in between that another thread or a signal handler could come upon: whoever has made
        # the last request may have said so already, and sleep.
        if ledger.sending:
            return True
        self._wake_entries = self._wake_bytes = 0
        return False

    def wake_never(self) -> None:
        """Asks not to be woken (except by the first severe entry): the sender is busy and will look again by itself."""
        self._is_told = True
        if not self._wake_always:
            self._wake_entries = self._wake_bytes = _NEVER

    def wake_always(self) -> None:
        """Asks to be woken by every entry from now on, whatever a sender that is about to end may still ask for."""
        self._wake_always = True
        self._wake_entries = self._wake_bytes = 0

    def waiting(self) -> tuple[int, int]:
        """Returns how many entries, and payload bytes, are in the queue."""
        ledger = self._ledger
        return len(self.queue), ledger.bytes_in - ledger.bytes_taken

    def next_keys(self, count: int) -> set[str]:
        """Returns the keys of the next *count* entries of the queue."""
        try:
            return set(map(key_of, islice(self.queue, count)))
        except RuntimeError:  # it has changed meanwhile; by index it can be looked at nevertheless, if not so quickly
            keys: list[str] = []
            with suppress(IndexError):
                keys.extend(self.queue[index][KEY] for index in range(_SAMPLE))
            return set(keys)

    def holds_only(self, keys: set[str]) -> bool:
        """Returns whether all entries of the queue have one of *keys*; False if it cannot be told."""
        try:
            return all(map(keys.__contains__, map(key_of, self.queue)))
        except RuntimeError:  # it has changed meanwhile
            return False

    def seems_to_hold_only(self, keys: set[str]) -> bool:
        """As `holds_only`, but looks only at some of the latest and at some of the oldest entries."""
        try:
            latest, oldest = islice(reversed(self.queue), _SAMPLE), islice(self.queue, _SAMPLE)
            return keys.issuperset(map(key_of, latest)) and keys.issuperset(map(key_of, oldest))
        except RuntimeError:  # it has changed meanwhile, and nobody knows
            return False

    def oldest_age(self) -> float:
        """Returns how many seconds ago, by the wall clock, the oldest entry that waits was made; 0.0 when none does."""
        heads = []
        with suppress(IndexError):
            heads.append(self.queue[0])
        with suppress(IndexError, RuntimeError):  # the sender changes the parked keys at this moment
            heads.extend(parked[0] for parked in islice(self.parked.values(), _PARKED_KEYS_TO_COMPARE) if parked)
        now = time.time()
        return max([0.0, *(now - created for head in heads if (created := created_of(head)) is not None)])

    def take_newest(self, first_epoch: float, entries: list[Entry]) -> None:
        """
        Moves the newest entry of the queue to *entries* if it belongs to *first_epoch* or a later one.

        For a thread that has just put one there: another in the same place will find that one.
        """
        ledger = self._ledger
        with suppress(IndexError):  # sent meanwhile
            while (entry := self.queue[-1])[EPOCH] >= first_epoch:
                size = len(entry[DATA])
                if self.queue[-1] is entry:  # or there is a newer one, which will do as well
                    # No call, so that neither Ctrl-C nor another thread comes in between.
                    del self.queue[-1]
                    entries += (entry,)
                    ledger.entries_taken += 1
                    ledger.bytes_taken += size
                    break

    def count_taken(self, taken: Taken) -> None:
        """Counts what was taken straight from `queue`; called again after an interrupt it counts nothing twice."""
        ledger = self._ledger
        ledger.entries_taken += taken.entries
        ledger.bytes_taken += taken.size
        taken.entries = taken.size = 0

    def release(self, keys: Iterable[str]) -> None:
        """Makes the parked entries of *keys* the next to go."""
        self.ready.extend(key for key in keys if key in self.parked)

    def take_all(self, entries: list[Entry]) -> None:
        """Moves every entry to *entries*, parked ones first; whatever interrupts, each is either there or here."""
        for source in (*self.parked.values(), self.queue):
            before = len(entries)
            with suppress(IndexError):  # another thread has dropped the last one meanwhile
                entries += islice(taken_from(source), len(source))
            if source is self.queue:
                taken = entries[before:]
                self.count_taken(Taken(len(taken), sum(map(len, map(data_of, taken)))))
        self.parked.clear()
        self.ready.clear()

    # -- overflow ---------------------------------------------------------------------------------------------------

    def _make_room(self, entry: Entry, size: int, may_block: bool) -> bool:
        """Returns whether *entry* fits after all; if not, its fate is decided here."""
        # A buffer that is smaller than a batch would fill up and wait for company; one that is full of entries that must
        # wait gains nothing by it.
        if not self.urgent and not self.parked:
            self.urgent = True
            self._wake()
            if self._fits(size):
                return True
        if self._drops_oldest and size <= self._max_bytes:
            while (self.parked and self._drop_parked()) or self._ledger.drop_oldest(self.queue, True):
                if self._fits(size):
                    return True
            return self._drop_newest(entry)
        if self._policy.drops:
            return self._drop_newest(entry)
        if self._policy is OverflowPolicy.BLOCK and may_block and size <= self._max_bytes and can_wait():
            deadline = time.monotonic() + self._block_timeout
            while self._wait_for_room(size, deadline):
                # One verdict wakes every caller that waits. Whoever sees the room now, with nothing left to do before it
                # takes it, has it; the others wait on.
                if self._fits(size):
                    return True
        self._overflow(entry)
        return False

    def _fits(self, size: int) -> bool:
        ledger = self._ledger
        self._room_entries = ledger.entries_out + self._max_records
        self._room_bytes = ledger.bytes_out + self._max_bytes - ledger.key_bytes
        return ledger.entries_in < self._room_entries and ledger.bytes_in + size <= self._room_bytes

    def _drop_newest(self, entry: Entry) -> bool:
        self._ledger.drop_newest(entry)
        return False

    def _drop_parked(self) -> bool:
        """Drops the parked entry that seems to be the oldest; returns False when there is none."""
        oldest = self._oldest_parked()
        return oldest is not None and self._ledger.drop_oldest(oldest, False)

    def _oldest_parked(self) -> deque[Entry] | None:
        """Returns the parked entries of which one seems to be the oldest."""
        # Parked entries are older than the queue's, and the keys parked first are likely to have the oldest.
        with suppress(IndexError, RuntimeError):  # the sender changes the parked keys at this moment
            candidates = [parked for parked in islice(self.parked.values(), _PARKED_KEYS_TO_COMPARE) if parked]
            return min(candidates, key=_head_created, default=None)
        return None

    def _wait_for_room(self, size: int, deadline: float) -> bool:
        with self._ledger.bell() as bell:
            while not self._fits(size):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                bell.wait(remaining)
        return True


def _head_created(parked: deque[Entry]) -> float:
    created = created_of(parked[0])
    return -math.inf if created is None else created
