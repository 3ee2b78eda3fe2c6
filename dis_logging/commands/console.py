"""What ``dis-logging send`` says on stderr: lines, and on a terminal how far it is."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

from dis_logging.escaping import escape

_BAR_WIDTH = 10  # so that all of the line shows on 80 columns
_RATE_OVER = 20  # showings; two seconds
_CLEAR = "\r\x1b[K"


class Console:
    """
    Writes lines to *stream*, and below them one that is written over and over if it is a terminal.

    Nothing that is wrong with the stream raises: what cannot be told must not end the sending.

    Args:
        stream: stderr; None when the program was started without.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._is_terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], _RATE_OVER)
        #: Bytes to be read, None when nobody knows.
        self.total: int | None = None

    def say(self, text: str) -> None:
        """Writes a line."""
        self._write(f"{_CLEAR if self._is_terminal else ''}dis-logging send: {escape(text)}\n")

    def show_progress(self, read: int, delivered: int, retried: int, failed: int) -> None:
        """
        Writes how far it is, over what it wrote before.

        Args:
            read: bytes read so far.
            delivered, retried, failed: records so far.
        """
        if not self._is_terminal:
            return
        now = time.monotonic()
        since, before = self._samples[0]
        self._samples.append((now, delivered))
        rate = (delivered - before) / max(now - since, 0.001)
        line = f"{self._bar(read)}{size(read)}  {rate:,.0f} records/s  retried {retried:,}  failed {failed:,}"
        self._write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])

    def _bar(self, read: int) -> str:
        if not self.total:
            return ""
        share = min(1.0, read / self.total)
        done = int(share * _BAR_WIDTH)
        return f"[{'#' * done}{'.' * (_BAR_WIDTH - done)}] {share:4.0%}  "

    def _write(self, text: str) -> None:
        if self._stream is not None:
            with suppress(OSError):  # whoever should read it has gone
                self._stream.write(text)
                self._stream.flush()


def size(count: int) -> str:
    """Returns a number of bytes with its unit, such as ``"12.3 MiB"``."""
    if count < 1024:
        return f"{count} bytes"
    number = count / 1024
    for unit in ("KiB", "MiB"):
        if number < 1024:
            return f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
