"""Ctrl-C anywhere within the delivery: the main thread delivers by itself while no thread can be started."""

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Fault, Refuse, RefuseEntries
from dis_logging.pipeline import fallback as fallback_module
from dis_logging.pipeline.reentry import inside
from tests.conftest import STREAM, RememberingHandler, no_thread
from tests.interrupts import interrupt_after

EVERY = 3  # calls and returns; a prime, to meet other functions with each interrupt
FAULTS: dict[str, list[Fault]] = {
    "all are taken": [],
    "some are refused": [RefuseEntries("DIS.4302", where=[1, 6]), RefuseEntries("DIS.4303", where=[2, 5])],
    "the stream is gone": [Refuse(400, "DIS.4301")],
    "the request is refused": [Refuse(400, "DIS.4302")],
}


@pytest.fixture(autouse=True)
def main_thread_delivers() -> Iterator[None]:
    """Leaves the delivery to the thread that flushes."""
    with no_thread():
        yield


class SignalError(Exception):
    """What a signal handler of the application raises, such as one that limits the time with an alarm."""


class Round:
    """One handler with some records of two loggers, interrupted once."""

    def __init__(self, dis: DISEmulator, logger: logging.Logger, number: int) -> None:
        self.dis = dis
        self.fallback = RememberingHandler()
        self.handler = DISHandler(
            **dis.handler_options(STREAM),
            fallback=self.fallback,
            flush_interval=60,
            backoff_initial=0.001,
            backoff_max=0.002,
            shutdown_timeout=20,
        )
        logger.handlers = [self.handler]
        self.texts = [f"round {number} record {each}" for each in range(8)]
        for each, text in enumerate(self.texts):
            (logger if each % 2 else logger.getChild("child")).info(text)

    def assert_accounts_balance(self, errors: str) -> None:
        """Each record is stored, or reported once: to the fallback, or on stderr if that was interrupted."""
        stats = self.handler.stats()
        stored = Counter(record.text for record in self.dis.records(STREAM) if record.text in self.texts)
        reported = Counter(self.fallback.texts)
        reported.update(text for text in self.texts if f"{text}\n" in errors and text not in reported)

        assert {*stored, *reported} == set(self.texts)
        assert set(reported.values()) <= {1}
        assert (stats.emitted, stats.buffered) == (len(self.texts), 0)
        assert stats.failed == reported.total()
        assert stats.delivered == len(self.texts) - reported.total()


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize(
    ("action", "error"), [("flush", KeyboardInterrupt), ("flush", SignalError), ("close", KeyboardInterrupt)]
)
def test_an_interrupt_costs_no_record_and_wedges_nothing(
    dis: DISEmulator,
    logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    action: str,
    error: type[BaseException],
    faults: str,
) -> None:
    interrupts = 0
    for number in itertools.count(1):
        dis.reset({STREAM: 1})
        dis.play(*FAULTS[faults])
        round_ = Round(dis, logger, number)

        was_interrupted = interrupt_after(number * EVERY, error, getattr(round_.handler, action))

        if action == "flush":
            assert round_.handler.flush(20)
        else:  # as logging.shutdown does at the end
            round_.handler.close()
        round_.assert_accounts_balance(capsys.readouterr().err)
        assert round_.handler._pipeline._delivery.demands == 0  # else each record would be sent by itself from now on
        assert threading.get_ident() not in inside
        round_.handler.close()
        if not was_interrupted:
            break
        interrupts += 1

    assert interrupts > 20  # it was really in the middle of it


FULL: dict[str, dict[str, Any]] = {
    "it goes to the fallback": {},
    "the fallback is behind": {},
    "it is dropped": {"overflow": "drop_newest"},
    "an older one is dropped": {"overflow": "drop_oldest"},
    "an older one is dropped, and told": {"overflow": "drop_oldest", "on_verdict": str},
    "it waits for room": {"overflow": "block", "block_timeout": 0.001},
    "it is too large": {"max_buffer_records": 10},
    "the handler is closed": {},
    "all is well": {"max_buffer_records": 10},
}


@pytest.mark.parametrize("case", FULL)
def test_an_interrupt_of_a_logging_call_leaves_its_record_unknown_or_with_one_verdict(
    dis: DISEmulator,
    logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    if case == "the fallback is behind":
        monkeypatch.setattr(fallback_module, "_MAX_OVERFLOW_RECORDS", 0)
    interrupts = 0
    for place in itertools.count():
        dis.reset({STREAM: 1})
        fallback = RememberingHandler()
        handler = DISHandler(
            **{**dis.handler_options(STREAM), "max_buffer_records": 1, "flush_interval": 60, **FULL[case]},
            fallback=fallback,
        )
        logger.handlers = [handler]
        texts = ["first", "x" * 2**20 + "!" if case == "it is too large" else "second"]
        logger.info(texts[0])
        if case == "the handler is closed":
            handler.close()

        was_interrupted = interrupt_after(place, KeyboardInterrupt, lambda: logger.info(texts[1]))  # noqa: B023 - at once

        assert handler.flush(20)
        handler.close()
        stats, errors = handler.stats(), capsys.readouterr().err
        reported = Counter(fallback.texts)
        reported.update(text for text in texts if f"{text}\n" in errors and text not in reported)
        stored = Counter(record.text for record in dis.records(STREAM))
        assert stats.buffered == 0
        assert (stats.delivered, stats.failed) == (stored.total(), reported.total())
        assert {*stored.values(), *reported.values()} <= {1}
        assert stats.emitted == 2 or (was_interrupted and stats.emitted == 1)
        if not was_interrupted:
            break
        interrupts += 1

    assert interrupts > 2
