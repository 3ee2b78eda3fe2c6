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
from typing import TYPE_CHECKING

from dis_logging.pipeline.entry import DATA, KEY, ROUTING, Entry

if TYPE_CHECKING:
    from dis_logging.client.wire import WireEntry

_LINE_FEED = b"\n"
_QUOTE = ord('"')


class Aggregation(str, Enum):
    """How log records share a DIS record; the values are those of the option *aggregate*. `LINES`: one to a line."""

    LINES = "lines"


def line_of(data: bytes) -> bytes:
    """Returns the line that stands for the text in *data*, which is not empty."""
    if _LINE_FEED not in data and data[0] != _QUOTE:
        return data
    try:
        return json.dumps(data.decode(), ensure_ascii=False).encode()
    except UnicodeDecodeError:  # a formatter may make any bytes; as lone surrogates they can be had back
        return json.dumps(data.decode("utf-8", "surrogateescape")).encode()


def line_size(data: bytes) -> int:
    """Returns the bytes of the line that stands for the text in *data*, without a line feed."""
    return len(line_of(data))


def join(entries: Sequence[Entry], max_bytes: int) -> tuple[list[WireEntry], list[list[int]]]:
    """
    Returns the DIS records for *entries*, as the client takes them, and for each the indices of the entries in it.

    The entries of a key keep their order, so only those that follow each other to the same place share a record: were there
    a gap, the later ones would overtake what lies in it. Entries of different keys need not keep theirs.

    Args:
        max_bytes: of the data of a DIS record; an entry that is longer has one for itself.
    """
    groups: list[_Group] = []
    latest: dict[str, _Group] = {}
    for index, entry in enumerate(entries):
        line = line_of(entry[DATA])
        group = latest.get(entry[KEY])
        if group is None or group.size + len(line) > max_bytes or group.routing != entry[ROUTING]:
            group = latest[entry[KEY]] = _Group(entry)
            groups.append(group)
        group.lines.append(line)
        group.indices.append(index)
        group.size += len(line) + 1
    records: list[WireEntry] = [(_LINE_FEED.join(group.lines), group.key, group.routing) for group in groups]
    return records, [group.indices for group in groups]


class _Group:
    """A DIS record in the making: its lines, their size with a line feed after each, and the indices of their entries."""

    __slots__ = ("indices", "key", "lines", "routing", "size")

    def __init__(self, first: Entry) -> None:
        self.key = first[KEY]
        self.routing = first[ROUTING]
        self.lines: list[bytes] = []
        self.indices: list[int] = []
        self.size = 0


def split(data: bytes) -> list[bytes]:
    """Returns the texts of the log records in a DIS record, in their order: the reverse of `join`."""
    return [_text_of(line) for line in data.split(_LINE_FEED)]


def _text_of(line: bytes) -> bytes:
    """Returns the text that *line* stands for; one that only looks like a JSON string stands for itself."""
    if not line or line[0] != _QUOTE:
        return line
    try:
        text = str(json.loads(line))
        return text.encode("utf-8", "surrogateescape")  # see `line_of`
    except ValueError:  # no JSON, or a surrogate that stands for no byte
        return line
