"""A prefork server delivers what its workers log, each record once."""

import http.client
import itertools
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from dis_logging.emulator import DISEmulator
from tests.process.programs import STREAM, Program, Programs, numbered

APPLICATION = """
    import logging, os
    from application import make_logger
    logger = make_logger("web")
    logger.info("imported by %d", os.getpid())

    def application(environ, start_response):
        logger.info("request %s", environ["QUERY_STRING"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % os.getpid()]
    """
REQUESTS = 40


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["imported-by-each-worker", "preload"])
def test_what_the_workers_of_gunicorn_log_arrives_once(programs: Programs, options: list[str]) -> None:
    programs.write("web.py", APPLICATION)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        server = _serve(programs, listener, options)
        workers = {_get(listener.getsockname()[1], f"/?{number}") for number in range(REQUESTS)}
        server.signal(signal.SIGTERM)
        ended = server.wait()

    requests = Counter({text: count for text, count in ended.accounted.items() if text.startswith("request")})
    imports = [text.removeprefix("imported by ") for text in ended.accounted.elements() if text not in requests]
    assert ended.returncode == 0, ended.errors
    assert requests == numbered("request", REQUESTS)
    if options:
        assert imports == [str(server.process.pid)]
    else:
        assert workers <= set(imports)
        assert len(set(imports)) == len(imports)
    assert not ended.reported


OF_GREENLETS = """
    import logging, os, warnings
    warnings.filterwarnings("ignore", "Monkey-patching")  # gevent's, of --preload
    from application import make_logger
    logger = make_logger("web")
    greeted = set()

    def application(environ, start_response):
        if os.getpid() not in greeted:  # sent at once: since Python 3.12 gevent cannot connect any more as a process ends
            logger.error("hello from %d", os.getpid())
            greeted.add(os.getpid())
        logger.info("request %s", environ["QUERY_STRING"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % os.getpid()]
    """


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["imported-by-each-worker", "preload"])
def test_what_the_greenlets_of_gunicorn_log_arrives_once(
    dis: DISEmulator, programs: Programs, options: list[str]
) -> None:
    pytest.importorskip("gevent", reason="has no wheel for this platform")
    programs.write("web.py", OF_GREENLETS)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        server = _serve(programs, listener, [*options, "--worker-class=gevent"])
        workers = {_get(listener.getsockname()[1], f"/?{number}") for number in range(REQUESTS)}
        assert dis.wait_for(lambda dis: sum("hello" in record.text for record in dis.records(STREAM)) == len(workers))
        server.signal(signal.SIGTERM)
        ended = server.wait()

    assert ended.returncode == 0, ended.errors
    assert ended.delivered == numbered("request", REQUESTS) + Counter(f"hello from {worker}" for worker in workers)
    assert not ended.reported


JOURNALED = """
    import logging, os
    from application import make_logger
    logger = make_logger("web")
    journal = os.open("journal", os.O_WRONLY | os.O_APPEND)

    def application(environ, start_response):
        logger.info("request %s", environ["QUERY_STRING"])
        os.write(journal, b"request %s\\n" % environ["QUERY_STRING"].encode())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % os.getpid()]
    """


@pytest.mark.parametrize("options", [[], ["--threads=4"]], ids=["sync", "threads"])
def test_what_workers_log_until_sigterm_ends_them_arrives_once(programs: Programs, options: list[str]) -> None:
    journal = programs.write("journal", "")
    programs.write("web.py", JOURNALED)
    numbers = itertools.count()
    answered: list[int] = []
    with ExitStack() as stack:
        clients = stack.enter_context(ThreadPoolExecutor(4))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        server = _serve(programs, listener, options)
        port = listener.getsockname()[1]
        enough = threading.Event()

        def request_on_and_on() -> None:
            with suppress(OSError, http.client.HTTPException):  # once the server has ended
                while True:
                    number = next(numbers)
                    _get(port, f"/?{number}")
                    answered.append(number)
                    if len(answered) > REQUESTS:
                        enough.set()

        for _ in range(4):
            clients.submit(request_on_and_on)
        assert enough.wait(60)
        server.signal(signal.SIGTERM)
        ended = server.wait()
        listener.close()  # resets what nobody has accepted

    logged = Counter(journal.read_text().splitlines())
    assert ended.returncode == 0, ended.errors
    assert ended.accounted == logged
    assert {f"request {number}" for number in answered} <= set(logged)
    assert not ended.reported


def _serve(programs: Programs, listener: socket.socket, options: list[str]) -> Program:
    return programs.start_command(
        *("-m", "gunicorn", "--workers=2", f"--bind=fd://{listener.fileno()}", "--log-level=warning"),
        *options,
        "web:application",
        pass_fds=(listener.fileno(),),
        flush_interval=60,
    )


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.read().decode()
    finally:
        connection.close()
