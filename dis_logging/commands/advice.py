"""What to do about an error: one sentence for whoever runs a command."""

from __future__ import annotations

from dis_logging.errors import DISError, NotSentError, ProtocolError, ServiceError, UnknownOutcomeError

_WRONG_KEYS = "check ak and sk: is the key active, are both of one pair, and is no blank or line break in them?"
_OUR_FAULT = "something between this machine and DIS changes requests, or the endpoint wants another signature"
_NEW_TOKEN = "get a new IAM token: one is valid for 24 hours, and in its own region and project only"  # noqa: S105
_CLOCK = "set this machine's clock (NTP): signatures must be within 15 minutes of DIS's time"
_PERMISSION = (
    "give the user of this key a permission for DIS in IAM, and see that the account is verified and not in arrears"
)
_SLOWER = "wait: the partition is at its limit; more partitions, or a better spread of partition keys, raise it"

# API reference, Error Codes; SDK reference, Server-Side Error Codes; API Gateway, Error Codes.
_BY_CODE = {
    "DIS.4100": _WRONG_KEYS,
    "DIS.4101": _OUR_FAULT,
    "DIS.4102": _OUR_FAULT,
    "DIS.4103": _OUR_FAULT,
    "DIS.4104": _OUR_FAULT,
    "DIS.4105": _CLOCK,
    "DIS.4106": _WRONG_KEYS,
    "DIS.4107": "check ak: the key does not exist, was deleted, or is a temporary one that has expired or lacks its "
    "security_token",
    "DIS.4108": _OUR_FAULT,
    "DIS.4109": _OUR_FAULT,
    "DIS.4110": _OUR_FAULT,
    "DIS.4111": "set region to the region of the endpoint, such as cn-north-4 for https://dis.cn-north-4.myhuaweicloud.com",
    "DIS.4112": "check sk: it does not belong to ak, or something changes requests on their way; region must be that of "
    "the endpoint",
    "DIS.4113": _NEW_TOKEN,
    "DIS.4114": _NEW_TOKEN,
    "DIS.4116": _PERMISSION,
    "DIS.4117": "set project_id to the project of this region: My Credentials > API Credentials lists one for each region",
    "DIS.4205": "wait until the stream runs; if it is frozen, see whether the account is in arrears",
    "DIS.4301": "create the stream, or correct stream_name: it must exist in this very region and project (a stream of "
    "another account needs its stream_id)",
    "DIS.4302": "leave out partition_id, or name a partition that the stream has",
    "DIS.4303": _SLOWER,
    "DIS.4305": "wait: too many requests for this stream at once",
    "DIS.4309": "wait 30 minutes: DIS has blocked this address after too many failures; correct them before trying again",
    "DIS.4319": "leave out partition_id: the partition was given up when the stream was scaled down",
    "APIGW.0101": "check endpoint: what answers there knows no DIS; it looks like https://dis.REGION.myhuaweicloud.com",
    "APIGW.0301": _WRONG_KEYS,
    "APIGW.0303": _CLOCK,
}
_BY_STATUS = {
    401: _WRONG_KEYS,
    403: _PERMISSION,
    404: _BY_CODE["APIGW.0101"],
    407: "give the proxy's user and password in its URL: http://USER:PASSWORD@HOST:PORT",
    408: "try again, with a larger request_timeout on a slow line",
    429: _SLOWER,
    441: _WRONG_KEYS,
}
_CERTIFICATE = "give the CA bundle of your network as verify, or set REQUESTS_CA_BUNDLE; do not switch verification off"
_NO_KEYS = "see why the source of the keys gives none: is an agency assigned to this server, does the callable work?"


def advice_for(error: DISError) -> str:
    """Returns what to do about *error*, empty when there is nothing to be said beyond its message."""
    if isinstance(error, ServiceError):
        return advice_for_refusal(error.status, error.code)
    if isinstance(error, ProtocolError):
        return "check endpoint: what answers there does not speak as DIS does"
    if isinstance(error, UnknownOutcomeError):
        return "try again, with a larger request_timeout on a slow line"
    if isinstance(error, NotSentError):
        return _advice_for_no_connection(str(error))
    return ""


def advice_for_refusal(status: int, code: str) -> str:
    """Returns what to do about a refusal with that HTTP status and error code."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500 or code.startswith("DIS.5"):
        return "wait and try again: this is DIS's own trouble"
    if 300 <= status < 400:
        return "check endpoint: it redirects, which is not followed"
    return f"look {code} up in the API reference, Error Codes" if code else ""


def _advice_for_no_connection(message: str) -> str:
    if "certificate" in message:
        return _CERTIFICATE
    if "credentials" in message or "metadata service" in message:
        return _NO_KEYS
    return "check endpoint, firewall and proxy (HTTPS_PROXY): dis-logging check tries them one by one"
