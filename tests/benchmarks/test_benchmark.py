"""The benchmark's instruments: the sink keeps an honest ledger, ratios are of one round, and a line has 200 bytes."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dis_logging import DISClient, PutRecordsRequestEntry
from tests.benchmarks.contenders import CONTENDERS, OURS, dis_options, start
from tests.benchmarks.lines import LINE_BYTES, MESSAGES, new_formatter, new_loggers
from tests.benchmarks.results import Run, Runs, Spread
from tests.benchmarks.sink import SinkProcess


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkProcess]:
    with SinkProcess() as process:
        yield process


def line(number: int) -> str:
    """Returns the line that a contender makes of record *number*."""
    message = MESSAGES[number % len(MESSAGES)] % number
    return new_formatter().format(logging.LogRecord("shop.checkout.api", logging.INFO, "", 1, message, (), None))


def test_every_line_has_the_promised_length() -> None:
    assert {len(line(number)) for number in range(len(MESSAGES))} == {LINE_BYTES}


def test_every_record_of_ours_is_found_in_the_ledger(sink: SinkProcess) -> None:
    sink.reset()
    running = start(OURS, sink.port)
    (logger,) = new_loggers(running.handler)

    for number in range(1200):
        logger.info(MESSAGES[number % len(MESSAGES)], number)
    running.finish()
    running.handler.close()
    logger.removeHandler(running.handler)

    ledger = sink.ledger()
    assert (ledger.entries, ledger.distinct, ledger.duplicates, ledger.wrong_length) == (1200, 1200, 0, 0)


def test_the_sink_answers_each_record_with_a_number_of_its_own(sink: SinkProcess) -> None:
    sink.reset()
    options = {name: value for name, value in dis_options(sink.port).items() if name != "stream_name"}

    with DISClient(**options) as client:
        entries = [PutRecordsRequestEntry(data=line(number), partition_key="k") for number in range(3)]
        results = [client.put_records("app-logs", entries), client.put_records("app-logs", entries)]

    numbers = [entry.sequence_number for result in results for entry in result.records]
    assert len(set(numbers)) == 6


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        ([0, 1, 2], ""),
        ([0, 2], "of 3 records 1 did not arrive, 0 twice, 0 with another length"),
        ([0, 1, 1, 2], "of 3 records 0 did not arrive, 1 twice, 0 with another length"),
    ],
)
def test_a_lost_or_doubled_record_is_a_fault(sink: SinkProcess, sent: list[int], fault: str) -> None:
    sink.reset()
    options = {name: value for name, value in dis_options(sink.port).items() if name != "stream_name"}
    with DISClient(**options) as client:
        client.put_records("app-logs", [PutRecordsRequestEntry(data=line(number)) for number in sent])

    run = Run({"emitted": 3}, sink.ledger())

    assert run.fault == fault


def test_a_ratio_compares_runs_of_the_same_round() -> None:
    runs = Runs()
    for number, (ours, theirs) in enumerate([(2.0, 1.0), (30.0, 10.0), (4.0, 1.0)]):
        runs.add("call", "ours", number, Run({"us": ours}, None))
        runs.add("call", "theirs", number, Run({"us": theirs}, None))
    runs.add("call", "ours", 3, Run({"us": 1000.0}, None))  # a round that the other did not get to

    assert runs.ratio("call", "ours", "us", ("call", "theirs")) == Spread(3.0, 2.0, 4.0)


def test_what_is_not_measured_has_no_ratio() -> None:
    assert Runs().ratio("call", "ours", "us", ("call", "theirs")) is None


def test_a_contender_that_is_not_installed_says_so() -> None:
    contender = CONTENDERS[OURS]._replace(packages={"no-such-package": "no_such_module"})

    assert contender.why_absent().startswith("not installed: no-such-package")


@pytest.mark.parametrize(
    ("measure", "sizes"),
    [
        ("call", {"bursts": 2}),
        ("call", {"bursts": 2, "own_formatter": True}),
        ("threads", {"threads": 2, "calls": 20}),
        ("process", {"records": 20, "loggers": 3}),
        ("tail", {"state": "down", "calls": 20}),
        ("full", {"bursts": 2, "overflow": "drop_oldest"}),
        ("memory", {"records": 100}),
        ("stderr", {"seconds": 0.1, "overflow": "drop_oldest", "delivery_timeout": 60}),
    ],
)
def test_each_measure_gives_figures_of_ours(sink: SinkProcess, measure: str, sizes: dict[str, object]) -> None:
    sink.reset()
    order = {"measure": measure, "contender": OURS, "port": sink.port, **sizes}
    command = [sys.executable, "-m", "tests.benchmarks.measures", json.dumps(order)]

    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)

    assert figures
