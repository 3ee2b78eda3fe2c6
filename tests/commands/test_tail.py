"""``dis-logging tail``, run as a user runs it: what it shows, what it leaves out, and how it ends."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from dis_logging import DISClient, DISHandler, PutRecordsRequestEntry
from dis_logging.cli import main
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.app import Operation
from dis_logging.emulator.faults import Hang, Refuse, times
from tests.conftest import STREAM

COMMAND = (sys.executable, "-W", "error", "-m", "dis_logging", "tail")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"

Tail = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tail(
    no_account: None, dis: DISEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Tail:
    """Returns a function that runs the command in this process, with an account at the emulator."""
    for name, value in dis.handler_options(STREAM).items():
        monkeypatch.setenv(f"DIS_LOGGING_{name.upper()}", value)

    def tail(*arguments: str) -> tuple[int, str, str]:
        code = main(["tail", "--no-follow", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return tail


@pytest.fixture
def put(dis: DISEmulator) -> Iterator[Callable[..., None]]:
    """Returns a function that stores records in the order given."""
    with DISClient(**dis.client_options()) as client:

        def put(*records: bytes | str, key: str | None = "shop", timestamp: int | None = None) -> None:
            partition = None if key else "0"
            entries = [
                PutRecordsRequestEntry(data, key, partition_id=partition, timestamp=timestamp) for data in records
            ]
            client.put_records(STREAM, entries)

        yield put


Put = Callable[..., None]


def texts(out: str) -> list[str]:
    """Returns what stands behind time, place and key on the lines that begin a record."""
    return re.findall(rf"^{TIME}  \d+:\d+  \S+  (.*)$", out, re.MULTILINE)


# -- what is shown --------------------------------------------------------------------------------------------------


def test_a_record_is_shown_with_its_time_place_and_key(tail: Tail, put: Put, dis: DISEmulator) -> None:
    put("order 1001 is late", key="shop.orders")
    stored = dis.records(STREAM)[0]

    code, out, err = tail("--from", "beginning")

    assert code == 0
    assert re.fullmatch(rf"{TIME}  {int(stored.partition_id[-10:])}:0  shop\.orders  order 1001 is late\n", out)
    moment = datetime.fromisoformat(out[:29])
    assert moment == datetime.fromtimestamp(stored.timestamp / 1000, timezone.utc)
    assert err == (
        f"dis-logging tail: reading {STREAM} at {dis.endpoint}, 3 partitions\ndis-logging tail: 1 of 1 records shown\n"
    )


def test_json_is_shown_on_indented_lines(tail: Tail, put: Put) -> None:
    put('{"message": "订单", "items": [1, 2.50], "extra": {}}', key="shop.orders")

    _, out, _ = tail("--from", "beginning")

    head, rest = out.split("\n", 1)
    assert re.fullmatch(rf"{TIME}  \d:0  shop\.orders", head)
    assert rest == ('  {\n    "message": "订单",\n    "items": [\n      1,\n      2.5\n    ],\n    "extra": {}\n  }\n')


@pytest.mark.parametrize("text", ["{not json}", "[1", "7", '"text"', "{" * 100_000])
def test_what_is_no_json_object_is_shown_as_it_is(tail: Tail, put: Put, text: str) -> None:
    put(text)

    assert texts(tail("--from", "beginning")[1]) == [text]


def test_a_traceback_keeps_its_lines(tail: Tail, put: Put) -> None:
    put("failed\nTraceback (most recent call last):\n\tx = 1\r\nValueError: x\n")

    _, out, _ = tail("--from", "beginning")

    assert out.split("\n", 1)[1] == "Traceback (most recent call last):\n\tx = 1\nValueError: x\n"


def test_nothing_in_a_record_reaches_the_terminal_as_a_command(tail: Tail, put: Put) -> None:
    put("\x1b]0;title\x07red \x1b[31m\u202e", b"\xff\x00", key="shop\x1b[2J\nforged")
    put('{"a": "\\u001b[31m\\u009b", "b": "\u202e"}')

    _, out, _ = tail("--from", "beginning")

    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out)
    assert "\\x1b]0;title\\x07red \\x1b[31m\\u202e" in out
    assert "\\xff\\x00" in out
    assert "shop\\x1b[2J\\nforged" in out


def test_a_record_without_a_key_has_a_dash(tail: Tail, put: Put) -> None:
    put("x", key=None)

    assert re.fullmatch(rf"{TIME}  0:0  -  x\n", tail("--from", "beginning")[1])


@pytest.mark.parametrize("timestamp", [-(2**63), 2**63 - 1])
def test_a_time_beyond_all_calendars_is_shown_as_a_number(
    tail: Tail, put: Put, dis: DISEmulator, timestamp: int
) -> None:
    put("x", timestamp=timestamp)
    if dis.records(STREAM)[0].timestamp != timestamp:
        pytest.skip("the emulator dates records itself")

    assert tail("--from", "beginning")[1].startswith(f"{timestamp}  ")


# -- what is chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (["shop.orders"], ["o"]),
        (["shop.*"], ["o", "w"]),
        (["shop.orders", "audit"], ["a", "o"]),
        (["Shop.*"], []),
        ([""], ["-"]),
    ],
)
def test_key_chooses_by_partition_key(tail: Tail, put: Put, keys: list[str], shown: list[str]) -> None:
    put("o", key="shop.orders")
    put("w", key="shop.web")
    put("a", key="audit")
    put("-", key=None)

    code, out, err = tail("--from", "beginning", *(part for key in keys for part in ("--key", key)))

    assert code == 0
    assert sorted(texts(out)) == shown
    assert f"{len(shown)} of 4 records shown" in err


def test_grep_chooses_by_text(tail: Tail, put: Put) -> None:
    put("order 1001", "order x", "Order 1", "multi\nline order 7")

    assert texts(tail("--from", "beginning", "--grep", "order [0-9]+")[1]) == ["order 1001", "multi"]


def test_from_now_shows_nothing_old(tail: Tail, put: Put) -> None:
    put("old")

    assert tail()[:2] == (0, "")


@pytest.mark.parametrize(("age", "shown"), [("30m", ["late"]), ("90m", ["early", "late"]), ("1d", ["early", "late"])])
def test_from_an_age_shows_what_is_younger(
    tail: Tail, monkeypatch: pytest.MonkeyPatch, age: str, shown: list[str]
) -> None:
    assert _read_from(tail, monkeypatch, lambda now: age) == shown


@pytest.mark.parametrize(
    "spell",
    [
        lambda moment: moment.isoformat(),
        lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        lambda moment: moment.astimezone(timezone(timedelta(hours=8))).isoformat(" "),
        lambda moment: moment.astimezone().replace(tzinfo=None).isoformat(),
    ],
)
def test_from_a_time_may_be_spelt_in_many_ways(
    tail: Tail, monkeypatch: pytest.MonkeyPatch, spell: Callable[[datetime], str]
) -> None:
    assert _read_from(tail, monkeypatch, lambda now: spell(now - timedelta(minutes=30))) == ["late"]


def _read_from(tail: Tail, monkeypatch: pytest.MonkeyPatch, start: Callable[[datetime], str]) -> list[str]:
    """Stores a record an hour ago and one a minute ago, and returns those that are shown from *start* on."""
    now = datetime.now(timezone.utc)
    moments = iter([now - timedelta(minutes=60), now - timedelta(minutes=1)])
    current = [next(moments)]
    with DISEmulator({STREAM: 1}, clock=lambda: current[0]) as dis:
        for name, value in dis.handler_options(STREAM).items():
            monkeypatch.setenv(f"DIS_LOGGING_{name.upper()}", value)
        for text in ("early", "late"):
            _put_signed_at(dis, text)
            current[0] = next(moments, now)
        return texts(tail("--from", start(now))[1])


def _put_signed_at(dis: DISEmulator, text: str) -> None:
    with DISClient(**dis.client_options()) as client:  # its clock is corrected by DIS's answer
        assert client.put_records(STREAM, [PutRecordsRequestEntry(text)]).failed_record_count == 0


def test_options_come_from_a_configuration(
    no_account: None, dis: DISEmulator, put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("x")
    handler = {"class": "dis_logging.DISHandler", **dis.handler_options(STREAM), "fallback": "nobody.log"}
    path = tmp_path / "logging.json"
    path.write_text(json.dumps({"version": 1, "handlers": {"dis": {**handler, "fallback": {"class": "x"}}}}))

    assert main(["tail", "--no-follow", "--from", "beginning", "--config", str(path)]) == 0
    assert texts(capsys.readouterr().out) == ["x"]


@pytest.mark.parametrize("by", ["argument", "configuration"])
def test_aggregated_records_are_taken_apart(
    tail: Tail, dis: DISEmulator, logger: logging.Logger, tmp_path: Path, by: str
) -> None:
    options = {**dis.handler_options(STREAM), "aggregate": "lines"}
    handler = DISHandler(**options, flush_interval=60)
    logger.addHandler(handler)
    for text in ("one", '"two"', "three\nlines", '{"four": 4}'):
        logger.info(text)
    handler.flush()
    assert dis.record_count(STREAM) == 1
    path = tmp_path / "logging.json"
    config = {"version": 1, "handlers": {"dis": {"class": "dis_logging.DISHandler", **options}}}
    path.write_text(json.dumps(config), "utf-8")

    how = ("--aggregate", "lines") if by == "argument" else ("--config", str(path))
    _, out, err = tail("--from", "beginning", *how)

    assert texts(out) == ["one", '"two"', "three"]
    assert "\nlines\n" in out
    assert '\n    "four": 4\n' in out
    assert "4 of 4 records shown" in err


def test_throttled_reading_shows_everything_once(tail: Tail, put: Put, dis: DISEmulator) -> None:
    put(*map(str, range(50)))
    dis.play(*times(4, Refuse(400, "DIS.4303")), operation=Operation.GET_RECORDS)

    code, out, err = tail("--from", "beginning")

    assert code == 0
    assert texts(out) == list(map(str, range(50)))
    assert "trying again: DIS refused the request (HTTP 400, DIS.4303)" in err


# -- how it ends ----------------------------------------------------------------------------------------------------


def test_a_missing_stream_is_a_failure_with_its_cure(tail: Tail) -> None:
    code, out, err = tail("nowhere")

    assert (code, out) == (1, "")
    assert "DIS.4301" in err
    assert "-> create the stream" in err


def test_a_missing_option_is_wrong_configuration(tail: Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIS_LOGGING_SK")

    assert tail() == (2, "", tail()[2])
    assert "sk is missing: set DIS_LOGGING_SK or HUAWEICLOUD_SDK_SK" in tail()[2]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--from", "yesterday"), "'yesterday' is not now, beginning, an age"),
        (("--from", "2999-01-01"), "'2999-01-01' is still to come"),
        (("--from", "99999999999d"), "is not now"),
        (("--grep", "("), "'(' is no regular expression"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["tail", *arguments])

    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


class Running:
    """The command in a process of its own, following the emulator's stream."""

    def __init__(self, dis: DISEmulator, *arguments: str) -> None:
        settings = {f"DIS_LOGGING_{name.upper()}": value for name, value in dis.handler_options(STREAM).items()}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | settings,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out, self.err = self.process.stdout, self.process.stderr
        self.opening = self.err.readline()


@pytest.fixture
def start(no_account: None, dis: DISEmulator) -> Iterator[Callable[..., Running]]:
    """Returns a function that starts the command; what still runs after the test is ended."""
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(dis, *arguments))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_peace(
    start: Callable[..., Running], dis: DISEmulator, logger: logging.Logger, signal_number: int
) -> None:
    """Whatever is logged after the opening line is seen at once, also in a pipe."""
    running = start()
    handler = DISHandler(**dis.handler_options(STREAM))
    logger.addHandler(handler)
    logger.warning("hello")
    assert handler.flush()

    line = running.out.readline()
    running.process.send_signal(signal_number)
    rest, errors = running.process.communicate(timeout=30)

    assert running.opening.startswith(f"dis-logging tail: following {STREAM} at {dis.endpoint}, 3 partitions; Ctrl-C")
    assert line.endswith("  hello\n")
    assert "\x1b" not in line
    assert (running.process.returncode, rest) == (0, "")
    assert errors == "dis-logging tail: 1 of 1 records shown\n"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")
def test_ctrl_c_does_not_wait_for_a_service_that_hangs(start: Callable[..., Running], dis: DISEmulator) -> None:
    running = start()
    with dis.rule(Hang(), operation=Operation.GET_RECORDS):
        assert dis.wait_for(lambda dis: sum(request.status is None for request in dis.requests) == 3)
        running.process.send_signal(signal.SIGINT)

        _, errors = running.process.communicate(timeout=5)  # an attempt has 10

    assert (running.process.returncode, errors) == (0, "dis-logging tail: 0 of 0 records shown\n")


def test_a_reader_that_goes_away_ends_it_without_a_word(start: Callable[..., Running], put: Put) -> None:
    put(*["x" * 1000] * 1000)
    running = start("--from", "beginning")
    running.out.readline()
    running.out.close()

    assert running.process.wait(30) == 0
    assert running.err.read() == ""
