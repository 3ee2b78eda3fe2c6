"""
Compresses the bodies of requests and restores them, by the codecs and with the headers of the Java SDK's body compression.

Not in the API reference: AbstractDISClient of the Java SDK 1.3.21 compresses the encoded body before it is signed, so that
Content-Length and the signature are those of the compressed bytes. Each codec needs the extra of its name; its library is
imported when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from dis_logging import options
from dis_logging.client.wire import MalformedRequestError
from dis_logging.errors import ConfigurationError

# The Java SDK's, and the library's own default.
_ZSTD_LEVEL = 3
_LENGTH = r"[0-9]{1,10}"


class Compression(str, Enum):
    """
    How the body of a request is compressed.

    `ZSTD`: one Zstandard frame. `LZ4`: one raw LZ4 block. `SNAPPY`: the raw Snappy format.
    """

    ZSTD = "zstd"
    LZ4 = "lz4"
    SNAPPY = "snappy"


if TYPE_CHECKING:

    class Codec(Protocol):
        """One way to compress. Safe to use from several threads."""

        def compress(self, body: bytes) -> bytes:
            """Returns *body* compressed."""
            ...

        def restore(self, packed: bytes, limit: int) -> bytes:
            """
            Returns what *packed* was made from, never taking much more memory than *limit* bytes for it.

            Raises:
                ValueError: when it is malformed or longer than that.
            """
            ...


class Compressor:
    """
    Compresses bodies in one way.

    Raises:
        ConfigurationError: the library is missing; the message says what to install.
    """

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._codec = _codec(compression)

    def pack(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        """Returns *body* compressed, and the headers that say so; they must be signed."""
        headers = {"Content-Encoding": self._compression.value}
        length_header = _LENGTH_HEADERS.get(self._compression)
        if length_header is not None:
            headers[length_header] = str(len(body))
        return self._codec.compress(body), headers


def unpack(body: bytes, headers: Mapping[str, str], limit: int) -> bytes:
    """
    Returns the body of a request as it was before it was compressed, at most *limit* bytes.

    Args:
        body: as received.
        headers: of the request, names in lower case.
        limit: most bytes to return.

    Raises:
        MalformedRequestError: with DIS.4300 when the body cannot be restored.
    """
    name = headers.get("content-encoding", "").strip().lower()
    if name in ("", "identity"):
        return body
    try:
        compression = Compression(name)
        codec = _codec(compression)
    except ConfigurationError as error:
        raise MalformedRequestError("DIS.4300", f"Request error. {error}") from None
    except ValueError:
        raise MalformedRequestError("DIS.4300", "Request error. Content-Encoding is not supported.") from None
    length = _declared_length(compression, headers, limit)
    try:
        restored = codec.restore(body, limit if length is None else length)
    except ValueError:
        restored = None
    if restored is None or length not in (None, len(restored)):
        raise MalformedRequestError(
            "DIS.4300", f"Request error. The body is no {name} of the declared length, at most {limit} bytes."
        )
    return restored


# The Java SDK declares the uncompressed length with these two; raw Snappy begins with it.
_LENGTH_HEADERS = {
    Compression.ZSTD: "x-dis-zstd-content-length",
    Compression.LZ4: "x-dis-lz4-content-length",
}


def _declared_length(compression: Compression, headers: Mapping[str, str], limit: int) -> int | None:
    header = _LENGTH_HEADERS.get(compression)
    if header is None:
        return None
    value = headers.get(header, "")
    # That DIS insists on the header is assumed: a raw LZ4 block does not tell its length.
    if not re.fullmatch(_LENGTH, value) or int(value) > limit:
        raise MalformedRequestError("DIS.4300", f"Request error. {header} must be a number up to {limit}.")
    return int(value)


class _Zstd:
    def __init__(self) -> None:
        import zstandard

        self._library = zstandard

    def compress(self, body: bytes) -> bytes:
        # A compressor of its own for each body: they are not safe to share between threads, and cheap to make.
        return self._library.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)

    def restore(self, packed: bytes, limit: int) -> bytes:
        try:
            # A frame that declares its length has that much allocated at once, whatever the maximum below.
            if self._library.frame_content_size(packed) > limit:
                raise ValueError("longer than it may be")
            decompressor = self._library.ZstdDecompressor()
            return decompressor.decompress(packed, max_output_size=limit, allow_extra_data=False)
        except self._library.ZstdError as error:
            raise ValueError("not one whole Zstandard frame") from error


class _Lz4:
    def __init__(self) -> None:
        import lz4.block

        self._library = lz4.block

    def compress(self, body: bytes) -> bytes:
        packed: bytes = self._library.compress(body, store_size=False)
        return packed

    def restore(self, packed: bytes, limit: int) -> bytes:
        try:
            body: bytes = self._library.decompress(packed, uncompressed_size=limit)
        except self._library.LZ4BlockError as error:
            raise ValueError("not an LZ4 block") from error
        return body


class _Snappy:
    def __init__(self) -> None:
        import cramjam

        self._library = cramjam

    def compress(self, body: bytes) -> bytes:
        return bytes(self._library.snappy.compress_raw(body))

    def restore(self, packed: bytes, limit: int) -> bytes:
        try:
            # As many bytes as the body declares in front are allocated at once.
            if self._library.snappy.decompress_raw_len(packed) > limit:
                raise ValueError("longer than it may be")
            return bytes(self._library.snappy.decompress_raw(packed))
        except self._library.DecompressionError as error:
            raise ValueError("not raw Snappy") from error


_CODECS: Mapping[Compression, Callable[[], Codec]] = {
    Compression.ZSTD: _Zstd,
    Compression.LZ4: _Lz4,
    Compression.SNAPPY: _Snappy,
}


def _codec(compression: Compression) -> Codec:
    try:
        return _CODECS[compression]()
    except ImportError as error:
        raise options.missing_extra("compression", compression.value) from error
