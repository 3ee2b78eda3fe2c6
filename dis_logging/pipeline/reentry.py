"""
Which threads are inside this package at the moment, so that it neither feeds on its own records nor recurses.

A record can come up while its thread formats, sends or hands over another one: from a formatter that logs, from urllib3,
from a fallback that logs, but also from a signal handler or a destructor that interrupts any of them. The latter are the
application's records and must not be lost, so a record is refused only if its logger belongs to the libraries we send with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

_Result = TypeVar("_Result")

# Top-level names of the loggers that may speak while a batch is sent.
_DELIVERY_LOGGERS = frozenset(
    {"urllib3", "requests", "tenacity", "charset_normalizer", "chardet", "idna", "dis_logging"}
)


class Inside(NamedTuple):
    """
    What a thread is doing in here.

    Args:
        depth: how many records it is formatting, one within the other.
        trail: ids of the handlers within whose fallbacks its records come up, in a child also those of its parent.
        delivering: True while it sends a batch or runs a fallback.
    """

    depth: int
    trail: tuple[int, ...]
    delivering: bool

    def refuses(self, logger_name: str) -> bool:
        """Returns whether a record of this logger is a by-product of delivering."""
        return self.delivering and logger_name.partition(".")[0] in _DELIVERY_LOGGERS


FORMATTING = Inside(1, (), False)

# By thread id. Single dict operations are atomic, and each thread changes its own key only. The id is asked of `threading`
# each time, as gevent may put that of its own threads there after this package was imported.
inside: dict[int, Inside] = {}


def run_delivering(action: Callable[[], _Result], fallback_of: int | None = None) -> _Result:
    """
    Runs *action* with the calling thread marked as delivering; *fallback_of* is the id of the handler whose fallback it is.

    Not a context manager: Ctrl-C as one is left would leave the mark on the thread. What removes it here makes no call.
    """
    ident = threading.get_ident()
    before = inside.get(ident)
    state = before or Inside(0, (), True)
    state = Inside(state.depth, state.trail if fallback_of is None else (*state.trail, fallback_of), True)
    try:
        inside[ident] = state
        return action()
    finally:
        if before is not None:
            inside[ident] = before
        elif ident in inside:
            del inside[ident]


def is_delivering() -> bool:
    """Returns whether the calling thread is sending a batch or running a fallback."""
    state = inside.get(threading.get_ident())
    return state is not None and state.delivering


def reset_after_fork() -> None:
    """
    After a fork only the calling thread exists, and the ids of the others may be given out again.

    If it was delivering, that was for the parent: here it may wait for what it logs. But what a fallback logs still must not
    come back to it, or each child that it makes would make another.
    """
    state = inside.get(threading.get_ident())
    inside.clear()
    if state is not None:
        inside[threading.get_ident()] = Inside(state.depth, state.trail, False)
