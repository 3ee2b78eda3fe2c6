"""The write rates of partitions, on a clock of the test's own."""

import json
from typing import Any

import pytest

from dis_logging.client.wire import encode_put_records
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.stream import StreamSettings
from tests.conftest import Clock
from tests.emulator.service import NOW_MS, Service, record

MIB = 2**20


@pytest.fixture
def service(clock: Clock) -> Service:
    """With rates enforced."""
    return Service(throttle_clock=clock)


def codes(service: Service, *records: dict[str, Any], stream: str = "other") -> list[str | None]:
    """Uploads and returns the error code of each entry."""
    response = service.put({"stream_name": stream, "records": list(records)})
    return [each.get("error_code") for each in json.loads(response.body)["records"]]


def test_partition_takes_1000_records_at_once(service: Service) -> None:
    refused = codes(service, *[record()] * 1003)

    assert refused == [None] * 1000 + ["DIS.4303"] * 3
    assert service.store.record_count("other") == 1000


def test_partition_takes_a_mebibyte_at_once(service: Service) -> None:
    """Bytes before base64; what is too much is refused, what still fits behind it is not."""
    sizes = (MIB // 2, MIB // 2, 1)
    assert codes(service, *(record(bytes(size)) for size in sizes)) == [None, None, "DIS.4303"]

    assert codes(Service(throttle_clock=Clock()), record(bytes(MIB - 1)), record(b"ab"), record(b"a")) == [
        None,
        "DIS.4303",
        None,
    ]


def test_partition_keys_do_not_count(service: Service) -> None:
    """FAQ, What is a partition."""
    assert codes(service, record(bytes(MIB), partition_key="k" * 100)) == [None]


@pytest.mark.parametrize(("seconds", "taken"), [(0.0, 0), (0.1, 100), (1.0, 1000), (60.0, 1000)])
def test_time_makes_room_for_one_second_at_most(service: Service, clock: Clock, seconds: float, taken: int) -> None:
    codes(service, *[record()] * 1000)

    clock.now += seconds

    assert codes(service, *[record()] * 1100).count(None) == taken


def test_time_makes_room_for_bytes(service: Service, clock: Clock) -> None:
    codes(service, record(bytes(MIB)))

    clock.now += 0.5

    assert codes(service, record(bytes(MIB // 2 + 1)), record(bytes(MIB // 2))) == ["DIS.4303", None]


def test_partitions_have_rates_of_their_own(service: Service) -> None:
    codes(service, *[record(partition_id="0")] * 1000, stream="app-logs")

    refused = codes(service, record(partition_id="0"), record(partition_id="1"), stream="app-logs")

    assert refused == ["DIS.4303", None]


def test_advanced_stream_takes_more(service: Service) -> None:
    service.store.create_stream("fast", 1, NOW_MS, StreamSettings("ADVANCED"))

    assert codes(service, *[record()] * 2001, stream="fast").count(None) == 2000


def test_nothing_is_throttled_unless_asked_for() -> None:
    assert codes(Service(), *[record(bytes(1100))] * 2000) == [None] * 2000


def test_emulator_counts_what_it_throttled(put: Any) -> None:
    body = encode_put_records("app-logs", [(b"x", "", None)] * 5000)
    with DISEmulator({"app-logs": 1}, throttle=True) as dis:
        _, answer = put(dis, body=body)

    assert answer["failed_record_count"] == dis.refused["DIS.4303"] == 4000
    assert dis.record_count("app-logs") == 1000
