"""
Minutes of everything at once, at random with a seed: ``python tests/soak.py --minutes 3 --seed 1``.

One process is the application: threads that log to many loggers, forks, reconfigurations, the end with records pending.
This process is DIS: an emulator that refuses, hangs, lies, breaks connections and goes away for a while, and whose
partitions take no more than those of DIS. The seed also chooses the handler's options: how many requests there are at
once, whether records share DIS records, how bodies are written, how large the buffer is, and who gives way when it is full.
It ends by printing the ledger, and with exit status 1 when a record is unaccounted for.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.config
import multiprocessing
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from dis_logging import DISHandler, HandlerStats
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import (
    Drip,
    Fault,
    Hang,
    Informational,
    Mangle,
    Refuse,
    RefuseEntries,
    Reply,
    Reset,
    Truncate,
    times,
)
from dis_logging.pipeline.aggregation import split

STREAM = "soak"
LAST_RESORT = "dis_logging: not delivered: "
UNTOLD = re.compile(rf"{LAST_RESORT}(\d+) more, which the fallback did not take in time")
THREADS = 4
RECORDS_OF_A_FORK = 20


# -- the application ------------------------------------------------------------------------------------------------


class TimedHandler(DISHandler):
    """
    Measures what it costs its callers.

    Not the whole logging call: that also waits for logging's module lock, which dictConfig holds while it closes the
    handlers it replaces.
    """

    worst = 0.0

    def handle(self, record: logging.LogRecord) -> bool | logging.LogRecord:  # type: ignore[override] # as DISHandler
        """Takes the time of one record."""
        started = time.perf_counter()
        try:
            return super().handle(record)
        finally:
            TimedHandler.worst = max(TimedHandler.worst, time.perf_counter() - started)


class Application:
    """Logs from several threads until it is told to stop, and reports what it did on stdout."""

    def __init__(self, handler_options: dict[str, Any], fallback_file: str, seed: int) -> None:
        self._options = handler_options
        self._fallback_file = fallback_file
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._emitted: Counter[str] = Counter()
        self._handlers: list[DISHandler] = []
        self._forks: list[int] = []

    def run(self) -> None:
        """Runs until something, or the end of the file, comes on stdin."""
        # What finds no handler, between the old one and the new, is printed by logging itself: all of it, to be accounted for.
        if logging.lastResort is not None:
            logging.lastResort.setLevel(logging.DEBUG)
        self._configure()
        threading.Thread(target=self._wait_for_stop, daemon=True).start()
        baseline = _resident_mib()
        threads = [threading.Thread(target=self._log, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        peak = self._disturb(baseline)
        for thread in threads:
            thread.join()
        started = time.monotonic()
        logging.shutdown()
        print(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "emitted": self._emitted,
                    "forks": self._forks,
                    "stats": [_as_dict(handler.stats()) for handler in self._handlers],
                    "worst_emit": TimedHandler.worst,
                    "shutdown": time.monotonic() - started,
                    "growth": peak - baseline,
                }
            )
        )

    def _configure(self) -> None:
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"failed": {"format": "%(dis_error_code)s %(dis_outcome_unknown)s %(message)s"}},
                "handlers": {
                    "dis": {"()": TimedHandler, **self._options, "fallback": "cfg://handlers.failed"},
                    "failed": {
                        "class": "logging.FileHandler",
                        "filename": self._fallback_file,
                        "formatter": "failed",
                    },
                },
                "root": {"level": "DEBUG", "handlers": ["dis"]},
            }
        )
        handler = logging.getLogger().handlers[0]
        assert isinstance(handler, DISHandler)
        self._handlers.append(handler)

    def _wait_for_stop(self) -> None:
        os.read(0, 1)  # not sys.stdin: a fork would copy its lock while this thread holds it
        self._stopping.set()

    def _log(self, number: int) -> None:
        chance = random.Random(f"{number}")
        loggers = [logging.getLogger(f"soak.{number}.{index}") for index in range(5)]
        name = f"{os.getpid()}-{number}"
        while not self._stopping.is_set():
            for _ in range(chance.choice((1, 10, 100))):
                level = logging.ERROR if chance.random() < 0.01 else logging.INFO
                text = "x" * chance.choice((10, 200, 200, 2000))
                chance.choice(loggers).log(level, "%s-%d %s", name, self._emitted[name], text)
                self._emitted[name] += 1
            self._stopping.wait(chance.random() * 0.3)

    def _disturb(self, baseline: float) -> float:
        """Forks and reconfigures now and then; returns the largest resident size seen, in MiB."""
        peak = baseline
        while not self._stopping.wait(0.5):
            peak = max(peak, _resident_mib())
            if self._random.random() < 0.1:
                child = multiprocessing.get_context("fork").Process(target=_log_in_child)
                child.start()
                child.join()
                self._forks.append(child.pid or 0)
            if self._random.random() < 0.05:
                self._configure()
        return peak


def _log_in_child() -> None:
    for number in range(RECORDS_OF_A_FORK):
        logging.getLogger("soak.child").info("%d-fork-%d x", os.getpid(), number)


def _resident_mib() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


def _as_dict(stats: HandlerStats) -> dict[str, int]:
    return {name: getattr(stats, name) for name in HandlerStats.__slots__}


# -- the service ----------------------------------------------------------------------------------------------------


def disturb_service(dis: DISEmulator, chance: random.Random, until: float, *, is_json: bool) -> Counter[str]:
    """Plays faults until *until* (monotonic) and returns how many of each kind."""
    played: Counter[str] = Counter()
    while time.monotonic() < until:
        time.sleep(chance.random())
        if chance.random() < 0.1:
            dis.stop()
            time.sleep(chance.random() * 2)
            dis.start()
            played["Away"] += 1
            continue
        fault = _random_fault(chance, is_json)
        dis.play(*times(chance.choice((1, 1, 1, 5)), fault))
        played[type(fault).__name__] += 1
    return played


def _random_fault(chance: random.Random, is_json: bool) -> Fault:
    if chance.random() < 0.01:
        opening: list[Fault] = [
            Refuse(441, "DIS.4112"),  # opens the circuit for a minute
            Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}),  # so does this
        ]
        return chance.choice(opening)
    faults: list[Fault] = [
        Refuse(400, "DIS.4303"),
        Refuse(429, headers={"Retry-After": "1"}),
        Refuse(500, "DIS.5000"),
        Refuse(503, body=b"<html>busy</html>"),
        Refuse(413),
        Refuse(400, "DIS.4200"),
        RefuseEntries("DIS.4303", where=lambda _entry: chance.random() < 0.5),
        RefuseEntries("DIS.5250"),
        RefuseEntries("DIS.4302", where=lambda _entry: chance.random() < 0.01),
        Hang(),
        Hang(store=True),
        Reset("before"),
        Reset("body"),
        Reset("after"),
        Drip(interval=0.01),
        Truncate(),
        Informational(delay=0.2),
        Reply(status=204),
        Reply(body=b"{}"),
    ]
    if is_json:
        faults += [
            Mangle(lambda result: {**result, "failed_record_count": 7}),
            Mangle(lambda result: {**result, "records": result["records"][:-1]}),
            Mangle(lambda result: {**result, "records": [None] * len(result["records"])}),
        ]
    return chance.choice(faults)


# -- the ledger -----------------------------------------------------------------------------------------------------


class Failed(NamedTuple):
    """A line of the fallback's file."""

    code: str
    outcome_unknown: bool
    identifier: str


class LastWords(NamedTuple):
    """
    What the application wrote on stderr.

    Args:
        told: the identifiers of records that the fallback had no time for.
        untold: how many more there were of those, which not even stderr was told of one by one.
        without_handler: the identifiers of records that found no handler while logging was configured anew.
        others: lines that have no business there.
    """

    told: Counter[str]
    untold: int
    without_handler: Counter[str]
    others: list[str]


def read_fallback(file: Path) -> list[Failed]:
    """Returns what the fallback wrote."""
    rows = (line.split(" ", 3) for line in file.read_text().splitlines())
    return [Failed(code, unknown == "True", identifier) for code, unknown, identifier, _ in rows]


def read_stderr(file: Path) -> LastWords:
    """Sorts what the application wrote on stderr."""
    words = LastWords(Counter(), 0, Counter(), [])
    for line in file.read_text().splitlines():
        if untold := UNTOLD.match(line):
            words = words._replace(untold=words.untold + int(untold[1]))
        elif line.startswith(LAST_RESORT):
            words.told[line.rpartition(": ")[2].split(" ", 1)[0]] += 1
        elif re.match(r"\d+-(fork-)?\d+", line):
            words.without_handler[line.split(" ", 1)[0]] += 1
        else:
            words.others.append(line)
    return words


def read_stored(dis: DISEmulator, *, is_aggregated: bool) -> Counter[str]:
    """Returns how often DIS holds each identifier."""
    texts = (
        text for record in dis.records(STREAM) for text in (split(record.data) if is_aggregated else [record.data])
    )
    return Counter(text.split(b" ", 1)[0].decode() for text in texts)


def expected_identifiers(report: dict[str, Any]) -> set[str]:
    """Returns the identifier of every record that was logged."""
    expected = {f"{name}-{number}" for name, count in report["emitted"].items() for number in range(count)}
    return expected | {f"{pid}-fork-{number}" for pid in report["forks"] for number in range(RECORDS_OF_A_FORK)}


def find_violations(
    report: dict[str, Any], stored: Counter[str], failed: list[Failed], words: LastWords, promised_growth: float
) -> dict[str, int]:
    """
    Returns how many records broke which promise.

    Args:
        promised_growth: of the application's resident size at most, MiB.
    """
    expected = expected_identifiers(report)
    handed_over = Counter(row.identifier for row in failed)
    definite = {row.identifier for row in failed if not row.outcome_unknown}
    reported = handed_over.keys() | words.told.keys() | words.without_handler.keys()
    totals: Counter[str] = Counter()
    for stats in report["stats"]:
        totals.update({name: count for name, count in stats.items() if isinstance(count, int)})
    missing = len(expected - stored.keys() - reported)
    return {
        # A record may be in the fallback and on stderr, if the fallback was just taking it when its time was up.
        "lost": max(0, missing - words.untold - totals["dropped"]),
        "dropped, yet to be found": max(0, totals["dropped"] - missing),
        "invented": len((stored.keys() | reported) - expected),
        "handed over twice": sum(count - 1 for count in (handed_over | words.told).values()),
        "stored although refused": len(definite & stored.keys()),
        "counters apart": abs(totals["emitted"] - totals["delivered"] - totals["failed"] - totals["dropped"]),
        "emitted uncounted": abs(totals["emitted"] + words.without_handler.total() - sum(report["emitted"].values())),
        "MiB over the memory promise": max(0, round(report["growth"] - promised_growth)),
    }


def print_ledger(
    report: dict[str, Any],
    stored: Counter[str],
    failed: list[Failed],
    words: LastWords,
    played: Counter[str],
    refused: Counter[str],
    requests: int,
) -> None:
    """Prints what happened, a line each."""
    rows = {
        "emitted": len(expected_identifiers(report)),
        "delivered": len(stored),
        "failed": len(failed),
        "on stderr only": words.told.total() + words.untold,
        "without a handler": words.without_handler.total(),
        "dropped": sum(stats["dropped"] for stats in report["stats"]),
        "duplicates": sum(stored.values()) - len(stored),
        "requests": requests,
        "forks": len(report["forks"]),
        "reconfigurations": len(report["stats"]) - 1,
        "worst emit": f"{report['worst_emit'] * 1000:.1f} ms",
        "shutdown": f"{report['shutdown']:.2f} s",
        "memory growth": f"{report['growth']:.1f} MiB",
        "failure codes": dict(Counter(row.code for row in failed).most_common()),
        "faults played": dict(played.most_common()),
        "refused by DIS": dict(refused.most_common()),
    }
    for name, value in rows.items():
        print(f"{name:>18}  {value}")
    for line in words.others[:20]:
        print(f"{'on stderr':>18}  {line}")


def choose_options(chance: random.Random) -> dict[str, Any]:
    """Returns options of the handler, some of them at random."""
    return {
        "flush_interval": 0.1,
        "request_timeout": 1.0,
        "delivery_timeout": 6.0,
        "backoff_initial": 0.02,
        "backoff_max": 0.5,
        "block_timeout": 0.5,
        "aggregate": chance.choice((None, "lines")),
        "max_in_flight": chance.choice((1, 4, 16)),
        "max_buffer_bytes": chance.choice((2**18, 2**23)),
        "overflow": chance.choice(("fallback", "fallback", "drop_newest", "drop_oldest", "block")),
        "body_format": chance.choice(("json", "protobuf")),
        "compression": chance.choice((None, None, "zstd", "lz4", "snappy")),
    }


def soak(minutes: float, seed: int) -> int:
    """Runs the soak test and returns the exit status."""
    chance = random.Random(seed)
    options = choose_options(chance)
    promised_growth = 2.5 * options["max_buffer_bytes"] / 2**20 + 16
    with tempfile.TemporaryDirectory() as folder, DISEmulator(streams={STREAM: 3}, throttle=True) as dis:
        fallback_file, stderr_file = Path(folder) / "failed.log", Path(folder) / "stderr.log"
        application_options = {**dis.handler_options(STREAM), **options}
        command = [
            sys.executable,
            __file__,
            "--application",
            json.dumps([application_options, str(fallback_file), seed]),
        ]
        with (
            stderr_file.open("w") as stderr,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            ) as application,
        ):
            played = disturb_service(
                dis, chance, time.monotonic() + minutes * 60, is_json=options["body_format"] == "json"
            )
            output, _ = application.communicate("stop\n")
        words = read_stderr(stderr_file)
        if application.returncode:
            print(*words.others, sep="\n", file=sys.stderr)
            return 1
        report = json.loads(output)
        stored = read_stored(dis, is_aggregated=options["aggregate"] is not None)
        failed = read_fallback(fallback_file)
        print(f"seed {seed}, {minutes:g} minutes, Python {sys.version.split()[0]}")
        print(", ".join(f"{name} {value}" for name, value in options.items()))
        print_ledger(report, stored, failed, words, played, dis.refused, len(dis.requests))
    violations = {
        name: count for name, count in find_violations(report, stored, failed, words, promised_growth).items() if count
    }
    print(f"{'broken promises':>18}  {violations or 'none'}")
    return 1 if violations else 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long (default 3)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="repeat an earlier run's choices")
    parser.add_argument("--application", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.application:
        Application(*json.loads(arguments.application)).run()
        return 0
    return soak(arguments.minutes, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
