"""A forked child starts empty and on its own: it delivers what it logs, once, and nothing of its parent's."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import trustme

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang, Refuse
from tests.certificates import bundle, server_context
from tests.process.programs import Programs, numbered
from tests.raw_server import RawServer, acknowledge

WAIT_FOR = """
    def wait_for(children):
        for child in children:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status == 0, status
    """

APPLICATION = """
    import itertools, os, signal, sys
    from application import make_handler, make_logger
    logger = make_logger("app", handler := make_handler())
    """
# A child for each place in which it may be interrupted while it starts over: there it does what `act` does, and it ends well
# if `end` says so. What `threading` does itself after a fork is not ours.
AT_EACH_PLACE = """
    parent = os.getpid()
    def interrupt(frame, event, _):
        is_place = event in ("call", "c_return") and "dis_logging" in frame.f_code.co_filename
        if is_place and os.getpid() != parent and next(remaining) == 0:
            act()
    for place in itertools.count():
        remaining = itertools.count(place, -1)
        sys.setprofile(interrupt)
        child = os.fork()
        sys.setprofile(None)
        if not child:
            os._exit(9 if next(remaining) >= 0 else not end())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 9:  # no such place any more
            break
        assert status == 0, (place, status)
    print(place)
    """
FORKING_FALLBACK = """
    import logging, os
    from application import make_handler, make_logger
    class Forking(logging.Handler):
        def emit(self, record):
            print(record.getMessage()[:20], flush=True)
            child = os.fork()
            if not child:
                logger.error("child 0")
                os._exit(not handler.flush(20))
            wait_for([child])
    logger = make_logger("app", handler := make_handler(fallback=Forking()))
    """


def test_forks_while_the_sender_is_busy_and_eight_threads_log(dis: DISEmulator, programs: Programs) -> None:
    with dis.rule(Hang(0.01)):
        ended = programs.run(
            WAIT_FOR
            + """
    import os, sys, threading
    from application import make_handler, make_logger
    logger = make_logger("app", handler := make_handler())
    forked = threading.Event()
    def chat(name):
        count = 0
        while count < 50 or not forked.wait(0.001):
            logger.info("%s %d", name, count)
            count += 1
        os.write(1, f"{name} {count}\\n".encode())
    threads = [threading.Thread(target=chat, args=(f"thread-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    children = []
    for fork in range(12):
        child = os.fork()
        if not child:
            before = handler.stats()
            for number in range(5):
                logger.info("child-%d %d", fork, number)
            flushed = handler.flush(30)
            after = handler.stats()
            if flushed and before.emitted == before.buffered == 0 and after.delivered == 5:
                os._exit(0)
            os.write(2, f"{flushed} {before} {after} {handler}".encode())
            os._exit(1)
        children.append(child)
    try:
        wait_for(children)
    finally:
        forked.set()
    for thread in threads:
        thread.join()
            """,
            flush_interval=0.01,
            max_batch_records=20,
        )

    assert (ended.returncode, ended.errors) == (0, "")
    expected = sum((numbered(f"child-{fork}", 5) for fork in range(12)), Counter[str]())
    for line in ended.output.splitlines():
        name, count = line.split()
        expected += numbered(name, int(count))
    assert ended.delivered == expected
    assert not ended.reported


def test_fifty_forks_in_a_row_and_each_child_delivers_its_own(programs: Programs) -> None:
    """One half of the children ends with os._exit after a flush, the other in the regular way."""
    ended = programs.run(
        WAIT_FOR
        + """
    import os, sys
    from application import make_handler, make_logger
    logger = make_logger("app", handler := make_handler())
    for number in range(50):
        logger.info("parent %d", number)
        child = os.fork()
        if not child:
            logger.info("child %d", number)
            if number % 2:
                os._exit(not handler.flush())
            sys.exit(0)
        wait_for([child])
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 50) + numbered("child", 50)
    assert not ended.reported


def test_a_child_sends_nothing_that_its_parent_had_buffered(programs: Programs) -> None:
    ended = programs.run(
        WAIT_FOR
        + """
    import os, sys
    from application import make_handler, make_logger
    logger = make_logger("app", handler := make_handler())
    for number in range(100):
        logger.info("record %d", number)
    child = os.fork()
    if not child:
        assert handler.stats().emitted == 0
        sys.exit(not handler.flush())
    wait_for([child])
    assert handler.stats().buffered == 100
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 100)


def test_a_fork_before_the_first_record(programs: Programs) -> None:
    ended = programs.run(
        WAIT_FOR
        + """
    import os, sys, threading
    from application import make_logger
    logger = make_logger("app")
    assert threading.active_count() == 1
    children = []
    for number in range(3):
        if child := os.fork():
            children.append(child)
        else:
            logger.info("record %d", number)
            sys.exit()
    wait_for(children)
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 3)


def test_a_fork_in_the_middle_of_another_threads_first_record(programs: Programs) -> None:
    """The record is in the buffer then, but the handler has started nothing yet; the child must not send it too."""
    ended = programs.run(
        WAIT_FOR
        + """
    import os, threading
    from application import make_handler, make_logger
    logger = make_logger("app", handler := make_handler())
    in_the_middle, forked = threading.Event(), threading.Event()
    def stop_in_the_middle(frame, *_):
        if frame.f_code.co_name == "_start_up":
            in_the_middle.set()
            forked.wait()
    threading.settrace(stop_in_the_middle)
    thread = threading.Thread(target=logger.info, args=("parent 0",))
    thread.start()
    in_the_middle.wait()
    child = os.fork()
    if not child:
        logger.info("child 0")
        os._exit(not handler.flush())
    forked.set()
    wait_for([child])
    thread.join()
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 1) + numbered("child", 1)


@pytest.mark.parametrize("level", ["error", "info"], ids=["sent-at-once", "waiting"])
def test_a_fork_hook_registered_before_ours_may_log_and_sends_nothing_of_the_parents(
    programs: Programs, level: str
) -> None:
    """Such a hook runs before the child has started over, with the parent's records still in the buffer."""
    ended = programs.run(
        WAIT_FOR
        + f"""
    import logging, os, sys
    os.register_at_fork(after_in_child=lambda: logging.getLogger("app").{level}("hook %d", number))
    from application import make_handler, make_logger
    logger = make_logger("app", handler := make_handler())
    for number in range(4):
        logger.info("parent %d", number)
        child = os.fork()
        if not child:
            sys.exit(0)
        wait_for([child])
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 4) + numbered("hook", 4)
    assert not ended.reported


@pytest.mark.parametrize("level", ["error", "info"], ids=["sent-at-once", "waiting"])
def test_a_fork_hook_registered_before_ours_may_hand_over_what_the_parent_has_made(
    programs: Programs, level: str
) -> None:
    """Such a record names the parent's process, and the child's flush must deliver it all the same, and nothing else."""
    ended = programs.run(
        WAIT_FOR
        + f"""
    import logging.handlers, os
    memory = logging.handlers.MemoryHandler(100, flushLevel=100)
    os.register_at_fork(after_in_child=memory.flush)
    from application import make_handler, make_logger
    logger = make_logger("app", handler := make_handler())
    memory.setTarget(handler)
    for number in range(4):
        logger.info("parent %d", number)
    make_logger("kept", memory).{level}("kept 0")
    child = os.fork()
    if not child:
        os._exit(not handler.flush(20))
    memory.buffer.clear()  # which its end would flush
    wait_for([child])
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 4) + numbered("kept", 1)
    assert not ended.reported


def test_a_signal_handler_may_log_anywhere_while_a_child_starts_over(programs: Programs) -> None:
    program = """
    signal.signal(signal.SIGUSR1, lambda *_: logger.info("record %d", place))
    def act():
        signal.raise_signal(signal.SIGUSR1)
    def end():
        return handler.flush(20)
    """
    ended = programs.run(APPLICATION + program + AT_EACH_PLACE, flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    places = int(ended.output)
    assert places > 30
    assert ended.delivered == numbered("record", places)
    assert not ended.reported


def test_a_child_that_a_signal_interrupts_as_it_starts_over_has_its_signals_and_delivers(programs: Programs) -> None:
    program = """
    def act():
        raise KeyboardInterrupt
    def end():
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
        logger.info("record %d", place)
        return handler.flush(20)
    """
    ended = programs.run(APPLICATION + program + AT_EACH_PLACE, flush_interval=60)

    assert ended.returncode == 0
    places = int(ended.output)
    assert places > 30
    told = [line for line in ended.errors.splitlines() if line.startswith("KeyboardInterrupt")]
    assert len(told) == places  # by Python
    assert ended.delivered == numbered("record", places)
    assert not ended.reported


def test_a_child_made_within_a_fallback_may_flush(programs: Programs) -> None:
    program = """
    logger.info("x" * 2**21)
    assert handler.flush(20)
    """
    ended = programs.run(WAIT_FOR + FORKING_FALLBACK + program, flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("child", 1)


def test_children_made_within_a_fallback_make_no_others(dis: DISEmulator, programs: Programs) -> None:
    program = """
    logger.info("parent")
    assert handler.flush(20)
    """
    with dis.rule(Refuse(400, "DIS.4302", "no")):
        ended = programs.run(WAIT_FOR + FORKING_FALLBACK + program, flush_interval=60)

    assert (ended.returncode, ended.errors, ended.output) == (0, "", "parent\n")
    assert ended.reported == {"child 0": 1}  # on stderr


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_generations_of_children_do_not_pile_up_descriptors(programs: Programs, secure: bool, tmp_path: Path) -> None:
    """Each has a connection when it forks, and the next one opens its own."""
    authority = trustme.CA()
    program = """
    import os, sys
    from application import make_handler, make_logger
    where = {"endpoint": sys.argv[1], "verify": sys.argv[2] or True}
    logger = make_logger("app", handler := make_handler(**where))
    for generation in range(5):
        logger.info("record")
        assert handler.flush(20)
        print(len(os.listdir("/proc/self/fd")), flush=True)
        if child := os.fork():
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)
    """
    with RawServer(acknowledge, tls=server_context(authority) if secure else None) as server:
        ended = programs.start(program, server.endpoint, bundle(authority, tmp_path) if secure else "").wait()

    counts = ended.output.split()
    assert (ended.returncode, ended.errors) == (0, "")
    assert len(counts) == 5
    assert len(set(counts)) == 1


@pytest.mark.parametrize(
    ("deed", "logged"),
    [('logger.info("child 0"); assert handler.flush(20)', 1), ("handler.close(); del handler", 0)],
    ids=["logs", "closes"],
)
def test_a_daemon_that_has_closed_what_it_inherited_keeps_what_it_has_opened_since(
    programs: Programs, deed: str, logged: int
) -> None:
    ended = programs.run(
        WAIT_FOR
        + f"""
    import os
    from application import make_handler, make_logger
    logger = make_logger("app", handler := make_handler())
    logger.info("parent 0")
    assert handler.flush(20)
    child = os.fork()
    if not child:
        os.closerange(3, 1000)
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        {deed}
        for descriptor in opened:
            assert os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
        os._exit(0)
    wait_for([child])
    logger.info("parent 1")
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 2) + numbered("child", logged)
    assert not ended.reported


def test_throwing_a_client_away_closes_no_descriptor_that_a_daemon_has_opened_since(programs: Programs) -> None:
    ended = programs.run(
        WAIT_FOR
        + """
    import os
    from application import OPTIONS
    from dis_logging import DISClient, PutRecordsRequestEntry
    stream = OPTIONS.pop("stream_name")
    client = DISClient(**OPTIONS)
    client.put_records(stream, [PutRecordsRequestEntry("parent 0")])
    child = os.fork()
    if not child:
        os.closerange(3, 1000)
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        del client
        for descriptor in opened:
            assert os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
        os._exit(0)
    wait_for([child])
    client.put_records(stream, [PutRecordsRequestEntry("parent 1")])
        """
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 2)


# As uWSGI forks: C's function, which calls none of the hooks by which Python and its modules learn of it. They differ between
# operating systems in what else they leave a child with, so this is tried where uWSGI runs most.
UNANNOUNCED = (
    WAIT_FOR
    + """
    import ctypes, logging, os, sys, threading, time
    from application import make_handler, make_logger
    def is_busy(thread, frame):
        return thread != threading.get_ident() and frame.f_code.co_name != "wait"
    def fork():
        while any(is_busy(*running) for running in sys._current_frames().items()):  # it may hold a lock of logging's, then for ever
            time.sleep(0.001)
        return ctypes.PyDLL(None).fork()
    logger = make_logger("app", handler := make_handler())
    """
)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="C's fork is not safe everywhere")


@on_linux
@pytest.mark.parametrize(
    "ending",
    [
        "os._exit(not handler.flush(20))",
        "handler.close(); os._exit(0)",
        "logging.shutdown(); os._exit(0)",
        "sys.exit()",
    ],
    ids=["flush", "close", "shutdown", "exit"],
)
@pytest.mark.parametrize("process", ["", "logging.logProcesses = False"], ids=["", "without-process"])
def test_a_child_that_nobody_told_of_its_fork_delivers_its_own_and_nothing_else(
    programs: Programs, ending: str, process: str
) -> None:
    program = f"""
    {process}
    logger.info("parent 0")
    logger.info("parent 1")
    child = fork()
    if not child:
        for number in range(3):
            logger.info("child %d", number)
        {ending}
    wait_for([child])
    """
    ended = programs.run(UNANNOUNCED + program, flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 2) + numbered("child", 3)
    assert not ended.reported


@on_linux
@pytest.mark.parametrize(
    "ending",
    [
        "os._exit(not handler.flush(20) or handler.stats().emitted)",
        "handler.close(); os._exit(handler.stats().emitted)",
        "sys.exit()",
    ],
    ids=["flush", "close", "exit"],
)
def test_a_child_that_nobody_told_of_its_fork_sends_nothing_of_its_parents(programs: Programs, ending: str) -> None:
    program = f"""
    logger.info("parent 0")
    child = fork()
    if not child:
        {ending}
    wait_for([child])
    """
    ended = programs.run(UNANNOUNCED + program, flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 1)
    assert not ended.reported


@on_linux
def test_the_threads_of_a_child_that_nobody_told_of_its_fork_may_log_at_once(programs: Programs) -> None:
    program = """
    logger.info("parent 0")
    for fork_number in range(10):
        child = fork()
        if not child:
            barrier = threading.Barrier(8)
            def log(thread):
                barrier.wait()
                logger.info("child %d", fork_number * 8 + thread)
            threads = [threading.Thread(target=log, args=(thread,)) for thread in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os._exit(not handler.flush(20))
        wait_for([child])
    """
    ended = programs.run(UNANNOUNCED + program, flush_interval=60)

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 1) + numbered("child", 80)
    assert not ended.reported
