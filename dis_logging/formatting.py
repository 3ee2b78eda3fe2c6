"""Formats as the standard `logging.Formatter` does, in half the time: the text of a second is made once, not per record."""

from __future__ import annotations

import logging
import re
import time
from types import NoneType
from typing import Any

_METHODS = ("format", "formatTime", "formatMessage", "usesTime")
_VARIABLES = {"_style", "_fmt", "datefmt", "converter", "default_time_format", "default_msec_format"}
# From these a date and a time come out the same for every record of a second.
_CONVERTERS = (time.localtime, time.gmtime)
_DATE_AND_MILLISECONDS = re.compile("[^%]*%s[^%]*%03d[^%]*")
_TIME_OR_PERCENT_SIGN = re.compile(r"%%|%\(asctime\)s")


class _Shortcut:
    """
    What makes the texts of one formatter for the records of one second; not changed any more once several threads may see it.

    Args:
        formatter: whose texts; None fits no formatter.
        template: %-style, with the text of the second where ``%(asctime)s`` was; None when the formatter must be asked itself.
        begin, end: the second, by `LogRecord.created`.
    """

    __slots__ = (
        "begin",
        "converter",
        "end",
        "format",
        "format_time",
        "formatter",
        "template",
        "time_zone",
        "variables",
    )

    def __init__(self, formatter: logging.Formatter | None, template: str | None = None, begin: float = 0.0) -> None:
        self.formatter = formatter
        self.template = template
        self.begin, self.end = begin, begin + 1.0
        self.time_zone = time.tzname
        # What users are likely to change later on, for a test for instance.
        self.variables = dict(vars(formatter)) if template is not None else {}
        self.converter = getattr(formatter, "converter", None)
        self.format = getattr(type(formatter), "format", None)
        self.format_time = getattr(type(formatter), "formatTime", None)


_NO_SHORTCUT = _Shortcut(None)


class ShortcutHandler(logging.Handler):
    """
    A handler whose `format` gives the very text that the formatter would, without asking it where that can be told.

    That is so for records without a traceback, and for a `logging.Formatter` in the %-style, or a subclass that changes no
    more than its converter and its formats of time. Of the time of many records in a second, only the milliseconds differ.
    Any other formatter is asked. What is changed on a formatter or in its class counts at once; only a change of
    ``default_time_format`` and the like in the class, or of the locale, from the next second on.
    """

    _shortcut = _NO_SHORTCUT

    def format(self, record: logging.LogRecord) -> str:
        """Returns the text of *record*; may set its attribute ``message``, and whatever else the formatter sets."""
        # Every logging call of the program comes by here, so it is one straight way.
        formatter: Any = self.formatter
        shortcut = self._shortcut
        if shortcut.formatter is not formatter:
            shortcut = self._shortcut = _find_shortcut(formatter, record)
        if shortcut.template is not None and not record.exc_info and not record.exc_text and not record.stack_info:
            try:
                if (
                    not shortcut.begin <= record.created < shortcut.end
                    or formatter.__dict__ != shortcut.variables
                    or formatter.converter is not shortcut.converter
                    or formatter.__class__.format is not shortcut.format
                    or formatter.__class__.formatTime is not shortcut.format_time
                    or time.tzname is not shortcut.time_zone
                ):
                    shortcut = self._shortcut = _find_shortcut(formatter, record)
                if shortcut.template is not None:
                    record.message = record.getMessage()
                    return shortcut.template % record.__dict__
            except Exception:  # noqa: S110 - of the record; the formatter, asked now, has its own words for it
                pass
        # What the standard method does, without the call.
        text: str = formatter.format(record) if formatter else super().format(record)
        return text


def _find_shortcut(formatter: logging.Formatter | None, record: logging.LogRecord) -> _Shortcut:
    """Returns the shortcut for *formatter* in the second of *record*, and raises nothing."""
    try:
        begin = record.created // 1.0
        return _Shortcut(formatter, _template_of(formatter, begin) if formatter is not None else None, begin)
    except Exception:  # a time or a format that says nothing; the next record may have a better one
        return _NO_SHORTCUT


def _template_of(formatter: logging.Formatter, second: float) -> str | None:
    """Returns the template of the texts of *formatter* in *second*, None when there is none."""
    if not _is_standard(formatter):
        return None
    template: str = vars(vars(formatter)["_style"])["_fmt"]
    if not formatter.usesTime():
        return template
    date = time.strftime(formatter.datefmt or formatter.default_time_format, formatter.converter(second))
    date = date.replace("%", "%%")
    if not formatter.datefmt and formatter.default_msec_format:
        if not _DATE_AND_MILLISECONDS.fullmatch(formatter.default_msec_format):
            return None
        date = formatter.default_msec_format.replace("%03d", "%(msecs)03d").replace("%s", date)
    template = _TIME_OR_PERCENT_SIGN.sub(lambda found: found[0] if found[0] == "%%" else date, template)
    # What is left is of another form, such as %(asctime)-30s.
    return None if "%(asctime)" in template else template


def _is_standard(formatter: logging.Formatter) -> bool:
    """Returns whether the texts of *formatter* are those of a `logging.Formatter` with its variables."""
    cls: Any = type(formatter)
    return (
        issubclass(cls, logging.Formatter)
        and cls.__getattribute__ is object.__getattribute__
        and all(_is_of_logging(getattr(cls, name), name) for name in _METHODS)
        and vars(formatter).keys() <= _VARIABLES
        and _is_plain_style(vars(formatter).get("_style"))
        and formatter.converter in _CONVERTERS
        # In the class as well, where a property would have a text of its own for every record.
        and {type(formatter.default_time_format), type(cls.default_time_format)} == {str}
        and {type(formatter.default_msec_format), type(cls.default_msec_format)} <= {str, NoneType}
    )


def _is_of_logging(method: Any, name: str) -> bool:
    """Returns whether *method* is that of `logging.Formatter`, and nobody has put another in its place."""
    return (getattr(method, "__module__", ""), getattr(method, "__qualname__", "")) == ("logging", f"Formatter.{name}")


def _is_plain_style(style: object) -> bool:
    if type(style) is not logging.PercentStyle:
        return False
    variables = vars(style)
    return type(variables.get("_fmt")) is str and not variables.get("_defaults")
