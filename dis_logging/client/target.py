"""Where requests go: endpoint, region and project, from options or the environment, checked before the first use."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, quote, urlsplit

from dis_logging import options
from dis_logging.client.origins import DEFAULT, Origins
from dis_logging.client.wire import is_stream_name
from dis_logging.errors import ConfigurationError, MissingOptionError
from dis_logging.frozen import Frozen, set_field

# Project ids are hexadecimal and regions lower-case words; both enter URLs, so anything beyond these sets is a mistake.
_WORD = r"[A-Za-z0-9_-]{1,64}"


class Target(Frozen):
    """
    One project of one region of one DIS.

    Args:
        endpoint: base URL without a final slash.
        region: enters the signature, so it must be the endpoint's real region.
        project_id: the IAM project of that region.
        stream_id: for a stream that another account has authorised; empty otherwise.
    """

    __slots__ = ("endpoint", "region", "project_id", "stream_id")  # noqa: RUF023 - their order

    endpoint: str
    region: str
    project_id: str
    stream_id: str

    def __init__(self, endpoint: str, region: str, project_id: str, stream_id: str = "") -> None:
        set_field(self, "endpoint", endpoint)
        set_field(self, "region", region)
        set_field(self, "project_id", project_id)
        set_field(self, "stream_id", stream_id)

    @property
    def host(self) -> str:
        """The Host header's value: the port only when it is not the scheme's default (Java SDK HttpUtils)."""
        parts = urlsplit(self.endpoint)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        default = 443 if parts.scheme == "https" else 80
        return host if parts.port in (None, default) else f"{host}:{parts.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        return _is_loopback(urlsplit(self.endpoint).hostname or "")

    @property
    def records_url(self) -> str:
        """Where PutRecords goes; the final slash is what the Java SDK sends, and what scheme A signs."""
        return f"{self.endpoint}/v2/{self.project_id}/records/"

    @property
    def cursors_url(self) -> str:
        """Where cursors come from; with a final slash, as above."""
        return f"{self.endpoint}/v2/{self.project_id}/cursors/"

    def stream_url(self, stream_name: str) -> str:
        """Where a stream is described; with a final slash, as above."""
        return f"{self.endpoint}/v2/{self.project_id}/streams/{quote(stream_name, safe='')}/"


def find_target(
    endpoint: str | None,
    region: str | None,
    project_id: str | None,
    stream_id: str | None,
    allow_http: object,
    origins: Origins | None = None,
) -> Target:
    """
    Returns the target that the options describe; what is left out comes from the environment.

    Args:
        origins: gets to know where each of them came from.

    Raises:
        ConfigurationError: when the region or project is missing, or one of them is malformed.
    """
    origins = Origins() if origins is None else origins
    variables = ("DIS_LOGGING_REGION", "HUAWEICLOUD_SDK_REGION")
    if not origins.option("region", region):
        region = origins.environment("region", *variables)
    region = _word("region", region, *variables)
    variables = ("DIS_LOGGING_PROJECT_ID", "HUAWEICLOUD_SDK_PROJECT_ID")
    if not origins.option("project_id", project_id):
        project_id = origins.environment("project_id", *variables) or origins.profile("project_id")
    project_id = _word("project_id", project_id, *variables)
    if not origins.option("endpoint", endpoint):
        endpoint = origins.environment("endpoint", "DIS_LOGGING_ENDPOINT")
    if endpoint is None:
        endpoint = f"https://dis.{region}.myhuaweicloud.com"  # Java SDK DISConfig builds exactly this
        origins["endpoint"] = DEFAULT
    origins.option("stream_id", stream_id)
    return Target(
        check_endpoint(endpoint, allow_http=options.switch("allow_http", allow_http)),
        region,
        project_id,
        "" if stream_id is None else _word("stream_id", stream_id),
    )


def check_endpoint(endpoint: object, *, allow_http: bool = False) -> str:
    """
    Returns *endpoint* without a final slash; a missing scheme means https (as in Huawei's Python SDKs).

    Raises:
        ConfigurationError: when it is no URL of a host, or is plain http to another machine without *allow_http*.
    """
    given = url = options.text("endpoint", endpoint)
    if "@" in url:
        raise ConfigurationError("endpoint must not contain a user name or password; use ak and sk")
    if "://" not in url:
        url = "https://" + url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"endpoint is not a valid URL: {_shown(given)}") from None
    if parts.scheme not in ("http", "https") or not _is_base_url(url, parts) or port == 0:
        raise ConfigurationError(
            f"endpoint must look like https://dis.cn-north-4.myhuaweicloud.com, not {_shown(given)}"
        )
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname or ""):
        raise ConfigurationError(
            f"endpoint {_shown(given)} would send logs and signatures in clear text; "
            "use https, or set allow_http=True if you accept that"
        )
    return url.rstrip("/")


def _shown(url: str) -> str:
    """Returns *url* for an error message, without what follows the path: people put keys there."""
    base, *rest = re.split("[?#]", url, maxsplit=1)
    return options.shown(base) + " with parameters" * bool(rest)


def find_stream_name(stream_name: str | None, origins: Origins | None = None) -> str:
    """
    Returns the name that the option or else the environment gives.

    Args:
        origins: gets to know where it came from.

    Raises:
        ConfigurationError: when there is none, or it cannot be a stream's name.
    """
    origins = Origins() if origins is None else origins
    if not origins.option("stream_name", stream_name):
        stream_name = origins.environment("stream_name", "DIS_LOGGING_STREAM_NAME")
    if stream_name is None:
        raise MissingOptionError("stream_name", "DIS_LOGGING_STREAM_NAME")
    return check_stream_name(stream_name)


def check_stream_name(value: object) -> str:
    """Returns *value* if it can be a stream's name (1 to 64 of ``A-Z a-z 0-9 _ -``), else raises ConfigurationError."""
    name = options.text("stream_name", value)
    if not is_stream_name(name):
        raise ConfigurationError(f"stream_name must be 1 to 64 letters, digits, '-' or '_', not {options.shown(value)}")
    return name


def _word(name: str, value: object, *variables: str) -> str:
    if value is None:
        raise MissingOptionError(name, *variables)
    word = options.text(name, value)
    if not re.fullmatch(_WORD, word):
        raise ConfigurationError(f"{name} must be letters, digits, '-' or '_', not {options.shown(value)}")
    return word


def _is_base_url(url: str, parts: SplitResult) -> bool:
    # urlsplit forgives line breaks, and takes the "https:" of "https:/host" for a host without a port.
    if not re.fullmatch(r"[!-~]+", url) or parts.netloc.endswith(":") or parts.query or parts.fragment:
        return False
    host = parts.hostname or ""
    return bool(re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?", host))


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
