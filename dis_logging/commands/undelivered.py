"""Where ``dis-logging send`` keeps the lines that were not delivered, so that they can be sent again."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from dis_logging.client.wire import MAX_RECORD_BYTES
from dis_logging.commands.console import Console
from dis_logging.pipeline.entry import FailureReason
from dis_logging.pipeline.fallback import FailedRecord

_TOO_LARGE = FailureReason.TOO_LARGE.value
_SHOWN_OF_LONG_LINE = 200


class _Kept(NamedTuple):
    """A line that was not delivered, which of all lines it is, and why; lines sort in the order in which they were read."""

    number: int
    line: bytes
    code: str
    message: str


class Undelivered(logging.Handler):
    """
    The fallback of ``send``: a file of lines, byte for byte as they were read, or without one a line each on stderr.

    Its methods may be called from any thread, but only one at a time may write a long line. As a context it
    removes the file if nothing came into it.

    Args:
        path: of the file, which must not exist; None for stderr.
        console: what is not in the file is told here.

    Raises:
        OSError: when the file cannot be made, `FileExistsError` when there is one.
    """

    def __init__(self, path: str | None, console: Console) -> None:
        super().__init__()
        self.path = path
        #: How many lines are in here, by the error code.
        self.reasons: Counter[str] = Counter()
        #: What the latest of them with that code was told.
        self.messages: dict[str, str] = {}
        #: How many of them DIS may hold nevertheless.
        self.outcome_unknown = 0
        #: How many the file would not take, so that they are on stderr.
        self.unwritable = 0
        self._console = console
        self._mutex = threading.Lock()
        self._long_line: LongLine | None = None
        self._held: list[_Kept] | None = None
        self._end = 0
        # Never an existing file: it may be the input, or hold the lines that failed the last time.
        self._file = None if path is None else open(path, "xb", buffering=0)  # noqa: SIM115 - closed in __exit__

    @property
    def count(self) -> int:
        """How many lines were not delivered."""
        return self.reasons.total()

    def createLock(self) -> None:
        """Makes no lock: the pipeline would wait for it only a moment, and show the line on stderr then."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Keeps the line of a record that the pipeline gave up."""
        line = record.dis_data if isinstance(record, FailedRecord) else record.getMessage().encode()
        if line == b"\n":  # what the handler makes of an empty line, since DIS takes no empty record
            line = b""
        reason = vars(record)
        with self._mutex:
            self.outcome_unknown += reason["dis_outcome_unknown"]
        self.keep(_Kept(record.lineno, line, reason["dis_error_code"], reason["dis_error_message"]))
        return True

    def keep_unsent(self, number: int, line: bytes) -> None:
        """Keeps a line that was read when the end had been requested; *number* counts all lines."""
        self.keep(_Kept(number, line, FailureReason.CLOSED.value, "interrupted before it was sent"))

    def keep(self, kept: _Kept) -> None:
        """Keeps a line, now or when it is its turn."""
        with self._mutex:
            self.reasons[kept.code] += 1
            self.messages[kept.code] = kept.message
            if self._held is not None:
                self._held.append(kept)
            elif self._long_line is not None:
                self._long_line.waiting.append(kept)
            else:
                self._put(kept)

    def hold(self) -> None:
        """
        Makes `release` write what comes from now on: at an early end it comes from two threads.

        That is no more than the handler's buffer and a chunk of the input hold.
        """
        with self._mutex:
            if self._held is None:
                self._held = []

    def release(self) -> None:
        """Writes what was held, in the order in which it was read."""
        with self._mutex:
            held, self._held = self._held or [], None
            for kept in sorted(held):
                self._put(kept)

    def begin_long_line(self) -> LongLine:
        """Begins a line that comes in pieces; what is kept meanwhile follows it."""
        with self._mutex:
            self._long_line = LongLine(self, self._end)
            return self._long_line

    def end_long_line(self, line: LongLine, where: str | None) -> None:
        """Ends *line*, which was read at *where*; None takes it back."""
        with self._mutex:
            self._long_line = None
            if where is None:
                self._forget_after(line.begins_at)
            else:
                message = f"{where} has {line.size} bytes, DIS takes {MAX_RECORD_BYTES}"
                self.reasons[_TOO_LARGE] += 1
                self.messages[_TOO_LARGE] = message
                if self._file is None or not line.is_written or not self.append(b"\n"):
                    self._forget_after(line.begins_at)
                    self.unwritable += self._file is not None
                    self._show(line.beginning, _TOO_LARGE, f"{message}; this is its beginning")
            for kept in line.waiting:
                self._put(kept)

    # -- writing ------------------------------------------------------------------------------------------------------

    def _put(self, kept: _Kept) -> None:
        if self._file is None:
            self._show(kept.line, kept.code, kept.message)
        elif not self.append(kept.line + b"\n"):
            self.unwritable += 1
            self._show(kept.line, kept.code, kept.message)

    def append(self, data: bytes) -> bool:
        """Appends *data* and returns whether the file has taken all of it; if not, it has nothing of it."""
        if self._file is None:
            return True
        begin = self._end
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:  # such as a full disk
            self._forget_after(begin)
            return False
        self._end = begin + len(data)
        return True

    def _forget_after(self, position: int) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.truncate(position)
                self._file.seek(position)
            self._end = position

    def _show(self, line: bytes, code: str, message: str) -> None:
        self._console.say(f"not delivered: {code} ({message}): {line.decode('utf-8', 'surrogateescape')}")

    def __enter__(self) -> Undelivered:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if self._file is not None and self.path is not None:
            self._file.close()
            if self._end == 0:
                with suppress(OSError):
                    os.remove(self.path)


class LongLine:
    """
    A line that is too long to be a record, and perhaps for the memory: it is written in pieces.

    Between its beginning and its end nothing else is written to the file.
    """

    def __init__(self, undelivered: Undelivered, begins_at: int) -> None:
        self._undelivered = undelivered
        self.begins_at = begins_at
        self.size = 0
        self.beginning = b""
        self.is_written = True
        #: What is to be kept once the line has ended.
        self.waiting: list[_Kept] = []

    def add(self, piece: bytes) -> None:
        """Writes a piece of the line."""
        self.size += len(piece)
        self.beginning = (self.beginning + piece[:_SHOWN_OF_LONG_LINE])[:_SHOWN_OF_LONG_LINE]
        if self.is_written:
            self.is_written = self._undelivered.append(piece)

    def end(self, where: str) -> None:
        """Ends the line, which was read at *where*."""
        self._undelivered.end_long_line(self, where)

    def cancel(self) -> None:
        """Takes the line back: it was not read to its end, and will be read again."""
        self._undelivered.end_long_line(self, None)
