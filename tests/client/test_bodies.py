"""Every combination of body format and compression, from the option to the ledger of the emulator and back."""

import base64
import logging
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from dis_logging import (
    ConfigurationError,
    Credentials,
    DISClient,
    DISHandler,
    ProtocolError,
    PutRecordsRequestEntry,
    PutRecordsResult,
    PutRecordsResultEntry,
    ServiceError,
)
from dis_logging.client import bodies, protobuf, wire
from dis_logging.client.auth import DISAuth
from dis_logging.client.compression import Compression, Compressor
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import RefuseEntries, Reply
from tests.benchmarks.wire_cost import ordinary_lines
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance

FORMATS = ("json", "protobuf")
COMPRESSIONS = (None, "zstd", "lz4", "snappy")
TYPES = {"json": "application/json", "protobuf": "application/x-protobuf"}
STORED = PutRecordsResult(0, (PutRecordsResultEntry("shardId-0000000001", "7"),))
REFUSED = PutRecordsResult(1, (PutRecordsResultEntry(error_code="DIS.4302", error_message="no"),))
ANSWERS = {"json": wire.encode_put_records_result, "protobuf": protobuf.encode_put_records_result}

every_format = pytest.mark.parametrize("body_format", FORMATS)
every_combination = pytest.mark.parametrize(
    ("body_format", "compression"), [(body_format, codec) for body_format in FORMATS for codec in COMPRESSIONS]
)

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20)
ENTRY = st.builds(PutRecordsRequestEntry, st.binary(min_size=1, max_size=300), PRINTABLE)


@pytest.fixture(scope="module")
def shared_dis() -> Iterator[DISEmulator]:
    with DISEmulator(streams={STREAM: 3}) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def clients(shared_dis: DISEmulator) -> Iterator[dict[tuple[str, str | None], DISClient]]:
    """A client for each combination."""
    made = {
        (body_format, compression): DISClient(
            **shared_dis.client_options(), body_format=body_format, compression=compression
        )
        for body_format in FORMATS
        for compression in COMPRESSIONS
    }
    yield made
    for client in made.values():
        client.close()


def post(dis: DISEmulator, body: bytes, **headers: str) -> requests.Response:
    """Uploads any body, properly signed; an underscore in a header's name stands for a hyphen."""
    return exchange(dis, "POST", "records/", body, headers)


def exchange(
    dis: DISEmulator, method: str, resource: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> requests.Response:
    sent = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
    sent["Host"] = urlsplit(dis.endpoint).netloc
    auth = DISAuth(lambda: Credentials(dis.ak, dis.sk), dis.region)
    url = f"{dis.endpoint}/v2/{dis.project_id}/{resource}"
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, data=body, headers=sent, auth=auth, timeout=30)


# -- through the handler --------------------------------------------------------------------------------------------


@every_combination
def test_records_arrive_unchanged_in_every_combination(
    body_format: str,
    compression: str | None,
    dis: DISEmulator,
    logger: logging.Logger,
    fallback: RememberingHandler,
) -> None:
    handler = DISHandler(
        **dis.handler_options(STREAM), body_format=body_format, compression=compression, fallback=fallback
    )
    logger.addHandler(handler)
    texts = [f"record {number} 日志 \x00 {'x' * number}" for number in range(300)]

    for number, text in enumerate(texts):
        logger.getChild(str(number % 7)).info(text)
    assert handler.flush(30)

    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert stats.delivered == 300
    keys = {record.text: record.partition_key for record in dis.records(STREAM)}
    assert keys == {text: f"{logger.name}.{number % 7}" for number, text in enumerate(texts)}
    assert {request.headers["content-type"] for request in dis.requests} == {f"{TYPES[body_format]}; charset=utf-8"}
    assert {request.headers.get("content-encoding") for request in dis.requests} == {compression}


@every_combination
def test_what_dis_refuses_is_told_apart_in_every_combination(
    body_format: str,
    compression: str | None,
    dis: DISEmulator,
    logger: logging.Logger,
    fallback: RememberingHandler,
) -> None:
    handler = DISHandler(
        **dis.handler_options(STREAM),
        body_format=body_format,
        compression=compression,
        fallback=fallback,
        backoff_initial=0.01,
    )
    logger.addHandler(handler)
    dis.play(RefuseEntries("DIS.4303", where={1}))
    texts = ["good", "throttled", "hopeless"]

    with dis.rule(RefuseEntries("DIS.4302", "no such partition", where=lambda entry: entry.text == "hopeless")):
        for text in texts:
            logger.info(text)
        assert handler.flush(30)

    stats = assert_accounts_balance(handler, dis, fallback, texts)
    assert (stats.delivered, fallback.texts, fallback.codes) == (2, ["hopeless"], ["DIS.4302"])
    assert [request.entry_count for request in dis.requests] == [3, 1]


@every_format
def test_a_refused_request_is_understood_whatever_was_sent(body_format: str, dis: DISEmulator) -> None:
    client = DISClient(**dis.client_options(), body_format=body_format, compression="zstd")
    with client, pytest.raises(ServiceError) as refused:
        client.put_records("elsewhere", [PutRecordsRequestEntry(b"x")])

    assert (refused.value.status, refused.value.code) == (400, "DIS.4301")


# -- through the client ---------------------------------------------------------------------------------------------


@every_combination
@settings(max_examples=20)
@given(entries=st.lists(ENTRY, min_size=1, max_size=20))
def test_entries_are_stored_as_they_were_given(
    body_format: str,
    compression: str | None,
    entries: list[PutRecordsRequestEntry],
    shared_dis: DISEmulator,
    clients: dict[tuple[str, str | None], DISClient],
) -> None:
    known = shared_dis.record_count(STREAM)

    result = clients[body_format, compression].put_records(STREAM, entries)

    stored = shared_dis.records(STREAM)[known:]
    assert [(record.data, record.partition_key or "") for record in stored] == [
        (entry.data, entry.partition_key) for entry in entries
    ]
    assert [(entry.partition_id, entry.sequence_number) for entry in result.records] == [
        (record.partition_id, record.sequence_number) for record in stored
    ]


@every_combination
def test_routing_and_timestamp_reach_the_service(body_format: str, compression: str | None, dis: DISEmulator) -> None:
    entries = [
        PutRecordsRequestEntry("日志", "k", timestamp=1704164645000),
        PutRecordsRequestEntry(b"\x00\xff", partition_id="shardId-0000000002"),
        PutRecordsRequestEntry(b"x", explicit_hash_key="9223372036854775807"),
    ]

    with DISClient(**dis.client_options(), body_format=body_format, compression=compression) as client:
        result = client.put_records(STREAM, entries)

    assert dis.records(STREAM)[0].timestamp == 1704164645000
    assert dis.records(STREAM)[0].text == "日志"
    assert [entry.partition_id for entry in result.records[1:]] == ["shardId-0000000002", "shardId-0000000002"]


@every_format
@pytest.mark.parametrize("compression", ["zstd", "lz4", "snappy"])
def test_the_signature_covers_the_headers_of_the_compression(
    body_format: str, compression: str, dis: DISEmulator
) -> None:
    with DISClient(**dis.client_options(), body_format=body_format, compression=compression) as client:
        client.put_records(STREAM, [PutRecordsRequestEntry(b"x" * 1000)])

    (request,) = dis.requests
    names = {name for name in request.headers if name.startswith("x-dis-")} | {"content-encoding", "content-type"}
    assert request.authorization is not None
    assert names <= set(request.authorization.signed_headers)
    assert (f"x-dis-{compression}-content-length" in names) == (compression != "snappy")
    assert request.body_bytes == int(request.headers["content-length"]) < 500


@every_format
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_limit_holds_for_the_body_before_it_is_compressed(
    body_format: str, compression: str | None, dis: DISEmulator
) -> None:
    entries = [PutRecordsRequestEntry(bytes(1024 * 1024))] * 5

    client = DISClient(**dis.client_options(), body_format=body_format, compression=compression)
    with client, pytest.raises(ValueError, match="5242880"):
        client.put_records(STREAM, entries)

    assert dis.requests == ()


@pytest.mark.parametrize("compression", ["zstd", "lz4", "snappy"])
def test_what_compressing_would_make_too_long_is_sent_as_it_is(compression: str, dis: DISEmulator) -> None:
    noise = random.Random(5)
    entries = [PutRecordsRequestEntry(noise.randbytes(2**20)) for _ in range(4)]
    room = wire.MAX_BODY_BYTES - len(protobuf.encode_put_records(STREAM, [*map(wire.wire_entry, entries)]))
    entries.append(PutRecordsRequestEntry(noise.randbytes(room - 8)))  # two tags and two lengths of three bytes

    options: dict[str, Any] = {"body_format": "protobuf", "compression": compression, "request_timeout": 30}
    with DISClient(**dis.client_options(), **options) as client:
        result = client.put_records(STREAM, entries)

    assert result.failed_record_count == 0
    assert dis.requests[0].body_bytes == wire.MAX_BODY_BYTES
    assert "content-encoding" not in dis.requests[0].headers


def test_a_timestamp_that_no_format_can_carry_is_refused_by_name(dis: DISEmulator) -> None:
    client = DISClient(**dis.client_options(), body_format="protobuf")
    with client, pytest.raises(ValueError, match=r"records\[0\]\.timestamp"):
        client.put_records(STREAM, [PutRecordsRequestEntry(b"x", timestamp=2**63)])


# -- answers --------------------------------------------------------------------------------------------------------


@every_format
@pytest.mark.parametrize("answered", FORMATS)
@pytest.mark.parametrize("parameters", ["", "; charset=utf-8", ";charset=UTF-8"])
def test_an_answer_is_read_by_its_label_whatever_was_sent(
    body_format: str, answered: str, parameters: str, dis: DISEmulator
) -> None:
    headers = {"Content-Type": TYPES[answered].replace("app", "App") + parameters}
    dis.play(*(Reply(headers=headers, body=ANSWERS[answered](result)) for result in (STORED, REFUSED, STORED)))

    with DISClient(**dis.client_options(), body_format=body_format) as client:
        stored = client.put_records(STREAM, [PutRecordsRequestEntry(b"x")])
        refused = client.put_records(STREAM, [PutRecordsRequestEntry(b"x")])
        failures = client.send(STREAM, [(b"x", "", None)], 10.0)

    assert (stored, refused, failures) == (STORED, REFUSED, {})


@pytest.mark.parametrize("label", ["application/json", "text/plain", None])
@pytest.mark.parametrize("answered", FORMATS)
def test_an_answer_that_is_not_labelled_as_protobuf_is_json_if_it_can_be(
    label: str | None, answered: str, dis: DISEmulator
) -> None:
    dis.play(Reply(headers={"Content-Type": label}, body=b" \r\n" * (answered == "json") + ANSWERS[answered](REFUSED)))

    with DISClient(**dis.client_options(), body_format="protobuf") as client:
        result = client.put_records(STREAM, [PutRecordsRequestEntry(b"x")])

    assert result == REFUSED


@every_format
@pytest.mark.parametrize("label", [*TYPES.values(), "text/html", "application/x-protobuf, x", ""])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>\xb2\x01</html>",
        b"{",
        b'{"records":[{}]}',
        b"\xb2\x01",
        b"\xb2\x01\x00" * 100,
        bytes(1000),
        b"\x1b" * 10_000,
        b"{" * 100_000,
        protobuf.encode_put_records_result(PutRecordsResult(0, STORED.records * 2)),
        wire.encode_put_records_result(PutRecordsResult(0, ())),
    ],
    ids=lambda body: f"{body[:12]!r}" if isinstance(body, bytes) else None,
)
def test_a_senseless_answer_is_an_unknown_outcome_under_any_label(
    body_format: str, label: str, body: bytes, clients: dict[tuple[str, str | None], DISClient], shared_dis: DISEmulator
) -> None:
    shared_dis.play(Reply(headers={"Content-Type": label}, body=body))

    with pytest.raises(ProtocolError):
        clients[body_format, None].put_records(STREAM, [PutRecordsRequestEntry(b"x")])


# -- what the emulator is sent --------------------------------------------------------------------------------------


@every_format
@pytest.mark.parametrize("encoding", ["", *(codec.value for codec in Compression), "gzip"])
@settings(max_examples=20)
@given(body=st.binary(max_size=300))
def test_garbage_gets_an_error_of_dis_and_leaves_it_serving(
    body_format: str, encoding: str, body: bytes, shared_dis: DISEmulator
) -> None:
    lengths = {f"x_dis_{encoding}_content_length": "300"} if encoding in ("zstd", "lz4") else {}

    answer = post(shared_dis, body, Content_Type=TYPES[body_format], Content_Encoding=encoding, **lengths)

    assert answer.status_code == 400
    assert answer.json()["errorCode"] in ("DIS.4200", "DIS.4202", "DIS.4300")
    assert answer.headers["Content-Type"] == "application/json"


@every_format
@pytest.mark.parametrize("compression", Compression)
def test_a_bomb_gets_an_error_of_dis(body_format: str, compression: Compression, shared_dis: DISEmulator) -> None:
    packed, headers = Compressor(compression).pack(bytes(50_000_000))

    answer = post(shared_dis, packed, Content_Type=TYPES[body_format], **headers)

    assert (answer.status_code, answer.json()["errorCode"]) == (400, "DIS.4300")


def test_records_too_many_for_dis_are_refused_before_they_take_up_memory(shared_dis: DISEmulator) -> None:
    packed, headers = Compressor(Compression.ZSTD).pack(b"\x12\x00" * 2_600_000)

    answer = post(shared_dis, packed, Content_Type=TYPES["protobuf"], **headers)

    assert (answer.status_code, answer.json()["errorCode"]) == (400, "DIS.4200")


@every_combination
def test_an_answer_comes_in_the_format_of_the_request_and_uncompressed(
    body_format: str, compression: str | None, shared_dis: DISEmulator
) -> None:
    made = bodies.Bodies(body_format, compression)
    packed, headers = made.pack(made.messages.encode_put_records(STREAM, [(b"x", "", None)]))

    answer = post(shared_dis, packed, **headers)

    assert answer.headers["Content-Type"] == TYPES[body_format]
    assert "Content-Encoding" not in answer.headers
    assert made.messages.decode_put_records_result(answer.content, 1).failed_record_count == 0


@every_format
def test_what_was_written_in_one_format_is_read_back_in_either(body_format: str, dis: DISEmulator) -> None:
    entries = [PutRecordsRequestEntry(bytes([0, number, 255]), "k", timestamp=1000 + number) for number in range(5)]
    with DISClient(**dis.client_options(), body_format=body_format, compression="zstd") as client:
        partition = client.put_records(STREAM, entries).records[0].partition_id
    where = f"cursors?stream-name={STREAM}&partition-id={partition}&cursor-type=TRIM_HORIZON"
    cursor = exchange(dis, "GET", where).json()["partition_cursor"]

    in_json = exchange(dis, "GET", f"records?partition-cursor={quote(cursor)}").json()["records"]
    answer = exchange(
        dis, "GET", f"records?partition-cursor={quote(cursor)}", headers={"Content-Type": protobuf.CONTENT_TYPE}
    )
    in_protobuf = protobuf.GetRecordsResultMessage.FromString(answer.content).records

    assert answer.headers["Content-Type"] == TYPES["protobuf"]
    assert [base64.b64decode(record["data"]) for record in in_json] == [entry.data for entry in entries]
    assert [
        (record.data, record.partitionKey, record.sequenceNumber, record.timestamp, record.timestampType)
        for record in in_protobuf
    ] == [(entry.data, "k", str(number), 1000 + number, "CreateTime") for number, entry in enumerate(entries)]


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body_format": "xml"}, r"body_format must be one of 'json', 'protobuf', not 'xml'"),
        ({"body_format": None}, "body_format must be one of"),
        ({"compression": "gzip"}, r"compression must be one of 'zstd', 'lz4', 'snappy', not 'gzip'"),
        ({"compression": True}, "compression must be one of"),
    ],
)
def test_an_unknown_choice_is_refused_by_name(options: dict[str, Any], message: str, dis: DISEmulator) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DISClient(**dis.client_options(), **options)
    with pytest.raises(ConfigurationError, match=message):
        DISHandler(**dis.handler_options(STREAM), **options)


WITHOUT_EXTRAS = """
import logging, sys

for name in ("google.protobuf", "zstandard", "lz4", "lz4.block", "cramjam"):
    sys.modules[name] = None  # importing it raises ImportError

from dis_logging import ConfigurationError, DISClient, DISHandler, ProtocolError, PutRecordsRequestEntry, ServiceError
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Reply

records = [PutRecordsRequestEntry(b"x")]
with DISEmulator(streams={"app-logs": 1}) as dis:
    for options in ({"body_format": "protobuf"}, {"compression": "zstd"}, {"compression": "lz4"}, {"compression": "snappy"}):
        for make in (lambda **o: DISClient(**dis.client_options(), **o), lambda **o: DISHandler(**dis.handler_options("app-logs"), **o)):
            try:
                make(**options)
            except ConfigurationError as error:
                print(error)
            else:
                raise AssertionError(options)
    with DISClient(**dis.client_options()) as client:
        assert client.put_records("app-logs", records).failed_record_count == 0
        dis.play(Reply(headers={"Content-Type": "application/x-protobuf"}, body=b"x"))
        try:
            client.put_records("app-logs", records)
        except ProtocolError as error:
            print(error)
        for headers in ({"Content-Type": "application/x-protobuf"}, {"Content-Encoding": "zstd", "Content-Type": "application/json"}):
            client._bodies.pack = lambda body: (body, headers)
            try:
                client.put_records("app-logs", records)
            except ServiceError as error:
                print(error.code, error.message)
    assert dis.record_count("app-logs") == 1
"""


def test_without_the_extras_json_works_and_the_rest_says_what_to_install() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=False
    )

    missing = [
        f"{name}='{value}' needs libraries that are missing: pip install 'dis-logging[{value}]'"
        for name, value in (
            ("body_format", "protobuf"),
            ("compression", "zstd"),
            ("compression", "lz4"),
            ("compression", "snappy"),
        )
    ]
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        *(line for line in missing for _ in range(2)),
        f"DIS answered in protobuf: {missing[0]}",
        f"DIS.4300 Request error. {missing[0]}",
        f"DIS.4300 Request error. {missing[1]}",
    ]


NOTHING_IMPORTED = """
import logging, sys
from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator

with DISEmulator(streams={"app-logs": 1}) as dis:
    handler = DISHandler(**dis.handler_options("app-logs"))
    logging.getLogger().addHandler(handler)
    logging.warning("x")
    handler.close()
    assert dis.record_count("app-logs") == 1
print(sorted({name.partition(".")[0] for name in sys.modules} & {"google", "zstandard", "lz4", "cramjam"}))
"""


def test_no_library_is_imported_that_was_not_asked_for() -> None:
    ran = subprocess.run([sys.executable, "-c", NOTHING_IMPORTED], capture_output=True, text=True, check=True)

    assert ran.stdout == "[]\n"


# -- cost -----------------------------------------------------------------------------------------------------------


def test_ordinary_records_cost_less_than_25_bytes_each_in_protobuf_and_zstd(
    dis: DISEmulator, restored_logging: None
) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), body_format="protobuf", compression="zstd", flush_interval=60)
    lines = ordinary_lines()
    for name, line in lines:
        record = logging.LogRecord(name, logging.INFO, __file__, 1, line, None, None)
        handler.handle(record)
    assert handler.flush(30)
    handler.close()

    assert Counter(record.text for record in dis.records(STREAM)) == Counter(line for _, line in lines)
    assert 90 <= sum(len(line) for _, line in lines) / len(lines) <= 110
    assert sum(request.body_bytes for request in dis.requests) / len(lines) < 25
