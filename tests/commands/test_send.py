"""``dis-logging send``, run as a user runs it, against an emulator that accounts for every line."""

import os
import pty
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dis_logging.cli import main
from dis_logging.client.wire import MAX_RECORD_BYTES
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang, Refuse, RefuseEntries
from tests.conftest import STREAM

SEND = (sys.executable, "-W", "error", "-m", "dis_logging", "send")
HIDDEN = re.compile(r"DIS_LOGGING_.*|HUAWEICLOUD_.*|.*_proxy", re.IGNORECASE)
TOO_LONG = b"x" * (MAX_RECORD_BYTES + 1)
ODD_LINES = (b"plain", "grün 茶".encode(), b"\xff\xfe no UTF-8", b"", b"\r", b"carriage return\r", b"\0", b"  blanks  ")

Start = Callable[..., "Running"]


class Running:
    """The command in a process of its own; a process group of its own, as in a shell with job control."""

    def __init__(self, command: list[str], environment: dict[str, str], directory: Path, **options: Any) -> None:
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )

    def write(self, data: bytes) -> None:
        """Gives the command something to read and leaves its stdin open."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self, data: bytes = b"") -> tuple[int, str]:
        """Gives it the rest to read and returns its exit code and stderr; it has written nothing to stdout."""
        output, errors = self.process.communicate(data, timeout=60)
        assert output == b""
        return self.process.returncode, errors.decode()


@pytest.fixture
def account(dis: DISEmulator) -> dict[str, str]:
    """The environment of a user whose account is at the emulator."""
    settings = {f"DIS_LOGGING_{name.upper()}": value for name, value in dis.handler_options(STREAM).items()}
    kept = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}
    paths = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return {**kept, "PATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **settings}


@pytest.fixture
def start(account: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Returns a function that starts the command; what still runs after the test is killed."""
    started: list[Running] = []

    def start(*arguments: str, command: tuple[str, ...] = SEND, **options: Any) -> Running:
        started.append(Running([*command, *arguments], account, tmp_path, **options))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.communicate()


def stored(dis: DISEmulator) -> list[bytes]:
    """Returns the lines that DIS holds, in order of arrival: an empty one is there as a newline."""
    return [b"" if record.data == b"\n" else record.data for record in dis.records(STREAM)]


def lines_of(data: bytes) -> Counter[bytes]:
    """Returns how often *data* has each line."""
    return Counter(data.removesuffix(b"\n").split(b"\n"))


def told_command(errors: str, about: str) -> str:
    """Returns the command that stderr offers for something."""
    (line,) = (line for line in errors.splitlines() if about in line)
    return line.split(about, 1)[1]


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_lines_of_a_file_arrive_byte_for_byte_in_order_under_its_name(
    start: Start, dis: DISEmulator, tmp_path: Path
) -> None:
    (tmp_path / "odd.log").write_bytes(b"\n".join(ODD_LINES))

    code, errors = start("./odd.log").end()

    assert code == 0
    assert stored(dis) == list(ODD_LINES)
    assert {record.partition_key for record in dis.records(STREAM)} == {"odd.log"}
    assert re.fullmatch(
        r"dis-logging send: 8 lines read \(60 bytes\), 8 delivered, 0 failed, 0 sent again, in \d+\.\d s\n", errors
    )


def test_stdin_is_read_where_it_stands_among_the_files(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"1\n")
    (tmp_path / "last").write_bytes(b"3\n")

    code, _ = start("first", "-", "last").end(b"2a\n2b")

    assert code == 0
    assert {record.text: record.partition_key for record in dis.records(STREAM)} == {
        "1": "first",
        "2a": "stdin",
        "2b": "stdin",
        "3": "last",
    }


def test_key_and_stream_may_be_chosen(start: Start, dis: DISEmulator) -> None:
    dis.create_stream("audit")

    code, _ = start("--stream", "audit", "--key", "schlüssel").end(b"a\n")

    assert code == 0
    assert [(record.text, record.partition_key) for record in dis.records("audit")] == [("a", "schlüssel")]


def test_nothing_to_send_is_done_at_once(start: Start) -> None:
    code, errors = start().end()

    assert code == 0
    assert "0 lines read (0 bytes), 0 delivered, 0 failed" in errors


def test_a_throttled_stream_gets_everything_in_the_end(account: dict[str, str], start: Start, tmp_path: Path) -> None:
    data = b"".join(b"line %d\n" % number for number in range(2500))
    with DISEmulator({STREAM: 1}, throttle=True) as throttled:
        account["DIS_LOGGING_ENDPOINT"] = throttled.endpoint
        code, errors = start("--failed", "undelivered").end(data)

        assert (code, Counter(stored(throttled))) == (0, lines_of(data))
        assert throttled.refused["DIS.4303"] > 0
    assert "2500 delivered, 0 failed" in errors
    assert ", 0 sent again" not in errors
    assert not (tmp_path / "undelivered").exists()


def test_a_slow_service_slows_the_reading_down(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    """While DIS takes its time, more lines come than may wait."""
    lines = [b"line %d" % number for number in range(8_000)]
    dis.play(Hang(seconds=0.7))

    code, errors = start().end(b"\n".join(lines))

    assert code == 0, errors
    assert stored(dis) == lines


# -- what fails -------------------------------------------------------------------------------------------------------


def test_failed_lines_can_be_sent_again_until_everything_is_stored_once(
    start: Start, dis: DISEmulator, tmp_path: Path
) -> None:
    """Each time DIS refuses one line in ten of what is left, whatever its bytes."""
    lines = [*ODD_LINES, *(b"line %d \xff" % number for number in range(100)), b"line 7 \xff"]
    (tmp_path / "input").write_bytes(b"\n".join(lines))
    command = shlex.join([*SEND, "--failed", "undelivered", "input"])
    codes: list[int] = []

    with dis.rule(RefuseEntries("DIS.4302", where=range(3, 1000, 10))):
        while not codes or codes[-1] == 1:
            code, errors = start("-c", command, command=("bash",)).end()
            codes.append(code)
            command = told_command(errors, "to send the failed lines again: ") if code == 1 else ""

    assert codes == [1, 1, 0]
    assert Counter(stored(dis)) == Counter(lines)
    assert {record.partition_key for record in dis.records(STREAM)} == {"input"}


def test_a_dead_service_costs_no_line(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    data = b"".join(b"line %d \xff\n" % number for number in range(700))
    dis.stop()

    code, errors = start("--timeout", "0.2", "--failed", "undelivered").end(data)

    assert code == 1
    assert "0 delivered, 700 failed (700 x network)" in errors
    assert "dis-logging send: network: no connection to DIS: Connection refused\n" in errors
    assert (tmp_path / "undelivered").read_bytes() == data

    dis.start()
    code, _ = start("-c", told_command(errors, "again: "), command=("bash",)).end()

    assert (code, stored(dis)) == (0, data.splitlines())


def test_a_line_that_no_record_can_hold_fails_alone(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    longest = b"y" * MAX_RECORD_BYTES
    data = b"\n".join([b"before", TOO_LONG, longest, TOO_LONG * 3, b"after", TOO_LONG])

    code, errors = start("--failed", "undelivered").end(data)

    assert code == 1
    assert stored(dis) == [b"before", longest, b"after"]
    assert "6 lines read (6.0 MiB), 3 delivered, 3 failed (3 x too_large)" in errors
    assert (tmp_path / "undelivered").read_bytes() == b"\n".join([TOO_LONG, TOO_LONG * 3, TOO_LONG, b""])


def test_a_line_that_never_ends_takes_no_memory(start: Start, tmp_path: Path) -> None:
    limit = 512 * 2**20  # of address space, of which threads and libraries take most

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    (tmp_path / "zeros").touch()
    os.truncate(tmp_path / "zeros", limit)
    code, errors = start("zeros", preexec_fn=limited).end()

    assert code == 1
    assert f"too_large (line 1 of zeros has {limit} bytes, DIS takes {MAX_RECORD_BYTES}; this is its" in errors
    assert len(errors) < 2000


def test_without_a_file_failed_lines_are_shown(start: Start, dis: DISEmulator) -> None:
    with dis.rule(RefuseEntries("DIS.4302", where=lambda entry: entry.data.startswith(b"bad"))):
        code, errors = start().end(b"good\nbad \xff\x1b\n")

    assert code == 1
    assert "dis-logging send: not delivered: DIS.4302 (Partition does not exist.): bad \\udcff\\x1b\n" in errors
    assert "Traceback" not in errors


def test_a_full_disk_moves_whole_lines_to_stderr(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))

    with dis.rule(RefuseEntries("DIS.4302")):
        running = start("--failed", "undelivered", preexec_fn=limited)
        code, errors = running.end(b"first\nsecond\nlast\n" + TOO_LONG)

    assert code == 1
    assert (tmp_path / "undelivered").read_bytes() == b"first\n"
    assert errors.count("not delivered: DIS.4302") == 2
    assert errors.count("not delivered: too_large") == 1
    assert "3 of the failed lines did not go to undelivered, they are on stderr" in errors


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file that cannot be read")
def test_a_file_that_cannot_be_read_to_its_end_stops_no_other(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"1\n")
    (tmp_path / "last").write_bytes(b"3\n")

    code, errors = start("first", "/proc/self/mem", "last").end()

    assert code == 1
    assert sorted(stored(dis)) == [b"1", b"3"]
    assert "cannot read /proc/self/mem after line 0: Input/output error" in errors


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_stderr_that_takes_nothing_costs_no_line(start: Start, dis: DISEmulator, redirection: str) -> None:
    code, _ = start("-c", f"{shlex.join(SEND)} {redirection}", command=("bash",)).end(b"a line\n")

    assert (code, stored(dis)) == (0, [b"a line"])


# -- interrupted ------------------------------------------------------------------------------------------------------


def test_an_interrupted_file_can_be_finished_without_loss_or_double(
    start: Start, dis: DISEmulator, tmp_path: Path
) -> None:
    """More lines than the buffer takes, so that the reading waits for DIS, which takes no more after a while."""
    data = b"".join(b"line %d \xff%s\n" % (number, bytes(70)) for number in range(9_000)) + b"the end"
    (tmp_path / "input").write_bytes(data)
    refusal = Refuse(400, "DIS.4303")

    with dis.rule(refusal, where=lambda request: request.number > 3):
        running = start("--timeout", "1", "--failed", "undelivered", "input")
        assert dis.wait_for(lambda dis: len(dis.requests) > 3)
        running.process.send_signal(signal.SIGINT)
        code, errors = running.end()

    assert code == 130
    assert dis.record_count(STREAM) == 1500
    failed = (tmp_path / "undelivered").read_bytes().splitlines()
    assert failed == data.splitlines()[1500 : 1500 + len(failed)]
    assert f"{1500 + len(failed)} lines read" in errors
    assert 1500 + len(failed) < 9_000

    assert "--timeout=1 --failed=undelivered.rest" in told_command(errors, "; to go on: ")
    for about in ("to send the failed lines again: ", "; to go on: "):
        code, _ = start("-c", told_command(errors, about), command=("bash",)).end()
        assert code == 0
    assert Counter(stored(dis)) == lines_of(data)
    assert {record.partition_key for record in dis.records(STREAM)} == {"input"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_puts_away_all_that_came_through_a_pipe(
    start: Start, dis: DISEmulator, tmp_path: Path, number: signal.Signals
) -> None:
    with dis.rule(Refuse(400, "DIS.4303")):
        running = start("--timeout", "0.3", "--failed", "undelivered")
        running.write(b"one\n\ntwo\nhalf a li")
        assert dis.wait_for(lambda dis: dis.requests)
        running.process.send_signal(number)
        code, errors = running.end()

    assert code == 130
    assert (tmp_path / "undelivered").read_bytes() == b"one\n\ntwo\nhalf a li\n"
    assert "Traceback" not in errors


def test_what_came_through_a_pipe_is_delivered_though_interrupted(
    start: Start, dis: DISEmulator, tmp_path: Path
) -> None:
    dis.play(Refuse(400, "DIS.4303"))
    running = start("--failed", "undelivered")
    running.write(b"one\n")
    assert dis.wait_for(lambda dis: dis.requests)
    running.process.send_signal(signal.SIGINT)
    code, errors = running.end()

    assert (code, stored(dis)) == (130, [b"one"])
    assert not (tmp_path / "undelivered").exists()
    assert "interrupted, delivering what was read" in errors


def test_all_that_was_read_of_a_file_is_delivered_though_interrupted(
    start: Start, dis: DISEmulator, tmp_path: Path
) -> None:
    """The reading thread has more lines in hand than the handler takes at once."""
    lines = [b"%08d" % number for number in range(50_000)]
    (tmp_path / "input").write_bytes(b"\n".join(lines))

    with dis.rule(Hang(0.05)):
        running = start("--failed", "undelivered", "input")
        assert dis.wait_for(lambda dis: dis.requests)
        running.process.send_signal(signal.SIGINT)
        code, errors = running.end()

    assert code == 130
    assert not (tmp_path / "undelivered").exists()
    assert 5_000 < dis.record_count(STREAM) < 50_000
    assert stored(dis) == lines[: dis.record_count(STREAM)]
    assert f"{dis.record_count(STREAM)} lines read" in errors


def test_what_was_not_read_is_told_with_files_that_do_not_exist(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"line\n" * 100_000)
    (tmp_path / "second").write_bytes(b"last\n")
    (tmp_path / "failed.rest").touch()
    with dis.rule(Refuse(400, "DIS.4303"), where=lambda request: request.number > 1):
        running = start("--stream=app-logs", "--timeout=0.5", "--key=k", "--failed=failed", "first", "second")
        assert dis.wait_for(lambda dis: len(dis.requests) > 1)
        running.process.send_signal(signal.SIGINT)
        code, errors = running.end()

    assert code == 130
    options = "--stream=app-logs --key=k --timeout=0.5"
    assert told_command(errors, "; to go on: ").endswith(f"dis-logging send {options} --failed=failed.rest1")
    assert told_command(errors, "; to send it: ") == f"dis-logging send {options} --failed=failed.rest2 second"
    assert told_command(errors, "again: ") == f"dis-logging send {options} --failed=failed.again failed"


def test_a_long_line_that_is_interrupted_stays_in_its_file(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"one\n")
    os.truncate(tmp_path / "input", 64 * 2**30)  # sparse; it takes a while to read
    running = start("input")
    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 1)
    running.process.send_signal(signal.SIGINT)
    code, errors = running.end()

    assert code == 130
    assert "1 lines read" in errors
    assert "input was read up to line 1; to go on: tail -n +2 input | " in errors


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["missing"], "cannot read missing: No such file or directory"),
        (["input", "."], "cannot read .: Is a directory"),
        (["-", "-"], "'-' may be given once"),
        (["input", "other", "--failed", "new"], "give one --key, or send the files one by one"),
        (["input", "--failed", "input"], "--failed: 'input' exists already"),
        (["input", "--failed", "./link"], "--failed: './link' exists already"),
        (["new", "--failed", "new"], "cannot read new: No such file or directory"),
        (["input", "--failed", "missing/new"], "--failed: cannot make 'missing/new': No such file or directory"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    account: dict[str, str],
    dis: DISEmulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    for name, value in account.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for name in ("input", "other"):
        Path(name).write_text("a line\n")
    Path("link").symlink_to("input")

    code = main(["send", *arguments])

    output, errors = capfd.readouterr()
    assert (code, output) == (2, "")
    assert complaint in errors
    assert errors.startswith("dis-logging send: ")
    assert errors.count("\n") == 1
    assert not dis.requests
    assert Path("input").read_text() == "a line\n"
    assert not Path("new").exists()


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_that_is_none_is_told(timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["send", f"--timeout={timeout}"])

    assert ended.value.code == 2
    assert f"argument --timeout: '{timeout}' is not a number of seconds" in capsys.readouterr().err


def test_a_configuration_that_is_missing_leaves_no_file_behind(
    account: dict[str, str], start: Start, tmp_path: Path
) -> None:
    account["DIS_LOGGING_ENDPOINT"] = "http://dis.example.com"

    code, errors = start("--failed", "undelivered").end(b"a line\n")

    assert code == 2
    assert errors.startswith("dis-logging: endpoint")
    assert not list(tmp_path.iterdir())


def test_help_has_examples_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["send", "--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "examples:\n  dis-logging send access.log\n" in shown
    assert "130  interrupted with Ctrl-C" in shown


# -- on a terminal ----------------------------------------------------------------------------------------------------


def test_progress_is_shown_on_a_terminal(account: dict[str, str], dis: DISEmulator, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"good\n" * 3000)
    terminal, stderr = pty.openpty()
    environment = {**account, "TERM": "xterm"}
    with (
        dis.rule(Refuse(400, "DIS.4303"), where=lambda request: request.number in (2, 3)),
        subprocess.Popen([*SEND, "input"], cwd=tmp_path, stderr=stderr, env=environment) as process,
    ):
        os.close(stderr)
        shown = _read_all(terminal)
        assert process.wait(60) == 0

    frames = shown.split("\r\x1b[K")
    assert re.fullmatch(r"dis-logging send: 3000 lines read \(14\.6 KiB\).*\r\n", frames[-1])
    for frame in frames[1:-2]:
        assert re.fullmatch(r"\[[#.]{10}\] +\d+%  [\d.]+ \w+  [\d,]+ records/s  retried [\d,]+  failed 0", frame)
    assert any("] 100%  14.6 KiB  " in frame for frame in frames)
    assert any("retried 500" in frame or "retried 1,000" in frame for frame in frames)


def _read_all(terminal: int) -> str:
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # how Linux reports that the other side is closed
        pass
    os.close(terminal)
    return shown.decode()


def test_resend_command_survives_odd_names(start: Start, dis: DISEmulator, tmp_path: Path) -> None:
    name = '-it\'s $HOME; a "log"'
    (tmp_path / name).write_bytes(b"a line\n")
    with dis.rule(RefuseEntries("DIS.4302")):
        code, errors = start("--failed", "-un delivered", "--", name).end()
    assert code == 1

    command = told_command(errors, "again: ")
    code, errors = start("-c", command, command=("bash",)).end()

    assert (code, stored(dis)) == (0, [b"a line"])
    assert dis.records(STREAM)[0].partition_key == name
    assert shlex.split(command)[-1] == "./-un delivered"


def test_a_stream_that_is_missing_is_told_with_the_argument(account: dict[str, str], start: Start) -> None:
    del account["DIS_LOGGING_STREAM_NAME"]

    code, errors = start().end(b"a line\n")

    assert (code, errors) == (2, "dis-logging: stream_name is missing: give --stream, or set DIS_LOGGING_STREAM_NAME\n")
