"""Cuts entries into batches by count and bytes, keeping the order of every partition key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, repeat
from typing import NamedTuple

from dis_logging.client.wire import ENTRY_MARGIN, KEY_CHARACTER_BYTES, MAX_BODY_BYTES, Routing
from dis_logging.pipeline.aggregation import are_lines, line_of
from dis_logging.pipeline.buffer import Buffer, Taken, taken_from
from dis_logging.pipeline.entry import DATA, KEY, ROUTING, Entry, data_of, key_of, routing_of

# What the stream's name and the list's brackets add to a body, generously.
_BODY_MARGIN = 1024
_NOWHERE = object()
# So many entries are looked at together where each of them would take as long as all.
_CHUNK = 200


class BatchLimits(NamedTuple):
    """
    What one request may carry.

    Args:
        max_records: DIS records: entries, or with *aggregate_bytes* what several of them share.
        max_bytes: payload bytes before base64; a single larger entry still makes a batch of its own.
        aggregate_bytes: of a DIS record that several entries of one key share; 0: none do.
    """

    max_records: int
    max_bytes: int
    aggregate_bytes: int = 0


def take_batch(
    buffer: Buffer,
    limits: BatchLimits,
    busy: set[str],
    admits: Callable[[Entry], bool] | None = None,
    batch: list[Entry] | None = None,
) -> list[Entry]:
    """
    Removes and returns the entries of the next batch, oldest first; empty when nothing can go.

    An entry that must wait is parked behind the earlier ones of its key, until `Buffer.release` names that key. Call it
    with the delivery's lock held; threads that emit, or drop the oldest entry, may go on meanwhile.

    Args:
        busy: keys that have a batch in flight or waiting for its retry.
        admits: returns whether an entry may go now, and counts it if so; None when all may.
        batch: an empty list to put the entries in. Whoever gives it has them even if Ctrl-C comes in between: at any
            moment an entry is either there or in the buffer.
    """
    batch = [] if batch is None else batch
    cut = _AggregatedCut(limits, batch) if limits.aggregate_bytes else _Cut(limits, batch)
    try:
        try:
            if _take_parked(cut, buffer, busy, admits):
                _take_queued(cut, buffer, busy, admits)
        except BaseException:
            _repair(cut, buffer)
            raise
    except BaseException:
        _repair(cut, buffer)  # unless it has come so far; a second signal may come as the first one is minded
        raise
    return batch


def _repair(cut: _Cut, buffer: Buffer) -> None:
    """
    Repairs what an interrupt has left: entries on their way between two places, a key that was just taken, and the counters.

    Called again after another interrupt it goes on where it was.
    """
    entry = cut.moving
    if entry is not None:
        cut.put_back(entry)
    if cut.fitting is not None:
        cut.give_back(len(cut.batch) - cut.fitting)
    buffer.release(list(buffer.parked))  # nobody knows which key it was; those that must wait are looked at in vain
    if cut.source is buffer.queue:
        buffer.count_taken(cut.taken)


def _take_parked(cut: _Cut, buffer: Buffer, busy: set[str], admits: Callable[[Entry], bool] | None) -> bool:
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
    cut.take_from(entries)
    if admits is None:
        cut.fill()
        return not entries
    with suppress(IndexError):
        for cut.moving in taken_from(entries):
            entry = cut.moving
            fits = cut.fits(entry)
            if not fits or not admits(entry):
                cut.put_back(entry)
                return fits
            cut.add(entry)
    return True


def _take_queued(cut: _Cut, buffer: Buffer, busy: set[str], admits: Callable[[Entry], bool] | None) -> None:
    """Moves what fits from the buffer's queue to the batch, and the entries that must wait to the parked ones."""
    parked = buffer.parked
    cut.take_from(buffer.queue)

    def may_go(keys: set[str]) -> bool:
        return busy.isdisjoint(keys) and parked.keys().isdisjoint(keys)

    is_simple = cut.can_fill_if and not admits
    if not (busy or parked or admits):
        cut.fill()
    # With thousands of keys none of the next has to wait, more often than not.
    elif not (is_simple and may_go(buffer.next_keys(cut.room)) and cut.fill_if(may_go)):
        _take_apart(cut, buffer, busy, admits)
    buffer.count_taken(cut.taken)


def _take_apart(cut: _Cut, buffer: Buffer, busy: set[str], admits: Callable[[Entry], bool] | None) -> None:
    """Moves the entries of the queue one by one, to the batch or to the parked ones, until one does not fit."""
    parked, queue, taken = buffer.parked, buffer.queue, cut.taken
    with suppress(IndexError):
        for cut.moving in taken_from(queue):
            entry = cut.moving
            key = entry[KEY]
            if key in parked:  # nearly all go this way once a key has to wait
                waiting = parked[key]
            elif key in busy:
                waiting = parked[key] = deque()
            elif not cut.fits(entry):
                cut.put_back(entry)
                break
            elif admits is None or admits(entry):
                cut.add(entry)
                continue
            else:
                waiting = parked[key] = deque()
            size = len(entry[DATA])
            # As `add` does, without its call.
            cut.moving = None
            taken.entries += 1
            taken.size += size
            waiting.append(entry)


class _Cut:
    """
    A batch in the making: `fits` tells whether an entry may still be added, `add` adds the one that was asked about.

    Entries are taken by ``for cut.moving in taken_from(source)``. The interpreter lets no signal handler run between taking one
    and knowing it as *moving*, nor between no more knowing it as that, counting it, and the call that places it: only after
    that, unless a profiler or debugger written in Python asks to be called in between. To look for it afterwards would not
    do: whoever drops the oldest entry may have taken it from its place. The end is an IndexError, which may be there at
    any time, as another thread may drop the last entry.
    """

    can_fill_if = True

    def __init__(self, limits: BatchLimits, batch: list[Entry]) -> None:
        self.batch = batch
        self.source: deque[Entry] = deque()  # where entries are taken from
        self.moving: Entry | None = None  # taken, and without a place yet
        self.taken = Taken()  # from that source, and placed
        self.fitting: int | None = None  # how many entries of the batch are known to fit; None: all
        self._max_records = limits.max_records
        self._max_bytes = limits.max_bytes
        self._records = 0.0
        self._payload = 0
        self._encoded = float(_BODY_MARGIN)
        self._asked = (0.0, 0, 0.0)  # what the three would be with the entry that was asked about last

    def take_from(self, source: deque[Entry]) -> None:
        """Says where the next entries are taken from."""
        nothing = Taken()
        self.source = source
        self.taken = nothing

    def fits(self, entry: Entry) -> bool:
        size = len(entry[DATA])
        has_room = self._has_room(1, size, size * 4 // 3 + KEY_CHARACTER_BYTES * len(entry[KEY]) + ENTRY_MARGIN)
        return has_room or not self.batch

    def _has_room(self, records: float, size: int, encoded: float) -> bool:
        self._asked = records, payload, encoded = self._records + records, self._payload + size, self._encoded + encoded
        return payload <= self._max_bytes and encoded <= MAX_BODY_BYTES and records <= self._max_records

    def add(self, entry: Entry) -> None:
        """Gives *entry*, the one that moves, its place in the batch."""
        self._records, self._payload, self._encoded = self._asked
        batch, taken, size = self.batch, self.taken, len(entry[DATA])
        self.moving = None
        taken.entries += 1
        taken.size += size
        batch.append(entry)

    def put_back(self, entry: Entry) -> None:
        """Gives *entry*, the one that moves, its place at the head of the source again."""
        self.moving = None
        self.source.appendleft(entry)

    def fill(self) -> None:
        """Moves what fits from the source to the batch."""
        # What fits and add do, but for all at once, since every entry goes this way unless some have to wait.
        self._fit(self._take(self.room))

    def fill_if(self, may_go: Callable[[set[str]], bool]) -> bool:
        """As `fill`, but moves nothing unless *may_go* says so of the keys of all that it would move; returns whether it does."""
        added = self._take(self.room)
        if may_go(set(map(key_of, added))):
            self._fit(added)
            return bool(added)
        self.give_back(len(added))  # another thread has dropped what came before
        self.fitting = None
        return False

    @property
    def room(self) -> int:
        """How many entries may be added at most."""
        return max(0, int(self._max_records) - len(self.batch))

    def _fit(self, added: list[Entry]) -> None:
        """Gives back those of *added*, just taken, that do not fit."""
        before, payload, fitting = len(self.batch) - len(added), self._payload, len(added)
        size, key_characters = sum(map(len, map(data_of, added))), sum(map(len, map(key_of, added)))
        self._payload += size
        self._encoded += size * 4 / 3 + KEY_CHARACTER_BYTES * key_characters + ENTRY_MARGIN * len(added)
        while (self._payload > self._max_bytes or self._encoded > MAX_BODY_BYTES) and before + fitting > (before or 1):
            fitting -= 1
            entry = added[fitting]
            size = len(entry[DATA])
            self._payload -= size
            self._encoded -= size * 4 / 3 + KEY_CHARACTER_BYTES * len(entry[KEY]) + ENTRY_MARGIN
        self.give_back(len(added) - fitting)
        self._records = len(self.batch)
        self._keep(fitting, self._payload - payload)

    def _keep(self, count: int, size: int) -> None:
        """Leaves the latest *count* entries, of so many payload bytes, their places in the batch."""
        taken = self.taken
        self.fitting = None
        taken.entries += count
        taken.size += size

    def _take(self, count: int) -> list[Entry]:
        """Moves the oldest *count* entries of the source, or all there are, to the batch and returns them."""
        batch, before = self.batch, len(self.batch)
        self.fitting = before
        # One step of the interpreter: whenever a signal handler runs, each of them is either there or here.
        with suppress(IndexError):
            batch += islice(taken_from(self.source), count)
        return batch[before:]

    def give_back(self, count: int) -> None:
        """Moves the latest *count* entries of the batch, none that is known to fit, back to the source."""
        nowhere: deque[None] = deque(maxlen=0)
        back = map(self.source.appendleft, map(list.pop, repeat(self.batch, count)))
        nowhere += back  # one step of the interpreter


class _AggregatedCut(_Cut):
    """
    A batch in which the entries of one key share DIS records, as `aggregation.join` will join them.

    How many DIS records these will be is known once they are joined; never more than one whenever a key comes up or goes
    to another place than before, and for each entry twice its share of *aggregate_bytes*, as two of one place that follow
    each other hold more than that together.
    """

    can_fill_if = False  # what fits is seen one by one

    def __init__(self, limits: BatchLimits, batch: list[Entry]) -> None:
        super().__init__(limits, batch)
        self._share = 2 / limits.aggregate_bytes
        self._latest: dict[str, Routing | None] = {}  # where each key went last

    def fits(self, entry: Entry) -> bool:
        size = len(line_of(entry[DATA])) + 1  # the line feed
        records = min(2.0, size * self._share) + (self._latest.get(entry[KEY], _NOWHERE) != entry[ROUTING])
        overhead = KEY_CHARACTER_BYTES * len(entry[KEY]) + ENTRY_MARGIN
        return self._has_room(records, size, size * 4 / 3 + records * overhead) or not self.batch

    def add(self, entry: Entry) -> None:
        super().add(entry)
        self._latest[entry[KEY]] = entry[ROUTING]

    def fill(self) -> None:
        source = self.source
        with suppress(IndexError):
            while True:
                while self._fill_chunk():
                    pass
                for self.moving in islice(taken_from(source), _CHUNK):
                    entry = self.moving
                    if not self.fits(entry):
                        self.put_back(entry)
                        return
                    self.add(entry)

    def _fill_chunk(self) -> bool:
        """Moves some entries at once if that is simple, and all fit; returns whether it was so."""
        entries = self._take(_CHUNK)
        texts = list(map(data_of, entries))
        sizes = list(map(len, texts))
        keys = set(map(key_of, entries))
        # As `fits` counts them.
        size = sum(sizes) + len(texts)
        records = size * self._share + sum(self._latest.get(key, _NOWHERE) is not None for key in keys)
        overhead = KEY_CHARACTER_BYTES * max(map(len, keys), default=0) + ENTRY_MARGIN
        if (
            entries
            and max(sizes) * self._share < 2
            and are_lines(texts)
            and not any(map(routing_of, entries))
            and self._has_room(records, size, size * 4 / 3 + records * overhead)
        ):
            self._records, self._payload, self._encoded = self._asked
            self._latest.update(dict.fromkeys(keys))
            self._keep(len(entries), sum(sizes))
            return True
        self.give_back(len(entries))
        self.fitting = None
        return False
