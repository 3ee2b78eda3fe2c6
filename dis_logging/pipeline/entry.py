"""What flows through the pipeline: entries on their way, and failures at their end."""

from __future__ import annotations

import math
from enum import Enum
from operator import itemgetter
from typing import Final, NamedTuple

from dis_logging.client.wire import Routing


class Fields(NamedTuple):
    """
    The fields of an `Entry` by name, in the order in which an entry has them.

    The first three are what the client sends.

    Args:
        data: the formatted record in UTF-8, before base64; never empty.
        partition_key: what DIS hashes; entries of one key keep their order.
        routing: what places the entry instead of its key, None unless the user asked for that.
        epoch: the number of the `Epoch` whose flush waits for it.
        name, levelno, created, pathname, lineno, function, thread_name: of the original record, for the fallback.
        trail: ids of the handlers whose fallback this record has been through; nearly always empty.
    """

    data: bytes
    partition_key: str
    routing: Routing | None
    epoch: int
    name: str
    levelno: int
    created: float
    pathname: str
    lineno: int
    function: str | None
    thread_name: str | None
    trail: tuple[int, ...]


#: One encoded record on its way: the `Fields`, as a plain tuple of things that refer to nothing else. One is made in every
#: logging call and a hundred thousand may wait: a plain tuple costs a third of the time of a named one, and the garbage
#: collector drops it from its rounds, so that a backlog does not slow the whole program down.
Entry = tuple[bytes, str, Routing | None, int, str, int, float, str, int, str | None, str | None, tuple[int, ...]]

# Where the paths that every entry takes find what they need.
DATA: Final = 0
KEY: Final = 1
ROUTING: Final = 2
EPOCH: Final = 3
NAME: Final = 4
LEVEL: Final = 5
CREATED: Final = 6
TRAIL: Final = 11
# For all of many at once, without a step of the interpreter for each.
data_of = itemgetter(DATA)
key_of = itemgetter(KEY)
routing_of = itemgetter(ROUTING)
epoch_of = itemgetter(EPOCH)


#: Of a longer key, or one that is not ASCII, the buffer counts the bytes as well, as each entry may have one of its own.
MAX_FREE_KEY: Final = 64


def key_bytes(entry: Entry) -> int:
    """Returns how many bytes the buffer counts for the key of *entry*; none for the name of a logger, which is shared."""
    key = entry[KEY]
    if key is entry[NAME]:
        return 0
    if key.isascii():
        return len(key) if len(key) > MAX_FREE_KEY else 0
    return 4 * len(key)


def place_of(entry: Entry) -> str | tuple[str, Routing]:
    """Returns what DIS chooses the partition by: the key, or the key and what the user's options say besides."""
    return entry[KEY] if entry[ROUTING] is None else (entry[KEY], entry[ROUTING])


def created_of(entry: Entry) -> float | None:
    """Returns when the record of *entry* was made, None when it says nothing of the kind: makeLogRecord takes anything."""
    created: object = entry[CREATED]
    try:
        return created if isinstance(created, int | float) and math.isfinite(created) else None
    except OverflowError:  # an int beyond every float
        return None


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


class Outcome(str, Enum):
    """How a record ended: `DELIVERED` (DIS acknowledged it), `FAILED` (the fallback has it) or `DROPPED` (by a drop policy)."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


class Verdict(NamedTuple):
    """
    The end of one record, as told to the callback *on_verdict*.

    Args:
        outcome: how it ended.
        name, levelno, created: of the record.
        partition_key: what it was, or would have been, sent with.
        size: payload bytes.
        code: why it failed, as the fallback's ``dis_error_code``; empty when it did not.
    """

    outcome: Outcome
    name: str
    levelno: int
    created: float
    partition_key: str
    size: int
    code: str


def verdict_of(entry: Entry, outcome: Outcome, code: str = "") -> Verdict:
    """Returns the `Verdict` on *entry*."""
    fields = Fields(*entry)
    return Verdict(outcome, fields.name, fields.levelno, fields.created, fields.partition_key, len(fields.data), code)


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
