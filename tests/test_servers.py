"""The examples that are servers, started by their own commands as real processes."""

import ast
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dis_logging.emulator import DISEmulator
from tests.test_examples import EXAMPLES, account_at, clean_environment, run

VISITS = 20


def command(file: str, tool: str) -> list[str]:
    """Returns what the docstring of an example says to give to Python, of its commands the one with *tool*."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / file).read_text("utf-8"))) or ""
    lines = re.findall(r"^ +python (.+)$", docstring.replace("\\\n", " "), re.MULTILINE)
    (arguments,) = (words for words in map(shlex.split, lines) if tool in words)
    return arguments


class Server:
    """An example that serves until it is told to end, started by its own command from the top of the repository."""

    def __init__(self, dis: DISEmulator, directory: Path, arguments: list[str], variables: dict[str, str]) -> None:
        self._dis = dis
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=EXAMPLES.parent,
                env={**clean_environment(), "PYTHONUNBUFFERED": "1", "HOME": str(directory), **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text("utf-8")

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """Waits until it has printed or logged *pattern* so often, and returns the first that was found."""
        found: list[str] = []

        def look(dis: DISEmulator) -> bool:
            logged = [record.text for name in dis.stream_names for record in dis.records(name)]
            found[:] = re.findall(pattern, "\n".join([self.output, *logged]))
            return len(found) >= times or self._process.poll() is not None

        assert self._dis.wait_for(look, 30), self.output
        assert found, self.output
        return found[0]

    def visit(self) -> list[int]:
        """Requests pages that are there, one that is not and one that fails; returns the status of each answer."""
        port = self.wait_for(r"http://127\.0\.0\.1:([1-9]\d*)")
        pages = [*(f"/orders/{number}/" for number in range(VISITS)), "/no-such-page/", "/broken/"]
        return [_status(f"http://127.0.0.1:{port}{page}") for page in pages]

    def end(self, number: signal.Signals) -> int:
        """Ends it as Ctrl-C at a terminal does, which reaches all of its processes, or as SIGTERM from a supervisor."""
        if number == signal.SIGINT:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end: {self.output}")

    def close(self) -> None:
        """Ends what a failed test has left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class Servers:
    """Starts servers, and reads what those that have the *account* have logged."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Server] = []
        self.dis = DISEmulator(streams={"web-logs": 3, "task-logs": 3})

    @property
    def account(self) -> dict[str, str]:
        """The environment variables of an account at the emulator."""
        return account_at(self.dis)

    def start(self, *arguments: str, **variables: str) -> Server:
        """Starts one, with these environment variables."""
        self._started.append(Server(self.dis, self._directory, list(arguments), variables))
        return self._started[-1]

    def logged(self, *loggers: str) -> Counter[str]:
        """Returns how often each record of these loggers is in the ledger: level, logger and message of its first line."""
        records = [record for name in self.dis.stream_names for record in self.dis.records(name)]
        lines = [record.text.splitlines()[0] for record in records if record.partition_key in loggers]
        return Counter(line.split(" ", 2)[2] for line in lines)

    def close(self) -> None:
        """Ends all of them."""
        for server in self._started:
            server.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers, and sees to it that Ctrl-C ends them even if pytest itself runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = Servers(tmp_path)
    with running.dis:
        try:
            yield running
        finally:
            running.close()
            signal.signal(signal.SIGINT, before)


def orders(line: str) -> Counter[str]:
    """Returns what is logged when all orders are visited."""
    return Counter(line.format(number) for number in range(VISITS))


@pytest.mark.parametrize(
    ("file", "tool", "options", "ending"),
    [
        ("django_project/manage.py", "runserver", ["--noreload", "127.0.0.1:0"], signal.SIGINT),
        ("django_project/mysite/wsgi.py", "gunicorn", ["--bind=127.0.0.1:0"], signal.SIGTERM),
    ],
    ids=["runserver", "gunicorn"],
)
def test_django_delivers_every_record_once(
    servers: Servers, file: str, tool: str, options: list[str], ending: signal.Signals
) -> None:
    server = servers.start(*command(file, tool), *options, **servers.account)

    assert server.visit() == [200] * VISITS + [404, 500]
    assert server.end(ending) == 0, server.output
    assert servers.logged("shop.views") == orders("INFO shop.views order {} shown to 127.0.0.1")
    assert servers.logged("django.request") == {
        "WARNING django.request Not Found: /no-such-page/": 1,
        "ERROR django.request Internal Server Error: /broken/": 1,
    }
    assert "not delivered" not in server.output


def test_djangos_own_server_prints_what_arrived_in_a_local_dis_of_its_own(servers: Servers) -> None:
    server = servers.start(*command("django_project/manage.py", "runserver"), "--noreload", "127.0.0.1:0")

    assert server.visit() == [200] * VISITS + [404, 500]
    assert server.end(signal.SIGINT) == 0, server.output
    printed = Counter(re.findall(r"^shardId-\d+ \d+: \S+ \S+ (INFO .*)$", server.output, re.MULTILINE))
    assert printed == orders("INFO shop.views order {} shown to 127.0.0.1")


def test_flask_delivers_every_record_once(servers: Servers) -> None:
    server = servers.start(*command("flask_app/app.py", "flask"), "--port=0", **servers.account)

    assert server.visit() == [200] * VISITS + [404, 500]
    assert server.end(signal.SIGINT) == 0, server.output
    assert servers.logged("app") == orders("INFO app order {} shown to 127.0.0.1") + Counter(
        ["ERROR app Exception on /broken/ [GET]"]
    )
    assert servers.logged("werkzeug").total() > VISITS
    assert "order 1 shown" not in server.output  # Flask's own handler would print it
    assert "not delivered" not in server.output


def test_server_without_an_account_logs_to_a_local_dis_of_its_own(servers: Servers) -> None:
    server = servers.start(*command("flask_app/app.py", "gunicorn"), "--bind=127.0.0.1:0")

    assert server.visit() == [200] * VISITS + [404, 500]
    assert server.end(signal.SIGTERM) == 0, server.output
    printed = Counter(re.findall(r"^shardId-\d+ \d+: \S+ \S+ (.*)$", server.output, re.MULTILINE))
    assert printed == orders("INFO app order {} shown to 127.0.0.1") + Counter(
        ["ERROR app Exception on /broken/ [GET]"]
    )


def test_fastapi_delivers_every_record_of_each_worker_once(servers: Servers) -> None:
    server = servers.start(*command("fastapi_app/app.py", "uvicorn"), "--port=0", **servers.account)
    server.wait_for("Application startup complete", times=2)

    assert server.visit() == [200] * VISITS + [404, 500]
    assert server.end(signal.SIGTERM) == 0, server.output
    assert servers.logged("shop.orders") == orders("INFO shop.orders order {} shown")
    assert servers.logged("uvicorn.access").total() == VISITS + 2
    events = Counter(re.sub(r" \[\d+\]", "", line) for line in servers.logged("uvicorn.error").elements())
    assert events["ERROR uvicorn.error Exception in ASGI application"] == 1
    assert events["INFO uvicorn.error Finished server process"] == 2
    assert events["INFO uvicorn.error Stopping parent process"] == 1
    assert "not delivered" not in server.output


def test_celery_delivers_every_record_of_its_pool_once(servers: Servers, tmp_path: Path) -> None:
    broker = {"SHOP_BROKER_DIRECTORY": str(tmp_path / "broker")}
    sent = run("celery_app/send.py", tmp_path, **broker)
    worker = servers.start(*command("celery_app/tasks.py", "worker"), **servers.account, **broker)
    worker.wait_for("Task .* received", times=4)

    assert worker.end(signal.SIGTERM) == 0, worker.output
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, "4 tasks wait for a worker\n", "")
    assert servers.logged("tasks") == Counter(
        f"INFO tasks {name} is billed" for name in ("李雷", "Jørgen", " ", "Ольга")
    )
    outcomes = Counter(re.sub(r"\[.*?\]| in .*", "", line) for line in servers.logged("celery.app.trace").elements())
    assert outcomes == {
        "INFO celery.app.trace Task tasks.bill succeeded": 3,
        "ERROR celery.app.trace Task tasks.bill raised unexpected: ValueError('there is nobody to bill')": 1,
    }
    assert "is billed" not in worker.output  # Celery's own handler would print it
    assert "not delivered" not in worker.output
