"""Apps and their checkpoints over the wire."""

from typing import Any

import pytest

from tests.emulator.service import NOW_MS, Service


@pytest.fixture
def service(service: Service) -> Service:
    """With an app and two records in each of two partitions."""
    service.call("POST", "apps", {"app_name": "reader"})
    service.upload("a", "b", stream="app-logs", partition="0")
    service.upload("c", "d", stream="app-logs", partition="1")
    return service


def checkpoint(**fields: Any) -> dict[str, Any]:
    whole = {
        "app_name": "reader",
        "checkpoint_type": "LAST_READ",
        "stream_name": "app-logs",
        "partition_id": "shardId-0000000000",
        "sequence_number": "1",
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not None}


def committed(service: Service, **query: Any) -> Any:
    query = checkpoint(sequence_number=None, **query)
    return service.call("GET", "checkpoints", **query)[1]


# -- checkpoints ----------------------------------------------------------------------------------------------------


def test_checkpoint_is_told_as_it_was_committed(service: Service) -> None:
    answer = service.call("POST", "checkpoints", checkpoint(metadata="größer"))

    assert answer == (201, None)
    assert committed(service) == {"sequence_number": "1", "metadata": "größer"}


def test_later_checkpoint_replaces_the_earlier(service: Service) -> None:
    service.call("POST", "checkpoints", checkpoint(sequence_number="0", metadata="x"))
    service.call("POST", "checkpoints", checkpoint(sequence_number="2"))

    assert committed(service) == {"sequence_number": "2", "metadata": ""}


def test_partition_without_a_checkpoint_is_told_as_minus_one(service: Service) -> None:
    """The Java consumer and the Flink connector of the DIS SDKs expect it."""
    assert committed(service) == {"sequence_number": "-1", "metadata": ""}


def test_partitions_have_checkpoints_of_their_own(service: Service) -> None:
    service.call("POST", "checkpoints", checkpoint(partition_id="1", sequence_number="0"))

    assert committed(service, partition_id="shardId-0000000001")["sequence_number"] == "0"
    assert committed(service, partition_id="0")["sequence_number"] == "-1"


def test_apps_have_checkpoints_of_their_own(service: Service) -> None:
    service.call("POST", "apps", {"app_name": "other"})
    service.call("POST", "checkpoints", checkpoint())

    assert committed(service, app_name="other")["sequence_number"] == "-1"


def test_stream_may_be_named_by_its_id(service: Service) -> None:
    """The DIS Python SDK sends the id instead of the name for streams of other accounts."""
    stream_id = service.store.describe("app-logs").stream_id
    service.call("POST", "checkpoints", checkpoint(stream_name=None, stream_id=stream_id))

    assert committed(service, stream_name=None, stream_id=stream_id)["sequence_number"] == "1"


@pytest.mark.parametrize(("query", "left"), [({"partition_id": "0"}, ["-1", "1"]), ({}, ["-1", "-1"])])
def test_checkpoints_are_deleted_for_one_partition_or_all(
    service: Service, query: dict[str, str], left: list[str]
) -> None:
    for partition in "01":
        service.call("POST", "checkpoints", checkpoint(partition_id=partition))

    answer = service.call("DELETE", "checkpoints", stream_name="app-logs", app_name="reader", **query)

    assert answer == (204, None)
    assert [committed(service, partition_id=partition)["sequence_number"] for partition in "01"] == left


def test_checkpoints_go_with_their_stream(service: Service) -> None:
    service.call("POST", "checkpoints", checkpoint())

    service.store.delete_stream("app-logs")
    service.store.create_stream("app-logs", 3, NOW_MS)

    assert committed(service)["sequence_number"] == "-1"
    assert service.store.consumers.stream_ids("reader") == frozenset()


def test_checkpoints_go_with_their_app(service: Service) -> None:
    service.call("POST", "checkpoints", checkpoint())

    service.call("DELETE", "apps/reader")
    service.call("POST", "apps", {"app_name": "reader"})

    assert committed(service)["sequence_number"] == "-1"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"app_name": "nobody"}, "DIS.4332"),
        ({"app_name": None}, "DIS.4332"),
        ({"stream_name": "nope"}, "DIS.4301"),
        ({"partition_id": "3"}, "DIS.4302"),
        ({"partition_id": "x"}, "DIS.4201"),
        ({"checkpoint_type": "TRIM"}, "DIS.4200"),
        ({"checkpoint_type": None}, "DIS.4200"),
    ],
)
def test_impossible_checkpoint_is_refused_however_it_is_asked_for(
    service: Service, fields: dict[str, Any], code: str
) -> None:
    assert service.code("POST", "checkpoints", checkpoint(**fields)) == code
    assert service.code("GET", "checkpoints", **checkpoint(**fields)) == code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sequence_number": "3"}, "DIS.4224"),
        ({"sequence_number": "-1"}, "DIS.4216"),
        ({"sequence_number": None}, "DIS.4216"),
        ({"sequence_number": 1}, "DIS.4300"),
        ({"metadata": "x" * 1001}, "DIS.4200"),
        ({"metadata": ["x"]}, "DIS.4300"),
    ],
)
def test_impossible_commit_is_refused(service: Service, fields: dict[str, Any], code: str) -> None:
    assert service.code("POST", "checkpoints", checkpoint(**fields)) == code
    assert committed(service)["sequence_number"] == "-1"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"app_name": "nobody", "stream_name": "app-logs"}, "DIS.4332"),
        ({"app_name": "reader", "stream_name": "nope"}, "DIS.4301"),
        ({"app_name": "reader", "stream_name": "app-logs", "partition_id": "x"}, "DIS.4201"),
        ({"app_name": "reader", "stream_name": "app-logs", "checkpoint_type": "x"}, "DIS.4200"),
    ],
)
def test_impossible_deletion_is_refused(service: Service, query: dict[str, str], code: str) -> None:
    assert service.code("DELETE", "checkpoints", **query) == code


# -- apps -----------------------------------------------------------------------------------------------------------


def test_app_is_described_with_the_streams_it_reads(service: Service) -> None:
    service.call("POST", "checkpoints", checkpoint())

    _, described = service.call("GET", "apps/reader")

    assert described == {
        "app_name": "reader",
        "app_id": service.store.consumers.app("reader").app_id,
        "create_time": NOW_MS,
        "commit_checkpoint_stream_names": ["app-logs"],
    }


def test_apps_are_listed_page_by_page(service: Service) -> None:
    for number in range(12):
        service.call("POST", "apps", {"app_name": f"app{number:02}"})

    first = service.call("GET", "apps")[1]
    second = service.call("GET", "apps", start_app_name="app09")[1]

    assert [app["app_name"] for app in first["apps"]] == [f"app{number:02}" for number in range(10)]
    assert (first["has_more_app"], first["total_number"]) == (True, 13)
    assert [app["app_name"] for app in second["apps"]] == ["app10", "app11", "reader"]
    assert second["has_more_app"] is False


def test_apps_of_one_stream_are_listed(service: Service) -> None:
    service.call("POST", "apps", {"app_name": "idle"})
    service.call("POST", "checkpoints", checkpoint())

    listed = service.call("GET", "apps", stream_name="app-logs")[1]

    assert [app["app_name"] for app in listed["apps"]] == ["reader"]
    assert service.code("GET", "apps", stream_name="nope") == "DIS.4301"


def test_deleted_app_is_gone(service: Service) -> None:
    assert service.call("DELETE", "apps/reader") == (204, None)
    assert service.code("GET", "apps/reader") == "DIS.4332"
    assert service.code("DELETE", "apps/reader") == "DIS.4332"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"app_name": "reader"}, "DIS.4330"),
        ({"app_name": ""}, "DIS.4200"),
        ({"app_name": "x" * 201}, "DIS.4200"),
        ({"app_name": "a b"}, "DIS.4200"),
        ({"app_name": 1}, "DIS.4300"),
        ({}, "DIS.4200"),
        (None, "DIS.4202"),
    ],
)
def test_impossible_app_is_not_created(service: Service, document: object, code: str) -> None:
    assert service.code("POST", "apps", document) == code


def test_longest_name_of_an_app_is_taken(service: Service) -> None:
    assert service.code("POST", "apps", {"app_name": "x" * 200}) == ""
