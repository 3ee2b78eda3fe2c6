"""
A canary in the place of every secret, and everything that people print: it must not be there, in clear or in base64.

What is searched: texts of exceptions and of all that they were raised from, tracebacks with local variables, `repr` and
`vars`, the records of all loggers at DEBUG, the fallback, and stderr.
"""

import base64
import copy
import gc
import inspect
import io
import itertools
import logging
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trustme

from dis_logging import ConfigurationError, Credentials, DISClient, DISHandler, PutRecordsRequestEntry, ServiceError
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
)
from tests.certificates import bundle, server_context
from tests.conftest import STREAM, RememberingHandler
from tests.raw_server import Peer, RawServer, answer, no_server, reply_with

CANARY = "canary+0123456789/abcdefghijklmnopqrstuvwxyz"
ENTRY = PutRecordsRequestEntry("hello", "web-1")


def forms_of_the_canary() -> list[str]:
    """Returns the canary and what base64 makes of it, whatever stands before and behind it."""
    forms = [CANARY, CANARY.replace("+", "%2B").replace("/", "%2F"), CANARY[:16], CANARY[-16:]]
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + CANARY.encode()).decode()
        forms.append(encoded[4:40])  # the characters that no neighbour has a part in
    return [*forms, CANARY.encode().hex()]


def assert_clean(text: str) -> None:
    for form in forms_of_the_canary():
        assert form not in text, f"the secret is in: ...{text[max(0, text.index(form) - 300) :][:500]}"


def texts_of(error: BaseException) -> Iterator[str]:
    """Yields everything that can be printed of an exception and of those before it, suppressed ones too."""
    yield "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is None or link in seen:
            continue
        seen.append(link)
        yield f"{link} {link!r} {link.args!r} {vars(link)!r}"
        yield "".join(traceback.TracebackException.from_exception(link, capture_locals=True).format())
        pending += [link.__cause__, link.__context__]


def texts_within(thing: object, depth: int = 8) -> Iterator[str]:
    """Yields the repr of *thing*, of its attributes, and so on within everything that is ours."""
    yield repr(thing)
    yield str(thing)
    if depth == 0:
        return
    attributes = getattr(thing, "__dict__", {})
    if attributes and type(thing).__module__.startswith("dis_logging"):
        yield repr(attributes)
        for value in attributes.values():
            yield from texts_within(value, depth - 1)
    if isinstance(thing, Mapping) and not type(thing).__module__.startswith("dis_logging"):  # ours hide their content
        for value in thing.values():
            yield from texts_within(value, depth - 1)
    elif isinstance(thing, list | tuple | set | frozenset):
        for value in thing:
            yield from texts_within(value, depth - 1)


@pytest.fixture(autouse=True)
def everything_logged(restored_logging: None, capfd: pytest.CaptureFixture[str]) -> Iterator[io.StringIO]:
    """All of logging at DEBUG, with tracebacks; searched, with stderr and stdout, when the test is over."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s"))
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    captured = capfd.readouterr()
    assert_clean(stream.getvalue())
    assert_clean(captured.out)
    assert_clean(captured.err)


# -- who and where, with a canary in every secret place -------------------------------------------------------------

# Functions, so that no local variable of a test ever holds the canary.
SECRETS: dict[str, Callable[[], dict[str, Any]]] = {
    "secret key": lambda: {"ak": "ak", "sk": CANARY},
    "security token": lambda: {"ak": "ak", "sk": CANARY, "security_token": CANARY},
    "auth token": lambda: {"auth_token": CANARY},
    "callable": lambda: {"credentials": lambda: Credentials("ak", CANARY, CANARY)},
}


def where() -> dict[str, Any]:
    return {"region": "cn-north-4", "project_id": "0123456789abcdef0123456789abcdef", "request_timeout": 10}


@pytest.fixture
def close_later() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def emulator_with(secret: str, **options: Any) -> DISEmulator:
    """Returns an emulator that accepts the canary, and is never shown itself."""
    dis = DISEmulator(streams={STREAM: 1}, ak="ak", sk=CANARY, **options)
    dis.security_token = CANARY if secret in ("security token", "callable") else None
    dis.auth_token = CANARY
    return dis


FAULTS: dict[str, Fault] = {
    "reset before the body": Reset("before"),
    "reset within the body": Reset("body"),
    "reset after": Reset("after"),
    "hang": Hang(),
    "drip": Drip(),
    "truncated": Truncate(),
    "103": Informational(),
    "not HTTP": Reply(raw=b"SSH-2.0-OpenSSH_9.6\r\n"),
    "mis-chunked": Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "endless header": Reply(raw=b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000),
    "defective header": Reply(raw=b"HTTP/1.1 200 OK\r\n\xff\xfe no colon\r\n\r\n{}"),
    "wrong gzip": Reply(headers={"Content-Encoding": "gzip"}, body=b"{}"),
    "oversized": Reply(body=b" " * (16 * 2**20 + 1)),
    "deeply nested": Reply(body=b"[" * 100_000),
    "202": Reply(status=202),
    "redirect": Reply(status=302, headers={"Location": "http://[::1"}),
    "441": Refuse(441, "DIS.4100", "Authorization error."),
    "429": Refuse(429, "DIS.4303", headers={"Retry-After": "\xb2"}),
    "503": Refuse(503, body=b"<html>"),
    "407": Refuse(407),
    "refused entries": RefuseEntries("DIS.4302"),
}


def scream(client: DISClient) -> BaseException | None:
    """Uploads and returns how it failed, if it did."""
    try:
        client.put_records(STREAM, [ENTRY])
    except Exception as error:
        return error
    return None


def assert_failed_cleanly(client: DISClient) -> None:
    error = scream(client)
    assert error is not None
    for text in texts_of(error):
        assert_clean(text)
    for text in texts_within(client):
        assert_clean(text)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "refused entries"])
def test_a_fault_shows_no_secret(close_later: ExitStack, secret: str, fault: str) -> None:
    dis = close_later.enter_context(emulator_with(secret))
    client = close_later.enter_context(DISClient(endpoint=dis.endpoint, **where(), **SECRETS[secret]()))
    dis.play(FAULTS[fault])
    if fault in ("hang", "drip"):
        client.request_timeout = 0.2

    assert_failed_cleanly(client)
    client.request_timeout = 10
    assert scream(client) is None  # the canary is what it is taken for
    assert len(dis.requests) == 2


@pytest.mark.parametrize("secret", SECRETS)
def test_a_wrong_key_shows_no_secret(close_later: ExitStack, secret: str) -> None:
    dis = close_later.enter_context(DISEmulator(streams={STREAM: 1}))
    client = close_later.enter_context(DISClient(endpoint=dis.endpoint, **where(), **SECRETS[secret]()))

    assert_failed_cleanly(client)
    assert dis.requests[0].status == 441


@pytest.mark.parametrize("secret", SECRETS)
def test_a_service_that_is_not_there_is_told_no_secret(close_later: ExitStack, secret: str) -> None:
    with no_server() as port:
        client = DISClient(endpoint=f"http://127.0.0.1:{port}", **where(), **SECRETS[secret]())
        assert_failed_cleanly(close_later.enter_context(client))


def quote_request(peer: Peer) -> None:
    """Answers with the request's head, as some proxies and debugging services do."""
    head = peer.read_head()
    peer.read_body(head)
    peer.send(answer(400, head))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_service_that_quotes_the_request_does_not_make_us_show_it(close_later: ExitStack, secret: str) -> None:
    server = close_later.enter_context(RawServer(quote_request))
    client = close_later.enter_context(DISClient(endpoint=server.endpoint, **where(), **SECRETS[secret]()))

    assert_failed_cleanly(client)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_bad_certificate_is_told_no_secret(close_later: ExitStack, secret: str) -> None:
    dis = close_later.enter_context(emulator_with(secret, tls=server_context(trustme.CA())))
    client = close_later.enter_context(DISClient(endpoint=dis.endpoint, **where(), **SECRETS[secret]()))

    assert_failed_cleanly(client)


# -- proxies --------------------------------------------------------------------------------------------------------

PROXY_FAULTS: dict[str, Callable[[Peer], None]] = {
    "407": reply_with(answer(407, b"", "Proxy-Authenticate: Basic\r\n")),
    "reset": lambda peer: peer.reset(),
    "not HTTP": reply_with(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "hang": lambda peer: peer.hold(),
    "closes": reply_with(b""),
}


def proxies(host: str) -> dict[str, str]:
    quoted = CANARY.replace("+", "%2B").replace("/", "%2F")
    return dict.fromkeys(("http", "https"), f"http://user:{quoted}@{host}")


@pytest.mark.parametrize("endpoint", ["http://dis.example.com", "https://dis.example.com"])
@pytest.mark.parametrize("fault", PROXY_FAULTS)
def test_a_proxy_that_fails_shows_no_password(close_later: ExitStack, endpoint: str, fault: str) -> None:
    server = close_later.enter_context(RawServer(PROXY_FAULTS[fault]))
    client = DISClient(
        endpoint=endpoint, allow_http=True, ak="ak", sk="sk", proxies=proxies(f"127.0.0.1:{server.port}"), **where()
    )
    if fault == "hang":
        client.request_timeout = 0.2

    assert_failed_cleanly(close_later.enter_context(client))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "", "[::1", "127.0.0.1:port", "127.0.0.1:99999"])
@pytest.mark.parametrize("endpoint", ["http://dis.example.com", "https://dis.example.com"])
def test_a_proxy_that_cannot_be_used_shows_no_password(
    close_later: ExitStack, monkeypatch: pytest.MonkeyPatch, endpoint: str, host: str
) -> None:
    for scheme, url in proxies(host).items():
        monkeypatch.setenv(f"{scheme}_proxy", url)
    client = DISClient(endpoint=endpoint, allow_http=True, ak="ak", sk="sk", **where())

    assert_failed_cleanly(close_later.enter_context(client))


@pytest.mark.parametrize("host", ["", "[::1", "127.0.0.1:port", "127.0.0.1:99999"])
def test_a_proxy_that_is_none_is_refused_without_its_password(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^proxies\['https?'\] must be a URL such as") as refused:
        DISClient(endpoint="https://dis.example.com", ak="ak", sk="sk", proxies=proxies(host), **where())

    assert_clean("".join(traceback.format_exception(refused.value)))


def test_a_proxy_of_the_environment_shows_no_password(close_later: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    server = close_later.enter_context(RawServer(PROXY_FAULTS["407"]))
    monkeypatch.setenv("http_proxy", proxies(f"127.0.0.1:{server.port}")["http"])
    client = DISClient(endpoint="http://dis.example.com", allow_http=True, ak="ak", sk="sk", **where())

    assert_failed_cleanly(close_later.enter_context(client))
    assert b"Proxy-Authorization: Basic" in server.heads[0]


# -- configuration --------------------------------------------------------------------------------------------------


def unusable_keys() -> dict[str, Any]:
    """Returns keys with a character that no header may carry; requests would quote them in its InvalidHeader."""
    return {"ak": "ak", "sk": CANARY + "\n" + CANARY}


WRONG: dict[str, Callable[[], dict[str, Any]]] = {
    "sk with a line break": unusable_keys,
    "security_token with a line break": lambda: {"ak": "ak", "sk": "sk", "security_token": CANARY + "\r\nX: y"},
    "auth_token with a NUL": lambda: {"auth_token": CANARY + "\0"},
    "sk as bytes": lambda: {"ak": "ak", "sk": CANARY.encode()},
    "sk in a list": lambda: {"ak": "ak", "sk": [CANARY]},
    "credentials as a tuple": lambda: {"credentials": ("ak", CANARY)},
    "no ak": lambda: {"sk": CANARY},
    "proxies as text": lambda: {"ak": "ak", "sk": CANARY, "proxies": f"http://user:{CANARY}@proxy"},
    "proxies of bytes": lambda: {"ak": "ak", "sk": CANARY, "proxies": {"http": CANARY.encode()}},
    "endpoint with a password": lambda: {"ak": "ak", "sk": CANARY, "endpoint": f"https://user:{CANARY[-16:]}@dis:x"},
    "malformed endpoint": lambda: {"ak": "ak", "sk": CANARY, "endpoint": "ftp://dis"},
    "plain http": lambda: {"ak": "ak", "sk": CANARY, "endpoint": "http://dis.example.com"},
    "no region": lambda: {"ak": "ak", "sk": CANARY, "security_token": CANARY, "region": ""},
    "negative request_timeout": lambda: {"ak": "ak", "sk": CANARY, "request_timeout": -1},
    "unknown signature": lambda: {"auth_token": CANARY, "signature": "none"},
    "no such bundle": lambda: {"ak": "ak", "sk": CANARY, "verify": "/no/such"},
    "unknown option": lambda: {"ak": "ak", "sk": CANARY, "secret": "x"},
}
WRONG_FOR_HANDLERS: dict[str, Callable[[], dict[str, Any]]] = {
    "no stream": lambda: {"ak": "ak", "sk": CANARY, "stream_name": ""},
    "zero batch": lambda: {"ak": "ak", "sk": CANARY, "max_batch_records": 0},
    "unknown overflow": lambda: {"ak": "ak", "sk": CANARY, "overflow": "panic"},
    "no such fallback": lambda: {"ak": "ak", "sk": CANARY, "fallback": "nobody"},
    "unusable fallback": lambda: {"ak": "ak", "sk": CANARY, "fallback": {"class": "no.Such", "password": CANARY}},
}


def make(kind: type, options: Callable[[], dict[str, Any]]) -> BaseException:
    """Returns how making an object fails; the canary is in no local variable here."""
    try:
        kind(**{**where(), **({"stream_name": STREAM} if kind is DISHandler else {}), **options()})
    except Exception as error:
        return error
    raise AssertionError("it was accepted")


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", [DISClient, DISHandler])
def test_a_wrong_option_shows_no_secret(monkeypatch: pytest.MonkeyPatch, kind: type, wrong: str) -> None:
    for name in ("DIS_LOGGING_AK", "HUAWEICLOUD_SDK_AK"):
        monkeypatch.delenv(name, raising=False)
    for text in texts_of(make(kind, WRONG[wrong])):
        assert_clean(text)


@pytest.mark.parametrize("wrong", WRONG_FOR_HANDLERS)
def test_a_wrong_option_of_a_handler_shows_no_secret(wrong: str) -> None:
    for text in texts_of(make(DISHandler, WRONG_FOR_HANDLERS[wrong])):
        assert_clean(text)


def test_wrong_keys_of_the_environment_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIS_LOGGING_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("DIS_LOGGING_AK", "ak")
    monkeypatch.setenv("DIS_LOGGING_SK", CANARY + "\nx")

    for text in texts_of(make(DISClient, dict)):
        assert_clean(text)


@pytest.mark.parametrize(
    "wrong", [lambda: ("ak", CANARY + "\0"), lambda: ("", CANARY), lambda: ("ak", "sk", CANARY + "\n\n\0")]
)
def test_wrong_credentials_show_no_secret(wrong: Callable[[], tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="must be") as raised:
        Credentials(*wrong())

    for text in texts_of(raised.value):
        assert_clean(text)


def failing_callable() -> Credentials:
    raise RuntimeError(f"the vault answered {CANARY}")


BAD_CALLABLES: dict[str, Callable[[], Any]] = {
    "raises": failing_callable,
    "returns a dict": lambda: {"ak": "ak", "sk": CANARY},
    "returns text": lambda: CANARY,
    "returns unusable keys": lambda: Credentials("ak", CANARY + "\0"),
}


@pytest.mark.parametrize("name", BAD_CALLABLES)
def test_a_credentials_callable_that_fails_shows_no_secret(close_later: ExitStack, name: str) -> None:
    client = DISClient(endpoint="http://127.0.0.1:1", credentials=BAD_CALLABLES[name], **where())

    assert_failed_cleanly(close_later.enter_context(client))


# -- Ctrl-C, whose traceback Python prints --------------------------------------------------------------------------


def interrupted_after(client: DISClient, calls: int) -> BaseException | None:
    """Uploads with a Ctrl-C in the middle, after so many calls of functions; returns what came out, if it was reached."""
    remaining = itertools.count(calls, -1)

    def interrupt(frame: FrameType, event: str, called: object) -> None:
        if called is sys.setprofile:  # below, when the upload is over
            return
        # Not at a return, nor as a generator goes on, which may be to its end: what is raised there reaches nobody.
        is_generator = event == "call" and frame.f_code.co_flags & inspect.CO_GENERATOR
        # Not within logging: before Python 3.13 an interrupt there can leave its lock taken for ever, whoever logs.
        is_logging = frame.f_globals["__name__"] == "logging"
        if event.endswith("call") and not is_generator and not is_logging and next(remaining) == 0:
            raise KeyboardInterrupt

    gc.disable()  # what is raised in a callback of the garbage collector, such as hypothesis has, reaches nobody either
    sys.setprofile(interrupt)  # called at each call, of built-in functions too
    try:
        client.put_records(STREAM, [ENTRY])
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.setprofile(None)
        gc.enable()
    return None


@pytest.mark.parametrize("secret", ["security token", "auth token"])
@pytest.mark.parametrize("state", ["not connected", "connected"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # urllib3 forgets to close a connection here and there
# The standard library cannot close what was interrupted while it was made, and Python 3.13 tells when it is collected.
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <(http\.client\.HTTPResponse|socket\.SocketIO):pytest.PytestUnraisableExceptionWarning"
)
def test_an_interrupt_anywhere_within_an_attempt_shows_no_secret(
    close_later: ExitStack, secret: str, state: str
) -> None:
    dis = close_later.enter_context(emulator_with(secret))
    client = close_later.enter_context(DISClient(endpoint=dis.endpoint, **where(), **SECRETS[secret]()))
    interrupts = 0
    for calls in itertools.count(INTERRUPT_EVERY, INTERRUPT_EVERY):
        if state == "connected":
            assert scream(client) is None
        error = interrupted_after(client, calls)
        if error is None:
            break
        interrupts += 1
        for text in texts_of(error):
            assert_clean(text)
    del error
    gc.collect()  # while the warning is ignored

    assert interrupts > 20  # it was really in the middle of it
    assert scream(client) is None


INTERRUPT_EVERY = 7  # calls; a prime, to meet other functions with each interrupt
INTERRUPTED_PROGRAM = """
import logging, os, sys, threading, traceback
from dis_logging import DISHandler

def show_locals(kind, error, trace):
    sys.__excepthook__(kind, error, trace)
    print("".join(traceback.TracebackException(kind, error, trace, capture_locals=True).format()), file=sys.stderr)

sys.excepthook = show_locals
start = threading.Thread.start
def start_others(thread):
    if thread.name == "dis_logging-sender":  # so that it is the main thread that sends
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = start_others
handler = DISHandler("app-logs", shutdown_timeout=30)
logging.getLogger("app").addHandler(handler)
logging.getLogger("app").error("text")
getattr(handler, sys.argv[1])()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to be sent")
@pytest.mark.parametrize("secret", ["security token", "auth token"])
@pytest.mark.parametrize("action", ["flush", "close"])
def test_the_traceback_of_an_interrupt_shows_no_secret(close_later: ExitStack, secret: str, action: str) -> None:
    """DIS hangs, and somebody presses Ctrl-C."""
    dis = close_later.enter_context(emulator_with(secret))
    options = {"endpoint": dis.endpoint, **where(), **SECRETS[secret]()}
    with dis.rule(Hang()):
        program = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED_PROGRAM, action],
            env={**os.environ, **{f"DIS_LOGGING_{name.upper()}": str(value) for name, value in options.items()}},
            stderr=subprocess.PIPE,
            text=True,
        )
        close_later.callback(program.kill)
        assert dis.wait_for(lambda dis: len(dis.requests) == 1, timeout=30)
    program.send_signal(signal.SIGINT)
    _, printed = program.communicate(timeout=60)

    assert program.returncode == -signal.SIGINT
    assert printed.splitlines().count("KeyboardInterrupt") == 2  # without the local variables, and with them
    assert "handler = <DISHandler app-logs" in printed
    assert_clean(printed)
    assert [record.text for record in dis.records(STREAM)] == ["text"]


# -- what people print and store ------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", SECRETS)
def test_objects_show_no_secret_and_cannot_be_pickled(close_later: ExitStack, secret: str) -> None:
    dis = close_later.enter_context(emulator_with(secret))
    options = {"endpoint": dis.endpoint, **where()}
    client = close_later.enter_context(DISClient(**options, **SECRETS[secret]()))
    handler = DISHandler(STREAM, **options, **SECRETS[secret](), fallback=RememberingHandler())
    close_later.callback(handler.close)
    scream(client)
    handler.handle(logging.LogRecord("app", logging.ERROR, __file__, 1, "text", None, None))
    handler.flush()

    for thing in (client, handler, Credentials("ak", CANARY, CANARY)):
        for text in texts_within(thing):
            assert_clean(text)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError) as raised:
                pickle.dumps(thing, protocol)
            assert_clean(str(raised.value))
    for thing in (client, handler):
        with pytest.raises(TypeError):
            copy.deepcopy(thing)


def test_no_exception_stays_behind_with_a_secret(close_later: ExitStack) -> None:
    """What an error reporter could find in the frames of a failed attempt is gone with the attempt."""
    dis = close_later.enter_context(emulator_with("security token"))
    client = DISClient(endpoint=dis.endpoint, **where(), **SECRETS["security token"]())
    close_later.enter_context(client)
    dis.play(Reset("after"))

    error = scream(client)

    assert error is not None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert {frame.f_globals["__name__"].partition(".")[0] for frame in frames} <= {"tests", "dis_logging", __name__}
    del frames
    gc.collect()


def test_a_service_error_is_pickled_without_a_secret(close_later: ExitStack) -> None:
    dis = close_later.enter_context(DISEmulator(streams={STREAM: 1}))
    client = DISClient(endpoint=dis.endpoint, **where(), **SECRETS["security token"]())

    error = scream(close_later.enter_context(client))

    assert isinstance(error, ServiceError)
    pickled = pickle.dumps(error)
    assert_clean(pickled.decode("latin-1"))
    assert str(pickle.loads(pickled)) == str(error)


# -- through the handler --------------------------------------------------------------------------------------------

QUICK: dict[str, Any] = {"flush_interval": 0.01, "backoff_initial": 0.01, "backoff_max": 0.02, "delivery_timeout": 0.1}


@pytest.mark.parametrize("secret", ["security token", "auth token"])
@pytest.mark.parametrize("fault", FAULTS)
def test_neither_the_fallback_nor_a_log_gets_a_secret(
    close_later: ExitStack, everything_logged: io.StringIO, fallback: RememberingHandler, secret: str, fault: str
) -> None:
    dis = close_later.enter_context(emulator_with(secret))
    options = {"endpoint": dis.endpoint, **where(), **QUICK}
    handler = DISHandler(STREAM, **options, **SECRETS[secret](), fallback=fallback)
    silent = DISHandler(STREAM, **options, **SECRETS[secret]())  # its fallback is stderr
    logger = logging.getLogger("app")
    with dis.rule(FAULTS[fault]):
        for each in (handler, silent):
            close_later.callback(logger.removeHandler, each)
            logger.addHandler(each)
        logger.error("failed at %s", "work", exc_info=ValueError("x"))
        handler.close()
        silent.close()

    assert len(fallback.records) == 1
    for record in fallback.records:
        for text in (repr(vars(record)), logging.Formatter("%(message)s").format(record)):
            assert_clean(text)
    for text in (*texts_within(handler), *texts_within(silent)):
        assert_clean(text)
    assert "127.0.0.1" in everything_logged.getvalue()  # urllib3 was heard


def test_a_proxy_password_reaches_neither_the_fallback_nor_a_log(
    close_later: ExitStack, fallback: RememberingHandler, tmp_path: Path
) -> None:
    authority = trustme.CA()
    dis = close_later.enter_context(emulator_with("secret key", tls=server_context(authority)))
    server = close_later.enter_context(RawServer(PROXY_FAULTS["407"]))
    options = {"endpoint": dis.endpoint, **where(), **QUICK, "verify": bundle(authority, tmp_path)}
    handler = DISHandler(
        STREAM, **options, **SECRETS["secret key"](), proxies=proxies(f"127.0.0.1:{server.port}"), fallback=fallback
    )
    handler.handle(logging.LogRecord("app", logging.ERROR, __file__, 1, "text", None, None))
    handler.close()

    assert fallback.codes == ["http_407"]
    assert_clean(repr(vars(fallback.records[0])))
    for text in texts_within(handler):
        assert_clean(text)
