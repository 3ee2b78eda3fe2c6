"""
What a process does to its pipelines: it ends, it forks, it is a multiprocessing child.

Holds the pipelines that have something to lose, so that they outlive the handler that a reconfiguration threw away.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from dis_logging.pipeline import reentry

_SHUTDOWN = logging.shutdown.__code__
_STARTING_OVER = 1.0  # what it takes to start over in a child, seconds, generously


if TYPE_CHECKING:

    class Closable(Protocol):
        """What is done to a pipeline when its process ends or forks."""

        shutdown_timeout: float
        pid: int

        @property
        def waiting(self) -> int:
            """How many records have no verdict yet."""

        def begin_flush(self) -> None:
            """Makes its thread send everything now; returns at once."""

        def settle(self, deadline: float) -> None:
            """Gives every record its verdict by *deadline* (monotonic); what is left goes to the fallback."""

        def close(self, deadline: float) -> None:
            """Settles, and takes each later record in the thread that emits it."""

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

    def restart(self) -> None:
        """Forgets what was spent: a handler is made, so the closings before it were a reconfiguration, not the end."""
        self._spent = 0.0

    def deadline(self, timeout: float) -> float:
        """
        Returns when (monotonic) a closing that starts now and may take *timeout* seconds must end.

        In the past when those before it took longer, so that what comes after the deadline is shared, too.
        """
        now = time.monotonic()
        self._spent = max(0.0, self._spent - (now - self._ended))
        self._ended = now
        return now + timeout - self._spent

    def charge(self, started: float) -> None:
        """Charges the time since *started* (monotonic)."""
        now = time.monotonic()
        self._spent += now - started
        self._ended = now


budget = ClosingBudget()
_pipelines: dict[int, Closable] = {}
# A fork may come between a first record and `register`, so it looks at all of them.
_known: weakref.WeakSet[Closable] = weakref.WeakSet()
_pid = os.getpid()  # for which everything is set up
_starting_over: dict[int, int] = {}  # by process, the thread that sees to it
_exiting_pid = 0
_child_pid = 0
_forks = 0  # under way; only ever changed by a plain ``+=``, see `Ledger`
_called_after_fork: set[str] = set()  # by these, in children and their children


def know(pipeline: Closable) -> None:
    """Remembers a new pipeline, as long as somebody else holds it, to start it over in a child process."""
    _known.add(pipeline)
    if not is_exiting():
        budget.restart()


def register(pipeline: Closable) -> None:
    """Remembers a pipeline that has records; also makes a multiprocessing child flush when it ends."""
    _pipelines[id(pipeline)] = pipeline
    _flush_when_child_ends()


def forget(pipeline: Closable) -> None:
    """Drops a pipeline that is closed."""
    _pipelines.pop(id(pipeline), None)


def waiting_to_end(pipeline: Closable) -> int:
    """Returns how many records must have their verdict before the end: of all pipelines, if all of them end, else of this."""
    if not (is_exiting() or is_logging_shutting_down()):
        return pipeline.waiting
    return sum(each.waiting for each in {pipeline, *list(_pipelines.values())})


def is_exiting() -> bool:
    """Returns whether this process is running its exit functions, so that nothing will be sent in the background."""
    return _exiting_pid == os.getpid()


def is_logging_shutting_down() -> bool:
    """
    Returns whether `logging.shutdown` is among the callers; dictConfig calls it for the handlers it replaces.

    Nothing else tells a flush that others will follow it.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the only way to see who calls
    while frame is not None:
        if frame.f_code is _SHUTDOWN:
            return True
        frame = frame.f_back
    return False


def _settle_all() -> None:
    global _exiting_pid
    notice_fork()
    _exiting_pid = os.getpid()
    pipelines = list(_pipelines.values())
    if not pipelines:
        return
    started = time.monotonic()
    deadline = budget.deadline(max(pipeline.shutdown_timeout for pipeline in pipelines))
    for pipeline in pipelines:  # all at once: their threads work while this one waits for the first
        pipeline.begin_flush()
    with ExitStack() as settling:  # each of them, even if Ctrl-C ends the waiting for another
        settling.callback(budget.charge, started)
        for pipeline in reversed(pipelines):
            settling.callback(pipeline.settle, deadline)


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
        if getattr(process.current_process(), "_parent_pid", None) is not None:
            _end_with(util, process)
        # A child that logs in a fork hook does not know yet that it is one, and will clear its finalizers.
        if name not in _called_after_fork:
            _called_after_fork.add(name)
            util.register_after_fork(budget, lambda _, util=util, process=process: _end_with(util, process))


def _end_with(util: Any, process: Any) -> None:
    util.Finalize(None, _end_child, exitpriority=-100)  # after everybody else who may still log
    # The workers of billiard's pools, which are Celery's, end with os._exit right after a callback (billiard/pool.py,
    # Worker._do_exit) and run no finalizers.
    worker: Any = getattr(process.current_process(), "_target", None)
    if hasattr(worker, "on_exit") and not isinstance(worker.on_exit, _EndAfter):
        worker.on_exit = _EndAfter(worker.on_exit)


class _EndAfter:
    """Calls back as before, then ends the child."""

    def __init__(self, callback: Callable[..., object] | None) -> None:
        self._callback = callback

    def __call__(self, *args: object) -> None:
        try:
            if self._callback is not None:
                self._callback(*args)
        finally:
            _end_child()


def _end_child() -> None:
    pipelines = list(_pipelines.values())
    _settle_all()
    for pipeline in pipelines:  # the child's threads may go on for a while, but nothing of ours runs after them
        pipeline.close(time.monotonic())


def notice_fork() -> None:
    """
    Starts over if this is a child that does not know it yet.

    A fork hook that was registered before ours may log, also what the parent has made, and uWSGI forks without calling any
    hooks. A new record says which process made it, so that looking costs nothing.
    """
    pid = os.getpid()
    if _pid == pid:
        return
    me = threading.get_ident()
    if _starting_over.setdefault(pid, me) == me:
        _start_over()
        return
    deadline = time.monotonic() + _STARTING_OVER
    while _pid != pid and time.monotonic() < deadline:  # another thread is about it
        time.sleep(0.001)


def _begin_fork() -> None:
    global _forks
    _forks += 1
    for pipeline in list(_known):
        pipeline.pid = 0  # so that every record makes it look


def _end_fork_in_parent() -> None:
    global _forks
    _forks -= 1
    if not _forks:
        for pipeline in list(_known):
            pipeline.pid = _pid


def _start_over() -> None:
    """Starts over in a child; signal handlers run before and after, as what they log meanwhile would go to what is replaced."""
    # Not `signal`, which nobody need have imported for Ctrl-C to have its handler.
    signal: Any = sys.modules.get("_signal")
    change_mask = getattr(signal, "pthread_sigmask", None)
    if change_mask is None:
        _reset_all()
        return
    before = change_mask(signal.SIG_BLOCK, ())
    try:
        change_mask(signal.SIG_BLOCK, signal.valid_signals())  # runs handlers once it has, and they may raise
        _reset_all()
    finally:
        change_mask(signal.SIG_SETMASK, before)


def _reset_all() -> None:
    global _pid, _forks
    _forks = 0
    reentry.reset_after_fork()
    budget.restart()
    _pipelines.clear()
    for pipeline in list(_known):
        pipeline.reset_after_fork()
    _pid = os.getpid()
    _starting_over.clear()


# Registered after logging's own exit function, hence run before it: while fallbacks are still open, and for all handlers
# together.
atexit.register(_settle_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_begin_fork, after_in_parent=_end_fork_in_parent, after_in_child=_start_over)
