"""The retry rules: what is done about which error, how long is waited, when it ends, when the circuit opens."""

from collections.abc import Callable

import pytest

from dis_logging.errors import DeliveryError, NotSentError, ProtocolError, ServiceError, UnknownOutcomeError
from dis_logging.pipeline import retry
from dis_logging.pipeline.retry import Circuit, Reaction, RetryPolicy

R, F, S, C = Reaction.RETRY, Reaction.FAIL, Reaction.SPLIT, Reaction.OPEN_CIRCUIT


@pytest.mark.parametrize(
    ("code", "of_a_record", "of_a_request"),
    [
        *[(f"DIS.{number}", C, C) for number in (*range(4100, 4115), 4116, 4117, 4205, 4301, 4309)],
        *[(f"DIS.{number}", R, R) for number in (4303, 4305, 5000, 5250, 5999)],
        *[(f"DIS.{number}", F, S) for number in (4200, 4201, 4202, 4300, 4302, 4319, 4308, 4999)],
        ("SOMETHING.ELSE", F, S),
    ],
)
def test_the_reaction_to_a_code(code: str, of_a_record: Reaction, of_a_request: Reaction) -> None:
    """As the API reference, Error Codes, and the SDK reference, Server-Side Error Codes, describe them."""
    assert retry.reaction_to_code(code) is of_a_record
    assert retry.reaction_to_error(ServiceError(400, code)) is of_a_request


@pytest.mark.parametrize(
    ("status", "reaction"),
    [
        *[(status, R) for status in (408, 425, 429, 500, 502, 503, 504, 599)],
        *[(status, C) for status in (301, 302, 307, 401, 402, 403, 404, 405, 407, 410, 441)],
        *[(status, S) for status in (400, 413, 414, 418, 431)],
    ],
)
def test_the_reaction_to_a_status_without_a_code_of_dis(status: int, reaction: Reaction) -> None:
    assert retry.reaction_to_error(ServiceError(status)) is reaction
    assert retry.reaction_to_error(ServiceError(status, "APIGW.0101")) is reaction


@pytest.mark.parametrize(
    "error", [NotSentError("x"), UnknownOutcomeError("x"), ProtocolError("x", status=200), DeliveryError("x")]
)
def test_without_an_answer_it_is_tried_again(error: DeliveryError) -> None:
    assert retry.reaction_to_error(error) is R


def test_a_server_error_with_an_unknown_code_is_tried_again() -> None:
    assert retry.reaction_to_error(ServiceError(500, "DIS.5001")) is R
    assert retry.reaction_to_error(ServiceError(503, "DIS.4999")) is F


@pytest.mark.parametrize(
    ("error", "code", "unknown"),
    [
        (ServiceError(400, "DIS.4301"), "DIS.4301", False),
        (ServiceError(500, "DIS.5000"), "DIS.5000", True),
        (ServiceError(429, "APIGW.0308"), "http_429", False),
        (ServiceError(413), "http_413", False),
        (ServiceError(503), "http_503", True),
        (ProtocolError("x", status=200), "http_200", True),
        (ProtocolError("x"), "network", True),
        (UnknownOutcomeError("x", timed_out=True), "timeout", True),
        (UnknownOutcomeError("x"), "network", True),
        (NotSentError("x"), "network", False),
    ],
)
def test_what_the_fallback_is_told(error: DeliveryError, code: str, unknown: bool) -> None:
    assert retry.failure_code(error) == code
    assert retry.is_outcome_unknown(error) is unknown


# -- waits ----------------------------------------------------------------------------------------------------------


def make_policy(**changes: float) -> RetryPolicy:
    return RetryPolicy(**{"backoff_initial": 0.25, "backoff_max": 30.0, "delivery_timeout": 10_000.0, **changes})


def waits(policy: RetryPolicy, count: int, error: DeliveryError | None = None) -> list[float | None]:
    state = policy.begin()
    return [state.next_wait(error or NotSentError("x")) for _ in range(count)]


def test_waits_grow_exponentially_with_full_jitter_up_to_a_cap() -> None:
    """Full jitter: each is drawn between 0 and its bound, so that clients that failed together do not return together."""
    policy = make_policy()

    runs = [waits(policy, 12) for _ in range(400)]

    for attempt, drawn in enumerate(zip(*runs, strict=True)):
        bound = min(30.0, 0.25 * 2**attempt)
        values = [value for value in drawn if value is not None]
        assert len(values) == 400
        assert 0.0 <= min(values) < 0.2 * bound
        assert 0.8 * bound < max(values) <= bound


def test_progress_starts_the_backoff_over() -> None:
    state = make_policy().begin()
    for _ in range(10):
        state.next_wait(NotSentError("x"))

    drawn = [state.next_wait(NotSentError("x"), progress=True) for _ in range(100)]

    assert max(value for value in drawn if value is not None) <= 0.25


@pytest.mark.parametrize("status", [413, 429, 503])
def test_retry_after_is_the_least_wait(status: int) -> None:
    drawn = waits(make_policy(), 50, ServiceError(status, retry_after=17.5))

    assert all(value is not None and value >= 17.5 for value in drawn)
    assert drawn[0] == 17.5


def test_a_longer_backoff_is_kept_beside_a_short_retry_after() -> None:
    drawn = waits(make_policy(backoff_initial=1000.0, backoff_max=1000.0), 100, ServiceError(429, retry_after=0.001))

    assert max(value for value in drawn if value is not None) > 100


def test_a_retry_after_without_end_is_capped() -> None:
    assert waits(make_policy(), 1, ServiceError(429, retry_after=1e9)) == [3600.0]


def test_a_wait_that_would_pass_the_deadline_is_not_begun() -> None:
    policy = make_policy(delivery_timeout=5.0)

    assert waits(policy, 1, ServiceError(429, retry_after=4.0)) == [4.0]
    assert waits(policy, 1, ServiceError(429, retry_after=5.5)) == [None]


def test_the_sum_of_attempts_and_waits_stays_below_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    state = make_policy(delivery_timeout=20.0).begin()

    assert state.deadline == 1020.0
    attempts = 0
    while (wait := state.next_wait(NotSentError("x"))) is not None:
        now += wait + 0.5  # an attempt takes half a second
        attempts += 1
    assert 1 < attempts < 60
    assert now <= 1020.5


@pytest.mark.parametrize(("timeout", "last"), [(0.5, 0.45), (4.0, 3.6), (120.0, 119.0)])
def test_the_last_attempt_comes_as_late_as_it_may(monkeypatch: pytest.MonkeyPatch, timeout: float, last: float) -> None:
    """DIS may be back by then, and what was given up before is with the fallback."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for _ in range(50):
        state = make_policy(delivery_timeout=timeout).begin()
        began = latest = now
        while (wait := state.next_wait(NotSentError("x"))) is not None:
            now += wait
            latest = now
            now += 0.01  # an attempt is refused at once
        assert latest - began == pytest.approx(last, abs=0.012)


def test_each_batch_has_its_own_state() -> None:
    policy = make_policy()
    exhausted = policy.begin()
    for _ in range(20):
        exhausted.next_wait(NotSentError("x"))

    fresh = policy.begin().next_wait(NotSentError("x"))

    assert fresh is not None
    assert fresh <= 0.25


# -- the circuit ----------------------------------------------------------------------------------------------------


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Returns a function that sets the monotonic clock."""
    return lambda now: monkeypatch.setattr("time.monotonic", lambda: now)


def test_a_closed_circuit_blocks_nothing() -> None:
    circuit = make_policy().new_circuit()

    assert not circuit.is_open
    assert not circuit.blocks()


def test_an_open_circuit_lets_one_probe_through_a_minute(at: Callable[[float], None]) -> None:
    circuit = make_policy().new_circuit()
    at(1000.0)
    circuit.open("DIS.4100", "Authorization error.")

    assert (circuit.is_open, circuit.code, circuit.message) == (True, "DIS.4100", "Authorization error.")
    assert circuit.blocks(1059.9)
    assert not circuit.blocks(1060.0)
    at(1060.0)
    circuit.postpone_probe()
    assert circuit.blocks(1119.9)
    assert not circuit.blocks(1120.0)


def test_after_a_blacklisting_the_probe_waits_thirty_minutes(at: Callable[[float], None]) -> None:
    circuit = make_policy().new_circuit()
    at(1000.0)
    circuit.open("DIS.4309", "Too many request failures.")

    assert circuit.blocks(1000.0 + 1799.9)
    assert not circuit.blocks(1000.0 + 1800.0)


def test_a_success_closes_the_circuit() -> None:
    circuit = Circuit(60.0, 1800.0)
    circuit.open("DIS.4301", "gone")

    circuit.close()

    assert not circuit.is_open
    assert not circuit.blocks()
