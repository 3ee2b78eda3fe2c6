"""An emulator to talk to, and a client made of a bare socket, so that nothing of ours stands on both ends."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from http.client import HTTPResponse
from typing import Any

import pytest

from dis_logging.client.models import PutRecordsRequestEntry
from dis_logging.client.signing import SignableRequest, SignatureScheme, authorization, payload_hash, sdk_date
from dis_logging.client.wire import encode_put_records, wire_entry
from dis_logging.emulator import DISEmulator
from tests.emulator.service import Service


@pytest.fixture
def dis() -> Iterator[DISEmulator]:
    with DISEmulator(streams={"app-logs": 3}) as emulator:
        yield emulator


@pytest.fixture
def service() -> Service:
    """The emulated service without sockets."""
    return Service()


@pytest.fixture
def make_request() -> Callable[..., bytes]:
    """Returns a function that makes the bytes of a signed request: `make_request(dis, *texts)` for PutRecords."""
    return build_request


def build_request(
    dis: DISEmulator,
    *texts: str,
    stream: str = "app-logs",
    method: str = "POST",
    resource: str = "records/",
    body: bytes | None = None,
    extra: str = "",
) -> bytes:
    if body is None:
        entries = [PutRecordsRequestEntry(text.encode(), "web-1") for text in texts]
        body = encode_put_records(stream, [*map(wire_entry, entries)]) if entries else b""
    path = f"/v2/{dis.project_id}/{resource}"
    headers = {"host": f"127.0.0.1:{dis.port}", "x-sdk-date": sdk_date(datetime.now(timezone.utc))}
    signable = SignableRequest(method, path, [], headers, payload_hash(body))
    headers["authorization"] = authorization(SignatureScheme.SCOPED, signable, dis.region, dis.ak, dis.sk)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n{extra}\r\n".encode() + body


@pytest.fixture
def connect() -> Iterator[Callable[[DISEmulator], socket.socket]]:
    """Returns a function that opens a connection, which is closed after the test."""
    with ExitStack() as stack:
        yield lambda dis: stack.enter_context(socket.create_connection(("127.0.0.1", dis.port), timeout=10))


@pytest.fixture
def read_answer() -> Callable[[socket.socket], tuple[int, Any]]:
    """Returns a function that reads one answer from a connection: its status and its decoded body."""
    return receive


def receive(sock: socket.socket) -> tuple[int, Any]:
    with HTTPResponse(sock) as response:
        response.begin()
        return response.status, json.loads(response.read())


@pytest.fixture
def put(connect: Callable[[DISEmulator], socket.socket]) -> Callable[..., tuple[int, Any]]:
    """Returns a function that uploads over a new connection: `put(dis, *texts)`; takes the options of `make_request`."""

    def put(dis: DISEmulator, *texts: str, **options: Any) -> tuple[int, Any]:
        sock = connect(dis)
        sock.sendall(build_request(dis, *texts, **options))
        return receive(sock)

    return put
