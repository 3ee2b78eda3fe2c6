"""
The emulator for users' own tests: it tells whether something was logged, and if it was not, why that may be.

The pytest plugin, `pytest_dis_logging`, makes one for each test that asks for it; other test runners use it as they use
`DISEmulator`.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.messages import message_of
from dis_logging.emulator.stream import StoredRecord
from dis_logging.escaping import escape
from dis_logging.handler import DISHandler

# Usually over in milliseconds; a machine that is busy, or a fault that is played, may take longer.
_FLUSH_TIMEOUT = 10.0
# What a fault still holds up when its test is over is freed by closing connections.
_CLEAN_FLUSH_TIMEOUT = 0.5
_SHOWN_RECORDS = 5
_SHOWN_LENGTH = 200

# Where JSON formatters put these: python-json-logger, structlog, ECS, and the names of logging itself.
_LOGGER_FIELDS = ("logger", "logger_name", "name", "log.logger")
_LEVEL_FIELDS = ("level", "levelname", "severity", "log.level")
_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"} | {
    name: name for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
}


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """
    What the emulator holds for one record.

    Args:
        stream: the stream it is in.
        partition_key: the name of its logger, unless the handler has a *partition_key* of its own.
        text: as formatted.
        level: its level's name as far as the text tells, see `AssertingEmulator`; None when it does not.
        fields: the JSON object that the text is, empty for any other text.
    """

    stream: str
    partition_key: str
    text: str
    level: str | None
    fields: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, stream: str, stored: StoredRecord) -> LoggedRecord:
        """Returns what is to be read from a stored record."""
        fields = _json_object(stored.text)
        level = _level_of_fields(fields) if fields else _level_of_line(stored.text.partition("\n")[0])
        return cls(stream, stored.partition_key or "", stored.text, level, fields)

    @property
    def loggers(self) -> tuple[str, ...]:
        """What may be the name of its logger."""
        names = (self.fields.get(name) for name in _LOGGER_FIELDS)
        return (self.partition_key, *(name for name in names if isinstance(name, str)))

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, and the strings in it if it is JSON, which may spell them with escapes."""
        return (self.text, *(value for value in self.fields.values() if isinstance(value, str)))

    def __str__(self) -> str:
        return f"{self.stream}: {self.level or '(no level)'} {self.partition_key}: {_shown(self.text)}"


class AssertingEmulator(DISEmulator):
    """
    A local DIS with assertions on what was logged to it.

    They flush the `DISHandler` objects of this process that log here, so a test need not wait. They look at what is stored:

    - *logger* is compared with the partition key, which is the logger's name unless the handler says otherwise, and, when
      the record is a JSON object, with its ``logger``, ``logger_name``, ``name`` and ``log.logger``.
    - *level* is what the formatter wrote: of a JSON object the first of ``level``, ``levelname``, ``severity`` and
      ``log.level`` that it has, as a name or a number; of any other text the first name of one of logging's five levels in
      its first line that is in capitals, in square brackets or after ``level=``.
      A record whose text tells no level has none, and equals none.
    - *text* is a part of the record as formatted, or of one of its strings if it is a JSON object; *match* is a regular
      expression that is searched for there.

    Criteria that are left out are met by every record.
    """

    def __enter__(self) -> AssertingEmulator:
        super().__enter__()
        return self

    def reset(self, streams: Mapping[str, int] | None = None) -> None:
        """Starts over, see `DISEmulator.reset`; what handlers of this process still hold is sent before, not after."""
        self._flush_handlers()
        super().reset(streams)

    def logged(
        self,
        text: str | None = None,
        *,
        match: str | re.Pattern[str] | None = None,
        logger: str | None = None,
        level: int | str | None = None,
        stream: str | None = None,
    ) -> list[LoggedRecord]:
        """
        Returns the stored records that meet the criteria, in order of arrival in each stream.

        Raises:
            ValueError: when *level* is none that logging knows.
        """
        wanted = _Wanted(text, match, logger, _level_name(level), stream)
        self._flush_handlers()
        return self._meeting(wanted)

    def assert_logged(
        self,
        text: str | None = None,
        *,
        match: str | re.Pattern[str] | None = None,
        logger: str | None = None,
        level: int | str | None = None,
        stream: str | None = None,
        times: int | None = None,
        timeout: float = 1.0,
    ) -> list[LoggedRecord]:
        """
        Returns the stored records that meet the criteria, of which there must be one or more.

        Args:
            text, match, logger, level, stream: what to look for, see the class.
            times: how many there must be; default any number but 0.
            timeout: longest wait, in seconds, for records of other processes and threads. Those that this thread has
                logged need none.

        Raises:
            AssertionError: when there are none, or not so many; tells what there is instead.
            ValueError: when *level* is none that logging knows.
        """
        __tracebackhide__ = True  # pytest shows the test's own line
        wanted = _Wanted(text, match, logger, _level_name(level), stream)
        self._flush_handlers()
        self.wait_for(lambda _: len(self._meeting(wanted)) >= (1 if times is None else times), timeout)
        found = self._meeting(wanted)
        if len(found) == times or (found and times is None):
            return found
        if found:
            raise AssertionError(f"{wanted} was logged {_times(len(found))}, not {times}:{_listed(found)}")
        raise AssertionError(f"{wanted} was not logged{_indented(self._explain(wanted))}")

    def assert_not_logged(
        self,
        text: str | None = None,
        *,
        match: str | re.Pattern[str] | None = None,
        logger: str | None = None,
        level: int | str | None = None,
        stream: str | None = None,
    ) -> None:
        """
        Raises AssertionError when a stored record meets the criteria.

        Raises:
            AssertionError: shows the records.
            ValueError: when *level* is none that logging knows.
        """
        __tracebackhide__ = True  # pytest shows the test's own line
        wanted = _Wanted(text, match, logger, _level_name(level), stream)
        self._flush_handlers()
        found = self._meeting(wanted)
        if found:
            raise AssertionError(f"{wanted} was logged {_times(len(found))}:{_listed(found)}")

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """
        Undoes when it ends what was done to logging meanwhile: handlers, levels, disabled loggers.

        Each `DISHandler` made meanwhile is closed, so no thread of it goes on; older ones that log here are flushed.
        """
        before = _LoggingState()
        older = _dis_handlers()
        try:
            yield
        finally:
            handlers = _dis_handlers()  # held: one that is only attached to a logger would go with restore
            super().reset()  # faults that still play would hold up the end
            flushed = [handler.flush(_CLEAN_FLUSH_TIMEOUT) for handler in self._own(handlers)]
            if not all(flushed):
                self.drop_connections()
            before.restore()
            for handler in handlers:
                if not any(handler is each for each in older):
                    handler.close()

    # -- looking ----------------------------------------------------------------------------------------------------

    def _flush_handlers(self) -> None:
        for handler in self._own(_dis_handlers()):
            handler.flush(_FLUSH_TIMEOUT)

    def _own(self, handlers: list[DISHandler]) -> list[DISHandler]:
        """Returns those that log here."""
        return [handler for handler in handlers if _endpoint(handler) == self.endpoint]

    def _all(self) -> list[LoggedRecord]:
        return [LoggedRecord.read(name, stored) for name in self.stream_names for stored in self.records(name)]

    def _meeting(self, wanted: _Wanted) -> list[LoggedRecord]:
        return [record for record in self._all() if not wanted.differences(record)]

    # -- explaining -------------------------------------------------------------------------------------------------

    def _explain(self, wanted: _Wanted) -> Iterator[str]:
        """Tells what was logged instead, and what may have come in between."""
        records = self._all()
        yield from self._nearest(wanted, records)
        for code, count in self.refused.items():
            yield f"DIS refused {_times(count)}: {code} {message_of(code)}".rstrip()
        handlers = _dis_handlers()
        attached = {id(handler) for logger in _loggers() for handler in logger.handlers}
        for handler in handlers:
            # One that was only made, or belongs to a test that is over, explains nothing.
            if id(handler) in attached or _endpoint(handler) == self.endpoint:
                yield from self._explain_handler(handler)
        if not attached.intersection(map(id, handlers)):
            yield "no DISHandler of this process is attached to a logger"
        if wanted.logger is not None:
            yield from _obstacles(wanted.logger, wanted.level)

    def _nearest(self, wanted: _Wanted, records: list[LoggedRecord]) -> Iterator[str]:
        if not records:
            yield "nothing at all arrived"
            return
        nearest = sorted(records, key=wanted.distance)[:_SHOWN_RECORDS]
        yield f"arrived: {len(records)} record{'s' * (len(records) > 1)}, the nearest first"
        for record in nearest:
            yield f"  {record}  <- differs in {', '.join(wanted.differences(record))}"
        if len(records) > len(nearest):
            yield f"  and {len(records) - len(nearest)} more"
        if wanted.level is not None and any(record.level is None for record in nearest):
            yield "(no level): the formatter writes none, such as %(levelname)s"

    def _explain_handler(self, handler: DISHandler) -> Iterator[str]:
        stats = handler.stats()
        if _endpoint(handler) != self.endpoint:
            yield f"this one logs elsewhere, not to the emulator at {self.endpoint}: {handler!r}"
        elif stats.buffered or stats.failed or stats.dropped:
            given_up = " (its fallback was told why)" if stats.failed else ""
            yield f"not everything arrived{given_up}: {handler!r}"


# -- criteria -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is looked for; None is met by every record."""

    text: str | None
    match: str | re.Pattern[str] | None
    logger: str | None
    level: str | None
    stream: str | None

    def differences(self, record: LoggedRecord) -> list[str]:
        """Returns which criteria *record* does not meet, none when it is what is looked for."""
        checks: tuple[tuple[str, object, Callable[[], bool]], ...] = (
            ("stream", self.stream, lambda: record.stream == self.stream),
            ("logger", self.logger, lambda: self.logger in record.loggers),
            ("level", self.level, lambda: record.level == self.level),
            ("text", self.text, lambda: any(str(self.text) in text for text in record.texts)),
            ("match", self.match, lambda: any(re.search(self.match or "", text) for text in record.texts)),
        )
        return [name for name, criterion, is_met in checks if criterion is not None and not is_met()]

    def distance(self, record: LoggedRecord) -> tuple[int, float]:
        """Returns how far *record* is from what is looked for, to sort by."""
        text = self.text or (self.match.pattern if isinstance(self.match, re.Pattern) else self.match) or ""
        return len(self.differences(record)), -SequenceMatcher(None, text, record.text[:_SHOWN_LENGTH]).ratio()

    def __str__(self) -> str:
        criteria = [
            f"{name} {value if name == 'level' else repr(getattr(value, 'pattern', value))}"
            for name in ("stream", "logger", "level", "text", "match")
            if (value := getattr(self, name)) is not None
        ]
        return f"a record with {', '.join(criteria)}" if criteria else "a record"


def _level_name(level: int | str | None) -> str | None:
    """Returns the name of a *level* that the user asks for."""
    if level is None:
        return None
    name = logging.getLevelName(level) if isinstance(level, int) else level.strip().upper()
    known = isinstance(logging.getLevelName(name), int)
    if not known:
        raise ValueError(f"level must be one that logging knows, such as 'ERROR' or 40, not {level!r}")
    return _LEVELS.get(name, name)


def _json_object(text: str) -> Mapping[str, Any]:
    if not text.startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _level_of_fields(fields: Mapping[str, Any]) -> str | None:
    for name in _LEVEL_FIELDS:
        value = fields.get(name)
        if isinstance(value, int):
            return str(logging.getLevelName(value))
        if isinstance(value, str):
            return _LEVELS.get(value.upper(), value.upper())
    return None


_NAMES = "|".join(_LEVELS)
_LEVEL_IN_LINE = re.compile(
    rf"\b(?P<capitals>{_NAMES})\b|\[\s*(?P<brackets>(?i:{_NAMES}))\s*\]|\blevel=[\"']?(?P<key>(?i:{_NAMES}))\b"
)


def _level_of_line(line: str) -> str | None:
    found = _LEVEL_IN_LINE.search(line)
    return None if found is None else _LEVELS[found[found.lastgroup or 0].upper()]


# -- the logging of this process ----------------------------------------------------------------------------------------


class _LoggingState:
    """What the loggers of this process are set to, to be put back."""

    def __init__(self) -> None:
        self._disable = logging.root.manager.disable
        self._loggers = {
            logger: (logger.level, logger.propagate, logger.disabled, list(logger.handlers), list(logger.filters))
            for logger in _loggers()
        }

    def restore(self) -> None:
        """Puts everything back; a logger that is new is set to what loggers begin with."""
        logging.disable(self._disable)
        for logger in _loggers():
            level, propagate, disabled, handlers, filters = self._loggers.get(
                logger, (logging.NOTSET, True, False, [], [])
            )
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
            logger.handlers[:], logger.filters[:] = handlers, filters


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


def _dis_handlers() -> list[DISHandler]:
    """Returns those of this process, attached or not."""
    # No public function tells them all: getHandlerNames knows those with a name only.
    handlers = [reference() for reference in list(logging._handlerList)]  # type: ignore[attr-defined] # noqa: SLF001
    return [handler for handler in handlers if isinstance(handler, DISHandler)]


def _endpoint(handler: DISHandler) -> str:
    return handler._endpoint  # noqa: SLF001 - of this package


def _obstacles(name: str, level: str | None) -> Iterator[str]:
    """Tells what keeps the records of a logger from the handlers."""
    logger = logging.root if name == "root" else logging.root.manager.loggerDict.get(name)
    if not isinstance(logger, logging.Logger):
        yield f"this process has no logger {name!r}"
        return
    if logger.disabled:
        yield f"logger {name!r} is disabled, as by a configuration without disable_existing_loggers=False"
    number = logging.DEBUG if level is None else int(logging.getLevelName(level))
    lowest = max(logger.getEffectiveLevel(), logging.root.manager.disable + 1)
    if number < lowest:
        yield f"logger {name!r} takes no record below {logging.getLevelName(lowest)}"
    attached = [handler for handler in _handlers_reached_by(logger) if isinstance(handler, DISHandler)]
    for handler in attached:
        if number < handler.level:
            yield f"this one takes no record below {logging.getLevelName(handler.level)}: {handler!r}"
    if not attached:
        yield f"no DISHandler is attached to logger {name!r}, or to one that it propagates to"


def _handlers_reached_by(logger: logging.Logger) -> Iterator[logging.Handler]:
    current: logging.Logger | None = logger
    while current is not None:
        yield from current.handlers
        current = current.parent if current.propagate else None


# -- where handlers look ------------------------------------------------------------------------------------------------


def environment_for(dis: DISEmulator, stream_name: str) -> dict[str, str | None]:
    """
    Returns the environment variables, None for those to be unset, that lead a handler without options to *dis*.

    A stream that the environment names already stays.
    """
    settings = {"auth_token": None, "security_token": None, **dis.client_options()}
    variables = {f"DIS_LOGGING_{name.upper()}": value for name, value in settings.items()}
    return {**variables, "DIS_LOGGING_STREAM_NAME": os.environ.get("DIS_LOGGING_STREAM_NAME") or stream_name}


# -- texts --------------------------------------------------------------------------------------------------------------


def _shown(text: str) -> str:
    return f"'{escape(text, _SHOWN_LENGTH)}'"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _listed(records: list[LoggedRecord]) -> str:
    more = [f"and {len(records) - _SHOWN_RECORDS} more"] if len(records) > _SHOWN_RECORDS else []
    return _indented([*map(str, records[:_SHOWN_RECORDS]), *more])


def _indented(lines: Iterator[str] | list[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)
