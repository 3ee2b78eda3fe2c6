"""Cuts entries into batches by count and bytes, keeping the order of every partition key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import NamedTuple

from dis_logging.client.wire import ENTRY_MARGIN, KEY_CHARACTER_BYTES, MAX_BODY_BYTES
from dis_logging.pipeline.aggregation import Rooms, line_size
from dis_logging.pipeline.buffer import Buffer
from dis_logging.pipeline.entry import DATA, KEY, Entry, place_of

# What the stream's name and the list's brackets add to a body, generously.
_BODY_MARGIN = 1024


class BatchLimits(NamedTuple):
    """
    What one request may carry.

    Args:
        max_records: DIS records: entries, or with *aggregate_bytes* what several of them share.
        max_bytes: payload bytes before base64; a single larger entry still makes a batch of its own.
        aggregate_bytes: of a DIS record that several entries of one place share; 0: none do.
    """

    max_records: int
    max_bytes: int
    aggregate_bytes: int = 0


def take_batch(
    buffer: Buffer, limits: BatchLimits, busy: Container[str], admits: Callable[[Entry], bool] | None = None
) -> list[Entry]:
    """
    Removes and returns the entries of the next batch, oldest first; empty when nothing can go.

    An entry that must wait is parked behind the earlier ones of its key, until `Buffer.release` names that key. Call it
    with the delivery's lock held; threads that emit, or drop the oldest entry, may go on meanwhile.

    Args:
        busy: keys that have a batch in flight or waiting for its retry.
        admits: returns whether an entry may go now, and counts it if so; None when all may.
    """
    cut = _AggregatedCut(limits) if limits.aggregate_bytes else _Cut(limits)
    if _take_parked(cut, buffer, busy, admits):
        _take_queued(cut, buffer, busy, admits)
    return cut.batch


def _take_parked(cut: _Cut, buffer: Buffer, busy: Container[str], admits: Callable[[Entry], bool] | None) -> bool:
    """Moves the parked entries of released keys to the batch; returns False when something is left that does not fit."""
    while buffer.ready:
        key = buffer.ready.popleft()
        entries = buffer.parked.get(key)
        if entries is None or key in busy:  # whoever frees the key releases it again
            continue
        fitted = _take_entries(cut, entries, admits)
        if not entries:
            del buffer.parked[key]
        elif not fitted:
            buffer.ready.appendleft(key)
            return False
    return True


def _take_entries(cut: _Cut, entries: deque[Entry], admits: Callable[[Entry], bool] | None) -> bool:
    """Moves entries of one key until one must wait (True) or does not fit (False)."""
    while True:
        try:
            entry = entries.popleft()  # another thread may drop the last one at any time
        except IndexError:
            return True
        fits = cut.fits(entry)
        if not fits or not (admits is None or admits(entry)):
            entries.appendleft(entry)
            return fits
        cut.add(entry)


def _take_queued(cut: _Cut, buffer: Buffer, busy: Container[str], admits: Callable[[Entry], bool] | None) -> None:
    """Moves what fits from the buffer's queue to the batch, and the entries that must wait to the parked ones."""
    parked, popleft = buffer.parked, buffer.queue.popleft
    some_wait = bool(busy or parked or admits)
    taken = size = 0
    while True:
        try:
            entry = popleft()
        except IndexError:
            break
        if some_wait and (entry[KEY] in busy or entry[KEY] in parked):
            buffer.park(entry)
        elif not cut.fits(entry):
            buffer.queue.appendleft(entry)
            break
        elif admits is None or admits(entry):
            cut.add(entry)
        else:
            buffer.park(entry)
        taken += 1
        size += len(entry[DATA])
    buffer.count_taken(taken, size)


class _Cut:
    """A batch in the making: `fits` tells whether an entry may still be added, `add` adds the one that was asked about."""

    def __init__(self, limits: BatchLimits) -> None:
        self.batch: list[Entry] = []
        self._max_records = limits.max_records
        self._max_bytes = limits.max_bytes
        self._records = 0
        self._payload = 0
        self._encoded = _BODY_MARGIN
        self._added = (0, 0, 0)

    def fits(self, entry: Entry) -> bool:
        size = len(entry[DATA])
        return self._have_room(1, size, size * 4 // 3 + KEY_CHARACTER_BYTES * len(entry[KEY]) + ENTRY_MARGIN)

    def _have_room(self, records: int, payload: int, encoded: int) -> bool:
        self._added = records, payload, encoded
        return not self.batch or (
            self._payload + payload <= self._max_bytes
            and self._encoded + encoded <= MAX_BODY_BYTES
            and self._records + records <= self._max_records
        )

    def add(self, entry: Entry) -> None:
        records, payload, encoded = self._added
        self._records += records
        self._payload += payload
        self._encoded += encoded
        self.batch.append(entry)


class _AggregatedCut(_Cut):
    """A batch in which the entries of one place share DIS records, as `aggregation.join` will join them."""

    def __init__(self, limits: BatchLimits) -> None:
        super().__init__(limits)
        self._rooms = Rooms(limits.aggregate_bytes)

    def fits(self, entry: Entry) -> bool:
        size = line_size(entry[DATA]) + 1  # the line feed
        if self._rooms.has_room(place_of(entry), size - 1):
            return self._have_room(0, size, size * 4 // 3 + 1)
        return self._have_room(1, size, size * 4 // 3 + KEY_CHARACTER_BYTES * len(entry[KEY]) + ENTRY_MARGIN)

    def add(self, entry: Entry) -> None:
        super().add(entry)
        self._rooms.take(place_of(entry), line_size(entry[DATA]))
