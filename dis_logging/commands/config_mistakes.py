"""What dictConfig would refuse in a logging configuration, told without making its handlers, which might create their files."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from logging.config import DictConfigurator
from logging.handlers import QueueHandler
from typing import Any, NamedTuple

from dis_logging import options
from dis_logging.escaping import escape
from dis_logging.handler import DISHandler

_PARTS = ("formatters", "filters", "handlers", "loggers")
# What dictConfig itself takes from a handler's section.
_NO_ARGUMENTS = frozenset({"class", "()", ".", "level", "formatter", "filters"})


class Mistake(NamedTuple):
    """
    What is wrong with a configuration.

    Args:
        text: says what, and where.
        is_certain: False when the program that uses the configuration may have done something first that makes it right.
    """

    text: str
    is_certain: bool = True


def mistakes_in(config: Mapping[str, Any]) -> Iterator[Mistake]:
    """
    Yields what is wrong with *config*; one mistake is enough for dictConfig to refuse all of it.

    Formatters and filters are made, as their making tells most and few have an effect by it; of the handlers' classes it is
    only seen whether they can be imported, and whether they would take the arguments.
    """
    if config.get("version") != 1:
        yield Mistake("version must be 1, which is all that dictConfig knows")
    if config.get("incremental"):  # then all the rest is there already
        return
    wrong = [part for part in _PARTS if config.get(part, ()) != [] and not isinstance(config.get(part, {}), Mapping)]
    yield from (Mistake(f"{part} must be a mapping") for part in wrong)
    if not wrong:
        yield from _Parts(config).mistakes()


class _Parts:
    """The parts of a configuration, and the names by which they refer to each other."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._formatters, self._filters, self._handlers, self._loggers = (config.get(part) or {} for part in _PARTS)
        self._configurator = DictConfigurator({**config})

    def mistakes(self) -> Iterator[Mistake]:
        """Yields what is wrong with each part."""
        configurator: Any = self._configurator
        yield from self._unmakable("formatters", configurator.configure_formatter)
        yield from self._unmakable("filters", configurator.configure_filter)
        for name, section in self._handlers.items():
            yield from self._of_handler(f"handler {options.shown(name)}", section)
        for name, section in self._loggers.items():
            yield from self._of_logger(f"logger {options.shown(name)}", section)
        root = self._config.get("root")
        if root and not isinstance(root, str):  # cfg:// means a logger
            yield from self._of_logger("root", root)

    def _unmakable(self, part: str, make: Callable[[Any], object]) -> Iterator[Mistake]:
        for name in self._config.get(part) or {}:
            try:
                make(self._configurator.config[part][name])
            except (Exception, SystemExit) as error:  # whatever the user's own class raises
                yield Mistake(f"{part.removesuffix('s')} {options.shown(name)} cannot be made: {_why(error)}")

    def _of_handler(self, label: str, section: Any) -> Iterator[Mistake]:
        if not isinstance(section, Mapping):
            yield Mistake(f"{label} must be a mapping")
            return
        yield from self._of_class(label, section)
        yield from self._undefined(label, "formatter", [section.get("formatter") or None], self._formatters)
        if section.get("class") == "logging.handlers.MemoryHandler":
            yield from self._undefined(label, "target", [section.get("target")], self._handlers)
        yield from self._of_level_and_filters(label, section)
        yield from self._of_file(label, section)
        fallback = section.get("fallback")
        if isinstance(fallback, Mapping) and not isinstance(fallback.get("fallback"), Mapping):  # it may contain itself
            yield from self._of_handler(f"the fallback of {label}", fallback)

    @staticmethod
    def _of_file(label: str, section: Mapping[str, Any]) -> Iterator[Mistake]:
        filename = section.get("filename")
        if isinstance(filename, str | os.PathLike) and filename and "://" not in str(filename):
            directory = os.path.dirname(filename) or os.curdir
            if not os.path.isdir(directory):
                text = f"{label} writes to a file in {escape(str(directory), 200)}, which is no directory"
                # The program may make it, or be somebody to whom it shows.
                is_hidden = isinstance(_failure_of(lambda: os.stat(directory)), PermissionError)
                yield Mistake(text, is_certain=not section.get("delay") and not is_hidden)

    def _of_class(self, label: str, section: Mapping[str, Any]) -> Iterator[Mistake]:
        factory: Any = section.get("()", section.get("class"))
        if factory is None:
            yield Mistake(f"{label} has no class")
            return
        try:
            found: Any = self._configurator.convert(factory)  # ext://
            if isinstance(found, str):
                found = self._configurator.resolve(found)
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            yield Mistake(f"{label} has a class that cannot be imported: {options.shown(factory)} ({_why(error)})")
            return
        # Ours tells its own mistakes, and dictConfig has more to say of those with a queue.
        if isinstance(found, type) and not issubclass(found, DISHandler | QueueHandler):
            names = [name for name in section if isinstance(name, str) and name.isidentifier()]
            arguments = dict.fromkeys(name for name in names if name not in _NO_ARGUMENTS)
            misfit = _failure_of(lambda: inspect.signature(found).bind(**arguments))
            if isinstance(misfit, TypeError):
                yield Mistake(f"{label} has options that do not fit its class: {misfit}")

    def _of_logger(self, label: str, section: Any) -> Iterator[Mistake]:
        if not isinstance(section, Mapping):
            yield Mistake(f"{label} must be a mapping")
            return
        yield from self._undefined(label, "handler", section.get("handlers"), self._handlers)
        yield from self._of_level_and_filters(label, section)

    def _of_level_and_filters(self, label: str, section: Mapping[str, Any]) -> Iterator[Mistake]:
        yield from self._of_level(label, section.get("level"))
        yield from self._undefined(label, "filter", section.get("filters"), self._filters)

    @staticmethod
    def _of_level(label: str, level: Any) -> Iterator[Mistake]:
        if level is None or isinstance(level, int):
            return
        if not isinstance(level, str):
            yield Mistake(f"{label} must have a level by name or number, not {options.shown(level)}")
        elif "://" not in level and not _is_level(level):
            text = f"{label} has the level {options.shown(level)}, which logging does not know"
            if _is_level(level.upper()):
                yield Mistake(f"{text}; did you mean {level.upper()}?")
            elif level.isdigit():
                yield Mistake(f"{text}: a number has no quotes")
            else:
                yield Mistake(f"{text}, unless the program adds it", is_certain=False)

    @staticmethod
    def _undefined(label: str, kind: str, names: Any, known: Mapping[str, Any]) -> Iterator[Mistake]:
        """Yields a mistake for each of *names* that is none of the *known* ones; a filter may be an object as well."""
        if isinstance(names, str) and "://" not in names:
            yield Mistake(f"{label} must have a list of {kind}s, not {options.shown(names)}")
        for name in names if isinstance(names, list | tuple) else []:
            if isinstance(name, str) and name not in known:
                hint = options.did_you_mean(name, tuple(map(str, known)))
                yield Mistake(f"{label} has the {kind} {options.shown(name)}, which the configuration lacks{hint}")


def _is_level(name: str) -> bool:
    return isinstance(logging.getLevelName(name), int)


def _failure_of(action: Callable[[], object]) -> Exception | None:
    try:
        action()
    except Exception as error:
        return error
    return None


def _why(error: BaseException) -> str:
    """Returns why something cannot be made, by the first of the errors that led to it of which more than the kind can be told."""
    cause: BaseException | None = error
    while cause is not None:
        told = options.reason(cause)
        if told != type(cause).__name__:
            return told + _hint(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _hint(error: BaseException) -> str:
    missing = error if isinstance(error, ImportError) else error.__cause__
    if isinstance(missing, ModuleNotFoundError) and missing.name and "." not in missing.name:
        return "; run it in the directory that holds it, set PYTHONPATH, or install it"
    return ""
