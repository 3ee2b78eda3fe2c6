"""A name server that hangs holds up neither the end of a process nor, once it answers, a record."""

from typing import Any

import pytest

from dis_logging.emulator import DISEmulator
from tests.process.programs import Ended, Programs, numbered

HOST = "dis.test"
SHUTDOWN_TIMEOUT = 0.3
GRACE = 0.5  # what the promise adds to it
# The system's own function is replaced: a real name server could not be used without reconfiguring the machine.
NAME_SERVER = f"""
    import logging, os, socket, sys, threading, time
    import application
    from application import make_handler, make_logger
    ask, answering, was_asked, asked = socket.getaddrinfo, threading.Event(), threading.Event(), []
    def getaddrinfo(host, *rest):
        assert host == {HOST!r}, host
        asked.append(os.getpid())
        was_asked.set()
        answering.wait()
        return ask("127.0.0.1", *rest)
    socket.getaddrinfo = getaddrinfo
    """


def options(dis: DISEmulator, **others: Any) -> dict[str, Any]:
    """Returns options that lead to the emulator by a name."""
    endpoint = dis.endpoint.replace("127.0.0.1", HOST)
    return {
        "endpoint": endpoint,
        "allow_http": True,
        "proxies": {"no_proxy": "*"},
        "shutdown_timeout": SHUTDOWN_TIMEOUT,
        **others,
    }


ENDINGS = {
    "close": "handler.close()",
    "shutdown": "logging.shutdown()",
    "dictconfig": """logging.config.dictConfig({"version": 1})""",
}
SENDERS = {
    "sender-waits": "was_asked.wait()",
    "no-sender": "",
}
NO_SENDER = """
    start = threading.Thread.start
    def start_others(thread):
        if thread.name == "dis_logging-sender":
            raise RuntimeError("can't start new thread")
        start(thread)
    threading.Thread.start = start_others
    """


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_closing_is_bounded_while_a_name_server_hangs(
    dis: DISEmulator, programs: Programs, ending: str, sender: str
) -> None:
    """Also where it is the calling thread that must send, for want of another."""
    ended = programs.run(
        NAME_SERVER
        + (NO_SENDER if sender == "no-sender" else "")
        + f"""
    import logging.config
    logger = make_logger("app", handler := make_handler())
    for number in range(3):
        logger.error("record %d", number)
    {SENDERS[sender]}
    began = time.monotonic()
    {ENDINGS[ending]}
    print(time.monotonic() - began)
        """,
        **options(dis),
    )

    assert_reported(ended)
    assert float(ended.output) <= SHUTDOWN_TIMEOUT + GRACE


def test_exit_is_bounded_while_a_name_server_hangs(dis: DISEmulator, programs: Programs) -> None:
    program = programs.start(
        NAME_SERVER
        + """
    logger = make_logger("app")
    for number in range(3):
        logger.error("record %d", number)
    was_asked.wait()
    print("asked", flush=True)
    input()
    print(time.monotonic(), flush=True)
        """,
        **options(dis),
    )
    assert program.read_line() == "asked"
    program.go_on()
    began = float(program.read_line())
    ended = program.wait()

    assert_reported(ended)
    # The process has more to do at its end than to close the handler.
    assert ended.ended_at - began <= SHUTDOWN_TIMEOUT + GRACE + 1


def assert_reported(ended: Ended) -> None:
    assert (ended.returncode, ended.errors) == (0, "")
    assert not ended.delivered
    assert ended.reported == numbered("record", 3)
    assert ended.codes == {"closed": 3}


def test_what_cannot_be_sent_for_want_of_an_address_is_a_failure_of_the_network(
    dis: DISEmulator, programs: Programs
) -> None:
    ended = programs.run(
        NAME_SERVER
        + """
    logger = make_logger("app", handler := make_handler())
    logger.error("record 0")
    assert handler.flush(20)
        """,
        **options(dis, request_timeout=0.05, delivery_timeout=0.2, backoff_initial=0.01),
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.codes == {"network": 1}


def test_records_are_delivered_once_a_name_server_answers(dis: DISEmulator, programs: Programs) -> None:
    """However many attempts there were, one thread waited for the answer."""
    ended = programs.run(
        NAME_SERVER
        + """
    logger = make_logger("app", handler := make_handler())
    logger.error("record 0")
    while handler.stats().requests < 4:
        assert not handler.flush(0.01)
    assert asked == [os.getpid()]
    assert sum("resolver" in thread.name for thread in threading.enumerate()) == 1
    answering.set()
    logger.error("record 1")
    assert handler.flush(20), handler
        """,
        **options(dis, request_timeout=0.1, backoff_initial=0.01, backoff_max=0.1),
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 2)
    assert not ended.reported


def test_a_fork_while_a_name_server_hangs(dis: DISEmulator, programs: Programs) -> None:
    """The child asks for itself, though its parent has been waiting for the same answer."""
    ended = programs.run(
        NAME_SERVER
        + """
    logger = make_logger("app", handler := make_handler())
    logger.error("parent 0")
    was_asked.wait()
    child = os.fork()
    if not child:
        answering = threading.Event()  # the thread that waits for the other one may hold its lock
        answering.set()
        logger.error("child 0")
        flushed = handler.flush(20)
        os._exit(not flushed or asked != [os.getppid(), os.getpid()])
    assert os.waitpid(child, 0)[1] == 0
    answering.set()
    assert handler.flush(20), handler
        """,
        **options(dis, request_timeout=30),
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 1) + numbered("child", 1)
    assert not ended.reported
