"""Certificates that were made for one test: authorities, servers and what clients trust."""

import ssl
from datetime import datetime
from pathlib import Path

import trustme


def server_context(ca: trustme.CA, *names: str, not_after: datetime | None = None) -> ssl.SSLContext:
    """Returns what a server on loopback needs for TLS with a certificate of *ca* for *names*, by default its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("127.0.0.1", "localhost")), not_after=not_after).configure_cert(context)
    return context


def bundle(ca: trustme.CA, directory: Path, name: str = "ca.pem") -> str:
    """Writes what a client needs to trust *ca* and returns its path."""
    path = directory / name
    ca.cert_pem.write_to_path(str(path))
    return str(path)
