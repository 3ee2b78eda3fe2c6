"""Sockets: life cycle, keep-alive, and what strangers send."""

import errno
import itertools
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trustme

from dis_logging.client import wire
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.connection import BadRequestError, parse_head
from dis_logging.emulator.faults import Hang, Refuse, times

Put = Callable[..., tuple[int, Any]]
Connect = Callable[[DISEmulator], socket.socket]
MakeRequest = Callable[..., bytes]
ReadAnswer = Callable[[socket.socket], tuple[int, Any]]

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "signing.json").read_text("utf-8"))


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs signal masks")
def test_signals_are_for_the_main_thread_which_may_wait_for_something_that_nobody_else_would_end() -> None:
    program = """if True:
        import os, signal, socket
        from dis_logging.emulator import DISEmulator
        with DISEmulator() as dis, socket.create_connection(("127.0.0.1", dis.port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
            assert connection.recv(1)  # so there is a thread for it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            os.kill(os.getpid(), signal.SIGUSR1)  # a thread that does not block it takes it, which ends the process
            print(signal.sigtimedwait({signal.SIGUSR1}, 20) is not None)
        """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


# -- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", VECTORS["schemes"], ids=lambda scheme: scheme["id"])
def test_upload_signed_by_an_official_sdk_is_stored(
    connect: Connect, read_answer: ReadAnswer, scheme: dict[str, Any]
) -> None:
    vector = scheme["vectors"][0]
    body = vector["body"].encode()
    headers = {**vector["headers_signed"], "Authorization": vector["authorization"], "Content-Length": len(body)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    emulator = DISEmulator(
        {"dis-demo": 1},
        ak=VECTORS["credentials"]["ak"],
        sk=VECTORS["credentials"]["sk"],
        clock=lambda: datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    )

    with emulator as dis:
        sock = connect(dis)
        sock.sendall(f"{vector['method']} {vector['path']} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        answer = read_answer(sock)

    assert answer == (
        200,
        {"failed_record_count": 0, "records": [{"partition_id": "shardId-0000000000", "sequence_number": "0"}]},
    )
    assert [stored.text for stored in dis.records("dis-demo")] == ["hello world"]


def test_answer_has_the_usual_headers(connect: Connect, make_request: MakeRequest) -> None:
    with DISEmulator({"app-logs": 1}) as dis, connect(dis) as sock:
        sock.sendall(make_request(dis, "a", extra="Connection: close\r\n"))
        head, _, body = b"".join(iter(lambda: sock.recv(65536), b"")).partition(b"\r\n\r\n")

    names = {line.partition(b":")[0]: line.partition(b": ")[2] for line in head.split(b"\r\n")[1:]}
    assert names[b"Content-Type"] == b"application/json"
    assert names[b"Content-Length"] == str(len(body)).encode()
    assert names[b"Date"].endswith(b" GMT")
    assert len(names[b"X-Request-Id"]) == 32
    assert names[b"Connection"] == b"close"


def test_date_header_tells_the_emulators_time() -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    with DISEmulator(clock=lambda: moment) as dis:
        connection = HTTPConnection("127.0.0.1", dis.port, timeout=10)
        connection.request("GET", "/")
        date = connection.getresponse().getheader("Date")
        connection.close()

    assert date == "Tue, 02 Jan 2024 03:04:05 GMT"


def test_connection_is_kept_for_further_requests(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    first, second = connect(dis), connect(dis)

    for sock in (first, second, first):
        sock.sendall(make_request(dis, "a"))
        read_answer(sock)

    assert len({request.connection for request in dis.requests}) == 2
    assert dis.requests[0].connection == dis.requests[2].connection


def test_requests_sent_at_once_are_answered_in_turn(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest
) -> None:
    sock = connect(dis)
    sock.sendall(make_request(dis, "a") + make_request(dis, "b", extra="Connection: close\r\n"))

    answers = b"".join(iter(lambda: sock.recv(65536), b""))

    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert [stored.text for stored in dis.records("app-logs")] == ["a", "b"]


def test_request_may_arrive_in_pieces(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    sock = connect(dis)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    for byte in make_request(dis, "a"):
        sock.sendall(bytes((byte,)))

    assert read_answer(sock)[0] == 200


def test_client_that_waits_for_an_invitation_gets_one(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    head, blank, body = make_request(dis, "a", extra="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    sock = connect(dis)
    sock.sendall(head + blank)

    invitation = sock.recv(65536)
    sock.sendall(body)

    assert invitation == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert read_answer(sock)[0] == 200


def test_body_over_the_limit_is_answered_with_413(dis: DISEmulator, put: Put) -> None:
    status, error = put(dis, body=bytes(wire.MAX_BODY_BYTES + 1))

    assert (status, error["error_code"]) == (413, "DIS.4200")
    assert dis.requests[0].status == 413


def test_upload_through_tls(connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer) -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)

    with DISEmulator({"app-logs": 1}, tls=server_side) as dis:
        silent = connect(dis)
        with client_side.wrap_socket(connect(dis), server_hostname="127.0.0.1") as sock:
            sock.sendall(make_request(dis, "a"))
            answer = read_answer(sock)

    assert dis.endpoint == f"https://127.0.0.1:{dis.port}"
    assert answer[0] == 200
    assert silent.recv(1) == b""


# -- life cycle -----------------------------------------------------------------------------------------------------


def test_emulator_comes_back_on_its_port_with_its_records(put: Put) -> None:
    dis = DISEmulator({"app-logs": 1})
    dis.start()
    port = dis.port
    put(dis, "a")
    dis.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
    with dis:
        put(dis, "b")

    assert dis.port == port
    assert [(stored.text, stored.sequence_number) for stored in dis.records("app-logs")] == [("a", "0"), ("b", "1")]
    assert [request.connection for request in dis.requests] == [1, 2]


def test_starting_and_stopping_twice_is_harmless() -> None:
    dis = DISEmulator()

    assert dis.start() is dis.start()

    dis.stop()
    dis.stop()


def test_taken_port_is_an_error_at_once(dis: DISEmulator) -> None:
    with pytest.raises(OSError, match="in use") as caught:
        DISEmulator(port=dis.port).start()

    assert caught.value.errno == errno.EADDRINUSE


def test_stop_ends_hanging_and_idle_connections_and_leaves_no_thread(
    connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    threads = threading.active_count()
    with DISEmulator({"app-logs": 1}) as dis:
        dis.play(*times(5, Hang()))
        hanging = [connect(dis) for _ in range(5)]
        for sock in hanging:
            sock.sendall(make_request(dis, "a"))
        idle = connect(dis)
        arrived = dis.wait_for(lambda dis: sum(request.entry_count for request in dis.requests) == 5)
        idle.sendall(make_request(dis, "b"))
        read_answer(idle)

    assert arrived
    assert [sock.recv(1) for sock in (*hanging, idle)] == [b""] * 6
    assert threading.active_count() == threads


def test_dropped_connections_end_and_new_ones_are_welcome(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer, put: Put
) -> None:
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))
    read_answer(sock)

    dis.drop_connections()

    assert sock.recv(1) == b""
    assert put(dis, "b")[0] == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_that_leaves_the_context_does_not_stop_the_parent(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))
    read_answer(sock)

    child = os.fork()
    if child == 0:
        dis.stop()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    sock.sendall(make_request(dis, "b"))

    assert os.waitstatus_to_exitcode(status) == 0
    assert read_answer(sock)[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not end a shared listening socket")
def test_child_that_outlives_the_emulator_does_not_keep_its_port_open() -> None:
    reading, writing = os.pipe()
    dis = DISEmulator().start()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)

    dis.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", dis.port), timeout=10)
    with dis:
        restarted = dis.port
    os.close(writing)
    os.close(reading)
    os.waitpid(child, 0)

    assert restarted == dis.port


# -- strangers ------------------------------------------------------------------------------------------------------

GARBAGE = {
    "random bytes": random.Random(1).randbytes(4096) + b"\r\n\r\n",
    "random bytes without an end": random.Random(2).randbytes(4096).replace(b"\r\n\r\n", b""),
    "no version": b"GET /\r\n\r\n",
    "other version": b"GET / HTTP/2.0\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "length that is no number": b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "huge length": b"POST / HTTP/1.1\r\nContent-Length: 999999999999999999\r\n\r\nx",
    "chunks": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
    "endless headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "target that is no URL": b"GET http://[ HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "nothing": b"",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_leaves_the_emulator_serving(dis: DISEmulator, connect: Connect, put: Put, garbage: bytes) -> None:
    sock = connect(dis)
    sock.sendall(garbage)
    sock.shutdown(socket.SHUT_WR)

    answer = b"".join(iter(lambda: sock.recv(65536), b""))

    assert answer == b"" or answer.startswith((b"HTTP/1.1 4",))
    assert put(dis, "a")[0] == 200
    assert dis.record_count("app-logs") == 1


@pytest.mark.parametrize(
    ("garbage", "status"),
    [("no version", 400), ("chunks", 411), ("huge length", 413), ("two lengths", 400), ("endless header", 431)],
)
def test_garbage_is_told_what_is_wrong(
    dis: DISEmulator, connect: Connect, read_answer: ReadAnswer, garbage: str, status: int
) -> None:
    sock = connect(dis)
    sock.sendall(GARBAGE[garbage])

    assert read_answer(sock)[0] == status


def test_client_that_leaves_within_a_body_stores_nothing(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest
) -> None:
    with connect(dis) as sock:
        sock.sendall(make_request(dis, "a")[:-1])
        arrived = dis.wait_for(lambda dis: dis.requests)

    dis.stop()

    assert arrived
    assert dis.record_count("app-logs") == 0


def test_client_that_leaves_before_the_answer_harms_nobody(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, put: Put
) -> None:
    dis.play(Refuse(500, body=bytes(10_000_000)))
    with connect(dis) as sock:
        sock.sendall(make_request(dis, "a"))

    assert dis.wait_for(lambda dis: dis.requests and dis.requests[0].status == 500)
    assert put(dis, "b")[0] == 200


@pytest.mark.parametrize("sent", [1, 50, -1], ids=["first byte", "within the head", "all but the last byte"])
def test_request_that_takes_too_long_to_arrive_is_answered_with_408(
    connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer, put: Put, sent: int
) -> None:
    with DISEmulator({"app-logs": 1}, request_timeout=0.2) as dis:
        sock = connect(dis)
        sock.sendall(make_request(dis, "a")[:sent])
        status, error = read_answer(sock)

        assert (status, error["error_code"]) == (408, "APIGW.0101")
        assert sock.recv(1) == b""
        assert put(dis, "b")[0] == 200
    assert [stored.text for stored in dis.records("app-logs")] == ["b"]


def test_dripping_sender_has_no_more_time_than_another(connect: Connect, make_request: MakeRequest, put: Put) -> None:
    """Each byte comes soon after the one before, all of them would take minutes."""
    with DISEmulator({"app-logs": 1}, request_timeout=0.3) as dis:
        sock = connect(dis)
        sock.settimeout(0.01)
        answer = b""
        for byte in itertools.cycle(make_request(dis, "a" * 100_000)):
            try:
                sock.sendall(bytes((byte,)))
                answer = sock.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                break  # the emulator has closed, and we were sending
            break

        assert not answer or answer.startswith(b"HTTP/1.1 408 ")
        assert put(dis, "b")[0] == 200
    assert [stored.text for stored in dis.records("app-logs")] == ["b"]


def test_idle_connection_may_stay_longer_than_a_request(
    connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    with DISEmulator({"app-logs": 1}, request_timeout=0.2) as dis, connect(dis) as sock:
        sock.sendall(make_request(dis, "a"))
        read_answer(sock)
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(10)
        sock.sendall(make_request(dis, "b"))
        read_answer(sock)

    assert [stored.text for stored in dis.records("app-logs")] == ["a", "b"]


def test_answer_without_a_body_says_nothing_of_one(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    """RFC 9110, 8.6: no Content-Length with 204; the connection goes on all the same."""
    sock = connect(dis)
    sock.sendall(make_request(dis, method="DELETE", resource="streams/app-logs"))
    head = sock.recv(65536)
    sock.sendall(make_request(dis, "a"))

    assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"Content-" not in head
    assert read_answer(sock)[1]["errorCode"] == "DIS.4301"


# -- parsing --------------------------------------------------------------------------------------------------------


def test_head_is_taken_apart() -> None:
    head = parse_head(b"POST /v2/a%20b?x=1 HTTP/1.1\r\nHost:a\r\nX-Two: 1 \r\nx-two: 2\r\nContent-Length: 5")

    assert (head.method, head.path, head.query) == ("POST", "/v2/a b", [("x", "1")])
    assert head.headers == {"host": "a", "x-two": "1, 2", "content-length": "5"}
    assert (head.content_length, head.keep_alive) == (5, True)


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.0", b"GET / HTTP/1.1\r\nConnection: Close"])
def test_client_may_not_want_to_keep_the_connection(raw: bytes) -> None:
    assert parse_head(raw).keep_alive is False


def test_client_may_take_us_for_its_proxy() -> None:
    assert parse_head(b"GET http://dis.example.com/v2/p?a=b HTTP/1.1").target == "/v2/p?a=b"


@pytest.mark.parametrize(("value", "text"), [("ü".encode(), "ü"), (b"\xfc", "ü")])
def test_header_value_may_be_utf_8_or_latin_1(value: bytes, text: str) -> None:
    assert parse_head(b"GET / HTTP/1.1\r\nX: " + value).headers["x"] == text


def test_head_with_a_blank_name_is_no_head() -> None:
    with pytest.raises(BadRequestError, match="header"):
        parse_head(b"GET / HTTP/1.1\r\n: x")
