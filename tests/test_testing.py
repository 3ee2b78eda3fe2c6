"""The emulator for users' tests: what it finds, and what it says when there is nothing to be found."""

import json
import logging
import re
import threading
from collections.abc import Iterator

import pytest

from dis_logging import DISHandler
from dis_logging.emulator.faults import Hang, Refuse
from dis_logging.testing import AssertingEmulator
from tests.conftest import RememberingHandler


@pytest.fixture
def dis() -> Iterator[AssertingEmulator]:
    """A local DIS that makes the streams it is sent records for."""
    with AssertingEmulator(new_stream_partitions=1) as emulator, emulator.isolated():
        yield emulator


def attach(
    dis: AssertingEmulator, name: str, *, template: str = "%(levelname)s %(message)s", stream: str = "app-logs"
) -> logging.Logger:
    """Returns a logger at DEBUG with a handler that logs to *dis*."""
    handler = DISHandler(**dis.handler_options(stream), fallback=RememberingHandler())
    handler.setFormatter(logging.Formatter(template))
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    return logger


def message_of_failure(dis: AssertingEmulator, text: str | None = None, **criteria: object) -> list[str]:
    """Returns the lines of the message with which assert_logged fails."""
    with pytest.raises(AssertionError) as caught:
        dis.assert_logged(text, timeout=0, **criteria)  # type: ignore[arg-type] # as a test may spell them
    return str(caught.value).splitlines()


# -- finding --------------------------------------------------------------------------------------------------------


def test_each_criterion_narrows_what_is_found(dis: AssertingEmulator) -> None:
    orders, stock = attach(dis, "shop.orders"), attach(dis, "shop.stock", stream="stock-logs")
    orders.warning("order 1 is late")
    orders.error("order 2 is lost")
    stock.warning("tea is low")

    assert len(dis.logged()) == 3
    assert [record.text for record in dis.logged("is l", level="WARNING")] == [
        "WARNING order 1 is late",
        "WARNING tea is low",
    ]
    assert [record.text for record in dis.logged("order", level=logging.ERROR)] == ["ERROR order 2 is lost"]
    assert [record.text for record in dis.logged(logger="shop.stock")] == ["WARNING tea is low"]
    assert [record.text for record in dis.logged(stream="stock-logs")] == ["WARNING tea is low"]
    assert [record.text for record in dis.logged(match=r"order \d is late$")] == ["WARNING order 1 is late"]
    assert dis.logged(match=re.compile("ORDER", re.IGNORECASE), logger="shop.stock") == []
    assert dis.assert_logged("order", times=2) == dis.logged(logger="shop.orders")


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("2026-01-01 12:00:00,000 WARNING shop late", "WARNING"),
        ("[error] shop: late", "ERROR"),
        ("ts=1 level=info msg=late", "INFO"),
        ("CRITICAL:shop:ERROR budget is spent", "CRITICAL"),
        ("WARN late", "WARNING"),
        ("no error, no warning", None),
        ("late\nERROR in the second line", None),
        (json.dumps({"level": "warning", "event": "late"}), "WARNING"),
        (json.dumps({"levelname": "ERROR", "message": "INFO is no level here"}), "ERROR"),
        (json.dumps({"severity": 40}), "ERROR"),
        (json.dumps({"message": "ERROR"}), None),
        ("{broken ERROR", "ERROR"),
    ],
)
def test_level_is_what_the_formatter_wrote(dis: AssertingEmulator, text: str, level: str | None) -> None:
    attach(dis, "shop", template="%(message)s").info(text)

    (record,) = dis.logged()
    assert record.level == level


def test_json_is_looked_into(dis: AssertingEmulator) -> None:
    attach(dis, "shop", template="%(message)s").info(
        json.dumps({"logger": "shop.orders", "event": "订单 1", "count": 3})
    )

    (record,) = dis.assert_logged("订单 1", logger="shop.orders")
    assert record.fields["count"] == 3


def test_a_record_of_another_thread_is_waited_for(dis: AssertingEmulator) -> None:
    logger = attach(dis, "shop")
    looked = threading.Event()

    def log_later() -> None:
        looked.wait(30)
        logger.error("late")

    thread = threading.Thread(target=log_later)
    thread.start()
    dis.assert_not_logged("late")
    looked.set()

    dis.assert_logged("late", timeout=30)
    thread.join()


@pytest.mark.parametrize("level", ["LOUD", 17])
def test_an_unknown_level_is_named(dis: AssertingEmulator, level: int | str) -> None:
    with pytest.raises(ValueError, match=f"level must be .* not {level!r}"):
        dis.assert_not_logged(level=level)


# -- what is said instead -------------------------------------------------------------------------------------------


def test_failure_lists_the_nearest_records_first(dis: AssertingEmulator) -> None:
    stock, orders = attach(dis, "shop.stock"), attach(dis, "shop.orders")  # flushed, and so arriving, in this order
    for number in range(6):
        stock.info("article %d is low", number)
    orders.warning("order 2002 is lost")
    orders.warning("order 1001 is late")

    said, count, *records = message_of_failure(dis, "order 1001 is late", logger="shop.orders", level="ERROR")

    assert said == "a record with logger 'shop.orders', level ERROR, text 'order 1001 is late' was not logged"
    assert count == "  arrived: 8 records, the nearest first"
    assert records[:2] == [
        "    app-logs: WARNING shop.orders: 'WARNING order 1001 is late'  <- differs in level",
        "    app-logs: WARNING shop.orders: 'WARNING order 2002 is lost'  <- differs in level, text",
    ]
    assert records[-1] == "    and 3 more"
    assert all("shop.stock" in record for record in records[2:-1])


def test_failure_says_that_the_formatter_writes_no_level(dis: AssertingEmulator) -> None:
    attach(dis, "shop", template="%(message)s").error("late")

    *_, record, reason = message_of_failure(dis, "late", level="ERROR")

    assert record == "    app-logs: (no level) shop: 'late'  <- differs in level"
    assert reason == "  (no level): the formatter writes none, such as %(levelname)s"


def test_failure_names_what_kept_a_record_from_arriving(dis: AssertingEmulator) -> None:
    logger = attach(dis, "shop.orders")
    logger.setLevel(logging.ERROR)
    logger.warning("late")
    assert message_of_failure(dis, logger="shop.orders", level="WARNING")[1:] == [
        "  nothing at all arrived",
        "  logger 'shop.orders' takes no record below ERROR",
    ]

    logger.setLevel(logging.DEBUG)
    logger.handlers[0].setLevel(logging.CRITICAL)
    assert "this one takes no record below CRITICAL" in message_of_failure(dis, logger="shop.orders")[-1]

    logger.disabled = True
    assert "is disabled" in "".join(message_of_failure(dis, logger="shop.orders"))

    logger.disabled = False
    logger.handlers.clear()
    assert message_of_failure(dis, logger="shop.orders")[-2:] == [
        "  no DISHandler of this process is attached to a logger",
        "  no DISHandler is attached to logger 'shop.orders', or to one that it propagates to",
    ]
    assert message_of_failure(dis, logger="shop.ordres")[-1] == "  this process has no logger 'shop.ordres'"


def test_failure_says_what_dis_refused(dis: AssertingEmulator) -> None:
    logger = attach(dis, "shop")
    dis.play(Refuse(400, "DIS.4301"))
    logger.error("late")

    message = "\n".join(message_of_failure(dis, "late"))

    assert "DIS refused once: DIS.4301 The stream does not exist." in message
    assert "not everything arrived (its fallback was told why)" in message


def test_failure_names_a_handler_that_logs_elsewhere(dis: AssertingEmulator) -> None:
    with AssertingEmulator(new_stream_partitions=1) as other, other.isolated():
        logger = attach(other, "shop")
        logger.error("late")

        message = "\n".join(message_of_failure(dis, "late"))

        assert f"this one logs elsewhere, not to the emulator at {dis.endpoint}: <DISHandler" in message
        assert dis.sk not in message


def test_a_wrong_number_is_told_with_the_records(dis: AssertingEmulator) -> None:
    attach(dis, "shop").error("late\nby a day")

    assert message_of_failure(dis, "late", times=2) == [
        "a record with text 'late' was logged once, not 2:",
        r"  app-logs: ERROR shop: 'ERROR late\nby a day'",
    ]
    with pytest.raises(AssertionError, match=r"(?s)a record with level ERROR was logged once:.*by a day"):
        dis.assert_not_logged(level="ERROR")


# -- undoing --------------------------------------------------------------------------------------------------------


def test_what_is_done_to_logging_is_undone(dis: AssertingEmulator, restored_logging: None) -> None:
    before = logging.getLogger("before")
    root_handlers, root_level = list(logging.root.handlers), logging.root.level
    with dis.isolated():
        new = attach(dis, "new")
        new.propagate = False
        (handler,) = new.handlers
        logging.root.addHandler(handler)
        logging.root.setLevel(logging.DEBUG)
        before.disabled = True
        logging.disable(logging.ERROR)
        new.critical("late")

    assert (logging.root.handlers, logging.root.level) == (root_handlers, root_level)
    assert (before.disabled, logging.root.manager.disable) == (False, logging.NOTSET)
    assert (new.handlers, new.level, new.propagate) == ([], logging.NOTSET, True)
    assert isinstance(handler, DISHandler)
    assert handler.stats().buffered == 0
    assert "closed" in repr(handler)


def test_a_fault_that_still_plays_does_not_hold_up_the_end(dis: AssertingEmulator) -> None:
    with dis.isolated():
        logger = attach(dis, "shop")
        dis.play(Hang(60))
        logger.error("late")
        assert dis.wait_for(lambda dis: any(request.entries for request in dis.requests))
        (handler,) = logger.handlers
        assert isinstance(handler, DISHandler)

    stats = handler.stats()
    assert (stats.delivered, stats.failed) == (1, 0)  # by a second attempt, once the first was cut off
