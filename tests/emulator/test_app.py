"""From request to response, without a socket."""

import json
from typing import Any

import pytest

from dis_logging.client import wire
from dis_logging.emulator.app import Operation
from dis_logging.emulator.faults import RefuseEntries
from dis_logging.emulator.messages import Head, Response
from tests.emulator.service import PROJECT, Service, record, request_to


def error_of(response: Response) -> tuple[int, str]:
    return response.status, json.loads(response.body)["errorCode"]


# -- PutRecords -----------------------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_request(service: Service) -> None:
    records = [record(partition_id=number) for number in ("2", "0", "2")]

    response = service.put(request_to(*records))

    assert response.status == 200
    assert json.loads(response.body) == {
        "failed_record_count": 0,
        "records": [
            {"partition_id": "shardId-0000000002", "sequence_number": "0"},
            {"partition_id": "shardId-0000000000", "sequence_number": "0"},
            {"partition_id": "shardId-0000000002", "sequence_number": "1"},
        ],
    }


def test_partition_that_does_not_exist_fails_its_own_record_only(service: Service) -> None:
    response = service.put(request_to(record(partition_id="3"), record(b"y", partition_id="x"), record(b"z")))

    result = json.loads(response.body)
    assert result["failed_record_count"] == 2
    assert [each.get("error_code") for each in result["records"]] == ["DIS.4302", "DIS.4201", None]
    assert response.entry_codes == ("DIS.4302", "DIS.4201")
    assert [stored.data for stored in service.store.records("app-logs")] == [b"z"]


def test_rules_refuse_entries_and_the_others_keep_their_places(service: Service) -> None:
    rules = (RefuseEntries("DIS.4303", where={0}), RefuseEntries("DIS.5000", where=lambda entry: entry.data == b"c"))

    response = service.put(request_to(record(b"a"), record(b"b"), record(b"c"), record(b"d")), rules=rules)

    codes = [each.get("error_code") for each in json.loads(response.body)["records"]]
    assert codes == ["DIS.4303", None, "DIS.5000", None]
    assert [stored.data for stored in service.store.records("app-logs")] == [b"b", b"d"]


def test_null_and_empty_fields_count_as_not_set(service: Service) -> None:
    """The Go SDK sends empty strings, an example of the API reference null."""
    empty: dict[str, Any] = {"partition_id": "", "explicit_hash_key": None, "partition_key": "", "timestamp": None}

    response = service.put(request_to(record(**empty), stream_id=""))

    assert json.loads(response.body)["failed_record_count"] == 0


def test_stream_is_found_by_id_without_a_name(service: Service) -> None:
    stream_id = service.store.describe("other").stream_id

    response = service.put({"stream_name": "", "stream_id": stream_id, "records": [record()]})

    assert response.status == 200
    assert service.store.record_count("other") == 1


@pytest.mark.parametrize(
    ("document", "code"),
    [
        pytest.param(request_to(record(), stream_name="nope"), "DIS.4301", id="unknown stream"),
        pytest.param(request_to(record(), stream_name="app logs"), "DIS.4300", id="bad stream name"),
        pytest.param({"records": [record()]}, "DIS.4300", id="no stream"),
        pytest.param(request_to(), "DIS.4202", id="no records"),
        pytest.param(request_to(record(), record(b"")), "DIS.4200", id="empty data"),
        pytest.param(request_to(record(), record(bytes(2**20 + 1))), "DIS.4200", id="record too large"),
        pytest.param(request_to(record(), {"data": "%"}), "DIS.4300", id="not base64"),
        pytest.param(request_to(record(), record(partition_key=1)), "DIS.4300", id="key is a number"),
        pytest.param(request_to(*[record()] * 10_001), "DIS.4200", id="too many records"),
        pytest.param(request_to(record(timestamp=2**63)), "DIS.4300", id="timestamp is no int64"),
        pytest.param([], "DIS.4300", id="not an object"),
    ],
)
def test_impossible_upload_is_refused_as_a_whole(service: Service, document: object, code: str) -> None:
    response = service.put(document)

    assert error_of(response) == (400, code)
    assert response.error_code == code
    assert service.store.record_count("app-logs") == 0


def test_largest_record_is_taken(service: Service) -> None:
    service.put(request_to(record(bytes(2**20))))

    assert len(service.store.records("app-logs")[0].data) == 2**20


def test_most_records_are_taken(service: Service) -> None:
    service.put(request_to(*[record()] * 10_000))

    assert service.store.record_count("app-logs") == 10_000


def test_largest_body_is_taken(service: Service) -> None:
    body = json.dumps(request_to(record(b"x"))).encode()

    response = service.ask("POST", f"/v2/{PROJECT}/records", body.ljust(wire.MAX_BODY_BYTES))

    assert response.status == 200


@pytest.mark.parametrize("timestamp", [2**63 - 1, -(2**63)])
def test_timestamp_may_be_any_int64(service: Service, timestamp: int) -> None:
    service.put(request_to(record(timestamp=timestamp)))

    assert service.store.records("app-logs")[0].timestamp == timestamp


def test_lone_surrogate_in_a_key_is_stored_as_java_encodes_it(service: Service) -> None:
    service.put(request_to(record(partition_key="a\ud800")))

    assert service.store.records("app-logs")[0].partition_key == "a?"


def test_larger_body_is_refused_by_the_gateway(service: Service) -> None:
    body = json.dumps(request_to(record(b"x"))).encode()

    response = service.ask("POST", f"/v2/{PROJECT}/records", body.ljust(wire.MAX_BODY_BYTES + 1))

    assert response.status == 413
    assert json.loads(response.body)["error_code"] == "DIS.4200"
    assert service.store.record_count("app-logs") == 0


# -- paths and access -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [f"/v2/{PROJECT}/records", f"/v2/{PROJECT}/records/", f"/dis-gw/v2/{PROJECT}/records", f"//v2/{PROJECT}/records"],
)
def test_path_may_have_a_final_slash_and_a_prefix(service: Service, path: str) -> None:
    assert service.ask("POST", path, json.dumps(request_to(record())).encode()).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("POST", f"/v3/{PROJECT}/records"),
        ("POST", f"/v2/{PROJECT}/records/x"),
        ("PUT", f"/v2/{PROJECT}/records"),
        ("GET", f"/v2/{PROJECT}/streams/a/b"),
    ],
)
def test_unknown_path_is_refused_by_the_gateway(service: Service, method: str, path: str) -> None:
    response = service.ask(method, path)

    assert response.status == 404
    document = json.loads(response.body)
    assert document["error_code"] == "APIGW.0101"
    assert document["request_id"] == response.headers["X-Request-Id"]


def test_operation_is_known_from_the_head_alone(service: Service) -> None:
    assert service.app.operation(Head("POST", f"/v2/{PROJECT}/records/", {})) is Operation.PUT_RECORDS
    assert service.app.operation(Head("GET", f"/v2/{PROJECT}/records/", {})) is Operation.GET_RECORDS
    assert service.app.operation(Head("GET", f"/v2/{PROJECT}/streams/x", {})) is Operation.DESCRIBE_STREAM
    assert service.app.operation(Head("GET", f"/v2/{PROJECT}/streams/", {})) is Operation.LIST_STREAMS
    assert service.app.operation(Head("GET", "/", {})) is None


def test_refused_access_is_answered_with_441(service: Service) -> None:
    response = service.put(request_to(record()), token="wrong")

    assert error_of(response) == (441, "DIS.4114")
    assert service.store.record_count("app-logs") == 0


def test_other_project_is_refused(service: Service) -> None:
    response = service.ask("POST", f"/v2/{'f' * 32}/records", json.dumps(request_to(record())).encode())

    assert error_of(response) == (400, "DIS.4117")


def test_plus_in_a_query_is_a_plus() -> None:
    """The Java SDK does not encode query strings, so decoding them as a form would change them."""
    head = Head("GET", "/v2/p/records?partition-cursor=a+b/c==&limit=%31&flag&", {})

    assert head.query == [("partition-cursor", "a+b/c=="), ("limit", "1"), ("flag", "")]
