"""Who may talk to the emulator: verifies signatures and tokens as DIS does."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import product

from dis_logging.client import signing
from dis_logging.client.signing import SignableRequest, SignatureScheme
from dis_logging.emulator.authorization import Authorization, parse_authorization
from dis_logging.emulator.messages import RefusalError, Request

# API request signing guide (APIGW.0303): the gateway refuses a request signed more than 15 minutes from its own time.
MAX_SKEW = timedelta(minutes=15)

_UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"


@dataclass(slots=True)
class Access:
    """
    What a request must prove to know. All of it may be changed while the emulator runs.

    Args:
        ak: access key.
        sk: secret key.
        project_id: the only project there is.
        region: what signatures with a scope must name.
        security_token: makes the keys temporary: X-Security-Token must carry it.
        auth_token: the IAM token that X-Auth-Token may carry instead of a signature; None accepts none.
    """

    ak: str
    sk: str = field(repr=False)
    project_id: str
    region: str
    security_token: str | None = field(default=None, repr=False)
    auth_token: str | None = field(default=None, repr=False)

    def verify(self, request: Request, now: datetime) -> None:
        """
        Returns when *request* proves who sent it.

        Raises:
            RefusalError: when it does not, with the code that DIS has for that.
        """
        headers = request.head.headers
        value = headers.get("authorization", "")
        if not value and "x-auth-token" in headers:
            self._verify_token(headers["x-auth-token"])
            return
        if not value:
            raise RefusalError("DIS.4101")
        claim = parse_authorization(value)
        if claim is None:
            raise RefusalError("DIS.4102")
        _verify_date(headers.get("x-sdk-date", ""), now)
        self._verify_claim(claim, headers)
        self._verify_signature(claim, request)

    def _verify_token(self, token: str) -> None:
        if not token:
            raise RefusalError("DIS.4113")
        if self.auth_token is None or not _same(token, self.auth_token):
            raise RefusalError("DIS.4114")

    def _verify_claim(self, claim: Authorization, headers: Mapping[str, str]) -> None:
        if not claim.ak:
            raise RefusalError("DIS.4106")
        # The code for a missing or wrong security token is assumed: 4107 also stands for an expired temporary key.
        token = headers.get("x-security-token", "")
        if claim.ak != self.ak or (self.security_token is not None and not _same(token, self.security_token)):
            raise RefusalError("DIS.4107")
        if claim.service != signing.SERVICE:
            raise RefusalError("DIS.4108")
        if claim.scheme is SignatureScheme.ACCESS:
            return
        if claim.region != self.region:
            raise RefusalError("DIS.4111")
        if claim.date != headers["x-sdk-date"][:8]:
            raise RefusalError("DIS.4112")

    def _verify_signature(self, claim: Authorization, request: Request) -> None:
        headers = request.head.headers
        # The guide demands these two among the signed headers.
        if not {"host", "x-sdk-date"} <= set(claim.signed_headers) <= set(headers):
            raise RefusalError("DIS.4112")
        signed = {name: headers[name] for name in claim.signed_headers}
        for host, hashed in product(_hosts(headers["host"]), _payload_hashes(claim, request)):
            candidate = SignableRequest(
                request.head.method, request.head.path, request.head.query, {**signed, "host": host}, hashed
            )
            expected = signing.signature(claim.scheme, candidate, self.region, self.ak, self.sk)
            if hmac.compare_digest(expected, claim.signature):
                return
        raise RefusalError("DIS.4112")


def _verify_date(value: str, now: datetime) -> None:
    if not value:
        raise RefusalError("DIS.4103")
    try:
        signed_at = datetime.strptime(value, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise RefusalError("DIS.4104") from None
    if abs(now - signed_at) > MAX_SKEW:
        raise RefusalError("DIS.4105")


def _hosts(host: str) -> tuple[str, ...]:
    """Returns what may have been signed as host: the DIS Python SDK signs it without the port that it then sends."""
    name, colon, port = host.rpartition(":")
    return (host, name) if colon and port.isdigit() else (host,)


def _payload_hashes(claim: Authorization, request: Request) -> tuple[str, ...]:
    """Returns what may have been signed as payload hash: huaweicloudsdkcore leaves out bodies that are not JSON."""
    own = signing.payload_hash(request.body)
    may_leave_out = claim.scheme in (SignatureScheme.ACCESS, SignatureScheme.V11_CORE)
    if may_leave_out and "x-sdk-content-sha256" in claim.signed_headers:
        declared = request.head.headers["x-sdk-content-sha256"]
        return (_UNSIGNED_PAYLOAD, own) if declared == _UNSIGNED_PAYLOAD else (own,)
    return (own,)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
