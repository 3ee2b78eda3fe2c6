"""The way to an endpoint, step by step over sockets of our own: its name, a connection, TLS."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from dis_logging.client.resolver import Addresses, resolve
from dis_logging.errors import DISError, NotSentError
from dis_logging.escaping import escape


class ProbeError(DISError):
    """A step failed; *advice* says what to do about it."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


_NAME = "check endpoint and region for a slip; if only a proxy leads out of this network, set HTTPS_PROXY or proxies"
_FIREWALL = (
    "let a firewall pass outgoing TCP to this host and port; if only a proxy leads out, set HTTPS_PROXY or proxies"
)
_REFUSED = "check the port of endpoint: the host is there, but nothing listens"
_BUNDLE = "give the CA bundle of your network as verify, or set REQUESTS_CA_BUNDLE; do not switch verification off"
_NO_TLS = "check endpoint: what listens there does not speak TLS, or ends it; does it want http:// or another port?"

# OpenSSL, X509_V_ERR_*.
_ADVICE_BY_VERIFY_CODE = {
    9: "set this machine's clock (NTP): the certificate is not valid yet",
    10: "set this machine's clock (NTP) if it is wrong; else the certificate has expired, and its owner must renew it",
    62: "check endpoint: the certificate is for another host",
    64: "check endpoint: the certificate is for another host",
}


def look_up(host: str, port: int, timeout: float) -> Addresses:
    """
    Returns the addresses of *host*.

    Raises:
        ProbeError: there are none, or none in time.
    """
    try:
        return resolve(host, port, timeout)
    except NotSentError as error:
        raise ProbeError(str(error), _NAME) from None
    except (OSError, UnicodeError) as error:
        reason = escape(getattr(error, "strerror", None) or type(error).__name__, 200)
        raise ProbeError(f"{escape(host, 100)} is not found: {reason}", _NAME) from None


def connect(addresses: Addresses, timeout: float) -> socket.socket:
    """
    Returns a socket that is connected to the first of *addresses* that answers.

    Raises:
        ProbeError: none of them does.
    """
    failure: OSError = OSError("there is no address")
    deadline = time.monotonic() + timeout
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        # A share for each that is left: the first, often of IPv6, may lead nowhere.
        sock.settimeout(max(0.1, (deadline - time.monotonic()) / (len(addresses) - number)))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    where = shown_address(addresses[-1][4]) if addresses else "it"
    reason = "no answer in time" if isinstance(failure, TimeoutError) else failure.strerror or str(failure)
    advice = _REFUSED if isinstance(failure, ConnectionRefusedError) else _FIREWALL
    raise ProbeError(f"no connection to {where}: {reason}", advice)


def secure(sock: socket.socket, host: str, verify: bool | str, timeout: float) -> str:
    """
    Shakes hands for TLS on *sock*, which is closed, and returns what was agreed on.

    Args:
        verify: as in requests: True, False, or the path of a CA bundle or directory.

    Raises:
        ProbeError: there is no TLS, or the certificate is refused.
    """
    sock.settimeout(timeout)
    try:
        with _make_context(verify).wrap_socket(sock, server_hostname=host) as secured:
            return f"{secured.version()}, {_described(secured.getpeercert() or {})}"
    except ssl.SSLCertVerificationError as error:
        advice = _ADVICE_BY_VERIFY_CODE.get(error.verify_code, _BUNDLE)
        raise ProbeError(f"certificate refused: {escape(error.verify_message, 200)}", advice) from None
    except ssl.SSLError as error:
        raise ProbeError(f"TLS failed: {escape(error.reason or type(error).__name__, 200)}", _NO_TLS) from None
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
        raise ProbeError(f"TLS failed: {reason}", _NO_TLS) from None
    finally:
        with suppress(OSError):
            sock.close()


def shown_address(address: Any) -> str:
    """Returns a socket's address as people write it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _make_context(verify: bool | str) -> ssl.SSLContext:
    try:
        return _context(verify)
    except OSError:  # ssl.SSLError too
        what = f"the CA bundle {escape(str(verify), 200)} cannot be used"
        raise ProbeError(what, "give verify, or REQUESTS_CA_BUNDLE, the path of a file of PEM certificates") from None


def _context(verify: bool | str) -> ssl.SSLContext:
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    authorities = DEFAULT_CA_BUNDLE_PATH if verify is True else verify  # as requests does
    if os.path.isdir(authorities):
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)


def _described(certificate: Mapping[str, Any]) -> str:
    if not certificate:
        return "certificate not verified"
    issuer = {name: value for part in certificate.get("issuer", ()) for name, value in part}
    who = escape(str(issuer.get("organizationName") or issuer.get("commonName") or "?"), 60)
    return f"certificate by {who}, valid until {certificate.get('notAfter', '?')}"
