"""Where requests go: the rules for endpoint, region, project and stream."""

from typing import Any

import pytest

from dis_logging import ConfigurationError
from dis_logging.client.target import Target, check_endpoint, check_stream_name, find_target


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIS_LOGGING_ENDPOINT", "DIS_LOGGING_REGION", "DIS_LOGGING_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HUAWEICLOUD_SDK_REGION", "HUAWEICLOUD_SDK_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


PASSWORD = r"^endpoint must not contain"
PARAMETERS = r"^endpoint .* with parameters"


def find(
    endpoint: Any = None,
    region: Any = "cn-north-4",
    project_id: Any = "p",
    stream_id: Any = None,
    allow_http: Any = False,
) -> Target:
    return find_target(endpoint, region, project_id, stream_id, allow_http)


# -- endpoint -------------------------------------------------------------------------------------------------------


def test_the_endpoint_follows_from_the_region() -> None:
    target = find()

    assert target.endpoint == "https://dis.cn-north-4.myhuaweicloud.com"
    assert target.records_url == "https://dis.cn-north-4.myhuaweicloud.com/v2/p/records/"
    assert target.host == "dis.cn-north-4.myhuaweicloud.com"


@pytest.mark.parametrize(
    ("given", "endpoint", "host"),
    [
        ("https://dis.example.com", "https://dis.example.com", "dis.example.com"),
        ("https://dis.example.com/", "https://dis.example.com", "dis.example.com"),
        ("dis.example.com", "https://dis.example.com", "dis.example.com"),
        ("dis.example.com:20004/dis-gw/", "https://dis.example.com:20004/dis-gw", "dis.example.com:20004"),
        ("https://dis.example.com:443", "https://dis.example.com:443", "dis.example.com"),
        ("http://localhost:80", "http://localhost:80", "localhost"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ("  https://dis.example.com\n", "https://dis.example.com", "dis.example.com"),
    ],
)
def test_an_endpoint_is_taken(given: str, endpoint: str, host: str) -> None:
    target = find(given)

    assert (target.endpoint, target.host) == (endpoint, host)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        " ",
        5,
        b"https://dis.example.com",
        "ftp://dis.example.com",
        "https://",
        "https://:443",
        "https:///path",
        "https://dis.example.com:port",
        "https://dis.example.com:99999",
        "https://dis.example.com:0",
        "https://[::1",
        "https://dis example.com",
        "https://dis.exa\nmple.com",
        "https://dis.example.com/a b",
        "https://dis.example.com\\.evil.com",
        "https://dis.example.com?x=1",
        "https://dis.example.com#x",
        "https://dís.example.com",
        "https:/dis.example.com",
        "file:///etc/passwd",
    ],
)
def test_a_malformed_endpoint_is_refused_by_name(endpoint: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^endpoint "):
        find(endpoint)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("https://user:hidden@dis.example.com", PASSWORD),
        ("https://user:hidden@dis.example.com:port", PASSWORD),
        ("https://user:hidden@[::1", PASSWORD),
        ("ftp://user:hidden@dis.example.com", PASSWORD),
        ("user:hidden@dis.example.com", PASSWORD),
        ("https://hidden@dis.example.com", PASSWORD),
        ("http://dis.example.com?sk=hidden", PARAMETERS),
        ("https://dis.example.com/?sk=hidden", PARAMETERS),
        ("https://dis.example.com#hidden", PARAMETERS),
        ("https://[::1?sk=hidden", PARAMETERS),
        ("ftp://dis.example.com/x?sk=hidden#hidden", PARAMETERS),
    ],
)
def test_an_endpoint_that_may_hold_a_secret_is_refused_without_showing_it(endpoint: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        find(endpoint)

    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:1", "http://localhost", "HTTP://dis.localhost:8080"],
)
def test_plain_http_to_this_machine_needs_no_leave(endpoint: str) -> None:
    assert find(endpoint).is_loopback


@pytest.mark.parametrize(
    "endpoint",
    ["http://dis.example.com", "http://10.0.0.1", "http://0.0.0.0", "http://localhost.example.com", "http://[::2]"],
)
def test_plain_http_to_another_machine_needs_leave(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^endpoint .*clear text.*allow_http=True"):
        find(endpoint)

    assert find(endpoint, allow_http=True).endpoint == endpoint
    assert find(endpoint, allow_http="yes").endpoint == endpoint
    assert not find(endpoint, allow_http=True).is_loopback


def test_an_unclear_allow_http_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^allow_http must be true or false"):
        find(allow_http="perhaps")


def test_a_checked_endpoint_passes_again() -> None:
    endpoint = check_endpoint("dis.example.com/")

    assert check_endpoint(endpoint) == endpoint


# -- region, project, stream ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["region", "project_id"])
def test_a_missing_option_is_named_with_its_variables(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} is missing.*DIS_LOGGING_{name.upper()}"):
        find(**{name: None})


@pytest.mark.parametrize("name", ["region", "project_id", "stream_id"])
@pytest.mark.parametrize("value", ["", " ", "a b", "a/b", "../a", "a\nb", "ä", "x" * 65, 5])
def test_a_malformed_option_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        find(**{name: value})


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_REGION", "huaweis")
    monkeypatch.setenv("HUAWEICLOUD_SDK_PROJECT_ID", "huaweis")
    monkeypatch.setenv("DIS_LOGGING_PROJECT_ID", "ours")
    monkeypatch.setenv("DIS_LOGGING_ENDPOINT", "https://dis.example.com/")

    target = find(region=None, project_id=None)

    assert (target.region, target.project_id, target.endpoint) == ("huaweis", "ours", "https://dis.example.com")


def test_a_malformed_variable_is_refused_as_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIS_LOGGING_REGION", "not a region")

    with pytest.raises(ConfigurationError, match=r"^region must be"):
        find(region=None)


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 64])
def test_a_stream_name_is_taken(name: str) -> None:
    assert check_stream_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a b", "a/b", "a\nb", "ä", "a.b", None, 5, b"a"])
def test_a_stream_name_that_dis_does_not_allow_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^stream_name must be"):
        check_stream_name(name)
