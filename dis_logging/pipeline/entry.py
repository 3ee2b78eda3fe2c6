"""What flows through the pipeline: entries on their way, and failures at their end."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Epoch:
    """
    The entries accepted between two calls of flush, counted in and out.

    A flush is over when the epochs up to its own have as many settled entries as accepted ones. Its counters are only
    ever changed by a plain ``+=``, see `dis_logging.pipeline.stats`.
    """

    __slots__ = ("accepted", "settled")

    def __init__(self) -> None:
        self.accepted = 0
        self.settled = 0


class Entry(NamedTuple):
    """
    One encoded record on its way.

    A tuple rather than a dataclass, because one is made in every logging call and a hundred thousand may wait: it costs a
    fifth of the time and keeps the memory of a waiting 200-byte record near twice its payload.

    Args:
        data: the formatted record in UTF-8, before base64; never empty.
        partition_key: what DIS hashes; entries of one key keep their order.
        epoch: which flush waits for it.
        name, levelno, created, pathname, lineno, function, thread_name: of the original record, for the fallback.
        trail: ids of the handlers whose fallback this record has been through; nearly always empty.
        explicit_hash_key, partition_id: route the entry instead of its key, if the user asked for that.
    """

    data: bytes
    partition_key: str
    epoch: Epoch
    name: str
    levelno: int
    created: float
    pathname: str
    lineno: int
    function: str | None
    thread_name: str | None
    trail: tuple[int, ...]
    explicit_hash_key: str | None = None
    partition_id: str | None = None

    @property
    def timestamp(self) -> None:
        """Not sent: neither range nor skew limits of this undocumented field are known."""


class FailureReason(str, Enum):
    """
    Why a record was given up, when DIS gave no code of its own; with `http_NNN` these are all values there are.

    `OVERFLOW`: the buffer was full. `TOO_LARGE`: over 1 MiB, which DIS never accepts. `NETWORK`: no connection, or it
    broke. `TIMEOUT`: no answer in time. `CLOSED`: the handler was closed before the record could be sent.
    """

    OVERFLOW = "overflow"
    TOO_LARGE = "too_large"
    NETWORK = "network"
    TIMEOUT = "timeout"
    CLOSED = "closed"


class Failure(NamedTuple):
    """
    An entry that we gave up on.

    Args:
        code: DIS's code (``"DIS.4302"``), a `FailureReason` value, or ``"http_NNN"``.
        message: what happened, on one line.
        attempts: how many requests carried the entry.
        outcome_unknown: True when one of them may have stored it nevertheless.
        buffered: True when the entry takes up room in the buffer until the fallback has it.
    """

    entry: Entry
    code: str
    message: str
    attempts: int
    outcome_unknown: bool
    buffered: bool
