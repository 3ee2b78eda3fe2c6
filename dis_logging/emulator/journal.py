"""What requests came and what they were answered: the emulator's side of every account. Safe to use from any thread."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dis_logging.client import signing
from dis_logging.client.signing import Authorization
from dis_logging.client.wire import MalformedRequestError
from dis_logging.emulator.app import Operation
from dis_logging.emulator.messages import Head, ReceivedEntry, Request, Response


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """
    One request, as far as it has got.

    Args:
        number: in order of arrival, from 1.
        connection: which TCP connection it came over, in order of their being accepted, from 1.
        operation: what it asks for, None for a path that DIS does not have.
        method: HTTP method.
        path: percent-decoded path.
        headers: names in lower case.
        authorization: what its Authorization header says (scheme, ak, ...), None without a readable one.
        stream_name: as a PutRecords body names it; empty before the body has arrived, and for other operations.
        stream_id: likewise.
        entries: what a PutRecords body carries, stored or not; empty for a body that did not arrive or is malformed.
        body_bytes: size of the body as received.
        status: HTTP status of the answer, set just before it is sent; None when none was sent (yet).
        error_code: DIS's code for a request refused as a whole, else empty.
        entry_codes: error codes of entries refused one by one.
    """

    number: int
    connection: int
    operation: Operation | None
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    authorization: Authorization | None = field(repr=False)
    stream_name: str = ""
    stream_id: str = ""
    entries: tuple[ReceivedEntry, ...] = field(default=(), repr=False)
    body_bytes: int = 0
    status: int | None = None
    error_code: str = ""
    entry_codes: tuple[str, ...] = ()

    @property
    def entry_count(self) -> int:
        """How many entries the request carries."""
        return len(self.entries)


class Journal:
    """
    All requests so far. Every method may be called from any thread.

    Args:
        on_change: called after every change, with no lock held.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()  # guards both below
        self._requests: list[ReceivedRequest] = []
        self._refused: Counter[str] = Counter()

    def arrived(self, head: Head, connection: int, operation: Operation | None) -> int:
        """Notes a request whose head has arrived and returns its number."""
        authorization = signing.parse_authorization(head.headers.get("authorization", ""))
        with self._lock:
            number = len(self._requests) + 1
            self._requests.append(
                ReceivedRequest(number, connection, operation, head.method, head.path, head.headers, authorization)
            )
        self._on_change()
        return number

    def completed(self, number: int, request: Request) -> None:
        """Notes the body of request *number*."""
        received = self.request(number)
        changed = replace(received, body_bytes=len(request.body))
        if received.operation is Operation.PUT_RECORDS:
            try:
                name, stream_id, entries = request.batch
                changed = replace(changed, stream_name=name, stream_id=stream_id, entries=entries)
            except MalformedRequestError:
                pass  # the answer will say so
        self._replace(changed)

    def answered(self, number: int, response: Response) -> None:
        """Notes the answer to request *number*."""
        changed = replace(
            self.request(number),
            status=response.status,
            error_code=response.error_code,
            entry_codes=response.entry_codes,
        )
        with self._lock:
            self._refused.update(response.entry_codes)
            if response.status >= 400:
                self._refused[response.error_code or f"http_{response.status}"] += 1
        self._replace(changed)

    def request(self, number: int) -> ReceivedRequest:
        """Returns request *number* as it is now."""
        with self._lock:
            return self._requests[number - 1]

    def requests(self) -> tuple[ReceivedRequest, ...]:
        """Returns all requests in order of arrival."""
        with self._lock:
            return tuple(self._requests)

    def refused(self) -> Counter[str]:
        """Returns how often each error code was answered, to a request or to an entry."""
        with self._lock:
            return Counter(self._refused)

    def _replace(self, changed: ReceivedRequest) -> None:
        with self._lock:
            self._requests[changed.number - 1] = changed
        self._on_change()
