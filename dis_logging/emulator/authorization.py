"""Takes Authorization headers apart, in any of the four schemes."""

from __future__ import annotations

import re
from typing import NamedTuple

from dis_logging.client.signing import SERVICE, TERMINATOR, SignatureScheme


class Authorization(NamedTuple):
    """What an Authorization header says; *date* and *region* are empty for `ACCESS`."""

    scheme: SignatureScheme
    ak: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str


_AUTHORIZATION = (
    r"(?P<algorithm>\S+)\s+(?P<kind>Credential|Access)=(?P<who>[^,\s]+)\s*,"
    r"\s*SignedHeaders=(?P<names>[^,\s]+)\s*,\s*Signature=(?P<signature>[0-9a-f]+)\s*"
)


def parse_authorization(value: str) -> Authorization | None:
    """Returns the parts of an Authorization header in any of the four schemes, or None when it is none of them."""
    match = re.fullmatch(_AUTHORIZATION, value)
    if match is None:
        return None
    ak, *scope = match["who"].split("/")
    scheme = _SCHEMES.get((match["algorithm"], match["kind"], len(scope), scope[3:] == [TERMINATOR]))
    if scheme is None:
        return None
    date, region, service = scope[:3] if scope else ("", "", SERVICE)
    return Authorization(scheme, ak, date, region, service, tuple(match["names"].split(";")), match["signature"])


_SCHEMES = {
    ("SDK-HMAC-SHA256", "Access", 0, False): SignatureScheme.ACCESS,
    ("SDK-HMAC-SHA256", "Credential", 4, True): SignatureScheme.SCOPED,
    ("V11-HMAC-SHA256", "Credential", 4, True): SignatureScheme.V11,
    ("V11-HMAC-SHA256", "Credential", 3, False): SignatureScheme.V11_CORE,
}
