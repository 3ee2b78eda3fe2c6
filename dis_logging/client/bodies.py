"""Chooses how bodies look: the format and the compression of requests, and the format in which an answer is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from dis_logging import options
from dis_logging.client import wire
from dis_logging.client.compression import Compression, Compressor
from dis_logging.client.models import PutRecordsResult, Refusals
from dis_logging.errors import ConfigurationError, ProtocolError

_PROTOBUF_TYPE = "application/x-protobuf"


class BodyFormat(str, Enum):
    """
    How messages are written.

    `JSON`: what the API reference describes. `PROTOBUF`: what DIS's own SDKs offer besides; it spares the base64.
    """

    JSON = "json"
    PROTOBUF = "protobuf"


if TYPE_CHECKING:
    from dis_logging.client.read_models import GetRecordsResult

    class Messages(Protocol):
        """The messages of PutRecords and GetRecords in one format. Modules implement it: `wire` for JSON, `protobuf`."""

        CONTENT_TYPE: str

        def encode_put_records(
            self, stream_name: str, entries: Sequence[wire.WireEntry], stream_id: str = ""
        ) -> bytes: ...
        def decode_put_records(self, body: bytes) -> wire.PutRecordsRequest: ...
        def encode_put_records_result(self, result: PutRecordsResult) -> bytes: ...
        def decode_put_records_result(self, body: bytes, expected: int) -> PutRecordsResult: ...
        def decode_refusals(self, body: bytes, expected: int) -> Refusals: ...
        def encode_get_records_result(
            self, records: Iterable[wire.WireRecord], next_partition_cursor: str
        ) -> bytes: ...
        def decode_get_records_result(self, body: bytes) -> GetRecordsResult: ...


class Bodies:
    """
    How the bodies of one client's requests are made, and those of the answers read.

    Args:
        body_format: ``"json"`` or ``"protobuf"``.
        compression: None, ``"zstd"``, ``"lz4"`` or ``"snappy"``.

    Attributes:
        messages: encodes requests.

    Raises:
        ConfigurationError: there is no such choice, or its library is missing; the message says what to install.
    """

    def __init__(self, body_format: Any, compression: Any) -> None:
        self.messages = _messages_in(options.choice("body_format", body_format, BodyFormat))
        self._compressor: Compressor | None = None
        if compression is not None:
            self._compressor = Compressor(options.choice("compression", compression, Compression))

    def pack(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        """Returns the bytes to send for an encoded *body*, and the headers that describe them."""
        headers = {"Content-Type": self.messages.CONTENT_TYPE}
        if self._compressor is None:
            return body, headers
        packed, encoding = self._compressor.pack(body)
        if len(packed) > wire.MAX_BODY_BYTES:
            # What does not compress gets a little longer, and here too long.
            return body, headers
        return packed, headers | encoding

    def answer_messages(self, content_type: str, body: bytes) -> Messages:
        """
        Returns what decodes an answer, whatever the format of the request was.

        DIS labels protobuf. Anything else is JSON first, the order of the official SDKs, and what cannot be JSON is read
        like the request.

        Raises:
            ProtocolError: the answer is in protobuf, whose library is missing.
        """
        if not _is_protobuf(content_type):
            return wire if body.lstrip().startswith(b"{") else self.messages
        try:
            return _messages_in(BodyFormat.PROTOBUF)
        except ConfigurationError as error:
            raise ProtocolError(f"DIS answered in protobuf: {error}", status=200) from None


def request_messages(headers: Mapping[str, str]) -> Messages:
    """
    Returns what decodes a request with these *headers* (names in lower case) and encodes its answer.

    What is not labelled as protobuf is JSON.

    Raises:
        MalformedRequestError: the library for it is missing.
    """
    if not _is_protobuf(headers.get("content-type", "")):
        return wire
    try:
        return _messages_in(BodyFormat.PROTOBUF)
    except ConfigurationError as error:
        raise wire.MalformedRequestError("DIS.4300", f"Request error. {error}") from None


def _is_protobuf(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == _PROTOBUF_TYPE


def _messages_in(body_format: BodyFormat) -> Messages:
    if body_format is BodyFormat.JSON:
        return wire
    try:
        from dis_logging.client import protobuf  # here, because the library is an extra
    except ImportError as error:
        raise options.missing_extra("body_format", body_format.value) from error
    return protobuf
