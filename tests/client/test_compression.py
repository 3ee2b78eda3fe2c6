"""The decoders are tested with bytes that other encoders made (`tests/data/compression.json`)."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dis_logging import ConfigurationError
from dis_logging.client.compression import Compression, Compressor, unpack
from dis_logging.client.wire import MAX_BODY_BYTES, MalformedRequestError
from tests.peak import PEAK

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "compression.json").read_text("utf-8"))
BODY: bytes = VECTORS["body"].encode()
LIMIT = 10_000

every_compression = pytest.mark.parametrize("compression", Compression)


def described(compression: Compression, length: int) -> dict[str, str]:
    """Returns the headers of a compressed request as a server gets them, the length declared where that is usual."""
    headers = {"content-encoding": compression.value}
    if compression is not Compression.SNAPPY:
        headers[f"x-dis-{compression.value}-content-length"] = str(length)
    return headers


@pytest.mark.parametrize("vector", VECTORS["compressed"], ids=lambda vector: vector["encoding"])
def test_bytes_of_another_encoder_are_restored(vector: dict[str, Any]) -> None:
    headers = {"content-encoding": vector["encoding"]}
    if vector["length_header"]:
        headers[vector["length_header"]] = str(len(BODY))

    restored = unpack(bytes.fromhex(vector["hex"]), headers, LIMIT)

    assert restored == BODY


@pytest.mark.parametrize("vector", VECTORS["compressed"], ids=lambda vector: vector["encoding"])
def test_a_body_is_sent_with_the_headers_of_the_java_sdk(vector: dict[str, Any]) -> None:
    _, headers = Compressor(Compression(vector["encoding"])).pack(BODY)

    length = {vector["length_header"]: "90"} if vector["length_header"] else {}
    assert headers == {"Content-Encoding": vector["encoding"], **length}


def test_zstd_sends_one_frame_that_declares_its_length() -> None:
    import zstandard

    packed, _ = Compressor(Compression.ZSTD).pack(BODY * 100)

    assert zstandard.get_frame_parameters(packed).content_size == 9000
    assert zstandard.ZstdDecompressor().decompress(packed, read_across_frames=False) == BODY * 100


def test_lz4_sends_one_raw_block_without_its_length() -> None:
    import lz4.block

    packed, _ = Compressor(Compression.LZ4).pack(BODY * 100)

    assert lz4.block.decompress(packed, uncompressed_size=9000) == BODY * 100


def test_snappy_sends_the_raw_format_that_begins_with_the_length() -> None:
    packed, _ = Compressor(Compression.SNAPPY).pack(BODY)

    assert packed[0] == 90  # a varint
    assert not packed.startswith(b"\xff\x06\x00\x00sNaPpY")  # the framing format


@every_compression
@given(body=st.binary(max_size=2000) | st.binary(max_size=20).map(lambda part: part * 100))
@example(body=b"")
def test_what_is_packed_is_restored(compression: Compression, body: bytes) -> None:
    packed, headers = Compressor(compression).pack(body)

    assert unpack(packed, {name.lower(): value for name, value in headers.items()}, LIMIT) == body


@pytest.mark.parametrize("headers", [{}, {"content-encoding": "identity"}, {"content-encoding": ""}])
def test_a_body_that_was_not_compressed_stays_as_it_is(headers: dict[str, str]) -> None:
    assert unpack(b"\x28\xb5\x2f\xfd", headers, LIMIT) == b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd, lz4", "Ω"])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(MalformedRequestError, match="Content-Encoding") as refused:
        unpack(BODY, {"content-encoding": encoding}, LIMIT)

    assert refused.value.code == "DIS.4300"


@every_compression
@given(garbage=st.binary(max_size=200), length=st.integers(0, LIMIT))
def test_random_bytes_are_restored_within_the_limit_or_refused(
    compression: Compression, garbage: bytes, length: int
) -> None:
    try:
        restored = unpack(garbage, described(compression, length), LIMIT)
    except MalformedRequestError:
        return

    assert len(restored) <= LIMIT


@every_compression
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_damaged_body_is_refused_or_has_the_declared_length(compression: Compression, place: int, byte: int) -> None:
    damaged = bytearray(Compressor(compression).pack(BODY)[0])
    damaged[place % len(damaged)] = byte

    try:
        restored = unpack(bytes(damaged), described(compression, len(BODY)), LIMIT)
    except MalformedRequestError:
        return

    assert len(restored) <= LIMIT
    assert compression is Compression.SNAPPY or len(restored) == len(BODY)


@every_compression
def test_a_truncated_body_is_refused(compression: Compression) -> None:
    packed, _ = Compressor(compression).pack(BODY * 10)

    for size in range(len(packed)):
        with pytest.raises(MalformedRequestError):
            unpack(packed[:size], described(compression, len(BODY) * 10), LIMIT)


@every_compression
def test_bytes_after_the_body_are_refused(compression: Compression) -> None:
    packed, _ = Compressor(compression).pack(BODY)

    with pytest.raises(MalformedRequestError):
        unpack(packed + b"x", described(compression, len(BODY)), LIMIT)


@pytest.mark.parametrize("compression", [Compression.ZSTD, Compression.LZ4])
@pytest.mark.parametrize("length", ["", "89", "91", "-90", "9e1", "\u0663", "10001", "9" * 5000])
def test_a_length_that_is_missing_or_wrong_is_refused(compression: Compression, length: str) -> None:
    packed, _ = Compressor(compression).pack(BODY)
    headers = described(compression, 0) | {f"x-dis-{compression.value}-content-length": length}

    with pytest.raises(MalformedRequestError) as refused:
        unpack(packed, headers, LIMIT)

    assert refused.value.code == "DIS.4300"


UNPACKING = (
    PEAK
    + """
import sys
from dis_logging.client.compression import unpack
from dis_logging.client.wire import MAX_BODY_BYTES, MalformedRequestError

headers = dict(line.split("=") for line in sys.argv[1:])
bomb = sys.stdin.buffer.read()

try:
    unpack(b"", headers, MAX_BODY_BYTES)
except MalformedRequestError:
    pass  # the library is there now
before = peak()
try:
    unpack(bomb, headers, MAX_BODY_BYTES)
except MalformedRequestError:
    print(peak() - before)
"""
)


def make_bomb(name: str) -> bytes:
    """Returns a small body that becomes 100 MB, or 4 GB, when nobody looks after it."""
    import zstandard

    if name == "snappy-promise":
        return b"\xff\xff\xff\xff\x0f"  # that many bytes follow, and none does
    zeros = bytes(100_000_000)
    if name == "zstd-without-length":
        return zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
    return Compressor(Compression(name)).pack(zeros)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("declared", [1000, 100_000_000])
@pytest.mark.parametrize("name", ["zstd", "zstd-without-length", "lz4", "snappy", "snappy-promise"])
def test_a_bomb_is_refused_and_takes_little_memory(name: str, declared: int) -> None:
    headers = described(Compression(name.partition("-")[0]), declared)
    arguments = [f"{name}={value}" for name, value in headers.items()]

    ran = subprocess.run(
        [sys.executable, "-c", UNPACKING, *arguments], input=make_bomb(name), capture_output=True, check=True
    )

    assert int(ran.stdout) < 4 * MAX_BODY_BYTES


@every_compression
def test_one_compressor_serves_several_threads(compression: Compression) -> None:
    compressor = Compressor(compression)
    bodies = [bytes([number]) * 50_000 + BODY * number for number in range(8)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            packed, headers = compressor.pack(bodies[number])
            if unpack(packed, {name.lower(): value for name, value in headers.items()}, 100_000) != bodies[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


@pytest.mark.parametrize(
    ("compression", "library"),
    [(Compression.ZSTD, "zstandard"), (Compression.LZ4, "lz4"), (Compression.SNAPPY, "cramjam")],
)
def test_without_its_library_a_codec_says_what_to_install(
    compression: Compression, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(ConfigurationError, match=rf"compression.*pip install 'dis-logging\[{compression.value}\]'"):
        Compressor(compression)
    with pytest.raises(MalformedRequestError, match="pip install") as refused:
        unpack(b"x", described(compression, 1), LIMIT)
    assert refused.value.code == "DIS.4300"
