"""Puts records into a DIS stream, and reads it: encode, sign, send once, decode."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase

from dis_logging import options
from dis_logging.client import wire
from dis_logging.client.auth import DISAuth
from dis_logging.client.bodies import Bodies, BodyFormat
from dis_logging.client.compression import Compression
from dis_logging.client.models import PutRecordsRequestEntry, PutRecordsResult, Refusals
from dis_logging.client.origins import Origins
from dis_logging.client.signing import SignatureScheme
from dis_logging.client.sources import find_credentials
from dis_logging.client.target import Target, check_stream_name, find_target
from dis_logging.client.transport import (
    ENDLESS_PATIENCE,
    MAX_REPLY_BYTES,
    HTTPReply,
    HTTPTransport,
    Patience,
    Route,
)
from dis_logging.errors import ConfigurationError, ProtocolError

if TYPE_CHECKING:
    from dis_logging.client.bodies import Messages
    from dis_logging.client.read_models import CursorType, GetRecordsResult, PartitionDescription, StreamDescription

# As requests looks them up: by scheme, or by scheme and host.
_PROXIED = r"(?:https?|all)(?:://.+)?"
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_USER_AGENT = "dis-logging"
_UNAUTHORISED = (401, 441)  # the API gateway's status, and DIS's own
# What a common partition gives in a second (FAQ, "What is a partition?"), and twice the largest record.
_FETCH_BYTES = 2 * wire.MAX_RECORD_BYTES
# That in base64, with what encloses it, if the records are short.
_MAX_RECORDS_REPLY_BYTES = 32 * 1024 * 1024


class DISClient:
    """
    A client of one DIS project: one call is one signed attempt, over connections that are kept open.

    Retrying is the caller's business; `DISHandler` does it for log records. Safe to share between threads and across
    a fork. Use it as a context manager, or `close` it, to give the connections back.

    To read a stream: `list_partitions` tells its partitions, `get_cursor` gives a place in one of them, and `get_records`
    what is there together with the cursor to go on with.

    Args:
        endpoint: base URL; default ``https://dis.{region}.myhuaweicloud.com``. Plain ``http`` only to loopback, unless
            *allow_http* is true.
        region: region of the endpoint; it enters the signature. Default: environment (see `find_target`).
        project_id: IAM project of that region. Default: environment.
        stream_id: only for a stream that another account has authorised.
        ak: access key id. Default: environment (see `find_credentials`).
        sk: secret access key. Default: environment.
        security_token: of a temporary key pair; signed and sent along.
        auth_token: IAM user token instead of access keys.
        credentials: callable that returns `Credentials`, asked at every attempt; or an object of huaweicloudsdkcore's
            credential classes; or ``"ecs"`` for the keys of this server's agency (see `ECSCredentials`).
        signature: ``"sdk-hmac-sha256"`` (default, what DIS's own SDKs send), ``"access"`` (API gateway), ``"v11"`` (DIS
            Python SDK since 2026-06) or ``"v11-core"`` (huaweicloudsdkcore's form of V11).
        body_format: ``"json"`` (default) or ``"protobuf"``, which spares the base64; needs ``dis-logging[protobuf]``.
            Known from DIS's own SDKs, not from the API reference. Answers are understood in either.
        compression: of request bodies: None (default), ``"zstd"``, ``"lz4"`` or ``"snappy"``; each needs the extra of its
            name, such as ``dis-logging[zstd]``. Known from the Java SDK only, so try it with your endpoint first.
        request_timeout: seconds for a whole attempt, first byte to last; more than 0, default 10.
        verify: TLS verification as in requests: True (default), False, or a CA bundle's path.
        proxies: as in requests; default: the environment's, and none for an endpoint on this machine.
        allow_http: accept plain ``http`` to other machines.

    Attributes:
        target: where requests go.
        origins: where the value of each of the options came from, in words: ``"option"``, ``"environment variable
            DIS_LOGGING_REGION"``, ``"profile file ..."``, ``"default"``, ``"ECS metadata service"``.

    Raises:
        ConfigurationError: an option is missing, malformed or out of range, or needs an extra that is not installed; the
            message names it.
    """

    @options.hide_arguments
    def __init__(
        self,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        project_id: str | None = None,
        stream_id: str | None = None,
        ak: str | None = None,
        sk: str | None = None,
        security_token: str | None = None,
        auth_token: str | None = None,
        credentials: Any = None,
        signature: str | SignatureScheme = SignatureScheme.SCOPED,
        body_format: str | BodyFormat = BodyFormat.JSON,
        compression: str | Compression | None = None,
        request_timeout: float | str = 10.0,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        allow_http: bool | str = False,
    ) -> None:
        self.origins = Origins()
        self.target = find_target(endpoint, region, project_id, stream_id, allow_http, self.origins)
        self.request_timeout = options.seconds("request_timeout", request_timeout, exclusive=True)
        source = find_credentials(ak, sk, security_token, auth_token, credentials, self.origins)
        scheme = options.choice("signature", signature, SignatureScheme)
        self._bodies = Bodies(body_format, compression)
        self._auth = DISAuth(source, self.target.region, scheme)
        self._transport = HTTPTransport(verify=_check_verify(verify), proxies=_check_proxies(proxies, self.target))
        self._headers = {
            "Host": self.target.host,
            "X-Project-Id": self.target.project_id,
            "User-Agent": _USER_AGENT,
        }

    def put_records(self, stream_name: str, records: Iterable[PutRecordsRequestEntry]) -> PutRecordsResult:
        """
        Uploads *records* in one request and returns what became of each, in the same order.

        A record that DIS refused does not raise: its result entry carries the error code, and
        `PutRecordsResult.failed_record_count` counts it.

        Args:
            stream_name: an existing stream, 1 to 64 of ``A-Z a-z 0-9 _ -``.
            records: 1 to 10,000 entries, each 1 byte to 1 MiB of data, together at most 5 MiB encoded.

        Raises:
            ValueError, TypeError: an argument is unfit; nothing was sent. The message names the field.
            ServiceError: DIS refused the whole request.
            NotSentError: no connection; nothing was sent.
            UnknownOutcomeError: sent, but no complete answer came within *request_timeout*.
            ProtocolError: the answer makes no sense, so the outcome is unknown.
        """
        stream_name = check_stream_name(stream_name)
        entries = [wire.wire_entry(entry) for entry in _check_entries(records)]
        body = self._bodies.messages.encode_put_records(stream_name, entries, self.target.stream_id)
        if len(body) > wire.MAX_BODY_BYTES:
            raise ValueError(f"records take {len(body)} bytes encoded, more than {wire.MAX_BODY_BYTES} for one request")
        reply = self._post(body, self.request_timeout)
        return self._read(reply).decode_put_records_result(reply.body, len(entries))

    def send(
        self, stream_name: str, entries: Sequence[wire.WireEntry], timeout: float, patience: Patience = ENDLESS_PATIENCE
    ) -> Refusals:
        """
        Uploads *entries*, which the caller has checked, and returns only the refused ones, by their index.

        What the pipeline calls: the same attempt as `put_records` without building what nobody reads.

        Args:
            timeout: seconds for this attempt; never more than *request_timeout* is used.
            patience: what to do when the answer is slow to come.

        Raises:
            DeliveryError: as `put_records` does.
        """
        body = self._bodies.messages.encode_put_records(stream_name, entries, self.target.stream_id)
        reply = self._post(body, min(timeout, self.request_timeout), patience)
        return self._read(reply).decode_refusals(reply.body, len(entries))

    def describe_stream(
        self, stream_name: str, *, start_partition_id: str = "", limit: int = wire.MAX_PARTITIONS
    ) -> StreamDescription:
        """
        Returns what a stream is like, with one page of its partitions (API reference, Querying Details of a Stream).

        Args:
            stream_name: 1 to 64 of ``A-Z a-z 0-9 _ -``.
            start_partition_id: the page begins after this partition; empty for the first page.
            limit: partitions on the page, 1 to 1000. DIS gives 100 when it is not told.

        Raises:
            ValueError: an argument is unfit; nothing was sent.
            DeliveryError: as `put_records` does; ``DIS.4301`` when there is no such stream.
        """
        from dis_logging.client import streams  # which few programs need

        options.count("limit", limit, high=wire.MAX_PARTITIONS, unit="partitions")
        if start_partition_id:
            _check_partition_id("start_partition_id", start_partition_id)
        query = streams.describe_query(start_partition_id, limit, self.target.stream_id)
        reply = self._get(self.target.stream_url(check_stream_name(stream_name)), query, wire.CONTENT_TYPE)
        return streams.decode_description(reply.body)

    def list_partitions(self, stream_name: str, *, page: int = wire.MAX_PARTITIONS) -> Iterator[PartitionDescription]:
        """
        Yields all partitions of a stream in the order of DIS, asking for a *page* of 1 to 1000 of them at a time.

        Raises:
            ValueError, DeliveryError: as `describe_stream` does, when the next page is asked for.
            ProtocolError: DIS says that there is more, and gives nothing new.
        """
        after = ""
        while True:
            description = self.describe_stream(stream_name, start_partition_id=after, limit=page)
            yield from description.partitions
            if not description.has_more_partitions:
                return
            last = description.partitions[-1].partition_id if description.partitions else after
            if last == after:
                raise ProtocolError("DIS answered 200 with a page of partitions that does not lead on", status=200)
            after = last

    def get_cursor(
        self,
        stream_name: str,
        partition_id: str,
        cursor_type: CursorType | str = "AT_SEQUENCE_NUMBER",
        *,
        starting_sequence_number: str = "",
        timestamp: int | None = None,
    ) -> str:
        """
        Returns a cursor: a place in a partition to read from, for five minutes (API reference, Obtaining Data Cursors).

        Args:
            stream_name: 1 to 64 of ``A-Z a-z 0-9 _ -``.
            partition_id: ``"shardId-0000000000"`` or ``"0"``.
            cursor_type: where to begin; a `CursorType` or its name.
            starting_sequence_number: for the two types that begin at a record. One that has expired, or is still to come,
                is refused with ``DIS.4224``.
            timestamp: for ``AT_TIMESTAMP``, in milliseconds since the epoch. One before the retention period is refused
                with ``DIS.4300`` and "timestamp is expired" (Java SDK).

        Raises:
            ValueError: an argument is unfit; nothing was sent.
            DeliveryError: as `put_records` does.
        """
        from dis_logging.client import streams
        from dis_logging.client.read_models import CursorType

        kind = options.choice("cursor_type", cursor_type, CursorType)
        _check_partition_id("partition_id", partition_id)
        by_number = kind in (CursorType.AT_SEQUENCE_NUMBER, CursorType.AFTER_SEQUENCE_NUMBER)
        if by_number != bool(starting_sequence_number):
            raise ValueError(f"starting_sequence_number is {'needed' if by_number else 'of no use'} with {kind.value}")
        if (kind is CursorType.AT_TIMESTAMP) != (timestamp is not None):
            raise ValueError(f"timestamp is {'of no use' if timestamp is not None else 'needed'} with {kind.value}")
        query = streams.cursor_query(
            check_stream_name(stream_name),
            partition_id,
            kind,
            starting_sequence_number,
            timestamp,
            self.target.stream_id,
        )
        return streams.decode_cursor(self._get(self.target.cursors_url, query, wire.CONTENT_TYPE).body)

    def get_records(
        self, partition_cursor: str, *, limit: int = wire.DEFAULT_FETCH_RECORDS, max_fetch_bytes: int = _FETCH_BYTES
    ) -> GetRecordsResult:
        """
        Returns the records at a cursor, none when nothing new is there, and the cursor to go on with.

        Asked for in the client's *body_format* and read in whichever comes (API reference, Downloading Data; SDKs for
        protobuf). A cursor that is refused must be replaced with `get_cursor`: one older than five minutes (``DIS.4225``),
        one that is none (``DIS.4217``), one whose record has expired (``DIS.4226``).

        Args:
            partition_cursor: from `get_cursor` or from the answer before.
            limit: records at most, 1 to 10,000; the Java SDK says that DIS no longer heeds it.
            max_fetch_bytes: bytes at most. Less than the next record has, and none is ever returned: do not go below
                1 MiB, the largest record.

        Raises:
            ValueError: an argument is unfit; nothing was sent.
            DeliveryError: as `put_records` does; ``DIS.4303`` when the partition is read too fast.
        """
        from dis_logging.client import streams

        if not isinstance(partition_cursor, str) or not 1 <= len(partition_cursor) <= wire.MAX_CURSOR_LENGTH:
            raise ValueError(f"partition_cursor must be a text of 1 to {wire.MAX_CURSOR_LENGTH} characters")
        options.count("limit", limit, high=wire.MAX_FETCH_RECORDS)
        options.count("max_fetch_bytes", max_fetch_bytes, unit="bytes")
        query = streams.records_query(partition_cursor, limit, max_fetch_bytes)
        reply = self._get(
            self.target.records_url, query, self._bodies.messages.CONTENT_TYPE, max_reply_bytes=_MAX_RECORDS_REPLY_BYTES
        )
        return self._read(reply).decode_get_records_result(reply.body)

    def access_key(self) -> str | None:
        """
        Returns the id of the access key that signs at present, None when an IAM token is sent instead.

        Raises:
            NotSentError: the source of the keys gives none.
        """
        return self._auth.access_key()

    def service_time(self) -> datetime | None:
        """
        Returns what time it is for DIS, to the second, None when its answer does not say.

        Asked without a signature, at the root of the endpoint, where nobody is refused for his keys.

        Raises:
            DeliveryError: there was no answer.
        """
        reply = self._transport.send(
            "GET", f"{self.target.endpoint}/", self._headers, b"", _Unsigned(), self.request_timeout
        )
        return _moment(reply.headers.get("Date", ""))

    def route(self) -> Route:
        """Returns how requests travel, through which proxy and verified with what; connects to nothing."""
        return self._transport.route(self.target.endpoint)

    def close(self) -> None:
        """Closes the idle connections. May be called twice; a later call of `put_records` opens new ones."""
        self._transport.close()

    def _read(self, reply: HTTPReply) -> Messages:
        return self._bodies.answer_messages(reply.headers.get("Content-Type", ""), reply.body)

    def _post(self, body: bytes, timeout: float, patience: Patience = ENDLESS_PATIENCE) -> HTTPReply:
        packed, described = self._bodies.pack(body)
        return self._ask("POST", self.target.records_url, packed, described, timeout, MAX_REPLY_BYTES, patience)

    def _get(
        self, url: str, query: Mapping[str, str], content_type: str, max_reply_bytes: int = MAX_REPLY_BYTES
    ) -> HTTPReply:
        # Every request has a Content-Type, also one without a body: for get-records it chooses the format of the answer
        # (SDKs). A blank is %20, as signatures read it.
        whole = f"{url}?{urlencode(query, quote_via=quote, safe='')}" if query else url
        return self._ask("GET", whole, b"", {"Content-Type": content_type}, self.request_timeout, max_reply_bytes)

    def _ask(
        self,
        method: str,
        url: str,
        body: bytes,
        described: Mapping[str, str],
        timeout: float,
        max_reply_bytes: int,
        patience: Patience = ENDLESS_PATIENCE,
    ) -> HTTPReply:
        """Returns the 200 answer to a request, signed once more if its signature was refused and may fare better."""

        def exchange(timeout: float) -> HTTPReply:
            headers = {**self._headers, **described}
            return self._transport.send(method, url, headers, body, self._auth, timeout, max_reply_bytes, patience)

        deadline = time.monotonic() + timeout
        reply = exchange(timeout)
        if reply.status in _UNAUTHORISED and self._auth.learn(*_refusal_of(reply)):
            # Signed once more with newer keys or a better clock; a second refusal is final.
            remaining = deadline - time.monotonic()
            if remaining > 0:
                reply = exchange(remaining)
        if reply.status == 200:
            return reply
        if 200 < reply.status < 300:
            # The API reference knows 200 only; taking another 2xx for an acknowledgement could lose records.
            raise ProtocolError(f"DIS answered HTTP {reply.status} instead of 200", status=reply.status)
        request_id = reply.headers.get("X-Request-Id") or reply.headers.get("X-Amz-Request-Id") or ""
        raise wire.decode_error(
            reply.status, reply.body, request_id, _retry_after(reply.headers.get("Retry-After", ""))
        )

    def __enter__(self) -> DISClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DISClient {self.target.endpoint} project {self.target.project_id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DISClient holds keys and connections and cannot be pickled; make one in the other process")


class _Unsigned(AuthBase):
    """Leaves a request as it is."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return request


def _refusal_of(reply: HTTPReply) -> tuple[str, datetime | None]:
    """Returns the error code and the service's clock."""
    return wire.decode_error(reply.status, reply.body).code, _moment(reply.headers.get("Date", ""))


def _moment(value: str) -> datetime | None:
    """Returns the time in an HTTP date, or None when it is none."""
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _retry_after(value: str) -> float | None:
    """Returns the seconds that a Retry-After header asks for (RFC 9110: a number, or a date), or None."""
    if re.fullmatch("[0-9]+", value.strip()):
        return float(value.strip()[:9])
    moment = _moment(value)
    return None if moment is None else max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def _check_verify(verify: Any) -> bool | str:
    if isinstance(verify, bool):
        return verify
    if isinstance(verify, str) and verify.strip().lower() in ("true", "false", "yes", "no", "on", "off", "1", "0"):
        return options.switch("verify", verify)
    path = os.fspath(verify) if isinstance(verify, str | os.PathLike) else None
    if not path or not os.path.exists(path):
        raise ConfigurationError(f"verify must be true, false or an existing CA bundle, not {options.shown(verify)}")
    if os.path.isfile(path) and not _holds_certificates(path):
        raise ConfigurationError(f"verify: {options.shown(verify)} is no file of certificates in PEM that can be read")
    return str(path)


def _holds_certificates(path: str | bytes) -> bool:
    try:
        with open(path, "rb") as bundle:
            return re.search(rb"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----", bundle.read()) is not None
    except OSError:
        return False


def _check_proxies(proxies: Any, target: Target) -> dict[str, str]:
    if proxies is None:
        # A proxy of the environment is for other machines; requests would send it the emulator's requests too.
        return {"no_proxy": urlsplit(target.endpoint).hostname or ""} if target.is_loopback else {}
    if not isinstance(proxies, Mapping) or not all(isinstance(part, str) for pair in proxies.items() for part in pair):
        # A proxy URL may hold a password, so the value is not shown.
        raise ConfigurationError("proxies must map schemes to proxy URLs, such as {'https': 'http://proxy:3128'}")
    return {scheme: _check_proxy(scheme, url) for scheme, url in proxies.items()}


def _check_proxy(scheme: str, url: str) -> str:
    """Returns the URL of the proxy for *scheme*, with the scheme that it may lack itself."""
    name = f"proxies[{options.shown(scheme)}]"
    if not re.fullmatch(_PROXIED, scheme):
        hint = options.did_you_mean(scheme, ("https", "http", "all"))
        if hint:  # others, as the environment may have for FTP, are no mistake
            raise ConfigurationError(f"{name} is for no request{hint}")
        return url
    if url and "://" not in url:
        url = f"http://{url}"  # as requests does, but for a host without a dot, whose name it takes for a scheme
    if url and not _is_proxy_url(url):
        raise ConfigurationError(f"{name} must be a URL such as http://proxy:3128")
    if url.lower().startswith("socks") and find_spec("socks") is None:
        raise ConfigurationError(f"{name} is a SOCKS proxy, for which a library is missing: pip install pysocks")
    return url


def _is_proxy_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and parts.scheme in _PROXY_SCHEMES
    except ValueError:  # of the port
        return False


def _check_entries(records: Iterable[PutRecordsRequestEntry]) -> list[PutRecordsRequestEntry]:
    if not isinstance(records, Iterable):
        raise TypeError(f"records must be a list of PutRecordsRequestEntry, not {type(records).__name__}")
    entries = list(records)
    if not 1 <= len(entries) <= wire.MAX_REQUEST_RECORDS:
        raise ValueError(f"records must be 1 to {wire.MAX_REQUEST_RECORDS} entries, not {len(entries)}")
    for index, entry in enumerate(entries):
        where = f"records[{index}]"
        if not isinstance(entry, PutRecordsRequestEntry):
            raise TypeError(f"{where} must be a PutRecordsRequestEntry, not {type(entry).__name__}")
        _check_data(f"{where}.data", entry.data)
        _check_routing(where, entry)
    return entries


def _check_partition_id(name: str, value: object) -> None:
    if not isinstance(value, str) or not wire.is_partition_id(value):
        raise ValueError(f"{name} must look like 'shardId-0000000000' or '0', not {options.shown(value)}")


def _check_data(where: str, data: object) -> None:
    if not isinstance(data, bytes | str):
        raise TypeError(f"{where} must be bytes or str, not {type(data).__name__}")
    try:
        size = len(data) if isinstance(data, bytes) else len(data.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{where} holds a lone surrogate and cannot be sent as UTF-8") from None
    if not 1 <= size <= wire.MAX_RECORD_BYTES:
        raise ValueError(f"{where} must be 1 to {wire.MAX_RECORD_BYTES} bytes, not {size}")


def _check_routing(where: str, entry: PutRecordsRequestEntry) -> None:
    for name in ("partition_key", "explicit_hash_key", "partition_id"):
        value = getattr(entry, name)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{where}.{name} must be a str, not {type(value).__name__}")
    key = entry.explicit_hash_key
    if key and not wire.is_hash_key(key):
        raise ValueError(
            f"{where}.explicit_hash_key must be a decimal number up to {wire.MAX_HASH_KEY}, not {options.shown(key)}"
        )
    if entry.partition_id and not wire.is_partition_id(entry.partition_id):
        raise ValueError(
            f"{where}.partition_id must look like 'shardId-0000000000' or '0', not {options.shown(entry.partition_id)}"
        )
    if entry.timestamp is not None and (isinstance(entry.timestamp, bool) or not isinstance(entry.timestamp, int)):
        raise TypeError(f"{where}.timestamp must be whole milliseconds, not {type(entry.timestamp).__name__}")
    if entry.timestamp is not None and not -(2**63) <= entry.timestamp < 2**63:
        raise ValueError(f"{where}.timestamp must fit into 64 bits, not {options.shown(entry.timestamp)}")
