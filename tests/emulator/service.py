"""The emulated service without sockets: an app with two streams, asked by token, because signatures have their own tests."""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dis_logging.emulator.access import Access
from dis_logging.emulator.app import App
from dis_logging.emulator.faults import RefuseEntries
from dis_logging.emulator.messages import Head, Request, Response
from dis_logging.emulator.records_file import RecordsFile
from dis_logging.emulator.store import DEFAULT_RETENTION, Store

PROJECT = "0123456789abcdef0123456789abcdef"
NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
NOW_MS = 1704164645000


class Service:
    """An app with the streams ``app-logs`` (3 partitions) and ``other`` (1), at 2024-01-02 03:04:05 until told otherwise."""

    def __init__(
        self,
        retention: int = DEFAULT_RETENTION,
        throttle_clock: Callable[[], float] | None = None,
        file: Path | None = None,
    ) -> None:
        self.now = NOW
        self.store = Store(
            lambda: None,
            retention=retention,
            throttle_clock=throttle_clock,
            file=None if file is None else RecordsFile(file),
        )
        self.app = App(self.store, Access("ak", "sk", PROJECT, "cn-north-4", auth_token="token"), lambda: self.now)
        self.store.open()
        if not self.store.stream_names():
            self.store.create_stream("app-logs", 3, NOW_MS)
            self.store.create_stream("other", 1, NOW_MS)

    def wait(self, seconds: float) -> None:
        """Moves the service's clock on."""
        self.now += timedelta(seconds=seconds)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        token: str = "token",
        rules: tuple[RefuseEntries, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Returns the answer to one request."""
        head = Head(method, target, {"x-auth-token": token, **(headers or {})}, len(body))
        return self.app.respond(Request(head, body), rules)

    def call(self, method: str, resource: str, document: object = None, /, **query: object) -> tuple[int, Any]:
        """Returns status and decoded body of the answer."""
        target = f"/v2/{PROJECT}/{resource}?" + "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
        response = self.ask(method, target, b"" if document is None else json.dumps(document).encode())
        return response.status, json.loads(response.body) if response.body else None

    def code(self, method: str, resource: str, document: object = None, /, **query: object) -> str:
        """Returns the error code of a refused call, empty when it was not refused."""
        _, answer = self.call(method, resource, document, **query)
        code: str = (answer or {}).get("errorCode", "")
        return code

    def put(self, document: object, **options: Any) -> Response:
        """Uploads a PutRecords document."""
        return self.ask("POST", f"/v2/{PROJECT}/records", json.dumps(document).encode(), **options)

    def upload(self, *texts: str, stream: str = "other", partition: str = "0", **fields: object) -> None:
        """Stores records in one partition."""
        records = [record(text.encode(), partition_id=partition, **fields) for text in texts]
        assert json.loads(self.put({"stream_name": stream, "records": records}).body)["failed_record_count"] == 0

    def cursor(self, **query: object) -> str:
        """Returns a cursor; the names of *query* have underscores where DIS has hyphens."""
        status, answer = self.call("GET", "cursors", **_cursor_query(query))
        assert status == 200, answer
        cursor: str = answer["partition_cursor"]
        return cursor

    def cursor_refusal(self, **query: object) -> tuple[str, str]:
        """Returns code and message of a refused cursor."""
        status, answer = self.call("GET", "cursors", **_cursor_query(query))
        assert status == 400
        return answer["errorCode"], answer["message"]

    def read(self, cursor: str, **query: object) -> tuple[list[str], str]:
        """Returns the texts that a cursor gives, and the cursor to go on with."""
        status, answer = self.call("GET", "records", **{"partition-cursor": cursor, **query})
        assert status == 200, answer
        return [base64.b64decode(each["data"]).decode() for each in answer["records"]], answer["next_partition_cursor"]


def _cursor_query(query: Mapping[str, object]) -> dict[str, object]:
    named = {"stream_name": "other", "partition_id": "0", **query}
    return {name.replace("_", "-"): value for name, value in named.items() if value is not None}


def record(data: bytes = b"x", **fields: Any) -> dict[str, Any]:
    """Returns a record of a PutRecords document."""
    return {"data": base64.b64encode(data).decode(), **fields}


def request_to(*records: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Returns a PutRecords document for ``app-logs``."""
    return {"stream_name": "app-logs", "records": list(records), **fields}
