"""The emulator as a whole: wires its parts together and is the face that tests and demonstrations see."""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dis_logging.emulator import connection
from dis_logging.emulator.access import Access
from dis_logging.emulator.app import App, Operation
from dis_logging.emulator.faults import Fault, Script
from dis_logging.emulator.journal import Journal, ReceivedRequest
from dis_logging.emulator.server import Server
from dis_logging.emulator.store import DEFAULT_RETENTION, Store, StoredRecord

if TYPE_CHECKING:
    from dis_logging.emulator.records_file import RecordsFile

# How often wait_for looks without being told: its predicate may be about something that is not the emulator's.
_LOOK_INTERVAL = 0.05


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class DISEmulator:
    """
    A DIS on loopback that verifies signatures, keeps to the limits, routes by partition key and plays faults.

    A context manager, or `start` and `stop`, which may be repeated: port, streams and records stay.
    Every method may be called from any thread, `start` and `stop` from one at a time. Times are seconds.

    Args:
        streams: partitions of each stream, by its name.
        port: TCP port; 0 takes a free one and keeps it over restarts.
        host: loopback address to listen on.
        ak: access key that requests must be signed with.
        sk: secret key that requests must be signed with.
        security_token: makes the keys temporary: requests must carry it as X-Security-Token. None asks for none.
        auth_token: IAM token that is accepted as X-Auth-Token instead of a signature. None accepts none.
        project_id: the only project that exists.
        region: what the scope of signatures must name.
        clock: returns the service's time, aware; it dates records and answers, and signatures may be 15 minutes off it.
        tls: serves https with this context.
        retention: how many records each partition keeps; the oldest give way, as after 24 hours in DIS.
        file: SQLite file that keeps streams, records, sequence numbers, apps and checkpoints for the next process, made
            when it is not there. Streams that it has need not be named again. None keeps everything in memory alone.
        throttle: refuses with DIS.4303 what is beyond the rates of DIS: 1000 records and 1 MiB a second for each
            partition of a common stream.
        request_timeout: how long a request may take from its first byte to its last.
        new_stream_partitions: creates a stream of so many partitions when the first batch for it comes, whatever its name.
            None refuses that batch, as DIS does.

    Raises:
        ValueError: when *host* is not a loopback address, *retention* or *new_stream_partitions* is not positive, or a stream
            is impossible.
        OSError: when the file cannot be used.
    """

    def __init__(
        self,
        streams: Mapping[str, int] | None = None,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        ak: str = "EMULATORACCESSKEY001",
        sk: str = "emulator-secret-key-for-loopback-only-01",
        security_token: str | None = None,
        auth_token: str | None = None,
        project_id: str = "0123456789abcdef0123456789abcdef",
        region: str = "cn-north-4",
        clock: Callable[[], datetime] = _utc_now,
        tls: ssl.SSLContext | None = None,
        retention: int = DEFAULT_RETENTION,
        file: str | os.PathLike[str] | None = None,
        throttle: bool = False,
        request_timeout: float = connection.REQUEST_TIMEOUT,
        new_stream_partitions: int | None = None,
    ) -> None:
        if not _is_loopback(host):
            raise ValueError(f"the emulator listens on loopback only, not on host {host!r}")
        if retention < 1:
            raise ValueError(f"retention must be at least 1 record, not {retention!r}")
        if new_stream_partitions is not None and new_stream_partitions < 1:
            raise ValueError(f"new_stream_partitions must be at least 1, not {new_stream_partitions!r}")
        self._host = host
        self._port = port
        self._tls = tls
        self._clock = clock
        self._access = Access(ak, sk, project_id, region, security_token, auth_token)
        self._changed = threading.Condition()  # guards the count of changes
        self._changes = 0
        self._store = Store(
            self._notice_change,
            retention=retention,
            throttle_clock=time.monotonic if throttle else None,
            new_stream_partitions=new_stream_partitions,
            file=None if file is None else _records_file(file),
        )
        self._request_timeout = request_timeout
        self._journal = Journal(self._notice_change)
        self._script = Script(self._notice_change)
        self._app = App(self._store, self._access, clock)
        self._connection_numbers = itertools.count(1)
        self._server: Server | None = None
        self._store.open()
        try:
            for name, partitions in (streams or {}).items():
                self._ensure_stream(name, partitions)
        finally:
            # Until it runs, the file is free for others.
            self._store.close()

    def __repr__(self) -> str:
        state = "running" if self._server else "stopped"
        streams = ", ".join(f"{name}: {self.record_count(name)} records" for name in self._store.stream_names())
        return (
            f"<DISEmulator {state} at {self._address(self._port)}, {{{streams}}}, {len(self._journal.requests())} requests, "
            f"{len(self.unplayed)} faults to play>"
        )

    # -- life cycle -------------------------------------------------------------------------------------------------

    def start(self) -> DISEmulator:
        """
        Listens from now on; returns itself. Does nothing when it is running.

        Raises:
            OSError: when the port is taken, or the file cannot be used.
        """
        if self._server is None:
            self._store.open()
            try:
                self._server = Server(self._host, self._port, self._tls, self._serve, self._connection_numbers)
            except BaseException:
                self._store.close()
                raise
            self._port = self._server.port
        return self

    def stop(self) -> None:
        """Refuses connections from now on and ends the open ones, hanging ones too. Does nothing when it is stopped."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._store.close()

    def reset(self, streams: Mapping[str, int] | None = None) -> None:
        """
        Starts over at the same address: no records, requests or faults any more, and other streams.

        A request that is being served may still store its records, in a stream of the same name.

        Args:
            streams: partitions of each stream, by its name.

        Raises:
            ValueError: when a stream is impossible.
        """
        self._script.clear()
        self._store.clear()
        self._journal.clear()
        for name, partitions in (streams or {}).items():
            self.create_stream(name, partitions)

    def drop_connections(self) -> None:
        """Closes all open connections and goes on: clients that keep one open find it stale."""
        if self._server is not None:
            self._server.drop_connections()

    def __enter__(self) -> DISEmulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self, sock: socket.socket, number: int) -> None:
        connection.serve(sock, number, self._app, self._script, self._journal, self._request_timeout)

    # -- where and who ----------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """The URL to give to clients. Raises RuntimeError before the first start, unless the port was chosen."""
        return self._address(self.port)

    @property
    def port(self) -> int:
        """The TCP port. Raises RuntimeError before the first start, unless it was chosen."""
        if not self._port:
            raise RuntimeError("the emulator has no port before it is started")
        return self._port

    @property
    def ak(self) -> str:
        """The access key that is accepted; may be set at any time, as may the other four."""
        return self._access.ak

    @ak.setter
    def ak(self, value: str) -> None:
        self._access.ak = value

    @property
    def sk(self) -> str:
        """The secret key that goes with `ak`."""
        return self._access.sk

    @sk.setter
    def sk(self, value: str) -> None:
        self._access.sk = value

    @property
    def security_token(self) -> str | None:
        """What X-Security-Token must carry, None when nothing is asked for."""
        return self._access.security_token

    @security_token.setter
    def security_token(self, value: str | None) -> None:
        self._access.security_token = value

    @property
    def auth_token(self) -> str | None:
        """What X-Auth-Token may carry instead of a signature, None when that is not accepted."""
        return self._access.auth_token

    @auth_token.setter
    def auth_token(self, value: str | None) -> None:
        self._access.auth_token = value

    @property
    def project_id(self) -> str:
        """The only project that exists."""
        return self._access.project_id

    @property
    def region(self) -> str:
        """What the scope of signatures must name."""
        return self._access.region

    # The values are Any because they are spread over parameters of several types.
    def handler_options(self, stream_name: str) -> dict[str, Any]:
        """Returns the keyword arguments that make a `DISHandler` log to *stream_name*."""
        return {"stream_name": stream_name, **self.client_options()}

    def client_options(self) -> dict[str, Any]:
        """Returns the keyword arguments that make a `DISClient` talk to this emulator."""
        options = {
            "endpoint": self.endpoint,
            "region": self.region,
            "project_id": self.project_id,
            "ak": self.ak,
            "sk": self.sk,
        }
        return options if self.security_token is None else {**options, "security_token": self.security_token}

    def _address(self, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    # -- streams ----------------------------------------------------------------------------------------------------

    def create_stream(self, name: str, partitions: int = 1) -> None:
        """
        Adds an empty stream.

        Raises:
            ValueError: when the name is none that DIS allows or is taken, or there would be no partition.
        """
        self._store.create_stream(name, partitions, int(self._clock().timestamp() * 1000))

    def _ensure_stream(self, name: str, partitions: int) -> None:
        """Adds a stream that the file does not have."""
        if name not in self._store.stream_names():
            self.create_stream(name, partitions)
            return
        kept = self._store.describe(name).partition_count
        if kept != partitions:
            raise ValueError(f"stream {name!r} has {kept} partitions in the file, not {partitions!r}")

    @property
    def stream_names(self) -> tuple[str, ...]:
        """The names of all streams, in order of creation."""
        return self._store.stream_names()

    def delete_stream(self, name: str) -> None:
        """
        Removes a stream: uploads to it are refused with DIS.4301. `records` still tells what it held.

        Raises:
            LookupError: when there is none of that name.
        """
        self._store.delete_stream(name)

    def stream_id(self, name: str) -> str:
        """
        Returns the id of a stream.

        Raises:
            LookupError: when there is none of that name.
        """
        return self._store.describe(name).stream_id

    # -- accounts ---------------------------------------------------------------------------------------------------

    def records(self, stream_name: str) -> tuple[StoredRecord, ...]:
        """
        Returns all that was stored under a stream name and is still kept, in order of arrival.

        That is everything, up to *retention* records in each partition; also what a deleted stream of that name held.

        Raises:
            LookupError: when there never was such a stream.
        """
        return self._store.records(stream_name)

    def record_count(self, stream_name: str) -> int:
        """Returns how many `records` there are, without copying them."""
        return self._store.record_count(stream_name)

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """
        The requests so far, in order of arrival, refused ones too; what is not HTTP is not among them.

        After 100 000 requests, or 256 MiB of bodies, the oldest are forgotten.
        """
        return self._journal.requests()

    @property
    def refused(self) -> Counter[str]:
        """How often each error code was answered, to a request or to an entry; ``http_503`` for refusals without one."""
        return self._journal.refused()

    def wait_for(self, predicate: Callable[[DISEmulator], object], timeout: float = 10.0) -> bool:
        """
        Waits until *predicate* of this emulator is true and returns whether it became so in time.

        Args:
            predicate: called after every change, and now and then in between; no lock is held.
            timeout: longest wait.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                seen = self._changes
            if predicate(self):
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._wait_for_change(seen, min(remaining, _LOOK_INTERVAL))

    def _wait_for_change(self, seen: int, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, timeout)

    def _notice_change(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    # -- faults -----------------------------------------------------------------------------------------------------

    def play(self, *faults: Fault, operation: Operation = Operation.PUT_RECORDS) -> None:
        """
        Puts faults at the end of the script: each PutRecords request takes the next one.

        A request that is too large to be read takes none. With the script played out the emulator behaves.

        Args:
            faults: what to play, in this order.
            operation: what requests must ask for to take one; each operation has a script of its own.
        """
        self._script.play(*faults, operation=operation)

    @property
    def unplayed(self) -> tuple[Fault, ...]:
        """The faults that no request has taken yet."""
        return self._script.unplayed()

    def rule(
        self,
        fault: Fault,
        where: Callable[[ReceivedRequest], bool] | None = None,
        *,
        operation: Operation = Operation.PUT_RECORDS,
    ) -> ExitStack:
        """
        Makes *fault* play for every PutRecords request from now on, until the returned context ends or is closed.

        Scripted faults go first, newer rules before older ones, and one plays for each request; but all standing
        `RefuseEntries` hold together, wherever entries are stored.

        Args:
            fault: what to play.
            where: for which requests; None for all. The body has been read when it is asked, even for ``Reset("before")``.
            operation: what they must ask for.
        """
        stack = ExitStack()
        stack.callback(self._script.add_rule(fault, where, operation))
        return stack

    def set_rule(self, fault: Fault | None) -> None:
        """Replaces all rules by one, or by none."""
        self._script.clear_rules()
        if fault is not None:
            self._script.add_rule(fault, None, Operation.PUT_RECORDS)


def _records_file(path: str | os.PathLike[str]) -> RecordsFile:
    # Here, because not every Python is built with sqlite3.
    from dis_logging.emulator.records_file import RecordsFile

    return RecordsFile(path)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
