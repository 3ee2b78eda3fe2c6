"""
How fast each partition takes records, learned from what it refuses: throttled keys slow down while all others go on.

A partition that is offered too much refuses records one by one (DIS.4303). Sending them again and again costs requests
and brings the client closer to DIS's blacklist (DIS.4309), so once a partition has refused, only as much is sent to it as it
will take. No threads, no waiting: the delivery asks, and tells what came of it, with its lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dis_logging.client.wire import COMMON_RATE_BYTES, COMMON_RATE_RECORDS
from dis_logging.pipeline.entry import DATA, KEY, Entry, place_of

# An advanced stream takes up to five times as much as a common one, and what a producer is left with depends on who else
# writes, so these are no more than a start.
_RECORD_COST = 1 / COMMON_RATE_RECORDS
_BYTE_COST = 1 / COMMON_RATE_BYTES
_START_RATE = 1.0
_MIN_RATE = 0.001
# While a partition takes all it is sent, it is offered more: twice as much each second until its first refusal after the one
# that started all this, then a fiftieth each second, and a fifth once it has refused nothing for so long that it must take
# much more than it did; after a refusal a little less than it took.
_PROBING = 2.0
_GROWTH = 1.02
_LATE_GROWTH = 1.2
_LATE = 20.0
_EASE = 0.97
_CUT_INTERVAL = 1.0  # of what came of one rate before the next is judged
# A partition opens once it may take this many seconds' worth, so that requests stay large, and saves up so many at most.
_GRANT = 0.2
_SAVED = 1.0
# A partition that has had room to spare for so long is not busy any more.
_CALM = 10.0
# Of keys that come and go, such as request ids, no more than so many are remembered.
_REMEMBERED_PLACES = 20_000


def cost_of(entry: Entry) -> float:
    """Returns the share that *entry* takes of what a common partition takes in a second."""
    return max(_RECORD_COST, len(entry[DATA]) * _BYTE_COST)


def cost_among_others(entry: Entry) -> float:
    """Returns the same of an entry that shares its DIS record with others."""
    return len(entry[DATA]) * _BYTE_COST


class Pace:
    """
    The lanes of a stream: one for each partition that has refused something lately. Guarded by the delivery's lock.

    Args:
        clock: monotonic seconds.
        cost_of: the share that an entry takes of what a common partition takes in a second.
    """

    def __init__(self, clock: Callable[[], float], cost_of: Callable[[Entry], float] = cost_of) -> None:
        self._clock = clock
        self._cost_of = cost_of
        self._by_partition: dict[str, _Lane] = {}
        self._by_place: dict[Any, _Lane] = {}  # of places whose partition is not known
        self._lane_of: dict[Any, _Lane] = {}  # by place, of either kind

    @property
    def is_slowing(self) -> bool:
        """Whether any key may have to wait for its turn."""
        return bool(self._by_partition or self._by_place)

    def admits(self, entry: Entry) -> bool:
        """Returns whether *entry* may be sent now, and counts it if so; its key must wait for `release` if not."""
        lane = self._lane_of.get(place_of(entry))
        if lane is None:
            return True
        if lane.take(self._cost_of(entry)):
            lane.served.add(entry[KEY])
            return True
        lane.waiting[entry[KEY]] = None
        return False

    def release(self, tell: Callable[[Iterable[str]], object]) -> None:
        """
        Tells *tell* the keys that need not wait any longer; of each partition first those that the last turn left out.

        Ctrl-C may come at any moment, and a signal handler that flushes may come to wait for a key that is being told:
        no key is forgotten by that. It may be told twice.
        """
        now = self._clock()
        calm = set()
        for lane in self._lanes():
            lane.refill(now)
            if lane.is_calm(now):
                calm.add(lane)
                tell(list(lane.waiting))
            elif lane.is_open:
                lane.begin_turn(tell)
        if calm:
            self._close(calm)
            for lane in calm:
                tell(lane.waiting)  # again, for what has come to wait since

    def next_release(self) -> float | None:
        """Returns when a key that waits may go, on the clock; None when none waits."""
        return min((lane.opens_at for lane in self._lanes() if lane.waiting), default=None)

    def learn(self, entries: Sequence[Entry], throttled: Iterable[int], partition_ids: Sequence[str]) -> float:
        """
        Takes in the answer to one request; returns the seconds to leave the throttled entries alone.

        Args:
            entries: of the request.
            throttled: which of them were refused for the traffic, by index.
            partition_ids: where each of them was stored; empty when none was refused.
        """
        throttled = set(throttled)
        if not (throttled or self.is_slowing):
            return 0.0
        now = self._clock()
        self._find_lanes(entries, throttled, partition_ids, now)
        stored: dict[_Lane, float] = {}
        refused: dict[_Lane, float] = {}
        for index, entry in enumerate(entries):
            lane = self._lane_of.get(place_of(entry))
            if lane is not None:
                costs = refused if index in throttled else stored
                costs[lane] = costs.get(lane, 0.0) + self._cost_of(entry)
        for lane in {**stored, **refused}:
            lane.learn(stored.get(lane, 0.0), lane in refused, now)
        return max((lane.charge(cost) for lane, cost in refused.items()), default=0.0)

    def _find_lanes(
        self, entries: Sequence[Entry], throttled: set[int], partition_ids: Sequence[str], now: float
    ) -> None:
        """Puts the places of *entries* on the lanes of their partitions, as far as these can be told."""
        if len(self._lane_of) > _REMEMBERED_PLACES:
            self._forget_places()
        # Without a key DIS spreads the records, so that they have no partition but all of them.
        partitions = {
            place_of(entries[index]): partition
            for index, partition in enumerate(partition_ids)
            if partition and place_of(entries[index]) != ""
        }
        for place in {place_of(entries[index]) for index in throttled}:
            if place in self._lane_of:
                continue
            if place in partitions:
                self._lane_of[place] = self._by_partition.setdefault(partitions[place], _Lane(now))
            else:
                self._lane_of[place] = self._by_place.setdefault(place, _Lane(now))
        for place, partition in partitions.items():
            self._assign(place, partition)

    def _assign(self, place: Any, partition: str) -> None:
        """Puts *place* on the lane of its *partition*, if that has one, and its own lane, if it had one, with it."""
        lane = self._by_partition.get(partition)
        own = self._by_place.pop(place, None)
        if own is not None and lane is None:
            self._by_partition[partition] = lane = own
        elif own is not None and lane is not None:
            lane.waiting.update(own.waiting)
        if lane is None:
            self._lane_of.pop(place, None)
        else:
            self._lane_of[place] = lane

    def _lanes(self) -> list[_Lane]:
        return [*self._by_partition.values(), *self._by_place.values()]

    def _close(self, calm: set[_Lane]) -> None:
        # All at once, as there may be thousands; the places first, as Ctrl-C must leave none on a lane that is gone. A signal
        # handler that flushes may have closed some by then.
        lanes: dict[Any, _Lane]
        for lanes in (self._lane_of, self._by_partition, self._by_place):
            for name in [name for name, lane in lanes.items() if lane in calm]:
                lanes.pop(name, None)

    def _forget_places(self) -> None:
        """Starts the list of keys anew, with those that wait."""
        self._lane_of = {place: lane for place, lane in self._lane_of.items() if _key_of(place) in lane.waiting}
        self._by_place = {place: lane for place, lane in self._by_place.items() if place in self._lane_of}


def _key_of(place: Any) -> str:
    return place[0] if isinstance(place, tuple) else place  # type: ignore[no-any-return]


class _Lane:
    """What one partition is sent: an allowance that grows with time, in shares of a common partition's second."""

    def __init__(self, now: float) -> None:
        self.waiting: dict[str, None] = {}  # keys, in the order in which they came to wait
        self.served: set[str] = set()  # keys that had something of this turn
        self.is_open = False
        self._rate = _START_RATE
        self._allowance = 0.0
        self._filled = now
        self._busy = now  # when it last had little to spare
        self._growth = _PROBING
        self._grown = now
        self._has_held_back = False  # since the rate last grew
        self._cut = now
        self._stored = 0.0  # since the last cut

    def begin_turn(self, tell: Callable[[Iterable[str]], object]) -> None:
        """Tells the keys that waited, those last that have just had their share: one alone could take every turn."""
        waited = self.waiting
        try:
            self.waiting = {}
            keys = sorted(waited, key=self.served.__contains__)
            self.served = set()
            tell(keys)
        except BaseException:
            self.waiting = {**waited, **self.waiting}
            raise

    def refill(self, now: float) -> None:
        """Lets the allowance grow to what it is *now*, and opens the lane when that is worth a request."""
        self._allowance = min(self._allowance + self._rate * (now - self._filled), self._rate * _SAVED)
        self._filled = now
        if self._allowance < self._rate * _SAVED / 2:
            self._busy = now
        if self._allowance >= self._rate * _GRANT:
            self.is_open = True

    def take(self, cost: float) -> bool:
        """Returns whether something of that *cost* may go, and charges it if so; the last one may go into debt."""
        if self.is_open:
            self._allowance -= cost
            self.is_open = self._allowance > 0
            return True
        self._has_held_back = True
        return False

    def charge(self, cost: float) -> float:
        """Charges what goes again; returns the seconds until the allowance has it."""
        self._allowance -= cost
        self.is_open = self._allowance > 0
        return max(0.0, -self._allowance / self._rate)

    @property
    def opens_at(self) -> float:
        """When it opens, on the clock."""
        return self._filled if self.is_open else self._filled + _GRANT - self._allowance / self._rate

    def is_calm(self, now: float) -> bool:
        """Returns whether it has had room to spare for so long that its partition needs no care any more."""
        return now - self._busy >= _CALM

    def learn(self, stored: float, was_refused: bool, now: float) -> None:
        """Takes in the cost of what was stored of a request, and whether the rest of its share was refused."""
        self._stored += stored
        if was_refused:
            self._slow_down(now)
        elif self._has_held_back:  # else it says nothing that nothing was refused
            growth = self._growth if now - self._cut < _LATE else max(self._growth, _LATE_GROWTH)
            self._rate *= growth ** min(1.0, now - self._grown)
            self._has_held_back = False
        self._grown = now

    def _slow_down(self, now: float) -> None:
        elapsed = now - self._cut
        if elapsed < _CUT_INTERVAL:  # what comes in now was sent before the last cut could show
            return
        took = self._stored / elapsed
        # Not less than half at once: it may have been offered little.
        self._rate = max(_MIN_RATE, min(self._rate, max(took, self._rate / 2)) * _EASE)
        self._growth = _GROWTH
        self._cut = now
        self._stored = 0.0
