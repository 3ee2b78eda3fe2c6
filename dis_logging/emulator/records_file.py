"""
What the emulator has stored, in an SQLite file, so that the next process goes on where this one ended.

A file is written with each batch before DIS's answer is sent, and survives the end of the process in whatever way; not the
end of the machine, because nothing waits for the disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from dis_logging.client import wire
from dis_logging.emulator.consumers import Checkpoint, ConsumerApp, Position
from dis_logging.emulator.stream import Partition, StoredRecord, Stream, StreamSettings

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS streams (
        stream_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, partitions INTEGER NOT NULL,
        stream_type TEXT NOT NULL, data_type TEXT NOT NULL, retention_period INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS records (
        stream_id TEXT NOT NULL REFERENCES streams ON DELETE CASCADE, partition INTEGER NOT NULL, number INTEGER NOT NULL,
        arrival INTEGER NOT NULL, data BLOB NOT NULL, partition_key TEXT, timestamp INTEGER NOT NULL,
        PRIMARY KEY (stream_id, partition, number)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS apps (name TEXT PRIMARY KEY, app_id TEXT NOT NULL, created INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS checkpoints (
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        stream_id TEXT NOT NULL REFERENCES streams ON DELETE CASCADE,
        partition INTEGER NOT NULL, sequence_number INTEGER NOT NULL, metadata TEXT NOT NULL,
        PRIMARY KEY (app, stream_id, partition)
    );
"""
_VERSION = 1
_APPLICATION_ID = 0x444953  # "DIS": says whose file it is (SQLite, PRAGMA application_id)

# Closing a connection that a forked child has inherited would undo what the parent does; so it is kept for ever.
_inherited: list[sqlite3.Connection] = []


class RecordsFileError(OSError):
    """The file cannot be used, for the reason that SQLite gives."""


class RecordsFile:
    """
    The file of one emulator. Every method may be called from any thread; any may raise `RecordsFileError`.

    Between `open` and `close` it belongs to this process alone. Methods called outside open it for themselves.

    Args:
        path: made when it is not there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = threading.RLock()  # guards both below
        self._connection: sqlite3.Connection | None = None
        self._owner = 0

    def open(self) -> None:
        """Opens the file, unless it is open."""
        with self._lock, self._translated():
            if self._connection is None:
                self._connection = _connect(self.path)
                self._owner = os.getpid()

    def close(self) -> None:
        """Closes the file, if it is open."""
        with self._lock, self._translated():
            connection, self._connection = self._connection, None
            if connection is None:
                return
            if os.getpid() == self._owner:
                connection.close()
            else:
                _inherited.append(connection)

    # -- streams ----------------------------------------------------------------------------------------------------

    def streams(self, new_partition: Callable[[StreamSettings], Partition]) -> list[Stream]:
        """Returns all streams with their records, in order of creation; *new_partition* makes the empty partitions."""
        with self._transaction() as connection:
            streams = []
            for stream_id, name, created, count, *settings in connection.execute(
                "SELECT * FROM streams ORDER BY rowid"
            ):
                made_with = StreamSettings(*settings)
                partitions = [new_partition(made_with) for _ in range(count)]
                streams.append(Stream(name, stream_id, created, made_with, partitions))
            for stream in streams:
                _fill(stream, connection)
        return streams

    def add_stream(self, stream: Stream) -> None:
        """Notes a new stream, which must be empty."""
        with self._transaction() as connection:
            head = (stream.stream_id, stream.name, stream.created, len(stream.partitions))
            connection.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?)", (*head, *stream.settings))

    def delete_stream(self, stream_id: str) -> None:
        """Removes a stream, its records and the checkpoints on it."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM streams WHERE stream_id = ?", (stream_id,))

    def append(self, stream_id: str, placed: Sequence[tuple[int, int, StoredRecord]], retention: int) -> None:
        """
        Adds records, and removes those that give way to them.

        Args:
            stream_id: of their stream.
            placed: partition, place in the order of arrival, record.
            retention: how many records a partition keeps.
        """
        rows = (
            (
                stream_id,
                index,
                int(record.sequence_number),
                arrival,
                record.data,
                record.partition_key,
                record.timestamp,
            )
            for index, arrival, record in placed
        )
        newest = {index: int(record.sequence_number) for index, _, record in placed}
        expired = [(stream_id, index, number - retention) for index, number in newest.items()]
        with self._transaction() as connection:
            connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            connection.executemany("DELETE FROM records WHERE stream_id = ? AND partition = ? AND number <= ?", expired)

    # -- apps -------------------------------------------------------------------------------------------------------

    def apps(self) -> list[ConsumerApp]:
        """Returns all apps, in order of creation."""
        with self._transaction() as connection:
            return [ConsumerApp(*row) for row in connection.execute("SELECT * FROM apps ORDER BY rowid")]

    def checkpoints(self) -> dict[Position, Checkpoint]:
        """Returns all checkpoints."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT * FROM checkpoints").fetchall()
        return {Position(*row[:3]): Checkpoint(*row[3:]) for row in rows}

    def add_app(self, app: ConsumerApp) -> None:
        """Notes a new app."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO apps VALUES (?, ?, ?)", app)

    def delete_app(self, name: str) -> None:
        """Removes an app and its checkpoints."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM apps WHERE name = ?", (name,))

    def commit(self, position: Position, checkpoint: Checkpoint) -> None:
        """Notes a checkpoint instead of the one before."""
        with self._transaction() as connection:
            connection.execute("REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)", (*position, *checkpoint))

    def delete_checkpoints(self, positions: Iterable[Position]) -> None:
        """Removes checkpoints."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM checkpoints WHERE app = ? AND stream_id = ? AND partition = ?", positions
            )

    # -- SQLite -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Gives the connection; all that is done with it is done together or not at all."""
        with self._lock:
            if self._connection is None:
                self.open()
                try:
                    with self._transaction() as connection:
                        yield connection
                finally:
                    self.close()
                return
            with self._translated(), self._connection:
                yield self._connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RecordsFileError(f"file {self.path!r} cannot be used: {error}") from error


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, check_same_thread=False)
    try:
        # Two emulators on one file would give the same sequence numbers twice; the lock is kept until the end.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        # A journal that is rolled back, not WAL: a forked child that ends must not touch it.
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN EXCLUSIVE")
        _prepare(connection)
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty file, and refuses one that is somebody else's."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and (owner, version) != (_APPLICATION_ID, _VERSION):
        raise sqlite3.DatabaseError("it is not a file of this emulator, or of another version")
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _fill(stream: Stream, connection: sqlite3.Connection) -> None:
    rows = connection.execute(
        "SELECT partition, number, arrival, data, partition_key, timestamp FROM records WHERE stream_id = ?"
        " ORDER BY partition, number",
        (stream.stream_id,),
    )
    for index, number, arrival, data, key, timestamp in rows:
        partition = stream.partitions[index]
        if not partition.records:
            partition.first = number
        partition.append(arrival, StoredRecord(data, key, wire.partition_id(index), str(number), timestamp))
