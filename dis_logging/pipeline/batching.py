"""Cuts entries into batches by count and bytes, keeping the order of every partition key."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from dis_logging.client import wire
from dis_logging.pipeline.buffer import Buffer
from dis_logging.pipeline.entry import Entry

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
        parked = buffer.parked[key]
        if not cut.fill(parked.popleft, parked.appendleft):
            return cut.batch
        del buffer.parked[key]
    parked_keys = buffer.parked

    def take_free() -> Entry:
        while True:
            entry = buffer.take()
            key = entry.partition_key
            if key not in busy and key not in parked_keys:
                return entry
            buffer.park(entry)

    cut.fill(take_free, buffer.give_back)
    return cut.batch


class _Cut:
    """A batch in the making."""

    def __init__(self, limits: BatchLimits) -> None:
        self.batch: list[Entry] = []
        self._limits = limits
        self._payload = 0
        self._encoded = _BODY_MARGIN

    def fill(self, take: Callable[[], Entry], give_back: Callable[[Entry], None]) -> bool:
        """Adds what *take* gives until IndexError; returns False when the batch is full before that."""
        batch, limits = self.batch, self._limits
        while True:
            try:
                entry = take()
            except IndexError:
                return True
            size = len(entry.data)
            self._payload += size
            self._encoded += wire.encoded_size(size, len(entry.partition_key))
            if batch and (
                len(batch) >= limits.max_records
                or self._payload > limits.max_bytes
                or self._encoded > wire.MAX_BODY_BYTES
            ):
                give_back(entry)
                return False
            batch.append(entry)
