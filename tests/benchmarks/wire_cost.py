"""
What one record costs on the wire and in CPU, for each format and compression: ``python -m tests.benchmarks.wire_cost``.

Prints a Markdown table. The lines are made up like those of a shop: a time to the millisecond, level, logger, and a
message full of numbers that differ from line to line. They go in requests of 500, as the handler sends them by default, to
an emulator in another process that decodes them and verifies their signatures. Bytes are those of the bodies as they arrive; the head of a
request, some 600 bytes, comes on top. CPU is that of the sending thread for the whole attempt: encoding, compressing,
signing, sending and reading the answer. Each combination takes its turn in each round, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from dis_logging import DISClient, PutRecordsRequestEntry
from dis_logging.client.wire import wire_entry
from dis_logging.emulator import DISEmulator

RECORDS = 2000
BATCH_RECORDS = 500
COMBINATIONS = tuple(
    (body_format, compression)
    for body_format in ("json", "protobuf")
    for compression in (None, "zstd", "lz4", "snappy")
)

_STREAM = "app-logs"
_TIMEOUT = 30.0


class Cost(NamedTuple):
    """
    What one record costs.

    Args:
        wire_bytes: in the body of the request.
        cpu_us: microseconds of the sending thread.
    """

    wire_bytes: float
    cpu_us: float


def ordinary_lines(count: int = RECORDS, seed: int = 20260314) -> list[tuple[str, str]]:
    """Returns loggers and their formatted lines of about 100 bytes; the same for the same *seed*."""
    source = random.Random(seed)
    moment = datetime(2026, 3, 14, 9, 26, 53)
    lines = []
    for number in range(count):
        moment += timedelta(milliseconds=source.expovariate(1 / 20))
        logger, level, message = _event(source, number)
        stamp = f"{moment:%Y-%m-%d %H:%M:%S},{moment.microsecond // 1000:03d}"
        lines.append((logger, f"{stamp} {level} {logger} {message}"))
    return lines


def _event(source: random.Random, number: int) -> tuple[str, str, str]:
    """Returns logger, level and message of the event with that *number*."""
    order, customer, item = 480_000 + number, source.randint(1000, 9999), source.randint(10_000, 99_999)
    milliseconds = int(source.lognormvariate(3.5, 1.0))
    kind = source.random()
    if kind < 0.40:
        method, status = source.choice(("GET", "GET", "POST", "PUT")), source.choice((200, 200, 200, 201, 304, 404))
        path = source.choice((f"/api/items/{item}", f"/api/orders/{order}", f"/api/users/{customer}/profile"))
        return "django.request", "INFO", f"{method} {path} -> {status} in {milliseconds} ms, {item} bytes"
    if kind < 0.60:
        total = source.uniform(5, 300)
        return "shop.orders", "INFO", f"order {order} of customer {customer} accepted, total {total:.2f} EUR"
    if kind < 0.75:
        payment = f"{source.getrandbits(32):08x}"
        return "shop.payment", "INFO", f"payment {payment} for order {order} authorised after {milliseconds} ms"
    if kind < 0.90:
        left = source.randint(0, 500)
        return "shop.inventory", "DEBUG", f"reserved item {item}, {left} left, lock held for {milliseconds} ms"
    if kind < 0.97:
        session = f"{source.getrandbits(32):08x}"
        return "auth.session", "WARNING", f"session {session} of user {customer} expired after {milliseconds} s idle"
    return "worker.mail", "ERROR", f"mail {item} to customer {customer} failed: timed out after {milliseconds} ms"


def ordinary_entries() -> list[PutRecordsRequestEntry]:
    """Returns the lines as entries, keyed by logger as the handler does it."""
    return [PutRecordsRequestEntry(line.encode(), logger) for logger, line in ordinary_lines()]


class Service:
    """An emulator in a process of its own, so that its work and the interpreter's lock are charged to nobody."""

    def __init__(self) -> None:
        self._pipe, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        self.options: dict[str, Any] = self._pipe.recv()

    def received_bytes(self) -> list[int]:
        """Returns the sizes of the bodies that came since the last call."""
        self._pipe.send(True)
        sizes: list[int] = self._pipe.recv()
        return sizes

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(False)
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection) -> None:
    with DISEmulator(streams={_STREAM: 3}) as dis:
        pipe.send(dis.client_options())
        known = 0
        while pipe.recv():
            sizes = [request.body_bytes for request in dis.requests]
            pipe.send(sizes[known:])
            known = len(sizes)


def measure(
    service: Service, entries: Sequence[PutRecordsRequestEntry], body_format: str, compression: str | None
) -> Cost:
    """Sends *entries* in requests of 500 and returns what each of them cost."""
    encodable = [wire_entry(entry) for entry in entries]
    with DISClient(**service.options, body_format=body_format, compression=compression) as client:
        client.send(_STREAM, encodable[:1], _TIMEOUT)  # the connection and the libraries
        service.received_bytes()
        started = time.thread_time()
        for first in range(0, len(entries), BATCH_RECORDS):
            refused = client.send(_STREAM, encodable[first : first + BATCH_RECORDS], _TIMEOUT)
            if refused:
                raise AssertionError(f"the emulator refused {len(refused)} records")
        cpu = time.thread_time() - started
    return Cost(sum(service.received_bytes()) / len(entries), cpu / len(entries) * 1e6)


def measure_all(rounds: int) -> dict[tuple[str, str | None], Cost]:
    """Returns the median cost of each combination over that many rounds, after one that does not count."""
    entries = ordinary_entries()
    costs: dict[tuple[str, str | None], list[Cost]] = {combination: [] for combination in COMBINATIONS}
    with Service() as service:
        for _ in range(rounds + 1):
            for combination in COMBINATIONS:
                costs[combination].append(measure(service, entries, *combination))
    return {combination: _median(found[1:]) for combination, found in costs.items()}


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(cost.wire_bytes for cost in costs), statistics.median(cost.cpu_us for cost in costs))


def table(costs: dict[tuple[str, str | None], Cost]) -> str:
    """Returns *costs* as a Markdown table."""
    lines = ["| `body_format` | `compression` | bytes per record | CPU per record |", "|---|---|---|---|"]
    for (body_format, compression), cost in costs.items():
        codec = f'`"{compression}"`' if compression else "none"
        lines.append(f'| `"{body_format}"` | {codec} | {cost.wire_bytes:.1f} | {cost.cpu_us:.1f} µs |')
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Prints what a record costs on the wire and in CPU, as a Markdown table."
    )
    parser.add_argument("--rounds", type=int, default=15, help="more rounds, steadier medians (default 15)")
    rounds = max(1, parser.parse_args().rounds)
    lines = [line for _, line in ordinary_lines()]
    print(f"{RECORDS} records of {statistics.mean(map(len, lines)):.0f} bytes on average, such as:\n")
    print("\n".join(f"    {line}" for line in lines[:3]), end="\n\n")
    print(table(measure_all(rounds)))


if __name__ == "__main__":
    main()
