"""Texts that are told without asking the formatter: the same as its own, whatever users do, and for less work."""

import copy
import functools
import itertools
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.formatting import Texts
from tests.conftest import STREAM

NOON = 1_790_000_000.0
FULL = "%(asctime)s %(levelname)s %(name)s %(message)s"


class Handler(logging.Handler):
    """Asks its formatter only where `Texts` cannot tell the text, as `DISHandler` does."""

    def __init__(self, formatter: Any) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.texts = Texts()

    def text_of(self, record: logging.LogRecord) -> str:
        text = self.texts.of(self, record)
        return self.format(record) if text is None else text

    def warm_up(self) -> None:
        """Makes what can be known in the second of `NOON` known."""
        for _ in range(2):
            outcome(self.text_of, new_record())


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
        return type(error), str(error), repr(error.__cause__), repr(error.__context__)


def assert_same_text(handler: Handler, record: logging.LogRecord) -> None:
    assert outcome(handler.text_of, record) == outcome(handler.format, record)


def calls_of(action: Callable[[], object]) -> Counter[str]:
    """Returns which functions of logging and of `Texts` *action* has called, and how often."""
    calls: Counter[str] = Counter()
    sys.setprofile(lambda frame, event, arg: calls.update([frame.f_code.co_name]) if event == "call" else None)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


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
        "%%(message)s",
        "%(getMessage)s",
        "%(lineno)d",
        "%(levelname)-8s",
        "%(msecs)d",
        "%(created)f",
        "%(thing)s",
        "%(name)",
        "%s",
        "5% slow",
        "% ",
        "[",
        " - ",
    ]
)
DATE_FORMATS = st.sampled_from([None, "", "%H:%M:%S", "%d%%", "%j %(asctime)s", "100 %%(name)s"])
TIME_FORMATS = st.sampled_from(["%Y-%m-%d %H:%M:%S", "%S", "%%03d %%s %%(msecs)03d", ""])
MILLISECOND_FORMATS = st.sampled_from(
    ["%s,%03d", "%s.%03d", "", None, "%s", "%03d %s", "%s %d", "[%s] %03d ms", "%%%s,%03d"]
)
TIMES = st.one_of(
    st.floats(NOON - 2, NOON + 2),
    st.floats(),
    st.integers(-(10**20), 10**20),
    st.sampled_from([NOON, None, "noon", -0.5, 1e300, 10**400, True, Fraction(NOON)]),
)
MESSAGES = st.sampled_from(["late", "order %d", "%s is 100%% late", "%d %d", "%(asctime)s", "line\nbreak", "", None, 5])
MORE = st.sampled_from(
    [{}, {"thing": "tea"}, {"thing": ("tea", "%s")}, {"thing": "tea", "asctime": "of another handler", "message": "x"}]
)


@settings(max_examples=500, deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=6),
    date_format=DATE_FORMATS,
    time_format=TIME_FORMATS,
    millisecond_format=MILLISECOND_FORMATS,
    converter=st.sampled_from([time.localtime, time.gmtime]),
    records=st.lists(st.tuples(TIMES, st.floats(0, 1000), MESSAGES, MORE), min_size=1, max_size=5),
)
def test_a_text_is_the_formatters(
    pieces: list[str],
    date_format: str | None,
    time_format: str,
    millisecond_format: str | None,
    converter: Callable[[float | None], time.struct_time],
    records: list[tuple[Any, float, object, dict[str, str]]],
) -> None:
    formatter = logging.Formatter("".join(pieces), date_format, validate=False)
    formatter.converter = converter
    formatter.default_time_format = time_format
    formatter.default_msec_format = millisecond_format
    handler = Handler(formatter)
    for created, msecs, message, more in records:
        for _ in range(2):  # for the second, what can be known of its second is known
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
        ("%(asctime)s %(nothing)s", None, "%s,%03d"),
        ("%(asctime)s 5% slow", "%H:%M", "%s,%03d"),
        ("100% %(asctime)s", "at %H:%M", "%s,%03d"),
        ("%(name)%(asctime)s", "%d", "%s,%03d"),
        ("%s %(asctime)s", None, "%s,%03d"),
        ("%(asctime)s %s", "%H:%M", "%s,%03d"),
        ("%(asctime)s %(msecs)*d", "%H:%M", "%s,%03d"),
        ("%(message)s", None, "%s,%03d"),
        ("%%%(message)s%%", None, "%s,%03d"),
        ("%(message)s %(lineno)d", None, "%s,%03d"),
        ("%(message)s %(asctime)s", None, "%s,%03d"),
        ("%(name)s %(message)s %(nothing)s", None, "%s,%03d"),
        ("%(nothing)s %(message)s %(name)s", None, "%s,%03d"),
        ("%(message)s %(message)s", None, "%s,%03d"),
        ("%(message)-30s|", None, "%s,%03d"),
        ("%(message)s %(message)-30s|", None, "%s,%03d"),
        ("%(name)s %(levelname)s", None, "%s,%03d"),
        ("%(getMessage)s %(message)s", None, "%s,%03d"),
        ("%(args)s %(message)s", None, "%s,%03d"),
        ("%(thread)s%(message)s", None, "%s,%03d"),
        ("%(message)s%(thread)s", None, "%s,%03d"),
        ("%(message)s%(thread).80s", None, "%s,%03d"),
        ("%(thread)-2s%(message)s", None, "%s,%03d"),
    ],
)
@pytest.mark.parametrize("time_format", ["%H:%M:%S", "%H %%03d %%s"])
def test_a_text_of_an_odd_format_is_the_formatters(
    text: str, date_format: str | None, millisecond_format: str, time_format: str
) -> None:
    formatter = logging.Formatter(text, date_format, validate=False)
    formatter.default_msec_format = millisecond_format
    formatter.default_time_format = time_format
    handler = Handler(formatter)
    handler.warm_up()

    assert_same_text(handler, new_record())
    assert_same_text(handler, new_record(asctime="of another handler"))
    assert_same_text(handler, new_record(thread=_Shouted("one")))
    assert_same_text(handler, new_record(thread=_Missing()))


class _Unreadable:
    def __str__(self) -> str:
        return self.text  # type: ignore[attr-defined, no-any-return] # there is none


class _Missing:
    def __str__(self) -> str:
        raise KeyError("thing")


class _Shouted(str):
    """Is no text as it stands, and neither is what it becomes with arguments."""

    __slots__ = ()

    def __str__(self) -> str:
        return _Shouted(str.__add__(self, "!"))

    def __mod__(self, values: object) -> Any:
        return _Shouted(str.__mod__(self, values))

    def __add__(self, other: str) -> str:
        return "not a text"

    def __radd__(self, other: str) -> str:
        return "not a text"


class _ReadsTenths(logging.LogRecord):
    @property
    def msecs(self) -> float:
        return float(self.__dict__["msecs"]) // 10

    @msecs.setter
    def msecs(self, value: float) -> None:
        self.__dict__["msecs"] = value


class _TracesLate(logging.LogRecord):
    def getMessage(self) -> str:
        self.exc_text = "Traceback: made with the message"
        return super().getMessage()


class _MovesInTime(logging.LogRecord):
    def getMessage(self) -> str:
        self.created = 0.0
        return super().getMessage()


def _of_kind(kind: type[logging.LogRecord]) -> logging.LogRecord:
    record = kind("shop.orders", logging.INFO, "/shop/orders.py", 7, "late", (), None, "place")
    record.created, record.msecs = NOON, 250.0
    return record


@pytest.mark.parametrize(
    "record",
    [
        new_record(exc_text="Traceback: of another handler"),
        new_record(stack_info="Stack: here"),
        new_record(exc_info=(ValueError, ValueError("too late"), None)),
        new_record(message="of another handler", asctime="of another time"),
        new_record(Fraction(NOON)),
        new_record(2**53 + 1),
        new_record(msecs="many"),
        new_record(levelname=_Unreadable()),
        new_record(levelname=("INFO", "%s")),
        new_record(NOON, _Shouted("order %s is late")),
        new_record(name=_Shouted("shop")),
        _of_kind(_ReadsTenths),
        _of_kind(_TracesLate),
        _of_kind(_MovesInTime),
    ],
    ids=[
        "exc_text",
        "stack_info",
        "exc_info",
        "formatted before",
        "fraction",
        "int",
        "msecs",
        "unreadable",
        "tuple",
        "message of its own kind",
        "name of its own kind",
        "property",
        "traces late",
        "moves",
    ],
)
def test_a_text_of_an_unusual_record_is_the_formatters(record: logging.LogRecord) -> None:
    handler = Handler(logging.Formatter(FULL))
    handler.warm_up()

    assert_same_text(handler, record)


def test_a_record_without_an_attribute_is_the_formatters_business() -> None:
    handler = Handler(logging.Formatter(FULL))
    handler.warm_up()
    record = new_record()
    del record.exc_text

    assert handler.texts.of(handler, record) is None


@pytest.mark.parametrize("format_", [FULL, f"%(nothing)s {FULL}", f"{FULL} %(lineno)d", "%(message)-30s %(asctime)s"])
def test_a_record_is_left_as_it_was(dis: DISEmulator, format_: str) -> None:
    handler = DISHandler(**dis.handler_options(STREAM))
    handler.setFormatter(logging.Formatter(format_))
    records = [
        new_record(),
        new_record(),
        new_record(asctime="of a filter"),
        new_record(message="of another", asctime="of another"),
        new_record(exc_info=(ValueError, ValueError("too late"), None)),
        new_record(exc_info=(ValueError, ValueError("too late"), None), exc_text="of another"),
    ]
    before = [dict(vars(record)) for record in records]

    for record in records:
        handler.handle(record)
    handler.close()

    assert [vars(record) for record in records] == before


def test_a_handler_without_a_formatter_gives_the_message() -> None:
    assert Handler(None).text_of(new_record()) == "order 1001 is late"


def test_threads_in_different_seconds_get_their_own() -> None:
    formatter = logging.Formatter(FULL)
    handler = Handler(formatter)
    wrong: list[object] = []

    def log(second: int) -> None:
        for number in range(500):
            record = new_record(NOON + second + number // 250)
            text = handler.text_of(record)
            if text != formatter.format(record):
                wrong.append(text)

    threads = [threading.Thread(target=log, args=(second,)) for second in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- what is changed ------------------------------------------------------------------------------------------------


class _Shouting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).upper()


class _Loud(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).upper()


class _SameName:
    def format(self, record: logging.LogRecord) -> str:
        return "late"


def _wrapped(method: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(method)
    def shout(*args: Any) -> str:
        return method(*args).upper()

    return shout


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
    "format, wrapped": lambda patch, formatter: patch.setattr(
        logging.Formatter, "format", _wrapped(logging.Formatter.format)
    ),
    "format, by the same name": lambda patch, formatter: patch.setattr(logging.Formatter, "format", _SameName.format),
    "format, another of logging's": lambda patch, formatter: patch.setattr(
        logging.Formatter, "format", logging.Formatter.formatMessage
    ),
    "formatMessage": lambda patch, formatter: patch.setattr(logging.Formatter, "formatMessage", lambda *_: "late"),
    "its class": lambda patch, formatter: setattr(formatter, "__class__", _Loud),
    "its style": lambda patch, formatter: setattr(formatter, "_style", logging.PercentStyle("%(message)s")),
    "the text of its style": lambda patch, formatter: setattr(formatter._style, "_fmt", "%(message)s"),
    "the format of its style": lambda patch, formatter: setattr(formatter._style, "format", lambda record: "late"),
    "strftime": lambda patch, formatter: patch.setattr(time, "strftime", lambda *_: "noon"),
    "the time zone": _in_local_time,
}


@pytest.fixture
def utc() -> Iterator[None]:
    """The time zone is UTC, and afterwards what it was."""
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
    monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch, Any], object]
) -> None:
    handler = Handler(logging.Formatter(FULL))
    handler.warm_up()
    before = handler.text_of(new_record())
    with monkeypatch.context() as patch:
        change(patch, handler.formatter)
        for _ in range(3):
            after = outcome(handler.text_of, new_record())
            assert after == outcome(handler.format, new_record())
            assert after != before


PATCHES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "the style's format": lambda patch: patch.setattr(logging.PercentStyle, "format", lambda *_: "late"),
    "the style's _format": lambda patch: patch.setattr(logging.PercentStyle, "_format", lambda *_: "late"),
    "usesTime": lambda patch: patch.setattr(logging.Formatter, "usesTime", lambda *_: False),
    "time, for logging": lambda patch: patch.setattr(
        logging, "time", SimpleNamespace(**{**vars(time), "strftime": lambda *_: "noon"})
    ),
}


@pytest.mark.parametrize("apply", PATCHES.values(), ids=PATCHES)
def test_a_patch_counts_from_the_next_second_on(
    monkeypatch: pytest.MonkeyPatch, apply: Callable[[pytest.MonkeyPatch], object]
) -> None:
    handler = Handler(logging.Formatter(FULL))
    handler.warm_up()
    with monkeypatch.context() as patch:
        apply(patch)
        for _ in range(3):
            assert_same_text(handler, new_record(NOON + 1))


def test_what_changes_while_it_is_looked_at_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    formatter = logging.Formatter("%(asctime)s", "%H:%M")
    handler = Handler(formatter)
    handler.text_of(new_record())
    strftime = time.strftime

    def change(*args: Any) -> str:  # as another thread might, just then
        text = strftime(*args)
        formatter.datefmt = "%d"
        return text

    monkeypatch.setattr(time, "strftime", change)
    handler.text_of(new_record())
    monkeypatch.setattr(time, "strftime", strftime)

    assert_same_text(handler, new_record())


def test_a_date_format_that_says_it_has_not_changed_is_not_believed() -> None:
    class Same(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return True

    formatter = logging.Formatter(FULL, Same("%H"))
    handler = Handler(formatter)
    handler.warm_up()
    formatter.datefmt = Same("%d.")

    assert_same_text(handler, new_record())


def test_another_formatter_counts_at_once() -> None:
    handler = Handler(logging.Formatter(FULL))
    handler.warm_up()
    handler.setFormatter(logging.Formatter("%(asctime)s", "%H"))

    for _ in range(3):
        assert_same_text(handler, new_record())


# -- formatters and handlers of users -------------------------------------------------------------------------------


class _Wrapping(logging.Formatter):
    @functools.wraps(logging.Formatter.format)
    def format(self, record: logging.LogRecord) -> str:  # type: ignore[override] # for mypy it is no method any more
        return super().format(record).upper()


class _OwnTime(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return f"at {record.created:.6f}"


class _Falsy(logging.Formatter):
    def __len__(self) -> int:
        return 0


class _NoFormatter:
    """Has no more than logging asks for."""

    __slots__ = ()

    def format(self, record: logging.LogRecord) -> str:
        return "no text of logging's"


class _OwnStyle(logging.PercentStyle):
    def _format(self, record: logging.LogRecord) -> str:
        return "of a style"


def _with_style(style: logging.PercentStyle) -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s")
    formatter._style = style
    return formatter


@pytest.mark.parametrize(
    ("formatter", "text"),
    [
        (_Shouting("%(message)s"), "ORDER 1001 IS LATE"),
        (_Wrapping("%(message)s"), "ORDER 1001 IS LATE"),
        (_Loud("%(message)s"), "ORDER 1001 IS LATE"),
        (_OwnTime("%(asctime)s"), "at 1790000000.250000"),
        (_Falsy("<%(message)s>"), "order 1001 is late"),
        (_NoFormatter(), "no text of logging's"),
        (logging.Formatter("{name} {message}", style="{"), "shop.orders order 1001 is late"),
        (logging.Formatter("%(asctime)s {message}", style="{"), "%(asctime)s order 1001 is late"),
        (logging.Formatter("$name $message", style="$"), "shop.orders order 1001 is late"),
        (logging.Formatter("%(asctime)s %(shop)s", "%%", defaults={"shop": "tea"}), "% tea"),
        (_with_style(_OwnStyle("%(asctime)s")), "of a style"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_a_formatter_of_its_own_kind_is_asked(formatter: Any, text: str) -> None:
    handler = Handler(formatter)

    assert [handler.text_of(new_record()) for _ in range(3)] == [text] * 3


class _ChangingTime(logging.Formatter):
    numbers = itertools.count()

    @property
    def default_time_format(self) -> str:  # type: ignore[override]
        return f"call {next(self.numbers)}"


class _ChangingMilliseconds(logging.Formatter):
    @property
    def default_msec_format(self) -> str:  # type: ignore[override]
        return f"%s call {next(_ChangingTime.numbers)} %03d"


class _ChangingStyle(logging.Formatter):
    def __getattribute__(self, name: str) -> Any:
        if name != "_style":
            return super().__getattribute__(name)
        return logging.PercentStyle(f"%(asctime)s call {next(_ChangingTime.numbers)}")


class _ChangingConverter(logging.Formatter):
    converter = staticmethod(lambda created: time.gmtime(next(_ChangingTime.numbers)))


class _ChangingDate(logging.Formatter):
    datefmt = property(lambda self: f"call {next(_ChangingTime.numbers)}", lambda self, value: None)


@pytest.mark.parametrize(
    "kind", [_ChangingTime, _ChangingMilliseconds, _ChangingStyle, _ChangingConverter, _ChangingDate]
)
def test_what_may_change_is_asked_for_every_record(kind: type[logging.Formatter]) -> None:
    handler = Handler(kind("%(asctime)s"))

    assert len({handler.text_of(new_record()) for _ in range(4)}) == 4


def deliver(dis: DISEmulator, handler: DISHandler, *messages: object) -> list[str]:
    """Returns the texts that arrive at DIS when *messages* are logged, but for those of other loggers."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "noon"))
    for message in ("one", "two", *messages):
        handler.handle(new_record(time.time(), message, "argument"))
    handler.close()
    return [record.text for record in dis.records(STREAM)][2:]


def test_a_handler_whose_format_looks_at_the_record_finds_what_the_formatter_leaves(dis: DISEmulator) -> None:
    class Handler(DISHandler):
        def format(self, record: logging.LogRecord) -> str:
            super().format(record)
            return f"{record.asctime}|{record.message}"

    assert deliver(dis, Handler(**dis.handler_options(STREAM)), "%s") == ["noon|argument"]


def test_a_handler_that_shares_its_format_with_another_class_has_it(dis: DISEmulator) -> None:
    class Redacting(logging.Handler):
        def format(self, record: logging.LogRecord) -> str:
            return super().format(record).replace("argument", "***")

    class Handler(DISHandler, Redacting): ...

    assert deliver(dis, Handler(**dis.handler_options(STREAM)), "%s") == ["noon ***"]


def test_a_format_that_is_set_on_a_handler_counts(dis: DISEmulator) -> None:
    handler = DISHandler(**dis.handler_options(STREAM))
    handler.format = lambda record: "late"  # type: ignore[method-assign]

    assert deliver(dis, handler, "%s") == ["late"]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("format_", [FULL, f"{FULL} %(nothing)s"])
def test_an_argument_is_asked_once_for_its_text(format_: str, fails: bool) -> None:
    """It may log itself."""

    class Argument:
        calls = 0

        def __str__(self) -> str:
            self.calls += 1
            if fails:
                raise ValueError("gone")
            return "argument"

    handler = Handler(logging.Formatter(format_))
    handler.warm_up()
    argument = Argument()

    assert_same_text(handler, new_record(NOON, "%s", "argument"))
    outcome(handler.text_of, new_record(NOON, "%s", argument))

    assert argument.calls == 1


# -- less work ------------------------------------------------------------------------------------------------------


class _InUTC(logging.Formatter):
    """Times in UTC."""

    converter = time.gmtime  # type: ignore[assignment] # which mypy takes for a method
    default_msec_format = "%s.%03d"


@pytest.mark.parametrize(
    "formatter",
    [
        logging.Formatter(FULL),
        logging.Formatter(FULL, "%H:%M:%S"),
        _InUTC(FULL),
        logging.Formatter(f"%(thing)s {FULL}"),
        logging.Formatter("%(message)s at %(asctime)s by %(thing)s"),
    ],
    ids=["as most are", "with datefmt", "of a subclass", "with a field of the user's", "with a tail"],
)
def test_a_standard_formatter_need_not_be_asked_again_in_a_second(formatter: logging.Formatter) -> None:
    handler = Handler(formatter)

    for second in range(3):
        records = [new_record(NOON + second + number / 100, thing="tea") for number in range(100)]
        calls = calls_of(lambda records=records: [handler.text_of(record) for record in records])  # type: ignore[misc]
        assert (calls["text_of"], calls["formatTime"], calls["_new_template"]) == (100, 1, 1)


@pytest.mark.parametrize("format_", ["%(levelname)s %(message)s", "%(message)s"])
def test_a_formatter_that_shows_no_time_need_not_be_asked_either(format_: str) -> None:
    handler = Handler(logging.Formatter(format_))
    handler.warm_up()

    assert calls_of(lambda: handler.text_of(new_record()))["formatMessage"] == 0


@pytest.mark.parametrize("format_", [FULL, "%(message)s"])
def test_where_seconds_take_turns_only_the_formatter_is_asked(format_: str) -> None:
    handler = Handler(logging.Formatter(format_))
    records = [new_record(NOON + number % 2) for number in range(100)]

    assert calls_of(lambda: [handler.text_of(record) for record in records])["_new_template"] == 0


def test_where_formatters_take_turns_only_they_are_asked() -> None:
    formatters = [logging.Formatter(FULL), logging.Formatter(FULL)]
    handler = Handler(None)

    def log() -> None:
        for number in range(100):
            handler.setFormatter(formatters[number % 2])
            handler.text_of(new_record())

    assert calls_of(log)["_new_template"] == 0


def test_a_time_that_says_nothing_costs_later_records_nothing() -> None:
    handler = Handler(logging.Formatter(FULL))
    with pytest.raises(TypeError):
        handler.text_of(new_record("noon"))
    handler.warm_up()

    assert calls_of(lambda: handler.text_of(new_record()))["formatTime"] == 0


def test_another_formatter_costs_a_standard_one_nothing() -> None:
    handler = Handler(_Shouting(FULL))
    handler.warm_up()
    handler.setFormatter(logging.Formatter(FULL))
    handler.warm_up()

    assert calls_of(lambda: handler.text_of(new_record()))["formatTime"] == 0


def test_a_patch_that_is_gone_costs_nothing_from_the_next_second_on(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Handler(logging.Formatter(FULL))
    with monkeypatch.context() as patch:
        patch.setattr(logging.Formatter, "formatTime", lambda *_: "noon")
        handler.warm_up()
    for _ in range(2):
        handler.text_of(new_record(NOON + 1))

    assert calls_of(lambda: handler.text_of(new_record(NOON + 1)))["formatTime"] == 0
