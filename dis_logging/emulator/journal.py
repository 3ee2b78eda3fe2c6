"""What requests came and what they were answered: the emulator's side of every account. Safe to use from any thread."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dis_logging.client.wire import MalformedRequestError
from dis_logging.emulator.app import Operation
from dis_logging.emulator.authorization import Authorization, parse_authorization
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
    The requests of late. Every method may be called from any thread.

    Args:
        on_change: called after every change, with no lock held.
        max_requests: how many requests to remember; the oldest are forgotten.
        max_body_bytes: how many bytes of bodies to remember, in total.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        max_requests: int = 100_000,
        max_body_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self._on_change = on_change
        self._max_requests = max_requests
        self._max_body_bytes = max_body_bytes
        self._lock = threading.Lock()  # guards all below
        self._arrived = 0
        self._requests: dict[int, ReceivedRequest] = {}  # by number, the oldest first
        self._body_bytes = 0
        self._refused: Counter[str] = Counter()

    def arrived(self, head: Head, connection: int, operation: Operation | None) -> ReceivedRequest:
        """Notes a request whose head has arrived."""
        authorization = parse_authorization(head.headers.get("authorization", ""))
        with self._lock:
            self._arrived += 1
            received = ReceivedRequest(
                self._arrived, connection, operation, head.method, head.path, head.headers, authorization
            )
            self._requests[received.number] = received
            self._forget_oldest()
        self._on_change()
        return received

    def completed(self, received: ReceivedRequest, request: Request) -> ReceivedRequest:
        """Notes the body of a request and returns what is now known of it."""
        changed = replace(received, body_bytes=len(request.body))
        if received.operation is Operation.PUT_RECORDS:
            try:
                name, stream_id, entries = request.batch
                changed = replace(changed, stream_name=name, stream_id=stream_id, entries=entries)
            except MalformedRequestError:
                pass  # the answer will say so
        with self._lock:
            if received.number in self._requests:
                self._body_bytes += changed.body_bytes
            self._replace(changed)
            self._forget_oldest()
        self._on_change()
        return changed

    def answered(self, received: ReceivedRequest, response: Response) -> None:
        """Notes the answer to a request."""
        changed = replace(
            received, status=response.status, error_code=response.error_code, entry_codes=response.entry_codes
        )
        with self._lock:
            self._refused.update(response.entry_codes)
            if response.status >= 400:
                self._refused[response.error_code or f"http_{response.status}"] += 1
            self._replace(changed)
        self._on_change()

    def requests(self) -> tuple[ReceivedRequest, ...]:
        """Returns the requests in order of arrival."""
        with self._lock:
            return tuple(self._requests.values())

    def refused(self) -> Counter[str]:
        """Returns how often each error code was answered, to a request or to an entry, since the beginning."""
        with self._lock:
            return Counter(self._refused)

    def clear(self) -> None:
        """Forgets all requests and refusals; numbers go on."""
        with self._lock:
            self._requests.clear()
            self._body_bytes = 0
            self._refused.clear()
        self._on_change()

    def _replace(self, changed: ReceivedRequest) -> None:
        if changed.number in self._requests:
            self._requests[changed.number] = changed

    def _forget_oldest(self) -> None:
        # The newest stays, however large it is: it is being served.
        while len(self._requests) > 1 and (
            len(self._requests) > self._max_requests or self._body_bytes > self._max_body_bytes
        ):
            oldest = self._requests.pop(next(iter(self._requests)))
            self._body_bytes -= oldest.body_bytes
