"""Which partition a record goes to: partition keys, explicit hash keys and partition ids, as templates or callables."""

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from dis_logging import ConfigurationError, DISHandler
from dis_logging.client import wire
from dis_logging.emulator import DISEmulator
from tests.conftest import STREAM

LAST_HASH = str(wire.MAX_HASH_KEY)


def ship(dis: DISEmulator, logger: logging.Logger, *users: Any, **options: Any) -> None:
    """Logs a record for each of *users*, an attribute of the record, and waits until all are delivered."""
    handler = DISHandler(**dis.handler_options(STREAM), **options)
    logger.addHandler(handler)
    for user in users:
        logger.info("%s", user, extra={"user": user})
    assert handler.flush(10)
    logger.removeHandler(handler)
    handler.close()


@pytest.mark.parametrize("key", ["user-%(user)s", lambda record: f"user-{record.user}"], ids=["template", "callable"])
def test_the_partition_key_may_come_from_the_record(
    dis: DISEmulator, logger: logging.Logger, key: str | Callable[[logging.LogRecord], str]
) -> None:
    ship(dis, logger, 1, 2, partition_key=key)

    assert [record.partition_key for record in dis.records(STREAM)] == ["user-1", "user-2"]


@pytest.mark.parametrize("hash_key", ["%(user)s", lambda record: record.user], ids=["template", "callable"])
def test_an_explicit_hash_key_replaces_the_hash_of_the_key(
    dis: DISEmulator, logger: logging.Logger, hash_key: Any
) -> None:
    ship(dis, logger, 0, LAST_HASH, explicit_hash_key=hash_key)

    stored = dis.records(STREAM)
    assert [record.partition_id for record in stored] == ["shardId-0000000000", "shardId-0000000002"]
    assert {record.partition_key for record in stored} == {logger.name}


@pytest.mark.parametrize("partition_id", ["%(user)s", lambda record: record.user], ids=["template", "callable"])
def test_a_partition_id_goes_before_the_hash_key(dis: DISEmulator, logger: logging.Logger, partition_id: Any) -> None:
    ship(dis, logger, 1, "shardId-0000000002", explicit_hash_key="0", partition_id=partition_id)

    assert [record.partition_id for record in dis.records(STREAM)] == ["shardId-0000000001", "shardId-0000000002"]


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_record_without_routing_of_its_own_goes_by_its_key(
    dis: DISEmulator, logger: logging.Logger, nothing: str | None
) -> None:
    ship(dis, logger, 1, explicit_hash_key=lambda _: nothing, partition_id=lambda _: nothing)

    index = wire.partition_index(wire.hash_partition_key(logger.name), 3)
    assert [record.partition_id for record in dis.records(STREAM)] == [wire.partition_id(index)]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("explicit_hash_key", "-%(user)s"),
        ("explicit_hash_key", lambda _: wire.MAX_HASH_KEY + 1),
        ("partition_id", "shard-%(user)s"),
        ("partition_id", "%(nobody)s"),
    ],
)
def test_routing_that_dis_would_refuse_is_reported_and_costs_nothing(
    dis: DISEmulator, logger: logging.Logger, capfd: pytest.CaptureFixture[str], option: str, value: Any
) -> None:
    ship(dis, logger, 1, **{option: value})

    assert [record.text for record in dis.records(STREAM)] == ["1"]
    assert "Logging error" in capfd.readouterr().err


@pytest.mark.parametrize("option", ["partition_key", "explicit_hash_key", "partition_id"])
@pytest.mark.parametrize("value", [1, "%(name", "%d"])
def test_a_malformed_template_is_refused_at_once(dis: DISEmulator, option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option} "):
        DISHandler(**dis.handler_options(STREAM), **{option: value})


@pytest.mark.parametrize("option", ["partition_key", "explicit_hash_key", "partition_id"])
@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("{name}", "write %(name)s instead of {name}"),
        ("shop-{levelname}", "write %(levelname)s instead of {levelname}"),
        ("${name}", "write %(name)s instead of ${name}"),
        ("$levelname", "write %(levelname)s instead of $levelname"),
        ("{0}", "write an attribute such as %(name)s instead of {0}"),
        ("%s", "write an attribute such as %(name)s instead of %s"),
        ("%(name)s-%-10.3r", "write an attribute such as %(name)s instead of %-10.3r"),
    ],
)
def test_a_template_in_another_style_is_refused_at_once(dis: DISEmulator, option: str, value: Any, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option} is a %-style template: {re.escape(hint)}, or give"):
        DISHandler(**dis.handler_options(STREAM), **{option: value})


@pytest.mark.parametrize("key", ["", "orders", "{}", "{%(name)s}", "100%%s", "5 $"])
def test_a_partition_key_may_be_constant_and_may_hold_braces(
    dis: DISEmulator, logger: logging.Logger, key: str
) -> None:
    ship(dis, logger, 1, partition_key=key)

    (record,) = dis.records(STREAM)
    assert (record.partition_key or "") == key % {"name": logger.name}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("explicit_hash_key", "-1"),
        ("explicit_hash_key", str(wire.MAX_HASH_KEY + 1)),
        ("explicit_hash_key", "0x10"),
        ("partition_id", "shard-1"),
    ],
)
def test_routing_that_is_wrong_for_every_record_is_refused_at_once(dis: DISEmulator, option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option} is nothing that DIS takes: .*; it must be "):
        DISHandler(**dis.handler_options(STREAM), **{option: value})
