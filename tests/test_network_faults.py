"""
What the network does to a handler, through real sockets, and the account afterwards.

Each fault is met twice: for a while, and everything arrives; for ever, and everything is in the fallback. What is in the
ledger, in the fallback and in the counters must agree each time.
"""

import gzip
import logging
import threading
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import (
    Behave,
    Drip,
    Exchange,
    Fault,
    Hang,
    Informational,
    RefuseEntries,
    Reply,
    Reset,
    Truncate,
)
from tests.certificates import bundle, server_context
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance
from tests.raw_server import Peer, RawServer, acknowledge, answer, no_server, reply_with, stored

# Short times, small batches: a fault is over soon and concerns some records only.
QUICK: dict[str, Any] = {
    "flush_interval": 0.02,
    "max_batch_records": 5,
    "request_timeout": 0.3,
    "backoff_initial": 0.01,
    "backoff_max": 0.05,
    "delivery_timeout": 30,
    "shutdown_timeout": 30,
}
TEXTS = [f"record {number}" for number in range(12)]


@dataclass(frozen=True)
class Babble:
    """Answers with bytes that never end. Ledger: the batch with *store*, else nothing of it."""

    first: bytes
    again: bytes
    store: bool = False

    def play(self, exchange: Exchange) -> None:
        exchange.read()
        if self.store:
            exchange.answer()
        exchange.write(self.first)
        while True:
            exchange.write(self.again)


HEAD = b"HTTP/1.1 200 OK\r\n"
GZIP = {"Content-Encoding": "gzip"}
BOMB = gzip.compress(b"[" * (40 * 2**20), 1)

# What the fallback says when it never ends, and whether the outcome is unknown.
FAULTS: dict[str, tuple[Fault, str, bool]] = {
    "reset before the body": (Reset("before"), "network", True),
    "reset within the body": (Reset("body"), "network", True),
    "reset after the batch was stored": (Reset("after"), "network", True),
    "hang": (Hang(), "timeout", True),
    "hang after the batch was stored": (Hang(store=True), "timeout", True),
    "drip": (Drip(), "timeout", True),
    "endless headers": (Babble(HEAD, b"X: y\r\n" * 50), "network", True),
    "endless header": (Babble(HEAD + b"X: ", b"y" * 65536, store=True), "network", True),
    "endless body": (Babble(HEAD + b"\r\n", b" " * 2**20), "network", True),
    "endless 100-continues": (Babble(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout", True),
    "closed without a word": (Reply(raw=b"", store=True), "network", True),
    "truncated": (Truncate(), "network", True),
    "truncated head": (Reply(raw=b"HTTP/1.1 200 OK\r\nContent-"), "http_200", True),
    "mis-chunked": (Reply(raw=HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", store=True), "network", True),
    "wrongly gzipped": (Reply(headers=GZIP, body=b"{}", store=True), "http_200", True),
    "gzip bomb": (Reply(headers=GZIP, body=BOMB), "http_200", True),
    "not HTTP": (Reply(raw=b"SSH-2.0-OpenSSH_9.6\r\n"), "network", True),
    "not JSON": (Reply(body=b"<html>"), "http_200", True),
    "deeply nested": (Reply(body=b"[" * 500_000, store=True), "http_200", True),
    "oversized": (Reply(body=b" " * (16 * 2**20 + 1)), "network", True),
    "early hints": (Informational(103, delay=0.05), "http_103", True),
    "an unexpected 2xx": (Reply(status=202, body=stored(), store=True), "http_202", True),
    "no content": (Reply(status=204), "http_204", True),
}


def ship(handler: DISHandler, texts: list[str]) -> None:
    """Logs *texts* with two loggers in turn."""
    for number, text in enumerate(texts):
        handler.handle(logging.LogRecord(f"app.{number % 2}", logging.INFO, __file__, 1, text, None, None))


@pytest.mark.parametrize(("fault", "code", "unknown"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_that_passes_loses_nothing(
    dis: DISEmulator, fallback: RememberingHandler, fault: Fault, code: str, unknown: bool
) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, **QUICK)
    dis.play(Behave(), fault, fault)

    ship(handler, TEXTS)

    stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
    assert stats.delivered == len(TEXTS)
    assert dis.unplayed == ()


@pytest.mark.parametrize(("fault", "code", "unknown"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_that_stays_loses_nothing(
    dis: DISEmulator, fallback: RememberingHandler, fault: Fault, code: str, unknown: bool
) -> None:
    options = {**QUICK, "delivery_timeout": 1, "max_batch_records": 500}
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, **options)

    with dis.rule(fault):
        ship(handler, TEXTS)

        stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
    assert stats.failed == len(TEXTS)
    assert {vars(record)["dis_outcome_unknown"] for record in fallback.records} == {unknown}
    # The last attempt may have been cut short by the end of delivery_timeout, while connecting or later.
    assert set(fallback.codes) <= {code, "timeout", "network"}


def test_a_service_that_comes_back_gets_everything(dis: DISEmulator, fallback: RememberingHandler) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, **QUICK)
    dis.stop()
    ship(handler, TEXTS)
    assert dis.wait_for(lambda _: handler.stats().requests >= 3)

    dis.start()

    stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
    assert stats.delivered == len(TEXTS) == dis.record_count(STREAM)


def test_a_service_that_stays_away_leaves_everything_to_the_fallback(
    dis: DISEmulator, fallback: RememberingHandler
) -> None:
    with no_server() as port:
        options = {**dis.handler_options(STREAM), **QUICK, "endpoint": f"http://127.0.0.1:{port}"}
        handler = DISHandler(**{**options, "delivery_timeout": 0.2, "fallback": fallback})
        ship(handler, TEXTS)

        stats = assert_accounts_balance(handler, dis, fallback, TEXTS)

    assert stats.failed == len(TEXTS)
    assert set(fallback.codes) == {"network"}
    assert not any(vars(record)["dis_outcome_unknown"] for record in fallback.records)


def test_a_connection_that_was_closed_while_idle_costs_no_second_copy(
    dis: DISEmulator, fallback: RememberingHandler
) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, **QUICK)
    ship(handler, TEXTS[:6])
    assert handler.flush()
    dis.drop_connections()

    ship(handler, TEXTS[6:])

    stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
    assert stats.delivered == len(TEXTS) == dis.record_count(STREAM)
    assert {request.connection for request in dis.requests} == {1, 2}


def test_the_late_answer_after_a_103_acknowledges_nothing(dis: DISEmulator, fallback: RememberingHandler) -> None:
    """Read as the answer to the retry it would say "stored" of a record that DIS has just refused."""
    go_on = threading.Event()
    dis.play(Informational(103, until=go_on), RefuseEntries("DIS.4302"))
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, **QUICK)

    ship(handler, TEXTS[:1])
    assert dis.wait_for(lambda _: dis.requests)
    go_on.set()

    assert_accounts_balance(handler, dis, fallback, TEXTS[:1])
    assert fallback.codes == ["DIS.4302"]
    assert vars(fallback.records[0])["dis_outcome_unknown"]


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_leads_nowhere(dis: DISEmulator, fallback: RememberingHandler, status: int) -> None:
    with RawServer(acknowledge) as other:
        handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, **QUICK)
        with dis.rule(Reply(status=status, headers={"Location": f"{other.endpoint}/v2/x/records/"})):
            ship(handler, TEXTS)

            stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
        assert other.connections == 0
    assert stats.failed == len(TEXTS)
    assert set(fallback.codes) == {f"http_{status}"}


def test_a_redirect_to_nowhere_does_no_harm(dis: DISEmulator, fallback: RememberingHandler) -> None:
    dis.play(Reply(status=302, headers={"Location": "http://[::1"}))
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, **QUICK)

    ship(handler, TEXTS[:5])

    assert_accounts_balance(handler, dis, fallback, TEXTS[:5])
    assert set(fallback.codes) == {"http_302"}


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority that the handlers trust."""
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    """The path of what a client needs to trust it."""
    return bundle(authority, tmp_path)


BAD_CERTIFICATES = {
    "wrong host name": lambda authority: server_context(authority, "dis.example.com"),
    "expired": lambda authority: server_context(authority, not_after=datetime.now(timezone.utc) - timedelta(days=1)),
    "untrusted": lambda authority: server_context(trustme.CA()),
}


@pytest.mark.parametrize("make_context", BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES.keys())
def test_a_bad_certificate_is_sent_nothing_until_it_is_renewed(
    fallback: RememberingHandler, authority: trustme.CA, trusted: str, make_context: Any
) -> None:
    context = make_context(authority)
    with DISEmulator(streams={STREAM: 1}, tls=context) as dis:
        handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, verify=trusted, **QUICK)
        ship(handler, TEXTS)
        assert dis.wait_for(lambda _: handler.stats().requests >= 3)
        assert dis.requests == ()

        authority.issue_cert("127.0.0.1").configure_cert(context)

        stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
        assert stats.delivered == len(TEXTS) == dis.record_count(STREAM)


@pytest.mark.parametrize("make_context", BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES.keys())
def test_records_for_a_bad_certificate_go_to_the_fallback(
    fallback: RememberingHandler, authority: trustme.CA, trusted: str, make_context: Any
) -> None:
    options = {**QUICK, "delivery_timeout": 0.2}
    with DISEmulator(streams={STREAM: 1}, tls=make_context(authority)) as dis:
        handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, verify=trusted, **options)
        ship(handler, TEXTS)

        assert_accounts_balance(handler, dis, fallback, TEXTS)
        assert dis.requests == ()
    assert set(fallback.codes) == {"network"}
    assert not any(vars(record)["dis_outcome_unknown"] for record in fallback.records)


def test_a_certificate_that_is_not_verified_costs_no_record_and_no_warning(fallback: RememberingHandler) -> None:
    """urllib3 warns of it, and warnings are errors here as in many a careful application."""
    with (
        warnings.catch_warnings(),
        DISEmulator(streams={STREAM: 1}, tls=server_context(trustme.CA())) as dis,
    ):
        warnings.simplefilter("error")
        options = {**QUICK, "request_timeout": 20}  # no attempt may end for another reason
        handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback, verify=False, **options)
        ship(handler, TEXTS)

        stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
    assert stats.delivered == len(TEXTS)
    assert stats.requests == len(dis.requests)


def test_a_tls_handshake_that_hangs_is_tried_again(
    fallback: RememberingHandler, authority: trustme.CA, trusted: str
) -> None:
    with (
        DISEmulator(streams={STREAM: 1}, tls=server_context(authority)) as dis,
        RawServer(lambda peer: peer.hold(), lambda peer: peer.relay(dis.port)) as door,
    ):
        options = {**dis.handler_options(STREAM), **QUICK, "endpoint": f"https://127.0.0.1:{door.port}"}
        handler = DISHandler(**{**options, "verify": trusted, "fallback": fallback})
        ship(handler, TEXTS)

        stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
    assert stats.delivered == len(TEXTS)
    assert stats.requests == len(dis.requests) + 1


# -- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_answers_407_leaves_everything_to_the_fallback(
    fallback: RememberingHandler, authority: trustme.CA, trusted: str, scheme: str
) -> None:
    """Through http the proxy is asked for the URL, through https for a tunnel."""
    refuse = reply_with(answer(407, b"", "Proxy-Authenticate: Basic\r\nConnection: close\r\n"))
    tls = server_context(authority) if scheme == "https" else None
    with DISEmulator(streams={STREAM: 1}, tls=tls) as dis, RawServer(refuse) as proxy:
        options = {**dis.handler_options(STREAM), **QUICK, "proxies": {scheme: proxy.endpoint}}
        handler = DISHandler(**{**options, "verify": trusted, "fallback": fallback})
        ship(handler, TEXTS)

        stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
        assert dis.requests == ()
        assert len(proxy.heads) == 1
    assert stats.failed == len(TEXTS)
    assert set(fallback.codes) == {"http_407"}


def test_a_proxy_that_drips_its_answer_is_tried_again(
    fallback: RememberingHandler, authority: trustme.CA, trusted: str
) -> None:
    def drip(peer: Peer) -> None:
        peer.read_head()
        peer.drip(b"HTTP/1.1 200 " + b"x" * 1000)

    with DISEmulator(streams={STREAM: 1}, tls=server_context(authority)) as dis:

        def tunnel(peer: Peer) -> None:
            peer.read_head()
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            peer.relay(dis.port)

        with RawServer(drip, tunnel) as proxy:
            options = {**dis.handler_options(STREAM), **QUICK, "proxies": {"https": proxy.endpoint}}
            handler = DISHandler(**{**options, "verify": trusted, "fallback": fallback})
            ship(handler, TEXTS)

            stats = assert_accounts_balance(handler, dis, fallback, TEXTS)
    assert stats.delivered == len(TEXTS) == dis.record_count(STREAM)
    assert proxy.connections == 2
