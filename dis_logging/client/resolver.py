"""
Finds the addresses of a host within a time limit, which `socket.getaddrinfo` does not have.

The system's resolver is patient with a name server that hangs, for half a minute and more, and would hold up an attempt, or
whoever closes a handler, for as long. So the question is asked in a daemon thread, which is left to itself when the answer
is late. Whoever asks for the same host meanwhile waits for that answer too: threads do not pile up while a name server is
down, and an answer that takes longer than one attempt still serves the next.

In place of gevent's it is the system's own question, in a thread of the system: gevent asks in its thread pool, whose threads
may all be waiting for room in the buffer, and which starts none any more at the end.

Nothing is remembered once it is answered, as the addresses of a service change when it fails over.
"""

from __future__ import annotations

import copy
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from dis_logging.bell import Bell
from dis_logging.errors import NotSentError
from dis_logging.escaping import escape
from dis_logging.greenlets import native_getaddrinfo, start_native_thread

#: As `socket.getaddrinfo` gives them: family, type, protocol, canonical name, address.
Addresses: TypeAlias = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]


def resolve(host: str, port: int, timeout: float) -> Addresses:
    """
    Returns the addresses to connect to, the best one first.

    May be called from any thread, from signal handlers too: it takes no lock. A child process starts afresh, whatever its
    parent was waiting for at the fork.

    Where no thread can be had (the system's limit is reached; since Python 3.12 the interpreter is ending) it asks in the
    calling thread, and *timeout* does not hold.

    Args:
        host: a name, or an address, which needs neither a name server nor a thread.
        timeout: seconds to wait for the answer.

    Raises:
        NotSentError: there was no answer in time.
        OSError, UnicodeError: as `socket.getaddrinfo` raises them.
    """
    if _is_address(host):
        return _ask(native_getaddrinfo() or socket.getaddrinfo, host, port)
    key = (os.getpid(), host, port)
    mine = _Lookup(key)
    lookup = _pending.setdefault(key, mine)
    if lookup is mine:
        lookup.start()
    if not lookup.wait(timeout):
        limit = f"{round(timeout, 1):g} s"
        raise NotSentError(f"no connection to DIS: the name {escape(host, 100)} was not resolved within {limit}")
    return lookup.result()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _ask(ask: Callable[..., Any], host: str, port: int) -> Addresses:
    addresses: Addresses = ask(host, port, 0, socket.SOCK_STREAM)
    return addresses


_Key: TypeAlias = tuple[int, str, int]  # of the process too, as a fork copies no thread


class _Lookup:
    """One question, asked once, and those who wait for its answer."""

    def __init__(self, key: _Key) -> None:
        self._key = key
        self._has_begun = False
        self._is_done = False
        self._addresses: Addresses = ()
        self._error: Exception | None = None
        self._waiting: list[Bell] = []

    def start(self) -> None:
        """Asks in a thread of its own."""
        native = native_getaddrinfo()
        ask = native or socket.getaddrinfo
        try:
            if native is not None:
                start_native_thread(lambda: self._run(ask))
            else:
                threading.Thread(target=self._run, args=(ask,), name="dis_logging-resolver", daemon=True).start()
        except RuntimeError:
            self._run(ask)

    def wait(self, timeout: float) -> bool:
        """Returns whether there is an answer, having waited *timeout* seconds for it at most."""
        answered = Bell()  # one for each who waits: a signal handler may wait as well
        self._waiting.append(answered)
        try:
            if not (self._is_done or answered.wait(timeout) or self._has_begun):
                self._forget()  # Ctrl-C came before the thread; the next attempt must not wait for it again
        finally:
            self._waiting.remove(answered)
        return self._is_done

    def result(self) -> Addresses:
        """Returns the answer, or raises it."""
        if self._error is not None:
            raise copy.copy(self._error)  # several threads raise it, each with a traceback of its own
        return self._addresses

    def _run(self, ask: Callable[..., Any]) -> None:
        self._has_begun = True
        _, host, port = self._key
        try:
            self._addresses = _ask(ask, host, port)
        except Exception as error:
            self._error = error.with_traceback(None)
        finally:
            self._forget()
            self._is_done = True
            for answered in tuple(self._waiting):
                answered.ring()

    def _forget(self) -> None:
        if _pending.get(self._key) is self:
            _pending.pop(self._key, None)


# Questions without an answer yet. Single operations of a dict are atomic; a lock could be held at a fork.
_pending: dict[_Key, _Lookup] = {}
