"""The budget that closings which follow one another share."""

from types import SimpleNamespace

import pytest

from dis_logging.pipeline import lifecycle
from dis_logging.pipeline.lifecycle import ClosingBudget


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def pass_by(self, seconds: float) -> float:
        """Lets time pass and returns the moment before."""
        before = self.now
        self.now += seconds
        return before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that `lifecycle` reads."""
    clock = Clock()
    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_the_first_closing_has_all_of_its_time(clock: Clock) -> None:
    assert ClosingBudget().deadline(5.0) == 1005.0


def test_a_closing_that_follows_has_what_the_others_left(clock: Clock) -> None:
    budget = ClosingBudget()
    budget.charge(clock.pass_by(3.0))

    assert budget.deadline(5.0) == clock.now + 2.0
    budget.charge(clock.pass_by(1.5))
    assert budget.deadline(5.0) == clock.now + 0.5
    budget.charge(clock.pass_by(1.0))
    assert (
        budget.deadline(5.0) == clock.now - 0.5
    )  # what they took too long is taken from what comes after the deadline


def test_twenty_closings_that_hang_take_as_long_as_one(clock: Clock) -> None:
    budget = ClosingBudget()
    began = clock.now

    for _ in range(20):
        deadline = budget.deadline(5.0)
        budget.charge(clock.pass_by(deadline - clock.now))

    assert clock.now - began == pytest.approx(5.0)


def test_time_comes_back_as_time_goes_by(clock: Clock) -> None:
    budget = ClosingBudget()
    budget.charge(clock.pass_by(4.0))

    clock.pass_by(3.0)
    assert budget.deadline(5.0) == clock.now + 4.0
    clock.pass_by(100.0)
    assert budget.deadline(5.0) == clock.now + 5.0


def test_closings_with_different_limits_share_what_was_spent(clock: Clock) -> None:
    budget = ClosingBudget()
    budget.charge(clock.pass_by(3.0))

    assert budget.deadline(1.0) == clock.now - 2.0
    assert budget.deadline(10.0) == clock.now + 7.0
