"""Signal handlers that raise, several of them at once, wherever in the pipeline the thread that flushes happens to be."""

import sys

import pytest

from tests.process.programs import Programs, numbered

# Both signals are pending in the interpreter from the same moment on, so that the second handler runs as soon as the
# interpreter lets it, which is while what the first one has raised is minded.
TWO_AT_ONCE = """
import ctypes, os, signal, threading
from application import make_handler, make_logger
from dis_logging.pipeline import batching, delivery, retry, stats

class Stop(BaseException): ...

def stop(*_):
    raise Stop

start = threading.Thread.start
def refuse(thread):  # so that the main thread sends
    if thread.name.startswith("dis_logging"):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse

SIGNALS = [signal.SIGUSR1, signal.SIGUSR2]
unblock, nothing, before = ctypes.CDLL(None).pthread_sigmask, ctypes.create_string_buffer(128), ctypes.create_string_buffer(128)
def interrupt_as_soon_as(owner, name):
    call = getattr(owner, name)
    def interrupted(*arguments):
        setattr(owner, name, call)
        unblock(signal.SIG_SETMASK, nothing, before)
        return call(*arguments)
    setattr(owner, name, interrupted)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        signal.signal(number, stop)
        os.kill(os.getpid(), number)

logger = make_logger("app", handler := make_handler())
interrupt_as_soon_as(PLACE)
for number in range(90):
    logger.info("text %d", number)
try:
    handler.flush(20)
except Stop:
    print("interrupted")
print(handler.flush(20), handler.stats().buffered)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="unblocks signals without the interpreter noticing")
@pytest.mark.parametrize(
    "place",
    [
        "batching._Cut, '_fit'",
        "batching._Cut, 'give_back'",
        "retry.RetryPolicy, 'begin'",
        "delivery.Delivery, '_settle'",
        "delivery.Delivery, '_release'",
        "stats.Ledger, 'count_delivered'",
        "stats.Ledger, 'conclude_delivered'",
    ],
)
def test_two_handlers_that_raise_at_once_cost_nothing(programs: Programs, place: str) -> None:
    ended = programs.run(
        TWO_AT_ONCE.replace("PLACE", place), flush_interval=60, max_batch_records=40, max_batch_bytes=200
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.output.splitlines() == ["interrupted", "True 0"]
    assert ended.delivered == numbered("text", 90)
    assert not ended.reported
