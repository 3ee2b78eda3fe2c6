"""
What the network can do to one attempt, each through a real socket: the right error, in time, and a clean next request.

The errors differ in what the caller may conclude: nothing was sent, or nobody knows, or a refusal.
"""

import gzip
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from requests import PreparedRequest
from requests.auth import AuthBase

from dis_logging import (
    DeliveryError,
    DISClient,
    NotSentError,
    ProtocolError,
    PutRecordsRequestEntry,
    ServiceError,
    UnknownOutcomeError,
)
from dis_logging.client.transport import HTTPTransport, Patience
from dis_logging.client.wire import encode_put_records
from tests.certificates import bundle, server_context
from tests.peak import PEAK
from tests.raw_server import Peer, RawServer, Script, acknowledge, answer, no_server, reply_with, stored

ENTRY = PutRecordsRequestEntry("hello", "web-1")
BIG_ENTRIES = [PutRecordsRequestEntry(b"x" * 2**20)] * 3  # more than the buffers of two sockets hold
OK = answer(200, stored())
SHORT = 0.3  # a request_timeout to run out
LESS_SHORT = 0.8  # one that leaves time for a TLS handshake on a busy machine
# Far from SHORT for a busy machine's sake, and from what the slow servers below would take without a deadline.
SOON = 4.0

Connect = Callable[..., DISClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Returns a function that makes a client of a server or port; it is closed after the test."""
    with ExitStack() as stack:

        def connect(server: RawServer | str, **options: Any) -> DISClient:
            endpoint = server if isinstance(server, str) else server.endpoint
            where = {"region": "cn-north-4", "project_id": "p", "ak": "ak", "sk": "sk", "request_timeout": 5.0}
            return stack.enter_context(DISClient(**{"endpoint": endpoint, **where, **options}))

        yield connect


def failure_of(client: DISClient, records: list[PutRecordsRequestEntry] | None = None) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        client.put_records("app-logs", records or [ENTRY])
    return raised.value


def timed_failure_of(client: DISClient, records: list[PutRecordsRequestEntry] | None = None) -> DeliveryError:
    """Returns how an attempt failed, having checked that it took no longer than it may."""
    started = time.monotonic()
    error = failure_of(client, records)
    assert time.monotonic() - started < client.request_timeout + SOON
    return error


def assert_usable(client: DISClient) -> None:
    client.request_timeout = 20.0
    assert client.put_records("app-logs", [ENTRY]).failed_record_count == 0


# -- connections ----------------------------------------------------------------------------------------------------


def test_a_refused_connection_sent_nothing(connect: Connect) -> None:
    with no_server() as port:
        error = failure_of(connect(f"http://127.0.0.1:{port}"))

    assert type(error) is NotSentError
    assert str(error) == "no connection to DIS: Connection refused"


def test_an_unknown_host_sent_nothing(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", find_nothing)  # a real one would ask the network
    error = failure_of(connect("https://dis.example.com", proxies={"no_proxy": "*"}))

    assert type(error) is NotSentError
    assert str(error) == "no connection to DIS: Name or service not known"


def test_every_address_of_a_host_is_tried(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(acknowledge) as server, no_server() as closed:
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
            for port in (closed, server.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: addresses)

        assert_usable(connect("http://localhost"))


needs_silence = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses connections")


@contextmanager
def unaccepting_server() -> Iterator[int]:
    """Gives a port whose connections are neither accepted nor refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # they fill the backlog; whoever comes later waits
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@needs_silence
def test_an_address_of_no_use_costs_a_share_of_the_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address is of a family that this machine lacks, the second leads nowhere, the third is the service's."""
    with RawServer(acknowledge) as server, unaccepting_server() as silent:
        addresses = [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
            for family, port in ((9999, 1), (socket.AF_INET, silent), (socket.AF_INET, server.port))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: addresses)
        client = connect("http://localhost", request_timeout=1.6)

        assert client.put_records("app-logs", [ENTRY]).failed_record_count == 0


NEVER_RESOLVED = "dis.example.com"


@pytest.fixture
def hanging_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The system's resolver hangs for any name; gives the names it was asked for."""
    asked: list[str] = []
    threads: list[threading.Thread] = []
    over = threading.Event()

    def hang(host: str, *_: object) -> None:
        asked.append(host)
        threads.append(threading.current_thread())
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield asked
    over.set()
    for thread in threads:  # the next test must not meet them
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_is_not_resolved_ends_the_attempt_in_time(
    connect: Connect, hanging_names: list[str], scheme: str
) -> None:
    endpoint = f"{scheme}://{NEVER_RESOLVED}"
    client = connect(endpoint, allow_http=True, proxies={"no_proxy": "*"}, request_timeout=SHORT)
    errors = [timed_failure_of(client) for _ in range(3)]

    assert {type(error) for error in errors} == {NotSentError}
    assert all("the name dis.example.com was not resolved within 0." in str(error) for error in errors)
    assert hanging_names == [NEVER_RESOLVED]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_it_is_the_proxys_name_that_must_be_resolved(connect: Connect, hanging_names: list[str], scheme: str) -> None:
    proxies = {scheme: "http://user:word@proxy.example.com:3128"}
    endpoint = f"{scheme}://{NEVER_RESOLVED}"
    error = timed_failure_of(connect(endpoint, allow_http=True, proxies=proxies, request_timeout=SHORT))

    assert type(error) is NotSentError
    assert "the name proxy.example.com was not resolved within 0." in str(error)
    assert hanging_names == ["proxy.example.com"]


def test_a_connection_that_is_kept_needs_no_name_server(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(acknowledge) as server:
        address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", server.port))
        answers = iter([[address]])
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: next(answers))
        client = connect("http://localhost")
        for _ in range(3):
            assert_usable(client)


def test_a_service_that_comes_back_is_used(connect: Connect) -> None:
    with no_server() as port:
        client = connect(f"http://127.0.0.1:{port}")
        failure_of(client)

    with RawServer(acknowledge, port=port):
        assert_usable(client)


@pytest.mark.parametrize(
    "read",
    [
        lambda peer: peer.read_head(),
        lambda peer: peer.read_body(peer.read_head(), 0.5),
        lambda peer: peer.read_request(),
    ],
    ids=["before the body", "within the body", "after the body"],
)
@pytest.mark.parametrize("records", [[ENTRY], BIG_ENTRIES], ids=["small", "big"])
def test_a_reset_leaves_the_outcome_unknown(
    connect: Connect, read: Script, records: list[PutRecordsRequestEntry]
) -> None:
    def script(peer: Peer) -> None:
        read(peer)
        peer.reset()

    with RawServer(script, acknowledge) as server:
        client = connect(server)
        error = failure_of(client, records)
        assert_usable(client)

    assert type(error) is UnknownOutcomeError
    assert not error.timed_out


def test_a_reset_before_the_head_is_never_taken_for_an_answer(connect: Connect) -> None:
    with RawServer(lambda peer: peer.reset(), acknowledge) as server:
        client = connect(server)
        error = failure_of(client)
        assert_usable(client)

    assert not isinstance(error, ServiceError)


def test_a_kept_alive_connection_that_was_closed_while_idle_costs_nothing(connect: Connect) -> None:
    left = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK)
        peer.sock.close()
        left.set()

    with RawServer(script, script, acknowledge) as server:
        client = connect(server)
        for _ in range(2):
            assert_usable(client)
            assert left.wait(10)
            left.clear()
        assert_usable(client)

    assert server.connections == 3
    assert len(server.heads) == 3


def test_a_refusal_that_comes_before_the_body_was_read_is_understood(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(answer(413, b"", "Connection: close\r\n"))

    with RawServer(script, acknowledge) as server:
        client = connect(server)
        error = failure_of(client, BIG_ENTRIES)
        assert_usable(client)

    assert isinstance(error, ServiceError)
    assert error.status == 413


# -- slow ones ------------------------------------------------------------------------------------------------------


def hang(peer: Peer) -> None:
    peer.read_request()
    peer.hold()


def drip(data: bytes, first: bytes = b"") -> Script:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(first)
        peer.drip(data)

    return script


def read_slowly(peer: Peer) -> None:
    while peer.sock.recv(4096):
        peer.hold(0.1)


HEAD, _, BODY = OK.partition(b"\r\n\r\n")
LONG = b"x" * 1000
SLOW = {
    "hang": hang,
    "hang without reading": lambda peer: peer.hold(),
    "slow reader": read_slowly,
    "dripping status line": drip(b"HTTP/1.1 200 " + LONG),
    "dripping header": drip(LONG, b"HTTP/1.1 200 OK\r\nX: "),
    "dripping headers": drip(b"X:\r\n" * 300, b"HTTP/1.1 200 OK\r\n"),
    "dripping body": drip(LONG, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
    "dripping body without length": drip(LONG, b"HTTP/1.1 200 OK\r\n\r\n"),
    "dripping chunk size": drip(b"0" * 1000, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "dripping chunks": drip(b"1\r\n \r\n" * 200, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "dripping trailers": drip(b"X:\r\n" * 300, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
    "dripping 100-continues": drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 40),
}


@pytest.mark.parametrize("script", SLOW.values(), ids=SLOW.keys())
def test_an_attempt_ends_in_time(connect: Connect, script: Script) -> None:
    with RawServer(script, acknowledge) as server:
        client = connect(server, request_timeout=SHORT)
        error = timed_failure_of(client, BIG_ENTRIES)
        assert_usable(client)

    assert type(error) is UnknownOutcomeError
    assert error.timed_out
    assert str(error) == "DIS did not answer in time"


@needs_silence
def test_a_connection_that_is_never_accepted_ends_in_time(connect: Connect) -> None:
    with unaccepting_server() as port:
        error = timed_failure_of(connect(f"http://127.0.0.1:{port}", request_timeout=SHORT))

    assert type(error) is NotSentError
    assert str(error) == "no connection to DIS: timed out"


@pytest.mark.parametrize("script", [hang, read_slowly, drip(LONG)], ids=["hang", "slow reader", "drip"])
def test_an_attempt_over_tls_ends_in_time(
    connect: Connect, authority: trustme.CA, tmp_path: Path, script: Script
) -> None:
    with RawServer(script, tls=server_context(authority)) as server:
        error = timed_failure_of(
            connect(server, request_timeout=LESS_SHORT, verify=bundle(authority, tmp_path)), BIG_ENTRIES
        )

    assert isinstance(error, UnknownOutcomeError)
    assert error.timed_out


class NoAuth(AuthBase):
    """Leaves a request as it is."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return request


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_body_that_is_taken_bit_by_bit_has_no_more_time(authority: trustme.CA, tmp_path: Path, secure: bool) -> None:
    """Each write succeeds well before the time is up; all of them together would take twenty seconds."""

    def read_steadily(peer: Peer) -> None:
        while peer.sock.recv(65536):
            peer.hold(0.02)

    with RawServer(read_steadily, tls=server_context(authority) if secure else None) as server:
        transport = HTTPTransport(verify=bundle(authority, tmp_path), proxies={"no_proxy": "*"})
        started = time.monotonic()
        with pytest.raises(UnknownOutcomeError, match="in time"):
            transport.send("POST", server.endpoint, {}, bytes(2**26), NoAuth(), LESS_SHORT)
        transport.close()

    assert time.monotonic() - started < LESS_SHORT + SOON


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_whoever_waits_for_an_answer_looks_around_meanwhile(
    authority: trustme.CA, tmp_path: Path, secure: bool
) -> None:
    looks = threading.Semaphore(0)

    def answer_late(peer: Peer) -> None:
        peer.read_request()
        for piece in (OK[:10], OK[10:30], OK[30:]):
            assert looks.acquire(timeout=20)
            peer.send(piece)

    with RawServer(answer_late, tls=server_context(authority) if secure else None) as server:
        transport = HTTPTransport(verify=bundle(authority, tmp_path), proxies={"no_proxy": "*"})
        patience = Patience(0.01, looks.release)
        reply = transport.send("POST", server.endpoint, {}, b"body", NoAuth(), 20.0, patience=patience)
        transport.close()

    assert (reply.status, reply.body) == (200, BODY)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_whoever_sends_a_body_that_is_not_taken_looks_around_meanwhile(
    authority: trustme.CA, tmp_path: Path, secure: bool
) -> None:
    looks = threading.Semaphore(0)
    body = bytes(range(256)) * 2**16
    received = []

    def read_late(peer: Peer) -> None:
        head = peer.read_head()
        assert looks.acquire(timeout=20)
        received.append(peer.read_body(head))
        peer.send(OK)

    with RawServer(read_late, tls=server_context(authority) if secure else None) as server:
        transport = HTTPTransport(verify=bundle(authority, tmp_path), proxies={"no_proxy": "*"})
        patience = Patience(0.01, looks.release)
        reply = transport.send("POST", server.endpoint, {}, body, NoAuth(), 20.0, patience=patience)
        transport.close()

    assert (reply.status, received) == (200, [body])


def test_an_answer_that_drips_does_not_keep_from_looking_around() -> None:
    looks: list[float] = []
    with RawServer(drip(OK[-30:], OK[:-30])) as server:
        transport = HTTPTransport(proxies={"no_proxy": "*"})
        patience = Patience(0.2, lambda: looks.append(time.monotonic()))
        reply = transport.send("POST", server.endpoint, {}, b"", NoAuth(), 20.0, patience=patience)
        transport.close()

    assert reply.body == BODY
    assert len(looks) >= 2
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(looks))


def test_looking_around_gives_an_attempt_no_more_time() -> None:
    looks: list[float] = []
    with RawServer(hang) as server:
        transport = HTTPTransport(proxies={"no_proxy": "*"})
        started = time.monotonic()
        with pytest.raises(UnknownOutcomeError, match="in time"):
            transport.send(
                "POST", server.endpoint, {}, b"", NoAuth(), SHORT, patience=Patience(0.01, lambda: looks.append(1))
            )
        transport.close()

    assert time.monotonic() - started < SHORT + SOON
    assert looks


def test_nothing_is_kept_of_whoever_waited() -> None:
    """The thread may be one of the application's, and live on."""

    class Waiting:
        def look(self) -> None: ...

    waiting = Waiting()
    kept = weakref.ref(waiting)
    with RawServer(acknowledge) as server:
        transport = HTTPTransport(proxies={"no_proxy": "*"})
        body = encode_put_records("app-logs", [(b"text", "key", None)])
        transport.send("POST", server.endpoint, {}, body, NoAuth(), 20.0, patience=Patience(0.01, waiting.look))
        transport.close()
    del waiting

    assert kept() is None


def test_the_time_of_one_attempt_is_not_charged_to_the_next(connect: Connect) -> None:
    with RawServer(hang, acknowledge) as server:
        client = connect(server, request_timeout=SHORT)
        failure_of(client)

        assert_usable(client)


# -- answers that are none ------------------------------------------------------------------------------------------


def forever(data: bytes, first: bytes = b"") -> Script:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(first)
        while True:
            peer.send(data)

    return script


def chunked(data: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data


def with_encoding(encoding: str, body: bytes) -> bytes:
    return answer(200, body, f"Content-Encoding: {encoding}\r\n")


MEBIBYTE = b"x" * 2**20
NO_ANSWERS = {
    "a truncated body": reply_with(OK[:-5]),
    "a truncated head": reply_with(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "less than was announced": reply_with(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + BODY),
    "two lengths": reply_with(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 99\r\n\r\n" + BODY),
    "no chunk size": reply_with(chunked(b"zz\r\n")),
    "a truncated chunk": reply_with(chunked(b"50\r\n{}")),
    "no last chunk": reply_with(chunked(b"%x\r\n%b\r\n" % (len(BODY), BODY))),
    "a chunk of less than nothing": reply_with(chunked(b"-5\r\n" + BODY)),
    "a chunk of -1 bytes": reply_with(chunked(b"-1\r\n" + BODY)),
    "an endless chunk of -1 bytes": forever(MEBIBYTE, chunked(b"-1\r\n")),
    "plain text that claims to be gzip": reply_with(with_encoding("gzip", BODY), acknowledge),
    "truncated gzip": reply_with(with_encoding("gzip", gzip.compress(BODY)[:-6]), acknowledge),
    "gzip with a wrong checksum": reply_with(
        with_encoding("gzip", gzip.compress(BODY)[:-8] + b"12345678"), acknowledge
    ),
    "gzip in gzip": reply_with(with_encoding("gzip, gzip", gzip.compress(gzip.compress(BODY))), acknowledge),
    "an unknown encoding": reply_with(with_encoding("br", BODY), acknowledge),
    "another protocol": reply_with(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "a body without a head": reply_with(BODY),
    "a status that is no number": reply_with(b"HTTP/1.1 abc\r\n\r\n"),
    "deep nesting": reply_with(answer(200, b"[" * 1_000_000), acknowledge),
    "deeper nesting": reply_with(answer(200, b'{"records":' * 1_000_000), acknowledge),
    "an oversized answer": reply_with(answer(200, BODY + b" " * 16 * 2**20), acknowledge),
    "an endless body": forever(MEBIBYTE, b"HTTP/1.1 200 OK\r\n\r\n"),
    "endless chunks": forever(b"100000\r\n%b\r\n" % MEBIBYTE, chunked(b"")),
    "endless headers": forever(b"X: y\r\n" * 1000, b"HTTP/1.1 200 OK\r\n"),
    "an endless header": forever(MEBIBYTE, b"HTTP/1.1 200 OK\r\nX: "),
    "an endless status line": forever(MEBIBYTE, b"HTTP/1.1 200 "),
    "endless 100-continues": forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "endless trailers": forever(b"X: y\r\n" * 1000, chunked(b"0\r\n")),
    "a 101": reply_with(answer(101), acknowledge),
    "a 103": reply_with(b"HTTP/1.1 103 Early Hints\r\n\r\n", acknowledge),
    "an empty 200": reply_with(answer(200), acknowledge),
    "a 204": reply_with(answer(204), acknowledge),
    "a 202 that looks fine": reply_with(answer(202, BODY), acknowledge),
    "a result for somebody else": reply_with(answer(200, stored(2)), acknowledge),
}


@pytest.mark.parametrize("script", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_what_is_no_answer_acknowledges_nothing(connect: Connect, script: Script) -> None:
    with RawServer(script, acknowledge) as server:
        client = connect(server, request_timeout=20.0)
        error = timed_failure_of(client)
        assert_usable(client)

    assert type(error) is ProtocolError
    assert len(str(error)) < 200


def test_a_connection_that_closes_without_a_word_leaves_the_outcome_unknown(connect: Connect) -> None:
    with RawServer(reply_with(b"")) as server:
        error = failure_of(connect(server))

    assert type(error) is UnknownOutcomeError


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (OK[:-5], "IncompleteRead"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "BadStatusLine"),
        (HEAD + b"\r\nX: " + LONG * 99, "LineTooLong"),
    ],
)
def test_the_error_names_what_is_wrong_with_the_answer(connect: Connect, data: bytes, reason: str) -> None:
    with RawServer(reply_with(data)) as server:
        error = failure_of(connect(server))

    assert str(error) == f"the answer is not valid HTTP: {reason}"


def test_a_few_interim_answers_are_skipped(connect: Connect) -> None:
    with RawServer(reply_with(b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + OK)) as server:
        assert_usable(connect(server))


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate"])
def test_a_compressed_answer_is_read_though_not_asked_for(connect: Connect, encoding: str) -> None:
    body = gzip.compress(BODY)
    with RawServer(reply_with(with_encoding(encoding, body))) as server:
        assert_usable(connect(server))

    assert b"\r\nAccept-Encoding: identity\r\n" in server.heads[0]


def test_an_answer_in_many_pieces_is_read(connect: Connect) -> None:
    pieces = b"".join(b"1;name=value\r\n%c\r\n" % byte for byte in BODY) + b"0\r\nX: y\r\n\r\n"
    with RawServer(reply_with(chunked(pieces), acknowledge)) as server:
        client = connect(server)
        assert_usable(client)
        assert_usable(client)

    assert server.connections == 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n", OK, HEAD, BODY]), max_size=6)
)
def test_random_bytes_raise_nothing_but_delivery_errors(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    with (
        RawServer(reply_with(data)) as server,
        DISClient(endpoint=server.endpoint, region="r", project_id="p", ak="a", sk="s", request_timeout=10) as client,
    ):
        try:
            client.put_records("app-logs", [ENTRY])
        except DeliveryError:
            return

    assert BODY in data


@pytest.mark.parametrize("late", [OK, answer(200, stored(2)), answer(500)], ids=["same", "longer", "refusal"])
def test_the_late_answer_after_a_103_is_not_read_as_the_next_one(connect: Connect, late: bytes) -> None:
    interim_sent, go_on = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        interim_sent.set()
        go_on.wait(10)
        peer.send(late)
        peer.wait_until_closed()

    refused = b'{"failed_record_count": 1, "records": [{"error_code": "DIS.4303"}]}'
    with RawServer(script, reply_with(answer(200, refused))) as server:
        client = connect(server)
        error = failure_of(client)
        go_on.set()
        result = client.put_records("app-logs", [ENTRY])

    assert isinstance(error, ProtocolError)
    assert error.status == 103
    assert result.failed_record_count == 1
    assert server.connections == 2


BOMB_PROGRAM = (
    PEAK
    + """
import sys
from dis_logging import DISClient, ProtocolError, PutRecordsRequestEntry

entries = [PutRecordsRequestEntry("hello")]
client = DISClient(endpoint=sys.argv[1], region="r", project_id="p", ak="a", sk="s", request_timeout=30)
client.put_records("app-logs", entries)
before = peak()
try:
    client.put_records("app-logs", entries)
except ProtocolError as error:
    print(error)
print((peak() - before) // 2**20)
"""
)


def bomb(content: bytes) -> bytes:
    """Returns gzip of 300 MiB that repeat *content*, made of one compressed piece, since making it takes time as well."""
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packer.compress(content * (2**20 // len(content))) + packer.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + piece * 300 + packer.flush() + b"\0" * 8


@pytest.mark.parametrize("content", [b"\0", b"[],"], ids=["zeros", "JSON"])
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_compressed_bomb_of_300_mebibytes_takes_less_than_100_of_memory(content: bytes) -> None:
    data = with_encoding("gzip", bomb(content))

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK)
        peer.read_request()
        peer.send(data)

    with RawServer(script) as server:
        program = subprocess.run(
            [sys.executable, "-c", BOMB_PROGRAM, server.endpoint],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    message, growth = program.stdout.splitlines()
    assert "too long" in message
    assert int(growth) < 100


# -- attempts within one another ------------------------------------------------------------------------------------


def test_an_attempt_of_a_signal_handler_leaves_the_one_it_interrupts_its_deadline(connect: Connect) -> None:
    results = []
    with RawServer(lambda peer: peer.hold()) as silent, RawServer(acknowledge) as other:
        patient = connect(other, request_timeout=60)
        before = signal.signal(
            signal.SIGALRM, lambda *_: results.append(patient.put_records("app-logs", [ENTRY]).failed_record_count)
        )
        try:
            signal.setitimer(signal.ITIMER_REAL, SHORT / 3)
            error = timed_failure_of(connect(silent, request_timeout=SHORT))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    assert results == [0]
    assert isinstance(error, UnknownOutcomeError)
    assert error.timed_out


# -- what the caller is about ---------------------------------------------------------------------------------------


def depth_of(error: BaseException) -> int:
    """Returns how many frames the traceback of *error* has."""
    return len(list(traceback.walk_tb(error.__traceback__)))


def raise_timeout() -> None:
    raise TimeoutError("of the application")


def test_what_the_caller_handles_keeps_its_traceback_and_explains_nothing(connect: Connect) -> None:
    def reset(peer: Peer) -> None:
        peer.read_request()
        peer.reset()

    with RawServer(reset) as server:
        client = connect(server)
        try:
            raise_timeout()
        except TimeoutError as mine:
            before = depth_of(mine)
            error = failure_of(client)
            after = depth_of(mine)

    assert after == before
    assert isinstance(error, UnknownOutcomeError)
    assert not error.timed_out  # that was the application's


def test_what_the_credentials_callable_raises_keeps_its_traceback(connect: Connect) -> None:
    raised: list[BaseException] = []

    def credentials() -> Any:
        try:
            raise_timeout()
        except TimeoutError as error:
            raised.append(error)
            raise

    options = {"ak": None, "sk": None, "credentials": credentials}
    with no_server() as port:
        error = failure_of(connect(f"http://127.0.0.1:{port}", **options))

    assert str(error) == "the credentials callable raised TimeoutError"
    assert depth_of(raised[0]) > 2


# -- redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(connect: Connect, status: int) -> None:
    with RawServer(acknowledge) as other:
        redirect = answer(status, b"moved", f"Location: {other.endpoint}/v2/p/records/\r\n")
        with RawServer(reply_with(redirect, reply_with(redirect))) as server:
            client = connect(server)
            error = failure_of(client)
            failure_of(client)

            assert server.connections == 1
        assert other.connections == 0
    assert isinstance(error, ServiceError)
    assert (error.status, error.message) == (status, "moved")


@pytest.mark.parametrize("location", ["http://[::1", "http://a:b:c/", "//", "\xff\xfe", "http://\x7f", ""])
def test_a_location_that_cannot_be_parsed_does_no_harm(connect: Connect, location: str) -> None:
    redirect = answer(302).replace(b"\r\n\r\n", b"\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n")
    with RawServer(reply_with(redirect, acknowledge)) as server:
        client = connect(server)
        error = failure_of(client)
        assert_usable(client)

    assert isinstance(error, ServiceError)
    assert error.status == 302


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority that the clients trust."""
    return trustme.CA()


def test_a_certificate_for_another_host_is_refused(connect: Connect, authority: trustme.CA, tmp_path: Path) -> None:
    with RawServer(acknowledge, tls=server_context(authority, "dis.example.com")) as server:
        error = failure_of(connect(server, verify=bundle(authority, tmp_path)))

    assert type(error) is NotSentError
    assert server.heads == []


def test_an_expired_certificate_is_refused(connect: Connect, authority: trustme.CA, tmp_path: Path) -> None:
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    with RawServer(acknowledge, tls=server_context(authority, not_after=yesterday)) as server:
        error = failure_of(connect(server, verify=bundle(authority, tmp_path)))

    assert str(error) == "no connection to DIS: certificate refused: certificate has expired"
    assert server.heads == []


def test_an_untrusted_certificate_is_refused_by_default(connect: Connect) -> None:
    with RawServer(acknowledge, tls=server_context(trustme.CA())) as server:
        error = failure_of(connect(server))

    assert type(error) is NotSentError
    assert "certificate refused" in str(error)
    assert server.heads == []


def test_a_plain_server_behind_https_is_not_sent_anything(connect: Connect) -> None:
    with RawServer(acknowledge) as server:
        error = timed_failure_of(connect(f"https://127.0.0.1:{server.port}", request_timeout=SHORT))

    assert type(error) is NotSentError
    assert server.heads == []


@pytest.mark.parametrize(
    "script",
    [lambda peer: peer.hold(), lambda peer: peer.drip(b"\x16\x03\x03\x40\x00" + LONG)],
    ids=["hangs", "drips"],
)
def test_a_tls_handshake_ends_in_time(connect: Connect, script: Script) -> None:
    with RawServer(script) as server:
        error = timed_failure_of(connect(f"https://127.0.0.1:{server.port}", request_timeout=SHORT))

    assert type(error) is NotSentError
    assert str(error) == "no connection to DIS: timed out"


def test_a_kept_alive_tls_connection_that_was_closed_while_idle_costs_nothing(
    connect: Connect, authority: trustme.CA, tmp_path: Path
) -> None:
    left = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK)
        peer.sock.close()
        left.set()

    with RawServer(script, acknowledge, tls=server_context(authority)) as server:
        client = connect(server, verify=bundle(authority, tmp_path))
        assert_usable(client)
        assert left.wait(10)
        assert_usable(client)

    assert server.connections == 2


# -- proxies --------------------------------------------------------------------------------------------------------

BEYOND = "https://dis.example.com"  # known to the proxies only
PROXY_HEAD = b"HTTP/1.1 200 Connection established\r\n"


def tunnel(behind: RawServer) -> Script:
    """Returns the script of a proxy that takes every host for *behind*."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(PROXY_HEAD + b"\r\n")
        peer.relay(behind.port)

    return script


def test_requests_go_through_the_tunnel_of_a_proxy(connect: Connect, authority: trustme.CA, tmp_path: Path) -> None:
    service = RawServer(acknowledge, tls=server_context(authority, "dis.example.com"))
    with service, RawServer(tunnel(service)) as proxy:
        proxies = {"https": f"http://user:word@127.0.0.1:{proxy.port}"}
        client = connect(BEYOND, proxies=proxies, verify=bundle(authority, tmp_path))
        assert_usable(client)
        assert_usable(client)

    head = proxy.heads[0]
    assert head.startswith(b"CONNECT dis.example.com:443 HTTP/1.")
    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in head
    assert b"\r\nAuthorization" not in head
    assert b"Proxy-Authorization" not in service.heads[0]
    assert (proxy.connections, service.connections) == (1, 1)


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_proxy_that_refuses_to_connect_is_a_refusal(connect: Connect, status: int) -> None:
    script = reply_with(f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno".encode())
    with RawServer(script) as proxy:
        error = failure_of(connect(BEYOND, proxies={"https": proxy.endpoint}))

    assert isinstance(error, ServiceError)
    assert (error.status, error.message) == (status, "the proxy refused to connect")


def test_a_proxy_that_refuses_a_plain_request_is_a_refusal(connect: Connect) -> None:
    script = reply_with(answer(407, b"who are you?", "Proxy-Authenticate: Basic\r\n"))
    with RawServer(script) as proxy:
        client = connect("http://dis.example.com", allow_http=True, proxies={"http": proxy.endpoint})
        error = failure_of(client)

    assert isinstance(error, ServiceError)
    assert (error.status, error.message) == (407, "who are you?")


def test_a_proxy_that_is_down_sent_nothing(connect: Connect) -> None:
    with no_server() as port:
        proxy = f"http://user:word@127.0.0.1:{port}"
        errors = [
            failure_of(connect(BEYOND, proxies={"https": proxy})),
            failure_of(connect("http://dis.example.com", allow_http=True, proxies={"http": proxy})),
        ]

    assert [str(error) for error in errors] == ["no connection to DIS: Connection refused"] * 2
    assert {type(error) for error in errors} == {NotSentError}


def slow_connect(data: bytes, first: bytes = b"") -> Script:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(first)
        peer.drip(data)
        peer.hold()

    return script


SLOW_PROXIES = {
    "dripping status line": slow_connect(b"HTTP/1.1 200 " + LONG),
    "dripping headers": slow_connect(b"X:\r\n" * 300, PROXY_HEAD),
    "silence": slow_connect(b""),
}


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("script", SLOW_PROXIES.values(), ids=SLOW_PROXIES.keys())
def test_a_tunnel_that_takes_its_time_ends_in_time(
    connect: Connect, authority: trustme.CA, tmp_path: Path, script: Script, secure: bool
) -> None:
    with RawServer(script, tls=server_context(authority) if secure else None) as proxy:
        client = connect(
            BEYOND, proxies={"https": proxy.endpoint}, verify=bundle(authority, tmp_path), request_timeout=SHORT
        )
        error = timed_failure_of(client)

    assert type(error) is NotSentError
    assert str(error) == "no connection to DIS: timed out"


def test_a_tls_handshake_gets_what_its_tunnel_left_of_the_time(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.hold(1.6)
        peer.send(PROXY_HEAD + b"\r\n")
        peer.hold()

    with RawServer(script) as proxy:
        client = connect(BEYOND, proxies={"https": proxy.endpoint}, request_timeout=2)
        started = time.monotonic()
        error = failure_of(client)

    assert str(error) == "no connection to DIS: timed out"
    assert time.monotonic() - started < 3


def test_an_endless_head_of_a_proxy_ends(connect: Connect) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(PROXY_HEAD)
        for _ in itertools.count():
            peer.send(b"X: y\r\n" * 1000)

    with RawServer(script) as proxy:
        error = timed_failure_of(connect(BEYOND, proxies={"https": proxy.endpoint}, request_timeout=20))

    assert isinstance(error, DeliveryError)


@pytest.mark.parametrize("close", ["", "Connection: close\r\n"], ids=["kept alive", "closed"])
def test_requests_go_through_a_proxy_that_speaks_tls_itself(
    connect: Connect, authority: trustme.CA, tmp_path: Path, close: str
) -> None:
    head, body = answer(200, stored(), close).split(b"\r\n\r\n")

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(head + b"\r\n\r\n")
        peer.hold(0.1)  # http.client closes its side of an answer that says "close" as soon as it has the head
        peer.send(body)
        acknowledge(peer)

    service = RawServer(script, tls=server_context(authority, "dis.example.com"))
    with service, RawServer(tunnel(service), tls=server_context(authority)) as proxy:
        client = connect(BEYOND, proxies={"https": proxy.endpoint}, verify=bundle(authority, tmp_path))
        assert_usable(client)
        assert_usable(client)

    assert service.connections == (2 if close else 1)


def test_whoever_waits_for_an_answer_through_such_a_proxy_looks_around_meanwhile(
    authority: trustme.CA, tmp_path: Path
) -> None:
    looks = threading.Semaphore(0)

    def answer_late(peer: Peer) -> None:
        peer.read_request()
        assert looks.acquire(timeout=20)
        peer.send(OK)

    service = RawServer(answer_late, tls=server_context(authority, "dis.example.com"))
    with service, RawServer(tunnel(service), tls=server_context(authority)) as proxy:
        transport = HTTPTransport(verify=bundle(authority, tmp_path), proxies={"https": proxy.endpoint})
        patience = Patience(0.01, looks.release)
        reply = transport.send("POST", BEYOND, {}, b"body", NoAuth(), 20.0, patience=patience)
        transport.close()

    assert (reply.status, reply.body) == (200, BODY)


@pytest.mark.parametrize(
    "proxy",
    ["socks5://user:word@127.0.0.1:1", "http://user:word@:99999", "ftp://user:word@host", "http://"],
    ids=["library that is missing", "port", "scheme", "nothing"],
)
def test_a_proxy_that_cannot_be_used_is_told_and_sent_nothing(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    client = connect(BEYOND)

    error = failure_of(client)

    assert type(error) is NotSentError
    assert "(the proxy of HTTPS_PROXY, or of the option proxies, cannot be used)" in str(error)
    assert "word" not in str(error)
