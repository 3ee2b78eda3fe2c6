"""Turns credentials into the headers of one prepared request, anew at every attempt."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, unquote, urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase

from dis_logging.client.credentials import AuthToken, Credentials, CredentialsSource
from dis_logging.client.signing import SignableRequest, SignatureScheme, authorization, payload_hash, sdk_date
from dis_logging.client.sources import as_credentials, is_key_pair, renew
from dis_logging.errors import NotSentError

# Signed when present. Never what the HTTP library or a proxy may rewrite: user-agent, accept, content-length.
_SIGNED = ("content-type", "content-encoding", "host", "x-project-id", "x-sdk-date", "x-security-token")

# DIS.4105 (API reference, Error Codes), and the gateway's code for more than 15 minutes (API signing guide).
_CLOCK_SKEW = ("DIS.4105", "APIGW.0303")
_TOLERATED_SKEW = timedelta(minutes=1)


def utc_now() -> datetime:
    """Returns the current time; the default clock of a signature."""
    return datetime.now(timezone.utc)


class DISAuth(AuthBase):
    """
    Authenticates a request to DIS: with a signature, or with an IAM token as it is.

    The credentials are asked for and the time is taken at every call, so a retry is signed freshly and rotated keys need
    no restart. Safe to share between threads when *source* is.
    """

    def __init__(
        self,
        source: CredentialsSource,
        region: str,
        scheme: SignatureScheme = SignatureScheme.SCOPED,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._source = source
        self._region = region
        self._scheme = scheme
        self._clock = clock
        self._last: Credentials | AuthToken | None = None
        self._offset = timedelta()  # of the service's clock, once it has complained about ours

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        credentials = self._current_credentials()
        if isinstance(credentials, AuthToken):
            # API reference, Authentication: neither Authorization nor X-Sdk-Date with a token.
            request.headers["X-Auth-Token"] = credentials.value
            return request
        request.headers["X-Sdk-Date"] = sdk_date(self._clock() + self._offset)
        if credentials.security_token:
            request.headers["X-Security-Token"] = credentials.security_token
        request.headers["Authorization"] = authorization(
            self._scheme, _signable(request), self._region, credentials.ak, credentials.sk
        )
        return request

    def access_key(self) -> str | None:
        """
        Returns the id of the key that signs at present, None with an IAM token.

        Raises:
            NotSentError: there are no keys to be had.
        """
        credentials = self._current_credentials()
        return None if isinstance(credentials, AuthToken) else credentials.ak

    def _current_credentials(self) -> Credentials | AuthToken:
        try:
            value = self._source()
            if isinstance(value, Credentials | AuthToken) or is_key_pair(value):
                self._last = as_credentials(value)
                return self._last
        except NotSentError:
            raise
        except Exception as error:
            # The user's own callable; its text may quote what it read, so only the class is named.
            problem = f"raised {type(error).__name__}"
        else:
            problem = f"returned a {type(value).__name__}, not Credentials"
        # Outside the except block: the error is the user's, and does not travel with ours.
        raise NotSentError(f"the credentials callable {problem}")

    def learn(self, code: str, service_time: datetime | None) -> bool:
        """
        Makes what it can of a refusal; returns whether a request signed anew may fare better.

        Args:
            code: DIS's or the API gateway's error code.
            service_time: from the answer's Date header, None when there was none.
        """
        if code in _CLOCK_SKEW:
            return service_time is not None and self._set_clock(service_time)
        before = self._last
        try:
            renew(self._source)
            return self._current_credentials() != before
        except NotSentError:  # no newer keys to be had: the refusal stands
            return False

    def _set_clock(self, service_time: datetime) -> bool:
        offset = service_time - self._clock()
        if abs(offset - self._offset) < _TOLERATED_SKEW:  # then it is not our clock that is wrong
            return False
        self._offset = offset
        return True


def _signable(request: PreparedRequest) -> SignableRequest:
    parts = urlsplit(request.url or "")
    named = ((name.lower(), value) for name, value in request.headers.items())
    body = request.body or b""
    return SignableRequest(
        request.method or "",
        unquote(parts.path),
        parse_qsl(parts.query, keep_blank_values=True),
        {name: value for name, value in named if name in _SIGNED or name.startswith("x-dis-")},
        payload_hash(body.encode() if isinstance(body, str) else body),
    )
