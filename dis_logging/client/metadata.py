"""
Expiring keys from the metadata service of a Huawei Cloud server (ECS), fetched again before they expire.

The exchange is that of huaweicloudsdkcore 3.1.219 (MetadataCredentialProvider).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, NoReturn

import requests

from dis_logging.client.credentials import Credentials
from dis_logging.errors import ConfigurationError, NotSentError

_TOKEN_PATH = "/meta-data/latest/api/token"  # noqa: S105 - a path
_KEYS_PATH = "/openstack/latest/securitykey"
_TOKEN_SECONDS = 21_600
_TIMEOUT = 3.0
# huaweicloudsdkcore fetches new keys when less than this remains.
_REFRESH_BEFORE_EXPIRY = 40 * 60.0
# A service that fails is not asked more often than this while the old keys still hold.
_PAUSE_AFTER_FAILURE = 60.0
_NO_TOKEN_STATUSES = (404, 405, 503)


class ECSCredentials:
    """
    The temporary keys that the agency of an ECS server grants; give an instance as the option *credentials*.

    Called at every attempt; fetches keys the first time, again when less than 40 minutes remain, and after DIS has refused
    them. Safe to share between threads: one of them fetches, the others wait for it, at most a few seconds.

    Args:
        endpoint: of the metadata service; only a test needs another than the default.
        clock: returns the current time in seconds since the epoch.

    Raises:
        NotSentError: when called, if the service gives no keys and there are no old ones that still hold.
    """

    def __init__(self, endpoint: str = "http://169.254.169.254", *, clock: Callable[[], float] = time.time) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards what follows, and makes one thread fetch for all
        self._credentials: Credentials | None = None
        self._expires_at = 0.0
        self._ask_again_at = 0.0

    def __call__(self) -> Credentials:
        """Returns keys that hold for a while."""
        if self._pid != os.getpid():  # a thread of the parent may have held the lock at the fork
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            now = self._clock()
            if now >= self._ask_again_at or self._credentials is None:
                self._fetch_or_keep(now)
            if self._credentials is None:
                raise NotSentError("the ECS metadata service gave no keys; is an agency assigned to this server?")
            return self._credentials

    def refresh(self) -> None:
        """Forgets when the keys expire, so that the next call fetches new ones; for after DIS refused them."""
        with self._lock:
            self._ask_again_at = 0.0

    def _fetch_or_keep(self, now: float) -> None:
        try:
            self._credentials, self._expires_at = self._fetch()
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
            # Neither the answer nor the exception is shown: both may hold a key.
            self._ask_again_at = now + _PAUSE_AFTER_FAILURE
            if now >= self._expires_at:
                self._credentials = None
            return
        # Keys that come with less than that are used up to a minute before their end.
        self._ask_again_at = max(self._expires_at - _REFRESH_BEFORE_EXPIRY, min(now + 60.0, self._expires_at - 60.0))

    def _fetch(self) -> tuple[Credentials, float]:
        with requests.Session() as session:
            session.trust_env = False  # link-local: never through a proxy
            answer = self._get_keys(session, self._get_token(session))
            answer.raise_for_status()
            return _parse(json.loads(answer.content))

    def _get_token(self, session: requests.Session) -> str | None:
        answer = session.put(
            self._endpoint + _TOKEN_PATH,
            headers={"X-Metadata-Token-Ttl-Seconds": str(_TOKEN_SECONDS)},
            timeout=_TIMEOUT,
            allow_redirects=False,
        )
        if answer.status_code in _NO_TOKEN_STATUSES:  # this server's metadata service has no token mode
            return None
        answer.raise_for_status()
        return answer.text

    def _get_keys(self, session: requests.Session, token: str | None) -> requests.Response:
        headers = {"X-Metadata-Token": token} if token else {}
        return session.get(self._endpoint + _KEYS_PATH, headers=headers, timeout=_TIMEOUT, allow_redirects=False)

    def __repr__(self) -> str:
        return f"<ECSCredentials from {self._endpoint}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("ECSCredentials hold keys and cannot be pickled; make them anew in the other process")


def _parse(document: Any) -> tuple[Credentials, float]:
    fields = document.get("credential") or document.get("credentials") or document
    credentials = Credentials(
        _first(fields, "access", "accessKeyId", "access_key_id"),
        _first(fields, "secret", "secretAccessKey", "secret_access_key"),
        _first(fields, "securitytoken", "securityToken", "security_token"),
    )
    expires = datetime.fromisoformat(_first(fields, "expires_at", "expiration").replace("Z", "+00:00"))
    if expires.tzinfo is None:
        expires = expires.replace(tzinfo=timezone.utc)
    return credentials, expires.timestamp()


def _first(fields: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    raise ConfigurationError(f"the metadata service's answer has no {names[0]}")
