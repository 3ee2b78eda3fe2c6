"""Who is asking: access keys or a token, and where they come from. Nothing here shows a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dis_logging import options
from dis_logging.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    An access key pair, temporary when it comes with a security token.

    Neither `repr` nor a traceback shows *sk* or *security_token*, and the object refuses to be pickled; a copy is the
    object itself. Instances never change, so threads may share them.

    Args:
        ak: access key id; appears in every signature, so it is no secret.
        sk: secret access key.
        security_token: of a temporary pair; empty for a permanent one.

    Raises:
        ConfigurationError: when one of them is empty or unfit for an HTTP header.
    """

    ak: str
    sk: str = field(repr=False)
    security_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        # Java's SDK trims keys too: a trailing newline from a mounted file is the commonest reason for a bad signature.
        object.__setattr__(self, "ak", options.secret("ak", self.ak))
        object.__setattr__(self, "sk", options.secret("sk", self.sk))
        if self.security_token:
            object.__setattr__(self, "security_token", options.secret("security_token", self.security_token))

    def __reduce__(self) -> NoReturn:
        raise TypeError("Credentials hold a secret key and cannot be pickled; make them anew in the other process")

    def __copy__(self) -> Credentials:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Credentials:
        return self


@dataclass(frozen=True, slots=True)
class AuthToken:
    """An IAM user token, sent as X-Auth-Token instead of a signature; DIS accepts one for 24 hours."""

    value: str = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an IAM token is a secret and cannot be pickled")


CredentialsSource = Callable[[], Credentials | AuthToken]


def find_credentials(
    ak: str | None,
    sk: str | None,
    security_token: str | None,
    auth_token: str | None,
    credentials: Callable[[], Credentials] | None,
) -> CredentialsSource:
    """
    Returns a callable that gives the current credentials; it is asked at every attempt.

    Order: the *credentials* callable; *auth_token*; *ak* and *sk*; ``DIS_LOGGING_AUTH_TOKEN``; ``DIS_LOGGING_AK`` and
    ``DIS_LOGGING_SK``; ``HUAWEICLOUD_SDK_AK`` and ``HUAWEICLOUD_SDK_SK``. A security token is taken from where the
    secret key comes from, never from elsewhere: a permanent pair with another pair's token is refused by DIS.

    Raises:
        ConfigurationError: when none of them is complete, naming what is missing.
    """
    if credentials is not None:
        if not callable(credentials):
            raise ConfigurationError(f"credentials must be a callable, not {type(credentials).__name__}")
        return credentials
    if auth_token is None and ak is None and sk is None:
        auth_token = options.from_environment("DIS_LOGGING_AUTH_TOKEN")
    if auth_token is not None:
        token = AuthToken(options.secret("auth_token", auth_token))
        return lambda: token
    pair = _find_pair(ak, sk, security_token)
    return lambda: pair


def _find_pair(ak: str | None, sk: str | None, security_token: str | None) -> Credentials:
    if sk is None:
        for prefix in ("DIS_LOGGING_", "HUAWEICLOUD_SDK_"):
            sk = options.from_environment(prefix + "SK")
            if sk is not None:
                security_token = security_token or options.from_environment(prefix + "SECURITY_TOKEN")
                break
    ak = ak if ak is not None else options.from_environment("DIS_LOGGING_AK", "HUAWEICLOUD_SDK_AK")
    for name, value in (("ak", ak), ("sk", sk)):
        if value is None:
            raise ConfigurationError(
                f"{name} is missing: give it as an option, or set DIS_LOGGING_{name.upper()} or "
                f"HUAWEICLOUD_SDK_{name.upper()} in the environment"
            )
    return Credentials(ak or "", sk or "", security_token or "")
