"""Garbage behind a valid signature or none: whatever comes gets an answer of DIS, and the emulator serves on."""

import base64
import json
import random
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.app import Operation
from dis_logging.emulator.messages import Head, Request
from tests.emulator.service import PROJECT, Service

Put = Callable[..., tuple[int, Any]]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from((2**63, 10**30, -(2**63) - 1))
    | st.floats()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)
RESOURCES = ("records", "cursors", "streams", "streams/app-logs", "apps", "apps/reader", "checkpoints")
NUMBERS = ("0", "1", "3", "9", "10", "24", "-1", "9223372036854775807", "9223372036854775808", "")
# By the names of parameters and fields: values of which some are right, so that checks behind the first are reached.
PROMISING: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("stream-name", "stream_name", "start_stream_name"), ("app-logs", "other", "")),
    **dict.fromkeys(("app_name", "start_app_name"), ("reader", "")),
    **dict.fromkeys(("partition-id", "partition_id", "start_partitionId"), ("0", "2", "3", "shardId-0000000009", "")),
    **dict.fromkeys(("starting-sequence-number", "sequence_number", "explicit_hash_key", "timestamp"), NUMBERS),
    **dict.fromkeys(("limit", "max_fetch_bytes", "limit_partitions"), NUMBERS),
    **dict.fromkeys(("partition_count", "data_duration"), (0, 1, 24, 72, 10**20, True, None, 1.5)),
    "cursor-type": ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"),
    "checkpoint_type": ("LAST_READ",),
    "stream_type": ("COMMON", "ADVANCED", None),
    "data_type": ("BLOB", None),
    "data": ("YQ==", "YQ", ""),
    "partition_key": ("web-1", "\ud800", ""),
    "metadata": ("x", "x" * 1001),
    "stream_id": ("", "0" * 20),
    "stream-id": ("", "0" * 20),
    "partition-cursor": ("", "W10="),
}


def values(name: str, anything: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values for a parameter or field: mostly promising ones."""
    promising = st.sampled_from(PROMISING[name])
    return st.one_of(promising, promising, promising, anything)


QUERIES = st.fixed_dictionaries({}, optional={name: values(name, st.text(max_size=20)) for name in PROMISING})
RECORDS = st.fixed_dictionaries(
    {"data": values("data", JSON)},
    optional={name: values(name, JSON) for name in ("partition_key", "explicit_hash_key", "partition_id", "timestamp")},
)
DOCUMENTS = st.fixed_dictionaries(
    {"stream_name": values("stream_name", JSON)},
    optional={
        "records": st.lists(RECORDS, max_size=3) | JSON,
        **{name: values(name, JSON) for name in PROMISING if name != "stream_name"},
    },
)


@pytest.fixture(scope="module")
def fuzzed() -> Service:
    """One service for all that is thrown at it; what it holds then is part of the fun."""
    service = Service(retention=10)
    service.call("POST", "apps", {"app_name": "reader"})
    return service


def ask(service: Service, method: str, target: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """Asserts that the answer is one of DIS's: a 2xx, or a refusal that names a code."""
    response = service.ask(method, target, body, headers=headers)
    if response.status >= 300:
        error = json.loads(response.body)
        assert response.status in (400, 404, 413, 441)
        assert (error.get("errorCode") or error["error_code"]).startswith(("DIS.4", "APIGW."))
    if service.store.stream_names() != ("app-logs", "other"):
        _put_streams_back(service)


def _put_streams_back(service: Service) -> None:
    for name in service.store.stream_names():
        service.store.delete_stream(name)
    for name, partitions in (("app-logs", 3), ("other", 1)):
        service.store.create_stream(name, partitions, 0)


# -- behind the sockets ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(method=st.sampled_from(("GET", "POST", "PUT", "DELETE")), resource=st.sampled_from(RESOURCES), body=st.binary())
def test_any_bytes_as_a_body_get_an_answer(fuzzed: Service, method: str, resource: str, body: bytes) -> None:
    ask(fuzzed, method, f"/v2/{PROJECT}/{resource}", body)


@settings(deadline=None)
@given(resource=st.sampled_from(RESOURCES), document=JSON | DOCUMENTS)
def test_any_json_as_a_body_gets_an_answer(fuzzed: Service, resource: str, document: object) -> None:
    ask(fuzzed, "POST", f"/v2/{PROJECT}/{resource}", json.dumps(document).encode())


@settings(deadline=None)
@given(method=st.sampled_from(("GET", "GET", "DELETE")), resource=st.sampled_from(RESOURCES), query=QUERIES)
def test_any_query_gets_an_answer(fuzzed: Service, method: str, resource: str, query: dict[str, object]) -> None:
    ask(
        fuzzed, method, f"/v2/{PROJECT}/{resource}?" + "&".join(f"{name}={value}" for name, value in query.items()), b""
    )


@settings(deadline=None)
@given(
    changes=st.dictionaries(st.sampled_from(("stream_id", "partition", "number", "issued", "more")), JSON, max_size=2)
)
def test_any_forged_cursor_gets_an_answer(fuzzed: Service, changes: dict[str, object]) -> None:
    place = {
        "stream_id": fuzzed.store.describe("other").stream_id,
        "partition": 0,
        "number": 0,
        "issued": 1704164645000,
    }
    cursor = base64.b64encode(json.dumps({**place, **changes}).encode()).decode()

    ask(fuzzed, "GET", f"/v2/{PROJECT}/records?partition-cursor={cursor}", b"")


@settings(deadline=None)
@given(method=st.text(max_size=5), target=st.text(max_size=60), prefix=st.sampled_from(("", f"/v2/{PROJECT}/")))
def test_any_target_gets_an_answer(fuzzed: Service, method: str, target: str, prefix: str) -> None:
    ask(fuzzed, method, prefix + target, b"")


@settings(deadline=None)
@given(
    headers=st.dictionaries(
        st.sampled_from(
            (
                "authorization",
                "x-sdk-date",
                "x-auth-token",
                "x-security-token",
                "host",
                "content-type",
                "content-encoding",
            )
        ),
        st.text(max_size=60)
        | st.sampled_from(
            ("20240102T030405Z", "application/x-protobuf", "zstd", "lz4", "snappy", "h:1", "\u0662\u0660240102T030405Z")
        )
        | st.builds(
            "{} Credential={}, SignedHeaders={}, Signature={}".format,
            st.sampled_from(("SDK-HMAC-SHA256", "V11-HMAC-SHA256", "x")),
            st.sampled_from(("ak/20240102/cn-north-4/dis/sdk_request", "ak/20240102/cn-north-4/dis", "ak", "/////")),
            st.sampled_from(("host;x-sdk-date", "host;x-sdk-date;x-none", ";", "x")),
            st.sampled_from(("0", "00" * 32, "é", "")),
        ),
    ),
    body=st.binary(max_size=50),
)
def test_any_headers_get_an_answer(fuzzed: Service, headers: dict[str, str], body: bytes) -> None:
    request = Request(Head("POST", f"/v2/{PROJECT}/records", headers, len(body)), body)

    response = fuzzed.app.respond(request)

    assert response.status in (400, 441)
    assert response.error_code.startswith("DIS.4")


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/v2/a" * 13_000 + "%0A", id="many beginnings and a line break"),
        pytest.param("/v2/" * 16_000, id="many beginnings"),
        pytest.param("/v2/p/streams/" + "%00" * 20_000, id="nulls"),
        pytest.param("/v2/p/streams/" + "a/" * 30_000, id="many segments"),
        pytest.param("/v2/p/records?" + "&" * 60_000, id="empty parameters"),
        pytest.param("/v2/p/records?" + "a=b&" * 15_000, id="many parameters"),
    ],
)
def test_long_target_is_answered_without_delay(fuzzed: Service, target: str) -> None:
    """No search may take the square of its length: the test's timeout would end it."""
    ask(fuzzed, "GET", target, b"")
    ask(fuzzed, "POST", target.replace("/p/", f"/{PROJECT}/"), b"{}")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 1_000_000, id="deeply nested"),
        pytest.param(b'{"records":' * 400_000, id="deeply nested objects"),
        pytest.param(b'{"records":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}", id="deeply nested records"),
        pytest.param(b'{"records":[' + b"{}," * 1_000_000 + b"{}]}", id="a million records"),
        pytest.param(b'{"timestamp":' + b"9" * 1_000_000 + b"}", id="endless number"),
        pytest.param(b'{"stream_name":"app-logs","records":[{"data":"' + b"A" * 2_000_001 + b'"}]}', id="bad base64"),
        pytest.param(b'{"stream_name":"app-logs","records":[{"data":"\\u0000"}]}', id="no base64"),
        pytest.param('{"stream_name":"app-logs","records":[{"data":"YQ==é"}]}'.encode(), id="beyond ASCII"),
        pytest.param(b"\xff\xfe" + b"{}", id="no UTF-8"),
    ],
)
@pytest.mark.parametrize("resource", ["records", "streams", "apps", "checkpoints"])
def test_monstrous_body_is_refused(fuzzed: Service, body: bytes, resource: str) -> None:
    response = fuzzed.ask("POST", f"/v2/{PROJECT}/{resource}", body)

    assert response.status in (400, 413)
    assert json.loads(response.body)


# -- over sockets ---------------------------------------------------------------------------------------------------


def test_signed_garbage_is_refused_and_the_next_batch_is_stored(dis: DISEmulator, put: Put) -> None:
    dice = random.Random(1)
    for _ in range(50):
        status, error = put(dis, body=dice.randbytes(dice.randrange(1, 3000)))
        assert (status, error["errorCode"]) == (400, "DIS.4300")

    assert put(dis, "a")[0] == 200
    assert dis.refused == {"DIS.4300": 50}
    assert dis.record_count("app-logs") == 1


def test_mutated_requests_leave_the_emulator_serving(
    dis: DISEmulator, connect: Callable[[DISEmulator], socket.socket], make_request: Callable[..., bytes], put: Put
) -> None:
    """Bits of a proper request are changed, cut out and repeated; nothing of it may be stored unless it is the original."""
    dice = random.Random(2)
    original = make_request(dis, "a" * 100)
    for _ in range(150):
        request = _mutated(original, dice)
        with connect(dis) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")

    assert put(dis, "b")[0] == 200
    assert {stored.text for stored in dis.records("app-logs")} <= {"a" * 100, "b"}
    assert {request.operation for request in dis.requests} <= {None, *Operation}


def _mutated(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(changed))
        kind = dice.randrange(4)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del changed[at : at + dice.randrange(1, 30)]
        elif kind == 2:
            changed[at:at] = changed[at : at + dice.randrange(1, 60)]
        else:
            changed[at:at] = dice.randbytes(dice.randrange(1, 10))
        if not changed:
            return b""
    return bytes(changed)


def test_many_connections_that_say_nothing_keep_nobody_out(
    dis: DISEmulator, connect: Callable[[DISEmulator], socket.socket], make_request: Callable[..., bytes], put: Put
) -> None:
    request = make_request(dis, "a")
    for index in range(100):
        connect(dis).sendall(request[:index])

    assert put(dis, "b")[0] == 200
