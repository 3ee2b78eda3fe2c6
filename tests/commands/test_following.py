"""A stream followed through what may happen to a reader, at the emulator; the pauses are the test's."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice

import pytest

from dis_logging import CursorType, DISClient, DISError, PutRecordsRequestEntry, ServiceError
from dis_logging.commands.following import FROM_BEGINNING, FROM_NOW, Follower, Start
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.app import Operation
from dis_logging.emulator.faults import Fault, Hang, Refuse, Reply, Reset, times
from tests.conftest import STREAM


class Pauses:
    """A clock that only moves when somebody sleeps by it, and calls that are to be made in the pauses, one in each."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: list[Callable[[], object]] = []
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert len(self.slept) < 200, "nothing comes any more"
        self.slept.append(seconds)
        self.now += seconds
        if self.calls:
            self.calls.pop(0)()


class ServiceClock:
    """The emulator's time."""

    def __init__(self) -> None:
        self.now = datetime.now(timezone.utc)

    def __call__(self) -> datetime:
        return self.now


class Following:
    """An emulator, a client to upload with, and a follower whose notes and pauses are kept."""

    def __init__(self, dis: DISEmulator, start: Start, client: DISClient) -> None:
        self.client = client
        self.pauses = Pauses()
        self.notes: list[str] = []
        self.follower = Follower(
            client, STREAM, start, self.notes.append, clock=self.pauses.clock, sleep=self.pauses.sleep
        )

    def put(self, *texts: str, partition: int = 0, timestamp: int | None = None) -> None:
        entries = [PutRecordsRequestEntry(text, partition_id=str(partition), timestamp=timestamp) for text in texts]
        assert self.client.put_records(STREAM, entries).failed_record_count == 0

    def next(self, count: int) -> list[str]:
        return [arrival.record.text for arrival in islice(self.follower.read(follow=True), count)]

    def rest(self) -> list[str]:
        return [arrival.record.text for arrival in self.follower.read(follow=False)]


@pytest.fixture
def client(dis: DISEmulator) -> Iterator[DISClient]:
    with DISClient(**dis.client_options()) as client:
        yield client


@pytest.fixture
def follow(dis: DISEmulator, client: DISClient) -> Callable[[Start], Following]:
    return lambda start: Following(dis, start, client)


Follow = Callable[[Start], Following]


def test_from_the_beginning_everything_is_read(follow: Follow) -> None:
    following = follow(FROM_BEGINNING)
    following.put("a", "b")
    following.put("c", partition=2)

    assert following.follower.begin() == 3
    assert sorted(following.rest()) == ["a", "b", "c"]


def test_from_now_only_what_comes_is_read(follow: Follow) -> None:
    following = follow(FROM_NOW)
    following.put("old")
    following.follower.begin()
    following.put("new")

    assert following.next(1) == ["new"]


def test_from_a_time_older_records_are_left_out(dis: DISEmulator) -> None:
    clock = ServiceClock()
    with DISEmulator({STREAM: 2}, clock=clock) as late, DISClient(**late.client_options()) as client:
        began = int(clock.now.timestamp() * 1000)
        following = Following(late, Start(CursorType.AT_TIMESTAMP, began + 60_000), client)
        following.put("old")
        clock.now += timedelta(minutes=2)
        following.put("new")
        following.follower.begin()

        assert following.rest() == ["new"]


def test_partitions_are_merged_by_time_and_keep_their_own_order() -> None:
    clock = ServiceClock()
    with DISEmulator({STREAM: 3}, clock=clock) as dis, DISClient(**dis.client_options()) as client:
        following = Following(dis, FROM_BEGINNING, client)
        expected = []
        for number in range(30):
            clock.now += timedelta(seconds=1)
            following.put(f"r{number}", partition=number * 7 % 3)
            expected.append(f"r{number}")
        following.follower.begin()

        assert following.rest() == expected


def test_merging_holds_over_the_limit_of_one_answer() -> None:
    """The first answer of each partition ends long before its records do."""
    clock = ServiceClock()
    with DISEmulator({STREAM: 2}, clock=clock) as dis, DISClient(**dis.client_options()) as client:
        following = Following(dis, FROM_BEGINNING, client)
        for block in range(5):
            clock.now += timedelta(seconds=1)
            following.put(*[f"{block}"] * 900, partition=block % 2)
        following.follower.begin()
        read = following.rest()

    assert read == sorted(read)
    assert len(read) == 4500


def test_records_that_come_later_are_waited_for(follow: Follow) -> None:
    following = follow(FROM_NOW)
    following.follower.begin()
    following.pauses.calls = [lambda: following.put("a"), lambda: following.put("b", partition=1)]

    assert following.next(2) == ["a", "b"]
    assert all(0 < pause <= 1.0 for pause in following.pauses.slept)


@pytest.mark.parametrize("start", [FROM_BEGINNING, FROM_NOW])
def test_an_expired_cursor_costs_no_record_and_doubles_none(start: Start) -> None:
    clock = ServiceClock()
    with DISEmulator({STREAM: 1}, clock=clock) as dis, DISClient(**dis.client_options()) as client:
        following = Following(dis, start, client)
        following.follower.begin()
        following.put("before")

        def oversleep() -> None:
            clock.now += timedelta(minutes=6)
            following.put("meanwhile")

        following.pauses.calls = [lambda: None, lambda: None, oversleep, lambda: following.put("after")]

        assert following.next(3) == ["before", "meanwhile", "after"]
        assert dis.refused["DIS.4225"] > 0


def test_a_cursor_that_expires_before_the_first_record_costs_none() -> None:
    clock = ServiceClock()
    with DISEmulator({STREAM: 1}, clock=clock) as dis, DISClient(**dis.client_options()) as client:
        following = Following(dis, FROM_NOW, client)
        following.put("old")
        following.follower.begin()

        def oversleep() -> None:
            clock.now += timedelta(minutes=6)
            following.put("meanwhile")

        following.pauses.calls = [oversleep]

        assert following.next(1) == ["meanwhile"]
        assert dis.refused["DIS.4225"] == 1


def test_a_cursor_that_dis_does_not_know_any_more_is_replaced(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_BEGINNING)
    following.follower.begin()
    following.put("a")
    dis.play(*times(3, Refuse(400, "DIS.4217")), operation=Operation.GET_RECORDS)

    assert following.next(1) == ["a"]


def test_a_partition_that_gets_a_new_cursor_is_waited_for() -> None:
    """Its record is older than the one that waits in the other partition."""
    clock = ServiceClock()
    with DISEmulator({STREAM: 2}, clock=clock) as dis, DISClient(**dis.client_options()) as client:
        following = Following(dis, FROM_BEGINNING, client)
        following.put("a", partition=0)
        clock.now += timedelta(seconds=1)
        following.put("b", partition=1)
        dis.play(Refuse(400, "DIS.4217"), operation=Operation.GET_RECORDS)
        following.follower.begin()

        assert following.rest() == ["a", "b"]


def test_cursors_that_are_always_refused_end_it(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_BEGINNING)
    following.follower.begin()
    with dis.rule(Refuse(400, "DIS.4217"), operation=Operation.GET_RECORDS), pytest.raises(ServiceError):
        following.next(1)


@pytest.mark.parametrize(
    "fault", [Refuse(400, "DIS.4303"), Refuse(429), Refuse(500, "DIS.5000"), Refuse(503), Reset(), Reply(body=b"?")]
)
def test_throttling_and_outages_cost_no_record(follow: Follow, dis: DISEmulator, fault: Fault) -> None:
    following = follow(FROM_BEGINNING)
    following.put("a", "b")
    dis.play(*times(7, fault), operation=Operation.GET_RECORDS)
    following.follower.begin()

    assert following.rest() == ["a", "b"]
    assert dis.unplayed == ()
    assert 1 <= len(following.notes) <= 3  # once for each partition, however often it is tried
    assert "trying again" in following.notes[0]


def test_retry_after_is_heeded(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_BEGINNING)
    following.put("a")
    dis.play(*times(3, Refuse(429, headers={"Retry-After": "7"})), operation=Operation.GET_RECORDS)
    following.follower.begin()

    assert following.rest() == ["a"]
    assert sum(following.pauses.slept) >= 7


def test_a_throttled_partition_does_not_hold_up_the_others(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_BEGINNING)
    for partition in range(3):
        following.put("a", partition=partition)
    dis.play(*times(2, Refuse(400, "DIS.4303")), operation=Operation.GET_RECORDS)
    following.follower.begin()

    assert following.next(1) == ["a"]
    assert following.pauses.slept == []


def test_a_partition_that_hangs_does_not_hold_up_the_others(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_NOW)
    following.follower.begin()
    dis.play(Hang(), operation=Operation.GET_RECORDS)

    def put_everywhere() -> None:
        for partition in range(3):
            following.put("a", partition=partition)

    following.pauses.calls = [put_everywhere]
    started = time.monotonic()

    assert following.next(2) == ["a", "a"]
    assert time.monotonic() - started < 8.0  # an attempt has 10


def test_expired_records_are_told_and_reading_goes_on_with_the_oldest() -> None:
    with DISEmulator({STREAM: 1}, retention=3) as dis, DISClient(**dis.client_options()) as client:
        following = Following(dis, FROM_BEGINNING, client)
        following.follower.begin()
        following.put("a")
        following.pauses.calls = [lambda: None, lambda: following.put(*"bcdefgh")]

        assert following.next(4) == ["a", "f", "g", "h"]
        assert ["have expired" in note for note in following.notes] == [True]


def test_a_time_before_the_retention_period_begins_with_the_oldest(follow: Follow) -> None:
    following = follow(Start(CursorType.AT_TIMESTAMP, 1))
    following.put("a")
    following.follower.begin()

    assert following.rest() == ["a"]
    assert all("have expired" in note for note in following.notes)


def test_a_partition_that_is_gone_leaves_the_others(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_BEGINNING)
    for partition in range(3):
        following.put(f"{partition}", partition=partition)
    dis.play(Refuse(400, "DIS.4319"), operation=Operation.GET_RECORDS)
    following.follower.begin()

    assert len(following.rest()) == 2
    assert "is gone" in following.notes[0]


def test_a_deleted_stream_ends_it(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_BEGINNING)
    following.follower.begin()
    following.pauses.calls = [lambda: dis.delete_stream(STREAM)]

    with pytest.raises(DISError) as caught:
        following.next(1)
    assert "DIS.4301" in str(caught.value)


def test_a_partition_that_comes_with_scaling_is_found(follow: Follow, dis: DISEmulator) -> None:
    """The description first hides one of the three partitions."""
    following = follow(FROM_NOW)
    hidden = b'{"partitions": [{"partition_id": "shardId-0000000000", "status": "ACTIVE"}]}'
    dis.play(Reply(body=hidden), operation=Operation.DESCRIBE_STREAM)
    assert following.follower.begin() == 1
    following.put("a", partition=1)

    assert following.next(1) == ["a"]
    assert sum(following.pauses.slept) >= 60
    assert "a new partition: shardId-0000000001" in following.notes


def test_only_readable_partitions_are_read(follow: Follow, dis: DISEmulator) -> None:
    body = (
        b'{"partitions": [{"partition_id": "shardId-0000000000", "status": "EXPIRED"},'
        b'{"partition_id": "shardId-0000000001", "status": "DELETED"}]}'
    )
    dis.play(Reply(body=body), operation=Operation.DESCRIBE_STREAM)
    following = follow(FROM_BEGINNING)
    following.put("gone")
    following.put("left", partition=1)

    assert following.follower.begin() == 1
    assert following.rest() == ["left"]


def test_many_partitions_are_asked_side_by_side(dis: DISEmulator, client: DISClient) -> None:
    dis.reset({STREAM: 120})
    following = Following(dis, FROM_BEGINNING, client)
    for partition in range(0, 120, 7):
        following.put(f"{partition}", partition=partition)

    assert following.follower.begin() == 120
    assert len(following.rest()) == 18
    assert len({request.connection for request in dis.requests}) > 1


def test_an_outage_at_the_start_is_an_error(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_NOW)
    dis.stop()

    with pytest.raises(DISError, match="no connection"):
        following.follower.begin()


def test_dis_may_go_away_and_come_back(follow: Follow, dis: DISEmulator) -> None:
    following = follow(FROM_NOW)
    following.follower.begin()

    def come_back() -> None:
        dis.start()
        following.put("a")

    following.pauses.calls = [dis.stop, lambda: None, come_back]

    assert following.next(1) == ["a"]
    assert any("no connection" in note for note in following.notes)
