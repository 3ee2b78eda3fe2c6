"""Keys that are not simply options: objects, profile files, a server's metadata; and what is made of a refusal."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dis_logging import (
    ConfigurationError,
    Credentials,
    DISClient,
    ECSCredentials,
    NotSentError,
    PutRecordsRequestEntry,
    ServiceError,
)
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Refuse

STREAM = "app-logs"
ENTRY = PutRecordsRequestEntry(data=b"x", partition_key="k")


def options_without_keys(dis: DISEmulator) -> dict[str, Any]:
    return {name: value for name, value in dis.client_options().items() if name not in ("ak", "sk")}


def put_one(dis: DISEmulator, **options: Any) -> None:
    with DISClient(**{**options_without_keys(dis), **options}) as client:
        client.put_records(STREAM, [ENTRY])


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The profile file, not yet there, and an environment without keys."""
    for name in ("AK", "SK", "SECURITY_TOKEN", "AUTH_TOKEN", "PROJECT_ID"):
        monkeypatch.delenv(f"DIS_LOGGING_{name}", raising=False)
        monkeypatch.delenv(f"HUAWEICLOUD_SDK_{name}", raising=False)
    monkeypatch.delenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    file = tmp_path / ".huaweicloud" / "credentials"
    file.parent.mkdir()
    return file


# -- objects --------------------------------------------------------------------------------------------------------


class SDKCredentials:
    """Has the attributes of huaweicloudsdkcore's BasicCredentials."""

    def __init__(self, ak: str, sk: str, security_token: str | None = None) -> None:
        self.ak = ak
        self.sk = sk
        self.security_token = security_token


def test_an_object_with_keys_is_accepted_as_it_is(dis: DISEmulator) -> None:
    put_one(dis, credentials=SDKCredentials(dis.ak, dis.sk))

    assert dis.record_count(STREAM) == 1


def test_a_callable_may_return_such_an_object(dis: DISEmulator) -> None:
    dis.security_token = "token"
    put_one(dis, credentials=lambda: SDKCredentials(dis.ak, dis.sk, "token"))

    assert dis.record_count(STREAM) == 1


def test_an_object_whose_keys_are_renewed_is_read_at_every_attempt(dis: DISEmulator) -> None:
    keys = SDKCredentials(dis.ak, "old")
    with DISClient(**options_without_keys(dis), credentials=keys) as client:
        with pytest.raises(ServiceError):
            client.put_records(STREAM, [ENTRY])
        keys.sk = dis.sk
        client.put_records(STREAM, [ENTRY])

    assert dis.record_count(STREAM) == 1


# -- the profile file -----------------------------------------------------------------------------------------------


def test_the_profile_file_is_read_after_the_environment(
    dis: DISEmulator, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile.write_text(f"[basic]\nak = {dis.ak}\nsk = {dis.sk}\nproject_id = {dis.project_id}\n")
    options = {name: value for name, value in options_without_keys(dis).items() if name != "project_id"}
    with DISClient(**options) as client:
        client.put_records(STREAM, [ENTRY])
    monkeypatch.setenv("DIS_LOGGING_AK", dis.ak)
    monkeypatch.setenv("DIS_LOGGING_SK", "wrong")
    with DISClient(**options) as client, pytest.raises(ServiceError):
        client.put_records(STREAM, [ENTRY])

    assert dis.record_count(STREAM) == 1


def test_the_variable_of_the_sdks_names_another_profile_file(
    dis: DISEmulator, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dis.security_token = "token"
    other = tmp_path / "other"
    other.write_text(f"[basic]\nak = {dis.ak}\nsk = {dis.sk}\nsecurity_token = token\n")
    monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", str(other))
    put_one(dis)

    assert dis.record_count(STREAM) == 1


def test_without_any_keys_the_missing_one_is_named(dis: DISEmulator, profile: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^ak is missing"):
        put_one(dis)


def test_a_broken_profile_file_is_told_without_its_content(dis: DISEmulator, profile: Path) -> None:
    profile.write_text("[basic\nsk = hidden-key\n")
    with pytest.raises(ConfigurationError, match="profile file") as raised:
        put_one(dis)

    assert "hidden-key" not in str(raised.value)


# -- the metadata service -------------------------------------------------------------------------------------------


class Metadata:
    """A stand-in for the metadata service; counts how often keys are fetched."""

    def __init__(self, ak: str, sk: str) -> None:
        self.ak = ak
        self.sk = sk
        self.lifetime = timedelta(hours=24)
        self.has_token_mode = True
        self.is_broken = False
        self.fetched = 0

    def answer_put(self) -> tuple[int, bytes]:
        """Answers a request for a token."""
        return (200, b"metadata-token") if self.has_token_mode else (404, b"")

    def answer_get(self, token: str | None) -> tuple[int, bytes]:
        """Answers a request for keys."""
        if self.is_broken:
            return 500, b""
        if self.has_token_mode and token != "metadata-token":
            return 401, b""
        self.fetched += 1
        expires = (datetime.now(timezone.utc) + self.lifetime).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        keys = {"access": self.ak, "secret": self.sk, "securitytoken": "token", "expires_at": expires}
        return 200, json.dumps({"credential": keys}).encode()


@pytest.fixture
def metadata(dis: DISEmulator) -> Metadata:
    """What the metadata service grants: keys that the local DIS accepts."""
    dis.security_token = "token"
    return Metadata(dis.ak, dis.sk)


@pytest.fixture
def metadata_endpoint(metadata: Metadata) -> Iterator[str]:
    """The URL of the stand-in."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._send(*metadata.answer_put())

        def do_GET(self) -> None:
            self._send(*metadata.answer_get(self.headers["X-Metadata-Token"]))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("has_token_mode", [True, False])
def test_keys_of_the_server_are_fetched_once_and_used(
    dis: DISEmulator, metadata: Metadata, metadata_endpoint: str, has_token_mode: bool
) -> None:
    metadata.has_token_mode = has_token_mode
    with DISClient(**options_without_keys(dis), credentials=ECSCredentials(metadata_endpoint)) as client:
        for _ in range(3):
            client.put_records(STREAM, [ENTRY])

    assert dis.record_count(STREAM) == 3
    assert metadata.fetched == 1


def test_keys_are_fetched_again_before_they_expire(metadata: Metadata, metadata_endpoint: str) -> None:
    now = datetime.now(timezone.utc).timestamp()
    moment = [now]
    source = ECSCredentials(metadata_endpoint, clock=lambda: moment[0])
    fetched = []
    for hours in (0, 23, 23.5):
        moment[0] = now + hours * 3600
        source()
        fetched.append(metadata.fetched)

    assert fetched == [1, 1, 2]


def test_keys_that_still_hold_are_used_while_the_service_is_broken(metadata: Metadata, metadata_endpoint: str) -> None:
    now = datetime.now(timezone.utc).timestamp()
    moment = [now]
    source = ECSCredentials(metadata_endpoint, clock=lambda: moment[0])
    first = source()
    metadata.is_broken = True
    moment[0] = now + 23.5 * 3600
    second = source()
    moment[0] = now + 25 * 3600

    assert second == first
    with pytest.raises(NotSentError, match="metadata service"):
        source()


def test_refused_keys_are_fetched_once_more(dis: DISEmulator, metadata: Metadata, metadata_endpoint: str) -> None:
    metadata.sk = "revoked"
    source = ECSCredentials(metadata_endpoint)
    source()
    metadata.sk = dis.sk
    put_one(dis, credentials=source)

    assert [request.status for request in dis.requests] == [441, 200]
    assert metadata.fetched == 2


def test_keys_that_stay_refused_cost_one_request(dis: DISEmulator, metadata: Metadata, metadata_endpoint: str) -> None:
    metadata.sk = "revoked"
    with pytest.raises(ServiceError, match=r"441, DIS\.4112"):
        put_one(dis, credentials=ECSCredentials(metadata_endpoint))

    assert [request.status for request in dis.requests] == [441]


def test_a_server_without_an_agency_is_told_so(dis: DISEmulator, metadata: Metadata, metadata_endpoint: str) -> None:
    metadata.is_broken = True
    with pytest.raises(NotSentError, match="is an agency assigned to this server"):
        put_one(dis, credentials=ECSCredentials(metadata_endpoint))


def test_ecs_may_be_asked_for_by_name(dis: DISEmulator) -> None:
    with DISClient(**options_without_keys(dis), credentials="ecs"):
        pass  # nothing is fetched before the first attempt


# -- the clock ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-30, 1])
def test_a_wrong_clock_is_corrected_by_the_service_once_and_for_all(hours: float) -> None:
    def clock() -> datetime:
        return datetime.now(timezone.utc) + timedelta(hours=hours)

    with DISEmulator(streams={STREAM: 1}, clock=clock) as dis, DISClient(**dis.client_options()) as client:
        client.put_records(STREAM, [ENTRY])
        client.put_records(STREAM, [ENTRY])

        assert [request.error_code for request in dis.requests] == ["DIS.4105", "", ""]


@pytest.mark.parametrize("date", [None, "no date", "now"])
def test_a_clock_that_cannot_be_corrected_costs_one_request(dis: DISEmulator, date: str | None) -> None:
    """Without a Date, or with one that agrees with our clock, another signature would be refused as well."""
    if date == "now":  # not when the tests are collected, which may be minutes before
        date = format_datetime(datetime.now(timezone.utc), usegmt=True)
    dis.play(Refuse(441, "DIS.4105", headers={"Date": date}))
    with pytest.raises(ServiceError, match=r"DIS\.4105"):
        put_one(dis, credentials=lambda: Credentials(dis.ak, dis.sk))

    assert len(dis.requests) == 1


def test_credentials_of_huaweis_own_package_are_accepted(dis: DISEmulator, tmp_path: Path) -> None:
    """In a process of its own: importing huaweicloudsdkcore writes a file into the home directory."""
    if find_spec("huaweicloudsdkcore") is None:
        pytest.skip("comes with huaweicloudsdkdis")
    program = """
import json, sys
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from dis_logging import DISClient, PutRecordsRequestEntry
options = json.loads(sys.argv[1])
keys = BasicCredentials(options.pop("ak"), options.pop("sk"), options["project_id"])
with DISClient(**options, credentials=keys) as client:
    client.put_records("app-logs", [PutRecordsRequestEntry(data=b"x")])
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", program, json.dumps(dis.client_options())], env=environment, check=True, timeout=60
    )

    assert dis.record_count(STREAM) == 1
