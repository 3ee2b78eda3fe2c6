"""Records that come up in the middle of others: from signals and destructors, and from what we call ourselves."""

import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import RefuseEntries
from tests.process.programs import STREAM, Programs, numbered


def test_records_from_a_timer_signal_and_from_destructors_are_all_accounted_for(programs: Programs) -> None:
    ended = programs.run(
        """
        import gc, os, signal, sys, time
        from application import make_handler, make_logger
        logger = make_logger("app", handler := make_handler())
        counts = {"main": 0, "signal": 0, "destructor": 0}
        def log(origin):
            number, counts[origin] = counts[origin], counts[origin] + 1
            logger.info("%s %d", origin, number)
        class Dying:
            def __init__(self):
                self.me = self
            def __del__(self):
                log("destructor")
        signal.signal(signal.SIGALRM, lambda *_: log("signal"))
        gc.collect()
        gc.freeze()  # what is there already would only slow the collections down
        gc.set_threshold(1)
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            if counts["main"] < 30_000:
                Dying()
                log("main")
            if not counts["main"] % 50:
                handler.flush(0.01)
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.set_threshold(0)
        gc.collect()  # or the last one would log at exit, uncounted
        assert handler.flush(20), handler
        stats = handler.stats()
        assert stats.emitted == stats.delivered + stats.failed == sum(counts.values()), (stats, counts)
        for origin, count in counts.items():
            print(origin, count)
        """,
        flush_interval=0.01,
        max_batch_records=200,
        max_buffer_records=1_000_000,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    expected = Counter[str]()
    for line in ended.output.splitlines():
        origin, count = line.split()
        assert int(count) >= 20
        expected += numbered(origin, int(count))
    assert ended.accounted == expected


def test_the_first_record_may_come_from_a_signal_handler(programs: Programs) -> None:
    ended = programs.run(
        """
        import signal
        from application import make_handler, make_logger
        logger = make_logger("app", handler := make_handler())
        signal.signal(signal.SIGALRM, lambda *_: logger.info("record 0"))
        signal.raise_signal(signal.SIGALRM)
        assert handler.flush()
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 1)


def test_a_signal_handler_may_log_while_the_thread_is_being_started(programs: Programs) -> None:
    ended = programs.run(
        """
        import signal, threading
        from application import make_handler, make_logger
        logger = make_logger("app", handler := make_handler())
        signal.signal(signal.SIGALRM, lambda *_: logger.info("record 1"))
        start = threading.Thread.start
        def start_interrupted(thread):
            signal.raise_signal(signal.SIGALRM)
            start(thread)
        threading.Thread.start = start_interrupted
        logger.info("record 0")
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 2)


def test_a_signal_handler_may_log_while_the_fallback_is_being_written(dis: DISEmulator, programs: Programs) -> None:
    """With no thread to be had the fallback runs in the thread that flushes, which is the one that signals interrupt."""
    with dis.rule(RefuseEntries("DIS.4300")):
        ended = programs.run(
            """
            import signal, threading
            from application import make_handler, make_logger
            def refuse(thread):
                raise RuntimeError("can't start new thread")
            threading.Thread.start = refuse
            logger = make_logger("app", handler := make_handler())
            counts = {"main": 0, "signal": 0}
            def log(origin):
                number, counts[origin] = counts[origin], counts[origin] + 1
                logger.info("%s %d", origin, number)
            signal.signal(signal.SIGALRM, lambda *_: log("signal"))
            signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
            for _ in range(100):
                for _ in range(5):
                    log("main")
                handler.flush(0.5)
            signal.setitimer(signal.ITIMER_REAL, 0)
            handler.close()
            stats = handler.stats()
            assert stats.emitted == stats.failed == sum(counts.values()), (stats, counts)
            for origin, count in counts.items():
                print(origin, count)
            """,
            max_batch_records=200,
        )

    assert (ended.returncode, ended.errors) == (0, "")
    expected = Counter[str]()
    for line in ended.output.splitlines():
        origin, count = line.split()
        expected += numbered(origin, int(count))
    assert ended.reported == expected
    assert expected["signal 0"] == 1


# -- what the handler calls may log too -----------------------------------------------------------------------------


@pytest.fixture
def handler(dis: DISEmulator, logger: logging.Logger) -> Iterator[DISHandler]:
    """A handler attached to the test's logger."""
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=0.01)
    logger.addHandler(handler)
    yield handler
    handler.close()


def texts(dis: DISEmulator) -> Counter[str]:
    return Counter(record.text for record in dis.records(STREAM))


def assert_all_delivered(handler: DISHandler, dis: DISEmulator) -> None:
    assert handler.flush()
    stats = handler.stats()
    assert stats.emitted == stats.delivered == dis.record_count(STREAM)


def test_a_formatter_may_log_to_the_same_logger(dis: DISEmulator, logger: logging.Logger, handler: DISHandler) -> None:
    class LoggingFormatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            logger.info("formatting")
            return "formatted: " + super().format(record)

    handler.setFormatter(LoggingFormatter())

    logger.info("hello")

    assert_all_delivered(handler, dis)
    assert texts(dis)["formatted: hello"] == 1
    assert texts(dis).total() <= 3


def test_a_filter_may_log_to_the_same_logger(dis: DISEmulator, logger: logging.Logger, handler: DISHandler) -> None:
    def log_and_pass(record: logging.LogRecord) -> bool:
        logger.info("filtering")
        return True

    handler.addFilter(log_and_pass)

    logger.info("hello")

    assert_all_delivered(handler, dis)
    assert texts(dis)["hello"] == 1
    assert texts(dis).total() <= 3


def test_a_partition_key_callable_may_log_to_the_same_logger(dis: DISEmulator, logger: logging.Logger) -> None:
    def key(record: logging.LogRecord) -> str:
        logger.info("choosing a key")
        return "one key"

    handler = DISHandler(**dis.handler_options(STREAM), partition_key=key)
    logger.addHandler(handler)

    logger.info("hello")

    assert_all_delivered(handler, dis)
    assert texts(dis)["hello"] == 1
    assert texts(dis).total() <= 3


class LoggingFallback(logging.Handler):
    """Says on the very logger whose record failed that it failed."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())
        self._logger.error("could not deliver %r", record.getMessage())


def test_a_fallback_may_log_to_the_same_logger(
    dis: DISEmulator, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it logs is sent too; refused as well, it does not come back to the fallback for ever."""
    fallback = LoggingFallback(logger)
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback)
    logger.addHandler(handler)

    with dis.rule(RefuseEntries("DIS.4300")):
        logger.info("hello")
        assert handler.flush()
        handler.close()

    stats = handler.stats()
    everything = fallback.seen + [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert "hello" in fallback.seen
    assert stats.emitted == stats.failed == len(everything)
    assert stats.emitted <= 3


def test_what_a_fallback_logs_is_delivered_once_the_service_takes_it(dis: DISEmulator, logger: logging.Logger) -> None:
    fallback = LoggingFallback(logger)
    handler = DISHandler(**dis.handler_options(STREAM), fallback=fallback)
    logger.addHandler(handler)
    dis.play(RefuseEntries("DIS.4300"))

    logger.info("hello")

    assert handler.flush()
    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 1)
    assert texts(dis) == {"could not deliver 'hello'": 1}
    assert fallback.seen == ["hello"]


def test_a_fallback_may_flush_and_close_its_handler(
    dis: DISEmulator, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers: list[DISHandler] = []
    outcomes: list[bool] = []
    done = threading.Event()

    class FlushingFallback(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            (handler,) = handlers
            outcomes.append(handler.flush(30))
            handler.close()
            done.set()

    handler = DISHandler(**dis.handler_options(STREAM), fallback=FlushingFallback())
    handlers.append(handler)
    logger.addHandler(handler)
    dis.play(RefuseEntries("DIS.4300"))

    logger.error("hello")

    assert done.wait(10)
    assert outcomes == [False]
    assert dis.wait_for(lambda _: handler.stats().failed == 1)
    assert capsys.readouterr().err == ""


# -- the libraries we send with -------------------------------------------------------------------------------------


def test_what_the_http_library_logs_while_delivering_is_not_sent_but_the_applications_use_is(
    dis: DISEmulator, programs: Programs
) -> None:
    ended = programs.run(
        """
        import logging, sys, threading
        import requests
        from application import OPTIONS, make_handler
        handler = make_handler()
        logging.root.setLevel(logging.DEBUG)
        logging.root.addHandler(handler)
        def use():
            with requests.Session() as session:
                for number in range(3):
                    session.get(f"{OPTIONS['endpoint']}/marker/{number}")
        thread = threading.Thread(target=use)
        for number in range(20):
            logging.getLogger("app").info("record %d", number)
            handler.flush()
            if number == 10:
                thread.start()
        thread.join()
        handler.flush()
        """,
        flush_interval=0.01,
    )

    ours, theirs = Counter[str](), Counter[str]()
    for text, count in ended.delivered.items():
        (ours if text.startswith("record") else theirs)[text] += count
    assert (ended.returncode, ended.errors) == (0, "")
    assert ours == numbered("record", 20)
    assert sum(count for text, count in theirs.items() if "/marker/" in text) == 3
    assert not [text for text in theirs if "/records" in text]
    assert theirs.total() == 4  # three answers and the connection they came over
    assert not ended.reported


def test_the_handler_leaves_the_recursion_depth_alone(dis: DISEmulator, logger: logging.Logger) -> None:
    """A logger that recurses without end is the application's defect; ours would show as a lower limit."""
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=0.01)
    logger.addHandler(handler)

    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            logger.info("deep down")

    dive(sys.getrecursionlimit() - 200)

    assert_all_delivered(handler, dis)
