"""Joins the stages from the buffer to the verdict, and gives them the life of a handler: put, flush, close, fork."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from dis_logging.greenlets import are_threads_greenlets, can_wait
from dis_logging.pipeline import lifecycle, reentry
from dis_logging.pipeline.batching import BatchLimits
from dis_logging.pipeline.buffer import Buffer, OverflowPolicy
from dis_logging.pipeline.delivery import Delivery
from dis_logging.pipeline.entry import Entry, Failure, FailureReason, Verdict
from dis_logging.pipeline.fallback import Fallback, FallbackLookup
from dis_logging.pipeline.health import Health
from dis_logging.pipeline.retry import RetryPolicy
from dis_logging.pipeline.stats import Epoch, HandlerStats, Ledger
from dis_logging.pipeline.worker import Worker

# How long a thread that flushes leaves the sending to the worker before it helps. The worker cannot send while the
# flushing thread holds logging's module lock (dictConfig) and the HTTP library's loggers have cold level caches.
_PATIENCE = 0.05
_RETIREMENT_POLL = 0.5
# An entry, and the failure it may become, takes about so much beside its payload; more with a key of its own that is not
# counted by its length, and with a routing. It may take that from so much beside the buffer's bytes.
_ENTRY_BYTES = 360
_KEY_BYTES = 160
_ROUTING_BYTES = 280
_SPARE_BYTES = 8 * 1024 * 1024
# How long a further sender stays when there is no backlog: a burst has many.
_SENDER_IDLE = 1.0
_CLOSED = "the handler was closed"
# What close may take beyond shutdown_timeout for the last records to reach the fallback.
_HANDOVER_TIME = 0.1
# What a fallback takes to begin with (of a short shutdown_timeout that share) and for one record, on a slow or a busy machine.
# The end leaves it the time for what still waits, up to a half of shutdown_timeout, or nearly all of it after a request that
# failed: what it does not get by then is on stderr only, and what it has in hand at that moment is there as well.
_HANDOVER_START = 0.2
_HANDOVER_START_SHARE = 0.1
_HANDOVER_SECONDS = 200e-6
_HANDOVER_SHARE = 0.5
_HANDOVER_SHARE_IN_TROUBLE = 0.9
# What it takes to give up a record without the fallback, on a slow machine. What this is beyond _GIVING_UP_TIME, for more than
# 20,000 records, comes off the fallback's time, up to a half of shutdown_timeout.
_GIVING_UP_SECONDS = 10e-6
_GIVING_UP_TIME = 0.2
_GIVING_UP_SHARE = 0.5

# The loggers that are asked for their level while a batch is sent. Asking them before a batch is claimed fills their
# caches, so that the thread that has one does not stop for logging's module lock.
_DELIVERY_LOGGERS = [
    logging.getLogger(name) for name in ("urllib3.connectionpool", "urllib3.util.retry", "urllib3", "dis_logging")
]


if TYPE_CHECKING:
    from dis_logging.pipeline.delivery import Sender

    class ClosableSender(Sender, Protocol):
        """A sender that holds connections."""

        def close(self) -> None: ...


class PipelineOptions:
    """
    The options of `DISHandler` that the pipeline obeys, checked.

    No NamedTuple: to make one of so many fields would be a twentieth of the package's import.
    """

    def __init__(
        self,
        *,
        stream_name: str,
        limits: BatchLimits,
        flush_interval: float,
        flush_level: int,
        max_buffer_records: int,
        max_buffer_bytes: int,
        overflow: OverflowPolicy,
        block_timeout: float,
        shutdown_timeout: float,
        policy: RetryPolicy,
        max_in_flight: int,
        has_own_keys: bool,
        has_routing: bool,
        is_quiet: bool,
        on_verdict: Callable[[Verdict], object] | None,
    ) -> None:
        self.stream_name = stream_name
        self.limits = limits
        self.flush_interval = flush_interval
        self.flush_level = flush_level
        self.max_buffer_records = max_buffer_records
        self.max_buffer_bytes = max_buffer_bytes
        self.overflow = overflow
        self.block_timeout = block_timeout
        self.shutdown_timeout = shutdown_timeout
        self.policy = policy
        self.max_in_flight = max_in_flight
        self.has_own_keys = has_own_keys
        self.has_routing = has_routing
        self.is_quiet = is_quiet
        self.on_verdict = on_verdict


class Pipeline:
    """
    Takes entries and sees each of them to one verdict.

    All methods may be called from any thread; `put` also from signal handlers and destructors.
    Nothing is started before the first entry.
    """

    def __init__(self, options: PipelineOptions, sender: ClosableSender, fallback: FallbackLookup) -> None:
        self.shutdown_timeout = options.shutdown_timeout
        self._options = options
        self._sender = sender
        self._worker = Worker("dis_logging-sender", self._step)
        self._senders = [
            self._worker,
            *(
                Worker(f"dis_logging-sender-{number}", self._assist, _SENDER_IDLE)
                for number in range(2, options.max_in_flight + 1)
            ),
        ]
        self._fallback = Fallback(
            fallback, options.stream_name, Ledger(), is_quiet=options.is_quiet, handed_over=self._look_at_health_soon
        )
        self._set_up()
        lifecycle.know(self)

    def _set_up(self) -> None:
        options = self._options
        #: Where a new entry gets its epoch; a plain attribute, as every logging call reads it.
        self.ledger = Ledger(options.on_verdict)
        self._health = Health(options.stream_name, self.ledger)
        self._started = False
        self._closed = False
        self._closer: int | None = None  # the thread in which close delivers what came before it
        self._first_late_epoch = math.inf  # entries from this epoch on are not that thread's business
        self._retired = False
        self._fallback.reset_after_fork(self.ledger)
        self._buffer = Buffer(
            self.ledger,
            # Short records take more memory than their payload says; this keeps them within what is promised.
            max_records=min(
                options.max_buffer_records, (options.max_buffer_bytes * 5 // 2 + _SPARE_BYTES) // _entry_bytes(options)
            ),
            max_bytes=options.max_buffer_bytes,
            policy=options.overflow,
            block_timeout=options.block_timeout,
            flush_level=options.flush_level,
            wake=self._wake,
            overflow=self._take_overflow,
        )
        #: Accepts one entry; see `Buffer.put`.
        self.put: Callable[..., None] = self._buffer.put
        self._delivery = Delivery(
            sender=self._sender,
            stream_name=options.stream_name,
            buffer=self._buffer,
            ledger=self.ledger,
            fail=self._fallback.put_all,
            policy=options.policy,
            limits=options.limits,
            # A buffer that is smaller than two batches must not fill up while it waits for a whole one.
            enough=BatchLimits(
                # How many entries make the DIS records of an aggregated batch is not known before; bytes decide.
                min(
                    options.max_buffer_records if options.limits.aggregate_bytes else options.limits.max_records,
                    max(1, options.max_buffer_records // 2),
                ),
                min(options.limits.max_bytes, max(1, options.max_buffer_bytes // 2)),
            ),
            flush_interval=options.flush_interval,
            max_in_flight=options.max_in_flight,
            more=self._wake_another_sender,
        )
        #: The process it is set up for, 0 while that forks; last, as another thread may look.
        self.pid = os.getpid()

    def notice_fork(self) -> None:
        """Starts over if this is another process by now."""
        if self.pid != os.getpid():
            lifecycle.notice_fork()

    # -- entries in -------------------------------------------------------------------------------------------------

    def reject(self, entry: Entry, reason: FailureReason, message: str) -> None:
        """Hands an entry that can never be sent straight to the fallback."""
        self._start_up()
        self._fallback.put(Failure(entry, reason.value, message, 0, outcome_unknown=False, buffered=False))

    def stats(self) -> HandlerStats:
        """Returns the counters at this moment."""
        self.notice_fork()
        return self.ledger.snapshot(self._buffer.oldest_age())

    @property
    def waiting(self) -> int:
        """How many entries take up room in the buffer."""
        return self.ledger.entries_in - self.ledger.entries_out

    def describe(self) -> str:
        """Returns its state in a few words."""
        return "closed" if self._closed else self._delivery.describe()

    def _take_overflow(self, entry: Entry) -> None:
        message = (
            f"the buffer is full ({self._options.max_buffer_records} records or {self._options.max_buffer_bytes} bytes)"
        )
        self._start_up()
        if not self._worker.is_alive and not self._closed:
            self._worker.wake()  # there was no thread to be had when the buffer filled up
        self._fallback.put(
            Failure(entry, FailureReason.OVERFLOW.value, message, 0, outcome_unknown=False, buffered=False)
        )

    def _wake(self, key: str | None = None) -> None:
        if self._closed:
            self._take_late_entries()
        else:
            self._start_up()
            is_in_vain = self._delivery.seems_in_vain(key)
            if is_in_vain and self._delivery.postpone_alarm():
                return
            self._worker.wake()
            # Perhaps it is the worker that sends, and what came cannot wait for it.
            if not is_in_vain and self._delivery.is_sending and self._buffer.queue:
                self._wake_another_sender()

    def _wake_another_sender(self) -> None:
        if self._closed:  # the thread that closes sends what is left
            return
        free = next((sender for sender in self._senders if sender.is_free), None)
        # Without one all of them: one that has just found nothing may be about to wait.
        for sender in self._senders if free is None else [free]:
            sender.wake()

    def _start_up(self) -> None:
        if not self._started:
            self._started = True
            # By the first record dictConfig has built all handlers; from now on we hold ours.
            self._fallback.resolve()
            lifecycle.register(self)

    # -- the worker -------------------------------------------------------------------------------------------------

    def _step(self) -> float | None:
        _warm_level_caches()
        wait = self._delivery.send_due()
        look_again = self._health.look()
        if look_again is not None:
            wait = look_again if wait is None else min(wait, look_again)
        if self._retired and not self._closed:
            if self.stats().buffered == 0:
                self._close(time.monotonic())
            return _RETIREMENT_POLL  # the fallback's verdicts do not wake this thread
        return wait

    def _assist(self) -> float | None:
        """Sends beside the worker while there is a backlog."""
        _warm_level_caches()
        before, wait = self.ledger.requests, None
        try:
            wait = self._delivery.send_due()
        finally:
            # It made its plan before this. What came meanwhile, and found the alarm set for later, may be in none but ours.
            if (self.ledger.requests != before or wait is not None) and not self._closed:
                self._worker.wake()
        return wait if self._delivery.is_sending else None

    def _look_at_health_soon(self) -> None:
        if self._worker.is_alive and not self._closed:
            self._worker.wake()

    # -- flush and close --------------------------------------------------------------------------------------------

    def flush(self, deadline: float, *, is_end: bool = False) -> bool:
        """
        Returns True once every entry accepted before the call has its verdict, False at *deadline* (monotonic).

        From a thread that delivers (a fallback that flushes), which would wait for itself, and from gevent's hub, which cannot
        wait, it returns False at once.

        Args:
            is_end: what is left will be given up by *deadline*, so leave the fallback the time to take it.
        """
        self.notice_fork()
        if self._may_not_wait():
            return False
        return self._finish(self.ledger.next_epoch(), deadline, self._wake, is_end=is_end)

    def _finish(self, epochs: list[Epoch], deadline: float, wake: Callable[[], None], *, is_end: bool = True) -> bool:
        """Makes everything due and waits for *epochs* to be settled; returns False when the time is up."""
        if _are_settled(epochs):
            return True
        # Before the answer to what is in flight comes in: the caller may hold logging's module lock all the while.
        _warm_level_caches()
        delivery = self._delivery  # a signal handler may fork, and the child has another
        try:
            delivery.demands += 1
            with self.ledger.bell() as bell:
                wake()
                progress, moved_at = self._progress(epochs), time.monotonic()
                while not _are_settled(epochs):
                    now = time.monotonic()
                    latest = deadline - self._handover_time() if is_end else deadline
                    if now >= latest:
                        return False
                    if progress != self._progress(epochs):
                        progress, moved_at = self._progress(epochs), now
                    if (not self._worker.is_alive or now - moved_at > _PATIENCE) and self._help(latest):
                        progress = self._progress(epochs)  # what this thread does says nothing of the worker
                        continue
                    bell.wait(min(_PATIENCE, latest - now))
        finally:
            delivery.demands -= 1
        return True

    def _progress(self, epochs: list[Epoch]) -> tuple[int, int]:
        """Changes with whatever the worker does for *epochs*; not with what other threads log and hand over meanwhile."""
        return self.ledger.requests, sum(epoch.settled for epoch in epochs)

    def _handover_time(self) -> float:
        """Returns the seconds that the fallback may need for what waits now."""
        start = min(_HANDOVER_START, self.shutdown_timeout * _HANDOVER_START_SHARE)
        share = _HANDOVER_SHARE_IN_TROUBLE if self._delivery.is_in_trouble else _HANDOVER_SHARE
        return min(start + lifecycle.waiting_to_end(self) * _HANDOVER_SECONDS, self.shutdown_timeout * share)

    def _giving_up_time(self) -> float:
        """Returns the seconds by which the fallback must be done earlier, for what it will not have taken by then."""
        seconds = lifecycle.waiting_to_end(self) * _GIVING_UP_SECONDS - _GIVING_UP_TIME
        return min(max(0.0, seconds), self.shutdown_timeout * _GIVING_UP_SHARE)

    def _may_not_wait(self) -> bool:
        """Returns whether the calling thread is one that this pipeline's verdicts wait for, or may not wait at all."""
        if self._fallback.is_current_thread or self._is_sender():
            return True
        state = reentry.inside.get(threading.get_ident())
        is_handing_over = state is not None and state.delivering and id(self._fallback) in state.trail
        return is_handing_over or not can_wait()

    def _is_sender(self) -> bool:
        return any(sender.is_current_thread for sender in self._senders)

    def _interrupts_greenlets(self) -> bool:
        """Returns whether the caller is gevent's hub, or a signal handler in a greenlet that sends, as none is in a thread."""
        return not can_wait() or (are_threads_greenlets() and self._is_sender())

    def _help(self, deadline: float) -> bool:
        """Does in the calling thread what the worker does not get to; returns whether there was anything."""
        _warm_level_caches()
        if not self._fallback.has_thread:
            self._fallback.hand_over_all()
        helped = True
        try:
            helped = self._delivery.send_one(deadline)
        finally:  # Ctrl-C may end the attempt, and its batch must go again
            # It made its plan before this, which may have set the alarm for later just as an entry came.
            if (helped or self._buffer.queue) and not self._closed:
                self._worker.wake()
        return helped

    def begin_flush(self) -> None:
        """Makes the worker send everything that is there now; returns at once."""
        self._buffer.urgent = True
        self._wake()

    def settle(self, deadline: float) -> None:
        """Gives every entry its verdict by *deadline* (monotonic); what cannot be sent by then goes to the fallback."""
        self._settle(deadline, self._wake)
        if self._retired and not self._closed:  # nobody else will
            self._close(deadline)

    def _settle(self, deadline: float, wake: Callable[[], None]) -> None:
        is_finished = False
        try:
            is_finished = self._finish(self.ledger.next_epoch(), deadline, wake)
        finally:  # Ctrl-C may end the waiting, but then nothing more may follow
            if not is_finished:
                self._delivery.abandon("the process ended")
            self._fallback.drain(deadline + _HANDOVER_TIME - self._giving_up_time())

    def close(self, deadline: float) -> None:
        """
        Settles everything by *deadline* (monotonic) and ends the threads; a later entry goes to the fallback.

        Called again it waits for the thread that closes, unless that waits for the calling one, and then takes what has come
        since. Where gevent lets the caller wait for nothing it is closed in the background, once everything is settled.
        """
        self.notice_fork()
        if self._started and not self._closed and self._interrupts_greenlets():
            self.retire()
            return
        self._close(deadline)

    def _close(self, deadline: float) -> None:
        if self._closed:
            self._wait_for_closer(deadline)
            if self._closer is None:
                self._take_late_entries()
                if self._fallback.has_waiting and not self._may_not_wait():
                    self._fallback.drain(deadline)  # Ctrl-C has left it to its thread
            return
        try:
            with ExitStack() as last:  # closing goes on, whatever one step raises; the last step comes first
                last.callback(lifecycle.forget, self)
                last.callback(self._sender.close)
                last.callback(self._fallback.stop)
                for worker in self._senders:
                    last.callback(worker.stop)
                last.callback(self._give_up_interrupted)
                last.callback(self._give_up_rest, deadline)
                last.callback(self._finish_latest, deadline)
                self.flush(deadline, is_end=True)
        finally:
            self._closer = None

    def _wait_for_closer(self, deadline: float) -> None:
        if self._closer == threading.get_ident() or self._may_not_wait():
            return
        with self.ledger.bell() as bell:
            # Not once all have their verdicts: it may need logging's module lock, which dictConfig holds around this.
            while self._closer is not None and self.stats().buffered and (remaining := deadline - time.monotonic()) > 0:
                bell.wait(min(_PATIENCE, remaining))

    def _finish_latest(self, deadline: float) -> None:
        """Takes no more, and sees to what other threads emitted since the flush: reported in flight, it would be doubled."""
        self._closer = threading.get_ident()
        self._closed = True
        self._buffer.wake_always()
        epochs = self.ledger.next_epoch()
        self._first_late_epoch = self.ledger.epoch
        if not self._may_not_wait():
            self._finish(epochs, deadline, self._worker.wake)

    def _give_up_rest(self, deadline: float) -> None:
        self._delivery.end_background()
        self._delivery.abandon(_CLOSED, in_flight=False)
        self._first_late_epoch = 0  # what others have left to this thread until now is abandoned by the next call
        if self._may_not_wait():
            self._delivery.abandon(_CLOSED)
            return
        with self.ledger.bell() as bell:
            while self._delivery.abandon(_CLOSED, in_flight=False):
                remaining = deadline - self._giving_up_time() - time.monotonic()
                if remaining <= 0:
                    self._delivery.abandon(_CLOSED)
                    break
                bell.wait(min(_PATIENCE, remaining))
        self._fallback.drain(deadline + _HANDOVER_TIME - self._giving_up_time())

    def _give_up_interrupted(self) -> None:
        """Sees to what Ctrl-C has left; nothing otherwise."""
        self._first_late_epoch = 0
        if self.stats().buffered and not self._may_not_wait():
            self._delivery.abandon(_CLOSED)
            self._fallback.drain(time.monotonic() + _HANDOVER_TIME)

    def retire(self) -> None:
        """Closes as soon as everything has its verdict: the handler is gone, its records are not."""
        self._retired = True
        if self._started and not self._closed:
            self.begin_flush()

    def _take_late_entries(self) -> None:
        """
        Deals with entries that came after `close`: sends them if the process is ending, else reports them.

        While a thread closes, reports only the newest: the rest is that thread's.
        """
        if lifecycle.is_exiting() and not sys.is_finalizing() and not self._may_not_wait():
            deadline = lifecycle.budget.deadline(self.shutdown_timeout)
            started = time.monotonic()
            self._settle(deadline, _nobody)
            self._sender.close()
            lifecycle.budget.charge(started)
        entries: list[Entry] = []
        try:
            if self._closer is not None and not lifecycle.is_exiting():
                self._buffer.take_newest(self._first_late_epoch, entries)
            else:
                self._delivery.take_rest(entries)
            self._fallback.hand_over_now(entries, _late_failure)
        except BaseException:  # Ctrl-C; a thread sees to the rest
            self._fallback.put_all([_late_failure(entry) for entry in entries])
            self._fallback.stop()
            raise

    def reset_after_fork(self) -> None:
        """Starts over in a child process: nothing buffered, nothing counted, no thread, its own locks."""
        if self.pid == os.getpid():
            if self._started:
                lifecycle.register(self)
            return
        for worker in self._senders:
            worker.reset_after_fork()
        self._set_up()


def _entry_bytes(options: PipelineOptions) -> int:
    return _ENTRY_BYTES + _KEY_BYTES * options.has_own_keys + _ROUTING_BYTES * options.has_routing


def _late_failure(entry: Entry) -> Failure:
    return Failure(entry, FailureReason.CLOSED.value, "the handler is closed", 0, outcome_unknown=False, buffered=True)


def _nobody() -> None:
    """Wakes nobody: the calling thread does the work itself."""


def _are_settled(epochs: list[Epoch]) -> bool:
    return all(epoch.is_settled for epoch in epochs)


def _warm_level_caches() -> None:
    for logger in _DELIVERY_LOGGERS:
        logger.isEnabledFor(logging.DEBUG)
