"""Reads inputs line by line in a thread that a signal can end without losing what was read."""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dis_logging.client.wire import MAX_RECORD_BYTES
from dis_logging.commands.undelivered import LongLine, Undelivered
from dis_logging.handler import DISHandler

STDIN = "-"
_CHUNK_BYTES = 64 * 1024
_CAN_WAIT = os.name == "posix"  # elsewhere select takes nothing but sockets
# For a flush that ends with the verdicts, which have their own limits.
_A_DAY = 86_400.0


class Input:
    """
    One of the inputs: where its lines come from, which key they get, and how far it has been read.

    Args:
        path: of a file, or `STDIN`.
        key: partition key of its lines; None takes the name of the file, or ``stdin``.
    """

    def __init__(self, path: str, key: str | None) -> None:
        self.path = path
        self.key = _name_of(path) if key is None else key
        self.is_stdin = path == STDIN
        #: Complete lines read; those after them are still in the file, if it is one.
        self.lines = 0
        self.is_read = False
        self.error: OSError | None = None

    def __str__(self) -> str:
        return "stdin" if self.is_stdin else self.path

    def check(self) -> os.stat_result:
        """
        Returns what the system says about it.

        Raises:
            OSError: when it cannot be read.
        """
        if self.is_stdin:
            return os.fstat(0)
        # Not by opening it, which a named pipe would notice.
        found = os.stat(self.path)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(self.path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return found

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Gives its file descriptor."""
        descriptor = 0 if self.is_stdin else os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            yield descriptor
        finally:
            if not self.is_stdin:
                os.close(descriptor)


def _name_of(path: str) -> str:
    return "stdin" if path == STDIN else text_of_argument(os.path.basename(path))


def text_of_argument(argument: str) -> str:
    """Returns an argument that is not UTF-8 as text that can be sent: with backslash escapes."""
    return os.fsencode(argument).decode("utf-8", "backslashreplace")


class Interruption:
    """
    A wish to end, which a signal handler may have.

    `threading.Event` would not do: a handler that sets it can interrupt the very thread that is about to wait for it.
    """

    def __init__(self) -> None:
        self.is_requested = False
        if _CAN_WAIT:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)

    def request(self) -> None:
        """Ends the waiting for input, now and for ever."""
        self.is_requested = True
        if _CAN_WAIT:
            with suppress(BlockingIOError):
                os.write(self._writer, b"!")

    def wait_for(self, descriptor: int) -> None:
        """Returns when *descriptor* can be read without waiting, or the end is requested."""
        if _CAN_WAIT:
            select.select([descriptor, self._reader], [], [])


class Feeder(threading.Thread):
    """
    Gives the lines of *inputs* to *handler*, one record each, and waits until each has its verdict.

    Neither Ctrl-C nor anything else ends it in the middle of a line. When the end is requested, it reads no more and hands
    over what it has: all of a pipe, as that cannot be read again, but of a file only complete lines. What is left of that
    after `give_up` goes to *undelivered*.

    Args:
        inputs: to be read one after the other; one that cannot be read has an error afterwards.
        handler: should block when its buffer is full. The formatter must take records whose ``msg`` is a line in bytes and whose
            ``lineno`` counts the lines of all inputs.
        undelivered: gets the lines that the handler does not.
        interruption: requests the end.
    """

    def __init__(
        self, inputs: list[Input], handler: DISHandler, undelivered: Undelivered, interruption: Interruption
    ) -> None:
        super().__init__(name="dis-logging-send", daemon=True)
        self._inputs = inputs
        self._handler = handler
        self._undelivered = undelivered
        self._interruption = interruption
        self._number = 0
        self._has_given_up = False
        self.bytes_read = 0
        #: False when a defect has ended it.
        self.is_complete = False

    def run(self) -> None:
        """Reads everything."""
        for source in self._inputs:
            if self._interruption.is_requested:
                break
            try:
                with source.opened() as descriptor:
                    self._read(source, descriptor)
            except OSError as error:
                source.error = error
        if not self._interruption.is_requested:
            self._handler.flush(_A_DAY)
        self.is_complete = True

    def give_up(self) -> None:
        """Makes it hand over nothing more."""
        self._has_given_up = True

    def _read(self, source: Input, descriptor: int) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        rest = b""
        long_line: LongLine | None = None
        try:
            for chunk in self._chunks(source, descriptor):
                *lines, rest = (rest + chunk).split(b"\n")
                if long_line and lines:
                    long_line.add(lines.pop(0))
                    self._end(long_line, source)
                    long_line = None
                for line in lines:
                    self._take(line, source)
                if long_line or len(rest) > MAX_RECORD_BYTES:
                    long_line = long_line or self._undelivered.begin_long_line()
                    long_line.add(rest)
                    rest = b""
        finally:
            if is_file and not source.is_read:  # what is left is the beginning of a line that is still in the file
                if long_line:
                    long_line.cancel()
            elif long_line:
                self._end(long_line, source)
            elif rest:
                self._take(rest, source)

    def _chunks(self, source: Input, descriptor: int) -> Iterator[bytes]:
        while True:
            self._interruption.wait_for(descriptor)
            if self._interruption.is_requested:
                return
            chunk = os.read(descriptor, _CHUNK_BYTES)
            if not chunk:
                source.is_read = True
                return
            self.bytes_read += len(chunk)
            yield chunk

    def _take(self, line: bytes, source: Input) -> None:
        if len(line) > MAX_RECORD_BYTES:
            long_line = self._undelivered.begin_long_line()
            long_line.add(line)
            self._end(long_line, source)
            return
        source.lines += 1
        self._number += 1
        if self._has_given_up:
            self._undelivered.keep_unsent(self._number, line)
        else:
            record = logging.LogRecord(source.key, logging.INFO, str(source), self._number, line, None, None)
            self._handler.handle(record)

    @staticmethod
    def _end(long_line: LongLine, source: Input) -> None:
        source.lines += 1
        long_line.end(f"line {source.lines} of {source}")
