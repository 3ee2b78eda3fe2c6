"""Where credentials come from: an option, the environment, a profile file, or whoever the user names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dis_logging import options
from dis_logging.client.credentials import AuthToken, Credentials, CredentialsSource
from dis_logging.client.origins import ECS, Origins
from dis_logging.errors import ConfigurationError, MissingOptionError

_ECS = "ecs"


def find_credentials(
    ak: str | None,
    sk: str | None,
    security_token: str | None,
    auth_token: str | None,
    credentials: Any,
    origins: Origins | None = None,
) -> CredentialsSource:
    """
    Returns a callable that gives the current credentials; it is asked at every attempt.

    Order: *credentials*; *auth_token*; *ak* and *sk*; ``DIS_LOGGING_AUTH_TOKEN``; ``DIS_LOGGING_AK`` and ``DIS_LOGGING_SK``;
    ``HUAWEICLOUD_SDK_AK`` and ``HUAWEICLOUD_SDK_SK``; the profile file (see `read_profile`). A security token is taken from
    where the secret key comes from, never from elsewhere: DIS refuses a permanent pair with another pair's token.

    Args:
        credentials: a callable that returns `Credentials`; an object with attributes ``ak``, ``sk`` and
            ``security_token``, such as huaweicloudsdkcore's, or a callable that returns one; or ``"ecs"`` for
            `ECSCredentials`. The metadata service is asked only on demand: on any other machine it costs seconds to
            learn that there is none, and a forgotten key should be told at once.
        origins: gets to know where each of them came from.

    Raises:
        ConfigurationError: when none of them is complete, naming what is missing.
    """
    origins = Origins() if origins is None else origins
    if origins.option("credentials", credentials):
        if credentials == _ECS:
            origins["credentials"] = ECS
        return _source_of(credentials)
    if not origins.option("auth_token", auth_token) and ak is None and sk is None:
        auth_token = origins.environment("auth_token", "DIS_LOGGING_AUTH_TOKEN")
    if auth_token is not None:
        token = AuthToken(options.secret("auth_token", auth_token))
        return lambda: token
    pair = _find_pair(ak, sk, security_token, origins)
    return lambda: pair


def _source_of(credentials: Any) -> CredentialsSource:
    if credentials == _ECS:
        from dis_logging.client.metadata import ECSCredentials  # which few programs need

        return ECSCredentials()
    if callable(credentials):
        return credentials  # type: ignore[no-any-return] # what it returns is checked at every call
    if is_key_pair(credentials):
        return lambda: as_credentials(credentials)
    raise ConfigurationError(
        f"credentials must be a callable, an object with ak and sk, or {_ECS!r}, not {type(credentials).__name__}"
    )


def is_key_pair(value: object) -> bool:
    """Returns whether *value* looks like credentials, ours or those of huaweicloudsdkcore."""
    return hasattr(value, "ak") and hasattr(value, "sk")


def as_credentials(value: Any) -> Credentials | AuthToken:
    """Returns *value*, one of our own classes or what `is_key_pair` accepts, as one of our own classes."""
    if isinstance(value, Credentials | AuthToken):
        return value
    return Credentials(value.ak, value.sk, getattr(value, "security_token", None) or "")


def _find_pair(ak: str | None, sk: str | None, security_token: str | None, origins: Origins) -> Credentials:
    origins.option("security_token", security_token)
    if not origins.option("sk", sk):
        sk, security_token = _find_secret(security_token, origins)
    if not origins.option("ak", ak):
        ak = origins.environment("ak", "DIS_LOGGING_AK", "HUAWEICLOUD_SDK_AK") or origins.profile("ak")
    for name, value in (("ak", ak), ("sk", sk)):
        if value is None:
            raise MissingOptionError(name, f"DIS_LOGGING_{name.upper()}", f"HUAWEICLOUD_SDK_{name.upper()}")
    return Credentials(ak or "", sk or "", security_token or "")


def _find_secret(security_token: str | None, origins: Origins) -> tuple[str | None, str | None]:
    """Returns the secret key and the security token that comes from the same place."""
    for prefix in ("DIS_LOGGING_", "HUAWEICLOUD_SDK_"):
        sk = origins.environment("sk", prefix + "SK")
        if sk is not None:
            return sk, security_token or origins.environment("security_token", prefix + "SECURITY_TOKEN")
    return origins.profile("sk"), security_token or origins.profile("security_token")


def renew(source: Callable[[], Any]) -> None:
    """Makes a *source* that keeps its keys for a while fetch them anew, if it can."""
    refresh = getattr(source, "refresh", None)
    if callable(refresh):
        refresh()
