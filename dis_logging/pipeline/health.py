"""
Says on the logger ``dis_logging`` when records start to be given up, and when they are delivered again.

Looks at the counters now and then, so that no verdict costs more for it. What it says never reaches a `DISHandler`, which
refuses the records of this package in a thread that is marked as delivering.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dis_logging.pipeline.reentry import run_delivering
from dis_logging.pipeline.stats import Ledger

_logger = logging.getLogger("dis_logging")
# How often trouble is told of while it lasts, and how long it must be over before that is said.
_WARNING_INTERVAL = 60.0
_RECOVERY_TIME = 10.0


class Health:
    """
    Whether the records of one stream get through, as told to operators. To be used by one thread at a time.

    Args:
        stream_name: for the messages.
        ledger: the counters to look at.
        clock: monotonic seconds.
    """

    def __init__(self, stream_name: str, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream_name = stream_name
        self._ledger = ledger
        self._clock = clock
        self._given_up = 0  # when it last looked
        self._delivered = 0  # when the last record was given up
        self._told = 0  # of those given up
        self._since: float | None = None  # when the trouble began; None when all is well
        self._last = 0.0  # when a record was last seen to be given up
        self._next_warning = 0.0

    def look(self) -> float | None:
        """Warns if there is reason to; returns the seconds until it should look again, None when all is well."""
        ledger, now = self._ledger, self._clock()
        given_up = ledger.failed + ledger.dropped
        if given_up > self._given_up:
            self._given_up, self._delivered, self._last = given_up, ledger.delivered, now
            if self._since is None:
                self._since = now
        if self._since is None:
            return None
        if given_up > self._told and now >= self._next_warning:
            self._next_warning = now + _WARNING_INTERVAL
            self._warn(given_up - self._told)
            self._told = given_up
        elif ledger.delivered > self._delivered and now - self._last >= _RECOVERY_TIME:
            self._tell_recovery(now - self._since, given_up - self._told)
            self._told = given_up
            self._since = None
            return None
        return _RECOVERY_TIME

    def _warn(self, count: int) -> None:
        reason = ", ".join(filter(None, self._ledger.last_failure)) or "the buffer is full"
        _say(
            logging.WARNING,
            "records for the DIS stream %s are not delivered: %d given up, the latest because of: %s",
            self._stream_name,
            count,
            reason,
        )

    def _tell_recovery(self, seconds: float, count: int) -> None:
        _say(
            logging.WARNING,
            "records for the DIS stream %s are delivered again, after %d s; %d more had been given up",
            self._stream_name,
            seconds,
            count,
        )


def _say(level: int, message: str, *args: object) -> None:
    # Without any handler Python would write it on stderr, where the fallback of such a program has told it already.
    if _logger.hasHandlers():
        run_delivering(lambda: _logger.log(level, message, *args))
