"""Several senders in a process that forks, or that Ctrl-C interrupts."""

import signal
import threading
from collections import Counter

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Exchange, Hang
from dis_logging.emulator.journal import ReceivedRequest
from tests.process.programs import STREAM, Programs, numbered


class Hold:
    """Keeps what it has stored from being acknowledged until the test says so."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def play(self, exchange: Exchange) -> None:
        """Stores, waits and answers."""
        response = exchange.answer()
        while not self.released.is_set():
            exchange.hold(0.005)
        exchange.send(response)


def unanswered(dis: DISEmulator) -> int:
    return sum(request.status is None for request in dis.requests)


def is_of_parent(request: ReceivedRequest) -> bool:
    return request.entries[0].text.startswith("parent")


def test_a_fork_while_several_senders_are_busy(dis: DISEmulator, programs: Programs) -> None:
    """The child has none of them, gets its own when it has a backlog, and sends nothing of its parent's."""
    with dis.rule(hold := Hold(), is_of_parent):
        program = programs.start(
            """
            import os
            from application import make_handler, make_logger
            handler = make_handler()
            def log(who, count):
                for number in range(count):
                    make_logger(f"{who}.{number}", handler).info("%s %d", who, number)
            log("first", 1)
            assert handler.flush()
            log("parent", 8)
            print("logged", flush=True)
            input()
            child = os.fork()
            if not child:
                before = handler.stats()
                log("child", 40)
                flushed = handler.flush(30)
                os._exit(0 if flushed and before.emitted == 0 and handler.stats().delivered == 40 else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            """,
            max_batch_records=1,
            flush_interval=60,
        )
        assert program.read_line() == "logged"
        assert dis.wait_for(lambda dis: unanswered(dis) == 4)
        with dis.rule(Hang(0.01), lambda request: not is_of_parent(request)):
            program.go_on()
            assert program.read_line() == "0"
        hold.released.set()
        ended = program.wait()

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("first", 1) + numbered("parent", 8) + numbered("child", 40)
    assert ended.accounted == ended.delivered


def test_what_an_interrupted_flush_was_sending_is_sent_by_the_thread(dis: DISEmulator, programs: Programs) -> None:
    """The main thread sends because no thread could be started; after Ctrl-C one can, and nobody logs or flushes again."""
    dis.play(Hang())
    program = programs.start(
        """
        import threading
        from application import make_handler, make_logger
        start = threading.Thread.start
        def refuse(thread):
            raise RuntimeError("can't start new thread")
        threading.Thread.start = refuse
        handler = make_handler()
        send = handler._pipeline._sender.send
        def send_and_allow_threads(*arguments):
            threading.Thread.start = start
            return send(*arguments)
        handler._pipeline._sender.send = send_and_allow_threads
        make_logger("app", handler).info("record 0")
        try:
            handler.flush(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        input()
        """,
        flush_interval=60,
    )
    assert dis.wait_for(lambda dis: unanswered(dis) == 1)
    program.signal(signal.SIGINT)
    assert program.read_line() == "interrupted"
    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 1)

    program.go_on()
    ended = program.wait()
    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == Counter({"record 0": 1})
    assert not ended.reported
