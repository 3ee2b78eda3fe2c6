"""
Takes batches to their verdicts: what to send next, the attempt, what must go again, and who gets the rest.

Nothing in here sleeps. A batch that must wait for its retry is set aside with its keys, and the entries of other keys go on;
an error that concerns the whole service closes the gate for all of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeAlias

from dis_logging.client.models import PutRecordsResultEntry, Refusals
from dis_logging.client.transport import Patience
from dis_logging.errors import DeliveryError, ServiceError, UnknownOutcomeError
from dis_logging.pipeline.aggregation import join
from dis_logging.pipeline.batching import BatchLimits, take_batch
from dis_logging.pipeline.buffer import Buffer
from dis_logging.pipeline.entry import KEY, Entry, Failure, FailureReason, key_of
from dis_logging.pipeline.pace import Pace, cost_among_others, cost_of
from dis_logging.pipeline.reentry import run_delivering
from dis_logging.pipeline.retry import (
    MAX_LONE_REFUSALS,
    MAX_RETRY_AFTER,
    Reaction,
    RetryPolicy,
    RetryState,
    failure_code,
    failure_message,
    is_outcome_unknown,
    is_throttled,
    reaction_to_code,
    reaction_to_error,
)
from dis_logging.pipeline.stats import Acknowledged, Ledger

if TYPE_CHECKING:
    from dis_logging.client.wire import WireEntry

# The keys of so many of the entries that wait are looked at as a batch is claimed.
_BACKLOG_SEEN = 500
# How often an attempt that is interrupted again and again is to be brought to its end before it is let go. Made here, as
# Ctrl-C might come upon the call.
_TRIALS = range(10)
# A thread that waits for an answer looks no more often than this whether others have something to send meanwhile, seconds.
_SHORTEST_PATIENCE = 0.1


if TYPE_CHECKING:

    class Sender(Protocol):
        """What the pipeline needs of a client: one attempt, which returns the refused entries by their index."""

        def send(
            self, stream_name: str, entries: Sequence[WireEntry], timeout: float, patience: Patience
        ) -> Refusals: ...


class _Part:
    """Entries that go in one request, and what earlier attempts with them came to."""

    __slots__ = ("attempts", "entries", "outcome_unknown")

    def __init__(self, entries: list[Entry], attempts: int = 0, outcome_unknown: bool = False) -> None:
        self.entries = entries
        self.attempts = attempts
        self.outcome_unknown = outcome_unknown


class _Batch:
    """
    The parts of one batch, sent one after the other, and the keys that wait until the last one has its verdict.

    Starts with one part; a refusal of the whole request splits it.
    """

    __slots__ = ("abandoned", "error", "failures", "is_sending", "keys", "not_before", "parts", "retry", "sent_at")

    def __init__(self, entries: list[Entry], retry: RetryState) -> None:
        self.failures: list[Failure] = []  # given up, and on their way to the fallback
        self.sent_at = 0.0  # when its latest attempt began
        self.parts = deque([_Part(entries)])
        self.keys = set(map(key_of, entries))
        self.retry = retry
        self.not_before = 0.0
        self.error: DeliveryError | None = None  # what the next attempt is for
        self.is_sending = False
        self.abandoned = False


class _Attempt:
    """
    How far one thread has come with one batch, so that it can be brought to an end when Ctrl-C comes in between.

    What changes hands does so in assignments that follow each other without a call: the interpreter lets no signal handler
    run there (see `Ledger`).
    """

    __slots__ = (
        "acknowledged",
        "again",
        "batch",
        "error",
        "groups",
        "is_answered",
        "is_judged",
        "is_over",
        "is_released",
        "part",
        "refused",
    )

    def __init__(self) -> None:
        self.batch: _Batch | None = None  # None while there is none to send
        self.part: _Part | None = None
        self.refused = Refusals()
        self.groups: Sequence[Sequence[int]] | None = None
        self.error: DeliveryError | None = None
        self.is_answered = False  # refused and groups, or the error, are known
        self.acknowledged: Acknowledged | None = None  # what DIS took
        self.again: _Again | None = None  # what it may take later
        self.is_judged = False  # every entry of the part has gone where the answer sends it
        self.is_released = False  # the batch is free for the next attempt, perhaps of another thread
        self.is_over = False


#: Why a part of a batch goes again, whether the rest got through, and how long it must wait at least, in seconds.
_Again: TypeAlias = tuple[DeliveryError, bool, float]


class Delivery:
    """
    Sends what is due, one attempt at a time in each thread that asks it to.

    Ctrl-C, or what else a signal handler raises in a thread that flushes, leaves every entry in the buffer, in a batch, on
    its way to the fallback, or settled.

    `send_due` and `send_one` may be called from several threads; `max_in_flight` bounds how many of them send at once, and
    a key is never in two requests. Several send only to a service that took the last request, so that trouble costs one
    request and not as many as there are senders. The lock guards the batches, the gate, the circuit and the pace; it is
    never held while sending or handing over, and no emitting thread ever takes it.

    Args:
        sender: makes one attempt.
        stream_name: where to.
        buffer: where entries come from.
        ledger: where verdicts are counted.
        fail: takes the failures out of a list; returns at once.
        policy: the retry rules.
        limits: of one batch.
        enough: what is due at once, without waiting for company; at most a batch.
        flush_interval: seconds that an entry waits for company at most.
        max_in_flight: requests at once.
        more: called when there is a backlog that another thread could send from meanwhile.
    """

    def __init__(
        self,
        *,
        sender: Sender,
        stream_name: str,
        buffer: Buffer,
        ledger: Ledger,
        fail: Callable[[list[Failure]], None],
        policy: RetryPolicy,
        limits: BatchLimits,
        enough: BatchLimits,
        flush_interval: float,
        max_in_flight: int,
        more: Callable[[], None],
    ) -> None:
        self._sender = sender
        self._stream_name = stream_name
        self._buffer = buffer
        self._ledger = ledger
        self._fail = fail
        self._policy = policy
        self._limits = limits
        self._enough = enough
        self._flush_interval = flush_interval
        self._max_in_flight = max_in_flight
        self._more = more
        self._look_at = 0.0  # whether there is anything to do while an answer is slow to come is not looked at before
        self._patience = Patience(max(_SHORTEST_PATIENCE, flush_interval), self._look_meanwhile)
        self._pace = Pace(time.monotonic, cost_among_others if limits.aggregate_bytes else cost_of)
        self._locks: dict[str, AbstractContextManager[object]] = {}  # one, see `_lock`
        self._batches: list[_Batch] = []  # claimed, and without a verdict for all of their entries
        self._busy_keys: set[str] = set()  # of those batches
        self._orphans: list[list[Entry]] = []  # taken for a batch that an interrupt kept from being made
        self._has_background = True  # until end_background
        self._has_abandoned = False  # orphans are left to a further call of abandon
        self._linger_until: float | None = None  # when what waits in the buffer is due
        self._trouble = ""  # why the last request failed as a whole; empty since one did not
        self._trouble_since = 0.0
        self._is_trusted = False  # the last request got an answer
        self._gate_until = 0.0  # nothing is sent before, after an error of the whole service
        self._circuit = policy.new_circuit()
        self._lone_refusals = 0
        #: How many flushes are under way, for which everything is due. Raised and lowered by a plain ``+=``, as Ctrl-C upon
        #: a call could leave one too many for good.
        self.demands = 0

    @property
    def _lock(self) -> AbstractContextManager[object]:
        # Made when it is first needed, as gevent may have replaced the locks since the handler was made.
        return self._locks.get("") or self._locks.setdefault("", threading.RLock())

    # -- what the threads call --------------------------------------------------------------------------------------

    def send_due(self) -> float | None:
        """
        Sends everything that is due and returns the seconds until more may be, None meaning until woken.

        For threads in the background.
        """
        while self.send_one(in_background=True):
            pass
        return self._plan()

    def end_background(self) -> None:
        """Lets `send_due` take up nothing more: what comes from now on is for the threads that it comes from."""
        with self._lock:
            self._has_background = False

    def send_one(self, deadline: float | None = None, *, in_background: bool = False) -> bool:
        """
        Sends one batch if one is due; returns whether it did.

        Args:
            deadline: monotonic time by which the attempt must end, earlier than *request_timeout* allows.
            in_background: not after `end_background`.
        """
        attempt = _Attempt()
        try:
            if self._claim(attempt, in_background):
                self._more()
            batch, part = attempt.batch, attempt.part
            if batch is None or part is None:
                return False
            if not batch.abandoned:
                self._send(attempt, batch, part, deadline)
        finally:
            try:
                try:
                    self._bring_to_an_end(attempt)
                except BaseException:  # a signal came before the first trial, or between two
                    self._bring_to_an_end(attempt)
                    raise
            except BaseException:  # and so did a second one; if not, all is at its end
                self._bring_to_an_end(attempt)
                raise
        return True

    def _bring_to_an_end(self, attempt: _Attempt) -> None:
        """Settles *attempt*, whatever comes in between, which is raised afterwards."""
        interrupt: BaseException | None = None
        for _ in _TRIALS:
            if attempt.batch is None or attempt.is_over:
                break
            try:
                self._settle(attempt, attempt.batch)
            except BaseException as error:  # Ctrl-C, or a defect; what it came upon must be brought to an end
                interrupt = error
        else:
            self._let_go(attempt)
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                interrupt = None  # else its traceback and this frame would keep each other alive

    @property
    def is_in_trouble(self) -> bool:
        """Whether the last request failed as a whole."""
        return bool(self._trouble)

    @property
    def is_sending(self) -> bool:
        """Whether a request is under way."""
        return self._ledger.sending > 0

    def seems_in_vain(self, key: str | None = None) -> bool:
        """
        Returns whether it seems that all that waits must wait for the only key in flight, *key* included.

        Whoever made the request looks again after it, and at all of them while the answer is slow to come. Where several keys
        wait, a sender sorts them, so that their next batches can go at once. For the threads that emit; takes no lock.
        """
        busy_keys = self._busy_keys
        return (
            self._ledger.sending > 0
            and len(busy_keys) == 1
            and (key is None or key in busy_keys)
            and self._buffer.seems_to_hold_only(busy_keys)
        )

    def postpone_alarm(self) -> bool:
        """Lets the buffer go on without waking anybody; returns False if the request under way has ended meanwhile."""
        return self._buffer.wake_after(self._enough.max_records, self._enough.max_bytes)

    def abandon(self, reason: str, *, in_flight: bool = True) -> bool:
        """
        Gives up everything that has no verdict yet, for a *reason*; an answer that still comes is ignored.

        Without *in_flight* it leaves what is being sent alone and returns whether there was any.
        """
        with self._lock:
            trouble = f"; the last attempt failed: {self._trouble}" if self._trouble else ""
            self._has_abandoned = True
            self._adopt_orphans()
            self._take(self._buffer.take_all)
            left = [] if in_flight else [batch for batch in self._batches if batch.is_sending]
            for batch in self._batches:
                if batch in left:
                    continue
                batch.abandoned = True
                again = " again" if batch.error else ""
                if batch.is_sending and batch.parts:
                    part = batch.parts[0]
                    part.outcome_unknown = True
                    self._fail_part(batch, part, FailureReason.CLOSED.value, f"{reason} before DIS answered{trouble}")
                self._fail_batch(batch, FailureReason.CLOSED.value, f"{reason} before it could be sent{again}{trouble}")
            self._batches[:] = left
            self._busy_keys = {key for batch in left for key in batch.keys}
            self._linger_until = None
            return bool(left)

    def take_rest(self, entries: list[Entry]) -> None:
        """
        Moves every entry that waits to *entries*, for a caller who sees to its verdict.

        For the threads that emit after the end; before it they never take the lock.
        """
        with self._lock:
            while self._orphans:
                self._take_orphan(entries)
            self._buffer.take_all(entries)

    def describe(self) -> str:
        """Returns the state of the way to the service in a few words."""
        if self._circuit.is_open:
            return f"circuit open after {self._circuit.code}"
        if time.monotonic() < self._gate_until:
            return f"waiting to retry ({self._trouble})"
        return f"{self._ledger.sending} in flight"

    # -- what to send next ------------------------------------------------------------------------------------------

    def _claim(self, attempt: _Attempt, in_background: bool) -> bool:
        """Gives *attempt* the next batch to send, if there is one; returns whether there is a backlog for another thread."""
        with self._lock:
            if in_background and not self._has_background:
                return False
            now = time.monotonic()
            if not self._has_abandoned:
                self._adopt_orphans()
            self._fail_overdue(now)
            if self._pace.is_slowing:
                self._pace.release(self._buffer.release)
            if self._circuit.blocks(now):
                self._fail_all_due(now)
                self._set_alarm()
                return False
            if now < self._gate_until or not self._may_send_another:
                self._set_alarm()
                return False
            batch = self._next_retry(now) or self._cut(now)
            if batch is not None:
                batch.is_sending = True
                batch.sent_at = now
                self._ledger.sending += 1
                attempt.batch = batch
                attempt.part = batch.parts[0]
                if self._circuit.is_open:
                    self._circuit.postpone_probe()  # this batch is the probe; meanwhile the rest goes to the fallback
            self._set_alarm()
            return batch is not None and self._may_send_another and self._has_backlog(now)

    @property
    def _may_send_another(self) -> bool:
        return self._ledger.sending < (self._max_in_flight if self._is_trusted else 1)

    def _must_all_wait(self) -> bool:
        """
        Returns whether all that waits is of the one key in flight; whoever sends that looks again, so why set each aside till then.

        Looks at all of it, some 3 ms for 100,000 entries; only while another thread sends.
        """
        return (
            self._ledger.sending > 0
            and len(self._busy_keys) == 1
            and not self._buffer.ready
            and self._buffer.holds_only(self._busy_keys)
        )

    def _has_backlog(self, now: float) -> bool:
        if self._next_retry(now) is not None or self._buffer.ready:
            return True
        # Where all of the next entries must wait another sender has nothing to do.
        return (
            self._is_due(now)
            and not self.seems_in_vain()
            and any(key not in self._buffer.parked for key in self._buffer.next_keys(_BACKLOG_SEEN) - self._busy_keys)
        )

    def _set_alarm(self) -> None:
        """Tells the buffer when to wake a sender: not before one can do something."""
        if not self._may_send_another:
            self._buffer.wake_never()  # whoever sends looks again afterwards
            return
        # The thresholds are set before the queue is looked at: an entry that came before the first rang nobody and is
        # seen by the second.
        self._buffer.wake_at(1, 1)
        is_waiting = self._buffer.waiting()[0] > 0
        if is_waiting and time.monotonic() < self._gate_until:
            self._buffer.wake_never()  # until the gate opens, which is planned
        elif is_waiting or self._ledger.sending:
            # While one is sending, another is worth its thread only for a whole batch.
            self._buffer.wake_at(self._enough.max_records, self._enough.max_bytes)

    def _fail_overdue(self, now: float) -> None:
        """Gives up what the gate, or another batch, has kept from its next attempt for too long."""
        for batch in list(self._batches):
            # One without parts has its verdicts, and an interrupt kept it from being released.
            if batch.is_sending or (batch.parts and batch.retry.deadline > now):
                continue
            error = batch.error or UnknownOutcomeError("not sent in time", timed_out=True)
            self._fail_batch(batch, failure_code(error), failure_message(error))
            self._release(batch)

    def _next_retry(self, now: float) -> _Batch | None:
        return next((batch for batch in self._batches if not batch.is_sending and batch.not_before <= now), None)

    def _cut(self, now: float) -> _Batch | None:
        if not self._is_due(now) or self._must_all_wait():
            return None
        urgent, self._buffer.urgent = self._buffer.urgent, False
        admits = self._pace.admits if self._pace.is_slowing else None
        batch = self._take_batch(admits)
        if self._buffer.queue:
            self._buffer.urgent |= urgent
        else:
            self._linger_until = None
        return batch

    def _take_batch(self, admits: Callable[[Entry], bool] | None = None) -> _Batch | None:
        return self._take(lambda entries: take_batch(self._buffer, self._limits, self._busy_keys, admits, entries))

    def _take(self, take: Callable[[list[Entry]], object]) -> _Batch | None:
        """Returns a new batch of the entries that *take* puts into a list, None when there are none."""
        entries: list[Entry] = []
        is_known = False
        try:
            try:
                take(entries)
                if not entries:
                    return None
                batch = _Batch(entries, self._policy.begin())
                batches, busy_keys, new = self._batches, self._busy_keys, [batch]
                batches += new
                busy_keys |= batch.keys
                is_known = True
                return batch
            finally:
                if not is_known:
                    self._leave_behind(entries)
        finally:  # a second signal may come as the first one is minded
            if not is_known:
                self._leave_behind(entries)

    def _leave_behind(self, entries: list[Entry]) -> None:
        if entries and not any(orphans is entries for orphans in self._orphans):
            self._orphans.append(entries)

    def _adopt_orphans(self) -> None:
        while self._orphans:
            self._take(self._take_orphan)

    def _take_orphan(self, entries: list[Entry]) -> None:
        entries += self._orphans[0]
        del self._orphans[0]

    def _is_due(self, now: float) -> bool:
        if self._buffer.ready:
            return True  # they have waited long enough
        count, size = self._buffer.waiting()
        if not count:
            return False
        if self._linger_until is None:
            self._linger_until = now + self._flush_interval
        return (
            self.demands > 0
            or self._buffer.urgent
            or count >= self._enough.max_records
            or size >= self._enough.max_bytes
            or now >= self._linger_until
        )

    def _plan(self) -> float | None:
        """Returns the seconds until something is due, having told the buffer what to wake a sender for."""
        with self._lock:
            if not self._has_background:
                return None
            self._set_alarm()
            if not self._may_send_another:
                return None  # whoever sends looks again afterwards
            now = time.monotonic()
            moments = [
                min(max(batch.not_before, self._gate_until), batch.retry.deadline)
                for batch in self._batches
                if not batch.is_sending
            ]
            release = self._pace.next_release()
            if release is not None:
                moments.append(max(release, self._gate_until))
            if (self._buffer.waiting()[0] or self._buffer.ready) and not self._must_all_wait():
                moments.append(max(now if self._is_due(now) else self._linger_until or now, self._gate_until))
            return min(moments) - now if moments else None

    # -- the attempt ------------------------------------------------------------------------------------------------

    def _send(self, attempt: _Attempt, batch: _Batch, part: _Part, deadline: float | None) -> None:
        timeout = min(batch.retry.deadline, deadline or batch.retry.deadline) - time.monotonic()
        self._ledger.requests += 1
        if part.attempts:
            count = len(part.entries)
            self._ledger.retried += count
        part.attempts += 1
        try:
            records, attempt.groups = self._records_of(part.entries)
            run_delivering(lambda: self._request(attempt, records, timeout))
            self._ledger.count_answer(time.monotonic() - batch.sent_at)
        except DeliveryError as failure:
            # It waits with the batch for the next attempt; the frames that it, and what it was raised for, came through hold
            # this one's body.
            failure.__context__ = failure.__cause__ = None
            attempt.error = failure.with_traceback(None)
        except Exception as failure:  # a defect must cost a retry, not a batch
            if not attempt.is_answered:
                attempt.error = UnknownOutcomeError(f"unforeseen {type(failure).__name__} while sending")
        attempt.is_answered = True

    def _request(self, attempt: _Attempt, records: Sequence[WireEntry], timeout: float) -> None:
        attempt.refused = self._sender.send(self._stream_name, records, timeout, self._patience)
        attempt.is_answered = True  # at once: if Ctrl-C comes from here on, the answer still counts

    def _look_meanwhile(self) -> None:
        """Calls for another thread if something may become due that need not wait for the answer that is slow to come."""
        with self._lock:
            now = time.monotonic()
            if now < self._look_at:  # one of those that wait has looked for all of them
                return
            self._look_at = now + self._patience.seconds / 2
            can_do_more = self._may_send_another or self._circuit.is_open  # then it goes to the fallback
            has_more = self._has_background and can_do_more and self._has_more()
            if has_more and self._buffer.queue:
                # Since the last look what waits may have done so for as long as it is to wait for company.
                self._linger_until = now
        if has_more:
            self._more()

    def _has_more(self) -> bool:
        buffer = self._buffer
        return (
            any(not batch.is_sending for batch in self._batches)
            or self._pace.next_release() is not None
            or bool(buffer.ready)
            or not buffer.holds_only(self._busy_keys)
        )

    def _settle(self, attempt: _Attempt, batch: _Batch) -> None:
        """Does what the answer asks for; called again after an interrupt it goes on where it was."""
        with self._lock:
            if not attempt.is_released:
                if attempt.part is not None and (not batch.abandoned or attempt.is_judged):
                    self._judge(attempt, batch, attempt.part)
                if not batch.abandoned:
                    self._release(batch)
                batch.is_sending = False  # only now: until then no other thread touches the batch
                self._ledger.sending -= 1
                attempt.is_released = True
        if attempt.acknowledged is not None:
            self._ledger.conclude_delivered(attempt.acknowledged)
        attempt.is_over = True

    def _let_go(self, attempt: _Attempt) -> None:
        """Leaves the batch of *attempt* to a further one, whatever this one came to: there is a defect, here or in *on_verdict*."""
        with self._lock:
            if attempt.batch is not None and not attempt.is_released:
                attempt.batch.is_sending = False
                self._ledger.sending -= 1
                attempt.is_released = True
        if attempt.acknowledged is not None:
            attempt.acknowledged.untold = iter(())
            self._ledger.count_delivered(attempt.acknowledged)
            self._ledger.conclude_delivered(attempt.acknowledged)

    def _judge(self, attempt: _Attempt, batch: _Batch, part: _Part) -> None:
        if not attempt.is_answered:  # interrupted on its way
            part.outcome_unknown = True
        elif attempt.error is not None:
            if batch.parts and batch.parts[0] is part and part.entries:
                self._take_refusal(batch, part, attempt.error)
        else:
            if not attempt.is_judged:
                self._take_answer(attempt, batch, part, _by_entry(part.entries, attempt.refused, attempt.groups))
            if attempt.acknowledged is not None:
                self._ledger.count_delivered(attempt.acknowledged)
            if attempt.again is not None:
                error, progress, pause = attempt.again
                self._retry_later(batch, error, progress=progress, pause=pause)
        if batch.failures:
            self._fail(batch.failures)

    def _records_of(self, entries: list[Entry]) -> tuple[Sequence[WireEntry], Sequence[Sequence[int]] | None]:
        """Returns the DIS records for *entries*, and the indices of those in each, None when each has its own."""
        if not self._limits.aggregate_bytes:
            return entries, None
        return join(entries, self._limits.aggregate_bytes)

    def _release(self, batch: _Batch) -> None:
        """Frees the keys of *batch* that have their verdict, and the batch itself once all have."""
        parts = deque([part for part in batch.parts if part.entries])
        keys = {entry[KEY] for part in parts for entry in part.entries}
        freed = batch.keys - keys
        self._buffer.release(freed)
        batch.parts = parts
        self._busy_keys -= freed
        batch.keys = keys
        if not parts and batch in self._batches:
            self._batches.remove(batch)

    def _take_answer(self, attempt: _Attempt, batch: _Batch, part: _Part, refused: Refusals) -> None:
        """Decides by its own result what becomes of each entry; what DIS may take later stays for the retry."""
        entries = part.entries
        if batch.sent_at >= self._trouble_since:  # an answer to an earlier request does not end the trouble since
            self._gate_until = 0.0
            self._trouble = ""
            self._is_trusted = True
            self._circuit.close()
        throttled = [index for index, result in refused.items() if is_throttled(result.error_code)]
        pause = self._pace.learn(entries, throttled, refused.partition_ids)
        left: list[Entry] = []
        last: PutRecordsResultEntry | None = None
        failures: list[Failure] = []
        for index in sorted(refused):
            entry, result = entries[index], refused[index]
            reaction = reaction_to_code(result.error_code)
            if reaction is Reaction.RETRY:
                left.append(entry)
                last = result
                continue
            failures.append(self._failure(entry, part, result.error_code, result.error_message))
            if reaction is Reaction.OPEN_CIRCUIT and len(refused) == len(entries):
                self._circuit.open(result.error_code, result.error_message)
                self._note_trouble(result.error_message or result.error_code)
        delivered = [entry for index, entry in enumerate(entries) if index not in refused] if refused else entries
        acknowledged = Acknowledged(delivered) if delivered else None
        again = None
        if last is not None:
            error = ServiceError(200, last.error_code, last.error_message)
            again = (error, len(left) < len(entries), pause)
        if delivered:
            self._lone_refusals = 0
        part.entries = left
        batch.failures += failures
        attempt.acknowledged = acknowledged
        attempt.again = again
        attempt.is_judged = True

    def _take_refusal(self, batch: _Batch, part: _Part, error: DeliveryError) -> None:
        """Decides what a failed request means for its entries, for its batch and for everybody."""
        part.outcome_unknown |= is_outcome_unknown(error)
        reaction = reaction_to_error(error)
        self._note_trouble(failure_message(error))
        if reaction is Reaction.OPEN_CIRCUIT:
            self._open_circuit(batch, error)
        elif self._circuit.is_open:  # the probe failed, if for another reason
            self._circuit.postpone_probe()
            self._fail_batch(batch, failure_code(error), failure_message(error))
        elif reaction is Reaction.RETRY:
            wait = self._retry_later(batch, error)
            self._gate_until = max(self._gate_until, time.monotonic() + wait)
        elif len(part.entries) > 1:
            self._split(batch, part)
        else:
            self._lone_refusals += 1
            self._fail_part(batch, part, failure_code(error), failure_message(error))
            if self._lone_refusals >= MAX_LONE_REFUSALS:
                self._open_circuit(batch, error)

    def _note_trouble(self, message: str) -> None:
        self._trouble = message
        self._trouble_since = time.monotonic()
        self._is_trusted = False

    def _retry_later(self, batch: _Batch, error: DeliveryError, *, progress: bool = False, pause: float = 0.0) -> float:
        """
        Sets *batch* aside until its next attempt, or gives it up; returns how long the service wants peace.

        Args:
            progress: a part of it got through.
            pause: seconds that the next attempt must wait at least.
        """
        wait = batch.retry.next_wait(error, progress=progress)
        batch.error = error
        if wait is None:
            self._fail_batch(batch, failure_code(error), failure_message(error))
            return min(getattr(error, "retry_after", None) or 0.0, MAX_RETRY_AFTER)
        batch.not_before = time.monotonic() + max(wait, pause)
        return wait

    def _split(self, batch: _Batch, part: _Part) -> None:
        """Halves *part*: the refusal may concern a single entry, or the size."""
        middle = len(part.entries) // 2
        halves = [
            _Part(half, part.attempts, part.outcome_unknown) for half in (part.entries[:middle], part.entries[middle:])
        ]
        batch.parts = deque([*halves, *list(batch.parts)[1:]])

    def _open_circuit(self, batch: _Batch, error: DeliveryError) -> None:
        """Stops sending; the batch that met the error goes to the fallback, and so does all that comes meanwhile."""
        self._circuit.open(failure_code(error), failure_message(error))
        self._fail_batch(batch, self._circuit.code, self._circuit.message)

    def _fail_all_due(self, now: float) -> None:
        """While the circuit is open: everything that would be sent now goes to the fallback instead."""
        code, message = self._circuit.code, self._circuit.message
        for batch in [batch for batch in self._batches if not batch.is_sending]:
            self._fail_batch(batch, code, message)
            self._release(batch)
        while self._is_due(now):
            taken = self._take_batch()
            if taken is None:
                break
            self._fail_batch(taken, code, message)
            self._release(taken)
        if not self._buffer.queue:
            self._buffer.urgent = False
            self._linger_until = None

    def _fail_batch(self, batch: _Batch, code: str, message: str) -> None:
        nothing: deque[_Part] = deque()
        failures = [self._failure(entry, part, code, message) for part in batch.parts for entry in part.entries]
        batch.failures += failures
        batch.parts = nothing
        self._fail(batch.failures)

    def _fail_part(self, batch: _Batch, part: _Part, code: str, message: str) -> None:
        failures = [self._failure(entry, part, code, message) for entry in part.entries]
        batch.failures += failures
        part.entries = []
        self._fail(batch.failures)

    @staticmethod
    def _failure(entry: Entry, part: _Part, code: str, message: str) -> Failure:
        return Failure(entry, code, message, part.attempts, part.outcome_unknown, buffered=True)


def _by_entry(entries: Sequence[Entry], refused: Refusals, groups: Sequence[Sequence[int]] | None) -> Refusals:
    """Returns what an answer says of each entry, where DIS was told of records that hold several."""
    if groups is None or not refused:
        return refused
    by_entry = Refusals((index, result) for record, result in refused.items() for index in groups[record])
    partition_ids = [""] * len(entries)
    for group, partition_id in zip(groups, refused.partition_ids, strict=True):
        for index in group:
            partition_ids[index] = partition_id
    by_entry.partition_ids = partition_ids
    return by_entry
