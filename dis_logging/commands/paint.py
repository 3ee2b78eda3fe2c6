"""Colours for what goes to a terminal, and only for that."""

from __future__ import annotations

import os
from typing import TextIO


class Paint:
    """Puts colours around text, or leaves it alone."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled

    @classmethod
    def for_stream(cls, stream: TextIO) -> Paint:
        """Returns one that paints only what goes to a terminal, and not if the user set NO_COLOR (no-color.org)."""
        return cls(enabled=stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")

    def heading(self, text: str) -> str:
        return self._paint(text, "1")

    def bad(self, text: str) -> str:
        return self._paint(text, "31")

    def again(self, text: str) -> str:
        return self._paint(text, "33")

    def good(self, text: str) -> str:
        return self._paint(text, "32")

    def faint(self, text: str) -> str:
        return self._paint(text, "2")

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._enabled else text
