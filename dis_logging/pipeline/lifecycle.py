"""
What a process does to its pipelines: it ends, it forks, it is a multiprocessing child.

Holds the pipelines that have something to lose, so that they outlive the handler that a reconfiguration threw away.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from typing import Protocol

from dis_logging.pipeline import reentry


class Closable(Protocol):
    """What is done to a pipeline when its process ends or forks."""

    shutdown_timeout: float

    def begin_flush(self) -> None:
        """Makes its thread send everything now; returns at once."""

    def settle(self, deadline: float) -> None:
        """Gives every record its verdict by *deadline* (monotonic); what is left goes to the fallback."""

    def reset_after_fork(self) -> None:
        """Starts over in a child process."""


class ClosingBudget:
    """
    Shares one *shutdown_timeout* among closings that follow one another.

    `logging.shutdown` flushes and closes one handler after the other; twenty of them whose service hangs must not take
    twenty times as long as one. Time spent closing is charged and comes back as time goes by, so that closings which lie
    apart, or are quick, do not notice one another.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._ended = 0.0

    def deadline(self, timeout: float) -> float:
        """Returns when (monotonic) a closing that starts now and may take *timeout* seconds must end."""
        now = time.monotonic()
        self._spent = max(0.0, self._spent - (now - self._ended))
        self._ended = now
        return now + max(0.0, timeout - self._spent)

    def charge(self, started: float) -> None:
        """Charges the time since *started* (monotonic)."""
        now = time.monotonic()
        self._spent += now - started
        self._ended = now


budget = ClosingBudget()
_pipelines: dict[int, Closable] = {}
_exiting_pid = 0
_child_pid = 0


def register(pipeline: Closable) -> None:
    """Remembers a pipeline that has records; also makes a multiprocessing child flush when it ends."""
    _pipelines[id(pipeline)] = pipeline
    _flush_when_child_ends()


def forget(pipeline: Closable) -> None:
    """Drops a pipeline that is closed."""
    _pipelines.pop(id(pipeline), None)


def is_exiting() -> bool:
    """Returns whether this process is running its exit functions, so that nothing will be sent in the background."""
    return _exiting_pid == os.getpid()


def _settle_all() -> None:
    global _exiting_pid
    _exiting_pid = os.getpid()
    pipelines = list(_pipelines.values())
    if not pipelines:
        return
    started = time.monotonic()
    deadline = budget.deadline(max(pipeline.shutdown_timeout for pipeline in pipelines))
    for pipeline in pipelines:  # all at once: their threads work while this one waits for the first
        pipeline.begin_flush()
    try:
        for pipeline in pipelines:
            pipeline.settle(deadline)
    finally:
        budget.charge(started)


def _flush_when_child_ends() -> None:
    """
    Registers with multiprocessing, or with Celery's billiard, in one of their children.

    Those end with os._exit: up to Python 3.13 neither atexit nor logging.shutdown runs there, but their finalizers do.
    """
    global _child_pid
    if _child_pid == os.getpid():
        return
    _child_pid = os.getpid()
    for name in ("multiprocessing", "billiard"):
        process = sys.modules.get(f"{name}.process")
        util = sys.modules.get(f"{name}.util")
        if process is None or util is None:
            continue
        current = process.current_process()
        if getattr(current, "_parent_pid", None) is not None:
            util.Finalize(None, _settle_all, exitpriority=-100)  # after everybody else who may still log


def _reset_in_child() -> None:
    reentry.forget_other_threads()
    pipelines = list(_pipelines.values())
    _pipelines.clear()
    for pipeline in pipelines:
        pipeline.reset_after_fork()


# Registered after logging's own exit function, hence run before it: while fallbacks are still open, and for all handlers
# together.
atexit.register(_settle_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)
