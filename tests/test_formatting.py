"""The shortcut to the texts of a standard formatter: the same texts, for less work."""

import copy
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dis_logging.formatting import ShortcutHandler

NOON = 1_790_000_000.0
FULL = "%(asctime)s %(levelname)s %(name)s %(message)s"


@pytest.fixture
def formatter() -> logging.Formatter:
    return logging.Formatter(FULL)


@pytest.fixture
def handler(formatter: logging.Formatter) -> ShortcutHandler:
    """A handler that has already found the shortcut for *formatter* in the second of `NOON`."""
    handler = ShortcutHandler()
    handler.setFormatter(formatter)
    handler.format(new_record())
    return handler


def new_record(created: Any = NOON + 0.25, msg: object = "order %d is late", *args: object, **more: Any) -> Any:
    record = logging.LogRecord("shop.orders", logging.INFO, "/shop/orders.py", 7, msg, args or (1001,), None, "place")
    record.created, record.msecs = created, 250.0
    record.__dict__.update(more)
    return record


def outcome(format_record: Callable[[logging.LogRecord], str], record: logging.LogRecord) -> object:
    """Returns the text of a copy of *record*, or what the attempt raised."""
    try:
        return format_record(copy.copy(record))
    except Exception as error:
        return type(error), str(error), error.__context__ is None


def assert_same_text(handler: ShortcutHandler, record: logging.LogRecord) -> None:
    assert handler.formatter is not None
    assert outcome(handler.format, record) == outcome(handler.formatter.format, record)


def asked(handler: ShortcutHandler, record: logging.LogRecord) -> bool:
    """Returns whether *handler* asked its formatter for the text of *record*."""
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(frame.f_code) if event == "call" else None)
    try:
        handler.format(record)
    finally:
        sys.setprofile(None)
    return logging.Formatter.format.__code__ in calls


# -- the same texts -------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "%(asctime)s",
        "%(asctime)-30s|",
        "%%(asctime)s",
        "%%",
        "%%%(asctime)s",
        "%(message)s",
        "%(message).5s",
        "%(levelname)-8s",
        "%(msecs)d",
        "%(created)f",
        "%(thing)s",
        "[",
        " - ",
    ]
)
DATE_FORMATS = st.sampled_from([None, "", "%H:%M:%S", "%d%%", "%j %(asctime)s", "100 %%(name)s"])
MILLISECOND_FORMATS = st.sampled_from(
    ["%s,%03d", "%s.%03d", "", None, "%s", "%03d %s", "%s %d", "[%s] %03d ms", "%%%s,%03d"]
)
TIMES = st.one_of(
    st.floats(NOON - 2, NOON + 2),
    st.floats(),
    st.integers(-(10**20), 10**20),
    st.sampled_from([None, "noon", -0.5, 1e300, 10**400]),
)
MESSAGES = st.sampled_from(["late", "order %d", "%s is 100%% late", "%d %d", "%(asctime)s", "line\nbreak", "", None, 5])


@settings(max_examples=500, deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=6),
    date_format=DATE_FORMATS,
    time_format=st.sampled_from(["%Y-%m-%d %H:%M:%S", "%S", "%%03d %%s %%(msecs)03d", ""]),
    millisecond_format=MILLISECOND_FORMATS,
    converter=st.sampled_from([time.localtime, time.gmtime]),
    records=st.lists(st.tuples(TIMES, st.floats(0, 1000), MESSAGES), min_size=1, max_size=5),
    more=st.sampled_from([{}, {"thing": "tea"}, {"thing": "tea", "asctime": "of another handler"}]),
)
def test_a_text_is_the_formatters(
    pieces: list[str],
    date_format: str | None,
    time_format: str,
    millisecond_format: str | None,
    converter: Callable[[float | None], time.struct_time],
    records: list[tuple[Any, float, object]],
    more: dict[str, str],
) -> None:
    formatter = logging.Formatter("".join(pieces), date_format, validate=False)
    formatter.converter = converter
    formatter.default_time_format = time_format
    formatter.default_msec_format = millisecond_format
    handler = ShortcutHandler()
    handler.setFormatter(formatter)
    for created, msecs, message in records:
        assert_same_text(handler, new_record(created, message, msecs=msecs, **more))


@pytest.mark.parametrize(
    ("text", "date_format", "millisecond_format"),
    [
        ("%%(asctime)s %%%(asctime)s", None, "%s,%03d"),
        ("%(asctime)-30s|%(asctime)s", None, "%s,%03d"),
        ("%(asctime)s", "%d%% %%(name)s", "%s,%03d"),
        ("%(asctime)s", "%%(asctime)s", "%s,%03d"),
        ("%(asctime)s", None, "%%%s %03d"),
        ("%(asctime)s", None, "%s %d"),
        ("%(asctime)s", None, "%03d"),
        ("%(asctime)s", None, "%03d %s"),
        ("%(asctime)s", None, "[%s.%03d]"),
        ("%(asctime)s", None, ""),
        ("%(nothing)s", None, "%s,%03d"),
    ],
)
@pytest.mark.parametrize("time_format", ["%H:%M:%S", "%H %%03d %%s"])
def test_a_text_of_an_odd_format_is_the_formatters(
    text: str, date_format: str | None, millisecond_format: str, time_format: str
) -> None:
    formatter = logging.Formatter(text, date_format, validate=False)
    formatter.default_msec_format = millisecond_format
    formatter.default_time_format = time_format
    handler = ShortcutHandler()
    handler.setFormatter(formatter)

    assert_same_text(handler, new_record())
    assert_same_text(handler, new_record(asctime="of another handler"))


@pytest.mark.parametrize(
    "record",
    [
        new_record(exc_text="Traceback: of another handler"),
        new_record(stack_info="Stack: here"),
        new_record(exc_info=(ValueError, ValueError("too late"), None)),
        new_record(message="of another handler", asctime="of another time"),
    ],
    ids=["exc_text", "stack_info", "exc_info", "formatted before"],
)
def test_a_text_of_several_parts_is_the_formatters(handler: ShortcutHandler, record: logging.LogRecord) -> None:
    assert_same_text(handler, record)


def test_a_handler_without_a_formatter_gives_the_message() -> None:
    assert ShortcutHandler().format(new_record()) == "order 1001 is late"


def test_threads_in_different_seconds_get_their_own(handler: ShortcutHandler, formatter: logging.Formatter) -> None:
    wrong: list[object] = []

    def log(second: int) -> None:
        for _ in range(500):
            record = new_record(NOON + second)
            text = handler.format(record)
            if text != formatter.format(record):
                wrong.append(text)

    threads = [threading.Thread(target=log, args=(second,)) for second in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- what is changed ------------------------------------------------------------------------------------------------


def _in_local_time(patch: pytest.MonkeyPatch, formatter: logging.Formatter) -> None:
    patch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()


CHANGES: dict[str, Callable[[pytest.MonkeyPatch, Any], object]] = {
    "datefmt": lambda patch, formatter: setattr(formatter, "datefmt", "%H:%M"),
    "its converter": lambda patch, formatter: setattr(formatter, "converter", lambda seconds: time.gmtime(0)),
    "the converter": lambda patch, formatter: patch.setattr(logging.Formatter, "converter", lambda *_: time.gmtime(0)),
    "its milliseconds": lambda patch, formatter: setattr(formatter, "default_msec_format", "%s.%03d"),
    "its formatTime": lambda patch, formatter: setattr(formatter, "formatTime", lambda record, datefmt: "noon"),
    "formatTime": lambda patch, formatter: patch.setattr(logging.Formatter, "formatTime", lambda *_: "noon"),
    "its format": lambda patch, formatter: setattr(formatter, "format", lambda record: "late"),
    "format": lambda patch, formatter: patch.setattr(logging.Formatter, "format", lambda *_: "late"),
    "its style": lambda patch, formatter: setattr(formatter, "_style", logging.PercentStyle("%(message)s")),
    "the time zone": _in_local_time,
}


@pytest.fixture
def utc() -> Iterator[None]:
    """The time zone is UTC, and what it was afterwards."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_counts_at_once(
    monkeypatch: pytest.MonkeyPatch, formatter: logging.Formatter, change: Callable[[pytest.MonkeyPatch, Any], object]
) -> None:
    handler = ShortcutHandler()
    handler.setFormatter(formatter)
    before = handler.format(new_record())
    with monkeypatch.context() as patch:
        change(patch, formatter)
        after = handler.format(new_record())
        assert after == formatter.format(new_record())
        assert after != before


def test_another_formatter_counts_at_once(handler: ShortcutHandler) -> None:
    handler.setFormatter(logging.Formatter("%(message)s"))

    assert handler.format(new_record()) == "order 1001 is late"


# -- formatters of users --------------------------------------------------------------------------------------------


class _Shouting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).upper()


class _OwnTime(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return f"at {record.created:.6f}"


class _OwnMessage(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return f"<{super().formatMessage(record)}>"


class _ChangingTime(logging.Formatter):
    numbers = itertools.count()

    @property
    def default_time_format(self) -> str:  # type: ignore[override]
        return f"call {next(self.numbers)}"


class _ChangingMilliseconds(logging.Formatter):
    numbers = itertools.count()

    @property
    def default_msec_format(self) -> str:  # type: ignore[override]
        return f"%s call {next(self.numbers)} %03d"


class _ChangingStyle(logging.Formatter):
    numbers = itertools.count()

    def __getattribute__(self, name: str) -> Any:
        if name != "_style":
            return super().__getattribute__(name)
        return logging.PercentStyle(f"%(asctime)s call {next(self.numbers)}")


class _ChangingConverter(logging.Formatter):
    numbers = itertools.count()
    converter = staticmethod(lambda created: time.gmtime(next(_ChangingConverter.numbers)))


class _NoFormatter:
    """Has no more than logging asks for, and no attribute can be read but this."""

    __slots__ = ()

    def format(self, record: logging.LogRecord) -> str:
        return "no text of logging's"


@pytest.mark.parametrize(
    ("formatter", "text"),
    [
        (_Shouting("%(message)s"), "ORDER 1001 IS LATE"),
        (_OwnTime("%(asctime)s"), "at 1790000000.250000"),
        (_OwnMessage("%(message)s"), "<order 1001 is late>"),
        (_NoFormatter(), "no text of logging's"),
        (logging.Formatter("{name} {message}", style="{"), "shop.orders order 1001 is late"),
        (logging.Formatter("$name $message", style="$"), "shop.orders order 1001 is late"),
        (logging.Formatter("%(shop)s %(message)s", defaults={"shop": "tea"}), "tea order 1001 is late"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_a_formatter_of_its_own_kind_is_asked(formatter: Any, text: str) -> None:
    handler = ShortcutHandler()
    handler.setFormatter(formatter)

    assert [handler.format(new_record()) for _ in range(2)] == [text] * 2


@pytest.mark.parametrize("kind", [_ChangingTime, _ChangingMilliseconds, _ChangingStyle, _ChangingConverter])
def test_what_may_change_is_asked_for_every_record(kind: type[logging.Formatter]) -> None:
    handler = ShortcutHandler()
    handler.setFormatter(kind("%(asctime)s"))

    assert handler.format(new_record()) != handler.format(new_record())


# -- less work ------------------------------------------------------------------------------------------------------


class _InUTC(logging.Formatter):
    converter = time.gmtime  # type: ignore[assignment] # typeshed takes it for a method
    default_msec_format = "%s.%03d"


@pytest.mark.parametrize(
    "formatter",
    [logging.Formatter(FULL), logging.Formatter("%(message)s"), logging.Formatter(FULL, "%H:%M:%S"), _InUTC(FULL)],
    ids=["with the time", "without it", "with datefmt", "of a subclass"],
)
def test_a_standard_formatter_need_not_be_asked(formatter: logging.Formatter) -> None:
    handler = ShortcutHandler()
    handler.setFormatter(formatter)

    assert not asked(handler, new_record())
    assert not asked(handler, new_record(NOON + 1))


def test_a_time_that_says_nothing_costs_later_records_no_shortcut(formatter: logging.Formatter) -> None:
    handler = ShortcutHandler()
    handler.setFormatter(formatter)

    with pytest.raises(TypeError):
        handler.format(new_record("noon"))
    assert not asked(handler, new_record())


def test_another_formatter_costs_a_standard_one_no_shortcut(formatter: logging.Formatter) -> None:
    handler = ShortcutHandler()
    handler.setFormatter(_Shouting(FULL))
    assert asked(handler, new_record())

    handler.setFormatter(formatter)
    assert not asked(handler, new_record())
