"""The HTTP messages that the parts of the emulator hand to each other, and DIS's refusals with their texts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from urllib.parse import unquote

from dis_logging.client import bodies, wire
from dis_logging.client.compression import unpack


class ReceivedEntry(NamedTuple):
    """
    One entry of a PutRecords request, its *data* decoded; what the request left out is None.

    A named tuple, not a dataclass: the emulator also measures throughput, and tuples are several times cheaper to make.
    """

    data: bytes
    partition_key: str | None = None
    explicit_hash_key: str | None = None
    partition_id: str | None = None
    timestamp: int | None = None

    @property
    def text(self) -> str:
        """The data as UTF-8, with replacement characters for what is not."""
        return self.data.decode("utf-8", "replace")


class Batch(NamedTuple):
    """What a PutRecords request asks to store; either name is empty when the request leaves it out."""

    stream_name: str
    stream_id: str
    entries: tuple[ReceivedEntry, ...]


@dataclass(frozen=True)
class Head:
    """
    A request line and its headers.

    Args:
        method: upper case.
        target: path and query as sent.
        headers: names in lower case; values of a repeated header are joined with a comma and a space.
        content_length: size of the body in bytes.
        keep_alive: whether the client wants to send more requests on this connection.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    content_length: int = 0
    keep_alive: bool = True

    @cached_property
    def path(self) -> str:
        """The percent-decoded path."""
        return unquote(self.target.partition("?")[0])

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """
        The percent-decoded names and values, in order.

        Not `parse_qsl`: the Java SDK does not encode query strings and ends them in "&", so a "+" is no blank and empty
        parts mean nothing.
        """
        parts = (part.partition("=") for part in self.target.partition("?")[2].split("&") if part)
        return [(unquote(name), unquote(value)) for name, _, value in parts]


@dataclass(frozen=True)
class Request:
    """A request with its whole body, as received."""

    head: Head
    body: bytes = field(default=b"", repr=False)

    @cached_property
    def messages(self) -> bodies.Messages:
        """
        The format the client speaks, in which it is to be answered.

        Raises:
            MalformedRequestError: when it cannot be spoken here.
        """
        return bodies.request_messages(self.head.headers)

    @cached_property
    def plain_body(self) -> bytes:
        """
        The body as it was before it was compressed.

        Raises:
            MalformedRequestError: when it cannot be restored.
        """
        return unpack(self.body, self.head.headers, wire.MAX_BODY_BYTES)

    @cached_property
    def batch(self) -> Batch:
        """
        What a PutRecords request carries.

        Raises:
            MalformedRequestError: when the body cannot be read.
        """
        request = self.messages.decode_put_records(self.plain_body)
        return Batch(
            request.stream_name,
            request.stream_id,
            tuple(
                ReceivedEntry(
                    entry.data.encode() if isinstance(entry.data, str) else entry.data,
                    entry.partition_key,
                    entry.explicit_hash_key,
                    entry.partition_id,
                    entry.timestamp,
                )
                for entry in request.entries
            ),
        )


@dataclass(frozen=True, slots=True)
class Response:
    """
    An answer, whatever way it is then sent.

    Args:
        status: HTTP status.
        body: the bytes after the head.
        headers: on top of Content-Type, Content-Length, Date and X-Request-Id, or instead of them under the same name;
            None leaves one out.
        error_code: of a request that is refused as a whole.
        entry_codes: the error codes of refused entries, one for each of them.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    error_code: str = ""
    entry_codes: tuple[str, ...] = ()

    @classmethod
    def in_format(cls, messages: bodies.Messages, body: bytes, *, entry_codes: tuple[str, ...] = ()) -> Response:
        """Returns the 200 answer with a result that *messages* has encoded."""
        # Without the charset: it is how the API reference shows the header of answers.
        content_type = messages.CONTENT_TYPE.partition(";")[0]
        return cls(200, body, {"Content-Type": content_type}, entry_codes=entry_codes)

    @classmethod
    def empty(cls, status: int) -> Response:
        """Returns an answer without a body; with 204 no header may speak of one (RFC 9110, 8.6)."""
        return cls(status, headers={"Content-Type": None, "Content-Length": None} if status == 204 else {})


class RefusalError(Exception):
    """The request is refused as a whole with *code*; *message* defaults to DIS's text for it."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or message_of(code))
        self.code = code


# Status and text by code: API reference, "Error Codes"; SDK reference, "Server-Side Error Codes". Texts in the service's
# own words where those pages quote them, else a short form of the description (assumed).
_REFUSALS: dict[str, tuple[int, str]] = {
    "DIS.4100": (441, "Authorization error."),
    "DIS.4101": (441, "Authorization header cannot be empty."),
    "DIS.4102": (441, "Incorrectly parsed authorization header."),
    "DIS.4103": (441, "Empty X-Sdk-Date header."),
    "DIS.4104": (441, "Error parsing X-Sdk-Date header."),
    "DIS.4105": (441, "Invalid X-Sdk-Date header."),
    "DIS.4106": (441, "Empty AccessKey header."),
    "DIS.4107": (441, "Invalid AccessKey header."),
    "DIS.4108": (441, "Empty ServiceName header."),
    "DIS.4111": (441, "Invalid Region header."),
    "DIS.4112": (441, "Invalid authorization request."),
    "DIS.4113": (441, "Empty token."),
    "DIS.4114": (441, "Invalid token."),
    "DIS.4116": (403, "Invalid RBAC."),
    "DIS.4117": (400, "Invalid Project Id."),
    "DIS.4200": (400, "Invalid request."),
    "DIS.4201": (400, "Invalid partition_id."),
    "DIS.4202": (400, "Empty request."),
    "DIS.4205": (400, "Stream is not running."),
    "DIS.4215": (400, "Invalid cursor type."),
    "DIS.4216": (400, "Invalid sequence_number."),
    "DIS.4217": (400, "Invalid partition cursor."),
    "DIS.4224": (400, "Sequence_number out of range."),
    "DIS.4225": (400, "Expired partition cursor."),
    "DIS.4226": (400, "A partition iterator error occurred or a record to which the SN corresponds has expired."),
    "DIS.4300": (400, "Request error."),
    "DIS.4301": (400, "The stream does not exist."),
    "DIS.4302": (400, "Partition does not exist."),
    "DIS.4303": (400, "Exceeded traffic control limit."),
    "DIS.4305": (400, "Too many stream requests."),
    "DIS.4307": (400, "The stream already exists."),
    "DIS.4308": (400, "Insufficient quota."),
    "DIS.4309": (400, "Too many request failures. Please try again later."),
    "DIS.4319": (400, "Partition is expired."),
    "DIS.4330": (400, "app already exist."),
    "DIS.4332": (400, "app not found."),
    "DIS.5000": (500, "System error."),
}


def status_of(code: str) -> int:
    """Returns the HTTP status that DIS sends with *code*."""
    return _REFUSALS.get(code, (400, ""))[0]


def message_of(code: str) -> str:
    """Returns DIS's text for *code*, empty for one that is not known here."""
    return _REFUSALS.get(code, (400, ""))[1]


def refusal(
    status: int,
    code: str,
    message: str,
    *,
    gateway: bool = False,
    headers: Mapping[str, str | None] | None = None,
    body: bytes | None = None,
) -> Response:
    """
    Returns the answer to a request that is refused as a whole.

    Args:
        status: HTTP status.
        code: error code, empty for none.
        message: text for people.
        gateway: in the form of the API gateway instead of DIS's own.
        headers: as those of `Response`.
        body: to send instead of either form.
    """
    request_id = new_request_id()
    if body is None:
        body = wire.encode_error(code, message, gateway=gateway, request_id=request_id)
    return Response(status, body, {"X-Request-Id": request_id, **(headers or {})}, error_code=code)


def new_request_id() -> str:
    """Returns a value for X-Request-Id."""
    return uuid.uuid4().hex
