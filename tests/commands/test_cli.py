"""The command line, run as a user runs it."""

import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from dis_logging import HandlerStats, __version__
from dis_logging.cli import main
from dis_logging.commands.demo import _Books, _Note

SCRIPT = Path(sys.executable).with_name("dis-logging")
MODULE = (sys.executable, "-W", "error", "-m", "dis_logging")
HIDDEN = (
    "NO_COLOR",
    "TERM",
    "PYTHONIOENCODING",
    "PYTHONUNBUFFERED",
    "http_proxy",
    "HTTP_PROXY",
    "all_proxy",
    "ALL_PROXY",
)


def environment(**changes: str) -> dict[str, str]:
    """Returns this process's environment without what would change the output, and with *changes*."""
    return {**{name: value for name, value in os.environ.items() if name not in HIDDEN}, "TERM": "xterm", **changes}


def run(
    *arguments: str, command: Sequence[str | Path] = MODULE, stdout: int | IO[Any] = subprocess.PIPE, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end."""
    return subprocess.run(
        [*command, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(**changes),
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def run_on_terminal(**changes: str) -> tuple[int, str]:
    """Runs the demo with its stdout on a terminal and returns its exit code and what the terminal got."""
    terminal, stdout = pty.openpty()
    with subprocess.Popen([*MODULE, "demo"], stdout=stdout, env=environment(**changes)) as process:
        os.close(stdout)
        shown = b""
        while chunk := _read(terminal):
            shown += chunk
        os.close(terminal)
        return process.wait(60), shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux reports that the other side is closed
        return b""


def columns(text: str) -> int:
    """Returns how many columns *text* takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    """One run of the demo."""
    return run("demo")


def test_demo_succeeds_and_says_nothing_on_stderr(demo: subprocess.CompletedProcess[str]) -> None:
    assert (demo.returncode, demo.stderr) == (0, "")


def test_demo_fits_into_80_columns(demo: subprocess.CompletedProcess[str]) -> None:
    assert max(map(columns, demo.stdout.splitlines())) < 80


def test_demo_aligns_its_table_in_spite_of_wide_characters(demo: subprocess.CompletedProcess[str]) -> None:
    table = demo.stdout.split("\n\n")[1].splitlines()[1:]

    assert len(table) == 11
    assert {columns(row) for row in table} == {columns(table[0])}
    assert any(columns(row) > len(row) for row in table)


def test_demo_shows_where_each_record_went(demo: subprocess.CompletedProcess[str]) -> None:
    rows = [row.split() for row in demo.stdout.split("\n\n")[1].splitlines()[2:]]
    places = [(row[-3], row[-2]) for row in rows]

    assert [row[0] for row in rows] == [str(number) for number in range(1, 11)]
    assert {row[1] for row in rows} == {"DEBUG", "INFO", "WARNING", "ERROR"}
    assert len({row[2] for row in rows}) >= 4
    assert places.count(("fallback", "-")) == 1
    assert len(set(places)) == 10
    for partition in ("0", "1", "2"):
        sequence = [int(number) for where, number in places if where == partition]
        assert sequence == list(range(len(sequence)))


def test_demo_shows_what_was_sent_again_and_why(demo: subprocess.CompletedProcess[str]) -> None:
    assert "HTTP 200: 2 stored, 2 refused (DIS.4303)" in demo.stdout
    assert "HTTP 400, DIS.4303: nothing stored" in demo.stdout
    assert "3 records (3 again)" in demo.stdout


def test_demo_shows_the_traceback_and_what_the_fallback_received(demo: subprocess.CompletedProcess[str]) -> None:
    assert "PaymentError: the card for order 1002 was declined" in demo.stdout
    assert "DIS.4302 (Partition does not exist.) INFO shop.export" in demo.stdout


def test_demo_ends_with_counts_that_add_up(demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.stdout.endswith(
        "emitted 10 = delivered 9 + failed 1 + dropped 0 + buffered 0\n"
        "requests 5, records sent again 5, in the stream 9, in the fallback 1\n"
    )


def test_demo_shows_the_same_at_every_run(demo: subprocess.CompletedProcess[str]) -> None:
    assert run("demo", command=[SCRIPT]).stdout == demo.stdout


def test_demo_needs_neither_account_nor_proxy(demo: subprocess.CompletedProcess[str]) -> None:
    """Settings for the real service, all of them useless here, change nothing."""
    nowhere = "http://127.0.0.1:9"
    result = run(
        "demo",
        http_proxy=nowhere,
        ALL_PROXY=nowhere,
        DIS_LOGGING_ENDPOINT=nowhere,
        DIS_LOGGING_AUTH_TOKEN="token",
        DIS_LOGGING_STREAM_NAME="real-stream",
        HUAWEICLOUD_SDK_SECURITY_TOKEN="token",
    )

    assert (result.returncode, result.stdout) == (0, demo.stdout)


def test_demo_is_plain_where_nobody_looks(demo: subprocess.CompletedProcess[str]) -> None:
    assert "\x1b" not in demo.stdout


def test_demo_is_coloured_on_a_terminal() -> None:
    code, shown = run_on_terminal()

    assert code == 0
    assert "\x1b[31m" in shown


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(changes: dict[str, str], demo: subprocess.CompletedProcess[str]) -> None:
    assert run_on_terminal(**changes) == (0, demo.stdout.replace("\n", "\r\n"))


def test_demo_copes_with_a_poor_encoding() -> None:
    result = run("demo", PYTHONIOENCODING="ascii")

    assert result.returncode == 0
    assert "\\u8ba2\\u5355" in result.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_that_cannot_be_written_is_a_failure() -> None:
    with open("/dev/full", "w") as full:
        result = run("demo", stdout=full)

    assert result.returncode == 1
    assert result.stderr == "dis-logging: [Errno 28] No space left on device\n"


def test_reader_may_go_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as broken:
        result = run("demo", stdout=broken)

    assert result.returncode == 1
    assert result.stderr == "dis-logging: [Errno 32] Broken pipe\n"


def test_ctrl_c_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", Interrupted())

    assert main(["demo"]) == 130
    assert capsys.readouterr().err == ""


def test_records_that_are_not_accounted_for_are_a_failure() -> None:
    note = _Note("INFO", "shop.web", "lost", "INFO shop.web: lost")
    books = _Books([note], stored=[], requests=[], failed=[], stats=HandlerStats(1, 1, 0, 0, 0, 1, 0))

    faults = books.faults()

    assert faults[0] == "0 verdicts for: lost"
    assert "DIS holds 0" in faults[1]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["demo", "--help"], ["emulator", "--help"], ["check", "--help"], ["tail", "--help"]],
)
def test_help_has_an_example_and_the_exit_codes(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.returncode == 0
    command = "demo" if len(arguments) == 1 else arguments[0]
    assert re.search(f"^examples?:\n  dis-logging {command}$", result.stdout, re.MULTILINE)
    assert "2    wrong usage" in result.stdout


def test_no_command_gets_the_help_on_stderr() -> None:
    result = run()

    assert (result.returncode, result.stdout) == (2, "")
    assert "demo" in result.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["demo", "--nonsense"]])
def test_wrong_usage_is_told_without_a_traceback(arguments: list[str]) -> None:
    result = run(*arguments)

    assert (result.returncode, result.stdout) == (2, "")
    assert "nonsense" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["demo", "emulator", "send", "check", "tail"])
def test_an_unknown_option_of_a_command_is_told_with_the_usage_of_that_command(name: str) -> None:
    result = run(name, "--nonsense")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"usage: dis-logging {name} ")
    assert result.stderr.endswith("unrecognized arguments: --nonsense\n")


def test_version_is_told() -> None:
    assert run("--version").stdout == f"dis-logging {__version__}\n"


def test_importing_the_package_imports_no_emulator() -> None:
    program = "import sys, dis_logging; print(*sys.modules)"
    modules = set(run("-c", program, command=[sys.executable]).stdout.split())

    assert "dis_logging.handler" in modules
    assert not modules & {
        "dis_logging.emulator",
        "dis_logging.commands.demo",
        "dis_logging.commands.check",
        "dis_logging.cli",
        "argparse",
        "http.server",
    }
