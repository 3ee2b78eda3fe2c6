"""Who reads, and how far: apps and their checkpoints. Knows no HTTP; safe to use from any thread."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dis_logging.emulator.records_file import RecordsFile


class UnknownAppError(LookupError):
    """There is no app of that name."""


class AppExistsError(ValueError):
    """There is an app of that name already."""


class ConsumerApp(NamedTuple):
    """An app; *created* is in milliseconds since the epoch."""

    name: str
    app_id: str
    created: int


class Position(NamedTuple):
    """What a checkpoint belongs to: an app in a partition of a stream."""

    app: str
    stream_id: str
    partition: int


class Checkpoint(NamedTuple):
    """How far an app has read a partition, and what it noted along with it."""

    sequence_number: int
    metadata: str


class Consumers:
    """
    The apps of an emulator. Every method may be called from any thread.

    Args:
        file: where everything is kept as well, None for nowhere. It is written before memory changes.
    """

    def __init__(self, file: RecordsFile | None) -> None:
        self._file = file
        self._lock = threading.Lock()  # guards both below
        self._apps: dict[str, ConsumerApp] = {}
        self._checkpoints: dict[Position, Checkpoint] = {}

    def load(self) -> None:
        """Continues with what is in the file, if there is one."""
        if self._file is None:
            return
        with self._lock:
            self._apps = {app.name: app for app in self._file.apps()}
            self._checkpoints = self._file.checkpoints()

    def create_app(self, name: str, now: int) -> None:
        """
        Adds an app.

        Raises:
            AppExistsError: when there is one of that name.
        """
        with self._lock:
            if name in self._apps:
                raise AppExistsError(f"app {name!r} exists already")
            # Shaped like the ids in the SDK reference's examples.
            app = ConsumerApp(name, uuid.uuid4().hex[:20], now)
            if self._file is not None:
                self._file.add_app(app)
            self._apps[name] = app

    def delete_app(self, name: str) -> None:
        """
        Removes an app and its checkpoints.

        Raises:
            UnknownAppError: when there is none of that name.
        """
        with self._lock:
            self._find(name)
            gone = [position for position in self._checkpoints if position.app == name]
            if self._file is not None:
                self._file.delete_app(name)
            del self._apps[name]
            self._drop(gone)

    def app(self, name: str) -> ConsumerApp:
        """
        Returns the app of that name.

        Raises:
            UnknownAppError: when there is none.
        """
        with self._lock:
            return self._find(name)

    def apps(self) -> tuple[ConsumerApp, ...]:
        """Returns all apps, in order of creation."""
        with self._lock:
            return tuple(self._apps.values())

    def stream_ids(self, app: str) -> frozenset[str]:
        """Returns the ids of the streams on which *app* has checkpoints."""
        with self._lock:
            return frozenset(position.stream_id for position in self._checkpoints if position.app == app)

    def commit(self, position: Position, checkpoint: Checkpoint) -> None:
        """
        Replaces the checkpoint at *position*.

        Raises:
            UnknownAppError: when there is no such app.
        """
        with self._lock:
            self._find(position.app)
            if self._file is not None:
                self._file.commit(position, checkpoint)
            self._checkpoints[position] = checkpoint

    def checkpoint(self, position: Position) -> Checkpoint | None:
        """
        Returns the checkpoint at *position*, None when there was no commit.

        Raises:
            UnknownAppError: when there is no such app.
        """
        with self._lock:
            self._find(position.app)
            return self._checkpoints.get(position)

    def delete_checkpoints(self, app: str, stream_id: str, partition: int | None) -> None:
        """
        Removes the checkpoints of an app on a stream: of all partitions, or of one.

        Raises:
            UnknownAppError: when there is no such app.
        """
        with self._lock:
            self._find(app)
            gone = [
                position
                for position in self._checkpoints
                if (position.app, position.stream_id) == (app, stream_id) and partition in (None, position.partition)
            ]
            if self._file is not None:
                self._file.delete_checkpoints(gone)
            self._drop(gone)

    def forget_stream(self, stream_id: str) -> None:
        """Removes all checkpoints on a stream that is deleted; from the file they went with it."""
        with self._lock:
            self._drop([position for position in self._checkpoints if position.stream_id == stream_id])

    def _find(self, name: str) -> ConsumerApp:
        app = self._apps.get(name)
        if app is None:
            raise UnknownAppError(f"there is no app {name!r}")
        return app

    def _drop(self, gone: list[Position]) -> None:
        for position in gone:
            del self._checkpoints[position]
