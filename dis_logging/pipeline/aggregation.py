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
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import accumulate, count
from operator import add, itemgetter
from typing import TYPE_CHECKING

from dis_logging.pipeline.entry import KEY, ROUTING, Entry, data_of, key_of, routing_of

if TYPE_CHECKING:
    from dis_logging.client.wire import WireEntry

_LINE_FEED = b"\n"
_QUOTE = ord('"')
_first_of = itemgetter(0)


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


def are_lines(texts: Sequence[bytes]) -> bool:
    """Returns whether each of *texts* is the line that stands for it."""
    return _LINE_FEED not in b"".join(texts) and _QUOTE not in map(_first_of, texts)


def join(entries: Sequence[Entry], max_bytes: int) -> tuple[list[WireEntry], list[Sequence[int]]]:
    """
    Returns the DIS records for *entries*, as the client takes them, and for each the indices of the entries in it.

    The entries of a key keep their order, so only those that follow each other to the same place share a record: were there
    a gap, the later ones would overtake what lies in it. Entries of different keys need not keep theirs.

    Args:
        max_bytes: of the data of a DIS record; an entry that is longer has one for itself.
    """
    texts = list(map(data_of, entries))
    all_lines = texts if are_lines(texts) else list(map(line_of, texts))
    records: list[WireEntry] = []
    groups: list[Sequence[int]] = []
    for run in _runs(entries):
        first, lines = entries[run[0]], [all_lines[index] for index in run]
        for piece in _pieces(lines, max_bytes):
            records.append((_LINE_FEED.join(lines[piece]), first[KEY], first[ROUTING]))
            groups.append(run[piece])
    return records, groups


def _runs(entries: Sequence[Entry]) -> Sequence[Sequence[int]]:
    """Returns the indices of the entries that may share DIS records, each time in their order."""
    if len(set(map(key_of, entries))) == 1 and not any(map(routing_of, entries)):  # a single busy logger has the most
        return [range(len(entries))]
    runs: list[list[int]] = []
    latest: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        run = latest.get(entry[KEY])
        if run is None or entries[run[0]][ROUTING] != entry[ROUTING]:
            run = latest[entry[KEY]] = []
            runs.append(run)
        run.append(index)
    return runs


def _pieces(lines: Sequence[bytes], max_bytes: int) -> Iterator[slice]:
    """Yields the parts of *lines* that fill a DIS record each."""
    ends = list(map(add, accumulate(map(len, lines)), count()))  # where each ends, all joined by line feeds
    start = begin = 0
    while start < len(ends):
        stop = max(start + 1, bisect_right(ends, begin + max_bytes, start))
        yield slice(start, stop)
        start, begin = stop, ends[stop - 1] + 1


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
