"""However a process ends, its records are delivered or reported, and it ends in time."""

import json
import signal
import subprocess
import sys
from collections import Counter

import pytest

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang, Refuse, RefuseEntries
from tests.process.programs import STREAM, Program, Programs, numbered

ENDINGS = {
    "normal": ("pass", 0),
    "exception": ("raise LookupError('unforeseen')", 1),
    "sys-exit": ("sys.exit(3)", 3),
    "sys-exit-in-a-thread": ("thread = threading.Thread(target=sys.exit); thread.start(); thread.join()", 0),
    "sigint": ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT),
}

HANGING = 20  # handlers
SHUTDOWN_TIMEOUT = 1.0
GRACE = 0.5  # what the promise adds to it


@pytest.mark.parametrize(("ending", "status"), ENDINGS.values(), ids=ENDINGS)
def test_a_full_buffer_is_delivered_at_exit(dis: DISEmulator, programs: Programs, ending: str, status: int) -> None:
    dis.play(Refuse(503))

    ended = programs.run(
        f"""
        import signal, sys, threading
        from application import make_logger
        logger = make_logger("app")
        for number in range(2000):
            logger.info("record %d", number)
        {ending}
        """,
        max_buffer_records=2000,
        max_batch_records=10_000,
        flush_interval=60,
        backoff_initial=0.01,
    )

    assert ended.returncode == status
    assert ended.delivered == numbered("record", 2000)
    assert not ended.reported


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM),
        ("signal.raise_signal(signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(0)", 0),
    ],
    ids=["sigterm", "sigkill", "os-exit"],
)
def test_an_end_without_exit_functions_loses_only_what_was_not_sent(
    programs: Programs, ending: str, status: int
) -> None:
    ended = programs.run(
        f"""
        import os, signal
        from application import make_handler, make_logger
        logger = make_logger("app", handler := make_handler())
        for number in range(100):
            logger.info("sent %d", number)
        assert handler.flush()
        for number in range(100):
            logger.info("waiting %d", number)
        {ending}
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (status, "")
    assert ended.accounted == numbered("sent", 100)


# -- a service that hangs -------------------------------------------------------------------------------------------

HANGING_PROGRAM = f"""
    import logging, sys, time
    from application import make_handler, make_logger
    shared = make_handler() if sys.argv[2] == "exit-of-one" else None
    loggers = [make_logger(f"app.{{number}}", shared) for number in range({HANGING})]
    for number in range(5):
        for logger in loggers:
            logger.log(int(sys.argv[1]), "%s record %d", logger.name, number)
    print("logged", flush=True)
    input()
    print(time.monotonic(), flush=True)
    if sys.argv[2] == "shutdown":
        logging.shutdown()
        print(time.monotonic(), flush=True)
    """
AT_ONCE, LATER = "40", "20"  # ERROR sets the senders going, INFO waits for the flush interval


def _everything() -> Counter[str]:
    return Counter(f"app.{logger} record {number}" for logger in range(HANGING) for number in range(5))


def _start(programs: Programs, ending: str, level: str) -> Program:
    program = programs.start(HANGING_PROGRAM, level, ending, flush_interval=60, shutdown_timeout=SHUTDOWN_TIMEOUT)
    assert program.read_line() == "logged"
    return program


@pytest.mark.parametrize("level", [AT_ONCE, LATER], ids=["in-flight", "waiting"])
def test_exit_is_bounded_with_twenty_handlers_whose_service_hangs(
    dis: DISEmulator, programs: Programs, level: str
) -> None:
    healthy = _start(programs, "exit", level)
    healthy.go_on()
    healthy_seconds = -float(healthy.read_line()) + healthy.wait().ended_at
    delivered_before = dis.record_count(STREAM)
    with dis.rule(Hang()):
        program = _start(programs, "exit", level)
        if level is AT_ONCE:
            assert dis.wait_for(lambda dis: _pending(dis) == HANGING)
        program.go_on()
        exit_began = float(program.read_line())
        ended = program.wait()

    assert delivered_before == 5 * HANGING
    assert ended.ended_at - exit_began <= healthy_seconds + SHUTDOWN_TIMEOUT + GRACE
    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.reported == _everything()
    assert ended.codes == {"closed": 5 * HANGING}


def test_exit_is_bounded_with_twenty_loggers_of_one_handler_whose_service_hangs(
    dis: DISEmulator, programs: Programs
) -> None:
    """Some of them in flight, up to max_in_flight requests, and the others waiting."""
    with dis.rule(Hang()):
        program = _start(programs, "exit-of-one", AT_ONCE)
        assert dis.wait_for(_pending)
        program.go_on()
        exit_began = float(program.read_line())
        ended = program.wait()

    assert ended.ended_at - exit_began <= SHUTDOWN_TIMEOUT + 2 * GRACE  # the second for the interpreter itself
    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.reported == _everything()
    assert ended.codes == {"closed": 5 * HANGING}


def test_logging_shutdown_is_bounded_with_twenty_handlers_whose_service_hangs(
    dis: DISEmulator, programs: Programs
) -> None:
    with dis.rule(Hang()):
        program = _start(programs, "shutdown", AT_ONCE)
        assert dis.wait_for(lambda dis: _pending(dis) == HANGING)
        program.go_on()
        began, ended_at = float(program.read_line()), float(program.read_line())
        ended = program.wait()

    assert ended_at - began <= SHUTDOWN_TIMEOUT + GRACE
    assert ended.ended_at - began <= SHUTDOWN_TIMEOUT + 2 * GRACE  # exit after it has nothing left to wait for
    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.reported == _everything()


def test_flushing_again_and_again_does_not_use_up_the_time_for_the_end(dis: DISEmulator, programs: Programs) -> None:
    """Only closings that follow one another share *shutdown_timeout*."""
    with dis.rule(Hang(0.02)):
        ended = programs.run(
            """
            import threading
            from application import make_handler, make_logger
            logger = make_logger("app", handler := make_handler())
            flushed = []
            for number in range(40):
                logger.info("record %d", number)
                flushed.append(handler.flush())
            logger.info("record 40")
            threads = [threading.Thread(target=lambda: flushed.append(handler.flush())) for _ in range(40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert all(flushed)
            logger.info("record 41")
            """,
            shutdown_timeout=0.5,
        )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 42)
    assert not ended.reported


def _pending(dis: DISEmulator) -> int:
    return sum(request.status is None for request in dis.requests)


# -- the last words -------------------------------------------------------------------------------------------------

# Exit functions run in reverse order: ours, logging's, then whatever was registered before them.
LAST_WORDS = {
    "before-ours": ("", "", "atexit.register(say)"),
    "after-ours": ("", "atexit.register(say)", ""),
    "after-logging": ("atexit.register(say)", "", ""),
}
LAST_WORDS_PROGRAM = """
    import atexit
    def say():
        logger.info("last words")
    {}
    import logging
    {}
    from application import make_logger
    {}
    logger = make_logger("app")
    """


@pytest.mark.parametrize("places", LAST_WORDS.values(), ids=LAST_WORDS)
def test_the_first_record_ever_may_come_from_an_exit_function(programs: Programs, places: tuple[str, str, str]) -> None:
    ended = programs.run(LAST_WORDS_PROGRAM.format(*places), flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == {"last words": 1}
    assert not ended.reported


@pytest.mark.parametrize("places", LAST_WORDS.values(), ids=LAST_WORDS)
def test_what_an_exit_function_logs_while_dis_is_down_is_reported(
    dis: DISEmulator, programs: Programs, places: tuple[str, str, str]
) -> None:
    dis.stop()

    ended = programs.run(LAST_WORDS_PROGRAM.format(*places), flush_interval=60, shutdown_timeout=0.3)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.reported == {"last words": 1}


def test_exit_functions_may_log_before_and_after_ours(programs: Programs) -> None:
    ended = programs.run(
        """
        import atexit
        atexit.register(lambda: logger.info("record 2"))
        import logging
        atexit.register(lambda: logger.info("record 1"))
        from application import make_logger
        logger = make_logger("app")
        logger.info("record 0")
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.accounted == numbered("record", 3)


def test_destructors_may_log_while_the_interpreter_goes_down(programs: Programs) -> None:
    """Not every destructor still runs with logging intact: what counts is what reached the logger's handlers."""
    programs.write(
        "leaving.py",
        """
        import logging, os
        class Leaving:
            def __init__(self, number, logger):
                self.number, self.logger = number, logger
            def __del__(self):
                self.logger.warning("record %d", self.number)
        class Probe(logging.Handler):
            def emit(self, record):
                os.write(1, record.getMessage().encode() + b"\\n")
        """,
    )
    ended = programs.run(
        """
        from leaving import Leaving, Probe
        from application import make_logger
        logger = make_logger("app", Probe())
        make_logger("app")
        global_variable = Leaving(0, logger)
        in_a_cycle = [Leaving(1, logger)]
        in_a_cycle.append(in_a_cycle)
        del in_a_cycle
        logger.keeps_it = Leaving(2, logger)
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.accounted == Counter(ended.output.splitlines())
    assert ended.accounted["record 0"] == 1


# -- shutting down more than once -----------------------------------------------------------------------------------


def test_logging_shutdown_may_be_called_twice_with_records_in_between(programs: Programs) -> None:
    ended = programs.run(
        """
        import logging
        from application import make_logger
        logger = make_logger("app")
        logger.info("record 0")
        logging.shutdown()
        logger.info("record 1")
        logging.shutdown()
        logger.info("record 2")
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == {"record 0": 1}
    assert ended.reported == {"record 1": 1, "record 2": 1}
    assert ended.codes == {"closed": 2}


def test_close_from_two_threads_while_others_emit_loses_nothing(programs: Programs) -> None:
    ended = programs.run(
        """
        import sys, threading
        from application import make_handler, make_logger
        sys.setswitchinterval(1e-5)
        def chat(logger, number, closed):
            for count in range(30):
                logger.info("%s thread %d record %d", logger.name, number, count)
            closed.wait()
            for count in range(30, 35):
                logger.info("%s thread %d record %d", logger.name, number, count)
        for turn in range(40):
            logger = make_logger(f"turn {turn}", handler := make_handler())
            closed = threading.Event()
            threads = [threading.Thread(target=chat, args=(logger, number, closed)) for number in range(4)]
            closers = [threading.Thread(target=handler.close) for _ in range(2)]
            for thread in threads[:2] + closers + threads[2:]:
                thread.start()
            for closer in closers:
                closer.join()
            handler.close()
            closed.set()
            for thread in threads:
                thread.join()
            stats = handler.stats()
            assert (stats.emitted, stats.buffered) == (140, 0), stats
        """,
        flush_interval=0.01,
        max_batch_records=20,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.accounted == Counter(
        f"turn {turn} thread {number} record {count}"
        for turn in range(40)
        for number in range(4)
        for count in range(35)
    )


def test_a_full_stderr_pipe_that_nobody_reads_holds_up_neither_callers_nor_the_end(dis: DISEmulator) -> None:
    """The default fallback writes to stderr, and DIS refuses everything."""
    program = """
import json, logging, sys, time
from dis_logging import DISHandler
handler = DISHandler(**json.loads(sys.argv[1]), shutdown_timeout=1, max_buffer_records=5000)
logger = logging.getLogger("app")
logger.setLevel("INFO")
logger.addHandler(handler)
started = time.monotonic()
for number in range(3000):
    logger.info("record %d", number)
emitted = time.monotonic()
handler.close()
closed = time.monotonic()
stats = handler.stats()
print(json.dumps([emitted - started, closed - emitted, stats.failed, stats.buffered]), flush=True)
"""
    options = json.dumps(dis.handler_options(STREAM))
    with (
        dis.rule(RefuseEntries("DIS.4302")),
        subprocess.Popen(
            [sys.executable, "-c", program, options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as application,
    ):
        assert application.stdout is not None
        emitting, closing, failed, buffered = json.loads(application.stdout.readline())
        application.kill()

    assert (failed, buffered) == (3000, 0)
    assert emitting < 10
    assert closing < 10


def test_close_leaves_the_fallback_time_for_what_waits_when_the_service_hangs(
    dis: DISEmulator, programs: Programs
) -> None:
    """Ten thousand records, which a fallback does not take in the moment after shutdown_timeout."""
    with dis.rule(Hang()):
        ended = programs.run(
            """
            import logging, time
            from application import make_logger, make_handler
            class Counting(logging.Handler):
                count = 0
                def emit(self, record):
                    self.count += 1
                    self.format(record)
            fallback = Counting()
            logger = make_logger("app", handler := make_handler(fallback=fallback))
            for number in range(10_000):
                logger.info("record %d", number)
            started = time.monotonic()
            handler.close()
            print(fallback.count, handler.stats().failed, time.monotonic() - started)
            """,
            shutdown_timeout=3,
        )

    taken, failed, seconds = ended.output.split()
    assert (taken, failed, ended.errors) == ("10000", "10000", "")
    assert float(seconds) < 3.5


def test_the_fallback_is_left_early_enough_to_give_up_a_hundred_thousand_records_in_time(
    dis: DISEmulator, programs: Programs
) -> None:
    with dis.rule(Hang()):
        ended = programs.run(
            """
            import logging, time
            from application import make_handler
            class Slow(logging.Handler):
                def emit(self, record):
                    self.latest = time.monotonic()
                    time.sleep(0.01)
            fallback = Slow()
            handler = make_handler(fallback=fallback)
            record = logging.LogRecord("app", logging.INFO, __file__, 1, "text", None, None)
            for _ in range(120_000):
                handler.handle(record)
            started = time.monotonic()
            handler.close()
            print(handler.stats().failed, fallback.latest - started)
            """,
            shutdown_timeout=2,
            max_buffer_records=150_000,
            flush_interval=60,
        )

    failed, seconds = ended.output.split()
    assert failed == "120000"
    assert float(seconds) < 1.8  # a second before 2.1, when it is left otherwise, and what a slow machine needs


def test_the_end_is_bounded_with_many_slow_fallbacks(dis: DISEmulator, programs: Programs) -> None:
    """None of the eight handlers' fallbacks gets far; together they have the time that one has."""
    with dis.rule(Hang()):
        ended = programs.run(
            """
            import logging, time
            from application import make_logger, make_handler
            class Slow(logging.Handler):
                def emit(self, record):
                    time.sleep(0.01)
            for name in range(8):
                logger = make_logger(f"app.{name}", make_handler(fallback=Slow()))
                for number in range(400):
                    logger.info("record %d", number)
            started = time.monotonic()
            logging.shutdown()
            print(time.monotonic() - started)
            """,
            shutdown_timeout=1,
        )

    assert float(ended.output) <= 1 + GRACE


def test_ctrl_c_again_and_again_at_the_end_loses_nothing(dis: DISEmulator, programs: Programs) -> None:
    """DIS hangs, and somebody who does not want to wait for it ends the waiting of both handlers, and logging's own."""
    with dis.rule(Hang()):
        ended = programs.run(
            """
            import atexit, signal
            from application import make_logger
            for name in ("one", "two"):
                logger = make_logger(f"app.{name}")
                for number in range(50):
                    logger.info("record %s %d", name, number)
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.2, 0.2)  # runs first
            """,
            shutdown_timeout=20,
        )

    assert ended.reported == numbered("record one", 50) + numbered("record two", 50)


def test_a_fallback_that_is_stuck_at_the_end_costs_no_more_than_promised(dis: DISEmulator, programs: Programs) -> None:
    with dis.rule(Hang()):
        ended = programs.run(
            """
            import logging, threading, time
            from application import make_logger, make_handler
            class Stuck(logging.Handler):
                def emit(self, record):
                    threading.Event().wait()
            logger = make_logger("app", handler := make_handler(fallback=Stuck()))
            for number in range(30_000):
                logger.info("record %d", number)
            started = time.monotonic()
            handler.close()
            print(handler.stats().failed, handler.stats().buffered, time.monotonic() - started, flush=True)
            import os
            os._exit(0)
            """,
            shutdown_timeout=1,
        )

    failed, buffered, seconds = ended.output.split()
    (rest,) = (
        text for text in ended.reported if text.endswith("did not take in time and which there was no time to show")
    )
    assert (failed, buffered, ended.errors) == ("30000", "0", "")
    assert float(seconds) < 1.5
    assert len(ended.reported) - 1 + int(rest.split()[0]) == 30_000
