"""The file: what the next process finds in it."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dis_logging.emulator import DISEmulator, records_file
from tests.emulator.service import Service

Put = Callable[..., tuple[int, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dis.sqlite"


# -- what is kept ---------------------------------------------------------------------------------------------------


def test_records_are_there_again(path: Path, put: Put) -> None:
    with DISEmulator({"app-logs": 3, "audit": 1}, file=path) as before:
        for text in ("grüße", "b", "\x00"):
            put(before, text)
        put(before, "c", stream="audit")

    after = DISEmulator(file=path)

    assert after.stream_names == ("app-logs", "audit")
    assert after.records("app-logs") == before.records("app-logs")
    assert after.records("audit") == before.records("audit")
    assert after.stream_id("app-logs") == before.stream_id("app-logs")


def test_order_of_arrival_is_kept_over_partitions_and_restarts(path: Path) -> None:
    before = Service(file=path)
    for number, partition in enumerate("0120"):
        before.upload(str(number), stream="app-logs", partition=partition)
    before.store.close()

    after = Service(file=path)
    after.upload("4", stream="app-logs", partition="2")
    after.upload("5", stream="app-logs", partition="0")
    after.store.close()

    again = Service(file=path)
    again.store.close()
    assert [stored.text for stored in after.store.records("app-logs")] == list("012345")
    assert again.store.records("app-logs") == after.store.records("app-logs")


def test_sequence_numbers_go_on(path: Path, put: Put) -> None:
    numbers = []
    for _ in range(3):
        with DISEmulator({"app-logs": 1}, file=path) as dis:
            numbers += [each["sequence_number"] for each in put(dis, "a", "b")[1]["records"]]

    assert numbers == ["0", "1", "2", "3", "4", "5"]


def test_stopped_emulator_starts_again_with_its_file(path: Path, put: Put) -> None:
    dis = DISEmulator({"app-logs": 1}, file=path)
    for text in "ab":
        with dis:
            put(dis, text)

    assert [stored.text for stored in dis.records("app-logs")] == ["a", "b"]


def test_streams_are_kept_as_they_were_created(path: Path) -> None:
    before = Service(file=path)
    before.call(
        "POST",
        "streams",
        {
            "stream_name": "new",
            "partition_count": 2,
            "stream_type": "ADVANCED",
            "data_type": "CSV",
            "data_duration": 48,
        },
    )
    before.store.close()

    after = Service(file=path)
    after.store.close()

    assert after.store.streams() == before.store.streams()


def test_apps_and_checkpoints_are_kept(path: Path) -> None:
    before = Service(file=path)
    before.upload("a")
    before.call("POST", "apps", {"app_name": "reader"})
    position = {"stream_name": "other", "app_name": "reader", "partition_id": "0", "checkpoint_type": "LAST_READ"}
    before.call("POST", "checkpoints", {**position, "sequence_number": "0", "metadata": "x"})
    before.call("POST", "checkpoints", {**position, "sequence_number": "1", "metadata": "größer"})
    before.store.close()

    after = Service(file=path)
    after.store.close()

    assert after.call("GET", "checkpoints", **position)[1] == {"sequence_number": "1", "metadata": "größer"}
    assert after.store.consumers.apps() == before.store.consumers.apps()


def test_cursor_goes_on_after_a_restart(path: Path) -> None:
    before = Service(file=path)
    before.upload("a", "b")
    _, cursor = before.read(before.cursor(cursor_type="TRIM_HORIZON"), limit=1)
    before.store.close()

    after = Service(file=path)
    after.store.close()

    assert after.read(cursor)[0] == ["b"]


def test_expired_records_leave_the_file(path: Path) -> None:
    before = Service(retention=2, file=path)
    before.upload("a", "b", "c")
    before.upload("d")
    before.store.close()

    after = Service(file=path)
    after.store.close()

    assert [(stored.text, stored.sequence_number) for stored in after.store.records("other")] == [
        ("c", "2"),
        ("d", "3"),
    ]
    assert after.cursor_refusal(starting_sequence_number="1")[0] == "DIS.4224"


def test_smaller_retention_holds_for_what_is_in_the_file(path: Path) -> None:
    before = Service(file=path)
    before.upload("a", "b", "c")
    before.store.close()

    after = Service(retention=1, file=path)
    after.store.close()

    assert [(stored.text, stored.sequence_number) for stored in after.store.records("other")] == [("c", "2")]


def test_deleted_things_do_not_come_back(path: Path) -> None:
    before = Service(file=path)
    before.upload("a")
    position = {"app_name": "reader", "partition_id": "0", "checkpoint_type": "LAST_READ"}
    for app in ("reader", "gone"):
        before.call("POST", "apps", {"app_name": app})
    for stream in ("other", "app-logs"):
        before.call("POST", "checkpoints", {"stream_name": stream, "sequence_number": "0", **position})
    before.call("DELETE", "streams/other")
    before.call("DELETE", "checkpoints", stream_name="app-logs", app_name="reader")
    before.call("DELETE", "apps/gone")
    before.store.close()

    after = Service(file=path)
    after.store.close()

    assert after.store.stream_names() == ("app-logs",)
    assert [app.name for app in after.store.consumers.apps()] == ["reader"]
    assert after.call("GET", "checkpoints", stream_name="app-logs", **position)[1]["sequence_number"] == "-1"
    with sqlite3.connect(path) as connection:
        left = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("records", "checkpoints")
        ]
    connection.close()
    assert left == [0, 0]


def test_streams_may_be_changed_while_the_emulator_is_stopped(path: Path) -> None:
    before = DISEmulator({"app-logs": 1, "old": 1}, file=path)
    before.create_stream("new", 2)
    before.delete_stream("old")

    assert DISEmulator(file=path).stream_names == ("app-logs", "new")


PROGRAM = """
import os, signal, sys
from dis_logging import DISClient, PutRecordsRequestEntry
from dis_logging.emulator import DISEmulator
with DISEmulator({"app-logs": 1}, file=sys.argv[1]) as dis:
    DISClient(**dis.client_options()).put_records("app-logs", [PutRecordsRequestEntry(data=b"a")])
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, path], timeout=60, check=False)

    assert ended.returncode == -signal.SIGKILL
    assert [stored.text for stored in DISEmulator(file=path).records("app-logs")] == ["a"]


# -- what is refused ------------------------------------------------------------------------------------------------


def test_two_emulators_do_not_share_a_file(path: Path) -> None:
    """They would give the same sequence numbers twice."""
    with DISEmulator({"app-logs": 1}, file=path), pytest.raises(OSError, match="locked"):
        DISEmulator(file=path)


def test_partitions_must_be_those_of_the_file(path: Path) -> None:
    DISEmulator({"app-logs": 3}, file=path)

    with pytest.raises(ValueError, match="'app-logs' has 3 partitions in the file, not 2"):
        DISEmulator({"app-logs": 2}, file=path)


def test_file_of_another_program_is_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(OSError, match="not a file of this emulator"):
        DISEmulator(file=path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\x00" + bytes(200)])
def test_what_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(OSError, match=r"dis\.sqlite' cannot be used"):
        DISEmulator(file=path)

    assert path.read_bytes() == content


def test_file_in_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="unable to open"):
        DISEmulator(file=tmp_path / "missing" / "dis.sqlite")


def test_taken_port_leaves_the_file_free(dis: DISEmulator, path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        DISEmulator(file=path, port=dis.port).start()

    with DISEmulator(file=path):
        pass


def test_batch_that_cannot_be_kept_is_not_acknowledged(path: Path, put: Put) -> None:
    """As on a full disk: DIS.5000, nothing is stored, and the next batch is served."""
    with DISEmulator({"app-logs": 1}, file=path) as dis:
        file = dis._store._file
        assert file is not None
        connection = file._connection
        assert connection is not None
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        refused = put(dis, "x" * 100_000)
        stored = dis.record_count("app-logs")
        connection.execute("PRAGMA max_page_count = 1000000")
        taken = put(dis, "a")

    assert (refused[0], refused[1]["errorCode"]) == (500, "DIS.5000")
    assert stored == 0
    assert taken[1]["records"][0]["sequence_number"] == "0"
    assert [stored.text for stored in DISEmulator(file=path).records("app-logs")] == ["a"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_does_not_touch_the_file(path: Path, put: Put) -> None:
    """SQLite: a connection that was inherited must not even be closed."""
    with DISEmulator({"app-logs": 1}, file=path) as dis:
        put(dis, "a")
        child = os.fork()
        if child == 0:
            dis.stop()
            os._exit(0 if records_file._inherited else 1)
        _, status = os.waitpid(child, 0)
        put(dis, "b")

    assert os.waitstatus_to_exitcode(status) == 0
    assert [stored.text for stored in DISEmulator(file=path).records("app-logs")] == ["a", "b"]


def test_sqlite_is_not_imported_without_a_file() -> None:
    code = "import sys, dis_logging.emulator as e; e.DISEmulator({'a': 1}); sys.exit('sqlite3' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
