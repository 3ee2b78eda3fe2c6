"""The pace of throttled partitions, against the emulator's own buckets on a clock of the test's: no time passes."""

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import pytest

from dis_logging.client.wire import Routing
from dis_logging.emulator.throttle import RATES, Bucket, Rate
from dis_logging.pipeline.entry import CREATED, DATA, KEY, Entry
from dis_logging.pipeline.pace import Pace, cost_among_others, cost_of
from tests.conftest import Clock, make_buffer, park
from tests.interrupts import interrupt_after

COMMON, ADVANCED = RATES["COMMON"], RATES["ADVANCED"]
LATENCY = 0.01  # from sending to the answer
TICK = 0.02  # how often the simulated sender looks
MAX_BACKLOG = 3000  # of one key: more is not logged
MAX_BATCH = 500
WARM_UP = 10.0  # seconds in which the rate may still be looked for


def make_entry(key: str, number: int = 0, size: int = 100, routing: Routing | None = None) -> Entry:
    return b"x" * size, key, routing, 0, key, 20, float(number), "path", 1, None, None, ()


class Service:
    """Partitions that take what their buckets have, and where each place goes."""

    def __init__(self, rates: Sequence[Rate], partition_of: Callable[[Entry], int]) -> None:
        self.buckets = [Bucket(rate, 0.0) for rate in rates]
        self.partition_of = partition_of

    def store(self, entries: Sequence[Entry], now: float) -> list[tuple[str, bool]]:
        """Returns the partition of each entry, and whether that stored it."""
        numbers = [self.partition_of(entry) for entry in entries]
        return [
            (f"shardId-{number}", self.buckets[number].take(len(entry[DATA]), now))
            for entry, number in zip(entries, numbers, strict=True)
        ]


class Simulation:
    """
    One sender, in front of *service*, that does what the delivery does with a pace, on a clock of its own.

    Args:
        offered: records a second, by key.
    """

    def __init__(self, service: Service, offered: Mapping[str, float], size: int = 100) -> None:
        self.now = 0.0
        self.service = service
        self.offered = dict(offered)
        self.pace = Pace(lambda: self.now)
        self.queue: deque[Entry] = deque()
        self.parked: dict[str, deque[Entry]] = {}
        self.ready: deque[str] = deque()
        self.busy: set[str] = set()
        self.answers: list[tuple[float, int, list[Entry], list[str]]] = []
        self.retries: list[tuple[float, int, list[Entry]]] = []
        self.stored: dict[str, list[tuple[float, float]]] = defaultdict(list)  # when and which number, by key
        self.sent: list[tuple[float, str, bool]] = []  # when, to which partition, whether it was stored
        self.backlog: Counter[str] = Counter()
        self.requests = 0
        self._size = size
        self._logged: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Lets so many seconds pass."""
        end = self.now + seconds
        while self.now < end:
            self._log()
            self._take_answers()
            self._send()
            self.now += TICK

    def _log(self) -> None:
        for key, rate in self.offered.items():
            due = int(self.now * rate)
            numbers = range(self._logged[key], due)
            self._logged[key] = due
            for number in numbers[: max(0, MAX_BACKLOG - self.backlog[key])]:
                self.queue.append(make_entry(key, number, self._size))
                self.backlog[key] += 1

    def _take_answers(self) -> None:
        while self.answers and self.answers[0][0] <= self.now:
            _, _, entries, partition_ids = heapq.heappop(self.answers)
            throttled = [index for index, partition in enumerate(partition_ids) if not partition]
            pause = self.pace.learn(entries, throttled, partition_ids if throttled else ())
            again = [entries[index] for index in throttled]
            self._free({entry[KEY] for entry in entries} - {entry[KEY] for entry in again})
            if again:
                self.requests += 1
                heapq.heappush(self.retries, (self.now + max(pause, LATENCY), self.requests, again))

    def _free(self, keys: set[str]) -> None:
        self.busy -= keys
        self.ready.extend(key for key in keys if key in self.parked)

    def _send(self) -> None:
        self.pace.release(lambda keys: self.ready.extend(key for key in keys if key in self.parked))
        while self.retries and self.retries[0][0] <= self.now:
            self._attempt(heapq.heappop(self.retries)[2])
        while batch := self._cut():
            self.busy |= {entry[KEY] for entry in batch}
            self._attempt(batch)

    def _cut(self) -> list[Entry]:
        batch: list[Entry] = []
        while self.ready and len(batch) < MAX_BATCH:
            key = self.ready.popleft()
            if key in self.busy or key not in self.parked:
                continue
            entries = self.parked[key]
            while entries and len(batch) < MAX_BATCH and self.pace.admits(entries[0]):
                batch.append(entries.popleft())
            if not entries:
                del self.parked[key]
            elif len(batch) == MAX_BATCH:
                self.ready.appendleft(key)
        while self.queue and len(batch) < MAX_BATCH:
            entry = self.queue.popleft()
            if entry[KEY] in self.busy or entry[KEY] in self.parked or not self.pace.admits(entry):
                self.parked.setdefault(entry[KEY], deque()).append(entry)
            else:
                batch.append(entry)
        return batch

    def _attempt(self, entries: list[Entry]) -> None:
        self.requests += 1
        results = self.service.store(entries, self.now)
        for entry, (partition, was_stored) in zip(entries, results, strict=True):
            self.sent.append((self.now, partition, was_stored))
            if was_stored:
                self.backlog[entry[KEY]] -= 1
                self.stored[entry[KEY]].append((self.now, entry[CREATED]))
        partition_ids = [partition if was_stored else "" for partition, was_stored in results]
        heapq.heappush(self.answers, (self.now + LATENCY, self.requests, entries, partition_ids))

    # -- what came of it --------------------------------------------------------------------------------------------

    def refused_share(self, since: float = WARM_UP) -> float:
        """Of the entries sent from *since* on, how many were refused."""
        late = [was_stored for moment, _, was_stored in self.sent if moment >= since]
        return late.count(False) / len(late)

    def stored_rate(self, partition: str | None = None, since: float = WARM_UP) -> float:
        """Records stored a second from *since* on, in one partition or in all."""
        late = [
            1 for moment, name, was_stored in self.sent if was_stored and moment >= since and partition in (None, name)
        ]
        return len(late) / (self.now - since)

    def stored_of(self, key: str, since: float = WARM_UP) -> float:
        """Records of *key* stored a second from *since* on."""
        return sum(moment >= since for moment, _ in self.stored[key]) / (self.now - since)


def by_number(entry: Entry) -> int:
    """Places ``app.7`` in partition 7 modulo 3."""
    return int(entry[KEY].rpartition(".")[2]) % 3


def loggers(count: int, total: float) -> dict[str, float]:
    return {f"app.{number}": total / count for number in range(count)}


def skewed(count: int, total: float) -> dict[str, float]:
    """One logger has half of everything in its partition, the next half of the rest, and so on."""
    shares = [2.0 ** -(number // 3) for number in range(count)]
    return {f"app.{number}": total * share / sum(shares) for number, share in enumerate(shares)}


@pytest.mark.parametrize(
    ("rate", "offered"),
    [
        pytest.param(COMMON, loggers(50, 5000), id="fifty loggers"),
        pytest.param(COMMON, loggers(300, 5000), id="three hundred loggers"),
        pytest.param(COMMON, loggers(3, 5000), id="one logger each"),
        pytest.param(COMMON, skewed(24, 5000), id="unequal loggers"),
        pytest.param(COMMON, loggers(30, 30_000), id="ten times too much"),
        pytest.param(ADVANCED, loggers(50, 8000), id="advanced partitions"),
    ],
)
def test_the_allowed_rate_is_used_and_hardly_anything_refused(rate: Rate, offered: dict[str, float]) -> None:
    simulation = Simulation(Service([rate] * 3, by_number), offered)

    simulation.run(30)

    assert simulation.stored_rate() >= 0.9 * 3 * rate.records
    assert simulation.refused_share() < 0.05


def test_the_limit_of_bytes_is_met_as_well() -> None:
    simulation = Simulation(Service([COMMON] * 3, by_number), loggers(30, 1500), size=4096)

    simulation.run(30)

    assert simulation.stored_rate() >= 0.9 * 3 * 256
    assert simulation.refused_share() < 0.05


def test_a_partition_that_takes_all_is_not_slowed() -> None:
    """One is offered three times what it takes; the loggers of the others log beside it, half of what these take."""
    offered = {"app.0": 3000.0, **{f"app.{number}": 50.0 for number in range(1, 31) if number % 3}}
    simulation = Simulation(Service([COMMON] * 3, by_number), offered)

    simulation.run(20)

    delays = [
        moment - number / 50.0
        for key, stored in simulation.stored.items()
        if key != "app.0"
        for moment, number in stored
    ]
    assert len(delays) > 15_000
    assert max(delays) < 0.1
    assert simulation.stored_rate("shardId-0") >= 900


def test_a_partition_that_gets_faster_is_used_again() -> None:
    """Somebody else wrote to it, and stops."""
    service = Service([Rate(100, 2**20)], lambda entry: 0)
    simulation = Simulation(service, loggers(10, 2000))
    simulation.run(20)
    assert 90 <= simulation.stored_rate() <= 110

    service.buckets[0] = Bucket(COMMON, simulation.now)
    simulation.run(50)

    assert simulation.stored_rate(since=60) >= 900


def test_a_partition_that_gets_slower_is_not_hammered() -> None:
    service = Service([COMMON], lambda entry: 0)
    simulation = Simulation(service, loggers(10, 2000))
    simulation.run(20)

    service.buckets[0] = Bucket(Rate(50, 2**20), simulation.now)
    simulation.run(20)

    assert simulation.refused_share(since=30) < 0.05
    assert simulation.stored_rate(since=30) >= 45


def test_keys_without_a_name_are_paced_together() -> None:
    """DIS spreads them over all partitions."""
    turns = itertools.cycle(range(3))
    simulation = Simulation(Service([COMMON] * 3, lambda entry: next(turns)), {"": 5000})

    simulation.run(30)

    assert simulation.stored_rate() >= 0.9 * 3000
    assert simulation.refused_share() < 0.05


def test_every_key_of_a_throttled_partition_gets_its_turn() -> None:
    simulation = Simulation(Service([COMMON], lambda entry: 0), {"greedy": 3000, "busy": 1500, "calm": 20})

    simulation.run(30)

    assert simulation.stored_of("calm") >= 18
    assert simulation.stored_of("busy") >= 300
    assert simulation.stored_of("greedy") >= 300


# -- one step at a time ---------------------------------------------------------------------------------------------


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


def refuse(pace: Pace, *entries: Entry, stored: Mapping[str, str] | None = None) -> float:
    """Tells *pace* that *entries* were refused, beside one stored entry for each key in *stored*, by its partition."""
    stored = stored or {}
    answered = [*entries, *(make_entry(key) for key in stored)]
    return pace.learn(answered, range(len(entries)), [*[""] * len(entries), *stored.values()])


def released(pace: Pace) -> list[str]:
    """Returns the keys that need not wait any longer."""
    keys: list[str] = []
    pace.release(keys.extend)
    return keys


def test_nothing_waits_before_anything_was_refused(pace: Pace) -> None:
    assert pace.learn([make_entry("a")] * 10, [], ()) == 0.0

    assert not pace.is_slowing
    assert all(pace.admits(make_entry("a")) for _ in range(10_000))
    assert pace.next_release() is None


def test_a_refused_key_waits_until_its_partition_may_have_room(pace: Pace, clock: Clock) -> None:
    pause = refuse(pace, *[make_entry("a")] * 100)

    assert pause == pytest.approx(0.1)  # what 100 records take of a common partition's second
    assert pace.is_slowing
    assert not pace.admits(make_entry("a"))
    assert pace.admits(make_entry("b"))
    release = pace.next_release()
    assert release is not None
    assert release > clock.now + pause
    assert released(pace) == []
    clock.now = release + 1e-6
    assert released(pace) == ["a"]
    assert pace.admits(make_entry("a"))
    assert pace.next_release() is None


def test_keys_of_one_partition_wait_together(pace: Pace) -> None:
    refuse(pace, make_entry("a"), stored={"a": "shardId-0", "b": "shardId-1"})
    refuse(pace, make_entry("c"), stored={"d": "shardId-0", "e": "shardId-1"})

    assert [key for key in "abde" if not pace.admits(make_entry(key))] == ["a", "d"]


def test_a_key_finds_the_lane_of_its_partition_later(pace: Pace) -> None:
    """It waits at first as if it had a partition for itself, and is released with its new neighbours."""
    refuse(pace, make_entry("a"), stored={"a": "shardId-0"})
    refuse(pace, make_entry("b"))
    assert not pace.admits(make_entry("b"))

    refuse(pace, make_entry("c"), stored={"b": "shardId-0"})

    assert len(pace._lanes()) == 2
    assert list(pace._by_partition["shardId-0"].waiting) == ["b"]


def test_records_of_one_key_that_are_routed_apart_wait_apart(pace: Pace) -> None:
    there, elsewhere = Routing(None, "shardId-0"), Routing(None, "shardId-1")
    refuse(pace, make_entry("a", routing=there))

    assert pace.admits(make_entry("a", routing=elsewhere))
    assert pace.admits(make_entry("a"))
    assert not pace.admits(make_entry("a", routing=there))


def test_a_partition_with_room_to_spare_is_forgotten(pace: Pace, clock: Clock) -> None:
    refuse(pace, make_entry("a"), make_entry("b"), stored={"a": "shardId-0"})
    assert not pace.admits(make_entry("a"))

    keys: list[str] = []
    for _ in range(15):
        clock.now += 1
        keys += released(pace)
        pace.learn([make_entry("a")], [], ())

    assert keys == ["a"]
    assert not pace.is_slowing
    assert pace._lane_of == {}


def test_a_partition_that_stays_busy_is_not_forgotten(pace: Pace, clock: Clock) -> None:
    refuse(pace, make_entry("a"), stored={"a": "shardId-0"})

    for _ in range(300):
        clock.now += 0.1
        released(pace)
        while pace.admits(make_entry("a")):
            pass

    assert pace.is_slowing


@pytest.mark.parametrize("seconds", [1, 20], ids=["open", "calm"])
def test_a_key_that_comes_to_wait_while_it_is_told_waits_for_the_next_turn(clock: Clock, seconds: float) -> None:
    """As in a signal handler that flushes, and so sends what the key has room for."""
    pace = Pace(clock)
    refuse(pace, make_entry("a"))
    assert not pace.admits(make_entry("a"))
    clock.now += seconds
    told: list[str] = []

    def tell(keys: Iterable[str]) -> None:
        told.extend(keys)
        if len(told) == 1:
            while pace.admits(make_entry("a")):
                pass

    pace.release(tell)
    clock.now += seconds
    pace.release(tell)

    assert told == ["a", "a"]
    assert pace.next_release() is None


@pytest.mark.parametrize("seconds", [1, 20], ids=["open", "calm"])
def test_an_interrupt_anywhere_leaves_no_key_waiting(clock: Clock, seconds: float) -> None:
    for place in itertools.count():
        pace = Pace(clock)
        refuse(pace, *map(make_entry, "abc"), stored={"a": "shardId-0", "b": "shardId-1"})
        buffer = make_buffer()
        for entry in map(make_entry, "abc"):
            assert not pace.admits(entry)
            park(buffer, entry)
        clock.now += seconds

        was_interrupted = interrupt_after(place, KeyboardInterrupt, partial(pace.release, buffer.release))

        pace.release(buffer.release)
        assert set(buffer.ready) == set("abc")
        assert pace.next_release() is None
        waiting = {key for key in "abc" if not all(pace.admits(make_entry(key)) for _ in range(5000))}
        clock.now += seconds
        assert waiting <= set(released(pace))  # whatever has become of their lanes
        if not was_interrupted:
            assert place > 10
            break


def test_the_memory_of_keys_is_bounded(pace: Pace) -> None:
    """Keys that wait are remembered whatever their number: nobody else knows where they wait."""
    refuse(pace, make_entry("waiting"))
    assert not pace.admits(make_entry("waiting"))

    for number in range(60_000):
        refuse(pace, make_entry(f"request {number}"))

    assert len(pace._lane_of) <= 20_002
    assert len(pace._by_place) <= 20_002
    assert "waiting" in pace._by_place["waiting"].waiting


@pytest.mark.parametrize(("size", "cost"), [(1, 0.001), (1000, 0.001), (2**20, 1.0), (2**19, 0.5)])
def test_a_record_costs_what_the_scarcer_limit_says(size: int, cost: float) -> None:
    assert cost_of(make_entry("a", size=size)) == cost


def test_a_record_that_shares_a_dis_record_costs_its_bytes() -> None:
    assert cost_among_others(make_entry("a", size=1024)) == 1 / 1024
