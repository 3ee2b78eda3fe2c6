"""
gevent, whose threads share one of the system's: nothing may stop all of them, or take one for another.

It replaces parts of `threading` and `socket`. That should be the first thing a program does, but gunicorn with ``--preload``
does it when the application, and with it the handler, is already there.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trustme

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang
from tests.certificates import bundle, server_context
from tests.process.programs import Programs, numbered
from tests.raw_server import RawServer, acknowledge

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
    def wait_until(is_done, seconds=60):
        deadline = time.monotonic() + seconds
        while not is_done() and time.monotonic() < deadline:
            gevent.sleep(0.01)
    """
PATCH = """
    from gevent import monkey
    monkey.patch_all()
    """


def by_name(dis: DISEmulator) -> dict[str, Any]:
    """Returns options that lead to the emulator by a name that must be asked for."""
    endpoint = dis.endpoint.replace("127.0.0.1", "localhost")
    return {"endpoint": endpoint, "allow_http": True, "proxies": {"no_proxy": "*"}}


patched = pytest.mark.parametrize("beginning", [PATCH + SET_UP, SET_UP + PATCH], ids=["early", "late"])


@patched
def test_what_greenlets_log_arrives_while_nobody_flushes(programs: Programs, beginning: str) -> None:
    program = """
    def log(first):
        for number in range(first, first + 20):
            logger.info("record %d", number)
            gevent.sleep(0)
    gevent.joinall([gevent.spawn(log, first) for first in range(0, 200, 20)], raise_error=True)
    wait_until(lambda: not handler.stats().buffered)
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
    wait_until(lambda: not handler.stats().buffered)
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
    wait_until(lambda: handler.stats().failed == 3)
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
    wait_until(lambda: not handler.stats().buffered)
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
    def kill_all():
        gevent.killall([thing for thing in gc.get_objects() if isinstance(thing, gevent.Greenlet)], timeout=60)
    logger.info("record 0")
    kill_all()  # before the sender has begun
    wait_until(lambda: handler.stats().delivered == 1)
    logger.info("record 1")
    kill_all()  # while the sender waits for company for it
    wait_until(lambda: handler.stats().delivered == 2)
    print(handler.stats().delivered)
    """
    ended = programs.run(beginning + program, flush_interval=0.2)

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
    ended = programs.run(beginning + program, **by_name(dis), **options)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 200)


@patched
def test_the_first_connection_may_be_made_as_the_process_ends(programs: Programs, beginning: str) -> None:
    ended = programs.run(beginning + """logger.info("record 0")""", flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@patched
def test_clients_that_the_thread_pool_uses_leave_nothing_behind(programs: Programs, beginning: str) -> None:
    program = """
    import os
    from dis_logging import DISClient, PutRecordsRequestEntry
    stream = OPTIONS.pop("stream_name")
    entries = [PutRecordsRequestEntry("record 0")]
    pool = gevent.get_hub().threadpool
    def put(client):
        client.put_records(stream, entries)
    kept = DISClient(**OPTIONS)
    counts = set()
    for number in range(20):
        pool.apply(put, (kept,))
        with DISClient(**OPTIONS) as client:
            pool.apply(put, (client,))
            put(client)
        if number > 2:
            counts.add(len(os.listdir("/proc/self/fd")))
    print(len(counts))
    """
    ended = programs.run(beginning + program)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "1\n")
    assert sum(ended.delivered.values()) == 60


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@patched
def test_a_function_of_the_programs_own_may_ask_for_names(dis: DISEmulator, programs: Programs, beginning: str) -> None:
    """It may call gevent's, for which a thread of the system would get a hub, and threads, that never end."""
    program = """
    import os, socket
    ask = socket.getaddrinfo
    socket.getaddrinfo = lambda *arguments: ask(*arguments)
    from dis_logging import DISClient, PutRecordsRequestEntry
    stream = OPTIONS.pop("stream_name")
    counts = set()
    for number in range(20):
        with DISClient(**OPTIONS) as client:
            client.put_records(stream, [PutRecordsRequestEntry("record 0")])
        if number > 2:
            counts.add((len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))))
    print(len(counts))
    """
    ended = programs.run(beginning + program, **by_name(dis))

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "1\n")


@pytest.mark.parametrize("where", ["in-a-greenlet", "in-the-thread-itself"])
def test_a_second_hub_sends_while_the_main_thread_waits_for_something_else(programs: Programs, where: str) -> None:
    program = """
    import sys
    gevent.sleep(0)  # so that the main thread has a hub
    done = monkey.get_original("_thread", "allocate_lock")()
    done.acquire()
    def log():
        deadline = time.monotonic() + 60
        while not handler.stats().delivered and time.monotonic() < deadline:
            logger.info("record")
            gevent.sleep(0.1)
    def serve():
        if sys.argv[1] == "in-a-greenlet":
            gevent.spawn(log).join()
        else:
            log()
        print(handler.stats().delivered > 0, flush=True)
        done.release()
    monkey.get_original("_thread", "start_new_thread")(serve, ())
    done.acquire()
    """
    ended = programs.start(PATCH + SET_UP + program, where, flush_interval=0.01).wait()

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "True\n")


def test_a_child_made_in_the_thread_pool_sends_while_it_runs(programs: Programs) -> None:
    program = """
    import os
    def fork():
        child = gevent.os.fork_gevent()
        if not child:
            logger.info("record 0")
            wait_until(lambda: handler.stats().delivered, 20)
            os._exit(not handler.stats().delivered)
        return child
    child = gevent.get_hub().threadpool.apply(fork)
    print(os.waitstatus_to_exitcode(monkey.get_original("os", "waitpid")(child, 0)[1]))
    """
    ended = programs.run(PATCH + SET_UP + program, flush_interval=0.01)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "0\n")
    assert ended.delivered == numbered("record", 1)


def test_a_sender_that_was_there_before_gevent_keeps_its_connection(programs: Programs, tmp_path: Path) -> None:
    """With TLS it could not open another one: gevent's comes too late for that."""
    authority = trustme.CA()
    program = (
        """
    import sys
    logger = make_logger("app", handler := make_handler(endpoint=sys.argv[1], verify=sys.argv[2]))
    logger.info("record")
    assert handler.flush(20)
    """
        + PATCH
        + """
    for number in range(3):
        logger.info("record")
        wait_until(lambda: not handler.stats().buffered, 20)
    print(handler.stats().delivered)
    """
    )
    with RawServer(acknowledge, tls=server_context(authority)) as server:
        ended = programs.start(
            SET_UP + program, server.endpoint, bundle(authority, tmp_path), flush_interval=0.01
        ).wait()

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "4\n")


@pytest.mark.parametrize("ending", ["handler.flush()", "handler.close()", "logging.shutdown()"])
def test_a_signal_handler_that_comes_while_all_greenlets_wait_may_end_the_handler(
    programs: Programs, ending: str
) -> None:
    """It runs in the hub, which cannot wait itself."""
    program = f"""
    import os, signal
    def end(*_):
        {ending}
        ended.append(True)
    ended = []
    signal.signal(signal.SIGUSR1, end)
    logger.info("record 0")
    gevent.get_hub().loop.timer(0.1).start(os.kill, os.getpid(), signal.SIGUSR1)
    deadline = time.monotonic() + 20
    while not ended and time.monotonic() < deadline:
        gevent.sleep(1)
    handler.flush()
    print(ended)
    """
    ended = programs.run(PATCH + SET_UP + program, flush_interval=60)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "[True]\n")
    assert ended.delivered == numbered("record", 1)
    assert not ended.reported


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("where", ["sender", "fallback"])
def test_what_a_signal_handler_raises_in_a_greenlet_of_ours_ends_the_program(
    programs: Programs, error: str, where: str
) -> None:
    """Python runs it in whatever greenlet is running; it is meant for the main one, where a thread would leave it."""
    program = f"""
    import os, signal
    def end(*_):
        raise {error}
    signal.signal(signal.SIGTERM, end)
    signals = iter([signal.SIGTERM])
    def interrupt(verdict):
        for number in signals:
            os.kill(os.getpid(), number)
    class InterruptedFallback(FileFallback):
        def emit(self, record):
            interrupt(record)
            super().emit(record)
    options = {{"sender": {{"on_verdict": interrupt}}, "fallback": {{"fallback": InterruptedFallback()}}}}
    logger = make_logger("second", handler := make_handler(**options["{where}"]))
    for number in range(3):
        logger.info("record %d", number)
    logger.info("x" * 2**21)
    try:
        gevent.sleep(60)
    except {error}:
        print("ending")
    logger.info("record 3")
    wait_until(lambda: not handler.stats().buffered)
    print(handler.stats().delivered)
    """
    ended = programs.run(PATCH + SET_UP + program, flush_interval=0.01)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "ending\n4\n")
    assert ended.accounted == numbered("record", 4) + Counter(["x" * 2**21])


def test_a_hub_that_ends_with_its_thread_takes_no_sender_with_it(programs: Programs) -> None:
    program = """
    gevent.sleep(0)  # so that the main thread has a hub
    done = []
    def serve():
        gevent.spawn(logger.info, "record 0").join()
        done.append(True)
    monkey.get_original("_thread", "start_new_thread")(serve, ())
    wait_until(lambda: done)
    logger.info("record 1")
    wait_until(lambda: handler.stats().delivered == 2)
    print(handler.stats().delivered)
    """
    ended = programs.run(PATCH + SET_UP + program, flush_interval=0.5)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "2\n")
    assert ended.delivered == numbered("record", 2)


def test_a_signal_handler_that_comes_upon_the_sender_may_end_the_handler(programs: Programs) -> None:
    """What it has in flight cannot be waited for there."""
    program = """
    import os, signal
    signal.signal(signal.SIGUSR1, lambda *_: handler.close())
    class Interrupt(logging.Handler):
        def emit(self, record):
            os.kill(os.getpid(), signal.SIGUSR1)
    make_logger("urllib3.connectionpool", Interrupt())  # tells of each connection
    for number in range(10):
        logger.info("record %d", number)
    wait_until(lambda: not handler.stats().buffered)
    logger.info("record 10")
    """
    ended = programs.run(PATCH + SET_UP + program, flush_interval=0.01)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 10)
    assert ended.codes == {"closed": 1}


def test_what_is_logged_at_the_very_end_by_a_handler_that_the_hub_has_replaced_arrives(programs: Programs) -> None:
    """It could only be closed in the background, and `logging` knows nothing of it any more."""
    beginning = """
    import atexit
    @atexit.register  # hence called after our own
    def end():
        gevent.sleep(0.1)
        print(len(logged))
    """
    program = """
    import logging.config
    logged = []
    def log():
        while True:
            logger.info("record %d", len(logged))
            logged.append(True)
            gevent.sleep(0.001)
    gevent.spawn(log)
    config = {"version": 1, "disable_existing_loggers": False}
    gevent.get_hub().loop.run_callback(logging.config.dictConfig, config)
    gevent.sleep(0.1)
    """
    ended = programs.run(beginning + PATCH + SET_UP + program)

    assert (ended.returncode, ended.errors) == (0, "")
    assert not numbered("record", int(ended.output)) - ended.accounted


def test_what_the_hub_logs_while_the_fallback_is_busy_is_on_stderr(programs: Programs) -> None:
    program = """
    class Slow(FileFallback):
        def emit(self, record):
            gevent.sleep(0.5)
            super().emit(record)
    logger = make_logger("second", handler := make_handler(fallback=Slow()))
    handler.close()
    busy = gevent.spawn(logger.info, "record 0")
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(logger.info, "record 1")
    busy.join()
    """
    ended = programs.run(PATCH + SET_UP + program)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.reported == numbered("record", 2)


def test_another_thread_may_import_gevent_while_records_are_logged(programs: Programs) -> None:
    program = """
    import sys, types
    from application import make_handler, make_logger
    half_imported = types.ModuleType("gevent.monkey")
    sys.modules.update({"gevent": types.ModuleType("gevent"), "gevent.monkey": half_imported})
    logger = make_logger("app", handler := make_handler())
    logger.info("record 0")
    assert handler.flush(20)
    """
    ended = programs.run(program)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 1)
