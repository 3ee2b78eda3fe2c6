"""What records and requests cost in memory: within the promise when the service is down, and nothing for what is over."""

import gc
import json
import logging
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import pytest
import trustme

from dis_logging import ConfigurationError, DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import (
    Drip,
    Fault,
    Hang,
    Informational,
    Refuse,
    RefuseEntries,
    Reply,
    Reset,
    Truncate,
    times,
)
from tests.certificates import bundle, server_context
from tests.conftest import STREAM
from tests.peak import PEAK
from tests.raw_server import Peer, RawServer, Script, no_server

MIB = 1024 * 1024
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def run(program: str, *arguments: object) -> Any:
    """Returns the JSON that a program prints: it has the memory of its process for itself."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(json.dumps, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=100, check=True)
    return json.loads(result.stdout)


# -- what waits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_buffer_bytes", "options", "at_most"),
    [
        (2**20, {}, 30_583),
        (4 * 2**20, {}, 52_428),
        (2**20, {"partition_key": "%(msg)s"}, 21_173),
        (2**20, {"explicit_hash_key": "%(lineno)d"}, 17_203),
    ],
)
def test_short_records_take_as_much_room_as_is_said(
    dis: DISEmulator, max_buffer_bytes: int, options: dict[str, Any], at_most: int
) -> None:
    where: dict[str, Any] = {**dis.handler_options(STREAM), **options}
    handler = DISHandler(
        **where,
        max_buffer_records=10**9,
        max_buffer_bytes=max_buffer_bytes,
        overflow="drop_newest",
        fallback=logging.NullHandler(),
        shutdown_timeout=0,
    )
    record = logging.LogRecord("app", logging.INFO, __file__, 1, "x", None, None)
    with dis.rule(Hang()):
        for _ in range(at_most + 10):
            handler.handle(record)
        buffered = handler.stats().buffered
    handler.close()

    assert buffered == at_most


@on_linux
@pytest.mark.parametrize(
    ("buffer_mib", "size", "count", "options", "least"),
    [
        # Four times the buffer.
        (4, 200, 4 * 4 * MIB // 200, {}, 4 * MIB // 200),
        # Twelve times the buffer, nearly all of it in partition keys.
        (4, 10, 50_000, {"partition_key": "%(relativeCreated)01000d"}, 4 * MIB // 1010),
        # Far more of these fit by their payload alone than by the memory that a record takes however short it is.
        (0.25, 1, 150_000, {"overflow": "drop_newest"}, 8 * MIB // 360),
        (4, 8, 150_000, {"overflow": "drop_newest"}, 18 * MIB // 360),
        (4, 8, 150_000, {"overflow": "drop_newest", "partition_key": "%(relativeCreated)064d"}, 18 * MIB // 520),
        (4, 8, 150_000, {"overflow": "drop_newest", "partition_key": "%(relativeCreated)031d中"}, 4 * MIB // 136),
        (4, 8, 150_000, {"overflow": "drop_newest", "explicit_hash_key": "%(relativeCreated)018d"}, 18 * MIB // 640),
    ],
    ids=[
        "small",
        "long keys",
        "tiny buffer",
        "tiny",
        "tiny with keys",
        "tiny with Chinese keys",
        "tiny with hash keys",
    ],
)
def test_memory_stays_within_its_bound_while_the_service_is_down(
    buffer_mib: float, size: int, count: int, options: dict[str, Any], least: int
) -> None:
    """Growth is at most 2.5 times max_buffer_bytes plus 16 MiB."""
    options = {"max_buffer_records": 10**9, "max_buffer_bytes": int(buffer_mib * MIB), **options}
    program = """
        import json, logging, sys
        from dis_logging import DISHandler
        options, size, count = map(json.loads, sys.argv[1:])
        handler = DISHandler(
            "app-logs", endpoint="http://127.0.0.1:9", region="r", project_id="p", ak="a", sk="s",
            fallback=logging.NullHandler(), shutdown_timeout=0.1, **options)
        logger = logging.getLogger("web")
        logger.addHandler(handler)
        logger.warning("warm up")
        before = peak()
        for number in range(count):
            logger.warning("%*d", size, number % 10)
        print(json.dumps([(peak() - before) / 2**20, handler.stats().emitted, handler.stats().buffered]))
        """
    growth, emitted, buffered = run(PEAK + textwrap.dedent(program), options, size, count)
    assert emitted == count + 1
    # The buffer is really full: of bytes, or of what it takes to hold so many short records.
    assert buffered >= least - 1
    assert growth <= 2.5 * buffer_mib + 16


@on_linux
def test_memory_stays_within_its_bound_while_the_fallback_hangs(dis: DISEmulator) -> None:
    """What was given up waits for the fallback, and takes more memory than before."""
    dis.play(*times(100, Refuse(441, "DIS.4112")))
    program = """
        import json, logging, os, sys, threading
        from dis_logging import DISHandler
        class Hanging(logging.Handler):
            def emit(self, record):
                threading.Event().wait()
        options = {"max_buffer_records": 10**9, "max_buffer_bytes": 4 * 2**20, "overflow": "drop_newest"}
        handler = DISHandler(**json.loads(sys.argv[1]), **options, fallback=Hanging(), flush_interval=0.01)
        logger = logging.getLogger("web")
        logger.addHandler(handler)
        logger.warning("warm up")
        handler.flush(1)
        before = peak()
        for number in range(150_000):
            logger.warning("%8d", number % 10)
        handler.flush(3)
        print(json.dumps([(peak() - before) / 2**20, handler.stats().buffered]), flush=True)
        os._exit(0)
        """
    growth, buffered = run(PEAK + textwrap.dedent(program), dis.handler_options(STREAM))

    assert buffered >= 18 * MIB // 360 - 1
    assert growth <= 2.5 * 4 + 16


# -- what is over ---------------------------------------------------------------------------------------------------

ATTEMPTS = 5
# Without the garbage collector, which in a large program may not look at old objects for hours.
FAIL_OFTEN = """
    import gc, json, sys, tracemalloc
    from dis_logging import DISClient, DISError, PutRecordsRequestEntry
    options, attempts = map(json.loads, sys.argv[1:])
    client = DISClient(**options)
    records = [PutRecordsRequestEntry("x" * 2**20)]
    def fail():
        try:
            client.put_records("app-logs", records)
        except DISError as error:
            return type(error).__name__
    gc.disable()
    fail()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    names = {fail() for _ in range(attempts)}
    after, _ = tracemalloc.get_traced_memory()
    print(json.dumps([*names, after - before]))
    """


def assert_leaves_nothing(options: dict[str, Any], error: str) -> None:
    """Checks that attempts which fail with *error* leave no body behind."""
    name, growth = run(FAIL_OFTEN, options, ATTEMPTS)
    assert name == error
    assert growth < MIB / 4  # a body is larger than 1 MiB


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Refuse(500, "DIS.5000"), "ServiceError"),
        (Refuse(503, body=b"<html>busy</html>"), "ServiceError"),
        (Hang(), "UnknownOutcomeError"),
        (Drip(), "UnknownOutcomeError"),
        (Reset("before"), "UnknownOutcomeError"),
        (Reset("body"), "UnknownOutcomeError"),
        (Reset("after"), "UnknownOutcomeError"),
        (Truncate(), "ProtocolError"),
        (Informational(), "ProtocolError"),
        (Reply(status=204), "ProtocolError"),
        (Reply(body=b"{}"), "ProtocolError"),
        (Reply(headers={"Content-Encoding": "gzip"}), "ProtocolError"),
    ],
    ids=repr,
)
def test_a_failed_attempt_leaves_no_body_behind(dis: DISEmulator, fault: Fault, error: str) -> None:
    dis.play(*times(1 + ATTEMPTS, fault))

    assert_leaves_nothing({**dis.client_options(), "request_timeout": 0.5}, error)


@pytest.fixture
def client_options() -> dict[str, Any]:
    return {"region": "cn-north-4", "project_id": "p", "ak": "ak", "sk": "sk", "request_timeout": 0.5}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_attempt_without_a_connection_leaves_no_body_behind(client_options: dict[str, Any], scheme: str) -> None:
    with no_server() as port:
        assert_leaves_nothing({**client_options, "endpoint": f"{scheme}://127.0.0.1:{port}"}, "NotSentError")


def test_an_attempt_that_its_proxy_refuses_leaves_no_body_behind(client_options: dict[str, Any]) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with RawServer(refuse) as proxy:
        options = {"endpoint": "https://dis.example.com", "proxies": {"https": proxy.endpoint}}
        assert_leaves_nothing({**client_options, **options}, "ServiceError")


def hang(peer: Peer) -> None:
    peer.read_request()
    peer.hold()


def reset(peer: Peer) -> None:
    peer.read_head()
    peer.reset()


@pytest.mark.parametrize("script", [hang, reset])
def test_an_attempt_that_fails_over_tls_leaves_no_body_behind(
    client_options: dict[str, Any], script: Script, tmp_path: Path
) -> None:
    authority = trustme.CA()
    with RawServer(script, tls=server_context(authority)) as server:
        options = {"endpoint": server.endpoint, "verify": bundle(authority, tmp_path)}
        assert_leaves_nothing({**client_options, **options}, "UnknownOutcomeError")


def test_an_attempt_with_a_certificate_that_nobody_trusts_leaves_no_body_behind(client_options: dict[str, Any]) -> None:
    with RawServer(hang, tls=server_context(trustme.CA())) as server:
        assert_leaves_nothing({**client_options, "endpoint": server.endpoint}, "NotSentError")


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        (Refuse(500, "DIS.5000"), {}),
        (RefuseEntries("DIS.5250"), {}),
        (RefuseEntries("DIS.5250"), {"aggregate": "lines"}),
        (Reply(body=b"{}"), {}),
        (Reply(body=b"\xff" * 100, headers={"Content-Type": "application/x-protobuf"}), {}),
        (Hang(), {}),
    ],
    ids=["refused", "refused one by one", "refused one by one, aggregated", "nonsense", "protobuf nonsense", "hanging"],
)
def test_records_that_wait_for_their_retry_take_no_more_for_each_attempt(
    dis: DISEmulator, fault: Fault, options: dict[str, Any]
) -> None:
    dis.play(*times(1000, fault))
    program = """
        import gc, json, logging, os, sys, time, tracemalloc
        from dis_logging import DISHandler
        handler = DISHandler(**json.loads(sys.argv[1]), fallback=logging.NullHandler())
        gc.disable()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(4):
            handler.handle(logging.LogRecord(f"web.{number}", logging.INFO, "app.py", 1, "x" * 2**18, None, None))
        def wait_for_requests(count):
            deadline = time.monotonic() + 60
            while handler.stats().requests < count and time.monotonic() < deadline:
                time.sleep(0.01)
        wait_for_requests(20)
        tracemalloc.reset_peak()
        wait_for_requests(30)
        _, peak = tracemalloc.get_traced_memory()
        print(json.dumps([peak - before, handler.stats().requests, handler.stats().buffered]), flush=True)
        os._exit(0)  # what is not delivered yet never will be
        """
    retries = {"request_timeout": 0.1, "flush_interval": 0.01, "backoff_initial": 0.01, "backoff_max": 0.02}

    growth, requests, buffered = run(program, {**dis.handler_options(STREAM), **retries, **options})

    assert requests >= 30
    assert buffered == 4
    # The records are 1 MiB, and the bodies of one request that has all of them take less than four times that.
    assert growth < 6 * MIB


def test_a_refused_option_does_not_keep_alive_what_its_caller_holds(dis: DISEmulator) -> None:
    class Payload:
        pass

    def configure() -> "weakref.ref[Payload]":
        payload = Payload()
        with pytest.raises(ConfigurationError):
            DISHandler(**{**dis.handler_options(STREAM), "max_batch_records": 0})
        return weakref.ref(payload)

    gc.disable()
    try:
        assert configure()() is None
    finally:
        gc.enable()
