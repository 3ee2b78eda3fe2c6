"""Streams, partitions and sequence numbers."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from dis_logging.emulator.messages import ReceivedEntry
from dis_logging.emulator.store import Rejection, Store, StoredRecord, UnknownStreamError

# Made with the unmodified PartitionKeyUtils of Huawei's Java SDK.
VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "partition_hash.json").read_text("utf-8"))
# On the wire an empty key means that there is none.
PARTITION_KEYS = [vector for vector in VECTORS["partition_keys"] if vector["partition_key"]]
NOW = 1704164645000


def store_with(**streams: int) -> Store:
    store = Store(lambda: None)
    for name, partitions in streams.items():
        store.create_stream(name, partitions, NOW)
    return store


def partition_of(store: Store, entry: ReceivedEntry) -> str | None:
    (stored,) = store.append("s", "", [entry], NOW)
    return stored.partition_id if isinstance(stored, StoredRecord) else None


@pytest.mark.parametrize("partitions", [1, 2, 3, 4, 5, 8, 50])
@pytest.mark.parametrize("vector", PARTITION_KEYS, ids=lambda vector: repr(vector["partition_key"]))
def test_partition_key_goes_where_the_java_sdk_sends_it(vector: dict[str, Any], partitions: int) -> None:
    store = store_with(s=partitions)

    chosen = partition_of(store, ReceivedEntry(b"x", partition_key=vector["partition_key"]))

    assert chosen == f"shardId-{vector['partition_index'][str(partitions)]:010d}"


@pytest.mark.parametrize("partitions", [1, 2, 3, 4, 5, 8, 50])
@pytest.mark.parametrize("vector", VECTORS["explicit_hash_keys"], ids=lambda vector: vector["explicit_hash_key"])
def test_explicit_hash_key_goes_where_the_java_sdk_sends_it(vector: dict[str, Any], partitions: int) -> None:
    store = store_with(s=partitions)

    chosen = partition_of(store, ReceivedEntry(b"x", "user-1", explicit_hash_key=vector["explicit_hash_key"]))

    assert chosen == f"shardId-{vector['partition_index_clamped'][str(partitions)]:010d}"


@pytest.mark.parametrize("outside", ["9223372036854775808", "-1", "none", "1" * 5000])
def test_explicit_hash_key_out_of_range_falls_to_the_partition_key(outside: str) -> None:
    store = store_with(s=3)

    assert partition_of(store, ReceivedEntry(b"x", "user-1", outside)) == "shardId-0000000002"


@pytest.mark.parametrize("identifier", ["shardId-0000000001", "1"])
def test_partition_id_wins_over_both_keys(identifier: str) -> None:
    store = store_with(s=3)

    assert partition_of(store, ReceivedEntry(b"x", "user-1", "0", identifier)) == "shardId-0000000001"


@pytest.mark.parametrize("identifier", ["shardId-0000000003", "3", "shard-1", "-1"])
def test_entry_for_a_partition_that_does_not_exist_is_not_stored(identifier: str) -> None:
    store = store_with(s=3)

    placed = store.append("s", "", [ReceivedEntry(b"a"), ReceivedEntry(b"b", partition_id=identifier)], NOW)

    assert placed == [*store.records("s"), Rejection.NO_PARTITION]
    assert [stored.data for stored in store.records("s")] == [b"a"]


def test_entries_without_a_key_are_spread_evenly() -> None:
    store = store_with(s=3)

    store.append("s", "", [ReceivedEntry(b"x")] * 6, NOW)

    assert [stored.partition_id[-1] for stored in store.records("s")] == ["0", "1", "2", "0", "1", "2"]


def test_sequence_numbers_count_from_zero_in_each_partition() -> None:
    store = store_with(s=2)
    entries = [ReceivedEntry(b"x", partition_id=number) for number in ("0", "1", "0", "1", "1")]

    store.append("s", "", entries, NOW)

    assert [stored.sequence_number for stored in store.records("s")] == ["0", "0", "1", "1", "2"]


def test_stored_record_carries_what_was_sent() -> None:
    store = store_with(s=1)

    store.append("s", "", [ReceivedEntry("grüße".encode(), "web-1", timestamp=7), ReceivedEntry(b"\xff")], NOW)

    first, second = store.records("s")
    assert (first.text, first.partition_key, first.timestamp) == ("grüße", "web-1", 7)
    assert (second.text, second.partition_key, second.timestamp) == ("\ufffd", None, NOW)


def test_stream_is_found_by_its_id_when_its_name_is_unknown() -> None:
    store = store_with(one=1, two=1)

    store.append("", store.describe("two").stream_id, [ReceivedEntry(b"x")], NOW)

    assert (store.record_count("one"), store.record_count("two")) == (0, 1)


def test_unknown_stream_is_an_error() -> None:
    with pytest.raises(UnknownStreamError, match="'nope'"):
        store_with(s=1).append("nope", "no-id", [ReceivedEntry(b"x")], NOW)


def test_records_of_a_deleted_stream_stay_accountable() -> None:
    store = store_with(s=1)
    store.append("s", "", [ReceivedEntry(b"before")], NOW)

    store.delete_stream("s")
    store.create_stream("s", 1, NOW)
    store.append("s", "", [ReceivedEntry(b"after")], NOW)

    assert [(stored.data, stored.sequence_number) for stored in store.records("s")] == [
        (b"before", "0"),
        (b"after", "0"),
    ]


def test_records_of_a_stream_that_never_was_are_an_error() -> None:
    with pytest.raises(UnknownStreamError, match="'nope'"):
        store_with().records("nope")


@pytest.mark.parametrize(
    ("name", "partitions", "complaint"),
    [("a b", 1, "'a b'"), ("", 1, "''"), ("x" * 65, 1, "x{65}"), ("t", 0, "at least 1"), ("s", 1, "exists already")],
)
def test_impossible_stream_is_refused(name: str, partitions: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        store_with(s=1).create_stream(name, partitions, NOW)


def test_change_is_told_with_no_lock_held() -> None:
    seen: list[int] = []
    store = Store(lambda: seen.append(len(store.stream_names())))

    store.create_stream("s", 1, NOW)

    assert seen == [1]


def test_parallel_batches_share_no_sequence_number() -> None:
    store = store_with(s=1)
    writers = [
        threading.Thread(target=lambda: [store.append("s", "", [ReceivedEntry(b"x")] * 5, NOW) for _ in range(100)])
        for _ in range(4)
    ]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert [stored.sequence_number for stored in store.records("s")] == [str(number) for number in range(2000)]


# -- retention ------------------------------------------------------------------------------------------------------


def test_partition_keeps_as_many_records_as_it_is_to() -> None:
    store = Store(lambda: None, retention=2)
    store.create_stream("s", 2, NOW)

    store.append(
        "s",
        "",
        [
            ReceivedEntry(text, partition_id=number)
            for text, number in [(b"a", "0"), (b"b", "1"), (b"c", "0"), (b"d", "0")]
        ],
        NOW,
    )

    assert [(stored.text, stored.sequence_number) for stored in store.records("s")] == [
        ("b", "0"),
        ("c", "1"),
        ("d", "2"),
    ]
    assert store.record_count("s") == 3


def test_one_batch_may_be_larger_than_what_is_kept() -> None:
    store = Store(lambda: None, retention=2)
    store.create_stream("s", 1, NOW)

    placed = store.append("s", "", [ReceivedEntry(b"x")] * 5, NOW)

    assert [each.sequence_number for each in placed if isinstance(each, StoredRecord)] == ["0", "1", "2", "3", "4"]
    assert [each.sequence_number for each in store.records("s")] == ["3", "4"]


def test_numbers_go_on_after_records_have_expired() -> None:
    store = Store(lambda: None, retention=2)
    store.create_stream("s", 1, NOW)

    for _ in range(4):
        store.append("s", "", [ReceivedEntry(b"x")], NOW)

    assert [each.sequence_number for each in store.records("s")] == ["2", "3"]


def test_streams_deleted_long_ago_are_forgotten() -> None:
    store = store_with()
    for number in range(150):
        store.create_stream(f"s{number}", 1, NOW)
        store.delete_stream(f"s{number}")

    assert store.records("s149") == ()
    with pytest.raises(UnknownStreamError):
        store.records("s0")
