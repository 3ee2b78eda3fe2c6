"""The emulator's face: options, accounts, waiting."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dis_logging.client.signing import SignatureScheme
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.app import Operation
from dis_logging.emulator.faults import Behave, Refuse, RefuseEntries

Put = Callable[..., tuple[int, Any]]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ValueError, match="loopback only"):
        DISEmulator(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_names_are_served(host: str) -> None:
    with DISEmulator(host=host) as dis:
        assert dis.endpoint == f"http://{host}:{dis.port}"


def test_retention_must_be_positive() -> None:
    with pytest.raises(ValueError, match="retention must be at least 1 record, not 0"):
        DISEmulator(retention=0)


def test_emulator_keeps_as_many_records_as_it_is_to(put: Put) -> None:
    with DISEmulator({"app-logs": 1}, retention=2) as dis:
        put(dis, "a", "b", "c")

    assert [stored.text for stored in dis.records("app-logs")] == ["b", "c"]
    assert dis.record_count("app-logs") == 2


def test_new_streams_need_a_partition() -> None:
    with pytest.raises(ValueError, match="new_stream_partitions must be at least 1, not 0"):
        DISEmulator(new_stream_partitions=0)


def test_a_stream_that_nobody_made_comes_with_its_first_batch(put: Put) -> None:
    with DISEmulator({"other": 3}, new_stream_partitions=2) as dis:
        statuses = [put(dis, "a")[0], put(dis, "b")[0]]

    assert statuses == [200, 200]
    assert dis.stream_names == ("other", "app-logs")
    assert [stored.text for stored in dis.records("app-logs")] == ["a", "b"]


def test_an_emulator_that_was_reset_starts_over_at_the_same_address(put: Put) -> None:
    with DISEmulator({"app-logs": 1, "other": 1}) as dis:
        endpoint = dis.endpoint
        dis.play(Refuse(400, "DIS.4303"), Refuse(400, "DIS.4303"))
        dis.set_rule(Refuse(503))
        put(dis, "refused")

        dis.reset({"app-logs": 2})

        assert (dis.endpoint, dis.stream_names, dis.requests, dis.refused) == (endpoint, ("app-logs",), (), {})
        assert put(dis, "a")[0] == 200
        assert [(stored.text, stored.sequence_number) for stored in dis.records("app-logs")] == [("a", "0")]
        with pytest.raises(LookupError):
            dis.records("other")


def test_port_is_unknown_before_the_first_start() -> None:
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = DISEmulator().endpoint


def test_options_are_what_handler_and_client_take(dis: DISEmulator) -> None:
    client_options = {
        "endpoint": f"http://127.0.0.1:{dis.port}",
        "region": "cn-north-4",
        "project_id": "0123456789abcdef0123456789abcdef",
        "ak": dis.ak,
        "sk": dis.sk,
    }

    assert dis.client_options() == client_options
    assert dis.handler_options("app-logs") == {"stream_name": "app-logs", **client_options}


def test_options_of_temporary_keys_have_their_token(dis: DISEmulator) -> None:
    dis.security_token = "token"

    assert dis.client_options()["security_token"] == "token"


def test_keys_may_be_broken_and_repaired(
    dis: DISEmulator,
    connect: Callable[[DISEmulator], socket.socket],
    make_request: Callable[..., bytes],
    read_answer: Callable[[socket.socket], tuple[int, Any]],
) -> None:
    request, ak, sk = make_request(dis, "a"), dis.ak, dis.sk
    sock = connect(dis)
    codes = []

    for dis.ak, dis.sk in [("another", sk), (ak, "another"), (ak, sk)]:
        sock.sendall(request)
        codes.append(read_answer(sock)[1].get("errorCode"))

    assert codes == ["DIS.4107", "DIS.4112", None]


def test_request_is_noted_with_its_entries_and_its_answer(dis: DISEmulator, put: Put) -> None:
    put(dis, "a", "b")

    (request,) = dis.requests
    assert (request.number, request.connection, request.operation) == (1, 1, Operation.PUT_RECORDS)
    assert (request.stream_name, request.entry_count, request.status, request.error_code) == ("app-logs", 2, 200, "")
    assert [(entry.data, entry.partition_key) for entry in request.entries] == [(b"a", "web-1"), (b"b", "web-1")]
    assert request.authorization is not None
    assert (request.authorization.scheme, request.authorization.ak) == (SignatureScheme.SCOPED, dis.ak)


def test_malformed_request_is_noted_too(dis: DISEmulator, put: Put) -> None:
    put(dis, body=b"{")

    (request,) = dis.requests
    assert (request.entry_count, request.body_bytes, request.error_code) == (0, 1, "DIS.4300")


def test_refusals_are_counted_by_code(dis: DISEmulator, put: Put) -> None:
    dis.play(Refuse(441, "DIS.4112"), RefuseEntries(where={0, 1}), Refuse(502))

    for _ in range(4):
        put(dis, "a", "b", "c")

    assert dis.refused == {"DIS.4112": 1, "DIS.4303": 2, "http_502": 1}


def test_deleted_stream_is_refused_and_its_records_stay(dis: DISEmulator, put: Put) -> None:
    put(dis, "a")

    dis.delete_stream("app-logs")

    assert put(dis, "b")[1]["errorCode"] == "DIS.4301"
    assert [stored.text for stored in dis.records("app-logs")] == ["a"]
    with pytest.raises(LookupError):
        dis.stream_id("app-logs")


def test_created_stream_is_served(dis: DISEmulator, put: Put) -> None:
    dis.create_stream("new")

    put(dis, "a", stream="new")

    assert dis.record_count("new") == 1


def test_wait_ends_when_the_predicate_is_true(dis: DISEmulator, put: Put) -> None:
    sender = threading.Thread(target=lambda: [put(dis, "a") for _ in range(3)])
    sender.start()

    reached = dis.wait_for(lambda dis: dis.record_count("app-logs") == 3)

    sender.join()
    assert reached


def test_wait_gives_up(dis: DISEmulator) -> None:
    assert dis.wait_for(lambda dis: False, timeout=0) is False


def test_wait_may_be_for_something_else(dis: DISEmulator) -> None:
    looks = iter([False, False, True])

    assert dis.wait_for(lambda dis: next(looks))


def test_predicate_may_take_its_time_without_holding_up_the_emulator(dis: DISEmulator, put: Put) -> None:
    """No lock is held while a predicate runs."""
    assert dis.wait_for(lambda dis: put(dis, "a")[0] == 200)


def test_repr_tells_the_state_and_no_secret(dis: DISEmulator, put: Put) -> None:
    dis.play(Behave(), Behave())
    put(dis, "a")
    dis.security_token = dis.auth_token = "hidden"

    shown = repr(dis)

    assert shown == (
        f"<DISEmulator running at http://127.0.0.1:{dis.port}, {{app-logs: 1 records}}, 1 requests, 1 faults to play>"
    )
