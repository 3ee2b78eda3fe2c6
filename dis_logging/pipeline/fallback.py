"""Hands failures to the user's fallback handler, reason attached; the last resort is a line on stderr."""

from __future__ import annotations

import logging
import math
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TextIO

from dis_logging import options
from dis_logging.bell import Bell
from dis_logging.errors import ConfigurationError
from dis_logging.escaping import escape
from dis_logging.greenlets import can_wait, select_here
from dis_logging.pipeline.buffer import taken_from
from dis_logging.pipeline.entry import DATA, EPOCH, TRAIL, Entry, Failure, Fields, created_of, key_bytes
from dis_logging.pipeline.reentry import run_delivering
from dis_logging.pipeline.stats import Ledger
from dis_logging.pipeline.worker import Worker

# What may wait for a slow fallback beyond the buffer, after an overflow. Beyond that the emitting thread hands over by
# itself, as with any other handler: the alternatives would be to lose the record or to take memory without bound.
_MAX_OVERFLOW_RECORDS = 10_000
_MAX_OVERFLOW_BYTES = 4 * 1024 * 1024
# How long an emitting thread then waits for a fallback that another thread is in.
_PATIENCE = 0.1
# A fallback that has been in one call for so long is taken for stuck, and not waited for.
_STUCK_AFTER = 1.0
# How long lines on stderr may take at the end for what the fallback did not.
_LAST_LINES_TIME = 0.1
# With a drop policy and no fallback of the user's own: how often stderr gets a line, and how much of a text it shows.
_QUIET_SECONDS = 60.0
_QUIET_TEXT = 200

FallbackLookup = Callable[[], "logging.Handler | None"]


class Fallback:
    """
    Gives every failure to one handler, in the order of the verdicts, in a thread of its own.

    The thread starts with the first failure, so that a fallback that blocks holds up neither the sending nor the
    application. `put` may be called from anywhere and, until the backlog of overflowed entries is full, waits for nobody.

    Args:
        lookup: returns the handler, or None while there is none; asked until it gives one.
        stream_name: told to the handler with each failure.
        ledger: where each failure is counted once the handler has it.
        is_quiet: the user chose to drop records and named no handler: stderr gets one line a minute, and what it is not told
            is counted as dropped.
        handed_over: called when the handler has all there was.
    """

    def __init__(
        self,
        lookup: FallbackLookup,
        stream_name: str,
        ledger: Ledger,
        *,
        is_quiet: bool = False,
        handed_over: Callable[[], None] = lambda: None,
    ) -> None:
        self._lookup = lookup
        self._is_quiet = is_quiet
        self._handed_over = handed_over
        self._handler: logging.Handler | None = None
        self._stream_name = stream_name
        self._worker = Worker("dis_logging-fallback", self._step)
        self.reset_after_fork(ledger)

    def reset_after_fork(self, ledger: Ledger) -> None:
        """Starts over with nothing to hand over."""
        self._ledger = ledger
        self._queue: deque[_Pending] = deque()
        self._current: _Pending | None = None
        self._current_since = 0.0
        self._overflow_entries = 0
        self._overflow_bytes = 0
        self._silent_until = 0.0
        self._untold = 0
        self._turn: dict[str, object] = {}  # which call of _step hands over; empty while none does
        self._untaken: list[_Pending] = []  # what a drain that Ctrl-C ended had taken to show
        self._idle = Bell()
        self._worker.reset_after_fork()

    def resolve(self) -> None:
        """Looks the handler up and holds it, if it can be had by now; nothing else may keep it alive."""
        if self._handler is None:
            self._handler = self._lookup()

    def put(self, failure: Failure) -> None:
        """Takes the failure of an entry that never was in the buffer, and counts that entry as emitted."""
        entry, ledger = failure.entry, self._ledger
        size, epoch = len(entry[DATA]) + key_bytes(entry), ledger.epoch_numbered(entry[EPOCH])
        is_full = self._overflow_entries >= _MAX_OVERFLOW_RECORDS or self._overflow_bytes >= _MAX_OVERFLOW_BYTES
        queue, new = self._queue, [_Pending(failure, in_backlog=not is_full)]
        try:
            # Without a call before the failure has its place, here or in the queue.
            ledger.passed_by += 1
            epoch.accepted += 1
            if not is_full:
                self._overflow_entries += 1
                self._overflow_bytes += size
                queue += new
            ledger.keep(entry[EPOCH], epoch)
            if is_full:
                self._hand_over_now(new[0])
            else:
                self._worker.wake()
        except BaseException:  # Ctrl-C
            if is_full:
                self._leave_to_thread(new)
            self._worker.wake()
            raise

    def put_all(self, failures: list[Failure]) -> None:
        """
        Takes *failures*, all of entries that take up room in the buffer, for handing over in their order.

        The list is empty afterwards: whatever interrupts, each failure is either there or here.
        """
        queue, pending = self._queue, [_Pending(failure) for failure in failures]
        queue += pending
        del failures[:]
        # Woken once: a thread that takes each as it comes would keep the one that puts them from its work.
        if queue:
            self._worker.wake()

    def hand_over_now(self, entries: list[Entry], failure_of: Callable[[Entry], Failure]) -> None:
        """
        Hands what *failure_of* makes of *entries*, which take up room in the buffer, over in the calling thread.

        The list is empty afterwards: whatever interrupts, each entry is either there or here, and left to the thread.
        """
        all_pending = [_Pending(failure_of(entry), in_backlog=False) for entry in entries]
        try:
            del entries[:]
            for pending in all_pending:
                self._hand_over_now(pending)
        except BaseException:  # Ctrl-C
            self._leave_to_thread(all_pending)
            raise

    def _leave_to_thread(self, all_pending: list[_Pending]) -> None:
        """Puts what no handler has heard of into the queue, and counts the rest."""
        for pending in all_pending:
            if pending.is_told:
                self._settle(pending)
        self._queue += [pending for pending in all_pending if not pending.settled]

    def _hand_over_now(self, pending: _Pending) -> None:
        """
        Hands *pending* over in the calling thread.

        Waits only a moment for a handler that another thread is in: that one may be blocked for good.
        """
        self.resolve()
        lock = getattr(self._handler, "lock", None)
        is_stuck = self._is_stuck()
        patience = _PATIENCE if can_wait() and not is_stuck else 0.0
        if self._handler is not None and not is_stuck and (lock is None or _acquire(lock, patience)):
            try:
                self._hand_over(pending)
            finally:
                if lock is not None:
                    lock.release()
        else:
            self._last_resort(pending, "" if self._handler is None else "the fallback is busy", patience)
            pending.is_told = True
            self._settle(pending)

    def drain(self, deadline: float) -> None:
        """
        Returns when everything is handed over, at the latest at *deadline* (monotonic).

        What the handler would not take by then gets a line on stderr each, as long as that takes no time to speak of, and
        counts as handed over.
        """
        idle = self._idle = Bell()
        while (self._queue or self._current is not None) and time.monotonic() < deadline:
            if self._worker.is_alive or self._turn:
                idle.wait(min(0.05, deadline - time.monotonic()))
            else:
                self._step(deadline)
        stuck, untaken = self._current, self._untaken
        if stuck is not None:
            untaken.append(stuck)
        with suppress(IndexError):  # the thread may take the last one meanwhile
            untaken += islice(taken_from(self._queue), len(self._queue))
        self._show_untaken(tuple(untaken), deadline + _LAST_LINES_TIME)
        for pending in tuple(untaken):
            self._settle(pending)
        self._untaken = [pending for pending in self._untaken if not pending.settled]

    def _show_untaken(self, untaken: Sequence[_Pending], until: float) -> None:
        """Gives each a line on stderr, and one to all that there is no time (*until*, monotonic), or no room, for."""
        hidden = 0
        for number, pending in enumerate(untaken):
            if pending.is_told:  # by a thread that closes, too, or before Ctrl-C
                continue
            pending.is_told = True
            if (number and time.monotonic() >= until) or not self._last_resort(
                pending, "the fallback did not take it in time", patience=0.0
            ):
                hidden += 1
        if hidden:
            self._write(
                f"dis_logging: not delivered: {hidden} more, which the fallback did not take in time and "
                "which there was no time to show\n",
                patience=_LAST_LINES_TIME,  # whoever reads stderr may be behind with the lines before
            )

    def _is_stuck(self) -> bool:
        return bool(self._turn) and self._current is not None and time.monotonic() - self._current_since > _STUCK_AFTER

    def stop(self) -> None:
        """Ends the thread after its current failure."""
        self._tell_untold()
        self._worker.stop()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller is the thread that hands over."""
        return self._worker.is_current_thread

    @property
    def has_waiting(self) -> bool:
        """Whether a failure waits for being handed over; not one that the handler has in hand."""
        return bool(self._queue)

    @property
    def has_thread(self) -> bool:
        """Whether somebody hands over in the background."""
        return self._worker.is_alive

    def hand_over_all(self) -> None:
        """Hands everything over in the calling thread; for when there is no thread to be had."""
        self._step()

    def _step(self, until: float = math.inf) -> None:
        """Hands over what waits until *until* (monotonic), unless another thread is at it: two would mix up the order."""
        me = object()
        try:  # around the claim, which Ctrl-C may follow at once: nobody else gets a turn that does not end
            if self._turn.setdefault("of", me) is me:
                self._hand_over_waiting(until)
        finally:
            if "of" in self._turn and self._turn["of"] is me:
                del self._turn["of"]
                if (self._queue or self._current is not None) and self._worker.is_alive:
                    self._worker.wake()  # it may have found the turn taken

    def _finish_interrupted(self) -> None:
        """Sees to the failure that was in hand when Ctrl-C came: again if the handler has not heard of it."""
        pending = self._current
        if pending is None or pending.settled:
            return
        if pending.is_told:
            self._settle(pending)
        elif not self._queue or self._queue[0] is not pending:
            self._queue.appendleft(pending)

    def _hand_over_waiting(self, until: float) -> None:
        self._finish_interrupted()
        while time.monotonic() < until:
            try:
                self._current_since = time.monotonic()
                self._current = self._queue[0]  # before it leaves the queue: `drain` must find it here or there
                self._current = pending = self._queue.popleft()
            except IndexError:
                self._current = None
                self._idle.ring()
                self._handed_over()
                return
            self._hand_over(pending)
            self._current = None

    def _hand_over(self, pending: _Pending) -> None:
        self.resolve()
        failure, handler = pending.failure, self._handler
        try:
            if handler is None or id(self) in failure.entry[TRAIL]:
                # Its own fallback led back to us: handing it over once more would go round for ever.
                self._last_resort(pending)
                return
            record = failed_record(failure, self._stream_name, id(self))
            run_delivering(lambda: self._give(handler, record, pending), fallback_of=id(self))
        except BaseException as error:
            self._last_resort(pending, f"the fallback raised {type(error).__name__}")
            if not isinstance(error, Exception):
                raise  # Ctrl-C in a thread that hands over by itself
        finally:
            pending.is_told = True
            self._settle(pending)

    def _give(self, handler: logging.Handler, record: logging.LogRecord, pending: _Pending) -> None:
        # Logger.callHandlers checks the level, Handler.handle does not; the user set it for a reason.
        if record.levelno < handler.level:
            return
        if _is_closed_for_good(handler):
            self._last_resort(pending, "the fallback is closed")
        else:
            handler.handle(record)

    def _settle(self, pending: _Pending) -> None:
        if pending.settled:
            return
        failure = pending.failure
        if pending.is_untold:
            is_first = self._ledger.settle_dropped(failure.entry, buffered=failure.buffered, pending=pending)
        else:
            is_first = self._ledger.settle_failed(
                failure.entry, buffered=failure.buffered, code=failure.code, message=failure.message, pending=pending
            )
        if is_first and pending.in_backlog and not failure.buffered:
            size = len(failure.entry[DATA]) + key_bytes(failure.entry)
            self._overflow_entries -= 1
            self._overflow_bytes -= size

    def _last_resort(self, pending: _Pending, why: str = "", patience: float | None = None) -> bool:
        """Writes a line on stderr; with *patience*, only if stderr takes it within so many seconds. Returns whether it did."""
        if not self._is_quiet:
            return self._write(_stderr_line(pending.failure, why), patience)
        if time.monotonic() < self._silent_until:
            pending.is_untold = True
            self._untold += 1
            return True
        self._silent_until = time.monotonic() + _QUIET_SECONDS
        untold, self._untold = self._untold, 0
        why = f"{why}, " * bool(why) + f"as {untold} others since the last line here" * bool(untold)
        return self._write(_stderr_line(pending.failure, why, _QUIET_TEXT), patience)

    def _tell_untold(self) -> None:
        untold, self._untold = self._untold, 0
        if untold:
            self._write(f"dis_logging: not delivered: {untold} others since the last line here\n", patience=0.0)

    @staticmethod
    def _write(line: str, patience: float | None) -> bool:
        try:
            if sys.stderr is not None and (patience is None or _takes_more(sys.stderr, patience)):
                sys.stderr.write(line)
                return True
        except Exception:  # noqa: S110 - stderr is closed, or was interrupted while writing: nobody is left to tell
            pass
        return False


class _Pending:
    """A failure on its way to the handler; settled once, even if two threads give up on it."""

    __slots__ = ("failure", "in_backlog", "is_told", "is_untold", "settled")

    def __init__(self, failure: Failure, *, in_backlog: bool = True) -> None:
        self.failure = failure
        self.is_untold = False  # neither a handler nor stderr has heard of it
        self.in_backlog = in_backlog
        self.is_told = False  # the handler, or stderr in its place, has had it
        self.settled = False


def _acquire(lock: Any, patience: float) -> bool:
    """Returns whether *lock* could be had within so many seconds."""
    # gevent's lets others have their turn before it finds that it has no time, which its hub cannot.
    acquired: bool = lock.acquire(timeout=patience) if patience else lock.acquire(blocking=False)
    return acquired


def _is_closed_for_good(handler: logging.Handler) -> bool:
    """
    Returns whether *handler* is a file that says nothing and writes nothing, as opening it again would empty it.

    `logging.shutdown`, and dictConfig with it, closes a fallback before us if it was made after us. Other files are opened
    again by the next record.
    """
    return (
        isinstance(handler, logging.FileHandler)
        and handler.mode == "w"
        and handler.stream is None
        and getattr(handler, "_closed", False)
    )


def _takes_more(stream: TextIO, patience: float) -> bool:
    """Returns whether *stream* can be written to without waiting for whoever should read it: a full pipe cannot."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not a file of the system, such as a test's
        return True
    return bool(select_here()([], [descriptor], [], patience)[1])


class FailedRecord(logging.LogRecord):
    """
    A record that was given up, for the fallback.

    Attributes:
        dis_data: what should have been sent, byte for byte; the message has it as text. In a slot, because formatters and
            handlers that take all of a record's ``__dict__`` would show, or send, the message twice.
    """

    __slots__ = ("dis_data",)
    dis_data: bytes


def failed_record(failure: Failure, stream_name: str, handler_id: int) -> FailedRecord:
    """Returns the record that a fallback gets: the original's origin, the formatted text, and the reason."""
    entry = Fields(*failure.entry)
    record = FailedRecord(
        entry.name, entry.levelno, entry.pathname, entry.lineno, _text(entry), None, None, entry.function
    )
    created = created_of(failure.entry)
    if created is not None:
        record.relativeCreated += (created - record.created) * 1000
        record.created = created
        record.msecs = int((created - int(created)) * 1000) + 0.0  # whole, as logging makes them
    record.threadName = entry.thread_name
    record.thread = None
    record.dis_data = entry.data
    record.dis_error_code = failure.code
    record.dis_error_message = failure.message
    record.dis_stream_name = stream_name
    record.dis_partition_key = entry.partition_key
    record.dis_attempts = failure.attempts
    record.dis_outcome_unknown = failure.outcome_unknown
    record.dis_trail = (*entry.trail, handler_id)
    return record


def _stderr_line(failure: Failure, why: str, limit: int | None = None) -> str:
    entry = Fields(*failure.entry)
    reason = failure.code + (f" ({failure.message})" if failure.message else "") + (f", {why}" if why else "")
    level = logging.getLevelName(entry.levelno)
    text = escape(_text(entry), limit)
    return f"dis_logging: not delivered: {escape(reason)}: {escape(entry.name)} {level}: {text}\n"


def _text(entry: Fields) -> str:
    return entry.data.decode("utf-8", "replace")


# -- the four forms of the option -----------------------------------------------------------------------------------


def find_fallback(option: Any, owner: logging.Handler) -> FallbackLookup:
    """
    Returns how to get the handler that the option *fallback* means.

    Args:
        option: None (stderr), a handler, the name of one, what `dictConfig` makes of ``cfg://handlers.x``, or the
            configuration of one.
        owner: the handler that the option belongs to; being its own fallback means stderr.

    Raises:
        ConfigurationError: the option is none of these, or the handler it describes cannot be made.
    """
    find = _find(option)
    myself = weakref.ref(owner)

    def lookup() -> logging.Handler | None:
        handler = find()
        return None if handler is myself() else handler

    return lookup


def _find(option: Any) -> FallbackLookup:
    if option is None or isinstance(option, logging.Handler):
        return lambda: option
    if isinstance(option, str):
        return _find_by_name(options.text("fallback", option))
    if isinstance(option, Mapping):
        return _find_unbuilt(option) or _build(option)
    raise ConfigurationError(
        f"fallback must be a handler, the name of one, or the configuration of one, not {options.shown(option)}"
    )


def _find_by_name(name: str) -> FallbackLookup:
    # Within dictConfig or fileConfig the handler may be built after us and be held by nobody, so its place in the
    # configuration is better than its name. Nothing tells a constructor that it runs in there but its callers.
    handlers = _handlers_being_configured()
    if handlers is not None and name in handlers:
        return lambda: _built(handlers.get(name))
    handler = _handler_named(name)
    if handler is None:
        raise ConfigurationError(
            f"fallback: there is no handler named {options.shown(name)}; give the name of one in the same configuration, or "
            "a handler, such as logging.FileHandler, itself"
        )
    return lambda: handler


def _handler_named(name: str) -> logging.Handler | None:
    by_name: Callable[[str], logging.Handler | None] | None = getattr(logging, "getHandlerByName", None)  # 3.12
    found: logging.Handler | None = by_name(name) if by_name else vars(logging)["_handlers"].get(name)
    return found


def _handlers_being_configured() -> dict[str, Any] | None:
    config = sys.modules.get("logging.config")
    if config is None:
        return None
    frame = sys._getframe()  # noqa: SLF001 - the only way to see who calls
    while frame is not None:
        local = frame.f_locals
        if frame.f_code.co_name == "configure" and isinstance(local.get("self"), config.DictConfigurator):
            handlers = local["self"].config.get("handlers")
            return handlers if isinstance(handlers, dict) else None
        if frame.f_code.co_name == "_install_handlers" and frame.f_globals.get("__name__") == "logging.config":
            named = dict.fromkeys(name.strip() for name in local["cp"]["handlers"]["keys"].split(","))
            return _FileConfigHandlers(named, local["handlers"])
        frame = frame.f_back  # type: ignore[assignment] # the outermost frame has none
    return None


class _FileConfigHandlers(dict[str, Any]):
    """The handlers that a fileConfig file names, looked up among those it has built so far."""

    def __init__(self, named: Mapping[str, None], built: Mapping[str, logging.Handler]) -> None:
        super().__init__(named)
        self._built = built

    def get(self, name: str, default: Any = None) -> Any:
        return self._built.get(name, default)


def _find_unbuilt(option: Mapping[str, Any]) -> FallbackLookup | None:
    """Returns how to get the handler that ``cfg://handlers.x`` stands for while it is not built, else None."""
    configurator = getattr(option, "configurator", None)
    handlers = getattr(configurator, "config", {}).get("handlers")
    if not isinstance(handlers, dict):
        return None
    # The reference arrives as the very dictionary that configures the other handler. dictConfig will put the
    # handler in its place.
    name = next((name for name, value in dict.items(handlers) if value is option), None)
    return None if name is None else lambda: _built(dict.get(handlers, name))


def _built(value: Any) -> logging.Handler | None:
    return value if isinstance(value, logging.Handler) else None


def _build(option: Mapping[str, Any]) -> FallbackLookup:
    from logging.config import DictConfigurator  # pulls in socketserver, and few users need it

    configurator = getattr(option, "configurator", None) or DictConfigurator({"version": 1})
    try:
        handler: logging.Handler = configurator.configure_handler(dict(option))
    except Exception as error:
        kind = option.get("class") or option.get("()")
        raise ConfigurationError(
            f"fallback: {options.shown(kind) if isinstance(kind, str) else 'the handler'} cannot be made ({options.reason(error)})"
        ) from None
    if not isinstance(handler, logging.Handler):
        raise ConfigurationError(f"fallback: its configuration makes a {type(handler).__name__}, not a handler")
    return lambda: handler
