"""
Signatures of DIS requests: headers for a request, pure given a time and a pair of keys.

The client signs with these functions and the emulator verifies with them, so their tests compare with signatures that
Huawei's own SDKs made (`tests/data/signing.json`), never with each other.
Four schemes exist (API request signing guide; Java SDK 1.3.21 DefaultSigner; huaweicloudsdkcore 3.1.219; head of the DIS
Python SDK of 2026-06). The first is the default because DIS's own error texts speak its language (DIS.4108, DIS.4109,
DIS.4111) and every DIS SDK uses it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from enum import Enum
from functools import lru_cache
from urllib.parse import quote

from dis_logging.frozen import Frozen, set_field

SERVICE = "dis"
TERMINATOR = "sdk_request"
# Of more bytes hashlib lets other threads run meanwhile. One that is busy keeps the interpreter for 5 ms then, fifty times
# what a body takes, and what a program logs all the while would not be sent.
_MOST_AT_ONCE = 2047


class SignatureScheme(Enum):
    """
    How a request is signed; the values are those of the option *signature*.

    `SCOPED` is what every DIS SDK sends. `ACCESS` is the API gateway's standard (huaweicloudsdkcore, DIS v3).
    `V11` derives its key with HKDF, as the DIS Python SDK does since 2026-06; `V11_CORE` is huaweicloudsdkcore's reading
    of the same algorithm name. No source says which of the last two DIS verifies.
    """

    SCOPED = "sdk-hmac-sha256"
    ACCESS = "access"
    V11 = "v11"
    V11_CORE = "v11-core"

    @property
    def algorithm(self) -> str:
        """The first word of the Authorization header and of the string to sign."""
        return "V11-HMAC-SHA256" if self in (SignatureScheme.V11, SignatureScheme.V11_CORE) else "SDK-HMAC-SHA256"


class SignableRequest:
    """
    The parts of a request that enter its signature.

    Args:
        method: in capitals.
        path, query: decoded (not percent-encoded).
        headers: those to sign, names in lower case; must hold ``host`` and ``x-sdk-date``.
        payload_hash: the lower-case hex SHA-256 of the body bytes as sent.
    """

    __slots__ = ("headers", "method", "path", "payload_hash", "query")

    def __init__(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        payload_hash: str,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.payload_hash = payload_hash


def sdk_date(moment: datetime) -> str:
    """Returns *moment* as an X-Sdk-Date value, ``YYYYMMDDTHHMMSSZ`` in UTC."""
    return moment.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def payload_hash(body: bytes) -> str:
    """Returns the lower-case hex SHA-256 of *body*."""
    digest, view = hashlib.sha256(), memoryview(body)
    for start in range(0, len(body), _MOST_AT_ONCE):
        digest.update(view[start : start + _MOST_AT_ONCE])
    return digest.hexdigest()


def canonical_request(request: SignableRequest) -> str:
    """
    Returns the text whose hash is signed, the same for all schemes.

    The path always ends in a slash here, whatever was sent (Python, Go and DIS v3 SDKs).
    """
    path = quote(request.path, safe="/~")
    query = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in request.query)
    names = sorted(request.headers)
    return "\n".join(
        (
            request.method.upper(),
            path if path.endswith("/") else path + "/",
            "&".join(f"{name}={value}" for name, value in query),
            "".join(f"{name}:{request.headers[name].strip()}\n" for name in names),
            ";".join(names),
            request.payload_hash,
        )
    )


def string_to_sign(scheme: SignatureScheme, request: SignableRequest, region: str) -> str:
    """Returns the text that is signed: algorithm, time, scope (except with `ACCESS`) and the canonical request's hash."""
    date = request.headers["x-sdk-date"]
    hashed = payload_hash(canonical_request(request).encode())
    if scheme is SignatureScheme.ACCESS:
        return "\n".join((scheme.algorithm, date, hashed))
    return "\n".join((scheme.algorithm, date, _scope(scheme, date[:8], region), hashed))


def signature(scheme: SignatureScheme, request: SignableRequest, region: str, ak: str, sk: str) -> str:
    """Returns the hex signature of *request*."""
    key = _signing_key(scheme, _Secret(sk), ak, request.headers["x-sdk-date"][:8], region)
    return _hmac(key, string_to_sign(scheme, request, region)).hex()


def authorization(scheme: SignatureScheme, request: SignableRequest, region: str, ak: str, sk: str) -> str:
    """Returns the value of the Authorization header for *request*."""
    if scheme is SignatureScheme.ACCESS:
        who = f"Access={ak}"
    else:
        who = f"Credential={ak}/{_scope(scheme, request.headers['x-sdk-date'][:8], region)}"
    names = ";".join(sorted(request.headers))
    return f"{scheme.algorithm} {who}, SignedHeaders={names}, Signature={signature(scheme, request, region, ak, sk)}"


class _Secret(Frozen):
    """A secret key as an argument of cached functions: tools that print arguments must not see it."""

    __slots__ = ("value",)
    _hidden = frozenset({"value"})

    value: str

    def __init__(self, value: str) -> None:
        set_field(self, "value", value)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _scope(scheme: SignatureScheme, date: str, region: str) -> str:
    scope = f"{date}/{region}/{SERVICE}"
    return scope if scheme is SignatureScheme.V11_CORE else f"{scope}/{TERMINATOR}"


@lru_cache(maxsize=64)  # a key depends on the UTC day at most
def _signing_key(scheme: SignatureScheme, sk: _Secret, ak: str, date: str, region: str) -> bytes:
    if scheme is SignatureScheme.ACCESS:
        return sk.value.encode()
    if scheme is SignatureScheme.SCOPED:
        return _chained_key(sk.value, date, region)
    derived = _derived_secret(ak, sk, date, region)
    return derived.encode() if scheme is SignatureScheme.V11_CORE else _chained_key(derived, date, region)


def _chained_key(secret: str, date: str, region: str) -> bytes:
    key = b"SDK" + secret.encode()
    for part in (date, region, SERVICE, TERMINATOR):
        key = _hmac(key, part)
    return key


def _derived_secret(ak: str, sk: _Secret, date: str, region: str) -> str:
    """Returns the hex text of one HKDF-SHA256 block (RFC 5869), salted with the access key."""
    pseudo_random_key = _hmac(ak.encode(), sk.value)
    return _hmac(pseudo_random_key, f"{date}/{region}/{SERVICE}\x01").hex()
