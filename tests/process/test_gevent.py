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


@patched
def test_what_the_thread_pool_logs_arrives_though_its_threads_have_hubs_of_their_own(
    programs: Programs, beginning: str
) -> None:
    # Nothing of a hub runs on while its thread waits for the next task, or has ended.
    program = """
    def log(first):
        for number in range(first, first + 20):
            logger.info("record %d", number)
    pool = gevent.get_hub().threadpool
    for first in range(0, 200, 20):
        pool.apply(log, (first,))
    deadline = time.monotonic() + 60
    while handler.stats().buffered and time.monotonic() < deadline:
        gevent.sleep(0.01)
    print(handler.stats().delivered)
    """
    ended = programs.run(beginning + program, flush_interval=0.01)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "200\n")
    assert ended.delivered == numbered("record", 200)


@patched
def test_what_the_thread_pool_gives_up_reaches_the_fallback_of_the_main_thread(
    programs: Programs, beginning: str
) -> None:
    program = """
    pool = gevent.get_hub().threadpool
    for _ in range(3):
        pool.apply(logger.info, ("x" * 2**21,))
    deadline = time.monotonic() + 60
    while handler.stats().failed < 3 and time.monotonic() < deadline:
        gevent.sleep(0.01)
    print(handler.stats().failed)
    """
    ended = programs.run(beginning + program, flush_interval=0.01)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "3\n")
    assert ended.codes == {"too_large": 3}


@patched
@pytest.mark.parametrize("overflow", ["block", "fallback"])
def test_what_the_hub_itself_logs_is_lost_neither_without_a_sender_nor_without_room(
    programs: Programs, beginning: str, overflow: str
) -> None:
    program = """
    def log():
        for number in range(20):
            logger.info("record %d", number)
    gevent.get_hub().loop.run_callback(log)
    gevent.sleep(0)
    deadline = time.monotonic() + 60
    while handler.stats().buffered and time.monotonic() < deadline:
        gevent.sleep(0.01)
    print(handler.stats().buffered, handler.stats().emitted)
    """
    options = {"overflow": overflow, "block_timeout": 60, "max_buffer_records": 10}
    ended = programs.run(beginning + program, flush_interval=0.01, **options)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "0 20\n")
    assert ended.accounted == numbered("record", 20)


@patched
def test_killing_all_greenlets_neither_hangs_nor_ends_the_delivery(programs: Programs, beginning: str) -> None:
    program = """
    import gc
    def wait_until_delivered(count):
        deadline = time.monotonic() + 60
        while handler.stats().delivered < count and time.monotonic() < deadline:
            gevent.sleep(0.01)
    logger.info("record 0")
    wait_until_delivered(1)
    gevent.killall([thing for thing in gc.get_objects() if isinstance(thing, gevent.Greenlet)], timeout=60)
    logger.info("record 1")
    wait_until_delivered(2)
    print(handler.stats().delivered)
    """
    ended = programs.run(beginning + program, flush_interval=0.01)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "2\n")
    assert ended.delivered == numbered("record", 2)


@patched
def test_a_connection_is_used_only_in_the_hub_that_has_made_it(programs: Programs, beginning: str) -> None:
    program = """
    from dis_logging import DISClient, PutRecordsRequestEntry
    stream = OPTIONS.pop("stream_name")
    client = DISClient(**OPTIONS)
    def put(number):
        return client.put_records(stream, [PutRecordsRequestEntry(f"record {number}")]).failed_record_count
    pool = gevent.get_hub().threadpool
    print(pool.apply(put, (0,)), put(1), pool.apply(put, (2,)), put(3))
    """
    ended = programs.run(beginning + program)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "0 0 0 0\n")
    assert ended.delivered == numbered("record", 4)


@patched
def test_a_thread_pool_that_is_busy_holds_up_no_name(dis: DISEmulator, programs: Programs, beginning: str) -> None:
    """gevent asks for names in there, too; all of its threads may wait for room in the buffer."""
    program = """
    def log(first):
        for number in range(first, first + 20):
            logger.info("record %d", number)
    pool = gevent.get_hub().threadpool
    for waiting in [pool.spawn(log, first) for first in range(0, 20 * pool.maxsize, 20)]:
        waiting.get()
    """
    options = {"overflow": "block", "block_timeout": 60, "max_buffer_records": 10}
    ended = programs.run(
        beginning + program,
        endpoint=dis.endpoint.replace("127.0.0.1", "localhost"),
        allow_http=True,
        proxies={"no_proxy": "*"},
        **options,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 200)


@patched
def test_the_first_connection_may_be_made_as_the_process_ends(programs: Programs, beginning: str) -> None:
    ended = programs.run(beginning + """logger.info("record 0")""", flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 1)
