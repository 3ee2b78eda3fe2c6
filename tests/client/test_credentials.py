"""Where keys come from, and that nothing shows them."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from dis_logging import ConfigurationError, Credentials, DISClient
from dis_logging.client.credentials import AuthToken, CredentialsSource
from dis_logging.client.sources import find_credentials

VARIABLES = [
    f"{prefix}_{name}"
    for prefix in ("DIS_LOGGING", "HUAWEICLOUD_SDK")
    for name in ("AK", "SK", "SECURITY_TOKEN", "AUTH_TOKEN")
]


@pytest.fixture(autouse=True)
def _no_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def find(
    ak: str | None = None,
    sk: str | None = None,
    security_token: str | None = None,
    auth_token: str | None = None,
    credentials: Any = None,
) -> CredentialsSource:
    return find_credentials(ak, sk, security_token, auth_token, credentials)


def found(source: CredentialsSource) -> tuple[str, ...]:
    value = source()
    return (value.value,) if isinstance(value, AuthToken) else (value.ak, value.sk, value.security_token)


# -- precedence -----------------------------------------------------------------------------------------------------


def test_options_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "environment")

    assert found(find("ak", "sk")) == ("ak", "sk", "")


def test_our_variables_go_before_huaweis(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AK", "SK", "SECURITY_TOKEN"):
        monkeypatch.setenv(f"DIS_LOGGING_{name}", f"ours-{name}")
        monkeypatch.setenv(f"HUAWEICLOUD_SDK_{name}", f"huawei-{name}")

    assert found(find()) == ("ours-AK", "ours-SK", "ours-SECURITY_TOKEN")


def test_huaweis_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AK", "SK", "SECURITY_TOKEN"):
        monkeypatch.setenv(f"HUAWEICLOUD_SDK_{name}", name)

    assert found(find()) == ("AK", "SK", "SECURITY_TOKEN")


@pytest.mark.parametrize("source", ["option", "DIS_LOGGING", "HUAWEICLOUD_SDK"])
def test_a_token_comes_from_where_the_secret_key_comes_from(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A permanent pair with the token of another pair would be refused by DIS."""
    for prefix in ("DIS_LOGGING", "HUAWEICLOUD_SDK"):
        monkeypatch.setenv(f"{prefix}_SECURITY_TOKEN", f"token of {prefix}")
    if source != "option":
        monkeypatch.setenv(f"{source}_AK", "ak")
        monkeypatch.setenv(f"{source}_SK", "sk")

    pair = found(find("ak", "sk") if source == "option" else find())

    assert pair == ("ak", "sk", "" if source == "option" else f"token of {source}")


def test_an_auth_token_in_the_environment_goes_before_keys_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIS_LOGGING_AUTH_TOKEN", "iam")
    monkeypatch.setenv("DIS_LOGGING_AK", "ak")
    monkeypatch.setenv("DIS_LOGGING_SK", "sk")

    assert found(find()) == ("iam",)
    assert found(find("my-ak", "my-sk")) == ("my-ak", "my-sk", "")


def test_a_callable_goes_before_everything_and_is_asked_each_time() -> None:
    keys = iter([Credentials("first", "sk"), Credentials("second", "sk")])

    source = find("ak", "sk", "token", "iam", lambda: next(keys))

    assert [found(source)[0], found(source)[0]] == ["first", "second"]


def test_an_auth_token_goes_before_keys() -> None:
    assert found(find("ak", "sk", "token", "iam")) == ("iam",)


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIS_LOGGING_SK", "")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "sk")

    assert found(find("ak")) == ("ak", "sk", "")


# -- what is wrong is said at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ak", "sk", "missing"), [(None, None, "ak"), (None, "sk", "ak"), ("ak", None, "sk")])
def test_a_missing_key_is_named_with_its_variables(ak: str | None, sk: str | None, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{missing} is missing.*DIS_LOGGING_{missing.upper()}"):
        find(ak, sk)


@pytest.mark.parametrize("value", ["  ", "a\nb", "a\x00b", "ключ", "a\u2028b", 5, b"bytes"])
@pytest.mark.parametrize("name", ["ak", "sk", "security_token", "auth_token"])
def test_a_value_unfit_for_a_header_is_refused_by_name(name: str, value: Any) -> None:
    values = {"ak": "good", "sk": "good", name: value}

    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        find(**values)


@pytest.mark.parametrize("name", ["ak", "sk", "auth_token"])
def test_an_empty_key_is_refused_by_name(name: str) -> None:
    values = {"ak": "good", "sk": "good", name: ""}

    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        find(**values)


def test_white_space_around_keys_is_dropped() -> None:
    """A trailing newline from a mounted file is the commonest reason for a bad signature."""
    assert Credentials(" ak\n", "sk\r\n", "\ttoken ") == Credentials("ak", "sk", "token")


def test_what_gives_no_credentials_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^credentials must be a callable, an object with ak and sk, .* not int"
    ):
        find(credentials=42)


# -- nothing shows them ---------------------------------------------------------------------------------------------

SECRET = "secret-0123456789"


@pytest.mark.parametrize(
    "make", [lambda: Credentials("ak", SECRET, SECRET), lambda: AuthToken(SECRET)], ids=["Credentials", "AuthToken"]
)
def test_credentials_are_not_shown_and_not_pickled(make: Callable[[], object]) -> None:
    credentials = make()

    assert SECRET not in repr(credentials)
    assert SECRET not in str(credentials)
    assert SECRET not in f"{credentials}"
    assert not hasattr(credentials, "__dict__")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(credentials, protocol)


def test_a_copy_is_the_object_itself() -> None:
    credentials = Credentials("ak", SECRET)

    assert copy.copy(credentials) is credentials
    assert copy.deepcopy({"keys": credentials})["keys"] is credentials


def test_a_client_is_not_pickled_and_its_attributes_show_no_secret() -> None:
    client = DISClient(region="r", project_id="p", ak="ak", sk=SECRET, security_token=SECRET)

    assert SECRET not in repr(client)
    assert SECRET not in repr(vars(client))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(client)
