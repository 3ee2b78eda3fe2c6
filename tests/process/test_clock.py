"""What the wall clock does is nobody's business but the signature's, which takes the time once for each request."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
import requests

from dis_logging.client.auth import DISAuth
from dis_logging.client.credentials import Credentials
from dis_logging.client.wire import encode_put_records
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Refuse
from tests.process.programs import STREAM, Programs, numbered

MIDNIGHT = datetime(2026, 3, 1, tzinfo=timezone.utc)
DAY = 86_400


@pytest.mark.parametrize("shift", [DAY, -DAY], ids=["forward", "back"])
def test_a_wall_clock_that_jumps_by_a_day_delays_nothing(dis: DISEmulator, programs: Programs, shift: int) -> None:
    """Neither the flush interval, nor the wait before a retry, nor the limit of a flush."""
    dis.play(Refuse(503))
    program = programs.start(
        f"""
        import time
        now, now_ns = time.time, time.time_ns
        shift = 0
        time.time = lambda: now() + shift
        time.time_ns = lambda: now_ns() + shift * 10**9
        from application import make_handler, make_logger
        logger = make_logger("app", handler := make_handler())
        for number in range(5):
            logger.info("record %d", number)
        shift = {shift}
        for number in range(5, 10):
            logger.info("record %d", number)
        input()
        for number in range(10, 15):
            logger.info("record %d", number)
        shift = 0
        assert handler.flush(30)
        """,
        flush_interval=0.3,
        backoff_initial=0.05,
    )

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 10)  # by the thread: nobody flushes
    program.go_on()
    ended = program.wait()
    assert (ended.returncode, ended.errors) == (0, "")
    assert [record.text for record in dis.records(STREAM)] == [f"record {number}" for number in range(15)]
    assert ended.delivered == numbered("record", 15)


def test_requests_are_signed_across_midnight_utc(dis: DISEmulator) -> None:
    """Date and scope of one signature come from one look at the clock, and the next request takes the new day."""
    moments = [MIDNIGHT - timedelta(microseconds=1), MIDNIGHT, MIDNIGHT + timedelta(seconds=1)]
    with DISEmulator(streams={STREAM: 1}, clock=lambda: MIDNIGHT) as service:
        auth = DISAuth(lambda: Credentials(service.ak, service.sk), service.region, clock=_play(moments))
        answers = [_upload(service, auth, f"record {number}") for number in range(3)]

    signed = [(answer.request.headers["X-Sdk-Date"], answer.request.headers["Authorization"]) for answer in answers]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert [date for date, _ in signed] == ["20260228T235959Z", "20260301T000000Z", "20260301T000001Z"]
    assert all(f"/{date[:8]}/" in authorization for date, authorization in signed)
    assert [record.text for record in service.records(STREAM)] == ["record 0", "record 1", "record 2"]


def _play(moments: list[datetime]) -> Callable[[], datetime]:
    remaining = iter(moments)
    return lambda: next(remaining)


def _upload(service: DISEmulator, auth: DISAuth, text: str) -> requests.Response:
    body = encode_put_records(STREAM, [(text.encode(), "app", None)])
    headers = {"Content-Type": "application/json; charset=utf-8", "Host": f"127.0.0.1:{service.port}"}
    url = f"{service.endpoint}/v2/{service.project_id}/records/"
    with requests.post(url, data=body, headers=headers, auth=auth, timeout=10) as answer:
        return answer
