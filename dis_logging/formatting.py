"""Makes the texts of the standard `logging.Formatter` in half its time: what is the same for a whole second is made once."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from operator import attrgetter
from types import FunctionType, NoneType
from typing import Any

# What decides on a text. The classes are these, whatever somebody puts in their place in the module; the methods must be the
# standard library's own.
_Formatter, _LogRecord, _PercentStyle = logging.Formatter, logging.LogRecord, logging.PercentStyle
_FORMAT = logging.Handler.format
_METHODS = (
    (logging.Handler, ("format",)),
    (_Formatter, ("format", "formatTime", "formatMessage", "usesTime")),
    (_PercentStyle, ("format", "_format", "usesTime")),
)
_LOGGING_FILE = logging.makeLogRecord.__code__.co_filename
# From these a date and a time come out the same for every record of a second.
_CONVERTERS = (time.localtime, time.gmtime)
_VARIABLES = {"_style", "_fmt", "datefmt", "converter", "default_time_format", "default_msec_format"}
_STYLE_VARIABLES = {"_fmt", "_defaults"}
# What a subclass may have of its own; Python itself adds the latter.
_CLASS_VARIABLES = {"converter", "default_time_format", "default_msec_format"} | {
    f"__{name}__" for name in ("module", "qualname", "doc", "dict", "weakref", "firstlineno", "static_attributes")
}
# Compiled when they are first used, as the import of the package is to be quick.
_CONVERSION = r"[#0+ -]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa]"
_TEMPLATE = rf"(?:[^%]|%%|%\(\w+\){_CONVERSION})*"
_LONE_FIELD = f"%{_CONVERSION}"
_FIELD_OR_PERCENT_SIGN = r"%%|%\((\w+)\)"
_MESSAGE_OR_PERCENT_SIGN = r"%%|%\(message\)s"
_TIME_OR_PERCENT_SIGN = r"%%|%\(asctime\)s"
_DATE_AND_MILLISECONDS = "[^%]*%s[^%]*%03d[^%]*"


class _Template:
    """
    A %-style template without the names in it: it takes values by position.

    To take a few attributes of a record is less than half the work of making them all a dictionary, which Python does only
    when it is asked for one.

    Args:
        text: with names; without ``%(message)s`` and ``%(asctime)s``.
    """

    __slots__ = ("text", "values_of")

    def __init__(self, text: str) -> None:
        self.text = re.sub(_FIELD_OR_PERCENT_SIGN, lambda found: found[0] if found[0] == "%%" else "%", text)
        self.values_of = _values_of(_fields_in(text))


def _values_of(fields: list[str]) -> Callable[[logging.LogRecord], tuple[Any, ...]]:
    """Returns what gives the attributes *fields* of a record."""
    if len(fields) > 1:
        return attrgetter(*fields)
    return lambda record: tuple([getattr(record, field) for field in fields])


def _fields_in(template: str) -> list[str]:
    return [field for field in re.findall(_FIELD_OR_PERCENT_SIGN, template) if field]


class _Known:
    """
    What is known of a formatter in one second. Never changed, as several threads may see it.

    Args:
        formatter: None fits no formatter.
        head: what comes before the message, with the text of the second where ``%(asctime)s`` was; None when the formatter
            must be asked.
        tail: what comes after the message, None if that is nothing.
        is_always_asked: whether that is so in any other second, too.
        begin, end: the second, by `LogRecord.created`.
    """

    __slots__ = (
        "begin",
        "converter",
        "end",
        "format",
        "format_message",
        "format_time",
        "formatter",
        "head",
        "is_always_asked",
        "strftime",
        "style",
        "style_variables",
        "tail",
        "time_zone",
        "variables",
    )

    def __init__(self, formatter: logging.Formatter | None, begin: float) -> None:
        # What it is like comes first: what another thread changes from here on is noticed afterwards.
        cls: Any = type(formatter)
        self.formatter: Any = formatter
        self.strftime, self.time_zone = time.strftime, time.tzname
        self.head: _Template | None = None
        self.tail: _Template | None = None
        self.begin, self.end = begin, begin + 1.0
        self.is_always_asked = formatter is None or not _is_standard_class(cls)
        if formatter is None or self.is_always_asked:
            return
        self.format, self.format_time, self.format_message = cls.format, cls.formatTime, cls.formatMessage
        self.converter = formatter.converter
        self.variables = dict(vars(formatter))
        self.style = self.variables.get("_style")
        self.style_variables = dict(vars(self.style))
        if _is_logging_patched():  # perhaps not for long
            return
        if self._is_standard():
            self._divide(self._new_template())
        self.is_always_asked = self.head is None

    def _is_standard(self) -> bool:
        """Returns whether the variables are such as the standard library makes a text of."""
        variables, style_variables = self.variables, self.style_variables
        return (
            variables.keys() <= _VARIABLES
            and type(self.style) is _PercentStyle
            and style_variables.keys() <= _STYLE_VARIABLES
            and not style_variables.get("_defaults")
            and self.converter in _CONVERTERS
            and type(self._setting("default_time_format")) is str  # and no property
            and type(self._setting("default_msec_format")) in (str, NoneType)
            and type(variables.get("datefmt")) in (str, NoneType)  # so that a change shows in a comparison
        )

    def _setting(self, name: str) -> Any:
        return self.variables[name] if name in self.variables else getattr(type(self.formatter), name)

    def _new_template(self) -> str | None:
        """Returns the formatter's template, with the text of the second where ``%(asctime)s`` was; None for an unusual one."""
        template = self.style_variables["_fmt"]
        if type(template) is not str or not re.fullmatch(_TEMPLATE, template):
            return None
        if "%(asctime)" not in template:
            return template
        date_format = self.variables.get("datefmt")
        date = self.strftime(date_format or self._setting("default_time_format"), self.converter(self.begin))
        date = date.replace("%", "%%")
        milliseconds = self._setting("default_msec_format")
        if not date_format and milliseconds:
            if not re.fullmatch(_DATE_AND_MILLISECONDS, milliseconds):
                return None
            date = milliseconds.replace("%03d", "%(msecs)03d").replace("%s", date)
        template = re.sub(_TIME_OR_PERCENT_SIGN, lambda found: found[0] if found[0] == "%%" else date, template)
        # What is left is of another form, such as %(asctime)-30s.
        return None if "%(asctime)" in template else template

    def _divide(self, template: str | None) -> None:
        """Makes head and tail of *template*, if they can be told."""
        if template is None:
            return
        message = next((found for found in re.finditer(_MESSAGE_OR_PERCENT_SIGN, template) if found[0] != "%%"), None)
        if message is None:
            return
        head, tail = template[: message.start()], template[message.end() :]
        # The standard library takes fields from the record's dictionary, and so none of its class.
        if any(field == "message" or hasattr(_LogRecord, field) for field in _fields_in(head + tail)):
            return
        parts = _Template(head), _Template(tail) if tail else None
        # A field that stands alone may come out as some class of text that has its own ways when another is added to it.
        if not any(part is not None and re.fullmatch(_LONE_FIELD, part.text) for part in parts):
            self.head, self.tail = parts


_NOTHING = _Known(None, 0.0)


class Texts:
    """
    Makes the texts of a handler's records as its formatter would, where they can be told without asking it.

    That is so for a `logging.LogRecord` without a traceback and a `logging.Formatter` in the %-style that shows the time, or
    a subclass that has no more of its own than a converter and formats of time; and for a handler that has no `format`
    of its own. What is changed on the handler, on the formatter, or in its class, counts at once; only what nobody is
    likely to change while the program runs may count from the next second on: the locale, the time zone without
    `time.tzset`, the formats of time in the class, `usesTime`, and the methods of the style.

    Safe to use from several threads.
    """

    __slots__ = ("_known", "_latest")

    def __init__(self) -> None:
        self._known = _NOTHING
        self._latest: tuple[object, float] = (None, 0.0)

    def of(self, handler: logging.Handler, record: logging.LogRecord) -> str | None:
        """
        Returns the text of *record*, None when `format` of *handler* must be called.

        Leaves nothing behind on the record, and raises what the formatter would, unless several things are wrong.
        """
        # Every logging call of the program comes by here, so it is one straight way.
        formatter: Any = handler.formatter
        known = self._known
        if known.formatter is formatter and known.is_always_asked:
            return None
        try:
            created = record.created
            if (
                record.exc_info
                or record.exc_text
                or record.stack_info
                or record.__class__ is not _LogRecord
                or created.__class__ is not float
                or handler.format.__func__ is not _FORMAT  # type: ignore[attr-defined] # if not, it is somebody else's
            ):
                return None
            cls = formatter.__class__
            if (
                known.formatter is not formatter
                or not known.begin <= created < known.end
                or formatter.__dict__ != known.variables
                or known.style.__dict__ != known.style_variables
                or formatter.converter is not known.converter
                or cls.format is not known.format
                or cls.formatTime is not known.format_time
                or cls.formatMessage is not known.format_message
                or time.strftime is not known.strftime
                or time.tzname is not known.time_zone
            ):
                known = self._look_again(formatter, created)
            head, tail = known.head, known.tail
        except Exception:  # attributes that are missing, or odd; the formatter has its own words for it
            return None
        if head is None:
            return None
        message = record.getMessage()
        if message.__class__ is not str:
            message = "".join((str(message), ""))  # whatever __str__ gives, a plain text
        try:
            try:
                values = head.values_of(record)
                tail_values = () if tail is None else tail.values_of(record)
            except AttributeError as error:
                missing = KeyError(error.name)
            else:
                text = head.text % values + message
                return text if tail is None else text + tail.text % tail_values
            raise missing
        except KeyError as error:
            # As the standard library does, so without a cause.
            raise ValueError(f"Formatting field not found in record: {error}")  # noqa: B904

    def _look_again(self, formatter: Any, created: float) -> _Known:
        """Returns what is known of *formatter* in another second, or after a change."""
        latest = (formatter, created // 1.0)
        if latest != self._latest:
            # To look takes longer than to ask, so it must be worth it: where records of different seconds, or formatters,
            # take turns, it is not.
            self._latest = latest
            return _NOTHING
        self._known = known = _Known(formatter, latest[1])
        return known


def _is_standard_class(cls: Any) -> bool:
    """Returns whether *cls* is `logging.Formatter`, or differs from it in nothing but its converter and formats of time."""
    ancestors = cls.__mro__
    return ancestors[-2:] == (_Formatter, object) and all(
        vars(ancestor).keys() <= _CLASS_VARIABLES for ancestor in ancestors[:-2]
    )


def _is_logging_patched() -> bool:
    return _Formatter.formatTime.__globals__.get("time") is not time or not all(
        _is_of_logging(getattr(cls, name), name) for cls, names in _METHODS for name in names
    )


def _is_of_logging(method: Any, name: str) -> bool:
    """Returns whether *method* is the standard library's own; functools.wraps would have copied its name, but not its code."""
    return (
        type(method) is FunctionType
        and method.__code__.co_filename == _LOGGING_FILE
        and method.__code__.co_name == name
    )
