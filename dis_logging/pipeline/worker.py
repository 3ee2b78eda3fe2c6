"""A background thread that starts on demand, sleeps on a bell, and survives whatever its work raises."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from dis_logging.bell import Bell
from dis_logging.greenlets import can_wait, is_in_pool, is_kill, raise_in_main, run_here_after, run_in_running_hub

_logger = logging.getLogger("dis_logging")
_PAUSE_AFTER_ERROR = 0.1
# How long another hub has for starting the thread, and when the caller's own then sees to it: not before.
_HANDING_ON_TIME = 1.0
_TAKING_OVER_TIME = 1.1


class _Claim:
    """A call that starts the thread, or has handed that on to another hub of gevent's."""

    __slots__ = ("handed_on_at", "heirs")

    def __init__(self) -> None:
        self.handed_on_at = math.inf
        self.heirs: dict[str, _Claim] = {}  # the one call that takes it over

    @property
    def is_overdue(self) -> bool:
        """Whether the other hub has had time enough: its thread may wait for something that is not gevent's."""
        return time.monotonic() - self.handed_on_at > _HANDING_ON_TIME


class Worker:
    """
    Runs *step* again and again in a daemon thread.

    *step* does what there is to do and returns the seconds to sleep, None meaning until woken. `wake` may be called from
    any thread, signal handler or destructor; `stop` from any thread. A fork leaves the child with a fresh, unstarted one
    (`reset_after_fork`).

    Args:
        name: of the thread, for debuggers and stack dumps.
        step: raises nothing by design; should it raise, the thread reports it and goes on.
        max_idle: seconds after which the thread ends when *step* said None and nobody woke it; None: it waits for ever.
    """

    def __init__(self, name: str, step: Callable[[], float | None], max_idle: float | None = None) -> None:
        self._name = name
        self._step = step
        self._max_idle = max_idle
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forgets the thread, which a fork does not copy."""
        self._bell = Bell()
        self._rung = False
        self._stopping = False
        self._is_waiting = False
        self._thread: threading.Thread | None = None
        self._starting: dict[str, _Claim] = {}  # which call of _start starts it; empty while none does

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller is this very thread."""
        return self._thread is threading.current_thread()

    @property
    def is_free(self) -> bool:
        """Whether `wake` would make the thread, or a new one, look for work at once, and nobody has called it yet."""
        return (self._is_waiting and not self._rung) or not self.is_alive

    def wake(self) -> None:
        """Makes the thread look for work soon; starts it if it does not run."""
        # One token is enough, however many records come meanwhile; but Ctrl-C may have come before its ring.
        if not self._rung or self._is_waiting:
            self._rung = True
            self._bell.ring()
        if not self.is_alive:  # only now: one that ends looks for the token first
            self._start()

    def stop(self) -> None:
        """
        Lets the thread end once it has done what it was woken for; does not wait for that.

        For good: a thread that `wake` starts from now on ends as well, so that whoever comes too late leaves none behind.
        """
        self._stopping = True
        self._bell.ring()

    def _start(self) -> None:
        # Never waits: whoever finds the claim taken may rely on the thread that has it, which may be itself, interrupted
        # by a signal handler.
        me = _Claim()
        try:  # around the claim, which Ctrl-C may follow at once: nobody could start it any more
            holder = self._starting.setdefault("by", me)
            if holder is not me:
                if not holder.is_overdue or is_in_pool() or not can_wait():
                    return
                if holder.heirs.setdefault("by", me) is not me:
                    return
                self._starting["by"] = me
            elif not self.is_alive and run_in_running_hub(lambda: self._start_as(me)):
                me.handed_on_at = time.monotonic()
                run_here_after(_TAKING_OVER_TIME, self._start)  # should the other be busy
                return
            self._start_as(me)
        except BaseException:
            self._give_up_claim(me)
            raise

    def _start_as(self, me: _Claim) -> None:
        """Starts the thread for *me*, who has the claim, and gives it up."""
        try:
            if self._starting.get("by") is me and not self.is_alive:
                # Not that of another thread before: since then gevent may have replaced the locks, and to wait for one of the
                # old kind would stop the whole process.
                self._bell = Bell()
                # Known before it starts: a signal handler may raise while start waits for it.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        except RuntimeError:
            # No thread to be had: the limit of the system is reached, or the interpreter is ending. The next record
            # tries again, and flush and close work without one.
            pass
        finally:
            self._give_up_claim(me)
        # It may have ended meanwhile, when whoever woke it at its end found the claim taken.
        if self._thread is None and self._rung:
            self._start()

    def _give_up_claim(self, me: _Claim) -> None:
        if "by" in self._starting and self._starting["by"] is me:
            del self._starting["by"]

    def _run(self) -> None:
        while True:
            try:
                self._loop()
                return
            except BaseException as error:  # even SystemExit: a dead sender would cost records
                if is_kill(error):
                    self._thread = None
                    self._start()  # another goes on
                    return
                if raise_in_main(error):
                    continue
                _logger.exception("dis_logging: the background thread met an unforeseen error and goes on")
                if self._stopping:
                    return
                self._bell.wait(_PAUSE_AFTER_ERROR)

    def _loop(self) -> None:
        while True:
            self._rung = False
            wait = self._step()
            if self._rung:
                continue
            if self._stopping:  # only now: what was there when it was told to stop is still done
                break
            if wait is None or wait > 0:
                self._is_waiting = True
                was_rung = self._bell.wait(self._max_idle if wait is None else wait)
                self._is_waiting = False
                if wait is None and not was_rung and self._max_idle is not None:
                    break
        self._thread = None  # whoever wakes it from now on starts another
        if self._rung:  # by somebody who still took this one for alive
            self._start()
