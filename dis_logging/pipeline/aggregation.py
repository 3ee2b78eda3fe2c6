"""
Several log records in one DIS record, one to a line: fewer records for DIS to count, to throttle and to bill.

A common partition takes 1000 DIS records a second, and they are metered by the started 25 KB (FAQ, "What is a partition?";
billing page), so short log records that travel together cost a fraction.

The format: the lines of a DIS record, between line feeds, are its log records. A line that begins with a double quote is a
JSON string and stands for the text in it; any other line stands for itself. So a text that holds a line feed, or begins with
a double quote, is written as a JSON string, and nobody who takes the record apart has to guess.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from dis_logging.pipeline.entry import DATA, KEY, ROUTING, Entry, place_of

if TYPE_CHECKING:
    from dis_logging.client.wire import WireEntry

_LINE_FEED = b"\n"
_QUOTE = b'"'


class Aggregation(str, Enum):
    """How log records share a DIS record; the values are those of the option *aggregate*. `LINES`: one to a line."""

    LINES = "lines"


def line_of(data: bytes) -> bytes:
    """Returns the line that stands for the text in *data*, which is UTF-8."""
    if _LINE_FEED in data or data.startswith(_QUOTE):
        return json.dumps(data.decode(), ensure_ascii=False).encode()
    return data


def line_size(data: bytes) -> int:
    """Returns the bytes of the line that stands for the text in *data*, without a line feed."""
    return len(line_of(data))


class Rooms:
    """How full the latest DIS record of each place is, while a batch is made of them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[Any, int] = {}

    def has_room(self, place: Any, size: int) -> bool:
        """Returns whether a line of that *size* may join the latest record of *place*."""
        taken = self._sizes.get(place)
        return taken is not None and taken + 1 + size <= self._max_bytes

    def take(self, place: Any, size: int) -> bool:
        """Counts a line in; returns whether it joins the latest record of *place*, False when it begins a new one."""
        joins = self.has_room(place, size)
        self._sizes[place] = self._sizes[place] + 1 + size if joins else size
        return joins


def join(entries: Sequence[Entry], max_bytes: int) -> tuple[list[WireEntry], list[list[int]]]:
    """
    Returns the DIS records for *entries*, as the client takes them, and for each the indices of the entries in it.

    The entries of a place keep their order; those of different places need not, as DIS keeps none between them either.

    Args:
        max_bytes: of the data of a DIS record; an entry that is longer has one for itself.
    """
    rooms = Rooms(max_bytes)
    groups: list[list[int]] = []
    lines: list[list[bytes]] = []
    latest: dict[Any, int] = {}
    for index, entry in enumerate(entries):
        place = place_of(entry)
        line = line_of(entry[DATA])
        if rooms.take(place, len(line)):
            groups[latest[place]].append(index)
            lines[latest[place]].append(line)
        else:
            latest[place] = len(groups)
            groups.append([index])
            lines.append([line])
    heads = [entries[group[0]] for group in groups]
    records: list[WireEntry] = [
        (_LINE_FEED.join(parts), head[KEY], head[ROUTING]) for parts, head in zip(lines, heads, strict=True)
    ]
    return records, groups
