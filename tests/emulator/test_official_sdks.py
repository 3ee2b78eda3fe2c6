"""
The emulator as Huawei's own packages see it: what they write, read and manage.

``huaweicloudsdkdis`` signs the API gateway's way and knows only JSON; ``huaweicloud-sdk-python-dis`` (imported as
``dis_sdk_python``) signs in DIS's own two ways and knows JSON and protobuf.
"""

import base64
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dis_logging import DISHandler
from dis_logging.client.signing import SignatureScheme
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import RefuseEntries
from tests.conftest import STREAM

TEXTS = ["first", "zweitens: größer", "третье", "第四"]


@pytest.fixture
def handled(dis: DISEmulator) -> list[str]:
    """What a `DISHandler` has delivered to the stream, with three loggers' names as keys."""
    handler = DISHandler(**dis.handler_options(STREAM))
    for number, text in enumerate(TEXTS):
        handler.handle(logging.makeLogRecord({"msg": text, "name": f"app.{number % 3}"}))
    handler.close()
    assert handler.stats().delivered == len(TEXTS)
    return sorted(TEXTS)


def ledger(dis: DISEmulator, stream: str = STREAM) -> list[tuple[str, str | None, str]]:
    return [(stored.text, stored.partition_key, stored.partition_id[-1]) for stored in dis.records(stream)]


# -- huaweicloudsdkdis ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package, imported with a home of its own: it writes a file there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        return pytest.importorskip("huaweicloudsdkdis.v2")


@pytest.fixture
def v3_client(v3: Any, dis: DISEmulator) -> Iterator[Any]:
    credentials = sys.modules["huaweicloudsdkcore.auth.credentials"].BasicCredentials
    keys = credentials(dis.ak, dis.sk, dis.project_id)
    client = v3.DisClient.new_builder().with_credentials(keys).with_endpoint(dis.endpoint).build()
    yield client
    client.close()


def v3_read(v3: Any, client: Any, partition: str, **cursor: Any) -> list[str]:
    """Reads a partition to its end."""
    request = v3.ShowCursorRequest(stream_name=STREAM, partition_id=partition, **cursor)
    place = client.show_cursor(request).partition_cursor
    texts: list[str] = []
    while True:
        answer = client.consume_records(v3.ConsumeRecordsRequest(partition_cursor=place, max_fetch_bytes=40))
        if not answer.records:
            return texts
        texts += [base64.b64decode(record.data).decode() for record in answer.records]
        place = answer.next_partition_cursor


# It takes the time with a function that Python 3.12 deprecates.
quiet = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@quiet
def test_v3_writes(v3: Any, v3_client: Any, dis: DISEmulator) -> None:
    entries = [
        v3.PutRecordsRequestEntry(data=base64.b64encode(text.encode()).decode(), **routing)
        for text, routing in [
            ("größer", {"partition_key": "user-1"}),
            ("b", {"partition_id": "shardId-0000000001"}),
            ("c", {"partition_key": "user-1", "explicit_hash_key": "0"}),
            ("d", {"partition_id": "7"}),
        ]
    ]

    answer = v3_client.send_records(
        v3.SendRecordsRequest(body=v3.PutRecordsRequest(stream_name=STREAM, records=entries))
    )

    assert answer.failed_record_count == 1
    assert [each.partition_id for each in answer.records[:3]] == [f"shardId-000000000{number}" for number in (2, 1, 0)]
    assert [each.sequence_number for each in answer.records[:3]] == ["0", "0", "0"]
    assert (answer.records[3].error_code, answer.records[0].error_code) == ("DIS.4302", None)
    assert ledger(dis) == [("größer", "user-1", "2"), ("b", None, "1"), ("c", "user-1", "0")]
    assert dis.requests[0].authorization is not None
    assert dis.requests[0].authorization.scheme is SignatureScheme.ACCESS


@quiet
def test_v3_reads_what_the_handler_wrote(v3: Any, v3_client: Any, handled: list[str]) -> None:
    found = [text for number in "012" for text in v3_read(v3, v3_client, number, cursor_type="TRIM_HORIZON")]

    assert sorted(found) == handled


@quiet
@pytest.mark.parametrize(
    ("cursor", "texts"),
    [
        ({}, ["b", "c"]),
        ({"cursor_type": "AFTER_SEQUENCE_NUMBER"}, ["c"]),
        ({"cursor_type": "TRIM_HORIZON"}, ["a", "b", "c"]),
        ({"cursor_type": "LATEST"}, []),
        ({"cursor_type": "AT_TIMESTAMP"}, ["a", "b", "c"]),
    ],
)
def test_v3_reads_from_where_it_wants(
    v3: Any, v3_client: Any, dis: DISEmulator, put: Callable[..., Any], cursor: dict[str, Any], texts: list[str]
) -> None:
    put(dis, "a", "b", "c")
    first = dis.records(STREAM)[0]
    at = {"starting_sequence_number": "1", "timestamp": first.timestamp}

    assert v3_read(v3, v3_client, first.partition_id, **at, **cursor) == texts


@quiet
def test_v3_manages_streams(v3: Any, v3_client: Any, dis: DISEmulator) -> None:
    body = v3.CreateStreamReq(stream_name="made-by-v3", partition_count=4, stream_type="COMMON", data_duration=48)
    v3_client.create_stream(v3.CreateStreamRequest(body=body))
    listed = v3_client.list_streams(v3.ListStreamsRequest())
    described = v3_client.show_stream(v3.ShowStreamRequest(stream_name="made-by-v3"))
    v3_client.delete_stream(v3.DeleteStreamRequest(stream_name="made-by-v3"))

    assert listed.stream_names == [STREAM, "made-by-v3"]
    assert [(info.stream_name, info.partition_count) for info in listed.stream_info_list] == [
        (STREAM, 3),
        ("made-by-v3", 4),
    ]
    assert (described.status, described.retention_period, described.writable_partition_count) == ("RUNNING", 48, 4)
    assert [partition.partition_id for partition in described.partitions][3] == "shardId-0000000003"
    assert dis.stream_names == (STREAM,)


@quiet
def test_v3_keeps_checkpoints(v3: Any, v3_client: Any, dis: DISEmulator, put: Callable[..., Any]) -> None:
    put(dis, "a", "b")
    position = {"stream_name": STREAM, "app_name": "reader", "partition_id": dis.records(STREAM)[0].partition_id}
    show = v3.ShowCheckpointRequest(checkpoint_type="LAST_READ", **position)
    v3_client.create_app(v3.CreateAppRequest(body=v3.CreateAppReq(app_name="reader")))
    commit = v3.CommitCheckpointReq(checkpoint_type="LAST_READ", sequence_number="1", metadata="größer", **position)
    v3_client.commit_checkpoint(v3.CommitCheckpointRequest(body=commit))

    committed = v3_client.show_checkpoint(show)
    (app,) = v3_client.list_app(v3.ListAppRequest()).apps
    v3_client.delete_checkpoint(v3.DeleteCheckpointRequest(checkpoint_type="LAST_READ", **position))
    deleted = v3_client.show_checkpoint(show)
    v3_client.delete_app(v3.DeleteAppRequest(app_name="reader"))

    assert (committed.sequence_number, committed.metadata) == ("1", "größer")
    assert (app.app_name, app.commit_checkpoint_stream_names) == ("reader", [STREAM])
    assert deleted.sequence_number == "-1"
    assert v3_client.list_app(v3.ListAppRequest()).apps == []


@quiet
def test_v3_is_refused_with_the_code_of_dis(v3: Any, v3_client: Any, dis: DISEmulator) -> None:
    dis.sk = "another"

    with pytest.raises(Exception, match=r"DIS\.4112") as caught:
        v3_client.list_streams(v3.ListStreamsRequest())

    refusal: Any = caught.value
    assert refusal.status_code == 441


# -- huaweicloud-sdk-python-dis -------------------------------------------------------------------------------------

# In a process of its own: the package reconfigures the root logger, prints to stdout and needs protobuf's implementation
# in Python, which can be chosen once for a process. It is sent calls and answers with what they returned.
DRIVER = """
import json, sys
replies, sys.stdout = sys.stdout, sys.stderr
from dis_sdk_python import disclient
for line in sys.stdin:
    options, method, arguments = json.loads(line)
    try:
        response = getattr(disclient(**options), method)(**arguments)
        reply = {"status": response.statusCode, "body": response.body}
    except Exception as error:
        reply = {"error": str(error)}
    print(json.dumps(reply, default=bytes.decode), file=replies, flush=True)
"""


class DISSDK:
    """``dis_sdk_python`` at work for one emulator."""

    def __init__(self, process: subprocess.Popen[str], dis: DISEmulator, *, derived: bool, body_format: str) -> None:
        self._process = process
        self._options = {
            "endpoint": dis.endpoint,
            "ak": dis.ak,
            "sk": dis.sk,
            "projectid": dis.project_id,
            "region": dis.region,
            "bodySerializeType": "" if body_format == "json" else body_format,
            "derivationKeySwitch": derived,
        }

    def call(self, method: str, **arguments: object) -> dict[str, Any]:
        """Returns status and body of a method's answer, or its error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps((self._options, method, arguments)) + "\n")
        self._process.stdin.flush()
        reply: dict[str, Any] = json.loads(self._process.stdout.readline())
        return reply

    def read(self, partition: str, **cursor: str) -> list[tuple[str, str | None]]:
        """Reads a partition to its end and returns texts and partition keys."""
        place = self.call("getCursor", streamName=STREAM, partitionId=partition, **cursor)["body"]["partition_cursor"]
        found: list[tuple[str, str | None]] = []
        while True:
            answer = self.call("getRecords", partitioncursor=place, limit=2)["body"]
            if not answer["records"]:
                return found
            found += [(record["data"], record["partitionKey"]) for record in answer["records"]]
            place = answer["next_partition_cursor"]


@pytest.fixture(scope="module")
def sdk_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    if importlib.util.find_spec("dis_sdk_python") is None:
        pytest.skip("needs huaweicloud-sdk-python-dis")
    errors = tmp_path_factory.mktemp("sdk") / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        ) as process,
    ):
        yield process
        assert process.stdin is not None
        process.stdin.close()  # which ends the driver's loop
        assert process.wait(timeout=30) == 0, Path(errors).read_text()


@pytest.fixture(params=["json", "protobuf"])
def sdk(sdk_process: subprocess.Popen[str], dis: DISEmulator, request: pytest.FixtureRequest) -> DISSDK:
    return DISSDK(sdk_process, dis, derived=True, body_format=request.param)


def test_dis_sdk_writes(sdk: DISSDK, dis: DISEmulator) -> None:
    records = [
        {"data": "größer", "partition_key": "user-1"},
        {"data": "b", "partition_id": "1"},
        {"data": "c", "partition_key": "user-1", "explicit_hash_key": "0"},
        {"data": "d", "partition_id": "7"},
    ]

    answer = sdk.call("putRecords", streamname=STREAM, records=records)

    assert answer["body"]["failed_record_count"] == 1
    results = answer["body"]["records"]
    assert [each["partition_id"][-1] for each in results[:3]] == ["2", "1", "0"]
    assert results[3]["error_code"] == "DIS.4302"
    assert ledger(dis) == [("größer", "user-1", "2"), ("b", None, "1"), ("c", "user-1", "0")]


@pytest.mark.parametrize(("derived", "scheme"), [(False, SignatureScheme.SCOPED), (True, SignatureScheme.V11)])
def test_dis_sdk_signs_in_two_ways(
    sdk_process: subprocess.Popen[str], dis: DISEmulator, derived: bool, scheme: SignatureScheme
) -> None:
    sdk = DISSDK(sdk_process, dis, derived=derived, body_format="json")

    answer = sdk.call("put_records", stream_name=STREAM, stream_id="", records=[{"data": "a", "partition_key": "k"}])

    assert answer["status"] == 200
    assert dis.requests[0].authorization is not None
    assert dis.requests[0].authorization.scheme is scheme
    assert dis.requests[0].status == 200


def test_dis_sdk_reads_what_the_handler_wrote(sdk: DISSDK, dis: DISEmulator, handled: list[str]) -> None:
    found = [each for partition in "012" for each in sdk.read(partition, cursorType="TRIM_HORIZON")]

    assert sorted(text for text, _ in found) == handled
    assert set(found) == {(stored.text, stored.partition_key) for stored in dis.records(STREAM)}


def test_dis_sdk_reads_from_a_sequence_number(sdk: DISSDK, dis: DISEmulator, put: Callable[..., Any]) -> None:
    put(dis, "a", "b", "c")
    partition = dis.records(STREAM)[0].partition_id

    found = sdk.read(partition, cursorType="AFTER_SEQUENCE_NUMBER", startSeq="0")

    assert found == [("b", "web-1"), ("c", "web-1")]


def test_dis_sdk_sends_a_throttled_entry_again(sdk: DISSDK, dis: DISEmulator) -> None:
    dis.play(RefuseEntries("DIS.4303", where={0}))
    records = [{"data": text, "partition_id": "0"} for text in "ab"]

    answer = sdk.call("putRecords", streamname=STREAM, records=records)

    assert answer["body"]["failed_record_count"] == 0
    assert [text for text, _, _ in ledger(dis)] == ["b", "a"]


def test_dis_sdk_manages_streams(sdk: DISSDK, dis: DISEmulator) -> None:
    settings = {"data_type": "BLOB", "stream_type": "COMMON"}
    created = sdk.call("createStream", stream_name="made-by-sdk", partition_count=4, **settings)
    listed = sdk.call("listStream")
    described = sdk.call("describeStream", streamName="made-by-sdk")
    deleted = sdk.call("deleteStream", streamName="made-by-sdk")

    assert (created["status"], deleted["status"]) == (201, 204)
    assert listed["body"]["stream_names"] == [STREAM, "made-by-sdk"]
    assert [partition["status"] for partition in described["body"]["partitions"]] == ["ACTIVE"] * 4
    assert dis.stream_names == (STREAM,)


def test_dis_sdk_keeps_checkpoints(sdk: DISSDK, dis: DISEmulator, put: Callable[..., Any]) -> None:
    put(dis, "a", "b")
    partition = dis.records(STREAM)[0].partition_id
    where = {"streamName": STREAM, "appName": "reader"}
    sdk.call("createApp", appName="reader")
    sdk.call("commitCheckpoint", partitionId=partition, seqNumber="1", metaData="größer", **where)

    committed = sdk.call("getCheckpoint", partitionId=partition, **where)
    app = sdk.call("describeApp", appName="reader")
    sdk.call("deleteCheckpoint", **where)
    deleted = sdk.call("getCheckpoint", partitionId=partition, **where)
    gone = sdk.call("deleteApp", appName="reader")

    assert committed["body"] == {"sequence_number": "1", "metadata": "größer"}
    assert app["body"]["commit_checkpoint_stream_names"] == [STREAM]
    assert deleted["body"]["sequence_number"] == "-1"
    assert gone["status"] == 204


def test_dis_sdk_is_refused_with_the_code_of_dis(sdk: DISSDK, dis: DISEmulator) -> None:
    dis.sk = "another"

    answer = sdk.call("listStream")

    assert "DIS.4112" in answer["error"]
