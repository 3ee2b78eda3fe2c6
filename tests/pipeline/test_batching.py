"""Cutting entries into batches: order kept for every key, nothing lost, limits obeyed."""

import itertools
from collections import defaultdict
from functools import partial
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dis_logging.client import wire
from dis_logging.client.wire import Routing
from dis_logging.pipeline import batching
from dis_logging.pipeline.aggregation import join
from dis_logging.pipeline.batching import BatchLimits, take_batch
from dis_logging.pipeline.buffer import Buffer, OverflowPolicy, Taken
from dis_logging.pipeline.entry import CREATED, DATA, KEY, Entry
from dis_logging.pipeline.stats import Ledger
from tests.conftest import make_buffer
from tests.interrupts import interrupt_after

KEYS = ("a", "b", "c", "")


def make_entry(key: str, number: int, data: bytes, routing: Routing | None = None) -> Entry:
    return data, key, routing, 0, f"logger {number}", 20, float(number), "path", 1, None, None, ()


class Run:
    """Feeds a buffer, takes batches from it, and keeps an account of both."""

    def __init__(self, limits: BatchLimits) -> None:
        self.buffer = make_buffer()
        self.limits = limits
        self.put: list[Entry] = []
        self.taken: list[Entry] = []

    def add(self, key: str, size: int) -> None:
        self.add_data(key, b"x" * size)

    def add_data(self, key: str, data: bytes, routing: Routing | None = None) -> None:
        entry = make_entry(key, len(self.put), data, routing)
        self.put.append(entry)
        self.buffer.put(entry)

    def take(self, busy: set[str]) -> list[Entry]:
        self.buffer.release(set(KEYS) - busy)
        batch = take_batch(self.buffer, self.limits, busy)
        self.taken += batch
        assert not busy & {entry[KEY] for entry in batch}
        assert len(batch) <= self.limits.max_records
        if len(batch) > 1:
            assert sum(len(entry[DATA]) for entry in batch) <= self.limits.max_bytes
            assert len(wire.encode_put_records("x" * 64, batch)) <= wire.MAX_BODY_BYTES
        return batch

    def drain(self) -> None:
        while self.take(set()):
            pass


def by_key(entries: list[Entry]) -> dict[str, list[float]]:
    numbers: defaultdict[str, list[float]] = defaultdict(list)
    for entry in entries:
        numbers[entry[KEY]].append(entry[CREATED])
    return dict(numbers)


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(KEYS), st.integers(1, 60)),
        st.sets(st.sampled_from(KEYS), max_size=3),
    ),
    max_size=60,
)


@given(steps=steps, limits=st.builds(BatchLimits, st.integers(1, 6), st.integers(1, 150), st.just(0)))
def test_order_is_kept_for_every_key_nothing_is_lost_and_limits_hold(
    steps: list[tuple[str, int] | set[str]], limits: BatchLimits
) -> None:
    run = Run(limits)

    for step in steps:
        if isinstance(step, set):
            run.take(step)
        else:
            run.add(*step)
    run.drain()

    assert by_key(run.taken) == by_key(run.put)
    assert len(run.taken) == len(run.put)
    assert not run.buffer.queue
    assert not run.buffer.parked
    assert run.buffer.waiting() == (0, 0)


@given(
    sizes=st.lists(st.integers(1, 60), max_size=40),
    limits=st.builds(BatchLimits, st.integers(1, 6), st.integers(1, 150), st.just(0)),
)
def test_without_busy_keys_entries_leave_in_the_order_they_came(sizes: list[int], limits: BatchLimits) -> None:
    run = Run(limits)
    for index, size in enumerate(sizes):
        run.add(KEYS[index % 3], size)

    run.drain()

    assert run.taken == run.put


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    limits=st.builds(BatchLimits, st.integers(1, 6), st.integers(1, 150), st.just(0)),
)
def test_a_batch_is_as_full_as_the_limits_allow(sizes: list[int], limits: BatchLimits) -> None:
    run = Run(limits)
    for size in sizes:
        run.add("a", size)

    batch = run.take(set())

    following = len(run.buffer.queue[0][DATA]) if run.buffer.queue else 10**9
    full = len(batch) == limits.max_records or sum(len(entry[DATA]) for entry in batch) + following > limits.max_bytes
    assert full or not run.buffer.queue


@pytest.mark.parametrize(
    ("limits", "fitting"),
    [(BatchLimits(8, 60), 6), (BatchLimits(8, 66, 100), 6), (BatchLimits(500, 1000, 100), 9)],
    ids=["each", "aggregated", "all aggregated"],
)
def test_an_interrupt_anywhere_leaves_each_entry_in_the_batch_or_in_the_buffer(
    monkeypatch: pytest.MonkeyPatch, limits: BatchLimits, fitting: int
) -> None:
    """Even among the entries that do not fit, which were taken in vain; and the batch is none that DIS would refuse."""
    monkeypatch.setattr(batching, "_CHUNK", 3)
    for place in itertools.count():
        run = Run(limits)
        for number in range(9):
            run.add_data("a", b"x\n xxxx" if number == 1 else b"x" * 10)  # as JSON it has ten bytes, too
        batch: list[Entry] = []

        take = partial(take_batch, run.buffer, run.limits, set(), None, batch)
        was_interrupted = interrupt_after(place, KeyboardInterrupt, take)

        assert [*batch, *run.buffer.queue] == run.put
        assert len(batch) <= fitting
        assert run.buffer.waiting() == (len(run.buffer.queue), sum(len(entry[DATA]) for entry in run.buffer.queue))
        if not was_interrupted:
            assert len(batch) == fitting
            assert place > 10
            break


class FullRun(Run):
    """A run with a full buffer of several keys, of which some are parked, and an account of what gives way to a new entry."""

    def __init__(self, limits: BatchLimits) -> None:
        super().__init__(limits)
        self.dropped: list[float] = []
        ledger = Ledger(lambda verdict: self.dropped.append(verdict.created))
        self.buffer = make_buffer(ledger, max_records=16, policy=OverflowPolicy.DROP_OLDEST)
        for key in "ababab":
            self.add(key, 10)
        assert self.take({"a", "b"}) == []
        for key in "acdacbcdac":
            self.add(key, 10)
        self.buffer.release("a")

    def assert_each_is_in_its_place(self, batch: list[Entry]) -> None:
        buffer = self.buffer
        left = [*itertools.chain.from_iterable(buffer.parked.values()), *buffer.queue]
        assert sorted([*self.dropped, *map(itemgetter(CREATED), [*batch, *left])]) == list(range(len(self.put)))
        for numbers in by_key([*batch, *left]).values():
            assert numbers == sorted(numbers)
        assert buffer.waiting() == (len(buffer.queue), sum(len(entry[DATA]) for entry in buffer.queue))


@pytest.mark.parametrize(
    ("limits", "admitted"),
    [
        (BatchLimits(4, 1000), None),
        (BatchLimits(8, 1000), None),
        (BatchLimits(20, 70), "abc"),
        (BatchLimits(8, 1000, 25), None),
        (BatchLimits(20, 1000, 100), "abc"),
    ],
    ids=["little fits", "much fits", "one is slowed down", "aggregated", "aggregated and slowed down"],
)
@pytest.mark.parametrize("logged", [1, 5, 16])
def test_a_signal_handler_that_logs_into_a_full_buffer_and_raises_has_each_entry_either_dropped_or_kept(
    monkeypatch: pytest.MonkeyPatch, limits: BatchLimits, admitted: str | None, logged: int
) -> None:
    monkeypatch.setattr(batching, "_CHUNK", 3)
    admits = None if admitted is None else lambda entry: entry[KEY] in admitted
    for place in itertools.count():
        run, batch = FullRun(limits), list[Entry]()

        def log(run: Run = run) -> None:
            for _ in range(logged):
                run.add("a", 10)

        take = partial(take_batch, run.buffer, limits, {"b"}, admits, batch)
        was_interrupted = interrupt_after(place, KeyboardInterrupt, take, handler=log)

        run.assert_each_is_in_its_place(batch)
        if not was_interrupted:
            assert place > 10
            break


@pytest.mark.parametrize(
    ("limits", "admitted"),
    [(BatchLimits(8, 45), None), (BatchLimits(20, 70), "abc"), (BatchLimits(8, 1000, 25), None)],
    ids=["some do not fit", "one is slowed down", "aggregated"],
)
def test_two_interrupts_leave_each_entry_in_the_batch_or_in_the_buffer(
    monkeypatch: pytest.MonkeyPatch, limits: BatchLimits, admitted: str | None
) -> None:
    """The second one comes upon the repair that the first has made necessary."""
    monkeypatch.setattr(batching, "_CHUNK", 3)
    admits = None if admitted is None else lambda entry: entry[KEY] in admitted
    repair = batching._repair
    places, pairs = iter(range(1000)), 0
    was_interrupted = True
    while was_interrupted:
        first, second, comes_again = next(places), itertools.count(), True
        while comes_again:
            comes_again = False

            def repair_interrupted(cut: Any, buffer: Buffer, place: int = next(second)) -> None:
                nonlocal comes_again
                monkeypatch.setattr(batching, "_repair", repair)
                if interrupt_after(place, KeyboardInterrupt, partial(repair, cut, buffer)):
                    comes_again = True
                    raise KeyboardInterrupt

            monkeypatch.setattr(batching, "_repair", repair_interrupted)
            run, batch = FullRun(limits), list[Entry]()
            take = partial(take_batch, run.buffer, limits, {"b"}, admits, batch)
            was_interrupted = interrupt_after(first, KeyboardInterrupt, take)

            run.assert_each_is_in_its_place(batch)
            pairs += comes_again
    assert pairs > 100


def test_an_entry_that_another_thread_is_about_to_drop_is_counted_by_that_one_only() -> None:
    limits = BatchLimits(20, 1000)
    for place in itertools.count():
        run, batch = FullRun(limits), list[Entry]()
        taken: list[Entry] = []

        def begin_to_drop(run: Run = run, taken: list[Entry] = taken) -> None:
            if run.buffer.queue:
                taken.append(run.buffer.queue.popleft())

        take = partial(take_batch, run.buffer, limits, {"b"}, None, batch)
        was_interrupted = interrupt_after(place, KeyboardInterrupt, take, handler=begin_to_drop)
        run.buffer.count_taken(Taken(len(taken), sum(len(entry[DATA]) for entry in taken)))
        run.dropped += map(itemgetter(CREATED), taken)

        run.assert_each_is_in_its_place(batch)
        if not was_interrupted:
            assert place > 10
            break


def test_an_empty_buffer_gives_an_empty_batch() -> None:
    assert take_batch(make_buffer(), BatchLimits(10, 10), set()) == []


def test_a_single_entry_over_the_limit_goes_alone() -> None:
    run = Run(BatchLimits(10, 100))
    for size in (50, 500, 50):
        run.add("a", size)

    assert [[len(entry[DATA]) for entry in run.take(set())] for _ in range(3)] == [[50], [500], [50]]


def test_long_keys_count_towards_the_size_of_the_body() -> None:
    run = Run(BatchLimits(1000, 15 * 1024 * 1024 // 4))
    for _ in range(20):
        run.add("\u4e16" * 100_000, 1)  # 600,000 bytes in JSON, escaped

    assert len(run.take(set())) < 9
    run.drain()
    assert len(run.taken) == 20


def test_entries_of_a_busy_key_wait_while_others_go() -> None:
    run = Run(BatchLimits(10, 1000))
    for key in ("a", "b", "a", "b", "c"):
        run.add(key, 1)

    assert [entry[CREATED] for entry in run.take({"a"})] == [1, 3, 4]
    run.add("a", 1)
    assert run.take({"a"}) == []
    assert [entry[CREATED] for entry in run.take(set())] == [0, 2, 5]


def test_an_entry_of_a_busy_key_that_moves_up_as_another_thread_drops_the_oldest_waits_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(BatchLimits(2, 1000))
    for key in "abcab":
        run.add(key, 1)
    look = run.buffer.next_keys

    def look_and_drop(count: int) -> set[str]:
        keys = look(count)
        run.buffer.queue.popleft()
        return keys

    monkeypatch.setattr(run.buffer, "next_keys", look_and_drop)

    batch = take_batch(run.buffer, run.limits, {"c"})

    assert [(entry[KEY], entry[CREATED]) for entry in batch] == [("b", 1.0), ("a", 3.0)]
    assert list(run.buffer.parked) == ["c"]


def test_parked_entries_that_do_not_fit_keep_newer_ones_of_their_key_behind_them() -> None:
    run = Run(BatchLimits(2, 1000))
    for _ in range(5):
        run.add("a", 1)
    run.take({"a"})
    run.add("a", 1)

    assert [[entry[CREATED] for entry in run.take(set())] for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]


# -- with DIS records that several entries share --------------------------------------------------------------------


ROUTINGS = (None, Routing("1" * 19, None), Routing(None, "shardId-0000000000"))
lines = st.tuples(
    st.sampled_from(KEYS),
    st.one_of(st.integers(1, 60).map(lambda size: b"x" * size), st.sampled_from([b"\n", b'"\x01\x02', b"\x00\n" * 9])),
    st.sampled_from(ROUTINGS),
)


def fill(run: Run, parts: list[tuple[str, bytes, Routing | None]]) -> None:
    for key, data, routing in parts:
        run.add_data(key, data, routing)


@given(
    parts=st.lists(lines, max_size=50),
    limits=st.builds(BatchLimits, st.integers(1, 6), st.integers(1, 300), st.integers(1, 100)),
)
def test_an_aggregated_batch_obeys_the_limits_in_dis_records_and_their_bytes(
    parts: list[tuple[str, bytes, Routing | None]], limits: BatchLimits
) -> None:
    run = Run(limits)
    fill(run, parts)
    taken: list[Entry] = []

    while batch := take_batch(run.buffer, limits, set()):
        records, _ = join(batch, limits.aggregate_bytes)
        assert len(records) <= limits.max_records
        assert len(batch) == 1 or sum(len(data) for data, _, _ in records) <= limits.max_bytes
        taken += batch

    assert taken == run.put


@given(
    parts=st.lists(lines, min_size=1, max_size=50),
    limits=st.builds(BatchLimits, st.integers(1, 6), st.integers(1, 300), st.integers(1, 100)),
)
def test_an_aggregated_batch_has_at_least_a_quarter_of_the_dis_records_it_may_have(
    parts: list[tuple[str, bytes, Routing | None]], limits: BatchLimits
) -> None:
    run = Run(limits)
    fill(run, parts)

    batch = take_batch(run.buffer, limits, set())

    if run.buffer.queue:
        records, _ = join([*batch, run.buffer.queue[0]], limits.aggregate_bytes)
        # Each line is counted with a line feed, the last one of a record too.
        size = sum(len(data) + 1 for data, _, _ in records)
        # How many DIS records there will be is only estimated.
        assert 4 * len(records) > limits.max_records or size > limits.max_bytes


@given(
    st.lists(
        st.tuples(st.text(min_size=0, max_size=300), st.integers(1, 400_000), st.booleans(), st.sampled_from(ROUTINGS)),
        min_size=10,
        max_size=60,
    )
)
@settings(max_examples=25)
def test_the_body_of_an_aggregated_batch_is_never_too_large(
    parts: list[tuple[str, int, bool, Routing | None]],
) -> None:
    limits = BatchLimits(10_000, 15 * 1024 * 1024 // 4, 25 * 1024)
    run = Run(limits)
    fill(run, [(key, b"\n\0" * (size // 8 + 1) if odd else b"x" * size, routing) for key, size, odd, routing in parts])
    count = 0

    while batch := take_batch(run.buffer, limits, set()):
        records, _ = join(batch, limits.aggregate_bytes)
        assert len(wire.encode_put_records("x" * 64, records)) <= wire.MAX_BODY_BYTES
        count += len(batch)

    assert count == len(parts)


def test_short_lines_that_share_dis_records_make_a_full_body() -> None:
    """The margin for each DIS record is counted once for all lines in it."""
    limits = BatchLimits(500, 15 * 1024 * 1024 // 4, 25 * 1024)
    run = Run(limits)
    fill(run, [("a", b"x" * 99, None)] * 50_000)

    batch = take_batch(run.buffer, limits, set())

    size = len(wire.encode_put_records("x" * 64, join(batch, limits.aggregate_bytes)[0]))
    assert 0.98 * wire.MAX_BODY_BYTES < size <= wire.MAX_BODY_BYTES


def test_without_aggregation_the_same_entries_need_more_room() -> None:
    limits = BatchLimits(10, 10_000, 1000)
    counts = []
    for choice in (limits, limits._replace(aggregate_bytes=0)):
        run = Run(choice)
        fill(run, [("a", b"x" * 99, None)] * 200)
        counts.append(len(take_batch(run.buffer, choice, set())))

    assert counts[0] >= 40  # a hundred would fit, but how many DIS records there will be is only estimated
    assert counts[1] == 10
