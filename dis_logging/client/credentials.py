"""Who is asking: access keys or a token. Nothing here shows a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from dis_logging import options
from dis_logging.frozen import Frozen, set_field


@dataclass(init=False, repr=False, eq=False)
class Credentials(Frozen):
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

    __slots__ = ("ak", "sk", "security_token")  # noqa: RUF023 - their order
    _hidden = frozenset({"sk", "security_token"})

    ak: str
    sk: str
    security_token: str

    @options.hide_arguments
    def __init__(self, ak: str, sk: str, security_token: str = "") -> None:
        # Java's SDK trims keys too: a trailing newline from a mounted file is the commonest reason for a bad signature.
        set_field(self, "ak", options.secret("ak", ak))
        set_field(self, "sk", options.secret("sk", sk))
        if security_token:
            security_token = options.secret("security_token", security_token)
        set_field(self, "security_token", security_token)

    def __reduce__(self) -> NoReturn:
        raise TypeError("Credentials hold a secret key and cannot be pickled; make them anew in the other process")

    def __copy__(self) -> Credentials:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Credentials:
        return self


@dataclass(init=False, repr=False, eq=False)
class AuthToken(Frozen):
    """An IAM user token, sent as X-Auth-Token instead of a signature; DIS accepts one for 24 hours."""

    __slots__ = ("value",)
    _hidden = frozenset({"value"})

    value: str

    def __init__(self, value: str) -> None:
        set_field(self, "value", value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an IAM token is a secret and cannot be pickled")


CredentialsSource = Callable[[], Credentials | AuthToken]
