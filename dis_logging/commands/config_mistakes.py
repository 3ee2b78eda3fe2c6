"""What dictConfig would refuse in a logging configuration, told without making its handlers, which might create their files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from logging.config import DictConfigurator
from pathlib import Path
from typing import Any, NamedTuple

from dis_logging import options
from dis_logging.escaping import escape

_PARTS = ("formatters", "filters", "handlers", "loggers")


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

    Formatters and filters are made, as their making tells most and leaves nothing behind; of the handlers' classes it is
    only seen whether they can be imported.
    """
    if config.get("version") != 1:
        yield Mistake("version must be 1, which is all that dictConfig knows")
    if config.get("incremental"):  # then all the rest is there already
        return
    wrong = [part for part in _PARTS if not isinstance(config.get(part, {}), Mapping)]
    yield from (Mistake(f"{part} must be a mapping") for part in wrong)
    if not wrong:
        yield from _Parts(config).mistakes()


class _Parts:
    """The parts of a configuration, and the names by which they refer to each other."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._formatters, self._filters, self._handlers, self._loggers = (config.get(part, {}) for part in _PARTS)
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
        if "root" in self._config:
            yield from self._of_logger("root", self._config["root"])

    def _unmakable(self, part: str, make: Callable[[Any], object]) -> Iterator[Mistake]:
        for name in self._config.get(part, {}):
            try:
                make(self._configurator.config[part][name])
            except Exception as error:  # whatever the user's own class raises
                yield Mistake(f"{part.removesuffix('s')} {options.shown(name)} cannot be made: {_why(error)}")

    def _of_handler(self, label: str, section: Any) -> Iterator[Mistake]:
        if not isinstance(section, Mapping):
            yield Mistake(f"{label} must be a mapping")
            return
        yield from self._of_class(label, section.get("()", section.get("class")))
        yield from self._undefined(label, "formatter", [section.get("formatter")], self._formatters)
        if section.get("class") == "logging.handlers.MemoryHandler":
            yield from self._undefined(label, "target", [section.get("target")], self._handlers)
        yield from self._of_level_and_filters(label, section)
        yield from self._of_file(label, section)
        if isinstance(section.get("fallback"), Mapping):
            yield from self._of_handler(f"the fallback of {label}", section["fallback"])

    @staticmethod
    def _of_file(label: str, section: Mapping[str, Any]) -> Iterator[Mistake]:
        filename = section.get("filename")
        if isinstance(filename, str) and "://" not in filename:
            directory = Path(filename).parent
            if not directory.is_dir():
                text = f"{label} writes to a file in {escape(str(directory), 200)}, which is no directory"
                yield Mistake(text, is_certain=not section.get("delay"))

    def _of_class(self, label: str, factory: Any) -> Iterator[Mistake]:
        if factory is None:
            yield Mistake(f"{label} has no class")
        elif isinstance(factory, str):
            try:
                found: Any = self._configurator.convert(factory)  # ext://
                if isinstance(found, str):
                    self._configurator.resolve(found)
            except Exception as error:  # whatever the user's module raises
                yield Mistake(f"{label} has a class that cannot be imported: {escape(factory, 100)} ({_why(error)})")

    def _of_logger(self, label: str, section: Any) -> Iterator[Mistake]:
        if not isinstance(section, Mapping):
            yield Mistake(f"{label} must be a mapping")
            return
        yield from self._undefined(label, "handler", section.get("handlers"), self._handlers)
        yield from self._of_level_and_filters(label, section)

    def _of_level_and_filters(self, label: str, section: Mapping[str, Any]) -> Iterator[Mistake]:
        level = section.get("level")
        if isinstance(level, str) and "://" not in level and not _is_level(level):
            hint = f"; did you mean {level.upper()}?" if _is_level(level.upper()) else ", unless the program adds it"
            yield Mistake(
                f"{label} has the level {options.shown(level)}, which logging does not know{hint}", "?" in hint
            )
        yield from self._undefined(label, "filter", section.get("filters"), self._filters)

    @staticmethod
    def _undefined(label: str, kind: str, names: Any, known: Mapping[str, Any]) -> Iterator[Mistake]:
        """Yields a mistake for each of *names* that is none of the *known* ones; others than strings mean no name."""
        if isinstance(names, str):
            yield Mistake(f"{label} must have a list of {kind}s, not {options.shown(names)}")
        for name in names if isinstance(names, list | tuple) else []:
            if name and isinstance(name, str) and "://" not in name and name not in known:
                hint = options.did_you_mean(name, tuple(map(str, known)))
                yield Mistake(f"{label} has the {kind} {options.shown(name)}, which the configuration lacks{hint}")


def _is_level(name: str) -> bool:
    return isinstance(logging.getLevelName(name), int)


def _why(error: BaseException) -> str:
    """Returns why something cannot be made: of other errors than these two only the class, as they might quote a secret."""
    cause: BaseException | None = error
    while cause is not None:
        is_of_logging = isinstance(cause, ValueError) and str(cause).startswith(("Invalid format", "Style must be"))
        if is_of_logging or isinstance(cause, ImportError):
            return escape(str(cause), 200)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
