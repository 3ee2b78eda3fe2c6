"""Cuts entries into batches by count and bytes, keeping the order of every partition key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass

from dis_logging.client.wire import ENTRY_MARGIN, KEY_CHARACTER_BYTES, MAX_BODY_BYTES
from dis_logging.pipeline.buffer import Buffer
from dis_logging.pipeline.entry import DATA, KEY, Entry

# What the stream's name and the list's brackets add to a body, generously.
_BODY_MARGIN = 1024


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """
    What one request may carry.

    Args:
        max_records: entries.
        max_bytes: payload bytes before base64; a single larger entry still makes a batch of its own.
    """

    max_records: int
    max_bytes: int


def take_batch(buffer: Buffer, limits: BatchLimits, busy: Container[str]) -> list[Entry]:
    """
    Removes and returns the entries of the next batch, oldest first; empty when nothing can go.

    An entry of a *busy* key, which has a batch in flight or waiting for its retry, is parked behind the earlier ones of
    its key. Call it with the delivery's lock held; threads that emit, or drop the oldest entry, may go on meanwhile.
    """
    cut = _Cut(limits)
    for key in [key for key in buffer.parked if key not in busy]:
        if not cut.fill(buffer.parked[key]):
            return cut.batch
        del buffer.parked[key]
    cut.fill_from_queue(buffer, busy)
    return cut.batch


class _Cut:
    """A batch in the making."""

    def __init__(self, limits: BatchLimits) -> None:
        self.batch: list[Entry] = []
        self._limits = limits
        self._payload = 0
        self._encoded = _BODY_MARGIN

    def fill_from_queue(self, buffer: Buffer, busy: Container[str]) -> None:
        """Moves what fits from the buffer's queue to the batch, and the entries that must wait to the parked ones."""
        count, payload = len(self.batch), self._payload
        parked = buffer.parked
        parked_count = parked_payload = 0

        def park(entry: Entry) -> bool:
            nonlocal parked_count, parked_payload
            if entry[KEY] not in busy and entry[KEY] not in parked:
                return False
            buffer.park(entry)
            parked_count += 1
            parked_payload += len(entry[DATA])
            return True

        self.fill(buffer.queue, park if busy or parked else None)
        buffer.count_taken(len(self.batch) - count + parked_count, self._payload - payload + parked_payload)

    def fill(self, entries: deque[Entry], park: Callable[[Entry], bool] | None = None) -> bool:
        """
        Moves what fits from *entries* to the batch; returns False when something is left that does not fit.

        Args:
            park: takes an entry that must wait, returning True; None when there can be none.
        """
        batch, add, popleft = self.batch, self.batch.append, entries.popleft
        max_records, max_bytes = self._limits.max_records, self._limits.max_bytes
        while True:
            try:
                entry = popleft()  # another thread may drop the last one at any time
            except IndexError:
                return True
            if park is not None and park(entry):
                continue
            size = len(entry[DATA])
            payload = self._payload + size
            encoded = self._encoded + size * 4 // 3 + KEY_CHARACTER_BYTES * len(entry[KEY]) + ENTRY_MARGIN
            if batch and (payload > max_bytes or encoded > MAX_BODY_BYTES or len(batch) >= max_records):
                entries.appendleft(entry)
                return False
            self._payload, self._encoded = payload, encoded
            add(entry)
