"""
What is retryable, how often, how long, and when the circuit opens: the only file that knows.

The reactions to DIS's codes follow the API reference (Error Codes), the SDK reference (Server-Side Error Codes) and what
the Java SDK 1.3.21 retries. No threads and no waiting here: the delivery asks and waits by itself, because a wait must not
hold up the entries of other keys.
"""

from __future__ import annotations

import re
import time
from enum import Enum
from typing import Any

import tenacity
from tenacity.wait import wait_base

from dis_logging.errors import DeliveryError, ProtocolError, ServiceError, UnknownOutcomeError
from dis_logging.pipeline.entry import FailureReason

# A service that asks for more than an hour is not obeyed to the letter: the buffer could not wait that long anyway.
MAX_RETRY_AFTER = 3600.0
# DIS blacklists an address that fails too often (DIS.4309), so refusals without end must end.
MAX_LONE_REFUSALS = 20


class Reaction(Enum):
    """What to do about an error: retry after a wait, give up, halve the batch, or stop sending for a while."""

    RETRY = "retry"
    FAIL = "fail"
    SPLIT = "split"
    OPEN_CIRCUIT = "open circuit"


_THROTTLED = ("DIS.4303", "DIS.4305")
# The stream does not exist (4301) or is not running (4205); the address is blacklisted (4309); 41xx: who we are.
_CIRCUIT = r"DIS\.(41\d\d|4205|4301|4309)"
_CIRCUIT_STATUSES = frozenset({401, 402, 403, 404, 405, 407, 410, 441})
_RETRY_STATUSES = frozenset({408, 425, 429})


def reaction_to_error(error: DeliveryError) -> Reaction:
    """Returns what to do after a whole request failed with *error*."""
    if not isinstance(error, ServiceError):
        return Reaction.RETRY
    if error.code.startswith("DIS."):
        by_code = reaction_to_code(error.code)
        # A request refused whole may hold one bad record only.
        return Reaction.SPLIT if by_code is Reaction.FAIL and error.status < 500 else by_code
    if error.status in _RETRY_STATUSES or error.status >= 500:
        return Reaction.RETRY
    if error.status in _CIRCUIT_STATUSES or error.status < 400:
        return Reaction.OPEN_CIRCUIT
    return Reaction.SPLIT


def reaction_to_code(code: str) -> Reaction:
    """Returns what to do with one record that DIS refused with *code*."""
    if code in _THROTTLED or code.startswith("DIS.5"):
        return Reaction.RETRY
    return Reaction.OPEN_CIRCUIT if re.fullmatch(_CIRCUIT, code) else Reaction.FAIL


def is_throttled(code: str) -> bool:
    """Returns whether a record was refused with *code* for the traffic: its partition takes no more at the moment."""
    return code == _THROTTLED[0]


def failure_code(error: DeliveryError) -> str:
    """Returns the `dis_error_code` for *error*: DIS's own, or one of the documented set."""
    if isinstance(error, ServiceError):
        return error.code if error.code.startswith("DIS.") else f"http_{error.status}"
    if isinstance(error, ProtocolError) and error.status is not None:
        return f"http_{error.status}"
    if isinstance(error, UnknownOutcomeError) and error.timed_out:
        return FailureReason.TIMEOUT.value
    return FailureReason.NETWORK.value


def failure_message(error: DeliveryError) -> str:
    """Returns the `dis_error_message` for *error*; of a record that DIS refused in a 200 answer it is DIS's own text."""
    if isinstance(error, ServiceError) and error.status == 200:
        return error.message
    return str(error)


def is_outcome_unknown(error: DeliveryError) -> bool:
    """Returns whether the request may have stored its records although it failed with *error*."""
    return isinstance(error, UnknownOutcomeError) or (isinstance(error, ServiceError) and error.status >= 500)


# By so many seconds a wait that ends at a certain moment may seem to end after it.
_ROUNDING = 0.001


class _PoliteWait(wait_base):
    """
    Capped exponential backoff with full jitter, or what the service's Retry-After asks for if that is longer.

    The last attempt comes no earlier than it must, as the service may be back by then: a wait that would go past it ends there.

    Args:
        initial, maximum: seconds; upper bounds of the first wait and of all.
        last: seconds from the first attempt to the last one.
    """

    def __init__(self, initial: float, maximum: float, last: float) -> None:
        self._backoff = tenacity.wait_random_exponential(multiplier=initial, max=maximum)
        self._last = last

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        outcome = retry_state.outcome
        error = outcome.exception() if outcome is not None else None
        asked = getattr(error, "retry_after", None) or 0.0
        wait = float(self._backoff(retry_state))
        left = self._last - (retry_state.seconds_since_start or 0.0)
        return max(min(asked, MAX_RETRY_AFTER), wait if left <= 0 else min(wait, left))


class RetryPolicy:
    """
    The retry rules of one handler: immutable, safe to share between threads.

    Args:
        backoff_initial: seconds; upper bound of the first wait, doubled with each further one.
        backoff_max: seconds; upper bound of every wait.
        delivery_timeout: seconds from the first attempt to the verdict.
        probe_interval: seconds between two attempts while the circuit is open.
        blacklist_interval: the same after DIS.4309; Huawei's agent documentation says to stop for 30 minutes.
    """

    def __init__(
        self,
        *,
        backoff_initial: float,
        backoff_max: float,
        delivery_timeout: float,
        probe_interval: float = 60.0,
        blacklist_interval: float = 1800.0,
    ) -> None:
        self._delivery_timeout = delivery_timeout
        self._probe_interval = probe_interval
        self._blacklist_interval = blacklist_interval
        # An attempt with milliseconds left would end in a timeout that says nothing of the service.
        last = delivery_timeout - min(1.0, delivery_timeout / 10)
        self._retrying = tenacity.Retrying(
            wait=_PoliteWait(backoff_initial, backoff_max, last),
            stop=tenacity.stop_before_delay(last + _ROUNDING),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, DeliveryError)),
        )

    def begin(self) -> RetryState:
        """Returns the state of a batch that is about to be attempted for the first time."""
        return RetryState(self._retrying, self._delivery_timeout)

    def new_circuit(self) -> Circuit:
        """Returns a closed circuit."""
        return Circuit(self._probe_interval, self._blacklist_interval)


class RetryState:
    """How far the retries of one batch have come. Guarded by the delivery's lock."""

    def __init__(self, retrying: tenacity.Retrying, delivery_timeout: float) -> None:
        self._retrying = retrying
        self._state = tenacity.RetryCallState(retrying, None, (), {})
        self.deadline = self._state.start_time + delivery_timeout

    def next_wait(self, error: DeliveryError, *, progress: bool = False) -> float | None:
        """
        Returns the seconds to wait before the next attempt, or None when the time to the verdict is up.

        Args:
            error: why the last attempt, or a part of it, must be repeated.
            progress: the attempt got some entries through, so the backoff starts over.
        """
        state = self._state
        if progress:
            state.attempt_number = 1
        state.set_exception((type(error), error, None))
        state.upcoming_sleep = wait = float(_call(self._retrying.wait, state))
        if _call(self._retrying.stop, state) or not _call(self._retrying.retry, state):
            return None
        state.prepare_for_next_attempt()
        return wait


def _call(strategy: Any, state: tenacity.RetryCallState) -> Any:
    # tenacity types its strategies as unions of old and new forms; ours all take the state.
    return strategy(state)


class Circuit:
    """
    Stops sending after an error that every further request would meet too, but for a probe now and then.

    Guarded by the delivery's lock. Times are of the monotonic clock.
    """

    def __init__(self, probe_interval: float, blacklist_interval: float) -> None:
        self._probe_interval = probe_interval
        self._blacklist_interval = blacklist_interval
        self._probe_at = 0.0
        self.code = ""
        self.message = ""

    @property
    def is_open(self) -> bool:
        """Whether the last verdict of the service was an error of this kind."""
        return bool(self.code)

    def blocks(self, now: float | None = None) -> bool:
        """Returns whether nothing may be sent now; False when closed, and when a probe is due."""
        return self.is_open and (time.monotonic() if now is None else now) < self._probe_at

    def open(self, code: str, message: str) -> None:
        """Opens the circuit, or keeps it open after a failed probe."""
        self.code = code
        self.message = message
        self.postpone_probe()

    def postpone_probe(self) -> None:
        """Starts a new interval: a probe is on its way, or has just failed."""
        interval = self._blacklist_interval if self.code == "DIS.4309" else self._probe_interval
        self._probe_at = time.monotonic() + interval

    def close(self) -> None:
        """Lets everything through again: the service took a request."""
        self.code = self.message = ""
