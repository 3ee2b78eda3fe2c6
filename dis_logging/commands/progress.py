"""The line that ``dis-logging send`` keeps up to date on a terminal, and numbers as people read them."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

_BAR_WIDTH = 20
_RATE_OVER = 20  # showings; two seconds
_CLEAR = "\r\x1b[K"


class Progress:
    """
    One line that is written over and over; nothing at all where it could not be.

    Args:
        stream: a terminal, or something else that then gets nothing.
        total: bytes to be read, None when nobody knows.
    """

    def __init__(self, stream: TextIO, total: int | None) -> None:
        self._stream = stream
        self._total = total
        self._enabled = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], _RATE_OVER)

    def show(self, read: int, delivered: int, retried: int, failed: int) -> None:
        """
        Writes the line.

        Args:
            read: bytes read so far.
            delivered, retried, failed: records so far.
        """
        if not self._enabled:
            return
        now = time.monotonic()
        since, before = self._samples[0]
        self._samples.append((now, delivered))
        rate = (delivered - before) / max(now - since, 0.001)
        line = f"{self._bar(read)}{size(read)}  {rate:,.0f} records/s  retried {retried:,}  failed {failed:,}"
        self._write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])

    def clear(self) -> None:
        """Takes the line away, to make room for another one."""
        if self._enabled:
            self._write(_CLEAR)

    def _bar(self, read: int) -> str:
        if not self._total:
            return ""
        share = min(1.0, read / self._total)
        done = int(share * _BAR_WIDTH)
        return f"[{'#' * done}{'.' * (_BAR_WIDTH - done)}] {share:4.0%}  "

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a terminal that has gone must not end the sending
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
