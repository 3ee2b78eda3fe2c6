"""
One HTTP attempt over connections that `requests` has set up, from the first byte to the last within one deadline.

requests and urllib3 bound each socket operation, not the whole attempt, and hand out answers that are none. This module
adds what is missing: a deadline that holds for dripping replies and proxies too, bounded reply sizes before and after
decoding, no redirects, no cookies, and errors that say whether the request was sent. It never retries.
"""

from __future__ import annotations

import http.client
import io
import math
import os
import re
import socket
import ssl
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from queue import Empty, Full
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from dis_logging.client.resolver import resolve
from dis_logging.errors import DeliveryError, NotSentError, ProtocolError, ServiceError, UnknownOutcomeError
from dis_logging.escaping import escape
from dis_logging.greenlets import current_hub, is_alive, is_in_pool

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse  # not in urllib3 1.26

# An answer to 10,000 uploaded records is about 1.2 MB of JSON, so nothing honest comes near this.
MAX_REPLY_BYTES = 4 * 1024 * 1024
# What heads, chunk sizes and trailers may add to it.
_MAX_FRAME_BYTES = 1024 * 1024
# The answer to a common batch, at one go.
_READ_BYTES = 64 * 1024


class HTTPReply:
    """A complete answer: its status, its headers (names as `requests` gives them) and its decoded body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Route:
    """
    How requests travel.

    Args:
        proxy: URL of the proxy, None when they go straight; not shown, as it may hold a password.
        verify: what TLS is verified with, as in requests: True, False, or the path of a CA bundle or directory.
    """

    __slots__ = ("proxy", "verify")

    def __init__(self, proxy: str | None, verify: bool | str) -> None:
        self.proxy = proxy
        self.verify = verify

    def __repr__(self) -> str:
        return f"Route({'through a proxy' if self.proxy else 'direct'}, verify={self.verify!r})"


class Patience:
    """
    What a thread does while an answer keeps it waiting.

    Args:
        seconds: how long it waits before the first `look`, and between two of them.
        look: quick, as the answer may come meanwhile.
    """

    __slots__ = ("look", "seconds")

    def __init__(self, seconds: float, look: Callable[[], object]) -> None:
        self.seconds = seconds
        self.look = look


ENDLESS_PATIENCE = Patience(math.inf, lambda: None)


class _Attempt:
    """
    What the connections below must know of the attempt that uses them.

    Args:
        timeout: seconds for all of it.
        max_reply_bytes: the longest body to take.
        patience: what to do when the answer is slow to come.
    """

    __slots__ = ("deadline", "look_at", "max_reply_bytes", "patience", "sent")

    def __init__(self, timeout: float, max_reply_bytes: int, patience: Patience) -> None:
        now = time.monotonic()
        self.deadline = now + timeout
        self.max_reply_bytes = max_reply_bytes
        self.patience = patience
        self.look_at = now + patience.seconds
        self.sent = False

    def remaining(self) -> float:
        """Returns the seconds left, raising TimeoutError when there are none."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the attempt ran out of time")
        return seconds

    def wait_patiently(self, sock: Any, operation: Callable[[], int | bytes]) -> Any:
        """Returns what *operation* of *sock* does before the deadline, and looks around whenever it is time to."""
        while True:
            if time.monotonic() >= self.look_at:
                self.patience.look()
                self.look_at = time.monotonic() + self.patience.seconds
            remaining = self.remaining()
            sock.settimeout(min(remaining, max(0.001, self.look_at - time.monotonic())))
            try:
                return operation()
            except TimeoutError:  # of the attempt, or only of our patience
                pass


# An attempt runs in one thread from start to end, so this carries it past requests and urllib3, which have no place for it.
# Unlike a thread-local it also holds for the threads of gevent, whenever that comes in, and for an attempt that a signal
# handler makes within another.
_current: ContextVar[_Attempt] = ContextVar("_current")
_NO_ATTEMPT = _Attempt(0.0, MAX_REPLY_BYTES, ENDLESS_PATIENCE)


def _attempt() -> _Attempt:
    return _current.get(_NO_ATTEMPT)


class HTTPTransport:
    """
    Sends requests one attempt at a time, over connections that stay open between them.

    The environment (proxies, CA bundle) and the TLS settings are requests' business, but only once for each process: the
    requests themselves go straight to the connection pool that requests has set up, as preparing each of them
    and wrapping its answer took more time than the rest of a batch together.

    Safe to use from several threads: each attempt takes a connection of its own. After a fork the child opens its own
    connections and leaves the parent's untouched; so does each thread that has a hub of gevent's.

    Args:
        verify: as in requests: True, False, or the path of a CA bundle or directory.
        proxies: as in requests: scheme to proxy URL; None leaves it to the environment.
    """

    def __init__(self, *, verify: bool | str = True, proxies: Mapping[str, str] | None = None) -> None:
        self._verify = verify
        self._proxies = _Proxies(proxies or {})
        self._ways: dict[Any, _Ways] = {}  # by the hub of gevent that their connections wait in; None without it

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        auth: AuthBase,
        timeout: float,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        patience: Patience = ENDLESS_PATIENCE,
    ) -> HTTPReply:
        """
        Sends one request and returns its complete answer, whatever the status from 200 on.

        Args:
            url: as it goes on the wire, quoted.
            auth: adds its headers to a `requests.PreparedRequest`.
            timeout: seconds for the whole attempt, connecting and reading included.
            max_reply_bytes: the longest body to take, before and after decoding.
            patience: what to do when the answer is slow to come.

        Raises:
            NotSentError: no connection came about; nothing was sent.
            UnknownOutcomeError: the request was sent, at least in part, but no complete answer came in time.
            ProtocolError: what came back is no final HTTP answer.
            ServiceError: a proxy refused to connect (status 407 and its kin).
        """
        before = _current.set(_Attempt(timeout, max_reply_bytes, patience))
        handled = sys.exc_info()[1]  # by who calls; Python makes it the context of what is raised here
        # Raised outside the except block: foreign exceptions and their frames hold headers and proxy URLs, and
        # neither may travel with ours.
        try:
            return self._exchange(method, url, headers, body, auth)
        except BaseException as error:
            failure = _translate(error, handled)
            _forget_frames(error, handled)
        finally:
            _current.reset(before)
        failure.__context__ = failure.__cause__ = None
        try:
            raise failure
        finally:
            del failure  # else its traceback and this frame would keep each other alive, and the body

    def route(self, url: str) -> Route:
        """Returns how a request to *url* would travel, by the options and the environment; connects to nothing."""
        verify, proxies = self._current_ways().settings(url)
        return Route(select_proxy(url, proxies), verify)

    def close(self) -> None:
        """Closes the idle connections; a later `send` opens new ones."""
        for hub, ways in list(self._ways.items()):
            self._ways.pop(hub, None)
            if hub is None or hub is current_hub() or ways.are_inherited:
                ways.close()
            elif is_alive(hub):
                hub.loop.run_callback_threadsafe(ways.close)  # no other thread may

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes, auth: AuthBase) -> HTTPReply:
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, url, body
        request.headers = {**headers, "Accept-Encoding": "identity"}  # type: ignore[assignment] # order and case as given
        auth(request)
        ways = self._current_ways()
        try:
            reply = self._exchange_over(ways, request)
        finally:
            if ways.are_for_once:
                ways.close()
        reply.body = _without_tokens(reply.body, request.headers)
        return reply

    def _exchange_over(self, ways: _Ways, request: requests.PreparedRequest) -> HTTPReply:
        pool, target = ways.to(str(request.url))
        # One retry layer is enough, and redirects are not followed.
        response = pool.urlopen(
            str(request.method),
            target,
            body=request.body,
            headers=request.headers,
            retries=_NO_RETRIES,
            redirect=False,
            assert_same_host=False,
            timeout=_attempt().remaining(),
            preload_content=False,
            decode_content=False,
        )
        try:
            return self._receive(response)
        except Exception:
            if response.status < 300:
                raise
            # What refuses says enough by its status; that its text cannot be read makes it no acknowledgement.
            return HTTPReply(response.status, response.headers, b"")

    @staticmethod
    def _receive(response: BaseHTTPResponse) -> HTTPReply:
        """Reads the whole answer; its connection is kept for the next request only if that went well."""
        complete = False
        try:
            if response.status < 200:
                # http.client takes a 103 for the answer; the real one would be read as the answer to the next request.
                raise ProtocolError(f"the answer is an interim HTTP {response.status}", status=response.status)
            raw = _read_bounded(response)
            complete = True
        finally:
            if not complete:
                response.close()
        body = _decode(raw, response.headers, response.status)
        return HTTPReply(response.status, response.headers, body)

    def _current_ways(self) -> _Ways:
        hub = current_hub()
        ways = self._ways.get(hub)
        if ways is None and hub is not None and not hub.main_hub:
            # Made before gevent came: they wait in the system, and so hold up nobody but this thread.
            ways = self._ways.get(None)
        if ways is not None and not ways.are_inherited:
            return ways
        if hub is not None and is_in_pool():
            return _Ways(self._verify, self._proxies, are_for_once=True)
        for other in list(self._ways):
            if other is not None and not is_alive(other):
                self._ways.pop(other, None)
        ways = self._ways[hub] = _Ways(self._verify, self._proxies)
        return ways


class _Ways:
    """
    The ways to the hosts that requests are sent to: for each a pool of connections, direct or through a proxy.

    Args:
        verify, proxies: as in requests; what they leave open, the environment decides.
        are_for_once: the connections are not kept, as the thread that they belong to may end with its hub.
    """

    def __init__(self, verify: bool | str, proxies: _Proxies, *, are_for_once: bool = False) -> None:
        self.are_for_once = are_for_once
        self._pid = os.getpid()
        self._verify = verify
        self._proxies = proxies
        # As many connections are kept as the handler's max_in_flight may be: urllib3 warns about each one beyond.
        self._adapter = _Adapter(max_retries=0, pool_connections=4, pool_maxsize=64)
        self._pools = _Pools()  # by origin, each with whether it wants whole URLs

    def to(self, url: str) -> tuple[HTTPConnectionPool, str]:
        """Returns the pool whose connections lead to *url*, and what to ask them for."""
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        origin = f"{scheme}://{host}"
        if origin not in self._pools:
            self._pools[origin] = self._find(origin)
        pool, wants_whole_url = self._pools[origin]
        return pool, url if wants_whole_url else f"/{path}"

    def _find(self, origin: str) -> tuple[HTTPConnectionPool, bool]:
        request = requests.Request("GET", origin).prepare()
        verify, proxies = self.settings(origin)
        pool: Any = self._adapter.get_connection_with_tls_context(request, verify, proxies)
        self._adapter.cert_verify(pool, origin, verify, None)  # type: ignore[no-untyped-call] # in types-requests
        return pool, self._adapter.request_url(request, proxies).startswith("http")

    def settings(self, origin: str) -> tuple[bool | str, dict[str, str]]:
        """Returns what TLS is verified with, and the proxies, for requests to *origin*."""
        # Not set on a session: there, environment variables would replace them.
        settings = requests.Session().merge_environment_settings(origin, self._proxies.copy(), True, self._verify, None)
        verify = settings["verify"]
        return True if verify is None else verify, dict(settings["proxies"])

    @property
    def are_inherited(self) -> bool:
        """Whether another process made the connections."""
        return self._pid != os.getpid()

    def close(self) -> None:
        """Closes the idle connections, if they are this process's own."""
        if self.are_inherited:
            self._leave_to_parent()
        else:
            self._adapter.close()

    def _leave_to_parent(self) -> None:
        """
        Gives back the descriptors of the idle connections, in a child; says nothing to the other side.

        The connections themselves are kept: they are shared with the parent, and closing or collecting them here could wait
        for a lock that a thread of the parent held at the fork.
        """
        _inherited.append(self)
        for pool, _ in self._pools.values():
            for connection in pool.pool if isinstance(pool.pool, _IdleConnections) else ():
                if isinstance(connection, HTTPConnection) and isinstance(connection.sock, _DeadlineSocket):
                    connection.sock.give_back()

    def __del__(self) -> None:
        # A client that is only thrown away, in a child. A daemon may have other files under those descriptors.
        try:
            if self.are_inherited:
                self._leave_to_parent()
        except Exception:  # noqa: S110 - at the very end of the interpreter nothing is left of this module
            pass


_NO_RETRIES = urllib3.Retry(False)
_inherited: list[_Ways] = []


class _Proxies(dict[str, str]):
    """Proxy settings; their URLs may hold a password, so they are not shown."""

    def __repr__(self) -> str:
        return f"<proxies for {', '.join(sorted(self)) or 'nothing'}>"

    def copy(self) -> _Proxies:
        return _Proxies(self)


class _Pools(dict[str, Any]):
    """Pools of connections, or managers of such: they know the URLs of proxies, which may hold a password."""

    def __repr__(self) -> str:
        return f"<{len(self)} pools>"


def _read_bounded(raw: Any) -> bytes:
    raw.enforce_content_length = True  # the default since urllib3 2 only
    chunks: list[bytes] = []
    size = 0
    while chunk := raw.read(65536, decode_content=False):
        size += len(chunk)
        if size > _attempt().max_reply_bytes:
            raise ProtocolError(f"the answer is longer than {_attempt().max_reply_bytes} bytes")
        chunks.append(chunk)
        if raw.length_remaining == 0:  # there would be nothing more, and to hear that takes as long as all of it
            break
    return b"".join(chunks)


def _without_tokens(body: bytes, sent: Mapping[str, str]) -> bytes:
    """Returns *body* without the tokens that were sent, should it quote them: its texts end up in errors and logs."""
    for name in ("X-Security-Token", "X-Auth-Token"):
        token = sent.get(name)
        if token:
            body = body.replace(token.encode(), b"*" * len(token))  # as long as before: protobuf counts
    return body


def _decode(body: bytes, headers: Mapping[str, str], status: int) -> bytes:
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ProtocolError(f"the answer has an unknown encoding: {escape(encoding, 40)}", status=status)
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: a gzip or zlib header, whichever is there
    try:
        decoded = inflater.decompress(body, _attempt().max_reply_bytes)
    except zlib.error:
        raise ProtocolError(f"the answer is not valid {encoding}", status=status) from None
    if inflater.unconsumed_tail or not inflater.eof:
        raise ProtocolError(f"the answer's {encoding} body is truncated or too long", status=status)
    return decoded


def _translate(error: BaseException, handled: BaseException | None) -> BaseException:
    """
    Returns our error for a foreign one; ours, and Ctrl-C, as they are.

    Whether the request was sent is known from the connection itself, not guessed from the exception's class. The
    foreign text is shown only where it cannot hold a header or a URL: in errors of the operating system and of TLS.
    """
    if isinstance(error, DeliveryError) or not isinstance(error, Exception):
        return error
    # All others are foreign: a TypeError too, for a proxy's URL without a host.
    chain = list(_chain(error, handled))
    refusal = next((match for link in chain if (match := re.search(_TUNNEL_REFUSED, str(link)))), None)
    if refusal and not _attempt().sent:
        return ServiceError(int(refusal["status"]), message="the proxy refused to connect")
    # requests' own errors are OSErrors too, and say less than what they wrap.
    from_system = (link for link in reversed(chain) if isinstance(link, OSError))
    from_system = (link for link in from_system if not isinstance(link, requests.RequestException))
    from_http = next((link for link in chain if isinstance(link, http.client.HTTPException)), chain[-1])
    kind = type(from_http).__name__
    reason = next(map(_reason, from_system), f"{kind} ({_PROXY_TO_MEND})" if kind in _OF_PROXIES else kind)
    if not _attempt().sent:
        return NotSentError(f"no connection to DIS: {reason}")
    if any(isinstance(link, TimeoutError | urllib3.exceptions.TimeoutError) for link in chain):
        return UnknownOutcomeError("DIS did not answer in time", timed_out=True)
    if any(isinstance(link, ConnectionError | urllib3.exceptions.SSLError | ssl.SSLError) for link in chain):
        return UnknownOutcomeError(f"the connection to DIS broke before the answer was complete: {reason}")
    return ProtocolError(f"the answer is not valid HTTP: {reason}")


# What requests and urllib3 raise for the URL of a proxy that they cannot use, or lack a library for, as with SOCKS.
_OF_PROXIES = frozenset({"InvalidProxyURL", "InvalidSchema", "LocationParseError", "ProxySchemeUnknown"})
_PROXY_TO_MEND = "the proxy of HTTPS_PROXY, or of the option proxies, cannot be used"
_TUNNEL_REFUSED = r"Tunnel connection failed: (?P<status>[1-5]\d\d)"


def _chain(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    """Yields *error* and everything it was raised from or wraps, outermost first, up to what was *handled* before."""
    seen = {id(None), id(handled)}
    queue: deque[Any] = deque([error])
    while queue:
        link = queue.popleft()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        queue.extend((link.__cause__, link.__context__))
        queue.extend(value for value in (getattr(link, "reason", None), *link.args) if isinstance(value, Exception))


def _forget_frames(error: BaseException, handled: BaseException | None) -> None:
    """
    Cuts *error*, and all that it wraps, from the frames that it came through.

    urllib3 keeps an error in a frame that its traceback refers to. Only the garbage collector would find such a circle,
    which may be long in coming, and the bodies in it are megabytes.
    """
    for link in _chain(error, handled):
        link.__traceback__ = None


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return escape(f"certificate refused: {error.verify_message}", 200)
    if isinstance(error, ssl.SSLError):
        return escape(f"TLS failed: {error.reason or type(error).__name__}", 200)
    if isinstance(error, TimeoutError):
        return "timed out"
    return escape(error.strerror or type(error).__name__, 200)


# -- connections that know the deadline -----------------------------------------------------------------------------


class _DeadlineSocket:
    """
    A connected socket whose every operation ends by the attempt's deadline.

    Stands in for a plain or a TLS socket; what is not listed here passes through.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._held: list[Any] | None = None
        self._identity = _identity_of(sock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    @contextmanager
    def in_one_piece(self) -> Iterator[None]:
        """Keeps what is sent until the context ends well, and sends it together."""
        self._held = []
        try:
            yield
            held, self._held = self._held, None
            self._send_together(held)
        finally:
            self._held = None

    def give_back(self) -> None:
        """Closes the descriptor and nothing else: the connection goes on if another process has it too."""
        identity = _identity_of(self._sock)
        if identity is None:
            return
        descriptor = self._sock.detach()
        # A daemon closes all that it inherits, and may have opened something of its own under the same number.
        if identity == self._identity:
            os.close(descriptor)

    def settimeout(self, timeout: float | None) -> None:
        """Ignores urllib3's timeouts for single operations: the deadline rules."""

    def gettimeout(self) -> float:
        """Returns what is left of the attempt; a TLS handshake on top of this socket takes it over."""
        # Never 0, which means "do not wait", and no exception, which would leave two sockets with one descriptor.
        return max(0.001, _attempt().deadline - time.monotonic())

    def sendall(self, data: Any, *flags: int) -> None:
        if self._held is not None:
            self._held.append(data)
            return
        left = memoryview(data)
        while left:
            left = left[_attempt().wait_patiently(self._sock, lambda left=left: self._sock.send(left, *flags)) :]  # type: ignore[misc]

    def _send_together(self, pieces: list[Any]) -> None:
        if type(self._sock) is not socket.socket or not hasattr(self._sock, "sendmsg"):
            # TLS makes a packet of each piece, and Windows has no such call.
            self.sendall(b"".join(pieces))
            return
        sent = self._send_at_once(pieces)
        for piece in pieces:
            if sent < len(piece):
                self.sendall(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))

    def _send_at_once(self, pieces: list[Any]) -> int:
        """
        Returns how many bytes the system takes without waiting.

        Nearly always all: asking it first whether it would take any is one more call, and after each of them this thread waits
        for its turn behind those of the application. Joining the pieces would copy the body once more.
        """
        self._sock.settimeout(0)
        try:
            sent: int = self._sock.sendmsg(pieces)
        except BlockingIOError:
            return 0
        return sent

    def recv(self, size: int) -> bytes:
        data: bytes = _attempt().wait_patiently(self._sock, lambda: self._sock.recv(size))
        return data

    def makefile(self, mode: str = "rb", buffering: int = -1, **_options: Any) -> io.BufferedReader:  # noqa: ARG002
        return io.BufferedReader(_DeadlineReader(self._sock), _READ_BYTES)

    @property
    def _io_refs(self) -> int:
        # urllib3's TLS within TLS counts its readers here, so that closing waits for them.
        return int(self._sock._io_refs)  # noqa: SLF001

    @_io_refs.setter
    def _io_refs(self, count: int) -> None:
        self._sock._io_refs = count  # noqa: SLF001


def _identity_of(sock: Any) -> tuple[int, int] | None:
    """Returns what tells the socket behind a descriptor from others; None where there is none, as with TLS within TLS."""
    if not isinstance(sock, socket.socket):
        return None
    try:
        status = os.fstat(sock.fileno())
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _DeadlineReader(io.RawIOBase):
    """Reads one answer from a socket; each read gets what is left of the attempt's time."""

    _raw: Any = None  # whose making Ctrl-C may end

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._size = 0
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until this reader is closed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = _attempt().wait_patiently(self._sock, lambda: self._sock.recv_into(buffer))
        # Interim answers, trailers and a chunk of -1 bytes know no end in http.client.
        self._size += count
        if self._size > _attempt().max_reply_bytes + _MAX_FRAME_BYTES:
            raise ProtocolError(f"the answer is longer than {_attempt().max_reply_bytes} bytes")
        return count

    def close(self) -> None:
        if not self.closed and self._raw is not None:
            self._raw.close()
        super().close()


def _connect(host: str, port: int, options: Any) -> socket.socket:
    """Returns a socket connected to the first address of *host* that answers; all of them share the deadline."""
    failure: OSError | None = None
    addresses = resolve(host, port, _attempt().remaining())
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            # A share for each that is left: the first, often of IPv6, may lead nowhere.
            share = _attempt().remaining() / (len(addresses) - number)
            return _connect_to(address, socket.socket(family, kind, protocol), options, share)
        except OSError as error:
            failure = error
    raise failure or OSError(f"no address for {host}")


def _connect_to(address: Any, sock: socket.socket, options: Any, timeout: float) -> socket.socket:
    try:
        for option in options or ():
            sock.setsockopt(*option)
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _in_one_piece(sock: Any) -> AbstractContextManager[None]:
    return sock.in_one_piece() if isinstance(sock, _DeadlineSocket) else nullcontext()  # SOCKS has its own


class _DeadlineConnection(HTTPConnection):
    def _new_conn(self) -> Any:
        # The wrapper is there from the start, so that a proxy's answer to CONNECT cannot drip past the deadline.
        return _DeadlineSocket(_connect(self._dns_host, self.port or 80, self.socket_options))

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        _attempt().sent = True
        with _in_one_piece(self.sock):
            super().request(*args, **kwargs)


class _DeadlineHTTPSConnection(HTTPSConnection):
    def _new_conn(self) -> Any:
        return _DeadlineSocket(_connect(self._dns_host, self.port or 443, self.socket_options))

    def connect(self) -> None:
        super().connect()
        if not isinstance(self.sock, _DeadlineSocket):  # TLS has put its own socket around ours
            self.sock = _DeadlineSocket(self.sock)

    def _connect_tls_proxy(self, *args: Any, **kwargs: Any) -> Any:
        return _DeadlineSocket(super()._connect_tls_proxy(*args, **kwargs))

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        _attempt().sent = True
        with _in_one_piece(self.sock):
            super().request(*args, **kwargs)


class _IdleConnections:
    """
    The idle connections of one host, last in, first out.

    Stands in for `queue.LifoQueue`, whose lock a fork can leave locked for ever in the child; a deque has none.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._connections: deque[Any] = deque()
        self._maxsize = maxsize

    def put(self, connection: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002
        if self._maxsize and len(self._connections) >= self._maxsize:
            raise Full
        self._connections.append(connection)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002
        try:
            return self._connections.pop()
        except IndexError:
            raise Empty from None

    def qsize(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(self._connections))


class _DeadlinePool(HTTPConnectionPool):
    ConnectionCls = _DeadlineConnection
    QueueCls = _IdleConnections  # type: ignore[assignment] # has what urllib3 calls


class _DeadlineHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _DeadlineHTTPSConnection
    QueueCls = _IdleConnections  # type: ignore[assignment] # has what urllib3 calls

    def _validate_conn(self, conn: Any) -> None:
        # urllib3 also warns of every connection that is not verified. verify=False was somebody's choice, and where
        # warnings are errors nothing would ever be sent.
        if conn.sock is None:
            conn.connect()


class _Adapter(HTTPAdapter):
    """An adapter whose pools, direct and through proxies, make the connections above."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        self.proxy_manager = _Pools()
        super().init_poolmanager(*args, **kwargs)
        _use_our_pools(self.poolmanager)

    def close(self) -> None:
        # urllib3 leaves this to weakref.finalize, which does nothing any more while the interpreter exits.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not str(proxy).lower().startswith("socks"):  # SOCKS brings its own connections
            _use_our_pools(manager)
        return manager


def _use_our_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": _DeadlinePool, "https": _DeadlineHTTPSPool}
