"""Binding and life cycle: one listening socket on loopback, one thread for each connection, all gone after `close`."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

# What close() grants the threads to notice that their sockets are shut; only a test's own function can take so long.
_JOIN_TIMEOUT = 5.0


class Server:
    """
    Listens from construction until `close`, which must be called.

    It binds in the caller's thread: a port that is taken raises here, and clients may connect as soon as it is made.
    `close` and `drop_connections` may be called from any thread but those of the connections.

    Args:
        host: address to bind.
        port: TCP port, 0 for any free one.
        tls: to serve TLS.
        serve: serves one connection in its own thread, given the socket and the connection's number.
        numbers: where connections get their numbers from.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        serve: Callable[[socket.socket, int], None],
        numbers: Iterable[int],
    ) -> None:
        self._tls = tls
        self._serve = serve
        self._numbers = iter(numbers)
        self._owner = os.getpid()
        self._lock = threading.Lock()  # guards the list below
        self._connections: list[_Connection] = []
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        # Closing a socket does not wake a thread that waits for it; a byte through this pair does, on every system.
        self._wake, self._woken = socket.socketpair()
        self._maker = threading.get_native_id()
        self._acceptor = threading.Thread(target=self._accept_all, name=f"dis-emulator-{self.port}", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Ends everything at once, hanging connections included."""
        if os.getpid() != self._owner:
            self._forget()
            return
        self._wake.send(b"\0")
        self._acceptor.join(_JOIN_TIMEOUT)
        # A forked child may hold the same socket open; this stops it for the child as well, and frees the port.
        _shut(self._listener)
        self._listener.close()
        self._wake.close()
        self._woken.close()
        self.drop_connections()
        for connection in self._connections:
            connection.thread.join(_JOIN_TIMEOUT)

    def drop_connections(self) -> None:
        """Ends all open connections in the regular way, as an idle timeout would; new ones are welcome."""
        with self._lock:
            connections = tuple(self._connections)
        for connection in connections:
            _shut(connection.sock)

    def _forget(self) -> None:
        """In a forked child: gives back the descriptors and leaves the parent's connections alone."""
        for sock in (self._listener, self._wake, self._woken, *(each.sock for each in self._connections)):
            sock.close()

    def _accept_all(self) -> None:
        if hasattr(signal, "pthread_sigmask") and threading.get_native_id() != self._maker:
            # Here, and in the threads that this one starts. One that took a signal would wake no main thread that waits for
            # a child, say, and its handler would not run. With gevent all of them are the maker's own thread.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is self._listener for key, _ in selector.select()):
                self._accept()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # gone before we looked
        try:
            self._start(self._prepare(sock))
        except (OSError, RuntimeError):
            sock.close()  # likewise, or the process can have no more threads

    def _prepare(self, sock: socket.socket) -> socket.socket:
        sock.setblocking(True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return sock
        # The handshake is for the connection's own thread: a silent peer must not keep others out.
        return self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _start(self, sock: socket.socket) -> None:
        number = next(self._numbers)
        thread = threading.Thread(
            target=self._run, args=(sock, number), name=f"dis-emulator-{self.port}-{number}", daemon=True
        )
        with self._lock:
            self._connections = [each for each in self._connections if each.thread.is_alive()]
            # Under the lock, so that who has an answer on this connection finds it in the list.
            thread.start()
            self._connections.append(_Connection(sock, thread))

    def _run(self, sock: socket.socket, number: int) -> None:
        with sock:
            self._serve(sock, number)
            # A forked child may hold the socket too, and closing our copy would then tell the peer nothing.
            _shut(sock)


class _Connection(NamedTuple):
    sock: socket.socket
    thread: threading.Thread


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # Lets the emulator come back on its port; on Windows the option means sharing the port with anybody.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        # A client may be gone between select and accept, and accept would then wait for the next.
        listener.setblocking(False)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise OSError(
                error.errno, f"port {port} of {host} is in use; take another one, or 0 for any free one"
            ) from None
        raise
    return listener


def _shut(sock: socket.socket) -> None:
    try:
        # Not SSLSocket.shutdown: it takes the TLS state away from under the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # not connected any more
