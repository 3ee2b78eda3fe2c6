"""Makes text that others wrote safe to show on one line of a terminal, a log or an error message."""

from __future__ import annotations

import re
from functools import cache

# C0 and C1 controls, the line and paragraph separators and the bidirectional overrides: everything that could end a
# line, move a cursor or reorder what a reader sees. Lone surrogates cannot be encoded at all.
_UNSAFE = "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape_character(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


@cache  # compiled when first needed: it takes a millisecond, and most programs never show such a text
def _unsafe() -> re.Pattern[str]:
    return re.compile(_UNSAFE)


def escape(text: str, limit: int | None = None) -> str:
    """
    Returns *text* on one line: control characters and lone surrogates become backslash escapes.

    Args:
        text: any string.
        limit: longest result in characters; a longer text is cut and ends in ``...``. None keeps all of it.
    """
    if limit is not None and len(text) > limit:
        text = text[: max(0, limit - 3)] + "..."
    return _unsafe().sub(_escape_character, text)
