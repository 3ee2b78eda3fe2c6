"""Waiting for something to happen elsewhere, in a way that signal handlers and destructors may interrupt and end."""

from __future__ import annotations

import threading


class Bell:
    """
    Wakes one waiting thread; may be rung from anywhere, signal handlers and destructors included.

    A bare lock, held while nobody has rung: unlike `threading.Event` and conditions it does not mind being interrupted by
    whoever rings it. `queue.SimpleQueue` would not either, but its ``get`` waits for ever instead of for a few more microseconds.
    """

    def __init__(self) -> None:
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Wakes the waiting thread, or spares the next one its wait; many rings are one."""
        if self._silence.locked():
            try:
                self._silence.release()
            except RuntimeError as error:  # another thread has rung at this moment
                traceback = error.__traceback__
                if traceback is not None and traceback.tb_next is not None:  # no, a signal handler has raised it
                    raise

    def wait(self, timeout: float | None) -> bool:
        """Waits until somebody rings, at most *timeout* seconds (None: without limit); returns whether anybody did."""
        return self._silence.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX))
