"""A prefork server delivers what its workers log, each record once."""

import http.client
import signal
import socket
from collections import Counter

import pytest

from tests.process.programs import Programs, numbered

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
        server = programs.start_command(
            *("-m", "gunicorn", "--workers=2", f"--bind=fd://{listener.fileno()}", "--log-level=warning"),
            *options,
            "web:application",
            pass_fds=(listener.fileno(),),
            flush_interval=60,
        )
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


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.read().decode()
    finally:
        connection.close()
