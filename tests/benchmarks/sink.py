"""
A service that says yes to everybody, on raw sockets, so that it is never the bottleneck: ``python -m tests.benchmarks.sink``.

It answers DIS's PutRecords (JSON or protobuf), CloudWatch's PutLogEvents, Kinesis's PutRecord and OTLP over HTTP. What it
does while a contender is measured is a receive, a count (of what it has unpacked, if it came compressed) and a send: the
bodies are kept as they came, and their lines are looked at only when the ledger is asked for. It verifies no signature and holds no limit; the emulator does that, at a price.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tests.benchmarks.lines import LINE_BYTES, SEQUENCE

_RECEIVE_BYTES = 256 * 1024
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CONTENT_ENCODING = re.compile(rb"\r\ncontent-encoding:[ \t]*([a-z0-9]+)", re.IGNORECASE)
_CONTENT_TYPE = re.compile(rb"\r\ncontent-type:[ \t]*([a-z0-9./-]+)", re.IGNORECASE)
_AWS_TARGET = re.compile(rb"\r\nx-amz-target:[ \t]*\w+\.(\w+)", re.IGNORECASE)
# The payload of a DIS or Kinesis record; the keys are told apart by their case.
_BASE64_DATA = re.compile(rb'"[dD]ata": ?"([A-Za-z0-9+/=]*)"')

_AWS_ANSWERS = {
    b"PutLogEvents": b'{"nextSequenceToken":"1"}',
    b"PutRecord": b'{"ShardId":"shardId-000000000000","SequenceNumber":"1"}',
    b"DescribeStream": b'{"StreamDescription":{"StreamName":"app-logs","StreamARN":"arn:aws:kinesis:x:1:stream/app-logs",'
    b'"StreamStatus":"ACTIVE","Shards":[],"HasMoreShards":false,"RetentionPeriodHours":24,'
    b'"StreamCreationTimestamp":1,"EnhancedMonitoring":[]}}',
}


class Ledger(NamedTuple):
    """
    What arrived since the last reset.

    Args:
        requests: that carried records.
        entries: of these requests, as the service counts them: an aggregated DIS record is one.
        size: bytes of their bodies, as they came.
        distinct: different sequence numbers found in the lines.
        duplicates: lines whose sequence number had been seen before.
        wrong_length: lines that are not as long as they must be.
    """

    requests: int
    entries: int
    size: int
    distinct: int
    duplicates: int
    wrong_length: int


class _Kept(NamedTuple):
    """One request that carried records, as it came."""

    head: bytes
    body: bytes


class Sink:
    """Answers on a loopback port until the process ends; one thread for each connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._kept: list[_Kept] = []
        self._entries = 0
        self._delay = 0.0
        self._hangs = False
        self._sequence_number = 0

    def serve(self) -> None:
        """Accepts connections for ever."""
        while True:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve_connection, args=(connection,), daemon=True).start()

    def _serve_connection(self, connection: socket.socket) -> None:
        with connection:
            received = bytearray()
            try:
                while request := _receive_request(connection, received):
                    answer = self._answer(*request)
                    if answer is not None:
                        connection.sendall(answer)
            except OSError:
                pass  # the contender has gone

    def _answer(self, head: bytes, body: bytes) -> bytes | None:
        method, path = head.split(b" ", 2)[:2]
        if path.startswith(b"/-/"):
            return _response(json.dumps(self._control(path.decode())).encode())
        target = _AWS_TARGET.search(head)
        if target:
            if target[1].startswith(b"Put"):
                self._keep(head, body, body.count(b'"message":') or 1)
            return self._late(_response(_AWS_ANSWERS.get(target[1], b"{}"), "application/x-amz-json-1.1"))
        if path.endswith(b"/v1/logs"):
            self._keep(head, body, 0)
            return self._late(_response(b"", "application/x-protobuf"))
        return self._late(self._put_records(head, body) if method == b"POST" else _response(b"{}"))

    def _late(self, answer: bytes) -> bytes | None:
        """Returns *answer* after the set delay, or None for none at all."""
        if self._hangs:
            return None
        if self._delay:
            time.sleep(self._delay)
        return answer

    def _put_records(self, head: bytes, body: bytes) -> bytes:
        plain = _decompressed(head, body)
        kind = _CONTENT_TYPE.search(head)
        is_protobuf = kind is not None and kind[1].endswith(b"protobuf")
        # Base64 cannot hold a quote, and no partition key of ours does.
        count = sum(1 for _ in _protobuf_records(plain)) if is_protobuf else plain.count(b'"data":')
        first = self._keep(head, body, count)
        numbers = range(first, first + count)
        if is_protobuf:
            return _response(_protobuf_result(numbers), "application/x-protobuf")
        results = ",".join(
            [f'{{"partition_id":"shardId-0000000000","sequence_number":"{number}"}}' for number in numbers]
        )
        return _response(f'{{"failed_record_count":0,"records":[{results}]}}'.encode())

    def _keep(self, head: bytes, body: bytes, count: int) -> int:
        """Keeps a request for the ledger and returns the first of *count* sequence numbers."""
        self._kept.append(_Kept(head, body))
        self._entries += count
        self._sequence_number += count
        return self._sequence_number - count

    # -- control ----------------------------------------------------------------------------------------------------

    def _control(self, path: str) -> object:
        parts = urlsplit(path)
        if parts.path == "/-/ledger":
            return self._ledger()
        settings = dict(parse_qsl(parts.query))
        self._delay = float(settings.get("delay", 0))
        self._hangs = settings.get("hangs") == "True"
        self._kept = []
        self._entries = 0
        return {}

    def _ledger(self) -> Ledger:
        seen: Counter[int] = Counter()
        wrong_length = 0
        for kept in self._kept:
            for line in _lines(kept):
                seen[int(line[-8:])] += 1
                wrong_length += len(line) != LINE_BYTES
        duplicates = sum(seen.values()) - len(seen)
        size = sum(len(kept.body) for kept in self._kept)
        return Ledger(len(self._kept), self._entries, size, len(seen), duplicates, wrong_length)


def _receive_request(connection: socket.socket, received: bytearray) -> tuple[bytes, bytes] | None:
    """Returns head and body of the next request, or None at the end; what was read beyond stays in *received*."""
    while (end := received.find(b"\r\n\r\n")) < 0:
        chunk = connection.recv(_RECEIVE_BYTES)
        if not chunk:
            return None
        received += chunk
    head = bytes(received[:end])
    length = _CONTENT_LENGTH.search(head)
    size = int(length[1]) if length else 0
    if b"100-continue" in head.lower():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")  # boto3 waits for it
    body = bytearray(size)
    filled = min(size, len(received) - end - 4)
    body[:filled] = received[end + 4 : end + 4 + filled]
    del received[: end + 4 + filled]
    view = memoryview(body)
    while filled < size:
        count = connection.recv_into(view[filled:])
        if not count:
            return None
        filled += count
    return head, bytes(body)


def _response(body: bytes, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


# -- taking bodies apart --------------------------------------------------------------------------------------------


def _lines(kept: _Kept) -> Iterator[bytes]:
    """Yields the log lines in a request of any of the contenders, each ending in its sequence number."""
    body = _decompressed(kept.head, kept.body)
    payloads: Iterator[bytes] | Sequence[bytes] = (
        base64.b64decode(match[1], validate=True) for match in _BASE64_DATA.finditer(body)
    )
    if b'"message":' in body or b"/v1/logs" in kept.head or b"x-protobuf" in kept.head:
        payloads = [body]  # CloudWatch's JSON and protobuf hold the text as it is
    for payload in payloads:
        for match in SEQUENCE.finditer(payload):
            yield match[0]


def _decompressed(head: bytes, body: bytes) -> bytes:
    encoding = _CONTENT_ENCODING.search(head)
    if encoding is None or encoding[1] == b"identity":
        return body
    if encoding[1] != b"zstd":
        raise ValueError(f"the sink cannot decompress {encoding[1].decode()}")
    decompressed: bytes = import_module("zstandard").ZstdDecompressor().decompress(body, max_output_size=64 * 2**20)
    return decompressed


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _protobuf_records(body: bytes) -> Iterator[tuple[int, int]]:
    """Yields where each record of a PutRecordsRequest lies: field 2, in the schema that Huawei's SDKs share."""
    position = 0
    while position < len(body):
        tag, position = _varint(body, position)
        if tag & 7 == 0:
            _, position = _varint(body, position)
            continue
        size, position = _varint(body, position)
        if tag == 2 << 3 | 2:
            yield position, position + size
        position += size


def _protobuf_result(numbers: range) -> bytes:
    """Returns a PutRecordsResult: failedRecordCount is field 21, records 22, shardId 23, sequenceNumber 24."""
    shard = b"\xba\x01\x12shardId-0000000000"
    results = []
    for number in numbers:
        text = b"%d" % number
        result = shard + b"\xc2\x01" + bytes([len(text)]) + text
        results.append(b"\xb2\x01" + bytes([len(result)]) + result)
    return b"\xa8\x01\x00" + b"".join(results)


# -- the other side -------------------------------------------------------------------------------------------------


class SinkProcess:
    """A sink in a process of its own, so that what it costs is charged to nobody."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.sink"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def reset(self, *, delay: float = 0.0, hangs: bool = False) -> None:
        """Forgets what arrived; from now on answers come *delay* seconds late, or not at all."""
        self._ask(f"/-/reset?delay={delay}&hangs={hangs}")

    def ledger(self) -> Ledger:
        """Takes apart what arrived since the last reset."""
        return Ledger(*self._ask("/-/ledger"))

    def _ask(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def __enter__(self) -> SinkProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def main() -> None:
    sink = Sink()
    threading.Thread(target=sink.serve, daemon=True).start()
    print(sink.port, flush=True)
    sys.stdin.read()  # ends with whoever started it


if __name__ == "__main__":
    main()
