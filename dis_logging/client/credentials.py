"""Who is asking: access keys or a token. Nothing here shows a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dis_logging import options


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

    @options.hide_arguments
    def __init__(self, ak: str, sk: str, security_token: str = "") -> None:
        # Java's SDK trims keys too: a trailing newline from a mounted file is the commonest reason for a bad signature.
        object.__setattr__(self, "ak", options.secret("ak", ak))
        object.__setattr__(self, "sk", options.secret("sk", sk))
        if security_token:
            security_token = options.secret("security_token", security_token)
        object.__setattr__(self, "security_token", security_token)

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
