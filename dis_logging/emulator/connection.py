"""
HTTP/1.1 on one connection: reads requests, has each answered or its fault played, and writes the answers.

Sockets and not http.server, because faults need the connection itself: half a body, a late answer, a reset.
Whatever a peer sends, it can hold no more than its own thread and some megabytes.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
import time
from datetime import datetime, timezone
from email.utils import format_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from dis_logging.client import wire
from dis_logging.emulator.app import App
from dis_logging.emulator.call import EntryRule
from dis_logging.emulator.faults import Behave, Script
from dis_logging.emulator.journal import Journal, ReceivedRequest
from dis_logging.emulator.messages import Head, Request, Response, new_request_id, refusal

# How long a peer may be silent between requests, and how long it may take to read an answer.
_IDLE_TIMEOUT = 300.0
_IO_TIMEOUT = 30.0
# How long a request may take from its first byte to its last: a peer that drips has no more time than another.
REQUEST_TIMEOUT = 60.0
_MAX_HEAD_BYTES = 64 * 1024
_LINGER_FORMAT = "hh" if os.name == "nt" else "ii"  # struct linger: shorts in Winsock, ints in POSIX
# After an early refusal, what is still read so that the peer gets to see it.
_MAX_DRAIN_BYTES = 32 * 1024 * 1024
_DRAIN_TIMEOUT = 2.0

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")


class BadRequestError(ValueError):
    """What came is no HTTP request, or not all of one; *answer* says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = refusal(status, "APIGW.0101", message, gateway=True)


def serve(
    sock: socket.socket,
    number: int,
    app: App,
    script: Script,
    journal: Journal,
    request_timeout: float = REQUEST_TIMEOUT,
) -> None:
    """
    Serves the requests of one connection until either side ends it.

    Args:
        sock: accepted, and for TLS wrapped but not yet shaken hands; the caller closes it.
        number: of the connection.
        app: answers.
        script: says which fault to play.
        journal: notes requests and answers.
        request_timeout: seconds that a request may take to arrive.
    """
    channel = _Channel(sock, request_timeout)
    try:
        channel.shake_hands()
        while not channel.closed:
            raw = channel.read_head()
            if raw is None:
                return
            _Exchange(channel, parse_head(raw), number, app, script, journal).run()
    except BadRequestError as error:
        _try_last_words(channel, encode_response(error.answer, app.clock(), keep_alive=False))
    except OSError:
        pass  # the peer left or was too slow, or the emulator stops: nobody is there to be told


def _try_last_words(channel: _Channel, data: bytes) -> None:
    try:
        channel.write(data)
        channel.drain()
    except OSError:
        pass  # the peer does not want to know


def parse_head(raw: bytes) -> Head:
    """
    Returns the request head in *raw*, the bytes before the blank line.

    Raises:
        BadRequestError: when it is none.
    """
    first, *lines = _text(raw).split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.0", "HTTP/1.1") or not _TOKEN.fullmatch(parts[0]):
        raise BadRequestError(400, "Not an HTTP request")
    method, target, version = parts
    headers = _parse_headers(lines)
    if "transfer-encoding" in headers:
        # No DIS SDK sends chunks.
        raise BadRequestError(411, "Content-Length is required")
    length = headers.get("content-length", "0")
    if not _CONTENT_LENGTH.fullmatch(length):
        raise BadRequestError(400, "Content-Length is not a number")
    options = headers.get("connection", "").lower()
    keep_alive = "close" not in options and version == "HTTP/1.1"
    return Head(method, _origin_form(target), headers, int(length), keep_alive)


def _parse_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequestError(400, "Not an HTTP header")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _origin_form(target: str) -> str:
    """Returns path and query of *target*, which a client that takes us for its proxy sends with scheme and host."""
    if target.startswith("/"):
        return target
    try:
        parts = urlsplit(target)
    except ValueError:
        raise BadRequestError(400, "Not a request target") from None
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _text(raw: bytes) -> str:
    """Returns header bytes as text: as UTF-8 when they are, because huaweicloudsdkcore signs and sends that."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def encode_response(response: Response, now: datetime, *, keep_alive: bool) -> bytes:
    """Returns the bytes of *response*, all of them together so that they leave in one segment if they fit."""
    headers: dict[str, str | None] = {
        "Content-Type": "application/json",
        "Content-Length": str(len(response.body)),
        "Date": format_datetime(now.astimezone(timezone.utc), usegmt=True),
        "X-Request-Id": None,
        "Connection": "keep-alive" if keep_alive else "close",
    }
    usual = {name.lower(): name for name in headers}
    headers.update((usual.get(name.lower(), name), value) for name, value in response.headers.items())
    if "x-request-id" not in {name.lower() for name in response.headers}:
        headers["X-Request-Id"] = new_request_id()
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    head = "\r\n".join((f"HTTP/1.1 {response.status} {_reason(response.status)}", *lines))
    return f"{head}\r\n\r\n".encode("utf-8", "backslashreplace") + response.body


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # DIS's own 441
        return "Unknown"


class _Exchange:
    """One request being served: what the faults' Protocol of this name describes."""

    def __init__(
        self, channel: _Channel, head: Head, connection: int, app: App, script: Script, journal: Journal
    ) -> None:
        self._channel = channel
        self._head = head
        self._app = app
        self._script = script
        self._journal = journal
        self._operation = app.operation(head)
        self._received = journal.arrived(head, connection, self._operation)
        self._body = bytearray()
        self._request: Request | None = None

    def run(self) -> None:
        if self._head.content_length > wire.MAX_BODY_BYTES:
            self._refuse_unread()
            return
        try:
            self._play()
        except BadRequestError as error:
            self._journal.answered(self._received, error.answer)
            raise
        # What a fault left unread would be taken for the next request.
        if not self._head.keep_alive or self._request is None:
            self.close()

    def _play(self) -> None:
        fault = Behave() if self._operation is None else self._script.next_fault(self._operation, self._look)
        fault.play(self)

    def read(self, fraction: float = 1.0) -> None:
        wanted = int(self._head.content_length * fraction)
        if wanted > len(self._body):
            self._invite_body()
            self._body += self._channel.read(wanted - len(self._body))
        if self._request is None and len(self._body) == self._head.content_length:
            self._request = Request(self._head, bytes(self._body))
            self._received = self._journal.completed(self._received, self._request)

    def answer(self, *rules: EntryRule) -> Response:
        request = self._whole_request()
        return self._app.respond(request, (*rules, *self._script.entry_rules(self._look)))

    def render(self, response: Response) -> bytes:
        self._journal.answered(self._received, response)
        return encode_response(response, self._app.clock(), keep_alive=self._head.keep_alive)

    def send(self, response: Response) -> None:
        self.write(self.render(response))

    def write(self, data: bytes) -> None:
        self._channel.write(data)

    def hold(self, seconds: float | None) -> None:
        self._channel.hold(seconds)

    def close(self) -> None:
        self._channel.close()

    def reset(self) -> None:
        self._channel.reset()

    def _look(self) -> ReceivedRequest:
        self.read()
        return self._received

    def _whole_request(self) -> Request:
        self.read()
        if self._request is None:
            raise AssertionError("a body that was read whole made no request")
        return self._request

    def _invite_body(self) -> None:
        if not self._body and self._head.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse_unread(self) -> None:
        response = self._app.respond(Request(self._head))
        self._journal.answered(self._received, response)
        self.write(encode_response(response, self._app.clock(), keep_alive=False))
        self._channel.drain()


class _Channel:
    """The bytes of one connection: bounded reads, whole writes, and the ways to end it."""

    def __init__(self, sock: socket.socket, request_timeout: float) -> None:
        self._sock = sock
        self._request_timeout = request_timeout
        self._deadline: float | None = None  # for the request that is arriving, on the monotonic clock
        self._buffer = bytearray()
        self.closed = False

    def shake_hands(self) -> None:
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.settimeout(_IO_TIMEOUT)
            self._sock.do_handshake()

    def read_head(self) -> bytes | None:
        """
        Returns the bytes before the next blank line, None when the peer sends no more.

        Raises:
            BadRequestError: when there is no blank line within reason, or in time.
        """
        self._deadline = time.monotonic() + self._request_timeout if self._buffer else None
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end > _MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > _MAX_HEAD_BYTES):
                raise BadRequestError(431, "Request head too large")
            if end >= 0:
                head = bytes(self._buffer[:end])
                del self._buffer[: end + 4]
                return head
            data = self._receive(65536)
            if not data:
                return None
            self._buffer += data

    def read(self, size: int) -> bytearray:
        """
        Returns exactly that many bytes.

        Raises:
            ConnectionError: when the peer ends before.
            BadRequestError: when they do not come in time.
        """
        data = self._buffer[:size]
        del self._buffer[:size]
        while len(data) < size:
            more = self._receive(min(size - len(data), 262144))
            if not more:
                raise ConnectionAbortedError("the peer left within a body")
            data += more
        return data

    def _receive(self, size: int) -> bytes:
        """Returns the next bytes of a request, of which the first may be waited for."""
        if self._deadline is None:
            self._sock.settimeout(_IDLE_TIMEOUT)
            data = self._sock.recv(size)
            self._deadline = time.monotonic() + self._request_timeout
            return data
        remaining = self._deadline - time.monotonic()
        try:
            if remaining > 0:
                self._sock.settimeout(remaining)
                return self._sock.recv(size)
        except TimeoutError:
            pass  # as if it had been over before
        raise BadRequestError(408, "The request took too long to arrive")

    def write(self, data: bytes) -> None:
        # For all of it together, not for each part that the peer takes.
        self._sock.settimeout(_IO_TIMEOUT)
        self._sock.sendall(data)

    def hold(self, seconds: float | None) -> None:
        """
        Waits that long, for ever with None.

        Reading is how it notices that the peer leaves, and stopping the emulator looks the same from here.

        Raises:
            ConnectionError: when the peer leaves, or sends a heap of bytes meanwhile.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return
            self._sock.settimeout(remaining)
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                return
            self._buffer += data
            if not data or len(self._buffer) > _MAX_HEAD_BYTES:
                raise ConnectionAbortedError("the peer left while it was kept waiting")

    def drain(self) -> None:
        """
        Ends the connection, but reads for a while what the peer still sends.

        Closing at once would reset the connection and so take the answer from the peer (RFC 9112, 9.6).
        """
        self.closed = True
        socket.socket.shutdown(self._sock, socket.SHUT_WR)
        deadline = time.monotonic() + _DRAIN_TIMEOUT
        left = _MAX_DRAIN_BYTES
        while left > 0 and (remaining := deadline - time.monotonic()) > 0:
            self._sock.settimeout(remaining)
            data = self._sock.recv(65536)
            if not data:
                return
            left -= len(data)

    def close(self) -> None:
        self.closed = True
        # Not close(): a forked child that has the same socket would keep the connection open.
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was first

    def reset(self) -> None:
        self.closed = True
        # Lingering for no time at all makes close() send a reset instead of a regular end (socket(7), SO_LINGER).
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER_FORMAT, 1, 0))
        self._sock.close()
