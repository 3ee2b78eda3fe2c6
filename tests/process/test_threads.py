"""Threads that cannot be started, that are killed, that log all at once, or that a signal handler throws out of emit."""

import logging
import re
import sys
import threading

import pytest

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.pipeline.stats import Ledger
from tests.conftest import RememberingHandler
from tests.process.programs import STREAM, Programs, numbered

REFUSING = """
    import threading
    from application import make_handler, make_logger
    start = threading.Thread.start
    refusals = []
    def refuse(thread):
        if len(refusals) < {limit}:
            refusals.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)
    threading.Thread.start = refuse
    logger = make_logger("app", handler := make_handler())
    for number in range(10):
        logger.info("record %d", number)
    """


def test_a_thread_that_cannot_be_started_three_times_in_a_row_costs_nothing(
    dis: DISEmulator, programs: Programs
) -> None:
    program = programs.start(REFUSING.format(limit=3) + "print(len(refusals), flush=True); input()\n", flush_interval=0)

    assert program.read_line() == "3"
    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 10)  # by the thread: nobody flushes
    program.go_on()
    ended = program.wait()
    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 10)


@pytest.mark.parametrize("ending", ["handler.flush()", "handler.close()", ""], ids=["flush", "close", "exit"])
def test_without_any_thread_flush_close_and_exit_deliver(programs: Programs, ending: str) -> None:
    source = REFUSING.format(limit=10**9) + ending + "\n" + "    print(threading.active_count(), flush=True)\n"
    ended = programs.run(source if ending else source.replace("\n\n", "\n"), flush_interval=0)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "1\n")
    assert ended.delivered == numbered("record", 10)


def test_without_any_thread_what_dis_refuses_reaches_the_fallback(dis: DISEmulator, programs: Programs) -> None:
    dis.delete_stream(STREAM)

    ended = programs.run(REFUSING.format(limit=10**9) + "assert handler.flush()\n")

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.reported == numbered("record", 10)
    assert ended.codes == {"DIS.4301": 10}


def test_a_killed_sender_costs_nothing(programs: Programs) -> None:
    """It says so on stderr, and goes on."""
    ended = programs.run(
        """
        import ctypes, threading
        from application import make_handler, make_logger
        logger = make_logger("app", handler := make_handler())
        def kill():
            for thread in threading.enumerate():
                if thread.name == "dis_logging-sender":
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
                    )
        for number in range(500):
            logger.info("record %d", number)
            if number % 25 == 24:
                kill()
                assert handler.flush(10), handler
        """,
        flush_interval=0.001,
        max_batch_records=5,
    )

    assert ended.returncode == 0, ended.errors
    # A request that was under way when its thread was killed may go again: at least once.
    assert ended.delivered.keys() == numbered("record", 500).keys()
    assert not ended.reported
    assert "goes on" in ended.errors


def test_a_flush_waits_for_every_record_before_it_however_many_threads_flush() -> None:
    """Shown on the counters alone, where the threads meet a thousand times as often as around real requests."""
    ledger = Ledger()
    stopping = threading.Event()

    def flush() -> None:
        while not stopping.is_set():
            ledger.next_epoch()

    threads = [threading.Thread(target=flush) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        missed = sum(not _is_waited_for(ledger) for _ in range(2_500))
    finally:
        sys.setswitchinterval(interval)
        stopping.set()
        for thread in threads:
            thread.join()

    assert missed == 0


def _is_waited_for(ledger: Ledger) -> bool:
    entry = (b"text", "app", None, ledger.epoch, "app", 20, 0.0, "", 0, None, None, ())
    ledger.accept(entry)
    for _ in range(3):
        past = ledger.next_epoch()
    waited_for = not all(epoch.is_settled for epoch in past)
    ledger.settle_dropped(entry, buffered=False)
    return waited_for


def test_a_flush_waits_for_a_record_that_was_on_its_way_to_the_buffer_during_the_flushes_before() -> None:
    ledger = Ledger()
    epoch = ledger.epoch_numbered(ledger.epoch)
    for _ in range(10):
        ledger.next_epoch()
    epoch.accepted += 1

    assert epoch in ledger.next_epoch()


def test_sixteen_threads_are_delivered_each_in_its_order(dis: DISEmulator, fallback: RememberingHandler) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=0.01, max_batch_records=100, fallback=fallback)
    barrier = threading.Barrier(16)

    def chat(number: int) -> None:
        logger = logging.getLogger(f"test.sixteen.{number}")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
        barrier.wait()
        for count in range(250):
            logger.info("thread-%d %d", number, count)
        logger.removeHandler(handler)

    threads = [threading.Thread(target=chat, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()

    by_key: dict[str, list[str]] = {}
    for record in dis.records(STREAM):
        by_key.setdefault(record.partition_key or "", []).append(record.text)
    assert by_key == {
        f"test.sixteen.{number}": [f"thread-{number} {count}" for count in range(250)] for number in range(16)
    }
    assert handler.stats().delivered == handler.stats().emitted == 16 * 250
    assert not fallback.records


@pytest.mark.parametrize("base", ["Exception", "BaseException"])
def test_a_signal_handler_that_raises_in_the_middle_of_emit_breaks_nothing(programs: Programs, base: str) -> None:
    """
    The record that it interrupts may be lost to the application's own exception, all others are delivered once.

    An `Exception` may also be reported the way logging reports errors in handlers, on stderr.
    """
    ended = programs.run(
        f"""
        import os, signal
        from application import make_handler, make_logger
        class Alarm({base}):
            pass
        def alarm(*_):
            global rang
            rang = True
            raise Alarm
        logger = make_logger("app", handler := make_handler())
        signal.signal(signal.SIGALRM, alarm)
        whole, number = [], 0
        def log_until_it_rings():
            global number
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + number % 100 / 1e5)
            while not rang:
                number += 1
                logger.info(f"record {{number}}")
                whole.append(number)
        for _ in range(300):
            rang = False
            try:
                log_until_it_rings()
            except Alarm:
                pass
        logger.info("record last")
        assert handler.flush(20), handler
        stats = handler.stats()
        assert stats.emitted == stats.delivered and not stats.buffered, stats
        os.write(1, " ".join(map(str, whole)).encode())
        """,
        flush_interval=0.01,
        max_buffer_records=1_000_000,
    )

    assert ended.returncode == 0, ended.errors
    whole = {f"record {number}" for number in [*ended.output.split(), "last"]}
    arrived = {text.partition(" [dis_logging: not formatted")[0] for text in ended.delivered}
    complained_of = set(re.findall(r"^Message: '(.*)'$", ended.errors, re.MULTILINE))
    assert whole <= arrived | complained_of
    assert max(ended.delivered.values()) == 1
    assert not ended.reported
