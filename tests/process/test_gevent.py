"""
gevent, whose threads share one of the system's: nothing may stop all of them, or take one for another.

It replaces parts of `threading` and `socket`. That should be the first thing a program does, but gunicorn with ``--preload``
does it when the application, and with it the handler, is already there.
"""

import pytest

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang
from tests.process.programs import Programs, numbered

pytest.importorskip("gevent", reason="has no wheel for this platform")

SET_UP = """
    import gevent, logging, time, warnings
    from application import OPTIONS, FileFallback, make_handler, make_logger
    class Fallback(FileFallback):
        def emit(self, record):
            gevent.sleep(0)  # as one that talks to a server
            super().emit(record)
    logger = make_logger("app", handler := make_handler(fallback=Fallback()))
    warnings.simplefilter("ignore")  # gevent's own, of what comes too late
    """
PATCH = """
    from gevent import monkey
    monkey.patch_all()
    """
patched = pytest.mark.parametrize("beginning", [PATCH + SET_UP, SET_UP + PATCH], ids=["early", "late"])


@patched
def test_what_greenlets_log_arrives_while_nobody_flushes(programs: Programs, beginning: str) -> None:
    program = """
    def log(first):
        for number in range(first, first + 20):
            logger.info("record %d", number)
            gevent.sleep(0)
    gevent.joinall([gevent.spawn(log, first) for first in range(0, 200, 20)], raise_error=True)
    deadline = time.monotonic() + 60
    while handler.stats().buffered and time.monotonic() < deadline:
        gevent.sleep(0.01)
    print(handler.stats().delivered)
    """
    ended = programs.run(beginning + program, flush_interval=0.01)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "200\n")
    assert ended.delivered == numbered("record", 200)


@patched
def test_greenlets_that_wait_for_room_do_not_get_into_each_others_way(programs: Programs, beginning: str) -> None:
    program = """
    handler.setFormatter(logging.Formatter("formatted %(message)s"))
    def log(first):
        for number in range(first, first + 20):
            logger.info("record %d", number)
    gevent.joinall([gevent.spawn(log, first) for first in range(0, 200, 20)], raise_error=True)
    """
    options = {"overflow": "block", "block_timeout": 60, "max_buffer_records": 10}
    ended = programs.run(beginning + program, flush_interval=0.01, **options)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("formatted record", 200)
    assert not ended.reported


@patched
def test_what_the_application_logs_of_urllib3_while_another_greenlet_sends_is_no_by_product(
    dis: DISEmulator, programs: Programs, beginning: str
) -> None:
    dis.play(Hang(1))
    program = """
    logger.error("record 0")
    while not handler.stats().requests:
        gevent.sleep(0.01)
    handler.handle(logging.LogRecord("urllib3.connectionpool", logging.INFO, __file__, 1, "record 1", None, None))
    """
    ended = programs.run(beginning + program)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 2)


@patched
def test_closing_leaves_the_greenlet_of_the_fallback_its_turn(
    dis: DISEmulator, programs: Programs, beginning: str
) -> None:
    dis.play(Hang(), Hang())
    program = """
    logger.info("x" * 2**21)  # too large, so there is a greenlet that hands over
    while not handler.stats().failed:
        gevent.sleep(0.01)
    for number in range(10):
        logger.info("record %d", number)
    handler.close()
    """
    ended = programs.run(beginning + program, shutdown_timeout=1)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.codes == {"too_large": 1, "closed": 10}  # none on stderr


@patched
def test_each_greenlet_has_the_deadline_of_its_own_attempt(
    dis: DISEmulator, programs: Programs, beginning: str
) -> None:
    dis.play(Hang(), Hang())
    program = """
    from dis_logging import DISClient, PutRecordsRequestEntry, UnknownOutcomeError
    stream = OPTIONS.pop("stream_name")
    def put(timeout):
        with DISClient(**OPTIONS, request_timeout=timeout) as client:
            try:
                client.put_records(stream, [PutRecordsRequestEntry("hello")])
            except UnknownOutcomeError as error:
                return error.timed_out
    short = gevent.spawn(put, 1)
    gevent.sleep(0.2)
    long = gevent.spawn(put, 60)
    print(short.get(timeout=20), long.ready())
    long.kill()
    """
    ended = programs.run(beginning + program)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "True False\n")
