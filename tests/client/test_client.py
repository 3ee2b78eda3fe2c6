"""`DISClient` alone: one call is one signed attempt at the emulator, or at a server of bare sockets."""

import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from dis_logging import (
    ConfigurationError,
    Credentials,
    DISClient,
    DISError,
    NotSentError,
    ProtocolError,
    PutRecordsRequestEntry,
    ServiceError,
)
from dis_logging.client.client import _retry_after
from dis_logging.client.signing import SignatureScheme
from dis_logging.client.transport import MAX_REPLY_BYTES
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Refuse, RefuseEntries, Reply
from tests.certificates import bundle, server_context
from tests.conftest import STREAM
from tests.raw_server import Peer, RawServer, acknowledge, answer, reply_with, stored

ENTRY = PutRecordsRequestEntry("hello", "web-1")
WHERE: Any = {"region": "cn-north-4", "project_id": "0123456789abcdef0123456789abcdef", "ak": "ak", "sk": "sk"}


@pytest.fixture
def client(dis: DISEmulator) -> Iterator[DISClient]:
    with DISClient(**dis.client_options()) as client:
        yield client


# -- uploading ------------------------------------------------------------------------------------------------------


def test_the_result_reads_as_in_the_official_sample(client: DISClient) -> None:
    result = client.put_records(STREAM, [PutRecordsRequestEntry("hello", "1", explicit_hash_key="123")])

    assert result.failed_record_count == 0
    assert str(result.records[0]) == (
        "PutRecordsResultEntry [shardId=shardId-0000000000, sequenceNumber=0, errorCode=, errorMessage=]"
    )


def test_bytes_and_text_arrive_as_they_were_given(client: DISClient, dis: DISEmulator) -> None:
    everything = bytes(range(256))

    client.put_records(STREAM, [PutRecordsRequestEntry(everything), PutRecordsRequestEntry("zażółć \U0001f600\x00")])

    assert [record.data for record in dis.records(STREAM)] == [everything, "zażółć \U0001f600\x00".encode()]


def test_records_go_to_the_partition_that_was_asked_for(client: DISClient) -> None:
    result = client.put_records(STREAM, [PutRecordsRequestEntry(b"x", partition_id=f"{number}") for number in range(3)])

    assert [entry.partition_id for entry in result.records] == [f"shardId-000000000{number}" for number in range(3)]


def test_refused_records_do_not_raise(client: DISClient, dis: DISEmulator) -> None:
    dis.play(RefuseEntries("DIS.4303", where=[1]))

    result = client.put_records(STREAM, [ENTRY, ENTRY, ENTRY])

    assert result.failed_record_count == 1
    assert [entry.error_code for entry in result.records] == ["", "DIS.4303", ""]
    assert result.records[1].error_message == "Exceeded traffic control limit."


def test_requests_share_one_kept_alive_connection(client: DISClient, dis: DISEmulator) -> None:
    for _ in range(5):
        client.put_records(STREAM, [ENTRY])
    dis.play(Refuse(400, "DIS.4300"))
    with pytest.raises(ServiceError):
        client.put_records(STREAM, [ENTRY])
    client.put_records(STREAM, [ENTRY])

    assert {request.connection for request in dis.requests} == {1}


def test_threads_share_a_client(client: DISClient, dis: DISEmulator) -> None:
    def upload() -> None:
        for _ in range(5):
            client.put_records(STREAM, [ENTRY])

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert dis.record_count(STREAM) == 20
    assert {request.status for request in dis.requests} == {200}


def test_a_closed_client_opens_a_new_connection(client: DISClient, dis: DISEmulator) -> None:
    client.put_records(STREAM, [ENTRY])
    client.close()
    client.close()

    client.put_records(STREAM, [ENTRY])

    assert [request.connection for request in dis.requests] == [1, 2]


def test_one_call_is_one_attempt(client: DISClient, dis: DISEmulator) -> None:
    dis.play(Refuse(503), Refuse(503))

    with pytest.raises(ServiceError):
        client.put_records(STREAM, [ENTRY])

    assert len(dis.requests) == 1


# -- authentication -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", [scheme.value for scheme in SignatureScheme])
def test_every_signature_is_accepted(dis: DISEmulator, signature: str) -> None:
    with DISClient(**dis.client_options(), signature=signature) as client:
        client.put_records(STREAM, [ENTRY])

    (request,) = dis.requests
    assert request.authorization is not None
    assert request.authorization.scheme.value == signature
    assert {"host", "x-sdk-date", "content-type", "x-project-id"} <= set(request.authorization.signed_headers)


def test_a_temporary_key_comes_with_its_token_signed(dis: DISEmulator) -> None:
    dis.security_token = "gQpjbi1ub3J0aC00/EXAMPLE+TOKEN=="
    with DISClient(**dis.client_options()) as client:
        client.put_records(STREAM, [ENTRY])

    (request,) = dis.requests
    assert request.authorization is not None
    assert "x-security-token" in request.authorization.signed_headers


def test_a_token_replaces_the_signature(dis: DISEmulator) -> None:
    dis.auth_token = "iam-token"
    options = {name: value for name, value in dis.client_options().items() if name not in ("ak", "sk")}
    with DISClient(**options, auth_token="iam-token") as client:
        client.put_records(STREAM, [ENTRY])

    (request,) = dis.requests
    assert request.headers["x-auth-token"] == "iam-token"
    assert not {"authorization", "x-sdk-date"} & request.headers.keys()


def test_rotated_keys_need_no_new_client(dis: DISEmulator) -> None:
    """A refused key that the callable gives out again is final; a newer one is tried at once."""
    keys = [Credentials(dis.ak, "old")]
    with DISClient(**{**dis.client_options(), "credentials": lambda: keys[-1]}) as client:
        with pytest.raises(ServiceError) as raised:
            client.put_records(STREAM, [ENTRY])
        keys.append(Credentials(dis.ak, dis.sk))
        client.put_records(STREAM, [ENTRY])

    assert raised.value.status == 441
    assert [request.status for request in dis.requests] == [441, 200]
    assert dis.record_count(STREAM) == 1


def raise_with_secret() -> Credentials:
    raise RuntimeError("vault said: hidden-token")


@pytest.mark.parametrize(
    ("credentials", "message"),
    [
        (raise_with_secret, "the credentials callable raised RuntimeError"),
        (lambda: {"ak": "a", "sk": "hidden"}, "the credentials callable returned a dict, not Credentials"),
        (lambda: None, "the credentials callable returned a NoneType, not Credentials"),
    ],
    ids=["raises", "dict", "None"],
)
def test_a_credentials_callable_that_fails_sends_nothing(dis: DISEmulator, credentials: Any, message: str) -> None:
    with DISClient(**dis.client_options(), credentials=credentials) as client, pytest.raises(NotSentError) as raised:
        client.put_records(STREAM, [ENTRY])

    assert str(raised.value) == message
    assert (raised.value.__context__, raised.value.__cause__) == (None, None)
    assert dis.requests == ()


def test_netrc_never_replaces_the_signature(dis: DISEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password hidden\ndefault login someone password hidden\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    with DISClient(**dis.client_options()) as client:
        client.put_records(STREAM, [ENTRY])

    (request,) = dis.requests
    assert request.headers["authorization"].startswith("SDK-HMAC-SHA256 Credential=")


# -- refusals -------------------------------------------------------------------------------------------------------


def test_a_refusal_carries_status_code_message_and_request_id(client: DISClient, dis: DISEmulator) -> None:
    dis.play(Refuse(400, "DIS.4301", headers={"X-Request-Id": "4711", "Retry-After": "3"}))

    with pytest.raises(DISError) as raised:
        client.put_records(STREAM, [ENTRY])

    error = raised.value
    assert isinstance(error, ServiceError)
    assert (error.status, error.code, error.message) == (400, "DIS.4301", "The stream does not exist.")
    assert (error.request_id, error.retry_after) == ("4711", 3.0)
    assert str(error) == ("DIS refused the request (HTTP 400, DIS.4301): The stream does not exist. [request id 4711]")


def test_a_wrong_signature_is_refused_with_its_code(dis: DISEmulator) -> None:
    with DISClient(**{**dis.client_options(), "sk": "wrong"}) as client, pytest.raises(ServiceError) as raised:
        client.put_records(STREAM, [ENTRY])

    assert raised.value.status == 441
    assert raised.value.code.startswith("DIS.41")


def test_a_refusal_in_the_gateways_form_is_read(client: DISClient, dis: DISEmulator) -> None:
    dis.play(Refuse(401, "APIGW.0301", "no\nsuch key", gateway=True))

    with pytest.raises(ServiceError) as raised:
        client.put_records(STREAM, [ENTRY])

    assert (raised.value.status, raised.value.code, raised.value.message) == (401, "APIGW.0301", "no\\nsuch key")


@pytest.mark.parametrize("status", [201, 202, 203, 204, 206, 226])
def test_another_2xx_is_no_acknowledgement(status: int) -> None:
    body = b"" if status == 204 else stored()
    with (
        RawServer(reply_with(answer(status, body))) as server,
        DISClient(endpoint=server.endpoint, **WHERE) as client,
        pytest.raises(ProtocolError) as raised,
    ):
        client.put_records(STREAM, [ENTRY])

    assert raised.value.status == status


def test_tokens_that_a_service_quotes_are_not_shown(dis: DISEmulator) -> None:
    dis.play(Refuse(441, "DIS.4114", "X-Auth-Token hidden-token is invalid."))
    options = {name: value for name, value in dis.client_options().items() if name not in ("ak", "sk")}
    with DISClient(**options, auth_token="hidden-token") as client, pytest.raises(ServiceError) as raised:
        client.put_records(STREAM, [ENTRY])

    assert raised.value.message == "X-Auth-Token ************ is invalid."


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("9" * 400, 999_999_999.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("3, 5", None),
        ("\xb2", None),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999999999", None),
        ("Wed, 99 Oct 99999 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value: str, seconds: float | None) -> None:
    assert _retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    moment = datetime.now(timezone.utc) + timedelta(seconds=90)

    seconds = _retry_after(format_datetime(moment, usegmt=True))

    assert seconds is not None
    assert 80 < seconds <= 90


@given(st.text(max_size=40) | st.integers().map(lambda number: f"Wed, 21 Oct {number} 07:28:00 +{number}"))
def test_no_retry_after_raises(value: str) -> None:
    seconds = _retry_after(value)

    assert seconds is None or seconds >= 0


# -- garbage in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "records", "error", "field"),
    [
        (None, [ENTRY], ValueError, "stream_name"),
        (5, [ENTRY], ValueError, "stream_name"),
        ("", [ENTRY], ValueError, "stream_name"),
        ("x" * 65, [ENTRY], ValueError, "stream_name"),
        ("a/b", [ENTRY], ValueError, "stream_name"),
        (STREAM, None, TypeError, "records"),
        (STREAM, ENTRY, TypeError, "records"),
        (STREAM, [], ValueError, "records"),
        (STREAM, [ENTRY] * 10_001, ValueError, "records"),
        (STREAM, "text", TypeError, "records[0]"),
        (STREAM, [ENTRY, b"text"], TypeError, "records[1]"),
        (STREAM, [{"data": "x"}], TypeError, "records[0]"),
        (STREAM, [PutRecordsRequestEntry("")], ValueError, "records[0].data"),
        (STREAM, [PutRecordsRequestEntry(b"")], ValueError, "records[0].data"),
        (STREAM, [PutRecordsRequestEntry(None)], TypeError, "records[0].data"),  # type: ignore[arg-type]
        (STREAM, [PutRecordsRequestEntry(5)], TypeError, "records[0].data"),  # type: ignore[arg-type]
        (STREAM, [PutRecordsRequestEntry("\ud800")], ValueError, "records[0].data"),
        (STREAM, [PutRecordsRequestEntry(b"x" * (2**20 + 1))], ValueError, "records[0].data"),
        (STREAM, [PutRecordsRequestEntry("ü" * 2**20)], ValueError, "records[0].data"),
        (STREAM, [PutRecordsRequestEntry(b"x" * 2**20)] * 5, ValueError, "records"),
        (STREAM, [PutRecordsRequestEntry("x", 1)], TypeError, "records[0].partition_key"),  # type: ignore[arg-type]
        (STREAM, [PutRecordsRequestEntry("x", b"k")], TypeError, "records[0].partition_key"),  # type: ignore[arg-type]
        (
            STREAM,
            [PutRecordsRequestEntry("x", explicit_hash_key=1)],  # type: ignore[arg-type]
            TypeError,
            "records[0].explicit_hash_key",
        ),
        (STREAM, [PutRecordsRequestEntry("x", None, "-1")], ValueError, "records[0].explicit_hash_key"),
        (STREAM, [PutRecordsRequestEntry("x", None, "1e3")], ValueError, "records[0].explicit_hash_key"),
        (STREAM, [PutRecordsRequestEntry("x", None, "9223372036854775808")], ValueError, "explicit_hash_key"),
        (STREAM, [PutRecordsRequestEntry("x", None, "٣")], ValueError, "records[0].explicit_hash_key"),
        (STREAM, [PutRecordsRequestEntry("x", partition_id="first")], ValueError, "records[0].partition_id"),
        (STREAM, [PutRecordsRequestEntry("x", partition_id=0)], TypeError, "partition_id"),  # type: ignore[arg-type]
        (STREAM, [PutRecordsRequestEntry("x", timestamp=1.5)], TypeError, "timestamp"),  # type: ignore[arg-type]
        (STREAM, [PutRecordsRequestEntry("x", timestamp=True)], TypeError, "records[0].timestamp"),
    ],
)
def test_garbage_is_refused_by_name_before_anything_is_sent(
    client: DISClient, dis: DISEmulator, stream: Any, records: Any, error: type[Exception], field: str
) -> None:
    with pytest.raises(error) as raised:
        client.put_records(stream, records)

    assert field in str(raised.value)
    assert len(str(raised.value)) < 300
    assert dis.requests == ()


def test_the_largest_record_and_hash_key_are_taken(client: DISClient, dis: DISEmulator) -> None:
    entry = PutRecordsRequestEntry(b"x" * 2**20, explicit_hash_key="9223372036854775807", timestamp=1)

    result = client.put_records("  app-logs ", (each for each in [entry]))

    assert (result.failed_record_count, dis.record_count(STREAM)) == (0, 1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("request_timeout", 0),
        ("request_timeout", "soon"),
        ("request_timeout", float("nan")),
        ("signature", "none"),
        ("verify", "/no/such/bundle.pem"),
        ("verify", None),
        ("verify", 5),
        ("proxies", "http://proxy:3128"),
        ("proxies", {"https": None}),
        ("credentials", "ak:sk"),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option} must"):
        DISClient(**{**WHERE, option: value})


@pytest.mark.parametrize(
    ("proxies", "told"),
    [
        ({"https": "proxy:port"}, "proxies['https'] must be a URL such as http://proxy:3128"),
        ({"https": "ftp://proxy"}, "proxies['https'] must be a URL such as http://proxy:3128"),
        ({"htps": "http://proxy"}, "proxies['htps'] is for no request; did you mean https?"),
        (
            {"all": "socks5://proxy"},
            "proxies['all'] is a SOCKS proxy, for which a library is missing: pip install pysocks",
        ),
    ],
)
def test_a_proxy_that_could_not_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, proxies: dict[str, str], told: str
) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)  # as if it could not be imported

    with pytest.raises(ConfigurationError) as refused:
        DISClient(**WHERE, proxies=proxies)

    assert str(refused.value) == told


def test_proxies_may_be_for_a_host_or_for_nothing() -> None:
    """As `urllib.request.getproxies` may give them."""
    proxies = {"all://dis.example.com": "HTTP://proxy:3128", "https": "", "no_proxy": "here", "no": "there", "ftp": "x"}
    DISClient(**WHERE, proxies=proxies).close()


def test_a_proxy_needs_no_scheme(proxy: RawServer) -> None:
    proxies = {"http": f"localhost:{proxy.port}"}
    with DISClient(endpoint=ELSEWHERE, allow_http=True, proxies=proxies, **WHERE) as client:
        client.put_records(STREAM, [ENTRY])

    assert len(proxy.heads) == 1


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="retries"):
        DISClient(**WHERE, retries=3)  # type: ignore[call-arg] # wrong on purpose


# -- as in requests -------------------------------------------------------------------------------------------------


@pytest.fixture
def secure_dis() -> Iterator[tuple[DISEmulator, trustme.CA]]:
    """A local DIS with TLS, and the only authority that vouches for it."""
    ca = trustme.CA()
    with DISEmulator(streams={STREAM: 1}, tls=server_context(ca)) as dis:
        yield dis, ca


def test_a_certificate_is_verified_unless_told_otherwise(secure_dis: tuple[DISEmulator, trustme.CA]) -> None:
    dis, _ = secure_dis
    with DISClient(**dis.client_options()) as client, pytest.raises(NotSentError, match="certificate refused"):
        client.put_records(STREAM, [ENTRY])

    assert dis.requests == ()


def test_verify_names_the_authority_to_trust(secure_dis: tuple[DISEmulator, trustme.CA], tmp_path: Path) -> None:
    dis, ca = secure_dis
    with DISClient(**dis.client_options(), verify=bundle(ca, tmp_path)) as client:
        client.put_records(STREAM, [ENTRY])
        client.put_records(STREAM, [ENTRY])

    assert {request.connection for request in dis.requests} == {1}


@pytest.mark.parametrize("verify", [False, "false", "0"])
def test_verification_can_be_switched_off(secure_dis: tuple[DISEmulator, trustme.CA], verify: bool | str) -> None:
    """In silence, which shows here as warnings are errors: it was somebody's choice, and no warning may cost a record."""
    dis, _ = secure_dis
    with DISClient(**dis.client_options(), verify=verify) as client:
        client.put_records(STREAM, [ENTRY])

    assert dis.record_count(STREAM) == 1


def test_requests_ca_bundle_is_the_default_authority(
    secure_dis: tuple[DISEmulator, trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dis, ca = secure_dis
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle(ca, tmp_path))
    with DISClient(**dis.client_options()) as client:
        client.put_records(STREAM, [ENTRY])

    assert dis.record_count(STREAM) == 1


def test_requests_ca_bundle_does_not_override_verify(
    secure_dis: tuple[DISEmulator, trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dis, ca = secure_dis
    mine, others = bundle(ca, tmp_path, "mine.pem"), bundle(trustme.CA(), tmp_path, "others.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", others)
    with DISClient(**dis.client_options(), verify=mine) as client:
        client.put_records(STREAM, [ENTRY])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", mine)
    with DISClient(**dis.client_options(), verify=others) as client, pytest.raises(NotSentError):
        client.put_records(STREAM, [ENTRY])

    assert dis.record_count(STREAM) == 1


ELSEWHERE = "http://dis.example.com"  # never looked up: a proxy does that


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A proxy that plays the service itself, and no proxies in the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with RawServer(acknowledge) as server:
        yield server


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_proxy_of_the_environment_is_used(proxy: RawServer, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, proxy.endpoint)
    with DISClient(endpoint=ELSEWHERE, allow_http=True, **WHERE) as client:
        client.put_records(STREAM, [ENTRY])

    assert proxy.heads[0].startswith(b"POST http://dis.example.com/v2/")


def test_proxies_go_before_the_environment(proxy: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(lambda peer: peer.reset()) as other:
        monkeypatch.setenv("http_proxy", other.endpoint)
        with DISClient(endpoint=ELSEWHERE, allow_http=True, proxies={"http": proxy.endpoint}, **WHERE) as client:
            client.put_records(STREAM, [ENTRY])

        assert (len(proxy.heads), other.connections) == (1, 0)


def test_no_proxy_is_obeyed(proxy: RawServer, dis: DISEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy.endpoint)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with DISClient(**dis.client_options(), proxies={}) as client:
        client.put_records(STREAM, [ENTRY])

    assert (proxy.connections, dis.record_count(STREAM)) == (0, 1)


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    proxy: RawServer, dis: DISEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.endpoint)
    with DISClient(**dis.client_options()) as client:
        client.put_records(STREAM, [ENTRY])

    assert (proxy.connections, dis.record_count(STREAM)) == (0, 1)


def test_a_proxy_that_was_asked_for_is_used_for_this_machine_too(proxy: RawServer, dis: DISEmulator) -> None:
    with DISClient(**dis.client_options(), proxies={"http": proxy.endpoint}) as client:
        client.put_records(STREAM, [ENTRY])

    assert (len(proxy.heads), dis.record_count(STREAM)) == (1, 0)


def test_the_password_of_a_proxy_is_sent_to_it(proxy: RawServer) -> None:
    proxies = {"http": f"http://user:word@127.0.0.1:{proxy.port}"}
    with DISClient(endpoint=ELSEWHERE, allow_http=True, proxies=proxies, **WHERE) as client:
        client.put_records(STREAM, [ENTRY])

    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in proxy.heads[0]


def test_cookies_are_not_kept() -> None:
    def script(peer: Peer) -> None:
        for _ in range(2):
            peer.read_request()
            peer.send(answer(200, stored(), "Set-Cookie: session=1; Path=/\r\n"))

    with RawServer(script) as server, DISClient(endpoint=server.endpoint, **WHERE) as client:
        client.put_records(STREAM, [ENTRY])
        client.put_records(STREAM, [ENTRY])

    assert b"cookie" not in server.heads[1].lower()


@pytest.mark.parametrize(
    "fault",
    [
        Reply(raw=b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\n{"),
        Reply(status=401, headers={"Content-Encoding": "gzip"}, body=b"no gzip"),
        Reply(status=401, body=b"x" * (MAX_REPLY_BYTES + 1)),
    ],
    ids=["truncated", "wrongly encoded", "too long"],
)
def test_a_refusal_whose_text_cannot_be_read_is_still_a_refusal(dis: DISEmulator, fault: Reply) -> None:
    dis.play(fault)
    with DISClient(**dis.client_options()) as client:
        with pytest.raises(ServiceError) as raised:
            client.put_records(STREAM, [ENTRY])
        client.put_records(STREAM, [ENTRY])

    assert raised.value.status == 401
    assert dis.record_count(STREAM) == 1
