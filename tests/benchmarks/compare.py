"""
Compares what logging costs, side by side in one run: ``python -m tests.benchmarks.compare``, or with ``--quick``.

Every contender is measured in a process of its own against a sink in another one. The contenders take turns within each
round, each measure anew, and every ratio is taken within one round, because a shared machine has slow minutes; the table
shows the median over the rounds and the extremes. The sink's ledger is checked after every process that has to deliver: who
loses a record is named, and our own loss makes the run fail.

How each figure is taken is said in `tests.benchmarks.measures`; the contenders are in `tests.benchmarks.contenders`. What
is not installed is left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.contenders import (
    AGGREGATED,
    CONTENDERS,
    KINESIS,
    ONLY_FORMAT,
    OPENTELEMETRY,
    OURS,
    PROTOBUF,
    QUEUE,
    SDK,
    WATCHTOWER,
    installed_versions,
)
from tests.benchmarks.plot import Series, draw
from tests.benchmarks.results import Figures, Run, Runs, Spread, Target, table
from tests.benchmarks.sink import SinkProcess

_ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(__file__).resolve().parent
# A quick run starts nothing after this, so that it ends within a minute on a busy machine too.
_QUICK_SECONDS = 44.0
# So that the first records are given up, and told of, early within what is measured.
_SHORT_DELIVERY_TIMEOUT = 5.0


class Sizes(NamedTuple):
    """
    How much is measured; see the measures for what the words mean.

    Args:
        shows_all: whether the call and the threads are measured of every contender, or only of those with a target.
    """

    rounds: int
    shows_all: bool
    bursts: int
    calls: int  # below the default max_buffer_records, so that nobody waits for room
    threads: tuple[int, ...]
    records: int
    late_records: int
    tail_calls: int
    memory_records: int
    import_runs: int
    stderr_seconds: float


_FULL = Sizes(
    rounds=3,
    shows_all=True,
    bursts=400,
    calls=80_000,
    threads=(1, 2, 4, 8),
    records=200_000,
    late_records=20_000,
    tail_calls=30_000,
    memory_records=90_000,
    import_runs=3,
    stderr_seconds=130.0,
)
_QUICK = Sizes(
    rounds=3,
    shows_all=False,
    bursts=50,
    calls=24_000,
    threads=(1, 8),
    records=20_000,
    late_records=10_000,
    tail_calls=10_000,
    memory_records=50_000,
    import_runs=2,
    stderr_seconds=0.0,
)


class Task(NamedTuple):
    """
    One process to run.

    Args:
        what, who: under which its figures are kept.
        order: what `tests.benchmarks.measures` is told.
        sink: how the sink behaves meanwhile.
        ships: whether the ledger must show every record.
    """

    what: str
    who: str
    order: Mapping[str, Any]
    sink: Mapping[str, Any] = {}
    ships: bool = False


LATE = "20 ms a request"
OWN_FORMATTER = "a formatter of the user's own"
_TAIL_STATES = ("healthy", "down", "hanging")
_DROP_POLICIES = ("drop_oldest", "drop_newest")

_TARGETS = (
    Target("CPU in the logging call", ONLY_FORMAT, "call", OURS, "call_us", 1.10, ("call", ONLY_FORMAT)),
    Target("CPU in the logging call", QUEUE, "call", OURS, "call_us", 0.95, ("call", QUEUE)),
    Target(
        f"the same, {OWN_FORMATTER}",
        ONLY_FORMAT,
        OWN_FORMATTER,
        OURS,
        "call_us",
        1.20,
        (OWN_FORMATTER, ONLY_FORMAT),
    ),
    Target(
        "calls/s, 8 threads together",
        QUEUE,
        "8 threads",
        OURS,
        "calls_per_second",
        3,
        ("8 threads", QUEUE),
        at_least=True,
    ),
    Target(
        "calls/s, 8 threads together",
        ONLY_FORMAT,
        "8 threads",
        OURS,
        "calls_per_second",
        1.5,
        ("8 threads", ONLY_FORMAT),
        at_least=True,
    ),
    *(
        Target(
            "process CPU, first record to last acknowledgement",
            base,
            "process",
            who,
            "cpu_us",
            limit,
            ("process", base),
        )
        for base, who, limit in (
            (ONLY_FORMAT, OURS, 1.35),
            (WATCHTOWER, OURS, 0.45),
            (KINESIS, OURS, 1.0),
            (KINESIS, AGGREGATED, 0.9),
            (SDK, OURS, 0.60),
        )
    ),
    Target(
        "records/s, 50 loggers, 20 ms a request",
        "one request in flight",
        LATE,
        OURS,
        "records_per_second",
        3,
        (LATE, "one in flight"),
        at_least=True,
    ),
    *(
        Target(f"emit p99, service {state}, drop_oldest", "healthy", "tail", state, "p99_us", 1.2, ("tail", "healthy"))
        for state in _TAIL_STATES[1:]
    ),
    *(
        Target(f"stderr while down, {policy}", "-", "stderr", policy, "bytes_a_minute", 1024, unit=" bytes a minute")
        for policy in _DROP_POLICIES
    ),
    Target("memory of a buffered 200-byte record", "its payload", "memory", OURS, "times_payload", 2.5),
    Target("import dis_logging", "requests and tenacity", "import", OURS, "import_ms", 15, unit=" ms more"),
    Target("import dis_logging", "asyncio comes with it", "import", OURS, "asyncio", 0, unit=""),
    # Linearity. The issue says "the same"; a tenth is what this method can tell apart.
    Target("CPU of a record, 10 times the records", "a tenth of them", "process", OURS, "cpu_us", 1.1, ("few", OURS)),
    Target("CPU of a record, 10 000 loggers", "10 loggers", "loggers", "10000", "cpu_us", 1.1, ("loggers", "10")),
    *(
        Target(f"CPU in the call, buffer full, {policy}", "empty", "full", policy, "call_us", 1.1, ("full", "empty"))
        for policy in _DROP_POLICIES
    ),
)


# -- what is run ----------------------------------------------------------------------------------------------------


def _groups(sizes: Sizes, present: Sequence[str]) -> Iterator[list[Task]]:
    """Yields the measures of one round; the tasks of a group are compared with one another and run side by side."""
    shown = [name for name in present if sizes.shows_all or name in (ONLY_FORMAT, QUEUE, OURS)]
    yield [_task("call", name, {"measure": "call", "bursts": sizes.bursts}) for name in shown]
    own = {"measure": "call", "bursts": sizes.bursts, "own_formatter": True}
    yield [_task(OWN_FORMATTER, name, own) for name in (ONLY_FORMAT, OURS)]
    for threads in sizes.threads:
        order = {"measure": "threads", "threads": threads, "calls": sizes.calls}
        yield [_task(f"{threads} threads", name, order) for name in shown]
    order = {"measure": "process", "records": sizes.records}
    few = _task("few", OURS, {**order, "records": sizes.records // 10})
    yield [*(_task("process", name, order) for name in present), few]
    # Batches of 100, so that one request after the other takes 5,000 records a second: fewer than any machine logs.
    late = {"measure": "process", "records": sizes.late_records, "loggers": 50, "max_batch_records": 100}
    one = {"contender": OURS, **late, "max_in_flight": 1}
    yield [_task(LATE, OURS, late, {"delay": 0.02}), Task(LATE, "one in flight", one, {"delay": 0.02}, ships=True)]
    yield [
        Task(
            "tail",
            state,
            {"contender": OURS, "measure": "tail", "state": state, "calls": sizes.tail_calls},
            {"hangs": state == "hanging"},
        )
        for state in _TAIL_STATES
    ]
    full = {"contender": OURS, "measure": "full", "bursts": sizes.bursts}
    yield [
        Task("full", "empty", {"contender": OURS, "measure": "call", "bursts": sizes.bursts}, ships=True),
        *(Task("full", policy, {**full, "overflow": policy}) for policy in _DROP_POLICIES),
    ]
    yield [
        Task("loggers", str(count), {"contender": OURS, **order, "loggers": count}, ships=True)
        for count in (10, 10_000)
    ]
    yield [Task("memory", OURS, {"contender": OURS, "measure": "memory", "records": sizes.memory_records})]


def _task(what: str, name: str, order: Mapping[str, Any], sink: Mapping[str, Any] = {}) -> Task:
    return Task(what, name, {"contender": name, **order}, sink, ships=CONTENDERS[name].ships)


class Bench:
    """Runs the processes, one at a time, and keeps what they say."""

    def __init__(self, sizes: Sizes, sink: SinkProcess, scratch: Path) -> None:
        self.runs = Runs()
        self._sizes = sizes
        self._sink = sink
        self._scratch = scratch

    def round(self, number: int, present: Sequence[str], deadline: float) -> bool:
        """
        Measures everything once, each group starting with another contender than in the round before.

        Returns False when *deadline* (monotonic) came first; groups are measured whole or not at all.
        """
        for tasks in _groups(self._sizes, present):
            if time.monotonic() > deadline:
                return False
            turn = number % len(tasks)
            for task in (*tasks[turn:], *tasks[:turn]):
                self._run(task, number)
        for index in range(self._sizes.import_runs):
            self._measure_import(number * self._sizes.import_runs + index)
        return True

    def _run(self, task: Task, number: int) -> None:
        _show_progress(f"round {number + 1}: {task.what}, {task.who}")
        self._sink.reset(**task.sink)
        figures = self._child(
            ["tests.benchmarks.measures", json.dumps({"port": self._sink.port, **task.order})], number
        )
        run = Run(figures, self._sink.ledger() if task.ships else None)
        self.runs.add(task.what, task.who, number, run)
        if run.fault and str(task.order["contender"]).startswith(OURS):
            raise SystemExit(f"\n{task.what}, {task.who}: {run.fault}")

    def measure_stderr(self) -> None:
        """
        Counts what is written to stderr while the service is down, for the drop policies, side by side: they idle.

        Takes minutes, as there is a line a minute at most; a quick run leaves it out.
        """
        sizes = self._sizes
        if not sizes.stderr_seconds:
            return
        _show_progress(f"stderr, {sizes.stderr_seconds:.0f} s")
        order = {
            "measure": "stderr",
            "contender": OURS,
            "port": self._sink.port,
            "seconds": sizes.stderr_seconds,
            "delivery_timeout": _SHORT_DELIVERY_TIMEOUT,
        }
        orders = [json.dumps({**order, "overflow": policy}) for policy in _DROP_POLICIES]
        with ThreadPoolExecutor() as pool:
            answers = pool.map(lambda order: self._child(["tests.benchmarks.measures", order], 0), orders)
        for policy, figures in zip(_DROP_POLICIES, answers, strict=True):
            figures["bytes_a_minute"] = figures["stderr_bytes"] / sizes.stderr_seconds * 60
            self.runs.add("stderr", policy, 0, Run(figures, None))

    def _measure_import(self, number: int) -> None:
        # Bytecode goes to a place of its own and is there from the second import on, as in an installed package.
        arguments = ["tests.benchmarks.import_time"]
        settings = {"PYTHONPYCACHEPREFIX": str(self._scratch / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
        if number == 0:
            self._child(arguments, number, settings)
        self.runs.add("import", OURS, number, Run(self._child(arguments, number, settings), None))

    def _child(self, arguments: Sequence[str], number: int, settings: Mapping[str, str] | None = None) -> Figures:
        # The same seed for all contenders of a round: where a dict puts its keys is luck, and should be the same luck.
        environment = {**os.environ, "PYTHONHASHSEED": str(number), **(settings or {})}
        with tempfile.TemporaryFile("w+") as errors:
            child = subprocess.run(
                [sys.executable, "-m", *arguments],
                cwd=_ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                check=False,
            )
            size = errors.tell()
            errors.seek(0)
            if child.returncode:
                raise SystemExit(f"\n{' '.join(arguments)} failed:\n{errors.read()[-4000:]}")
        figures: Figures = json.loads(child.stdout.splitlines()[-1])
        return {**figures, "stderr_bytes": size}


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<78}\r", end="", file=sys.stderr, flush=True)


# -- what is shown --------------------------------------------------------------------------------------------------


def _targets_table(runs: Runs) -> str:
    faulty = runs.faults()
    rows = []
    for target in _TARGETS:
        value = target.value(runs)
        if value is None:
            rows.append((target.text, target.against, "not measured", target.limit_text, ""))
            continue
        verdict = "reached" if target.is_reached(value) else "missed"
        if target.base in faulty:
            verdict += ", the other lost records"
        rows.append((target.text, target.against, _shown(value), target.limit_text, verdict))
    return table(("What", "Against", "Median (extremes)", "Target", ""), rows)


def _contenders_table(runs: Runs, present: Sequence[str]) -> str:
    rows = []
    for name in present:
        run = runs.last("process", name)
        ledger = run.ledger if run is not None else None
        rows.append(
            (
                name,
                _shown(runs.spread("call", name, "call_us")),
                _shown(runs.spread("8 threads", name, "calls_per_second")),
                _shown(runs.spread("process", name, "cpu_us")),
                _shown(runs.spread("process", name, "records_per_second")),
                f"{ledger.requests}" if ledger else "-",
                f"{ledger.size / ledger.distinct:.0f}" if ledger and ledger.distinct else "-",
            )
        )
    headings = (
        "Contender",
        "CPU in the call, µs",
        "calls/s, 8 threads",
        "process CPU a record, µs",
        "records/s, one thread",
        "requests",
        "body bytes a record",
    )
    return table(headings, rows)


def _details(runs: Runs) -> list[str]:
    """Returns the figures behind the ratios that the contenders' table does not show."""
    kinds = (
        (OWN_FORMATTER, "call_us", "µs of CPU in the call"),
        (LATE, "records_per_second", "records/s"),
        ("tail", "p50_us", "µs, median of a call"),
        ("tail", "p99_us", "µs, 99th percentile of a call"),
        ("full", "call_us", "µs of CPU in the call"),
        ("loggers", "cpu_us", "µs of process CPU a record"),
        ("memory", "bytes_per_record", "bytes a record"),
    )
    lines = []
    for what, figure, unit in kinds:
        values = (f"{who} {_shown(runs.spread(what, who, figure))}" for who in runs.who(what))
        lines.append(f"{what}: {', '.join(values)} ({unit})")
    return lines


def _shown(value: Spread | None) -> str:
    if value is None:
        return "-"
    median, low, high = (f"{part:.2f}" if value.high < 1000 else f"{part:.0f}" for part in value)
    return median if low == high else f"{median} ({low} - {high})"


_COLOURS = {
    OURS: "#cf222e",
    AGGREGATED: "#bf3989",
    PROTOBUF: "#ff8182",
    ONLY_FORMAT: "#6e7781",
    QUEUE: "#0969da",
    WATCHTOWER: "#bc4c00",
    OPENTELEMETRY: "#8250df",
    KINESIS: "#9a6700",
    SDK: "#1a7f37",
}


def _plot(runs: Runs, sizes: Sizes, present: Sequence[str], caption: str) -> str:
    series = []
    for name in present:
        calls = {count: runs.spread(f"{count} threads", name, "calls_per_second") for count in sizes.threads}
        measured = {count: spread for count, spread in calls.items() if spread is not None}
        series.append(Series(name, _COLOURS[name], measured, runs.spread("process", name, "cpu_us")))
    return draw(series, "What logging costs: 200-byte lines, Python's logging, one machine", caption)


def _machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            model = next(line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor without a name
    return f"{os.cpu_count()} x {model}, {platform.system()}, {platform.python_implementation()} {platform.python_version()}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.compare", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, within a minute; rough figures")
    parser.add_argument("--rounds", type=int, help=f"default {_FULL.rounds}, up to {_QUICK.rounds} if quick")
    parser.add_argument(
        "--plot", type=Path, help="where to; default results.svg beside this file, quick-results.svg if quick"
    )
    parser.add_argument("--json", type=Path, help="also write every single figure there")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 when a target is missed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    options = _options(arguments)
    began = time.monotonic()
    sizes = _QUICK if options.quick else _FULL
    sizes = sizes._replace(rounds=options.rounds or sizes.rounds)
    absent = {name: why for name, contender in CONTENDERS.items() if (why := contender.why_absent())}
    present = [name for name in CONTENDERS if name not in absent]
    deadline = began + _QUICK_SECONDS if options.quick else math.inf
    rounds = 0
    with SinkProcess() as sink, tempfile.TemporaryDirectory() as scratch:
        bench = Bench(sizes, sink, Path(scratch))
        bench.measure_stderr()
        while rounds < sizes.rounds and bench.round(rounds, present, deadline):
            rounds += 1
    _show_progress("")

    runs = bench.runs
    versions = ", ".join(f"{package} {number}" for package, number in installed_versions().items())
    when = f"{datetime.now(timezone.utc):%Y-%m-%d}, {'quick, whole ' * options.quick}rounds: {rounds}"
    print(f"{when}. {_machine()}.\n{versions}.\n")
    for name, why in absent.items():
        print(f"Left out: {name}: {why}.")
    for (what, who), fault in runs.faults().items():
        print(f"Lost records: {who} ({what}): {fault}.")
    print(f"\n{_contenders_table(runs, present)}\n\n{_targets_table(runs)}\n")
    print("\n".join(_details(runs)), end="\n\n")
    plot = options.plot or _HERE / ("quick-results.svg" if options.quick else "results.svg")
    plot.write_text(_plot(runs, sizes, present, f"{when}. {_machine()}. {versions}."), encoding="utf-8")
    print(f"{plot} drawn after {time.monotonic() - began:.0f} s.")
    if options.json:
        options.json.write_text(json.dumps(runs.as_json(), indent=1), encoding="utf-8")
    values = ((target, target.value(runs)) for target in _TARGETS)
    missed = [target for target, value in values if value is not None and not target.is_reached(value)]
    return 1 if options.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
