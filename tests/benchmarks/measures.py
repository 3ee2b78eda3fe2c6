"""
What is measured of one contender, in a process of its own: ``python -m tests.benchmarks.measures '{"measure": ...}'``.

Prints one JSON object. Choices that hold for all of them:

- The garbage collector stays on, as in any program, but what was imported and set up is frozen out of it first: a full
  collection would otherwise cost a contender by the size of the libraries it imports, which is not what is asked here.
- Nothing is pinned to a processor. Pinned, the threads of a process take turns on one core, which hides what they cost each
  other when the interpreter's lock travels between two, as it does in production; and it did not narrow the spread.
- A process measures one thing once and ends; the parent takes the contenders in turn, round after round, so that a slow
  minute of the machine falls on all of them.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

from tests.benchmarks.contenders import Running, start, start_ours
from tests.benchmarks.lines import FORMAT, LINE_BYTES, MESSAGES, OwnFormatter, new_formatter, new_loggers

_MASK = len(MESSAGES) - 1
_BURST = 50
_IDLE_SECONDS = 0.004

Figures = dict[str, Any]


def _settle_down() -> None:
    gc.collect()
    gc.freeze()


# -- CPU in the logging call ----------------------------------------------------------------------------------------


def measure_call(contender: str, port: int, *, bursts: int, own_formatter: bool = False) -> Figures:
    """
    Measures the CPU time of the logging thread for one call: the best of many bursts of 50 records with idle time after.

    The best, because noise only ever adds; bursts, because a clock read costs as much as a tenth of a call; idle time, so
    that the background thread does its work between the bursts and not in them. With *own_formatter* the formatter is not
    the standard library's, so that ours has to ask it for each text.
    """
    running = start(contender, port)
    if own_formatter:
        running.handler.setFormatter(OwnFormatter(FORMAT))
    best = _best_burst(running, bursts)
    running.finish()
    return {"emitted": bursts * _BURST, "call_us": best}


def _best_burst(running: Running, bursts: int, first: int = 0) -> float:
    """Returns microseconds for one call, having logged *bursts* x 50 records numbered from *first* on."""
    (logger,) = new_loggers(running.handler)
    best = sys.maxsize
    _settle_down()
    for burst in range(bursts):
        numbers = range(first + burst * _BURST, first + (burst + 1) * _BURST)
        started = time.thread_time_ns()
        for number in numbers:
            logger.info(MESSAGES[number & _MASK], number)
        best = min(best, time.thread_time_ns() - started)
        time.sleep(_IDLE_SECONDS)
    return best / _BURST / 1000


# -- many threads ---------------------------------------------------------------------------------------------------


def measure_threads(contender: str, port: int, *, threads: int, calls: int) -> Figures:
    """
    Measures how many calls a second *threads* threads get through together, *calls* in total, all by one logger.

    By the wall clock, from the first call to the last: threads that wait for one another use no CPU time.
    """
    running = start(contender, port)
    (logger,) = new_loggers(running.handler)
    each = calls // threads
    barrier = threading.Barrier(threads)
    spans: list[tuple[float, float]] = []

    def log(first: int) -> None:
        barrier.wait()
        started = time.perf_counter()
        for number in range(first, first + each):
            logger.info(MESSAGES[number & _MASK], number)
        spans.append((started, time.perf_counter()))

    workers = [threading.Thread(target=log, args=(index * each,)) for index in range(threads)]
    _settle_down()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
    running.finish()
    return {"emitted": each * threads, "calls_per_second": each * threads / seconds}


# -- process CPU and throughput -------------------------------------------------------------------------------------


def measure_process(contender: str, port: int, *, records: int, loggers: int = 1, **options: Any) -> Figures:
    """
    Measures the CPU time of the whole process, all threads, from the first record to the last acknowledgement.

    Also the records a second by the wall clock. Logs as fast as it can, *loggers* taking turns. With *options* it is ours,
    with these options of `DISHandler`.
    """
    running = _start(contender, port, options)
    logs = [logger.info for logger in new_loggers(running.handler, loggers)]
    _settle_down()
    started = time.perf_counter()
    cpu_started = time.process_time()
    for number in range(records):
        logs[number % loggers](MESSAGES[number & _MASK], number)
    running.finish()
    cpu = time.process_time() - cpu_started
    seconds = time.perf_counter() - started
    return {"emitted": records, "cpu_us": cpu / records * 1e6, "records_per_second": records / seconds}


def _start(contender: str, port: int, options: dict[str, Any]) -> Running:
    if not options:
        return start(contender, port)
    running = start_ours(port, **options)
    running.handler.setFormatter(new_formatter())
    return running


# -- the service is down --------------------------------------------------------------------------------------------

_SMALL_BUFFER = 2000
# Long enough that the call after each pause, which finds the processor's caches cold, is not the 99th percentile itself.
_TAIL_BURST = 250


def _refusing_port() -> tuple[int, socket.socket]:
    """Returns a port that refuses connections, and the socket that keeps others from taking it."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))  # bound, but not listening
    return holder.getsockname()[1], holder


def measure_tail(contender: str, port: int, *, state: str, calls: int) -> Figures:
    """
    Measures the 99th percentile of single calls under ``drop_oldest``, the service being *state*.

    By the wall clock, since what a caller notices is mostly waiting. The buffer is small and the calls before the first
    that counts fill it, so that each later call drops a record while the service is away.
    """
    holder = None
    if state == "down":
        port, holder = _refusing_port()
    running = _start(contender, port, {"overflow": "drop_oldest", "max_buffer_records": _SMALL_BUFFER})
    (logger,) = new_loggers(running.handler)
    warm_up = _SMALL_BUFFER + 1000
    nanoseconds = array("q", bytes(8 * calls))
    clock = time.perf_counter_ns
    _settle_down()
    for number in range(warm_up + calls):
        before = clock()
        logger.info(MESSAGES[number & _MASK], number)
        if number >= warm_up:
            nanoseconds[number - warm_up] = clock() - before
        if number % _TAIL_BURST == 0:
            time.sleep(2 * _IDLE_SECONDS)
    dropped = _stats(running).dropped
    if holder is not None:
        holder.close()
    ordered = sorted(nanoseconds)
    return {"p99_us": ordered[calls * 99 // 100] / 1000, "p50_us": ordered[calls // 2] / 1000, "dropped": dropped}


def measure_full(contender: str, port: int, *, bursts: int, overflow: str) -> Figures:
    """Measures the CPU time of a call while the buffer is full under the drop policy *overflow*, and nothing answers."""
    port, holder = _refusing_port()
    running = _start(contender, port, {"overflow": overflow, "max_buffer_records": _SMALL_BUFFER})
    (logger,) = new_loggers(running.handler)
    for number in range(_SMALL_BUFFER):
        logger.info(MESSAGES[number & _MASK], number)
    best = _best_burst(running, bursts)
    dropped = _stats(running).dropped
    holder.close()
    if dropped < bursts * _BURST - _SMALL_BUFFER:
        raise AssertionError(f"the buffer was not full: only {dropped} records dropped")
    return {"call_us": best, "dropped": dropped}


def measure_stderr(contender: str, port: int, *, seconds: float, overflow: str, delivery_timeout: float) -> Figures:
    """
    Writes to stderr what it writes while the service is down, for the parent to count; 500 records a second.

    Closing is left out: what then still waits is handed over one by one, as it must be.
    """
    port, _holder = _refusing_port()
    options = {"overflow": overflow, "max_buffer_records": _SMALL_BUFFER, "delivery_timeout": delivery_timeout}
    running = _start(contender, port, options)
    (logger,) = new_loggers(running.handler)
    deadline = time.monotonic() + seconds
    for number in range(_SMALL_BUFFER):
        logger.info(MESSAGES[number & _MASK], number)
    number = _SMALL_BUFFER
    while time.monotonic() < deadline:
        for _ in range(5):
            logger.info(MESSAGES[number & _MASK], number)
            number += 1
        time.sleep(0.01)
    stats = _stats(running)
    return {"emitted": number, "dropped": stats.dropped, "failed": stats.failed}


def _stats(running: Running) -> Any:
    return running.handler.stats()  # type: ignore[attr-defined] # only ours is measured so


# -- memory and imports ---------------------------------------------------------------------------------------------


def measure_memory(contender: str, port: int, *, records: int) -> Figures:
    """
    Measures what the process grows by for each record that waits while the service is down, in payload bytes.

    Resident memory, as the operating system counts it, so that what the allocator rounds up and keeps is in it.
    """
    port, _holder = _refusing_port()
    warm_up = 2000  # the thread, the first connection, the free lists
    room = 2 * (warm_up + records)
    running = _start(contender, port, {"max_buffer_records": room, "max_buffer_bytes": room * LINE_BYTES})
    (logger,) = new_loggers(running.handler)
    for number in range(warm_up):
        logger.info(MESSAGES[number & _MASK], number)
    time.sleep(0.2)
    _settle_down()
    before = _resident_bytes()
    for number in range(records):
        logger.info(MESSAGES[number & _MASK], number)
    grown = _resident_bytes() - before
    buffered = _stats(running).buffered
    if buffered != records + warm_up:
        raise AssertionError(f"{buffered} records are buffered instead of {records + warm_up}")
    return {"bytes_per_record": grown / records, "times_payload": grown / records / LINE_BYTES}


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        # Elsewhere there is only the peak, which is as good while the process only grows; macOS counts bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


_MEASURES: dict[str, Callable[..., Figures]] = {
    "call": measure_call,
    "threads": measure_threads,
    "process": measure_process,
    "tail": measure_tail,
    "full": measure_full,
    "stderr": measure_stderr,
    "memory": measure_memory,
}


def main() -> None:
    order = json.loads(sys.argv[1])
    figures = _MEASURES[order.pop("measure")](**order)
    print(json.dumps(figures), flush=True)
    # Without closing: it is not measured, and some contenders take their time or print while they end.
    os._exit(0)


if __name__ == "__main__":
    main()
