"""
A server made of bare sockets, for what lies below HTTP: broken bytes, broken connections, slow ones.

    with RawServer(lambda peer: peer.reset()) as server: ...

Each connection is served by a script, a plain function of the `Peer`, in a thread of its own: the first connection by the
first script, and so on; the last script serves all further ones.
"""

from __future__ import annotations

import itertools
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dis_logging.client.models import PutRecordsResult, PutRecordsResultEntry
from dis_logging.client.wire import decode_put_records, encode_put_records_result

# No script needs longer; a test that forgets to end one fails instead of hanging.
_LONGEST = 30.0


class Peer:
    """
    One accepted connection, as a script sees it.

    Every method may raise OSError when the client leaves or the server stops, which ends the script quietly.
    """

    def __init__(self, sock: socket.socket, server: RawServer) -> None:
        self.sock = sock
        self._server = server

    def read_head(self) -> bytes:
        """Reads and returns a request's head, up to and with the empty line; empty when the client has closed."""
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            if not byte:
                return b""
            head += byte
        self._server.heads.append(bytes(head))
        return bytes(head)

    def read_body(self, head: bytes, fraction: float = 1.0) -> bytes:
        """Reads and returns that part of the body which *head* announces."""
        size = int(int(_header(head, b"content-length") or 0) * fraction)
        body = bytearray()
        while len(body) < size:
            chunk = self.sock.recv(size - len(body))
            if not chunk:
                raise ConnectionError("the client closed within a body")
            body += chunk
        return bytes(body)

    def read_request(self) -> bytes:
        """Reads a whole request and returns its body; raises ConnectionError when the client has closed instead."""
        head = self.read_head()
        if not head:
            raise ConnectionError("the client closed")
        return self.read_body(head)

    def send(self, data: bytes) -> None:
        """Sends *data* as it is."""
        self.sock.sendall(data)

    def drip(self, data: bytes, interval: float = 0.05) -> None:
        """Sends *data* one byte at a time, *interval* seconds apart."""
        for byte in data:
            self.sock.sendall(bytes((byte,)))
            self.hold(interval)

    def hold(self, seconds: float = _LONGEST) -> None:
        """Waits; raises ConnectionError when the server stops meanwhile."""
        if self._server.stopping.wait(seconds):
            raise ConnectionError("the server stops")

    def wait_until_closed(self) -> None:
        """Waits until the client closes, ignoring what it sends."""
        while self.sock.recv(65536):
            pass

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Makes this a TLS connection."""
        sock = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self.sock = sock
        sock.do_handshake()

    def relay(self, port: int) -> None:
        """Passes bytes on to a port on this machine and back, until one side closes: what a proxy does after CONNECT."""
        with socket.create_connection(("127.0.0.1", port), timeout=_LONGEST) as other:
            while True:
                # Decrypted bytes that wait within TLS do not make a socket readable.
                waiting = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
                readable = [self.sock] if waiting else select.select([self.sock, other], [], [], _LONGEST)[0]
                for sock in readable:
                    data = sock.recv(65536)
                    if not data:
                        return
                    (other if sock is self.sock else self.sock).sendall(data)

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer], None]


class RawServer:
    """
    Listens on loopback and gives each connection to a script; a context manager.

    Args:
        scripts: the n-th connection gets the n-th, all further ones the last.
        tls: does the TLS handshake before the script; None for plain TCP.
        port: TCP port; 0 takes a free one.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.heads: list[bytes] = []  # of all requests whose head arrived, whatever the connection
        self.connections = 0
        self.stopping = threading.Event()
        self._scripts = scripts
        self._tls = tls
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        # Little room for what a script does not read, so that its client feels it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with suppress(OSError):  # wakes the accept
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_LONGEST)
        self._listener.close()
        for peer in self._peers:
            with suppress(OSError):  # wakes a recv
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_LONGEST)

    def _accept(self) -> None:
        for number in itertools.count():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(_LONGEST)
            peer = Peer(sock, self)
            self._peers.append(peer)
            self.connections += 1
            script = self._scripts[min(number, len(self._scripts) - 1)]
            thread = threading.Thread(target=self._serve, args=(peer, script), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer, script: Script) -> None:
        try:
            if self._tls is not None:
                peer.start_tls(self._tls)
            script(peer)
        except (OSError, ValueError):  # the client left, or the server stops; ValueError from a closed TLS socket
            pass
        finally:
            peer.sock.close()


# -- scripts and their parts ----------------------------------------------------------------------------------------


def answer(status: int = 200, body: bytes = b"", headers: str = "") -> bytes:
    """Returns the bytes of a proper answer; *headers* are lines that each end in CRLF."""
    return f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def stored(count: int = 1) -> bytes:
    """Returns the body of an answer that acknowledges *count* records, numbered from 0."""
    entries = tuple(PutRecordsResultEntry("shardId-0000000000", str(number)) for number in range(count))
    return encode_put_records_result(PutRecordsResult(0, entries))


def acknowledge(peer: Peer) -> None:
    """Acknowledges every record of every request on the connection, as a healthy service does."""
    while True:
        entries = decode_put_records(peer.read_request()).entries
        peer.send(answer(200, stored(len(entries))))


def reply_with(data: bytes, *then: Script) -> Script:
    """Returns a script that reads a request and sends *data*; what follows on the connection is up to *then*, or its end."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(data)
        for further in then:
            further(peer)

    return script


@contextmanager
def no_server() -> Iterator[int]:
    """Gives a port that refuses connections, held so that nobody else gets it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None
