"""The write rates of a partition: a bucket of records and one of bytes, refilled as time passes. Pure given a clock."""

from __future__ import annotations

from typing import NamedTuple

from dis_logging.client.wire import COMMON_RATE_BYTES, COMMON_RATE_RECORDS


class Rate(NamedTuple):
    """What a partition takes in one second, bytes counted before base64 and without partition keys."""

    records: int
    data_bytes: int


# FAQ, "What is a partition?": whichever of the two is reached first throttles.
RATES = {"COMMON": Rate(COMMON_RATE_RECORDS, COMMON_RATE_BYTES), "ADVANCED": Rate(2000, 5 * 1024 * 1024)}


class Bucket:
    """
    What a partition would take now; it holds one second's worth at most.

    Args:
        rate: how fast it fills.
        now: seconds on the clock that `take` will be given.
    """

    __slots__ = ("_data_bytes", "_filled", "_rate", "_records")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._filled = now
        self._records = float(rate.records)
        self._data_bytes = float(rate.data_bytes)

    def take(self, data_bytes: int, now: float) -> bool:
        """Returns whether a record of that size may pass at *now*, and counts it if so."""
        elapsed, self._filled = now - self._filled, now
        self._records = min(self._records + elapsed * self._rate.records, self._rate.records)
        self._data_bytes = min(self._data_bytes + elapsed * self._rate.data_bytes, self._rate.data_bytes)
        if self._records < 1 or self._data_bytes < data_bytes:
            return False
        self._records -= 1
        self._data_bytes -= data_bytes
        return True
