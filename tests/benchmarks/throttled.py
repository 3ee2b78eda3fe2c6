"""
How a handler keeps to the pace of its partitions: ``python -m tests.benchmarks.throttled``.

Logs more than three partitions take, for twenty seconds, to an emulator in another process that throttles as DIS does.
Prints a line a second: what was logged, what was stored, and how much of what was sent was refused. The verdict is on what
came after the first ten seconds, in which the rate is looked for: at least nine tenths of what the partitions allow must
have been stored, and less than a twentieth of what was sent refused. Exit code 1 when it was not so.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from dis_logging import DISHandler, HandlerStats
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.throttle import RATES

PARTITIONS = 3
WARM_UP = 10
STORED = 0.9
REFUSED = 0.05

_STREAM = "app-logs"
_TICK = 0.005
_TIMEOUT = 30.0


class Second(NamedTuple):
    """What happened in one second, in log records: *sent* counts each attempt, *refused* those that were not stored."""

    logged: int
    stored: int
    sent: int
    refused: int
    requests: int
    waiting: int


def measure(seconds: int, rate: int, loggers: int, options: dict[str, Any]) -> Iterator[Second]:
    """Logs *rate* records a second through so many *loggers*, and yields what each second came to."""
    with _emulator_elsewhere() as where:
        handler = DISHandler(
            **where,
            overflow="drop_oldest",  # what does not fit is not the matter here
            max_buffer_records=rate,
            **options,
            fallback=logging.NullHandler(),
        )
        records = [
            logging.LogRecord(f"app.{number}", logging.INFO, __file__, 1, "order %d is accepted", (1001,), None)
            for number in range(loggers)
        ]
        started = time.monotonic()
        logged = 0
        before = handler.stats()
        for second in range(1, seconds + 1):
            while (elapsed := time.monotonic() - started) < second:
                for number in range(logged, int(elapsed * rate)):
                    handler.handle(records[number % loggers])
                logged = max(logged, int(elapsed * rate))
                time.sleep(_TICK)
            after = handler.stats()
            yield _difference(before, after)
            before = after
        handler.close()


def _difference(before: HandlerStats, after: HandlerStats) -> Second:
    stored = after.delivered - before.delivered
    # What goes again had been refused before: there is no other trouble here.
    refused = after.retried - before.retried
    return Second(
        logged=after.emitted - before.emitted,
        stored=stored,
        sent=stored + refused,
        refused=refused,
        requests=after.requests - before.requests,
        waiting=after.buffered,
    )


@contextmanager
def _emulator_elsewhere() -> Iterator[dict[str, Any]]:
    """Runs the emulator in a process of its own, so that it does not share the interpreter that is measured."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_emulator, args=(theirs,), daemon=True)
    process.start()
    if not ours.poll(_TIMEOUT):
        raise TimeoutError("the emulator did not start")
    try:
        yield ours.recv()
    finally:
        ours.send("done")
        process.join(_TIMEOUT)


def _run_emulator(connection: Connection) -> None:
    with DISEmulator(streams={_STREAM: PARTITIONS}, throttle=True, retention=1) as dis:
        connection.send(dis.handler_options(_STREAM))
        connection.recv()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures as told, prints what it sees, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.throttled", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=int, default=20, help="how long; at least 11 (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=5000, help="records logged a second (default: %(default)s)")
    parser.add_argument("--loggers", type=int, default=30, help="how many log (default: %(default)s)")
    parser.add_argument("--aggregate", action="store_true", help="let records share DIS records")
    told = parser.parse_args(arguments)
    if told.seconds <= WARM_UP:
        parser.error(f"--seconds must be more than {WARM_UP}, the time in which the rate is looked for")
    allowed = PARTITIONS * RATES["COMMON"].records
    possible = told.rate if told.aggregate else min(allowed, told.rate)
    print(f"{told.loggers} loggers log {told.rate} records/s; {PARTITIONS} partitions take {allowed} DIS records/s")
    print("second  logged  stored  refused  requests  waiting")
    late: list[Second] = []
    options = {"aggregate": "lines"} if told.aggregate else {}
    for number, second in enumerate(measure(told.seconds, told.rate, told.loggers, options), start=1):
        share = second.refused / max(1, second.sent)
        print(
            f"{number:6}  {second.logged:6}  {second.stored:6}  {share:7.1%}  {second.requests:8}  {second.waiting:7}",
            flush=True,
        )
        if number > WARM_UP:
            late.append(second)
    stored = sum(second.stored for second in late) / (len(late) * possible)
    refused = sum(second.refused for second in late) / max(1, sum(second.sent for second in late))
    is_good = stored >= STORED and refused < REFUSED
    print(f"after {WARM_UP} s: {stored:.1%} of what is possible was stored, {refused:.1%} of what was sent was refused")
    print(
        "kept to the pace" if is_good else f"NOT KEPT: at least {STORED:.0%} and less than {REFUSED:.0%} are asked for"
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
