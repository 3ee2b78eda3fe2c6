"""``dis-logging emulator``, run as a user runs it."""

import argparse
import ast
import logging.config
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dis_logging import DISClient, DISHandler, PutRecordsRequestEntry
from dis_logging.commands import emulator
from dis_logging.emulator import DISEmulator

# The command by itself, because how it is reached is the command line's business.
PROGRAM = """
import argparse, sys
from dis_logging.commands import emulator
parser = argparse.ArgumentParser("dis-logging emulator")
emulator.add_arguments(parser)
sys.exit(emulator.run(parser.parse_args()))
"""

Start = Callable[..., "Running"]


class Running:
    """The command in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def settings(self) -> str:
        """Waits until the command serves and returns what it has printed."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        return "".join(lines)

    def end(self, signal_number: int) -> tuple[int, str]:
        """Sends a signal and returns exit code and stderr."""
        self.process.send_signal(signal_number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@pytest.fixture
def start() -> Iterator[Start]:
    """Returns a function that starts the command; what still runs after the test is ended."""
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(*arguments))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.communicate()


def environment(settings: str) -> dict[str, str]:
    """Returns the variables that the printed commands of a shell set."""
    exports = [shlex.split(line)[1] for line in settings.splitlines() if line.startswith("export ")]
    return dict(export.split("=", 1) for export in exports)


def logging_of(settings: str) -> dict[str, Any]:
    """Returns the value of the printed LOGGING."""
    (assignment,) = ast.parse(settings[settings.index("LOGGING = ") :]).body
    assert isinstance(assignment, ast.Assign)
    value: dict[str, Any] = ast.literal_eval(assignment.value)
    return value


def upload(settings: str, text: str) -> str:
    """Uploads one record with the printed settings and returns its sequence number."""
    options: dict[str, Any] = {
        name.removeprefix("DIS_LOGGING_").lower(): value for name, value in environment(settings).items()
    }
    stream = options.pop("stream_name")
    (result,) = DISClient(**options).put_records(stream, [PutRecordsRequestEntry(data=text)]).records
    assert not result.error_code
    return result.sequence_number


def test_printed_environment_leads_a_handler_to_the_emulator(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "dis.sqlite")
    running = start("--file", file, "--stream", "audit:2")
    for name, value in environment(running.settings()).items():
        monkeypatch.setenv(name, value)

    handler = DISHandler()
    handler.handle(logging.makeLogRecord({"msg": "from the environment", "name": "app"}))
    handler.close()
    running.end(signal.SIGTERM)

    assert [stored.text for stored in DISEmulator(file=file).records("audit")] == ["from the environment"]


def test_printed_logging_leads_a_handler_to_the_emulator(start: Start, tmp_path: Path, restored_logging: None) -> None:
    file = str(tmp_path / "dis.sqlite")
    running = start("--file", file)
    logging.config.dictConfig(logging_of(running.settings()))

    logging.getLogger("app").warning("from LOGGING")
    logging.shutdown()
    running.end(signal.SIGTERM)

    assert [stored.text for stored in DISEmulator(file=file).records("app-logs")] == ["from LOGGING"]


def test_streams_have_the_partitions_that_were_asked_for(start: Start, tmp_path: Path) -> None:
    file = str(tmp_path / "dis.sqlite")
    running = start("--file", file, "--stream", "a:3", "--stream", "b")
    assert environment(running.settings())["DIS_LOGGING_STREAM_NAME"] == "a"
    running.end(signal.SIGTERM)

    DISEmulator({"a": 3, "b": 1}, file=file)


def test_file_continues_without_naming_its_streams(start: Start, tmp_path: Path) -> None:
    file = str(tmp_path / "dis.sqlite")
    numbers = []
    for arguments in (("--stream", "audit"), ()):
        running = start("--file", file, *arguments)
        numbers.append(upload(running.settings(), "x"))
        running.end(signal.SIGTERM)

    assert numbers == ["0", "1"]


def test_port_may_be_chosen(start: Start) -> None:
    with DISEmulator() as other:
        port = other.port
    running = start("--port", str(port))

    assert environment(running.settings())["DIS_LOGGING_ENDPOINT"] == f"http://127.0.0.1:{port}"


def test_throttle_is_passed_on(start: Start) -> None:
    running = start("--throttle")
    options = logging_of(running.settings())["handlers"]["dis"]
    client = DISClient(**{name: value for name, value in options.items() if name not in ("class", "stream_name")})

    result = client.put_records("app-logs", [PutRecordsRequestEntry(data="x")] * 5000)

    assert result.failed_record_count > 0


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_in_peace(start: Start, signal_number: int) -> None:
    running = start()
    upload(running.settings(), "x")

    code, errors = running.end(signal_number)

    first, last = errors.splitlines()
    assert code == 0
    assert first.startswith("A local DIS serves at http://127.0.0.1:")
    assert first.endswith(" the stream app-logs. Ctrl-C ends it.")
    assert last == "app-logs holds 1 record; refused: nothing"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")
def test_signal_that_reaches_a_connections_thread_ends_it_too() -> None:
    """The kernel may give a process's signal to any thread, and does so while one is being started."""
    helper = (
        "import threading\n"
        "def end():\n"
        "    sys.stdin.readline()\n"
        "    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)\n"
        "threading.Thread(target=end, daemon=True).start()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", "import signal, sys\n" + helper + PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "}\n":
                break
        try:
            _, errors = process.communicate("now\n", timeout=30)
        finally:
            process.kill()

    assert process.returncode == 0, errors


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--stream", "a b"), "'a b' is not 1 to 64 letters"),
        (("--stream", "a:0"), "'a:0' does not have 1 to 1000 partitions"),
        (("--stream", "a:x"), "'a:x' does not have 1 to 1000 partitions"),
        (("--stream", "a:"), "'a:' does not have 1 to 1000 partitions"),
        (("--port", "65536"), "'65536' is not a port"),
        (("--port", "http"), "'http' is not a port"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)

    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_streams_that_do_not_fit_the_file_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "dis.sqlite")
    DISEmulator({"app-logs": 3}, file=file)

    code = emulator.run(parse("--file", file, "--stream", "app-logs:2"))

    assert code == 2
    assert "stream 'app-logs' has 3 partitions in the file, not 2" in capsys.readouterr().err


def test_taken_port_is_an_error() -> None:
    with DISEmulator() as other, pytest.raises(OSError, match=r"port \d+ of 127.0.0.1 is in use; take another one"):
        emulator.run(parse("--port", str(other.port)))


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    emulator.add_arguments(parser)
    return parser.parse_args(arguments)
