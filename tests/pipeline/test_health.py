"""What operators are told on the logger ``dis_logging``, with a clock and counters that the test moves."""

import logging

import pytest

from dis_logging.pipeline.health import Health
from dis_logging.pipeline.stats import Ledger

TROUBLE = "records for the DIS stream app-logs are not delivered"


class Rig:
    """A `Health` with its counters and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ledger = Ledger()
        self.health = Health("app-logs", self.ledger, lambda: self.now)

    def give_up(self, count: int, code: str = "network", message: str = "no connection") -> None:
        self.ledger.failed += count
        self.ledger.last_failure = (code, message)

    def look_after(self, seconds: float) -> float | None:
        self.now += seconds
        return self.health.look()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_nothing_is_said_while_all_is_well(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.ledger.delivered += 100

    assert rig.look_after(1) is None
    assert caplog.messages == []


def test_trouble_is_told_at_once_with_its_reason(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.give_up(3)

    assert rig.look_after(0) == 10.0
    assert caplog.record_tuples == [
        (
            "dis_logging",
            logging.WARNING,
            f"{TROUBLE}: 3 given up, the latest because of: network, no connection",
        )
    ]


def test_drops_alone_are_trouble_too(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.ledger.dropped += 5
    rig.look_after(0)

    assert caplog.messages[0].endswith("not delivered: 5 given up, the latest because of: the buffer is full")


def test_lasting_trouble_is_told_once_a_minute(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(150):
        rig.give_up(10)
        rig.look_after(1)

    assert [message.split(": ")[1].split(",")[0] for message in caplog.messages] == [
        "10 given up",
        "600 given up",
        "600 given up",
    ]


def test_recovery_is_told_once_it_has_lasted(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.give_up(1)
    rig.look_after(0)
    rig.give_up(2)
    rig.look_after(5)
    rig.ledger.delivered += 1
    rig.look_after(9)
    assert len(caplog.messages) == 1

    assert rig.look_after(1) is None
    assert caplog.messages[1] == (
        "records for the DIS stream app-logs are delivered again, after 15 s; 2 more had been given up"
    )
    assert rig.look_after(1000) is None
    assert len(caplog.messages) == 2


def test_there_is_no_recovery_without_a_delivery(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.give_up(1)
    for _ in range(100):
        assert rig.look_after(10) == 10.0

    assert len(caplog.messages) == 1


def test_trouble_that_comes_and_goes_is_told_once_a_minute(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        rig.give_up(1)
        rig.look_after(0.5)
        rig.ledger.delivered += 1
        rig.look_after(11.5)

    assert sum("not delivered" in message for message in caplog.messages) <= 3


def test_without_any_handler_nothing_reaches_stderr(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    rig.give_up(1)
    rig.look_after(0)

    assert capfd.readouterr().err == ""
