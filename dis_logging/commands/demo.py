"""
The main job on a local DIS: a small shop logs, DIS throttles and refuses, and the books are laid open.

Everything shown is read back: from the shop's own notes, the emulator's ledger, the fallback and the handler's counters.
"""

from __future__ import annotations

import argparse
import logging
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TextIO

from dis_logging.commands.exits import EPILOG
from dis_logging.commands.paint import Paint
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Refuse, RefuseEntries
from dis_logging.emulator.journal import ReceivedRequest
from dis_logging.emulator.store import StoredRecord
from dis_logging.escaping import escape
from dis_logging.handler import DISHandler
from dis_logging.pipeline.stats import HandlerStats

_STREAM = "shop-logs"
_PARTITIONS = 3
_WIDTH = 79
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TIMEOUT = 10.0


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``demo`` to the *commands* of the command line."""
    parser = commands.add_parser(
        "demo",
        help="watch records on their way, without an account or a network",
        description="Starts a local DIS on loopback, lets a small application log to it, and shows where each record\n"
        "went, what was sent again, and what the fallback received.",
        epilog=f"example:\n  dis-logging demo\n\nSet NO_COLOR to get no colours on a terminal.\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=lambda _: run_demo(sys.stdout, sys.stderr))


def run_demo(output: TextIO, diagnosis: TextIO) -> int:
    """
    Runs the demonstration and returns the exit code: 0 when every record is accounted for, else 1.

    Args:
        output: gets the report, in colours when it is a terminal and ``NO_COLOR`` is not set.
        diagnosis: gets what went wrong with the demonstration itself.
    """
    with DISEmulator(streams={_STREAM: _PARTITIONS}) as dis:
        books = _open_shop(dis)
    output.writelines(line + "\n" for line in _Report(books, Paint.for_stream(output)).lines())
    faults = books.faults()
    diagnosis.writelines(f"dis-logging demo: {fault}\n" for fault in faults)
    return 1 if faults else 0


# -- the application ------------------------------------------------------------------------------------------------


class PaymentError(Exception):
    """What the shop's card processor raises."""


def _morning() -> None:
    logging.getLogger("shop.web").info("listening on port %d", 8000)
    logging.getLogger("shop.stock").debug("%d articles loaded", 212)
    logging.getLogger("shop.orders").info("订单 %d 已创建 绿茶两盒 寄往上海市黄浦区", 1001)
    logging.getLogger("shop.stock").warning("绿茶 is running low: %d left", 3)


def _noon() -> None:
    logging.getLogger("shop.orders").info("заказ %d принят: чай, 1 шт.", 1002)
    logging.getLogger("shop.web").info("GET /größen 200 in %d ms", 12)
    try:
        _charge(1002)
    except PaymentError:
        logging.getLogger("shop.checkout").exception("order %d is not paid", 1002)


def _charge(order: int) -> None:
    raise PaymentError(f"the card for order {order} was declined")


def _evening() -> None:
    logging.getLogger("shop.export").info("partner feed: %d orders", 2)
    logging.getLogger("shop.orders").info("注文 %d を発送しました", 1001)
    logging.getLogger("shop.web").info("closing time")


def _open_shop(dis: DISEmulator) -> _Books:
    """Runs the application against *dis* and returns what everybody noted."""
    fallback = _Fallback()
    handler = DISHandler(
        **dis.handler_options(_STREAM),
        fallback=fallback,
        flush_interval=60.0,  # a batch is sent when its part of the day is over, so that every run shows the same
        backoff_initial=0.05,
        delivery_timeout=_TIMEOUT,
        shutdown_timeout=_TIMEOUT,
    )
    notes = _Notes()
    with _attached(logging.getLogger("shop"), handler, notes):
        dis.play(RefuseEntries("DIS.4303", where=lambda entry: entry.partition_key == "shop.stock"))
        _live_through(_morning, handler)
        dis.play(Refuse(400, "DIS.4303"))
        _live_through(_noon, handler)
        dis.play(RefuseEntries("DIS.4302", where=lambda entry: entry.partition_key == "shop.export"))
        _live_through(_evening, handler)
    return _Books(notes.records, dis.records(_STREAM), dis.requests, fallback.records, handler.stats())


def _live_through(part_of_day: Callable[[], None], handler: DISHandler) -> None:
    part_of_day()
    handler.flush()


@contextmanager
def _attached(logger: logging.Logger, *handlers: logging.Handler) -> Iterator[None]:
    """Makes *logger* log to *handlers* alone, then closes them and leaves it as it was."""
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.level, logger.propagate = before


# -- the books ------------------------------------------------------------------------------------------------------


class _Note(NamedTuple):
    """One record as the application saw it; *text* is what the formatter made of it."""

    level: str
    logger: str
    message: str
    text: str


class _Notes(logging.Handler):
    """Notes every record, as a witness beside the handler."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[_Note] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.records.append(_Note(record.levelname, record.name, record.getMessage(), text))


class _Fallback(logging.Handler):
    """Keeps what could not be delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@dataclass(frozen=True)
class _Books:
    """What the application, DIS, the fallback and the handler noted, each on its own."""

    notes: Sequence[_Note]
    stored: Sequence[StoredRecord]
    requests: Sequence[ReceivedRequest]
    failed: Sequence[logging.LogRecord]
    stats: HandlerStats

    def place_of(self, note: _Note) -> StoredRecord | None:
        """Returns where DIS stored a record, None when it did not."""
        return next((record for record in self.stored if record.text == note.text), None)

    def attempts(self, note: _Note) -> int:
        """Returns how many requests carried a record."""
        return sum(entry.text == note.text for request in self.requests for entry in request.entries)

    def faults(self) -> list[str]:
        """Returns what does not add up; nothing should."""
        stored = [record.text for record in self.stored]
        failed = [record.getMessage() for record in self.failed]
        stats = self.stats
        ends = Counter(stored + failed)
        found = [f"{ends[note.text]} verdicts for: {note.message}" for note in self.notes if ends[note.text] != 1]
        if (stats.emitted, stats.delivered, stats.failed) != (len(self.notes), len(stored), len(failed)):
            found.append(
                f"the handler counts {stats}, but {len(self.notes)} records were logged, DIS holds {len(stored)} "
                f"and the fallback received {len(failed)}"
            )
        return found


# -- the report -----------------------------------------------------------------------------------------------------


class _Report:
    """Lays the books out in lines of at most 79 columns."""

    def __init__(self, books: _Books, paint: Paint) -> None:
        self._books = books
        self._paint = paint

    def lines(self) -> Iterator[str]:
        """Yields the report line by line."""
        yield f"A small shop logs to a local DIS: stream {_STREAM}, {_PARTITIONS} partitions."
        for title, section in (
            ("What it logged, and where DIS put it", self._records),
            ("What was sent, and what DIS answered", self._requests),
            ("The record with a traceback, as DIS holds it", self._tracebacks),
            ("What the fallback received", self._failures),
            ("Final counts", self._counts),
        ):
            yield ""
            yield self._paint.heading(title)
            yield from section()

    def _records(self) -> Iterator[str]:
        yield _row("#", "level", "logger", "message", "partition", "seq", "attempts")
        for number, note in enumerate(self._books.notes, 1):
            place, attempts = self._books.place_of(note), self._books.attempts(note)
            where = (str(int(place.partition_id[-10:])), place.sequence_number) if place else ("fallback", "-")
            row = _row(str(number), note.level, note.logger, note.message, *where, str(attempts))
            yield self._paint.bad(row) if place is None else self._paint.again(row) if attempts > 1 else row

    def _requests(self) -> Iterator[str]:
        seen: set[str] = set()
        for request in self._books.requests:
            texts = {entry.text for entry in request.entries}
            again = f" ({len(texts & seen)} again)" if texts & seen else ""
            seen |= texts
            line = _fit(f"request {request.number}: {len(texts)} records{again}", 33) + _answer_to(request)
            yield self._paint.again(line) if request.error_code or request.entry_codes else line

    def _tracebacks(self) -> Iterator[str]:
        for record in self._books.stored:
            first, *rest = _without_time(record.text).splitlines()
            if rest:
                yield from (_cut(line, _WIDTH) for line in (first, rest[0], "  ...", rest[-1]))

    def _failures(self) -> Iterator[str]:
        for record in self._books.failed:
            reason = f"{vars(record)['dis_error_code']} ({vars(record)['dis_error_message']})"
            yield self._paint.bad(_cut(f"{reason} {_without_time(record.getMessage())}", _WIDTH))

    def _counts(self) -> Iterator[str]:
        stats = self._books.stats
        yield self._paint.good(
            f"emitted {stats.emitted} = delivered {stats.delivered} + failed {stats.failed} "
            f"+ dropped {stats.dropped} + buffered {stats.buffered}"
        )
        yield (
            f"requests {stats.requests}, records sent again {stats.retried}, "
            f"in the stream {len(self._books.stored)}, in the fallback {len(self._books.failed)}"
        )


def _without_time(text: str) -> str:
    """Returns a formatted record without its date and time, the first two words of `_FORMAT`."""
    return text.split(" ", 2)[2]


def _answer_to(request: ReceivedRequest) -> str:
    if request.error_code:
        return f"HTTP {request.status}, {request.error_code}: nothing stored"
    refused = len(request.entry_codes)
    codes = ", ".join(sorted(set(request.entry_codes)))
    return f"HTTP {request.status}: {request.entry_count - refused} stored" + (
        f", {refused} refused ({codes})" if refused else ""
    )


def _row(number: str, level: str, logger: str, message: str, partition: str, sequence: str, attempts: str) -> str:
    cells = (f"{number:>2}", _fit(level, 7), _fit(logger, 13), _fit(message, 25))
    return "  ".join((*cells, f"{partition:>9}", f"{sequence:>3}", f"{attempts:>8}"))


def _fit(text: str, width: int) -> str:
    """Returns *text* on exactly *width* columns of a terminal."""
    cut = _cut(text, width)
    return cut + " " * (width - _columns(cut))


def _cut(text: str, width: int) -> str:
    """Returns *text* on one line and at most *width* columns of a terminal, ending in ``...`` where it was cut."""
    text = escape(text)
    if _columns(text) <= width:
        return text
    while _columns(text) > width - 3:
        text = text[:-1]
    return text + "..."


def _columns(text: str) -> int:
    """Returns how many columns *text* takes on a terminal: East Asian wide characters two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "FW" else 1
        for character in text
    )
