"""Streams: to create, list, describe and delete them over the wire."""

import json
from typing import Any

import pytest

from dis_logging.client import wire
from dis_logging.emulator.stream import StreamSettings
from tests.emulator.service import NOW_MS, PROJECT, Service, record, request_to


def describe(service: Service, target: str) -> Any:
    return json.loads(service.ask("GET", f"/v2/{PROJECT}/streams/{target}").body)


# -- describe stream ------------------------------------------------------------------------------------------------


def test_description_has_the_fields_of_the_api_reference(service: Service) -> None:
    service.put(request_to(*[record(partition_id="1")] * 2))

    described = describe(service, "app-logs")

    assert described["stream_name"] == "app-logs"
    assert described["stream_id"] == service.store.describe("app-logs").stream_id
    assert (described["status"], described["stream_type"], described["data_type"]) == ("RUNNING", "COMMON", "BLOB")
    assert described["create_time"] == 1704164645000
    assert (described["writable_partition_count"], described["readable_partition_count"]) == (3, 3)
    assert described["has_more_partitions"] is False
    assert [each["partition_id"][-1] for each in described["partitions"]] == ["0", "1", "2"]
    assert {each["status"] for each in described["partitions"]} == {"ACTIVE"}
    assert [each["sequence_number_range"] for each in described["partitions"]] == ["[0 : 0]", "[0 : 2]", "[0 : 0]"]


def test_hash_ranges_cover_all_keys_and_agree_with_the_routing(service: Service) -> None:
    ranges = [each["hash_range"].strip("[]").split(" : ") for each in describe(service, "app-logs")["partitions"]]

    ends = [(int(first), int(last)) for first, last in ranges]
    assert ends[0][0] == 0
    assert ends[-1][1] == 9223372036854775807
    assert [first for first, _ in ends[1:]] == [last + 1 for _, last in ends[:-1]]
    assert [(wire.partition_index(first, 3), wire.partition_index(last, 3)) for first, last in ends] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]


def test_single_partition_has_the_range_of_the_api_reference(service: Service) -> None:
    assert describe(service, "other")["partitions"][0]["hash_range"] == "[0 : 9223372036854775807]"


@pytest.mark.parametrize(
    ("query", "shown", "more"),
    [
        ("limit_partitions=2", ["0", "1"], True),
        ("start_partitionId=shardId-0000000001", ["2"], False),
        ("start_partitionId=0&limit_partitions=1", ["1"], True),
        ("start_partitionId=9", [], False),
        ("limit_partitions=1000&stream_name=app-logs&&", ["0", "1", "2"], False),
    ],
)
def test_partitions_are_shown_page_by_page(service: Service, query: str, shown: list[str], more: bool) -> None:
    described = describe(service, f"app-logs?{query}")

    assert [each["partition_id"][-1] for each in described["partitions"]] == shown
    assert described["has_more_partitions"] is more


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("nope", "DIS.4301"),
        ("app-logs?limit_partitions=0", "DIS.4200"),
        ("app-logs?limit_partitions=1001", "DIS.4200"),
        ("app-logs?limit_partitions=many", "DIS.4200"),
        ("app-logs?start_partitionId=first", "DIS.4201"),
    ],
)
def test_impossible_description_is_refused(service: Service, target: str, code: str) -> None:
    assert describe(service, target)["errorCode"] == code


def test_stream_is_described_by_id_across_accounts(service: Service) -> None:
    stream_id = service.store.describe("other").stream_id

    assert describe(service, f"theirs?stream_id={stream_id}")["stream_name"] == "other"


# -- create and delete ----------------------------------------------------------------------------------------------


def test_created_stream_takes_records_at_once(service: Service) -> None:
    created = service.call("POST", "streams", {"stream_name": "new", "partition_count": 2, "stream_type": "COMMON"})

    service.upload("a", stream="new", partition="1")

    assert created == (201, None)
    assert [stored.text for stored in service.store.records("new")] == ["a"]


def test_stream_is_described_as_it_was_created(service: Service) -> None:
    settings = {"stream_type": "ADVANCED", "data_type": "JSON", "data_duration": 72}
    service.call("POST", "streams", {"stream_name": "new", "partition_count": 4, **settings})

    described = describe(service, "new")

    assert described["writable_partition_count"] == 4
    assert (described["stream_type"], described["data_type"], described["retention_period"]) == ("ADVANCED", "JSON", 72)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"stream_name": "app-logs", "partition_count": 1}, "DIS.4307"),
        ({"stream_name": "n", "partition_count": 47}, "DIS.4308"),
        ({"stream_name": "n", "partition_count": 11, "stream_type": "ADVANCED"}, "DIS.4308"),
        ({"stream_name": "n", "partition_count": 10**30}, "DIS.4200"),
        ({"stream_name": "n", "partition_count": 0}, "DIS.4200"),
        ({"stream_name": "n", "partition_count": True}, "DIS.4200"),
        ({"stream_name": "n", "partition_count": "1"}, "DIS.4200"),
        ({"stream_name": "n"}, "DIS.4200"),
        ({"stream_name": "n", "partition_count": 1, "stream_type": "FAST"}, "DIS.4200"),
        ({"stream_name": "n", "partition_count": 1, "data_type": "FILE"}, "DIS.4200"),
        ({"stream_name": "n", "partition_count": 1, "data_duration": 23}, "DIS.4200"),
        ({"stream_name": "n", "partition_count": 1, "data_duration": 73}, "DIS.4200"),
        ({"stream_name": "x" * 65, "partition_count": 1}, "DIS.4300"),
        ({"stream_name": 1, "partition_count": 1}, "DIS.4300"),
        ({"partition_count": 1}, "DIS.4300"),
        ([], "DIS.4300"),
        (None, "DIS.4202"),
    ],
)
def test_impossible_stream_is_not_created(service: Service, document: object, code: str) -> None:
    assert service.code("POST", "streams", document) == code
    assert service.store.stream_names() == ("app-logs", "other")


def test_quota_is_reached_exactly(service: Service) -> None:
    """Two streams of 3 and 1 partitions are there already."""
    assert service.code("POST", "streams", {"stream_name": "n", "partition_count": 46}) == ""


def test_deleted_stream_is_gone(service: Service) -> None:
    deleted = service.call("DELETE", "streams/app-logs")

    assert deleted == (204, None)
    assert service.code("GET", "streams/app-logs") == "DIS.4301"
    assert service.code("DELETE", "streams/app-logs") == "DIS.4301"


# -- list -----------------------------------------------------------------------------------------------------------


def test_list_tells_the_streams_with_their_details(service: Service) -> None:
    service.store.create_stream("big", 5, NOW_MS, StreamSettings("ADVANCED"))

    status, listed = service.call("GET", "streams")

    assert status == 200
    assert listed["stream_names"] == ["app-logs", "big", "other"]
    assert (listed["total_number"], listed["has_more_streams"]) == (3, False)
    assert listed["stream_info_list"][1] == {
        "stream_name": "big",
        "create_time": NOW_MS,
        "retention_period": 24,
        "status": "RUNNING",
        "stream_type": "ADVANCED",
        "data_type": "BLOB",
        "partition_count": 5,
        "auto_scale_enabled": False,
        "tags": [],
    }


def test_streams_are_listed_page_by_page(service: Service) -> None:
    for number in range(12):
        service.store.create_stream(f"s{number:02}", 1, NOW_MS)
    names: list[str] = []

    while (page := service.call("GET", "streams", start_stream_name=names[-1] if names else "")[1])["stream_names"]:
        assert len(page["stream_names"]) <= 10
        assert page["has_more_streams"] is (len(names) + len(page["stream_names"]) < 14)
        names += page["stream_names"]

    assert names == ["app-logs", "other", *(f"s{number:02}" for number in range(12))]


def test_limit_of_a_list_is_kept(service: Service) -> None:
    listed = [service.call("GET", "streams", limit=limit)[1] for limit in (1, 2)]

    assert [each["stream_names"] for each in listed] == [["app-logs"], ["app-logs", "other"]]
    assert [each["has_more_streams"] for each in listed] == [True, False]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "9" * 5000])
def test_impossible_limit_is_refused(service: Service, limit: str) -> None:
    assert service.code("GET", "streams", limit=limit) == "DIS.4200"
