"""Fixtures that most tests need: a local DIS, a logger of one's own, a fallback that remembers."""

import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import settings

from dis_logging import DISHandler, HandlerStats
from dis_logging.emulator import DISEmulator
from dis_logging.pipeline.buffer import Buffer, OverflowPolicy, Taken
from dis_logging.pipeline.entry import DATA, KEY, Entry
from dis_logging.pipeline.stats import Acknowledged, Ledger

STREAM = "app-logs"

# An example may take its time: what hypothesis allows by default is soon over on a busy machine.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class RememberingHandler(logging.Handler):
    """A fallback that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps *record*."""
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        """The messages of the records, in the order they came."""
        return [record.getMessage() for record in self.records]

    @property
    def codes(self) -> list[str]:
        """The records' dis_error_code, in the order they came."""
        return [vars(record)["dis_error_code"] for record in self.records]


@contextmanager
def no_thread(prefix: str = "dis_logging", times: float = math.inf) -> Iterator[list[str]]:
    """
    Lets no thread whose name begins with *prefix* start, as when the system has no more to give; gives the refused names.

    Args:
        times: how many are refused; those after them start.
    """
    start = threading.Thread.start
    refused: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(prefix) and len(refused) < times:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield refused


def make_buffer(
    ledger: Ledger | None = None, *, max_records: int = 10**6, policy: OverflowPolicy = OverflowPolicy.FALLBACK
) -> Buffer:
    """Returns a buffer that wakes nobody, and is never full unless *max_records* says so."""
    return Buffer(
        ledger or Ledger(),
        max_records=max_records,
        max_bytes=10**9,
        policy=policy,
        block_timeout=0,
        flush_level=50,
        wake=lambda: None,
        overflow=lambda entry: None,
    )


def take(buffer: Buffer) -> Entry:
    """Removes and returns the oldest entry of the queue; IndexError when there is none."""
    entry = buffer.queue.popleft()
    buffer.count_taken(Taken(1, len(entry[DATA])))
    return entry


def park(buffer: Buffer, entry: Entry) -> None:
    """Sets *entry*, just taken, aside, as a batch does with one of a key that must wait."""
    buffer.parked.setdefault(entry[KEY], deque()).append(entry)


def settle_delivered(ledger: Ledger, entries: Collection[Entry]) -> None:
    """Counts *entries*, taken from a buffer, as acknowledged, and tells of them."""
    acknowledged = Acknowledged(entries)
    ledger.count_delivered(acknowledged)
    ledger.conclude_delivered(acknowledged)


def assert_accounts_balance(
    handler: DISHandler,
    dis: DISEmulator,
    fallback: RememberingHandler,
    emitted: Sequence[str],
    *,
    stream: str = STREAM,
) -> HandlerStats:
    """
    Closes *handler* and compares what was emitted, all texts different, with the ledger, the fallback and the counters.

    Each record ends once: it is in the ledger (perhaps more than once), or the fallback has it once, or it is one of the
    counted drops, of which neither has heard. One that the fallback has may be in the ledger too, if it says so.
    """
    handler.close()
    stats = handler.stats()
    stored = {record.text for record in dis.records(stream)}
    failed = Counter(fallback.texts)
    certain = {record.getMessage() for record in fallback.records if not vars(record)["dis_outcome_unknown"]}
    everything = set(emitted)

    assert len(everything) == len(emitted), "this account needs texts that differ"
    assert stored <= everything
    assert failed <= Counter(everything)
    assert not stored & certain
    assert stats.buffered == 0
    assert stats.emitted == len(emitted)
    assert stats.failed == len(fallback.records)
    assert stats.delivered == len(stored - failed.keys())
    assert stats.dropped == len(everything - stored - failed.keys())
    return stats


@pytest.fixture
def dis() -> Iterator[DISEmulator]:
    """A local DIS with one stream of three partitions."""
    with DISEmulator(streams={STREAM: 3}) as emulator:
        yield emulator


@pytest.fixture
def fallback() -> RememberingHandler:
    """A fallback that remembers what it was given."""
    return RememberingHandler()


@pytest.fixture
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """A logger of the test's own, at DEBUG, that does not propagate; its handlers are closed afterwards."""
    logger = logging.getLogger(f"test.{request.node.name}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Makes what a test printed and logged fit to go from one process to another: lone surrogates are not."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def restored_loggers() -> Iterator[None]:
    """
    Puts the handlers of all loggers but the root back as they were, for the tests after it, and lets them propagate.

    pytest puts a handler of its own on each logger that does not.
    """
    before = {logger.name: list(logger.handlers) for logger in _loggers()}
    yield
    for logger in _loggers():
        logger.handlers[:] = [each for each in logger.handlers if each in before.get(logger.name, ())]
        logger.propagate = True


def _loggers() -> list[logging.Logger]:
    loggers = logging.getLogger().manager.loggerDict.values()
    return [each for each in loggers if isinstance(each, logging.Logger) and (each.handlers or not each.propagate)]


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Puts the root logger and the disabled flags back as they were."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    disabled = {name for name, item in root.manager.loggerDict.items() if getattr(item, "disabled", False)}
    yield
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, item in root.manager.loggerDict.items():
        if isinstance(item, logging.Logger):
            item.disabled = name in disabled
