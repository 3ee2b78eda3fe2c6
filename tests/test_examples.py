"""Every program under examples/, run as a reader would run it."""

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
from dis_logging.emulator.faults import Refuse

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = ["put_records.py", "script.py", "dictconfig.py", "django_project/run.py"]
# What an account, a proxy or another Django project may have left in the environment.
HIDDEN = re.compile(r"DIS_LOGGING_.*|HUAWEICLOUD_.*|DJANGO_.*|.*_proxy", re.IGNORECASE)


def clean_environment() -> dict[str, str]:
    """Returns the environment of somebody who has configured nothing."""
    kept = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}


def run(program: str, where: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs an example in the directory *where*, in a clean environment with *variables*."""
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / program, *arguments],
        cwd=where,
        env={**clean_environment(), **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def account_at(dis: DISEmulator) -> dict[str, str]:
    """Returns the environment variables of somebody who has an account at *dis*."""
    return {
        "DIS_LOGGING_ENDPOINT": dis.endpoint,
        "HUAWEICLOUD_SDK_REGION": dis.region,
        "HUAWEICLOUD_SDK_PROJECT_ID": dis.project_id,
        "HUAWEICLOUD_SDK_AK": dis.ak,
        "HUAWEICLOUD_SDK_SK": dis.sk,
    }


def test_every_example_is_run_here() -> None:
    programs = {
        str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py") if "__main__" in path.read_text("utf-8")
    }

    assert programs == {*PROGRAMS, "django_project/manage.py", "with_local_dis.py", "celery_app/send.py"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_example_succeeds_without_an_account(program: str, tmp_path: Path) -> None:
    result = run(program, tmp_path)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_example_uses_the_account_that_is_configured(program: str, tmp_path: Path) -> None:
    with DISEmulator(streams={"dis-demo": 3, "app-logs": 3, "web-logs": 3}) as dis:
        result = run(program, tmp_path, **account_at(dis))
        stored = sum(dis.record_count(name) for name in ("dis-demo", "app-logs", "web-logs"))

    assert (result.returncode, result.stderr) == (0, "")
    assert stored == {"put_records.py": 3, "script.py": 4, "dictconfig.py": 2, "django_project/run.py": 3}[program]


def test_put_records_prints_what_the_official_page_prints(tmp_path: Path) -> None:
    assert run("put_records.py", tmp_path).stdout == (
        "PutRecordsResultEntry [shardId=shardId-0000000000, sequenceNumber=0, errorCode=, errorMessage=]\n"
        "PutRecordsResultEntry [shardId=shardId-0000000000, sequenceNumber=1, errorCode=, errorMessage=]\n"
        "PutRecordsResultEntry [shardId=shardId-0000000000, sequenceNumber=2, errorCode=, errorMessage=]\n"
        "failed record count: 0\n"
    )


def test_put_records_uploads_the_data_of_the_official_page(tmp_path: Path) -> None:
    with DISEmulator(streams={"another": 3}) as dis:
        run("put_records.py", tmp_path, DIS_LOGGING_STREAM_NAME="another", **account_at(dis))
        (request,) = dis.requests

    assert [entry.text for entry in request.entries] == [f"shardId-0000000000{number}" for number in range(3)]
    assert {(entry.partition_key, entry.explicit_hash_key) for entry in request.entries} == {("1", "123")}


def test_script_tells_what_was_delivered(tmp_path: Path) -> None:
    counts, *records = run("script.py", tmp_path).stdout.splitlines()

    assert "emitted=4, delivered=4, failed=0, dropped=0, buffered=0" in counts
    assert [int(record.split()[1].rstrip(":")) for record in records] == [0, 1, 2, 3]
    assert records[1].endswith("李雷 owes 100 on average")


def test_script_fails_when_records_were_not_delivered(tmp_path: Path) -> None:
    with DISEmulator(streams={"app-logs": 3}) as dis:
        dis.set_rule(Refuse(400, "DIS.4301"))
        result = run("script.py", tmp_path, **account_at(dis))

    assert result.returncode == 1
    assert result.stderr.count("dis_logging: not delivered: DIS.4301") == 4


def test_dictconfig_sends_what_fits_and_files_what_does_not(tmp_path: Path) -> None:
    first, second, filed = run("dictconfig.py", tmp_path).stdout.splitlines()

    assert first.endswith("INFO shop.orders order 1001 accepted")
    assert second.endswith("WARNING shop.stock 绿茶 is running low")
    assert "too_large" in filed
    assert (tmp_path / "undelivered.log").read_text("utf-8").count("\n") == 1


def test_django_ships_its_errors_and_the_records_of_the_application(tmp_path: Path) -> None:
    output = run("django_project/run.py", tmp_path).stdout

    assert output.splitlines()[:3] == ["GET /orders/1001/ -> 200", "GET /no-such-page/ -> 404", "GET /broken/ -> 500"]
    assert "INFO shop.views order 1001 shown to 127.0.0.1" in output
    assert "WARNING django.request Not Found: /no-such-page/" in output
    assert "ERROR django.request Internal Server Error: /broken/\nTraceback" in output
    assert output.endswith("LookupError: no price for /broken/\n")


def test_django_project_has_a_command_line(tmp_path: Path) -> None:
    result = run("django_project/manage.py", tmp_path, "check")

    assert result.returncode == 0
    assert "no issues" in result.stdout


# -- servers ------------------------------------------------------------------------------------------------------------

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


def test_with_local_dis_asks_for_a_command(tmp_path: Path) -> None:
    result = run("with_local_dis.py", tmp_path, "web-logs")

    assert result.returncode == 1
    assert re.fullmatch(r"usage: .*with_local_dis\.py STREAM MODULE ARGUMENTS\.\.\.\n", result.stderr)
