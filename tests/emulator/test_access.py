"""Signatures made by Huawei's own SDKs are accepted, and anything near them is not."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dis_logging.emulator.access import Access
from dis_logging.emulator.messages import Head, RefusalError, Request

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "signing.json").read_text("utf-8"))
CREDENTIALS = VECTORS["credentials"]
NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
CASES = [
    pytest.param(vector, id=f"{scheme['id']}-{vector['name']}")
    for scheme in VECTORS["schemes"]
    for vector in scheme["vectors"]
]
SCOPED = VECTORS["schemes"][0]["vectors"][0]
TEMPORARY = VECTORS["schemes"][0]["vectors"][2]
ACCESS_ONLY = VECTORS["schemes"][1]["vectors"][0]
UNSIGNED = next(vector for vector in VECTORS["schemes"][1]["vectors"] if "unsigned-payload" in vector["name"])


def access(**changes: Any) -> Access:
    known = {
        "ak": CREDENTIALS["ak"],
        "sk": CREDENTIALS["sk"],
        "project_id": VECTORS["project_id"],
        "region": VECTORS["region"],
    }
    return Access(**{**known, **changes})


def request_of(vector: dict[str, Any], **headers: str | None) -> Request:
    """Returns the vector's request; headers are added under their names with "_" for "-", or taken away with None."""
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in vector["query"])
    changes = {name.replace("_", "-"): value for name, value in headers.items()}
    merged = {**vector["headers_signed"], "authorization": vector["authorization"], **changes}
    sent = {name: value for name, value in merged.items() if value is not None}
    head = Head(vector["method"], vector["path"] + (f"?{query}" if query else ""), sent)
    return Request(head, vector["body"].encode())


def code_of(request: Request, now: datetime = NOW, **changes: Any) -> str:
    with pytest.raises(RefusalError) as caught:
        access(**changes).verify(request, now)
    return caught.value.code


@pytest.mark.parametrize("vector", CASES)
def test_request_signed_by_an_official_sdk_is_accepted(vector: dict[str, Any]) -> None:
    access().verify(request_of(vector), NOW)


@pytest.mark.parametrize("vector", CASES)
def test_signature_with_one_character_changed_is_refused(vector: dict[str, Any]) -> None:
    changed = vector["authorization"][:-1] + ("1" if vector["authorization"][-1] == "0" else "0")

    assert code_of(request_of(vector, authorization=changed)) == "DIS.4112"


@pytest.mark.parametrize("vector", CASES)
def test_wrong_secret_key_is_refused(vector: dict[str, Any]) -> None:
    assert code_of(request_of(vector), sk="another") == "DIS.4112"


def test_changed_body_is_refused() -> None:
    request = request_of(SCOPED)

    assert code_of(Request(request.head, request.body + b" ")) == "DIS.4112"


def test_changed_query_is_refused() -> None:
    request = request_of(SCOPED)

    assert (
        code_of(Request(Head("POST", request.head.target + "?a=b", request.head.headers), request.body)) == "DIS.4112"
    )


def test_changed_signed_header_is_refused() -> None:
    assert code_of(request_of(TEMPORARY, x_sdk_version="2.0/python")) == "DIS.4112"


def test_missing_signed_header_is_refused() -> None:
    assert code_of(request_of(TEMPORARY, x_sdk_version=None)) == "DIS.4112"


def test_host_sent_with_a_port_but_signed_without_is_accepted() -> None:
    access().verify(request_of(SCOPED, host=SCOPED["host"] + ":8080"), NOW)


def test_unsigned_payload_may_be_anything() -> None:
    access().verify(Request(request_of(UNSIGNED).head, b"anything"), NOW)


def test_payload_is_not_left_out_with_a_scope() -> None:
    """Only the gateway's scheme knows UNSIGNED-PAYLOAD; a header that is not signed says nothing at all."""
    request = request_of(SCOPED, x_sdk_content_sha256="UNSIGNED-PAYLOAD")

    assert code_of(Request(request.head, b"anything")) == "DIS.4112"


@pytest.mark.parametrize("offset", [timedelta(minutes=15), timedelta(minutes=-15)])
def test_clock_may_be_a_quarter_of_an_hour_off(offset: timedelta) -> None:
    access().verify(request_of(SCOPED), NOW + offset)


@pytest.mark.parametrize("offset", [timedelta(minutes=15, seconds=1), timedelta(minutes=-15, seconds=-1)])
def test_clock_further_off_is_refused(offset: timedelta) -> None:
    assert code_of(request_of(SCOPED), NOW + offset) == "DIS.4105"


def replaced(old: str, new: str, vector: dict[str, Any] = SCOPED) -> Callable[[], Request]:
    return lambda: request_of(vector, authorization=vector["authorization"].replace(old, new))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(lambda: request_of(SCOPED, authorization=None), "DIS.4101", id="no header"),
        pytest.param(lambda: request_of(SCOPED, authorization=""), "DIS.4101", id="empty header"),
        pytest.param(lambda: request_of(SCOPED, authorization="Basic eDp5"), "DIS.4102", id="other kind"),
        pytest.param(replaced("Signature=", "Sig="), "DIS.4102", id="signature missing"),
        pytest.param(lambda: request_of(SCOPED, x_sdk_date=None), "DIS.4103", id="no date"),
        pytest.param(lambda: request_of(SCOPED, x_sdk_date="yesterday"), "DIS.4104", id="no such date"),
        pytest.param(replaced("AKEXAMPLE0123456789A", ""), "DIS.4106", id="no key"),
        pytest.param(replaced("AKEXAMPLE0123456789A", "AKEXAMPLE0123456789B"), "DIS.4107", id="unknown key"),
        pytest.param(replaced("AKEXAMPLE0123456789A", "é", ACCESS_ONLY), "DIS.4107", id="key that is not ASCII"),
        pytest.param(replaced("/dis/", "/obs/"), "DIS.4108", id="other service"),
        pytest.param(replaced("cn-north-4", "cn-north-1"), "DIS.4111", id="other region"),
        pytest.param(replaced("/20240102/", "/20240103/"), "DIS.4112", id="other day"),
        pytest.param(replaced("=host;x-sdk-date", "=x-sdk-date"), "DIS.4112", id="host not signed"),
        pytest.param(replaced("=host;x-sdk-date", "=host"), "DIS.4112", id="date not signed"),
    ],
)
def test_refusal_says_what_is_wrong(make: Callable[[], Request], code: str) -> None:
    assert code_of(make()) == code


def test_region_does_not_matter_without_a_scope() -> None:
    access(region="eu-west-101").verify(request_of(ACCESS_ONLY), NOW)


def test_temporary_keys_need_their_token() -> None:
    token = CREDENTIALS["security_token"]

    access(security_token=token).verify(request_of(TEMPORARY), NOW)

    assert code_of(request_of(SCOPED), security_token=token) == "DIS.4107"
    assert code_of(request_of(TEMPORARY), security_token="another") == "DIS.4107"


def test_auth_token_replaces_the_signature() -> None:
    request = Request(Head("POST", SCOPED["path"], {"x-auth-token": "token"}))

    access(auth_token="token").verify(request, NOW)

    assert code_of(request) == "DIS.4114"
    assert code_of(request, auth_token="another") == "DIS.4114"


def test_empty_auth_token_is_refused() -> None:
    assert code_of(Request(Head("POST", SCOPED["path"], {"x-auth-token": ""})), auth_token="token") == "DIS.4113"


def test_repr_hides_the_secrets() -> None:
    shown = repr(access(security_token="hidden-1", auth_token="hidden-2"))

    assert CREDENTIALS["sk"] not in shown
    assert "hidden" not in shown
