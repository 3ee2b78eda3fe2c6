"""
The time limit of a name's resolution, with a name server that hangs until it is told to answer.

What is replaced is the system's `getaddrinfo`: a name server of one's own would take the rights to configure the machine.
"""

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dis_logging import NotSentError
from dis_logging.client.resolver import resolve

HOST = "dis.example.com"
FOUND = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", 443))]
SHORT = 0.05
LONG = 20.0


class NameServer:
    """Stands in for `getaddrinfo`: answers once `answering` is set, with `FOUND` or by raising `error`."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.error: Exception | None = None
        self.asked: list[tuple[str, int]] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, host: str, port: int, *_: object) -> list[Any]:
        self.asked.append((host, port))
        self.threads.append(threading.current_thread())
        self.answering.wait(60)
        if self.error is not None:
            raise self.error
        return FOUND

    def answer_at_last(self) -> None:
        """Answers, and waits until that has got about."""
        self.answering.set()
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """A name server that hangs."""
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server)
    yield server
    server.answer_at_last()


def resolve_in_thread(results: list[object], count: int = 1) -> list[threading.Thread]:
    """Starts threads that resolve the host, and waits until all of them are in the middle of it."""
    ready = threading.Semaphore(0)

    def run() -> None:
        def trace(frame: Any, *_: object) -> None:
            if frame.f_code.co_name == "wait" and "resolver" in frame.f_code.co_filename:
                ready.release()

        sys.setprofile(trace)
        try:
            results.append(resolve(HOST, 443, LONG))
        except Exception as error:
            results.append(error)
        finally:
            sys.setprofile(None)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
        assert ready.acquire(timeout=LONG)
    return threads


def test_a_name_that_is_not_resolved_in_time_sent_nothing_and_is_named(names: NameServer) -> None:
    with pytest.raises(NotSentError) as raised:
        resolve(HOST, 443, 0.2)

    assert str(raised.value) == "no connection to DIS: the name dis.example.com was not resolved within 0.2 s"


def test_an_answer_in_time_is_returned(names: NameServer) -> None:
    names.answering.set()

    assert resolve(HOST, 443, LONG) == FOUND


def test_while_an_answer_is_awaited_nobody_asks_again(names: NameServer) -> None:
    for _ in range(5):
        with pytest.raises(NotSentError):
            resolve(HOST, 443, SHORT)

    assert names.asked == [(HOST, 443)]


def test_an_answer_that_is_late_for_one_is_in_time_for_the_next(names: NameServer) -> None:
    results: list[object] = []
    with pytest.raises(NotSentError):
        resolve(HOST, 443, SHORT)
    threads = resolve_in_thread(results, 3)
    names.answering.set()
    for thread in threads:
        thread.join()

    assert results == [FOUND] * 3
    assert len(names.asked) == 1


def test_an_answer_is_not_remembered(names: NameServer) -> None:
    names.answering.set()
    for _ in range(3):
        resolve(HOST, 443, LONG)

    assert len(names.asked) == 3


@pytest.mark.parametrize("host", ["other.example.com", "dis.example.com."])
def test_another_host_does_not_wait_for_the_first(names: NameServer, host: str) -> None:
    with pytest.raises(NotSentError):
        resolve(HOST, 443, SHORT)
    with pytest.raises(NotSentError, match=host):
        resolve(host, 443, SHORT)

    assert names.asked == [(HOST, 443), (host, 443)]


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), UnicodeError("label too long")]
)
def test_an_error_reaches_everybody_who_waits_each_with_one_of_its_own(names: NameServer, error: Exception) -> None:
    results: list[Any] = []
    names.error = error
    threads = resolve_in_thread(results, 2)
    names.answering.set()
    for thread in threads:
        thread.join()

    assert [type(result) for result in results] == [type(error)] * 2
    assert [str(result) for result in results] == [str(error)] * 2
    assert len({id(result) for result in results}) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0"])
def test_an_address_takes_no_thread(names: NameServer, host: str) -> None:
    names.answering.set()

    assert resolve(host, 443, LONG) == FOUND
    assert names.threads == [threading.current_thread()]


def test_a_name_takes_no_thread_that_outlives_the_process(names: NameServer) -> None:
    with pytest.raises(NotSentError):
        resolve(HOST, 443, SHORT)

    assert [thread.daemon for thread in names.threads] == [True]


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), RuntimeError("interpreter shutdown")])
def test_without_a_thread_it_asks_by_itself(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    names.answering.set()
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert resolve(HOST, 443, SHORT) == FOUND
    assert names.threads == [threading.current_thread()]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGALRM")
def test_a_signal_handler_may_resolve_while_its_thread_does(names: NameServer) -> None:
    results: list[object] = []

    def ring(*_: object) -> None:
        with pytest.raises(NotSentError):
            resolve(HOST, 443, SHORT)
        names.answering.set()
        results.append(resolve(HOST, 443, LONG))

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        results.append(resolve(HOST, 443, LONG))
    finally:
        signal.signal(signal.SIGALRM, before)

    assert results == [FOUND, FOUND]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pthread_kill")
def test_an_interrupt_ends_the_wait_at_once(names: NameServer) -> None:
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(SHORT, signal.pthread_kill, (main, signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        resolve(HOST, 443, LONG)
    assert len(names.asked) == 1


def test_an_interrupt_before_the_thread_runs_spoils_one_further_attempt_at_most(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names.answering.set()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resolve(HOST, 443, LONG)
    with pytest.raises(NotSentError):
        resolve(HOST, 443, SHORT)

    assert resolve(HOST, 443, LONG) == FOUND
